//! `farcall-sidecar run`: counts what is seen in the ledger.

use std::{
    error::Error,
    fs,
    io::{self, IsTerminal, Write},
    mem::MaybeUninit,
    time::{Duration, Instant},
};

use farcall_agent::{Farcall, Options as AgentOptions, Role};
use farcall_sidecar::{
    attach::{Capture, Losses, cgroup::Cgroup, check},
    hub::Hub,
    tap::Observation,
};

use crate::{
    cli::{RunArguments, say},
    privileges, signals,
};

/// How often connections still open are counted.
const SWEEP: Duration = Duration::from_secs(1);
/// How long to wait for records before listening to the libraries again.
const TURN: Duration = Duration::from_millis(100);

pub(crate) fn run(arguments: &RunArguments) -> Result<(), Box<dyn Error>> {
    signals::install();
    check::require_host_pids()?;
    let scope = &arguments.scope;
    let cgroup = Cgroup::open(&scope.cgroup)?;
    let home = farcall_agent::home(arguments.home.as_deref())
        .ok_or("there is no home directory for the ledger; give --home DIR or set FARCALL_HOME")?;
    fs::create_dir_all(&home).map_err(|error| format!("cannot make {}: {error}", home.display()))?;

    let mut storage = MaybeUninit::uninit();
    let mut capture = Capture::start(&mut storage, &cgroup, &scope.options())?;
    // Before the agent starts its thread.
    privileges::drop_rest().map_err(|error| format!("cannot drop privileges: {error}"))?;
    let farcall = Farcall::start(AgentOptions {
        home: Some(home.clone()),
        service: Some("farcall-sidecar".to_owned()),
        hub: false,
        role: Role::Sidecar,
        enabled: true,
        ..AgentOptions::default()
    });
    let mut hub = Hub::start(&home, farcall.clone())?;
    let mut seen = Seen::default();
    say(&format!("watching {}, counting in {}", cgroup.path.display(), home.display()));
    if let Some(path) = &scope.ready_file {
        fs::write(path, "ready\n").map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    }

    // What was seen until it failed is written all the same.
    let followed = follow(&mut capture, &mut hub, &mut seen, &farcall);
    let observations = capture.finish()?;
    hub.observe(seen.count(observations));
    seen.report_losses(&capture, &farcall)?;
    hub.finish();
    seen.end();
    followed
}

/// Counts what the cgroup does, until the sidecar is to stop.
fn follow(
    capture: &mut Capture<'_>,
    hub: &mut Hub,
    seen: &mut Seen,
    farcall: &Farcall,
) -> Result<(), Box<dyn Error>> {
    let mut swept = Instant::now();
    while !signals::stopped() {
        let observations = capture.poll(TURN)?;
        hub.observe(seen.count(observations));
        if swept.elapsed() >= SWEEP {
            swept = Instant::now();
            let observations = capture.sweep()?;
            hub.observe(seen.count(observations));
            seen.report_losses(capture, farcall)?;
            seen.show(capture.libraries().len());
        }
        hub.tick();
    }
    Ok(())
}

/// What was seen so far, for the progress line.
#[derive(Debug, Default)]
struct Seen {
    connections: u64,
    exchanges: u64,
    losses: Losses,
    unprobed: usize,
}

impl Seen {
    fn count(&mut self, observations: Vec<Observation>) -> Vec<Observation> {
        for observation in &observations {
            match observation {
                Observation::Connection(progress) => self.connections += u64::from(progress.last),
                Observation::Exchange(_) => self.exchanges += 1,
            }
        }
        observations
    }

    /// Makes losses known to `farcall doctor`, and here once.
    fn report_losses(&mut self, capture: &Capture<'_>, farcall: &Farcall) -> Result<(), Box<dyn Error>> {
        let losses = capture.losses()?;
        for ((name, now), (_, before)) in losses.named().into_iter().zip(self.losses.named()) {
            if now > before {
                farcall.count_failures(name, now - before);
            }
        }
        if self.losses.none() && !losses.none() {
            say("the kernel could not deliver everything; `farcall doctor` counts it");
        }
        if losses.successions > self.losses.successions {
            say("the cgroup was removed and made anew, and is watched again");
        }
        self.losses = losses;
        for unprobed in &capture.unprobed()[self.unprobed..] {
            say(&format!("cannot probe {}: {}", unprobed.library, unprobed.reason));
            farcall.count_failure("sidecar_unprobed_libraries");
        }
        self.unprobed = capture.unprobed().len();
        Ok(())
    }

    fn line(&self) -> String {
        format!("{} connections, {} calls", self.connections, self.exchanges)
    }

    /// The progress line, on terminals only: logs get the last one.
    fn show(&self, libraries: usize) {
        let mut out = io::stderr().lock();
        if out.is_terminal() {
            let line = self.line();
            let _unseen = write!(out, "\r\x1b[Kfarcall-sidecar: {line}, {libraries} TLS libraries probed");
        }
    }

    fn end(&self) {
        let lost = if self.losses.none() { "nothing lost" } else { "some events lost" };
        let mut out = io::stderr().lock();
        let start = if out.is_terminal() { "\r\x1b[K" } else { "" };
        let _unseen = writeln!(out, "{start}farcall-sidecar: {}; {lost}", self.line());
    }
}
