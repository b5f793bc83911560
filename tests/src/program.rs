//! One shim as a program with a life: what tests of starts, ends and broken homes need.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use serde_json::json;
use tempfile::TempDir;

use crate::adapter::Adapter;
use crate::ledger::{self, Account};
use crate::scenario::Over;
use crate::shim::{Shim, Surroundings};
use crate::vendor::Vendor;

/// A program that calls a vendor of its own through one adapter.
#[derive(Debug)]
pub struct Program {
    client: String,
    shim: Shim,
    vendor: Vendor,
    home: PathBuf,
    _dir: TempDir,
}

/// The ledger's home that a program is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Home {
    /// One that does not exist yet.
    Fresh,
    /// A file: nothing can be written there, by nobody.
    Broken,
}

impl Program {
    /// Starts it by `run` (of [`Runtime::Ready`](crate::Runtime::Ready)), with more in its environment.
    ///
    /// # Errors
    /// Says why it does not start.
    pub fn start(
        adapter: &Adapter,
        run: &[String],
        home: Home,
        environment: &[(&str, &str)],
    ) -> Result<Self, String> {
        let dir = tempfile::tempdir().map_err(|e| format!("no temporary folder: {e}"))?;
        let vendor = Vendor::start(dir.path())?;
        let path = dir.path().join("home");
        if home == Home::Broken {
            fs::write(&path, "not a folder").map_err(|e| format!("{}: {e}", path.display()))?;
        }
        let surroundings = Surroundings {
            home: &path,
            ca: vendor.ca(),
            service: &adapter.name,
            environment,
            stderr: &dir.path().join("stderr.txt"),
        };
        let shim = Shim::start(run, &surroundings)?;
        Ok(Self { client: adapter.client.clone(), shim, vendor, home: path, _dir: dir })
    }

    /// Makes a call over TLS, and reads the answer to its end.
    ///
    /// # Errors
    /// The application got anything but 200 and 17 bytes.
    pub fn call(&mut self) -> Result<(), String> {
        let url = self.vendor.origin(Over::Tls) + "/scenario/ok";
        let command = json!({
            "client": self.client, "method": "GET", "url": url, "headers": {}, "body": null,
            "timeout_ms": 60_000, "read": "all", "follow_redirects": true, "customer": "acme", "parallel": 1,
            "customers": null,
        });
        let reply = self.shim.tell(command)?;
        match (reply.ok, reply.status, reply.bytes) {
            (true, Some(200), 17) => Ok(()),
            _ => Err(format!("the application got {reply:?}")),
        }
    }

    /// Has it write its ledger.
    ///
    /// # Errors
    /// It does not answer, or says that it failed.
    pub fn flush(&mut self) -> Result<(), String> {
        self.shim.flush()
    }

    /// How many requests the vendor counted.
    #[must_use]
    pub fn arrived(&self) -> u64 {
        self.vendor.requests()
    }

    /// What its ledger says.
    ///
    /// # Errors
    /// There is a file that is no ledger.
    pub fn ledger(&self) -> Result<Account, String> {
        ledger::read(&self.home)
    }

    /// The home that it was given.
    #[must_use]
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// What it said on stderr so far.
    #[must_use]
    pub fn complaints(&self) -> String {
        self.shim.complaints()
    }

    /// Closes its stdin and waits for its end; what its ledger says then.
    ///
    /// # Errors
    /// It does not end by itself, or not well.
    pub fn finish(self) -> Result<Account, String> {
        self.shim.finish()?;
        ledger::read(&self.home)
    }

    /// Ends it by SIGTERM; how it ended, and what its ledger says then.
    ///
    /// # Errors
    /// It does not end.
    pub fn terminate(self) -> Result<(ExitStatus, Account), String> {
        let status = self.shim.terminate()?;
        Ok((status, ledger::read(&self.home)?))
    }
}
