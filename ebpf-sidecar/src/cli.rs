//! Arguments, and the commands that need no capture.

use std::{
    io::{self, ErrorKind, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Args, Parser, Subcommand};
use farcall_sidecar::attach::{
    Options, WELL_KNOWN,
    check::{self, Need},
};

/// Sees the outbound calls of programs that nobody instrumented, from the kernel.
///
/// The sidecar looks at one cgroup and its descendants: a container, a systemd service, or a cgroup that you make
/// yourself. It reports every TCP connection that leaves it, and the calls inside where it can read them (OpenSSL as
/// a shared library, or plaintext; HTTP/1.1 and HTTP/2). It never alters or blocks traffic.
#[derive(Debug, Parser)]
#[command(
    name = "farcall-sidecar",
    version,
    max_term_width = 100,
    after_help = "\
Begin with `farcall-sidecar check`. Then, to look at one service:
  farcall-sidecar watch --cgroup /system.slice/my.service
to count its calls, and read them with `farcall report`:
  farcall-sidecar run --cgroup /system.slice/my.service --home /var/lib/farcall
or at a program in a cgroup of its own (the version 2 hierarchy may be mounted elsewhere):
  mkdir /sys/fs/cgroup/look && echo $$ > /sys/fs/cgroup/look/cgroup.procs
  farcall-sidecar watch --cgroup /look"
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Count the calls of a cgroup in the ledger, beside those that the libraries count, until interrupted
    Run(RunArguments),
    /// Print connections and calls as JSON, one a line, until interrupted
    Watch(Scope),
    /// Say what this kernel offers, what is missing and what depends on it. Exits 1 if calls cannot be seen
    Check(CheckArguments),
}

/// What to look at.
#[derive(Clone, Debug, Args)]
pub(crate) struct Scope {
    /// The cgroup to look at, with its descendants: a directory, or a path below the version 2 hierarchy
    #[arg(long, value_name = "PATH")]
    pub(crate) cgroup: PathBuf,
    /// Also report connections to loopback addresses (vendors behind a local proxy, tests)
    #[arg(long)]
    pub(crate) include_loopback: bool,
    /// Probe this TLS library from the start, before any process maps it. May be given several times
    #[arg(long, value_name = "FILE")]
    pub(crate) library: Vec<PathBuf>,
    /// Probe a TLS library only once a process of the cgroup maps it, not already where one lies in the usual folders: less
    /// to pay for programs outside that use it too, and the first call of the first process may be missed
    #[arg(long)]
    pub(crate) only_mapped: bool,
    /// Create this file once everything is attached
    #[arg(long, value_name = "FILE")]
    pub(crate) ready_file: Option<PathBuf>,
}

impl Scope {
    /// What to capture in it.
    pub(crate) fn options(&self) -> Options {
        let folders = if self.only_mapped { &[][..] } else { WELL_KNOWN };
        Options {
            include_loopback: self.include_loopback,
            libraries: self.library.clone(),
            folders: folders.iter().map(PathBuf::from).collect(),
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct RunArguments {
    #[command(flatten)]
    pub(crate) scope: Scope,
    /// Where the ledger is; libraries find the sidecar there [default: $FARCALL_HOME, then the XDG state directory]
    #[arg(long, value_name = "DIR")]
    pub(crate) home: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct CheckArguments {
    /// Print the findings as JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn check(arguments: &CheckArguments) -> ExitCode {
    let findings = check::check();
    let sufficient = check::sufficient(&findings);
    let mut text = String::new();
    if arguments.json {
        text = serde_json::json!({ "sufficient": sufficient, "findings": findings }).to_string() + "\n";
    } else {
        for finding in &findings {
            let mark = match (finding.present, finding.need) {
                (true, _) => "yes    ",
                (false, Need::Detail) => "missing",
                (false, _) => "MISSING",
            };
            text += &format!("{mark}  {}: {}\n", finding.feature, finding.detail);
            text += &format!("         for {}\n", finding.used_for);
        }
        text += if sufficient {
            "\nCalls can be seen here.\n"
        } else {
            "\nCalls cannot be seen here: see MISSING above.\n"
        };
    }
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        // A reader that has seen enough (`| head`) is no error.
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            say(&format!("cannot write to stdout: {error}"));
            ExitCode::FAILURE
        }
        _ if sufficient => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

/// Prints a line to stderr. Where nobody reads it, or its disk is full, there is nobody to tell, and the sidecar goes on.
pub(crate) fn say(sentence: &str) {
    let _unheard = writeln!(io::stderr(), "farcall-sidecar: {sentence}");
}
