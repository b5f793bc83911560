//! A stage for the kernel tests: a cgroup of our own, private copies of the TLS libraries, and a capture.
//!
//! Nothing outside of it is touched. Probes sit on inodes, so programs under test get copies of libssl; everything else
//! is confined to the cgroup, which is removed at the end.

pub(crate) mod seen;

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    mem::MaybeUninit,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use farcall_sidecar::{
    attach::{Capture, Options, cgroup, check},
    tap::Observation,
};
use seen::{Seen, still_open};
use vendor_sim::Sim;

/// How long anything is waited for, at most: more than it takes on the busiest machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// A vendor of the test's own.
pub(crate) fn sim() -> Sim {
    Sim::start(vendor_sim::Options { threads: 2, ..vendor_sim::Options::default() }).unwrap()
}

/// Why the kernel tests cannot run here; printed loudly, because a skipped test proves nothing.
pub(crate) fn missing() -> Option<String> {
    let findings = check::check();
    if check::sufficient(&findings) {
        return None;
    }
    let missing: Vec<_> =
        findings.iter().filter(|finding| !finding.present).map(|finding| finding.feature).collect();
    Some(format!("this machine lacks {}", missing.join(", ")))
}

/// Begins a kernel test, or says that it is skipped and returns from it.
#[macro_export]
macro_rules! stage {
    () => {
        match stage::missing() {
            None => stage::Stage::new(),
            Some(reason) => {
                println!("SKIPPED (kernel): {reason}");
                eprintln!("SKIPPED (kernel): {reason}");
                return;
            }
        }
    };
}

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// A cgroup and a folder that live as long as the test.
pub(crate) struct Stage {
    cgroup: PathBuf,
    pub(crate) folder: tempfile::TempDir,
    libraries: PathBuf,
    /// Folders whose TLS libraries are probed before a program maps them. Never the machine's own: others pay for them.
    pub(crate) folders: Vec<PathBuf>,
    /// Whether loopback counts as egress: in tests it mostly is all there is.
    pub(crate) include_loopback: bool,
}

impl Stage {
    pub(crate) fn new() -> Self {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("farcall-test-{}-{number}", std::process::id());
        let cgroup = cgroup::mount_point().unwrap().join(name);
        fs::create_dir(&cgroup).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let libraries = folder.path().join("lib");
        fs::create_dir(&libraries).unwrap();
        for library in openssl_of(Path::new("/usr/bin/curl")) {
            fs::copy(&library, libraries.join(library.file_name().unwrap())).unwrap();
        }
        Self { cgroup, folder, libraries, folders: Vec::new(), include_loopback: true }
    }

    /// The directory of the cgroup.
    pub(crate) fn cgroup(&self) -> &Path {
        &self.cgroup
    }

    /// The private copy of libssl.
    pub(crate) fn libssl(&self) -> PathBuf {
        let name = |path: &Path| path.file_name().unwrap().to_string_lossy().starts_with("libssl.so");
        fs::read_dir(&self.libraries)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .find(|path| name(path))
            .unwrap()
    }

