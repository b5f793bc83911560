//! A process that does nothing but count: several of them share one ledger in `tests/ledger_processes.rs`.
//!
//! `ledger-writer HOME CUSTOMER THREADS CALLS` counts `CALLS` calls on each of so many threads, and ends.
//! With `endless` for `CALLS` it goes on until it is killed, and says after each flush how many calls are in
//! the ledger now at least.

use std::env;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use farcall::{Head, Step};
use farcall_agent::{Farcall, Options};

/// Bytes in and out of each call; what the totals must come to.
const BYTES: (u64, u64) = (7, 13);

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [home, customer, threads, calls] = arguments.as_slice() else {
        eprintln!("usage: ledger-writer HOME CUSTOMER THREADS CALLS|endless");
        return ExitCode::FAILURE;
    };
    let Ok(threads) = threads.parse::<u64>() else { return ExitCode::FAILURE };
    let farcall = Farcall::start(Options {
        home: Some(home.into()),
        service: Some("ledger-writer".into()),
        // Short, so that the writers meet in the file all the time.
        flush_every: Some(Duration::from_millis(5)),
        hub: false,
        ..Options::default()
    });
    let calls = calls.parse::<u64>().ok();
    let ended = AtomicU64::new(0);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut number = 0;
                while calls.is_none_or(|calls| number < calls) {
                    call(&farcall, customer, number);
                    ended.fetch_add(1, Ordering::SeqCst);
                    number += 1;
                }
            });
        }
        while calls.is_none() {
            let written = ended.load(Ordering::SeqCst);
            // One that had to wait for others too long keeps its rows for the next.
            if written == 0 || farcall.flush().pending > 0 {
                continue;
            }
            // One write, so that a kill leaves no half a number behind.
            if io::stdout().write_all(format!("{written}\n").as_bytes()).is_err() {
                // Nobody listens any more: the test is over.
                std::process::exit(1);
            }
        }
    });
    farcall.shutdown();
    ExitCode::SUCCESS
}

fn call(farcall: &Farcall, customer: &str, number: u64) {
    let url =
        ["https://api.stripe.com/v1/balance", "https://api.openai.com/v1/models"][(number % 2) as usize];
    let head = Head::new("GET", url).customer(Some(customer));
    let mut call = farcall.guard(farcall.begin(&head));
    if let Step::Send(_) = call.step() {
        call.sent(BYTES.0);
        call.head(if number.is_multiple_of(10) { 500 } else { 200 });
    }
    call.body(BYTES.1);
    call.end();
}
