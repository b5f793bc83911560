//! One shim under way: a process that makes calls as it is told to (`PROTOCOL.md`).

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::scenario::workspace_root;

/// The longest that a shim may take for one command. Every scenario's own timeouts are shorter.
const PATIENCE: Duration = Duration::from_secs(90);

/// A running shim.
#[derive(Debug)]
pub(crate) struct Shim {
    child: Child,
    commands: Option<ChildStdin>,
    answers: Receiver<io::Result<String>>,
    stderr: PathBuf,
    next: u64,
}

/// What a shim says of one command.
#[derive(Debug, Deserialize)]
pub(crate) struct Reply {
    id: u64,
    /// Whether all of its calls got an answer.
    pub(crate) ok: bool,
    /// The last one's status.
    #[serde(default)]
    pub(crate) status: Option<u16>,
    /// The bytes that the application got, over all of its calls.
    #[serde(default)]
    pub(crate) bytes: u64,
    /// The error in the client's words.
    #[serde(default)]
    pub(crate) error: Option<String>,
    /// How many of its calls came to what: a status, `refused-` and the concept that refused, or `failed`.
    #[serde(default)]
    pub(crate) got: BTreeMap<String, u64>,
    /// How many answers had what in the header that was named.
    #[serde(default)]
    pub(crate) values: BTreeMap<String, u64>,
}

/// Where a shim works.
#[derive(Debug)]
pub(crate) struct Surroundings<'a> {
    /// The ledger's home.
    pub(crate) home: &'a Path,
    /// The authority that its clients trust.
    pub(crate) ca: &'a Path,
    /// The service that it is, in the ledger.
    pub(crate) service: &'a str,
    /// More of its environment.
    pub(crate) environment: &'a [(&'a str, &'a str)],
    /// Where its stderr goes.
    pub(crate) stderr: &'a Path,
}

impl Shim {
    pub(crate) fn start(run: &[String], surroundings: &Surroundings<'_>) -> Result<Self, String> {
        let (program, arguments) = run.split_first().ok_or("nothing to run")?;
        let stderr = surroundings.stderr.to_owned();
        let file = File::create(&stderr).map_err(|e| format!("{}: {e}", stderr.display()))?;
        let mut command = Command::new(program);
        for name in ["http_proxy", "https_proxy", "all_proxy", "no_proxy"] {
            command.env_remove(name).env_remove(name.to_uppercase());
        }
        for name in
            ["FARCALL_DISABLED", "OTEL_SDK_DISABLED", "SSL_CERT_FILE", "NODE_OPTIONS", "REQUESTS_CA_BUNDLE"]
        {
            command.env_remove(name);
        }
        let child = command
            .args(arguments)
            .current_dir(workspace_root())
            .env("FARCALL_HOME", surroundings.home)
            .env("FARCALL_CONFIG", Path::new(env!("CARGO_MANIFEST_DIR")).join("farcall.toml"))
            .env("FARCALL_TEST_CA", surroundings.ca)
            // Node reads this one once, as it starts: where it is not set, its shim starts itself anew.
            .env("NODE_EXTRA_CA_CERTS", surroundings.ca)
            .env("OTEL_SERVICE_NAME", surroundings.service)
            .envs(surroundings.environment.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(file)
            .spawn();
        let mut child = child.map_err(|e| format!("`{program}` cannot be started: {e}"))?;
        let commands = child.stdin.take();
        let (sender, answers) = channel();
        if let Some(stdout) = child.stdout.take() {
            // Ends with the process, whose end closes the pipe.
            thread::spawn(move || {
                for line in BufReader::new(stdout).lines() {
                    if sender.send(line).is_err() {
                        return;
                    }
                }
            });
        }
        Ok(Self { child, commands, answers, stderr, next: 0 })
    }

    /// Has the shim do something; `command` without its id.
    pub(crate) fn tell(&mut self, mut command: Value) -> Result<Reply, String> {
        self.next += 1;
        command["id"] = json!(self.next);
        let said = match &mut self.commands {
            Some(stdin) => writeln!(stdin, "{command}").and_then(|()| stdin.flush()),
            None => Err(io::ErrorKind::BrokenPipe.into()),
        };
        said.map_err(|e| self.lost(&format!("it no longer listens ({e})")))?;
        let line = match self.answers.recv_timeout(PATIENCE) {
            Ok(Ok(line)) => line,
            Ok(Err(e)) => return Err(self.lost(&format!("its answer cannot be read ({e})"))),
            Err(RecvTimeoutError::Timeout) => {
                // It is of no use any more, and would answer the next command with this one's result.
                self.kill();
                return Err(self.lost(&format!("it gave no answer within {PATIENCE:?}")));
            }
            Err(RecvTimeoutError::Disconnected) => return Err(self.lost("it ended")),
        };
        let reply: Reply =
            serde_json::from_str(&line).map_err(|e| self.lost(&format!("it said {line:?} ({e})")))?;
        if reply.id == self.next {
            Ok(reply)
        } else {
            Err(self.lost(&format!("it answered command {} instead of {}", reply.id, self.next)))
        }
    }

    /// Has the shim write its ledger.
    pub(crate) fn flush(&mut self) -> Result<(), String> {
        let reply = self.tell(json!({"flush": true}))?;
        if reply.ok { Ok(()) } else { Err(self.lost(&format!("its flush failed: {:?}", reply.error))) }
    }

    /// Sends it SIGTERM and waits for its end.
    pub(crate) fn terminate(mut self) -> Result<ExitStatus, String> {
        kill_process(Pid::from_child(&self.child), Signal::TERM).map_err(|e| format!("no SIGTERM: {e}"))?;
        self.await_end("it does not end by SIGTERM")?;
        self.child.wait().map_err(|e| self.lost(&format!("it cannot be waited for ({e})")))
    }

    /// What it wrote to stderr so far.
    pub(crate) fn complaints(&self) -> String {
        fs::read_to_string(&self.stderr).unwrap_or_default()
    }

    /// Closes its stdin and waits for its end.
    pub(crate) fn finish(mut self) -> Result<(), String> {
        self.commands = None;
        self.await_end("it does not end at the end of its stdin")?;
        match self.child.wait() {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(self.lost(&format!("it ended with {status}"))),
            Err(e) => Err(self.lost(&format!("it cannot be waited for ({e})"))),
        }
    }

    /// The pipe closes when the process ends: no need to poll for it.
    fn await_end(&mut self, or_else: &str) -> Result<(), String> {
        match self.answers.recv_timeout(PATIENCE) {
            Err(RecvTimeoutError::Disconnected) => Ok(()),
            Ok(said) => Err(self.lost(&format!("it said {said:?} unasked"))),
            Err(RecvTimeoutError::Timeout) => {
                self.kill();
                Err(self.lost(or_else))
            }
        }
    }

    fn kill(&mut self) {
        // Fails only where it has ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    fn lost(&self, what: &str) -> String {
        let said = fs::read_to_string(&self.stderr).unwrap_or_default();
        let lines: Vec<&str> = said.lines().collect();
        let last = &lines[lines.len().saturating_sub(12)..];
        let stderr = if last.is_empty() { String::new() } else { format!("; stderr:\n{}", last.join("\n")) };
        format!("the shim: {what}{stderr}")
    }
}

impl Drop for Shim {
    fn drop(&mut self) {
        self.kill();
    }
}