    /// Writes a file into the folder.
    pub(crate) fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// A certificate that signs itself, and its key, in one file.
    pub(crate) fn certificate(&self) -> PathBuf {
        let path = self.folder.path().join("self.pem");
        let made = Command::new("openssl")
            .args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
                "-nodes",
                "-days",
                "2",
                "-subj",
                "/CN=test",
                "-keyout",
            ])
            .arg(&path)
            .arg("-out")
            .arg(self.folder.path().join("cert.pem"))
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let certificate = fs::read(self.folder.path().join("cert.pem")).unwrap();
        fs::File::options().append(true).open(&path).unwrap().write_all(&certificate).unwrap();
        path
    }

    /// A program that runs inside the cgroup.
    pub(crate) fn inside(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new("sh");
        command
            .args(["-c", "echo $$ > \"$0\" && exec \"$@\""])
            .arg(self.cgroup.join("cgroup.procs"))
            .arg(program)
            .args(arguments)
            .env("LD_LIBRARY_PATH", &self.libraries);
        command
    }

    /// The same program outside.
    pub(crate) fn outside(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(arguments).env("LD_LIBRARY_PATH", &self.libraries);
        command
    }

    /// curl, quiet, HTTP/1.1, to the simulator under any name.
    pub(crate) fn curl(&self, sim: &Sim, arguments: &[&str]) -> Command {
        let ca = self.file("ca.pem", sim.ca_pem());
        let mut command =
            self.inside("curl", &["--silent", "--show-error", "--http1.1", "--output", "/dev/null"]);
        command.arg("--cacert").arg(ca);
        command.args(["--connect-to", &format!("::{}", sim.tls_addr())]).args(arguments);
        command
    }

    /// Captures while the programs run one after the other. `probe` names the private libssl to the capture from the
    /// start; else it must find it by itself.
    pub(crate) fn capture(&self, probe: bool, programs: Vec<Command>) -> Seen {
        self.capture_at_once(probe, programs.into_iter().map(|program| vec![program]).collect())
    }

    /// Captures a program that prints a line and reads one, in each of its rounds: between the two, it is asked for
    /// connections still open until there is news of one.
    pub(crate) fn capture_by_rounds(&self, mut program: Command, rounds: usize) -> Seen {
        self.play(false, |capture, observations| {
            let mut child = program.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
            let (mut tell, said) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
            let mut lines = BufReader::new(said).lines();
            for _ in 0..rounds {
                lines.next().unwrap().unwrap();
                let known = observations.len();
                until("news of a connection", || {
                    observations.extend(capture.sweep().unwrap());
                    observations.len() > known
                });
                tell.write_all(b"go\n").unwrap();
            }
            await_all(capture, observations, vec![child])
        })
    }

    /// Captures programs that run one after the other, once the library that `service` maps is probed.
    pub(crate) fn capture_once_found(&self, mut service: Command, programs: Vec<Command>) -> Seen {
        self.play(false, |capture, observations| {
            let mut service = service.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
            until("the library of the service", || {
                observations.extend(capture.poll(Duration::from_millis(5)).unwrap());
                observations.extend(capture.sweep().unwrap());
                !capture.libraries().is_empty()
            });
            let mut printed = Vec::new();
            for mut program in programs {
                let child = program.stdout(Stdio::piped()).spawn().unwrap();
                printed.extend(await_all(capture, observations, vec![child]));
            }
            drop(service.stdin.take());
            printed.extend(await_all(capture, observations, vec![service]));
            printed
        })
    }

    /// Captures without listening until the programs have ended: as if this machine had no time for us.
    pub(crate) fn capture_too_late(&self, programs: Vec<Command>) -> Seen {
        let mut programs = programs.into_iter();
        self.follow(false, |_| {
            let mut child = programs.next()?.stdout(Stdio::piped()).spawn().unwrap();
            // What it prints fits into the pipe.
            child.wait().unwrap();
            Some(vec![child])
        })
    }

    /// Captures while groups of programs run, those of one group at once.
    pub(crate) fn capture_at_once(&self, probe: bool, groups: Vec<Vec<Command>>) -> Seen {
        let mut groups = groups.into_iter();
        self.follow(probe, |_| {
            let group = groups.next()?;
            let spawn = |mut program: Command| program.stdout(Stdio::piped()).spawn().unwrap();
            Some(group.into_iter().map(spawn).collect())
        })
    }

    /// Captures from the moment when the program has printed a line; it goes on when it can read one.
    pub(crate) fn capture_after_ready(&self, mut program: Command) -> Seen {
        let mut child = program.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        self.follow(false, |started| match started {
            0 => {
                child.stdin.take().unwrap().write_all(b"go\n").unwrap();
                Some(vec![std::mem::replace(&mut child, Command::new("true").spawn().unwrap())])
            }
            _ => None,
        })
    }

    /// Captures a program that prints `ready` and reads a line. In between it is moved into each of the cgroups in turn, and so
    /// many of its connections are followed.
    pub(crate) fn capture_of_moved(
        &self,
        mut program: Command,
        cgroups: &[&Path],
        connections: usize,
    ) -> Seen {
        self.play(true, |capture, observations| {
            let mut child = program.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
            let mut line = String::new();
            // Byte by byte, so that nothing of what follows is taken with it.
            while !line.ends_with('\n') {
                let mut byte = [0];
                child.stdout.as_mut().unwrap().read_exact(&mut byte).unwrap();
                line.push(byte[0].into());
            }
            assert_eq!(line, "ready\n");
            for cgroup in cgroups {
                fs::write(cgroup.join("cgroup.procs"), child.id().to_string()).unwrap();
                observations.extend(capture.poll(Duration::from_millis(5)).unwrap());
            }
            until("the connections of who was moved", || {
                observations.extend(capture.poll(Duration::from_millis(5)).unwrap());
                observations.extend(capture.sweep().unwrap());
                capture.open_connections() == connections
            });
            child.stdin.take().unwrap().write_all(b"go\n").unwrap();
            await_all(capture, observations, vec![child])
        })
    }

    /// Captures while programs run, one group after the other, as `next` starts them.
    fn follow(&self, probe: bool, mut next: impl FnMut(usize) -> Option<Vec<Child>>) -> Seen {
        self.play(probe, |capture, observations| {
            let (mut started, mut printed) = (0, Vec::new());
            while let Some(children) = next(started) {
                started += 1;
                printed.extend(await_all(capture, observations, children));
            }
            printed
        })
    }

    /// Captures while `play` has programs run; what they printed, and what was seen.
    fn play(
        &self,
        probe: bool,
        play: impl FnOnce(&mut Capture<'_>, &mut Vec<Observation>) -> Vec<String>,
    ) -> Seen {
        let cgroup = cgroup::Cgroup::open(&self.cgroup).unwrap();
        let mut storage = MaybeUninit::uninit();
        let libraries = if probe { vec![self.libssl()] } else { Vec::new() };
        let options =
            Options { include_loopback: self.include_loopback, libraries, folders: self.folders.clone() };
        let mut capture = Capture::start(&mut storage, &cgroup, &options).unwrap();
        let mut observations = Vec::new();
        let printed = play(&mut capture, &mut observations);
        // Sockets close a moment after their process; so wait for what is still open, but not for ever.
        let deadline = Instant::now() + PATIENCE;
        loop {
            observations.extend(capture.sweep().unwrap());
            if capture.open_connections() == 0 {
                break;
            }
            if Instant::now() > deadline {
                let losses = capture.losses();
                observations.extend(capture.finish().unwrap());
                panic!("still open after {PATIENCE:?}: {:#?}\n{losses:#?}", still_open(&observations));
            }
            observations.extend(capture.poll(Duration::from_millis(5)).unwrap());
        }
        observations.extend(capture.finish().unwrap());
        let losses = capture.losses().unwrap();
        Seen::new(observations, losses, printed)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // Processes that ended leave the cgroup a moment later.
        let deadline = Instant::now() + PATIENCE;
        while fs::remove_dir(&self.cgroup).is_err() && Instant::now() < deadline {
            std::thread::yield_now();
        }
    }
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
    }
}

