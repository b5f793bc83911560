//! A Redis for the tests of those who keep something in one.
#![allow(clippy::unwrap_used)]

use redis::Client;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A Redis of this test alone, on a socket in its own directory.
pub(crate) struct Server {
    pub(crate) child: Child,
    pub(crate) url: String,
    _directory: TempDir,
}

impl Server {
    pub(crate) fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket: PathBuf = directory.path().join("redis.sock");
        let mut child = Command::new("redis-server");
        child.args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket"]).arg(&socket);
        child.arg("--dir").arg(directory.path()).stdout(Stdio::null());
        let child = child.spawn().expect("redis-server, which scripts/setup-system installs");
        let server = Self { child, url: format!("unix://{}", socket.display()), _directory: directory };
        let begun = Instant::now();
        while Client::open(server.url.as_str()).and_then(|client| client.get_connection()).is_err() {
            assert!(begun.elapsed() < Duration::from_secs(30), "it does not come up");
            std::thread::sleep(Duration::from_millis(5));
        }
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
