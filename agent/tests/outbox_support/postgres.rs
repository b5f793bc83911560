//! A PostgreSQL of these tests alone: in a directory of its own, reached by a socket in it, run by a user without
//! rights.
#![allow(dead_code, clippy::unwrap_used)]

use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, Weak};
use std::thread;
use std::time::{Duration, Instant};

/// The server refuses to run as root: then it is this user's.
const NOBODY: u32 = 65_534;
/// Long enough for any machine.
const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) struct Server {
    directory: tempfile::TempDir,
    programs: PathBuf,
    /// The process, while there is one.
    running: Arc<(Mutex<Option<u32>>, Condvar)>,
    databases: AtomicUsize,
    /// Beside the usual ones.
    settings: &'static [&'static str],
}

/// The tests of one program share a server as long as one of them has it.
static SHARED: Mutex<Weak<Server>> = Mutex::new(Weak::new());

impl Server {
    /// `None` where there is no PostgreSQL on this machine, and says so.
    pub(crate) fn shared() -> Option<Arc<Self>> {
        let mut shared = SHARED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(server) = shared.upgrade() {
            return Some(server);
        }
        let server = Arc::new(Self::start()?);
        *shared = Arc::downgrade(&server);
        Some(server)
    }

    /// One of its own, for who kills it.
    pub(crate) fn start() -> Option<Self> {
        Self::start_with(&[])
    }

