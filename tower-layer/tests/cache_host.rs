//! One cache for the processes of a host: a stampede over eight of them makes one call, and nobody hangs on a process
//! that is killed or stopped.
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use farcall_tower::{EgressLayer, Farcall, Options};
use http::{Request, Response};
use http_body_util::{BodyExt, Empty, Full};
use rustix::process::{Pid, Signal, kill_process};
use std::convert::Infallible;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};
use tower::{Layer, ServiceExt, service_fn};

const PROCESSES: usize = 8;
/// Of all processes.
const CALLS: usize = 1_000;
/// So long a test waits for what is to come soon.
const SOON: Duration = Duration::from_secs(120);

/// A vendor that all processes ask: it answers while its gate is open, and says of each question that it came.
struct Vendor {
    address: String,
    asked: Arc<AtomicU32>,
    gate: Arc<(Mutex<bool>, Condvar)>,
}

impl Vendor {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (asked, gate) = (Arc::new(AtomicU32::new(0)), Arc::new((Mutex::new(false), Condvar::new())));
        let (seen, open) = (Arc::clone(&asked), Arc::clone(&gate));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (seen, open) = (Arc::clone(&seen), Arc::clone(&open));
                std::thread::spawn(move || answer(stream, &seen, &open));
            }
        });
        Self { address, asked, gate }
    }

    fn open(&self) {
        *self.gate.0.lock().unwrap() = true;
        self.gate.1.notify_all();
    }

    fn asked(&self) -> u32 {
        self.asked.load(Ordering::Acquire)
    }

    fn wait_until_asked(&self, times: u32) {
        let begun = Instant::now();
        while self.asked() < times {
            assert!(begun.elapsed() < SOON, "asked {} times of {times}", self.asked());
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

fn answer(mut stream: TcpStream, asked: &AtomicU32, gate: &(Mutex<bool>, Condvar)) {
    let mut byte = [0];
    if stream.read_exact(&mut byte).is_err() {
        return;
    }
    let number = asked.fetch_add(1, Ordering::AcqRel);
    let open = gate.0.lock().unwrap();
    drop(gate.1.wait_while(open, |open| !*open).unwrap());
    let _ = stream.write_all(format!("rates {number}").as_bytes());
}

/// A program that makes calls when it is told to, and says what they got.
struct Program {
    child: Child,
    said: Receiver<String>,
}

impl Program {
    /// It says `ready` when it is.
    fn start(home: &Path, vendor: &Vendor) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "program", "--nocapture", "--test-threads=1"]);
        child.env("FARCALL_TEST_HOME", home).env("FARCALL_TEST_VENDOR", &vendor.address);
        let mut child =
            child.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (sender, said) = mpsc::channel();
        std::thread::spawn(move || {
            // The harness around it says more; some of it on the same line.
            for line in lines.map_while(Result::ok) {
                let Some((_, said)) = line.split_once("said: ") else { continue };
                if sender.send(said.to_owned()).is_err() {
                    break;
                }
            }
        });
        let program = Self { child, said };
        assert_eq!(program.says(), "ready");
        program
    }

    fn says(&self) -> String {
        self.said.recv_timeout(SOON).expect("it says something")
    }

    /// Has it make so many equal calls at once.
    fn calls(&mut self, count: usize) {
        let mut stdin = self.child.stdin.as_ref().unwrap();
        writeln!(stdin, "{count}").unwrap();
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the processes of the other tests run; as a test of its own it has nothing to do.
#[test]
fn program() {
    let Some(home) = std::env::var_os("FARCALL_TEST_HOME") else { return };
    let vendor = std::env::var("FARCALL_TEST_VENDOR").unwrap();
    let farcall = Farcall::start(Options {
        config: Some(Path::new(&home).join("farcall.toml")),
        home: Some(home.into()),
        service: Some("test".into()),
        hub: false,
        enabled: true,
        ..Options::default()
    });
    let service = service_fn(move |_: Request<_>| {
        let vendor = vendor.clone();
        async move {
            let asking = tokio::task::spawn_blocking(move || {
                let mut stream = TcpStream::connect(vendor).unwrap();
                stream.write_all(b"?").unwrap();
                let mut text = String::new();
                stream.read_to_string(&mut text).unwrap();
                text
            });
            Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(asking.await.unwrap())))
        }
    });
    // Below the layer nothing is added to a request, in no process.
    let layer = EgressLayer::<_>::with(farcall.clone()).client_name("rates");
    let client = layer.layer(service);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    println!("\nsaid: ready");
    for line in std::io::stdin().lines() {
        let count: usize = line.unwrap().parse().unwrap();
        let mut got = runtime.block_on(async {
            let mut calls = tokio::task::JoinSet::new();
            for _ in 0..count {
                let client = client.clone();
                calls.spawn(async move {
                    let request = Request::get("https://api.example.com/v1/rates?base=EUR")
                        .body(Empty::<Bytes>::new())
                        .unwrap();
                    let response = client.oneshot(request).await.unwrap();
                    let body = response.into_body().collect().await.unwrap().to_bytes();
                    String::from_utf8(body.to_vec()).unwrap()
                });
            }
            calls.join_all().await
        });
        let all = got.len();
        got.sort();
        got.dedup();
        println!("\nsaid: {all} {}", got.join(","));
    }
    farcall.shutdown();
}

fn home() -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    let rules = "cache_disk = \"64MiB\"\ncache_disk_wait = \"60s\"\n\
                 [[cache]]\nname = \"all\"\nmatch = {}\nttl = \"1h\"\ncoalesce = \"60s\"\n";
    std::fs::write(home.path().join("farcall.toml"), rules).unwrap();
    home
}

#[test]
fn a_stampede_over_eight_processes_makes_one_call() {
    let (home, vendor) = (home(), Vendor::start());
    let mut programs: Vec<Program> = (0..PROCESSES).map(|_| Program::start(home.path(), &vendor)).collect();
    programs.iter_mut().for_each(|program| program.calls(CALLS / PROCESSES));
    vendor.wait_until_asked(1);
    vendor.open();
    for program in &programs {
        let said = program.says();
        assert!(said.starts_with(&format!("{} rates ", CALLS / PROCESSES)) && !said.contains(','), "{said}");
    }
    assert_eq!(vendor.asked(), 1);
    // One that comes later finds it on the disk.
    drop(programs);
    let mut late = Program::start(home.path(), &vendor);
    late.calls(10);
    assert!(late.says().starts_with("10 rates "));
    assert_eq!(vendor.asked(), 1);
}

#[test]
fn a_process_that_asks_and_is_killed_or_stopped_hands_over_to_another() {
    for signal in [Signal::KILL, Signal::STOP] {
        let (home, vendor) = (home(), Vendor::start());
        let mut asks = Program::start(home.path(), &vendor);
        let mut waits: Vec<Program> = (0..2).map(|_| Program::start(home.path(), &vendor)).collect();
        asks.calls(10);
        vendor.wait_until_asked(1);
        waits.iter_mut().for_each(|program| program.calls(10));
        asks.signal(signal);
        if signal == Signal::KILL {
            // Its number is its own until somebody asks what became of it.
            asks.child.wait().unwrap();
        }
        vendor.wait_until_asked(2);
        vendor.open();
        for program in &waits {
            assert_eq!(program.says(), "10 rates 1");
        }
        assert_eq!(vendor.asked(), 2);
        if signal == Signal::STOP {
            asks.signal(Signal::CONT);
            assert!(matches!(asks.says().as_str(), "10 rates 0" | "10 rates 1"), "nor does the one that was");
        }
    }
}
