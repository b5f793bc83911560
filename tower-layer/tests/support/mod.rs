//! A handle of its own for each test, and what it counted.
#![allow(dead_code, reason = "each test file uses a part")]

use farcall::ledger::Rollup;
use farcall::{ErrorType, Outcome};
use farcall_tower::{Farcall, Options};
use std::net::SocketAddr;
use tempfile::TempDir;
use tokio::net::TcpSocket;

/// A ledger of the test's own, which nobody else flushes.
pub(crate) struct Ledger {
    pub(crate) farcall: Farcall,
    _home: TempDir,
}

impl Ledger {
    pub(crate) fn new() -> Self {
        Self::under("")
    }

    /// Under these rules.
    pub(crate) fn under(rules: &str) -> Self {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("farcall.toml"), rules).unwrap();
        let options = Options {
            home: Some(home.path().to_owned()),
            config: Some(home.path().join("farcall.toml")),
            service: Some("test".into()),
            flush_every: None,
            hub: false,
            enabled: true,
            ..Options::default()
        };
        let farcall = Farcall::start(options);
        assert_eq!(farcall.engine().decides(), !rules.is_empty(), "the rules are in force");
        Self { farcall, _home: home }
    }

    /// What was counted since the last look.
    pub(crate) fn rows(&self) -> Vec<Rollup> {
        self.farcall.engine().drain(self.farcall.now()).rows
    }

    /// The one call that was counted since the last look.
    pub(crate) fn only(&self) -> Rollup {
        let mut rows = self.rows();
        assert_eq!(rows.len(), 1, "{rows:?}");
        let row = rows.remove(0);
        assert_eq!(row.sums.calls, 1, "{row:?}");
        row
    }
}

pub(crate) fn failed(error: ErrorType) -> Outcome {
    Outcome::Failed(error)
}

/// An address that refuses connections, and that nobody else gets while the socket lives: bound, and not listening.
pub(crate) fn closed() -> (TcpSocket, SocketAddr) {
    let held = TcpSocket::new_v4().unwrap();
    held.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let address = held.local_addr().unwrap();
    (held, address)
}
