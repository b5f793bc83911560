//! A vendor over plain HTTP that writes down what it got, in the order in which it got it.
#![allow(dead_code, clippy::unwrap_used)]

pub(crate) mod judge;

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
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