/// Captures until all of them have ended; what they printed, in that order.
fn await_all(
    capture: &mut Capture<'_>,
    observations: &mut Vec<Observation>,
    mut children: Vec<Child>,
) -> Vec<String> {
    let mut printed = Vec::new();
    until("the programs under test to end", || {
        observations.extend(capture.poll(Duration::from_millis(5)).unwrap());
        children.retain_mut(|child| {
            let Some(status) = child.try_wait().unwrap() else { return true };
            let mut text = String::new();
            if let Some(mut said) = child.stdout.take() {
                said.read_to_string(&mut text).unwrap();
            }
            assert!(status.success(), "a program under test failed: {status}\n{text}");
            printed.push(text);
            false
        });
        children.is_empty()
    });
    printed
}

/// The same program, whose failure is no failure of the test.
pub(crate) fn whatever_it_returns(program: Command) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", "\"$@\" || true", "sh"]).arg(program.get_program()).args(program.get_args());
    for (name, value) in program.get_envs() {
        if let Some(value) = value {
            command.env(name, value);
        }
    }
    command
}

/// The files of libssl and libcrypto that a program loads.
fn openssl_of(program: &Path) -> Vec<PathBuf> {
    let listed = Command::new("ldd").arg(program).output().unwrap();
    String::from_utf8(listed.stdout)
        .unwrap()
        .lines()
        .filter_map(|line| line.split_once("=> ")?.1.split(' ').next().map(PathBuf::from))
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            name.starts_with("libssl.so") || name.starts_with("libcrypto.so")
        })
        .collect()
}
