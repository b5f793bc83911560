//! `farcall-sidecar watch`: everything that is seen, as JSON lines.

use std::{
    error::Error,
    fs,
    io::{self, ErrorKind, Write},
    mem::MaybeUninit,
    time::{Duration, Instant},
};

use farcall_sidecar::{
    attach::{Capture, cgroup::Cgroup},
    tap::{Exchange, Observation, Progress},
};
use serde_json::{Value, json};

use crate::{
    cli::{Scope, say},
    privileges, signals,
};

/// How often connections still open are reported.
const SWEEP: Duration = Duration::from_secs(1);

pub(crate) fn watch(scope: &Scope) -> Result<(), Box<dyn Error>> {
    let is_left = |error: &io::Error| error.kind() == ErrorKind::BrokenPipe;
    match print_all(scope) {
        // A reader that has seen enough (`| head`) is no error.
        Err(error) if error.downcast_ref().is_some_and(is_left) => Ok(()),
        result => result,
    }
}

fn print_all(scope: &Scope) -> Result<(), Box<dyn Error>> {
    signals::install();
    let cgroup = Cgroup::open(&scope.cgroup)?;
    let mut storage = MaybeUninit::uninit();
    let mut capture = Capture::start(&mut storage, &cgroup, &scope.options())?;
    privileges::drop_rest().map_err(|error| format!("cannot drop privileges: {error}"))?;
    say(&format!("watching {}", cgroup.path.display()));
    if let Some(path) = &scope.ready_file {
        fs::write(path, "ready\n").map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    }
    let mut swept = Instant::now();
    while !signals::stopped() {
        print(capture.poll(SWEEP.saturating_sub(swept.elapsed()))?)?;
        if swept.elapsed() >= SWEEP {
            print(capture.sweep()?)?;
            swept = Instant::now();
        }
    }
    print(capture.finish()?)?;
    print_line(&json!({
        "kind": "end",
        "losses": capture.losses()?,
        "libraries": capture.libraries(),
        "unprobed": capture.unprobed(),
    }))?;
    Ok(())
}

fn print(observations: Vec<Observation>) -> io::Result<()> {
    for observation in observations {
        match observation {
            Observation::Connection(progress) => print_line(&connection(&progress))?,
            Observation::Exchange(observed) => print_line(&exchange(&observed))?,
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

fn exchange(exchange: &Exchange) -> Value {
    let http = &exchange.http;
    json!({
        "kind": "exchange",
        "connection": exchange.connection,
        "pid": exchange.process.tgid,
        "executable": exchange.process.executable,
        "tls": exchange.tls,
        "host": exchange.host,
        "port": exchange.port,
        "method": http.method,
        "path": http.path,
        "status": http.status,
        "body_out": http.body_out,
        "body_in": http.body_in,
        "begun_ns": http.begun,
        "first_byte_ns": http.head.checked_sub(http.begun),
        "duration_ns": http.ended.saturating_sub(http.begun),
        "outcome": http.outcome,
    })
}