    /// One with these settings.
    pub(crate) fn start_with(settings: &'static [&'static str]) -> Option<Self> {
        let Some(programs) = programs() else {
            println!("SKIPPED (postgres): no initdb on this machine; scripts/setup-system installs it");
            eprintln!("SKIPPED (postgres): no initdb on this machine; scripts/setup-system installs it");
            return None;
        };
        let directory = tempfile::Builder::new().prefix("farcall-pg").tempdir_in("/tmp").unwrap();
        if is_root() {
            chown(directory.path(), Some(NOBODY), Some(NOBODY)).unwrap();
        }
        let server =
            Self { directory, programs, running: Arc::default(), databases: AtomicUsize::new(0), settings };
        let made = server
            .as_nobody("initdb")
            .args(["--no-sync", "--auth=trust", "--username=farcall", "--encoding=UTF8", "--locale=C", "-D"])
            .arg(server.data())
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(made.success(), "initdb: {made}");
        server.run();
        Some(server)
    }

    /// Starts the server, and waits until it answers. What another one left is recovered first.
    pub(crate) fn run(&self) {
        let begun = Instant::now();
        loop {
            self.spawn();
            while self.pid().is_some() {
                if self.answers() {
                    return;
                }
                assert!(begun.elapsed() < PATIENCE, "the server does not answer: {}", self.log());
                thread::sleep(Duration::from_millis(20));
            }
            // The processes of the one before may have its memory yet.
            assert!(begun.elapsed() < PATIENCE, "the server does not start: {}", self.log());
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn spawn(&self) {
        let mut command = self.as_nobody("postgres");
        command.arg("-D").arg(self.data()).arg("-k").arg(self.directory.path());
        // Small, and as safe as in production.
        for setting in [
            "listen_addresses=",
            "shared_buffers=16MB",
            "max_connections=60",
            "fsync=on",
            "max_wal_size=128MB",
        ] {
            command.args(["-c", setting]);
        }
        for setting in self.settings {
            command.args(["-c", setting]);
        }
        let log =
            fs::OpenOptions::new().create(true).append(true).open(self.directory.path().join("log")).unwrap();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let running = Arc::clone(&self.running);
        let (told, hears) = std::sync::mpsc::channel();
        // It dies with the thread that started it: with this program, however that ends.
        thread::spawn(move || {
            let mut child = command.spawn().unwrap();
            *running.0.lock().unwrap() = Some(child.id());
            told.send(()).unwrap();
            let _ = child.wait();
            *running.0.lock().unwrap() = None;
            running.1.notify_all();
        });
        hears.recv().unwrap();
    }

    /// SIGKILL to all its processes at once, as when the machine's kernel does it.
    pub(crate) fn kill(&self) {
        let Some(pid) = self.pid() else { return };
        // One that stands still forks no more.
        signal(pid, Signal::STOP);
        let begun = Instant::now();
        while !matches!(state_of(pid), None | Some('T' | 'Z' | 'X')) {
            assert!(begun.elapsed() < PATIENCE, "it does not stand still");
            thread::sleep(Duration::from_millis(1));
        }
        let mut all = children_of(pid);
        all.insert(0, pid);
        for pid in all {
            signal(pid, Signal::KILL);
        }
        let (pid, changed) = &*self.running;
        let (pid, waited) =
            changed.wait_timeout_while(pid.lock().unwrap(), PATIENCE, |pid| pid.is_some()).unwrap();
        assert!(pid.is_none() && !waited.timed_out(), "it does not die");
    }

    /// Starts it again as a standby of nobody: it answers, and takes nothing until it is promoted.
    pub(crate) fn stand_by(&self) {
        self.kill();
        fs::write(self.data().join("standby.signal"), "").unwrap();
        if is_root() {
            chown(self.data().join("standby.signal"), Some(NOBODY), Some(NOBODY)).unwrap();
        }
        self.run();
        assert_eq!(self.ask("postgres", "SELECT pg_is_in_recovery()"), "t");
    }

    pub(crate) fn promote(&self) {
        assert_eq!(self.ask("postgres", "SELECT pg_promote(true, 100)"), "t", "{}", self.log());
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        *self.running.0.lock().unwrap()
    }

    /// All processes of the server, to be stopped.
    pub(crate) fn pids(&self) -> Vec<u32> {
        self.pid().map(|pid| [vec![pid], children_of(pid)].concat()).unwrap_or_default()
    }

    /// The address of a database of its own.
    pub(crate) fn database(&self) -> String {
        let name = format!("test{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.ask("postgres", &format!("CREATE DATABASE {name}"));
        self.url(&name)
    }

    pub(crate) fn url(&self, database: &str) -> String {
        let socket = self.directory.path().display().to_string().replace('/', "%2F");
        format!("postgres://farcall@{socket}/{database}")
    }

    /// What the server answers to a question, as psql prints it.
    pub(crate) fn ask(&self, database: &str, sql: &str) -> String {
        let done = self.psql(database, sql);
        assert!(done.status.success(), "{sql}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8_lossy(&done.stdout).trim().to_owned()
    }

    fn psql(&self, database: &str, sql: &str) -> std::process::Output {
        let mut command = Command::new(self.programs.join("psql"));
        command.env("PGCONNECT_TIMEOUT", "10").env_remove("PGOPTIONS");
        command.args(["-X", "-A", "-t", "-q", "-U", "farcall", "-d", database, "-c", sql, "-h"]);
        command.arg(self.directory.path()).output().unwrap()
    }

    fn answers(&self) -> bool {
        self.psql("postgres", "SELECT 1").status.success()
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    fn as_nobody(&self, program: &str) -> Command {
        let program = self.programs.join(program);
        let mut command = Command::new("setpriv");
        if is_root() {
            command.args(["--reuid", &NOBODY.to_string(), "--regid", &NOBODY.to_string(), "--clear-groups"]);
        }
        command.args(["--pdeathsig", "KILL", "--"]).arg(program).current_dir(self.directory.path());
        command.env_clear().env("PATH", "/usr/bin:/bin").env("LC_ALL", "C");
        command
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Debian has the server's programs in no `PATH`.
fn programs() -> Option<PathBuf> {
    let packaged = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = packaged.map(|version| version.path().join("bin")).collect();
    found.sort();
    let path = std::env::var_os("PATH").unwrap_or_default();
    found.splice(0..0, std::env::split_paths(&path));
    found.into_iter().rev().find(|bin| bin.join("initdb").is_file() && bin.join("psql").is_file())
}

fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

/// A process's state and its parent; none where it is gone.
fn stat(process: &Path) -> Option<(char, u32)> {
    let stat = fs::read_to_string(process.join("stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

fn state_of(pid: u32) -> Option<char> {
    stat(&Path::new("/proc").join(pid.to_string())).map(|(state, _)| state)
}

fn children_of(pid: u32) -> Vec<u32> {
    let all = fs::read_dir("/proc").unwrap().flatten();
    all.filter(|process| stat(&process.path()).is_some_and(|(_, parent)| parent == pid))
        .filter_map(|process| process.file_name().to_str()?.parse().ok())
        .collect()
}
