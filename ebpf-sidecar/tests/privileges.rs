//! Once its programs are loaded, the sidecar holds little more than what it needs to place further probes, and still
//! places them.
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "stage/mod.rs"]
#[allow(dead_code)]
mod stage;

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Write},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use farcall_agent::report::{self, Query};
use vendor_sim::{Options, Sim};

/// CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_SYS_PTRACE, CAP_SYS_ADMIN, CAP_PERFMON, CAP_BPF, CAP_CHECKPOINT_RESTORE.
const KEPT: u64 = 1 | 1 << 1 | 1 << 2 | 1 << 19 | 1 << 21 | 1 << 38 | 1 << 39 | 1 << 40;

/// A program that ends with the test, whatever becomes of it.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ended_before = self.0.kill();
        let _ended_before = self.0.wait();
    }
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A field of each thread of a process, in hexadecimal digits.
fn of_threads(pid: u32, field: &str) -> Vec<u64> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let status = tasks.map(|task| fs::read_to_string(task.unwrap().path().join("status")).unwrap());
    let value = |status: String| {
        let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap().trim().to_owned();
        u64::from_str_radix(&line, 16).unwrap()
    };
    status.map(value).collect()
}

#[test]
fn the_sidecar_gives_up_what_it_no_longer_needs_and_still_finds_new_libraries() {
    let stage = stage!();
    let sim = Sim::start(Options::default()).unwrap();
    let home = stage.folder.path().join("home");
    fs::create_dir(&home).unwrap();
    let ready = stage.folder.path().join("ready");
    let sidecar = Command::new(env!("CARGO_BIN_EXE_farcall-sidecar"))
        .args(["run", "--include-loopback", "--only-mapped", "--cgroup"])
        .arg(stage.cgroup())
        .arg("--home")
        .arg(&home)
        .arg("--ready-file")
        .arg(&ready)
        .spawn()
        .unwrap();
    let mut sidecar = Running(sidecar);
    until("the sidecar", || ready.exists() || sidecar.0.try_wait().unwrap().is_some());

    let fields = ["CapEff:", "CapPrm:", "CapBnd:", "CapInh:", "CapAmb:", "NoNewPrivs:"];
    let held: BTreeMap<&str, Vec<u64>> =
        fields.into_iter().map(|field| (field, of_threads(sidecar.0.id(), field))).collect();
    assert!(held["CapEff:"].len() >= 2, "the agent's thread is among them: {held:x?}");
    for field in ["CapEff:", "CapPrm:", "CapBnd:"] {
        assert!(held[field].iter().all(|set| set & !KEPT == 0), "{field} {held:x?}");
    }
    assert!(held["CapEff:"].iter().all(|set| *set & (1 << 38 | 1 << 39) != 0), "{held:x?}");
    assert!(held["CapInh:"].iter().chain(&held["CapAmb:"]).all(|set| *set == 0), "{held:x?}");
    assert!(held["NoNewPrivs:"].iter().all(|flag| *flag == 1), "{held:x?}");

    // A library that nobody mapped before, on whose file a probe must be placed now. The program waits until it is.
    let script = "import ssl, sys; print('ready', flush=True); sys.stdin.readline()";
    let mut service = stage
        .inside("python3", &["-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(service.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let probed = || {
        let links = fs::read_dir(format!("/proc/{}/fd", sidecar.0.id())).unwrap().flatten();
        let library = stage.libssl();
        links.filter(|link| fs::read_link(link.path()).is_ok_and(|file| file == library)).count() > 0
    };
    until("the probes", probed);
    let url = "https://api.github.com/user";
    let calls = || report::vendors(&Query::at(&home)).map_or(0, |vendors| vendors.totals.calls);
    // The file is open a moment before it is probed.
    until("a call inside TLS", || {
        assert!(stage.curl(&sim, &[url]).status().unwrap().success());
        calls() > 0
    });
    service.stdin.take().unwrap().write_all(b"\n").unwrap();
    assert!(service.wait().unwrap().success());

    assert!(Command::new("kill").args(["-TERM", &sidecar.0.id().to_string()]).status().unwrap().success());
    assert!(sidecar.0.wait().unwrap().success());
}
