//! The far side of the scenarios: a vendor-sim that answers, one that nobody trusts, and a port that refuses.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketType, bind, getsockname, socket};
use serde_json::Value;
use vendor_sim::{Counts, Options, Sim};

use crate::scenario::Over;

/// How long exchanges may take to settle after the client is done.
const SETTLING: Duration = Duration::from_secs(15);

/// Everything that a scenario can be sent to.
#[derive(Debug)]
pub(crate) struct Vendor {
    sim: Sim,
    untrusted: Sim,
    refusing: SocketAddr,
    /// Bound and never listening: the kernel refuses connections, and nobody else gets the port.
    _held: OwnedFd,
    ca: PathBuf,
}

impl Vendor {
    /// Starts all of it; `ca.pem` is written to `dir`.
    pub(crate) fn start(dir: &Path) -> Result<Self, String> {
        let say = |e: std::io::Error| format!("vendor-sim cannot start: {e}");
        let sim = Sim::start(Options { dir: Some(dir.to_owned()), ..Options::default() }).map_err(say)?;
        let untrusted = Sim::start(Options::default()).map_err(say)?;
        let (held, refusing) = refusing_port().map_err(|e| format!("no port to refuse on: {e}"))?;
        let ca = sim.ca_path().ok_or("vendor-sim wrote no ca.pem")?.to_owned();
        Ok(Self { sim, untrusted, refusing, _held: held, ca })
    }

    /// The file with the authority that clients are to trust.
    pub(crate) fn ca(&self) -> &Path {
        &self.ca
    }

    /// Scheme, host and port.
    pub(crate) fn origin(&self, over: Over) -> String {
        match over {
            Over::Tls => format!("https://localhost:{}", self.sim.tls_addr().port()),
            Over::Plain => format!("http://127.0.0.1:{}", self.sim.plain_addr().port()),
            Over::Refused => format!("http://127.0.0.1:{}", self.refusing.port()),
            Over::Untrusted => format!("https://localhost:{}", self.untrusted.tls_addr().port()),
        }
    }

    /// Puts the listeners' origins where `{tls}` and `{plain}` stand.
    pub(crate) fn fill(&self, text: &str) -> String {
        text.replace("{tls}", &self.origin(Over::Tls)).replace("{plain}", &self.origin(Over::Plain))
    }

    /// Replaces the simulator's rules.
    pub(crate) fn script(&self, rules: &[Value]) -> Result<(), String> {
        self.sim.clear_script();
        if rules.is_empty() {
            return Ok(());
        }
        let text = self.fill(&Value::from(rules.to_vec()).to_string());
        let rules = serde_json::from_str(&text).map_err(|e| e.to_string())?;
        self.sim.script(rules).map(drop).map_err(|e| format!("vendor-sim does not take the script: {e}"))
    }

    /// Requests that arrived so far.
    pub(crate) fn requests(&self) -> u64 {
        self.sim.counts().requests
    }

    /// What arrived so far, once nothing is under way.
    pub(crate) fn counts(&self) -> Arrivals {
        let counts = self.sim.settled_counts(SETTLING);
        let untrusted = self.untrusted.counts();
        Arrivals { counts, untrusted }
    }
}

fn refusing_port() -> std::io::Result<(OwnedFd, SocketAddr)> {
    let held = socket(AddressFamily::INET, SocketType::STREAM, None)?;
    bind(&held, &SocketAddr::from(([127, 0, 0, 1], 0)))?;
    let address = SocketAddr::try_from(getsockname(&held)?)?;
    Ok((held, address))
}

/// What the vendor counted.
#[derive(Clone, Debug)]
pub(crate) struct Arrivals {
    counts: Counts,
    untrusted: Counts,
}

/// What the vendor counted between two moments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Arrived {
    pub(crate) requests: u64,
    pub(crate) open: u64,
    pub(crate) aborted: u64,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) connections: u64,
    /// Handshakes that a client broke off with the vendor that it does not trust.
    pub(crate) refused_handshakes: u64,
}

impl Arrivals {
    /// Connections accepted since the start.
    pub(crate) fn connections(&self) -> u64 {
        self.counts.connections + self.untrusted.connections
    }

    pub(crate) fn since(&self, earlier: &Self) -> Arrived {
        let (now, then) = (&self.counts, &earlier.counts);
        Arrived {
            // Requests that reach the untrusted vendor count as well: none may.
            requests: now.requests - then.requests + self.untrusted.requests - earlier.untrusted.requests,
            open: now.open,
            aborted: now.aborted - then.aborted,
            bytes_in: now.bytes_in - then.bytes_in,
            bytes_out: now.bytes_out - then.bytes_out,
            connections: now.connections - then.connections,
            refused_handshakes: self.untrusted.tls_failures - earlier.untrusted.tls_failures,
        }
    }
}
