//! `farcall-sidecar watch`: everything that is seen, as JSON lines.

use std::{
    error::Error,
    fs,
    io::{self, Write},
    mem::MaybeUninit,
    time::{Duration, Instant},
};

use farcall_sidecar::{
    attach::{Capture, Options, cgroup::Cgroup},
    tap::{Observation, Progress},
};
use serde_json::{Value, json};

use crate::{cli::Scope, signals};

/// How often connections still open are reported.
const SWEEP: Duration = Duration::from_secs(1);

pub(crate) fn watch(scope: &Scope) -> Result<(), Box<dyn Error>> {
    signals::install();
    let cgroup = Cgroup::open(&scope.cgroup)?;
    let mut storage = MaybeUninit::uninit();
    let options = Options { include_loopback: scope.include_loopback };
    let mut capture = Capture::start(&mut storage, &cgroup, &options)?;
    eprintln!("farcall-sidecar: watching {}", cgroup.path.display());
    if let Some(path) = &scope.ready_file {
        fs::write(path, "ready\n")?;
    }
    let mut swept = Instant::now();
    while !signals::stopped() {
        print(capture.poll(SWEEP.saturating_sub(swept.elapsed()))?)?;
        if swept.elapsed() >= SWEEP {
            print(capture.sweep()?)?;
            swept = Instant::now();
        }
    }
    print(capture.sweep()?)?;
    print_line(&json!({ "kind": "end", "losses": capture.losses()? }))?;
    Ok(())
}

fn print(observations: Vec<Observation>) -> io::Result<()> {
    for observation in observations {
        match observation {
            Observation::Connection(progress) => print_line(&connection(&progress))?,
        }
    }
    Ok(())
}

fn print_line(value: &Value) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{value}")?;
    out.flush()
}

fn connection(progress: &Progress) -> Value {
    let connection = &progress.connection;
    json!({
        "kind": "connection",
        "id": connection.id,
        "first": progress.first,
        "last": progress.last,
        "pid": connection.process.tgid,
        "executable": connection.process.executable,
        "comm": connection.process.comm,
        "uid": connection.process.uid,
        "cgroup": connection.process.cgroup,
        "local": connection.local.0,
        "local_port": connection.local.1,
        "remote": connection.remote.0,
        "remote_port": connection.remote.1,
        "name": connection.name.as_ref().map(|(name, _)| &**name),
        "name_source": connection.name.as_ref().map(|(_, source)| source),
        "bytes_out": connection.bytes_out,
        "bytes_in": connection.bytes_in,
        "new_out": progress.new_out,
        "new_in": progress.new_in,
        "established": connection.established != 0,
        "duration_ns": connection.closed.checked_sub(connection.opened),
        "rtt_us": connection.rtt_us,
        "retransmits": connection.retransmits,
        "tls": connection.tls.map(|tls| tls.name()),
        "offered": connection.offered,
        "exchanges": connection.exchanges,
        "completeness": connection.verdict,
    })
}
