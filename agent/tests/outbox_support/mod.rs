//! A vendor over plain HTTP that writes down what it got, in the order in which it got it.
#![allow(dead_code, clippy::unwrap_used)]

pub(crate) mod copies;
pub(crate) mod judge;
pub(crate) mod otlp;
#[cfg(feature = "postgres")]
pub(crate) mod postgres;

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A request that arrived whole.
#[derive(Clone, Debug)]
pub(crate) struct Got {
    pub(crate) line: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
    /// Since the vendor's start.
    pub(crate) at: Duration,
    /// The port that it came from.
    pub(crate) port: u16,
}

impl Got {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

pub(crate) struct Vendor {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    got: Vec<Got>,
    next: VecDeque<String>,
    /// Before each answer.
    delay: Duration,
}

impl Vendor {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, state) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(State::default())));
        let (shared, begun) = (Arc::clone(&state), Instant::now());
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || serve(connection, &shared, begun));
            }
        });
        Self { address, state }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn got(&self) -> Vec<Got> {
        self.state.lock().unwrap().got.clone()
    }

    /// The next requests are answered so: a status line and headers, `hang up`, or `stall`. Then 200.
    pub(crate) fn answer_next(&self, answers: &[&str]) {
        self.state.lock().unwrap().next.extend(answers.iter().map(ToString::to_string));
    }

    pub(crate) fn delay(&self, delay: Duration) {
        self.state.lock().unwrap().delay = delay;
    }
}

/// A home directory, and where its outbox is.
pub(crate) struct Home {
    directory: tempfile::TempDir,
    /// What of the configuration says where.
    pub(crate) settings: String,
    #[cfg(feature = "postgres")]
    pub(crate) server: Option<Arc<postgres::Server>>,
}

impl Home {
    pub(crate) fn in_a_file() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            settings: String::new(),
            #[cfg(feature = "postgres")]
            server: None,
        }
    }

    /// `None` where there is no PostgreSQL here.
    #[cfg(feature = "postgres")]
    pub(crate) fn in_postgres() -> Option<Self> {
        let server = postgres::Server::shared()?;
        let settings = format!("[outbox_store]\nstore = \"{}\"\ntimeout = \"30s\"\n", server.database());
        Some(Self { directory: tempfile::tempdir().unwrap(), settings, server: Some(server) })
    }

    /// Another host with the same outbox.
    pub(crate) fn beside(&self) -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            settings: self.settings.clone(),
            #[cfg(feature = "postgres")]
            server: self.server.clone(),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Writes the configuration, with what says where the outbox is.
    pub(crate) fn configure(&self, config: &str) -> std::path::PathBuf {
        let file = self.path().join("farcall.toml");
        std::fs::write(&file, format!("{config}\n{}", self.settings)).unwrap();
        file
    }
}

/// Each of these functions is a test on a file and on a PostgreSQL.
#[allow(unused_macros)]
macro_rules! on_each_store {
    ($($promise:ident)*) => {
        mod in_a_file {
            $(#[test]
            fn $promise() {
                super::$promise(super::Home::in_a_file());
            })*
        }
        #[cfg(feature = "postgres")]
        mod in_postgres {
            $(#[test]
            fn $promise() {
                if let Some(home) = super::Home::in_postgres() {
                    super::$promise(home);
                }
            })*
        }
    };
}
#[allow(unused_imports)]
pub(crate) use on_each_store;

/// A vendor of the catalogue that takes idempotency keys.
pub(crate) fn config(_vendor: &Vendor) -> String {
    "[[vendor]]\nname = \"recorder\"\nhosts = [\"127.0.0.1\"]\nidempotency_header = \"Idempotency-Key\"\n"
        .into()
}

fn serve(connection: TcpStream, state: &Mutex<State>, begun: Instant) {
    let port = connection.peer_addr().map_or(0, |peer| peer.port());
    let Ok(mut writer) = connection.try_clone() else { return };
    let mut reader = BufReader::new(connection);
    while let Some(got) = read(&mut reader, begun, port) {
        let (answer, delay) = {
            let mut state = state.lock().unwrap();
            state.got.push(got);
            (state.next.pop_front(), state.delay)
        };
        std::thread::sleep(delay);
        let head = answer.unwrap_or_else(|| "200 OK".into());
        if head == "hang up" {
            return;
        }
        if head == "stall" {
            // A body that does not end; the connection stays.
            let _ = writer.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 60\r\n\r\nthanks");
            continue;
        }
        let answer = format!("HTTP/1.1 {head}\r\ncontent-length: 6\r\n\r\nthanks");
        if writer.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

/// A request; `None` where the connection ends before its last byte.
fn read(reader: &mut BufReader<TcpStream>, begun: Instant, port: u16) -> Option<Got> {
    let mut line = String::new();
    if reader.read_line(&mut line).ok()? == 0 {
        return None;
    }
    let (mut headers, mut length) = (Vec::new(), 0);
    loop {
        let mut header = String::new();
        if reader.read_line(&mut header).ok()? == 0 {
            return None;
        }
        let Some((name, value)) = header.trim_end().split_once(": ") else { break };
        if name == "content-length" {
            length = value.parse().ok()?;
        }
        headers.push((name.to_owned(), value.to_owned()));
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let body = String::from_utf8_lossy(&body).into_owned();
    Some(Got { line: line.trim_end().to_owned(), headers, body, at: begun.elapsed(), port })
}

/// The library that stands between the outbox and the disk, and between it and the clock on the wall.
pub(crate) fn shim(directory: &Path) -> PathBuf {
    let (source, built) =
        (Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/outbox_faults/shim.c"), directory.join("shim.so"));
    let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
    let mut command = Command::new(compiler);
    let output =
        command.args(["-O1", "-fPIC", "-shared", "-o"]).arg(&built).arg(source).arg("-ldl").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    built
}
