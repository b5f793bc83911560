//! The whole sidecar beside the whole library: a call that both saw is in the ledger once, a call that only the kernel
//! saw is there as well, and connections say who explains them.
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "stage/mod.rs"]
#[allow(dead_code)]
mod stage;

use std::{
    env, fs,
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use farcall::{Head, Step};
use farcall_agent::{
    Farcall, Options as AgentOptions,
    report::{self, Query},
};
use vendor_sim::{Options, Sim};

const AS_PROGRAM: &str = "FARCALL_TEST_PROGRAM";

/// One exchange on a connection of its own.
fn exchange(address: &str, path: &str) -> u16 {
    answer(address, "api.stripe.com", path)[9..12].parse().unwrap()
}

/// What comes back of it.
fn answer(address: &str, host: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

/// What the instrumented program does: three calls through the library, two past it.
fn program(home: &Path, address: &str) {
    let farcall = Farcall::start(AgentOptions {
        home: Some(home.to_path_buf()),
        service: Some("shop".into()),
        ..AgentOptions::default()
    });
    for path in ["/v1/charges/ch_1", "/v1/charges/ch_2", "/v1/charges/ch_2"] {
        let url = format!("http://api.stripe.com{path}");
        let mut call = farcall.guard(farcall.begin(&Head::new("GET", &url).customer(Some("acme"))));
        if let Step::Send(_) = call.step() {
            call.head(exchange(address, path));
        }
        call.end();
    }
    for path in ["/v1/charges/ch_2", "/v1/balance"] {
        exchange(address, path);
    }
    farcall.shutdown();
}

/// The sidecar of this stage, its probes in place.
fn start_sidecar(stage: &stage::Stage, home: &Path) -> Child {
    let ready = stage.folder.path().join("ready");

    let mut sidecar = Command::new(env!("CARGO_BIN_EXE_farcall-sidecar"))
        .args(["run", "--include-loopback", "--only-mapped", "--cgroup"])
        .arg(stage.cgroup())
        .arg("--home")
        .arg(home)
        .arg("--ready-file")
        .arg(&ready)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(120);
    while !ready.exists() {
        assert!(
            Instant::now() < deadline && sidecar.try_wait().unwrap().is_none(),
            "the sidecar did not start"
        );
        std::thread::yield_now();
    }
    sidecar
}

/// The sidecar ends as a service manager would end it, and writes all that it knows.
fn stop(sidecar: Child) {
    let terminated = Command::new("kill").args(["-TERM", &sidecar.id().to_string()]).status().unwrap();
    assert!(terminated.success());
    let output = sidecar.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Runs this test once more, as a program in the sidecar's scope that has the library.
fn run_instrumented(stage: &stage::Stage, name: &str, home: &Path, sim: &Sim) {
    let me = env::current_exe().unwrap();
    let status = stage
        .inside(me.to_str().unwrap(), &["--exact", name])
        .env(AS_PROGRAM, home)
        .env("FARCALL_TEST_ADDRESS", sim.plain_addr().to_string())
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
}

#[test]
fn a_call_that_both_taps_saw_is_in_the_ledger_once() {
    if let Ok(home) = env::var(AS_PROGRAM) {
        return program(Path::new(&home), &env::var("FARCALL_TEST_ADDRESS").unwrap());
    }
    let stage = stage!();
    let sim = Sim::start(Options::default()).unwrap();
    let home = stage.folder.path().join("home");
    fs::create_dir(&home).unwrap();
    let sidecar = start_sidecar(&stage, &home);
    // It is there when the sidecar looks, however busy the machine: by it those that are gone then have a container.
    let mut resident = stage.inside("cat", &[]).stdin(Stdio::piped()).spawn().unwrap();

    run_instrumented(&stage, "a_call_that_both_taps_saw_is_in_the_ledger_once", &home, &sim);
    let curl = stage
        .inside("curl", &["--silent", "--output", "/dev/null", "--connect-to"])
        .arg(format!("::{}", sim.plain_addr()))
        .arg("http://api.github.com/user")
        .status()
        .unwrap();
    assert!(curl.success());

    // A socket closes a moment after its process, once the vendor closes it, too; one that is open is not counted yet.
    let ended = || report::coverage(&Query::at(&home)).map_or(0, |coverage| coverage.totals.connections);
    let deadline = Instant::now() + Duration::from_secs(120);
    while ended() < 6 {
        assert!(Instant::now() < deadline, "{} of 6 connections have ended", ended());
        std::thread::sleep(Duration::from_millis(5));
    }
    stop(sidecar);
    drop(resident.stdin.take());
    resident.wait().unwrap();
    assert!(!home.join("sidecar.sock").exists());

    let query = Query::at(&home);
    let vendors = report::vendors(&query).unwrap();
    assert_eq!(sim.counts().requests, 6);
    assert_eq!(vendors.totals.calls, 6, "each call once: {vendors:#?}");
    let calls = |vendor: &str| {
        vendors.rows.iter().find(|row| row.vendor == vendor).map_or(0, |row| row.numbers.calls)
    };
    assert_eq!((calls("stripe"), calls("github")), (5, 1), "{vendors:#?}");
    let customers = report::customers(&query).unwrap();
    let acme = customers.rows.iter().find(|row| row.customer == "acme").unwrap();
    assert_eq!(acme.numbers.calls, 3, "what the library knows stays: {customers:#?}");
    let coverage = report::coverage(&query).unwrap();
    assert_eq!(coverage.totals.connections, 6, "{coverage:#?}");
    assert_eq!(coverage.totals.connections_percent, Some(100.0), "{coverage:#?}");
    let by_library: u64 = coverage.rows.iter().map(|row| row.library.connections).sum();
    let by_kernel: u64 = coverage.rows.iter().map(|row| row.kernel.connections).sum();
    assert_eq!((by_library, by_kernel), (3, 3), "{coverage:#?}");
    // The program, which the library describes, and curl, which only the kernel saw, run in the same container, if in any.
    let here: Vec<String> = farcall_agent::container_of("self").into_iter().collect();
    let callers = report::callers(&query).unwrap();
    assert!(callers.rows.len() >= 2 && callers.rows.iter().all(|row| row.containers == here), "{callers:#?}");
}

#[test]
fn a_call_of_a_program_without_the_library_is_in_the_ledger_soon_and_a_killed_sidecar_leaves_it_there() {
    let stage = stage!();
    let sim = Sim::start(Options::default()).unwrap();
    let home = stage.folder.path().join("home");
    fs::create_dir(&home).unwrap();
    let mut sidecar = start_sidecar(&stage, &home);
    let counted = || report::vendors(&Query::at(&home)).map_or(0, |vendors| vendors.totals.calls);

    // While it may be that libraries have not found the sidecar yet it takes longer; and this machine may be busy.
    let deadline = Instant::now() + Duration::from_secs(120);
    let mut calls = 0;
    loop {
        let curl = stage
            .inside("curl", &["--silent", "--output", "/dev/null", "--connect-to"])
            .arg(format!("::{}", sim.plain_addr()))
            .arg("http://api.github.com/user")
            .status()
            .unwrap();
        assert!(curl.success());
        calls += 1;
        let ended = Instant::now();
        while counted() < calls {
            assert!(Instant::now() < deadline, "{} of {calls} calls were counted", counted());
            std::thread::sleep(Duration::from_millis(5));
        }
        println!("counted after {:?}", ended.elapsed());
        if ended.elapsed() < Duration::from_secs(2) {
            break;
        }
        assert!(Instant::now() < deadline, "no call was counted soon");
    }
    sidecar.kill().unwrap();
    sidecar.wait().unwrap();
    assert_eq!(counted(), calls);
}

/// What the instrumented program does here: calls whose answers say what is left.
fn asker(home: &Path, address: &str) {
    let farcall = Farcall::start(AgentOptions {
        home: Some(home.to_path_buf()),
        service: Some("shop".into()),
        ..AgentOptions::default()
    });
    for _ in 0..5 {
        let mut call = farcall.guard(farcall.begin(&Head::new("GET", "http://api.github.com/user")));
        assert!(matches!(call.step(), Step::Send(_)));
        let answer = answer(address, "api.github.com", "/user");
        let (head, _) = answer.split_once("\r\n\r\n").unwrap();
        let fields: Vec<(&str, &str)> = head.lines().filter_map(|line| line.split_once(": ")).collect();
        call.answer(200, &fields.as_slice());
        call.end();
    }
    farcall.shutdown();
}

#[test]
fn what_programs_with_and_without_the_library_use_of_a_quota_is_nobody_elses() {
    if let Ok(home) = env::var(AS_PROGRAM) {
        return asker(Path::new(&home), &env::var("FARCALL_TEST_ADDRESS").unwrap());
    }
    let stage = stage!();
    let sim = Sim::start(Options::default()).unwrap();
    let home = stage.folder.path().join("home");
    fs::create_dir(&home).unwrap();
    let sidecar = start_sidecar(&stage, &home);
    let url = "http://api.github.com/user";
    for _ in 0..2 {
        run_instrumented(
            &stage,
            "what_programs_with_and_without_the_library_use_of_a_quota_is_nobody_elses",
            &home,
            &sim,
        );
        let curl = stage
            .inside("curl", &["--silent", "--output", "/dev/null", "--output", "/dev/null", "--connect-to"])
            .arg(format!("::{}", sim.plain_addr()))
            .args([url, url])
            .status()
            .unwrap();
        assert!(curl.success());
    }
    stop(sidecar);

    let quotas = report::quotas(&Query::at(&home)).unwrap();
    let row = quotas.rows.iter().find(|row| row.vendor == "github").unwrap();
    assert_eq!(sim.counts().requests, 14);
    assert_eq!((row.own, row.foreign), (Some(14), Some(0)), "{quotas:#?}");
    assert_eq!(row.left, row.limit.map(|limit| limit - 14), "{quotas:#?}");
}

#[test]
fn a_library_that_starts_after_the_home_was_emptied_is_heard() {
    if let Ok(home) = env::var(AS_PROGRAM) {
        return program(Path::new(&home), &env::var("FARCALL_TEST_ADDRESS").unwrap());
    }
    let stage = stage!();
    let sim = Sim::start(Options::default()).unwrap();
    let home = stage.folder.path().join("home");
    fs::create_dir(&home).unwrap();
    let sidecar = start_sidecar(&stage, &home);
    fs::remove_dir_all(&home).unwrap();
    fs::create_dir(&home).unwrap();
    let deadline = Instant::now() + Duration::from_secs(120);
    while !home.join("sidecar.sock").exists() {
        assert!(Instant::now() < deadline, "the sidecar does not listen anew");
        std::thread::sleep(Duration::from_millis(5));
    }
    run_instrumented(&stage, "a_library_that_starts_after_the_home_was_emptied_is_heard", &home, &sim);
    stop(sidecar);
    assert!(!home.join("sidecar.sock").exists());
    assert_eq!(sim.counts().requests, 5);
    let vendors = report::vendors(&Query::at(&home)).unwrap();
    assert_eq!(vendors.totals.calls, 5, "each call once: {vendors:#?}");
}
