//! What a test saw, to be compared with what happened.

use std::collections::BTreeMap;

use farcall_sidecar::{
    attach::Losses,
    tap::{Connection, Exchange, Observation, Progress},
};
use vendor_sim::Sim;

use super::PATIENCE;

/// (host, method, path, status) to (count, bytes up, bytes down).
pub(crate) type Tally = BTreeMap<(String, String, String, u16), (u64, u64, u64)>;

/// What a test saw.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) progress: Vec<Progress>,
    pub(crate) exchanges: Vec<Exchange>,
    pub(crate) losses: Losses,
    /// What the programs printed, in the order in which they ended.
    pub(crate) printed: Vec<String>,
}

impl Seen {
    pub(super) fn new(observations: Vec<Observation>, losses: Losses, printed: Vec<String>) -> Self {
        let mut seen = Self { progress: Vec::new(), exchanges: Vec::new(), losses, printed };
        for observation in observations {
            match observation {
                Observation::Connection(progress) => seen.progress.push(progress),
                Observation::Exchange(exchange) => seen.exchanges.push(exchange),
            }
        }
        seen
    }

    /// Connections that have ended, in the order in which they did.
    pub(crate) fn closed(&self) -> Vec<&Connection> {
        self.progress.iter().filter(|progress| progress.last).map(|progress| &progress.connection).collect()
    }

    /// The one connection.
    pub(crate) fn connection(&self) -> &Connection {
        let closed = self.closed();
        assert_eq!(closed.len(), 1, "{closed:#?}");
        closed[0]
    }

    /// Exchanges as vendor-sim counts them.
    pub(crate) fn tally(&self) -> Tally {
        let mut tally = BTreeMap::new();
        for exchange in &self.exchanges {
            let http = &exchange.http;
            let key = (http.host.clone(), http.method.clone(), http.path.clone(), http.status);
            let sums: &mut (u64, u64, u64) = tally.entry(key).or_default();
            *sums = (sums.0 + 1, sums.1 + http.body_out, sums.2 + http.body_in);
        }
        tally
    }
}

/// What vendor-sim counted, in the same form.
pub(crate) fn counted(sim: &Sim) -> Tally {
    let counts = sim.settled_counts(PATIENCE);
    let rows = counts.rows.iter().map(|row| {
        let key = (row.host.clone(), row.method.clone(), row.path.clone(), row.status.unwrap_or(0));
        (key, (row.count, row.bytes_in, row.bytes_out))
    });
    rows.collect()
}

/// The latest news of each connection that has not ended.
pub(super) fn still_open(observations: &[Observation]) -> Vec<&Connection> {
    let mut open = BTreeMap::new();
    for observation in observations {
        if let Observation::Connection(progress) = observation {
            open.insert(progress.connection.id, progress);
        }
    }
    open.into_values().filter(|progress| !progress.last).map(|progress| &progress.connection).collect()
}
