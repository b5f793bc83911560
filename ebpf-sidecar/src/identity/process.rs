//! The processes of the scope: which program, which user, which cgroup.

use std::{
    collections::{HashMap, VecDeque},
    fs,
    path::PathBuf,
    sync::Arc,
};

use super::service;
use crate::wire::record::{Execution, Socket};

/// A process, as it was when it was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Process identifier, outside any pid namespace.
    pub tgid: u32,
    /// The identifier by which it knows itself: that of its own pid namespace.
    pub own_pid: u32,
    /// That pid namespace, as the library inside would name it; 0 where the process was gone too soon.
    pub pid_namespace: u64,
    /// Its parent's.
    pub parent: u32,
    /// Start, `CLOCK_BOOTTIME` nanoseconds. With `tgid` it names the process for as long as the machine runs.
    pub started: u64,
    /// Real user identifier.
    pub uid: u32,
    /// Path of the executable inside the process's own root, or the thread's name where nothing better was known.
    pub executable: String,
    /// What people would call the program: the executable's base name, or the script's under an interpreter.
    pub service: String,
    /// The user's name, or number where the host's user database has none.
    pub user: String,
    /// The name of the thread that was seen first.
    pub comm: String,
    /// Path of the cgroup below the version 2 hierarchy, empty where the process was gone too soon, as nobody was seen there.
    pub cgroup: String,
    /// The cgroup's identifier.
    pub cgroup_id: u64,
    /// The container, as the library inside would name it; empty outside of one, or where the process was gone too soon, as
    /// nobody was seen in its cgroup.
    pub container: String,
}

impl Process {
    /// Start in clock ticks since boot, as field 22 of `/proc/PID/stat` gives it (proc_pid_stat(5)).
    #[must_use]
    pub fn started_ticks(&self) -> u64 {
        // USER_HZ is 100 on every architecture that we know.
        self.started / 10_000_000
    }
}

/// Processes remembered, the dead ones until room is needed.
pub const CAPACITY: usize = 16_384;

/// A bounded table of processes. The dead stay for a while: their last records may still be under way.
#[derive(Debug, Default)]
pub struct Processes {
    by_tgid: HashMap<u32, Arc<Process>>,
    /// By identifier and start, the oldest first.
    order: VecDeque<Arc<Process>>,
    /// The latest process of each cgroup of which more than its identifier is known.
    by_cgroup: HashMap<u64, Arc<Process>>,
    users: Users,
}

impl Processes {
    /// A process executed a program.
    pub fn executed(&mut self, execution: &Execution) -> Arc<Process> {
        let executable = executable(execution.tgid).unwrap_or_else(|| execution.path.clone());
        let user = self.users.name(execution.uid);
        let (own_pid, pid_namespace) = own_pid(execution.tgid);
        let (cgroup, container) = self.place(execution.tgid, execution.cgroup, None);
        self.insert(Process {
            tgid: execution.tgid,
            own_pid,
            pid_namespace,
            parent: execution.parent,
            started: execution.started,
            uid: execution.uid,
            service: service::name(execution.tgid, &executable),
            user,
            executable,
            comm: execution.comm.clone(),
            cgroup,
            cgroup_id: execution.cgroup,
            container,
        })
    }

    /// A process came that has executed its program elsewhere. One that is known stays who it is.
    pub fn moved(&mut self, execution: &Execution) {
        if self.get(execution.tgid, execution.started).is_none() {
            // Where it is gone already, its name is all there is.
            let path = execution.comm.clone();
            self.executed(&Execution { path, ..execution.clone() });
        }
    }

    /// The process that opened a connection. Where it is new and already gone, it is taken for a fork of its parent.
    pub fn of(&mut self, socket: &Socket) -> Arc<Process> {
        if let Some(process) = self.get(socket.tgid, socket.started) {
            return process;
        }
        let parent = self.by_tgid.get(&socket.parent).cloned();
        let (executable, service) = match (executable(socket.tgid), &parent) {
            (Some(executable), _) => {
                let service = service::name(socket.tgid, &executable);
                (executable, service)
            }
            (None, Some(parent)) => (parent.executable.clone(), parent.service.clone()),
            (None, None) => (socket.comm.clone(), socket.comm.clone()),
        };
        let user = self.users.name(socket.uid);
        let (cgroup, container) = self.place(socket.tgid, socket.cgroup, parent);
        let (own_pid, pid_namespace) = own_pid(socket.tgid);
        self.insert(Process {
            tgid: socket.tgid,
            own_pid,
            pid_namespace,
            parent: socket.parent,
            started: socket.started,
            uid: socket.uid,
            service,
            user,
            executable,
            comm: socket.comm.clone(),
            cgroup,
            cgroup_id: socket.cgroup,
            container,
        })
    }

    /// The process by identifier and start. `None` where another process has taken the identifier since.
    #[must_use]
    pub fn get(&self, tgid: u32, started: u64) -> Option<Arc<Process>> {
        self.by_tgid.get(&tgid).filter(|process| process.started == started).cloned()
    }

    /// The latest process of this identifier.
    #[must_use]
    pub fn latest(&self, tgid: u32) -> Option<Arc<Process>> {
        self.by_tgid.get(&tgid).cloned()
    }

    /// The cgroup and the container of a process. One that is already gone was where its parent is, or whoever else was
    /// seen in that cgroup: no container has a cgroup together with another one, but for the root, where a hierarchy of
    /// version 1 may tell them apart.
    fn place(&self, tgid: u32, cgroup_id: u64, parent: Option<Arc<Process>>) -> (String, String) {
        // Asked in this order, it was there for both answers.
        let container = container(tgid);
        if let Some(cgroup) = cgroup_path(tgid) {
            return (cgroup, container);
        }
        let sibling = parent.filter(|parent| parent.cgroup_id == cgroup_id);
        let known = sibling.or_else(|| self.by_cgroup.get(&cgroup_id).cloned());
        known.map_or_else(Default::default, |known| (known.cgroup.clone(), known.container.clone()))
    }

    fn insert(&mut self, process: Process) -> Arc<Process> {
        let process = Arc::new(process);
        self.order.push_back(Arc::clone(&process));
        self.by_tgid.insert(process.tgid, Arc::clone(&process));
        if !matches!(process.cgroup.as_str(), "" | "/") {
            self.by_cgroup.insert(process.cgroup_id, Arc::clone(&process));
        }
        while self.order.len() > CAPACITY {
            let Some(oldest) = self.order.pop_front() else { break };
            if self.by_tgid.get(&oldest.tgid).is_some_and(|known| known.started == oldest.started) {
                self.by_tgid.remove(&oldest.tgid);
            }
            if self.by_cgroup.get(&oldest.cgroup_id).is_some_and(|known| Arc::ptr_eq(known, &oldest)) {
                self.by_cgroup.remove(&oldest.cgroup_id);
            }
        }
        process
    }
}

/// Names of users, from the host's user database as it was at the first question.
#[derive(Debug, Default)]
struct Users {
    names: Option<HashMap<u32, String>>,
}

impl Users {
    fn name(&mut self, uid: u32) -> String {
        let names = self.names.get_or_insert_with(|| {
            fs::read_to_string("/etc/passwd").map(|text| parse_passwd(&text)).unwrap_or_default()
        });
        names.get(&uid).cloned().unwrap_or_else(|| uid.to_string())
    }
}

fn parse_passwd(text: &str) -> HashMap<u32, String> {
    let entries = text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let uid = fields.nth(1)?.parse().ok()?;
        Some((uid, name.to_owned()))
    });
    // The first entry of a number gives its name, as in getpwuid(3).
    entries.fold(HashMap::new(), |mut names, (uid, name)| {
        names.entry(uid).or_insert(name);
        names
    })
}

fn executable(tgid: u32) -> Option<String> {
    let path: PathBuf = fs::read_link(format!("/proc/{tgid}/exe")).ok()?;
    let path = path.to_string_lossy();
    Some(path.strip_suffix(" (deleted)").unwrap_or(&path).to_owned())
}

/// One function with the library: the same container must not have two names.
fn container(tgid: u32) -> String {
    farcall_agent::container_of(&tgid.to_string()).unwrap_or_default()
}

/// The identifier of a process in its own pid namespace, and that namespace (pid_namespaces(7)).
fn own_pid(tgid: u32) -> (u32, u64) {
    let status = fs::read_to_string(format!("/proc/{tgid}/status")).unwrap_or_default();
    let namespace = farcall_agent::pid_namespace_of(&tgid.to_string());
    innermost(&status).zip(namespace).unwrap_or((tgid, 0))
}

/// The last number of `NSpid`: that of the innermost namespace (proc_pid_status(5)).
fn innermost(status: &str) -> Option<u32> {
    status.lines().find_map(|line| line.strip_prefix("NSpid:"))?.split_ascii_whitespace().last()?.parse().ok()
}

/// The cgroup of a process below the version 2 hierarchy, as `/proc/<pid>/cgroup` names it.
fn cgroup_path(tgid: u32) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{tgid}/cgroup")).ok()?;
    text.lines().find_map(|line| line.strip_prefix("0::")).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn execution() -> Execution {
        Execution {
            tgid: u32::MAX, // no such process: nothing is read from /proc
            parent: 1,
            uid: 0,
            started: 100,
            cgroup: 5,
            comm: "curl".into(),
            path: "/usr/bin/curl".into(),
        }
    }

    #[test]
    fn a_user_has_the_name_of_its_first_entry() {
        let names = parse_passwd("root:x:0:0:root:/root:/bin/sh\nbroken\ntoor:x:0:0::/:\nweb:x:33:33::/:\n");
        assert_eq!(names.get(&0).map(String::as_str), Some("root"));
        assert_eq!(names.get(&33).map(String::as_str), Some("web"));
        assert_eq!(names.len(), 2);
    }

    #[test]
    fn a_process_has_the_container_that_its_library_names_or_its_parents() {
        let mut processes = Processes::default();
        let me = Execution { tgid: std::process::id(), ..execution() };
        let mine = farcall_agent::container_of("self").unwrap_or_default();
        assert_eq!(processes.executed(&me).container, mine);

        // A fork that is gone before anybody looks, of a process in a container.
        let parent = Process { container: "0123456789ab".into(), ..(*processes.executed(&me)).clone() };
        processes.insert(parent);
        let mut bytes = vec![0; Socket::SIZE];
        bytes[56..64].copy_from_slice(&5u64.to_ne_bytes());
        let socket = Socket { tgid: u32::MAX, parent: me.tgid, ..Socket::decode(&bytes).unwrap() };
        assert_eq!(processes.of(&socket).container, "0123456789ab");
        let elsewhere = Socket { tgid: u32::MAX - 1, cgroup: 6, ..socket };
        assert_eq!(processes.of(&elsewhere).container, "");
    }

    #[test]
    fn a_process_that_is_gone_too_soon_was_in_the_container_of_its_cgroup() {
        let mut processes = Processes::default();
        let of = |cgroup: &str, cgroup_id: u64, container: &str| Process {
            cgroup: cgroup.into(),
            cgroup_id,
            container: container.into(),
            ..(*Processes::default().executed(&execution())).clone()
        };
        processes.insert(of("/docker/one", 7, "0123456789ab"));
        // A hierarchy of version 1: whoever is in the root of the other one may be in any container.
        processes.insert(of("/", 8, "ba9876543210"));
        let gone = |cgroup: u64| Execution { cgroup, started: 200, ..execution() };
        assert_eq!(processes.executed(&gone(7)).container, "0123456789ab");
        assert_eq!(processes.executed(&gone(7)).cgroup, "/docker/one", "nor is it forgotten by that");
        assert_eq!(processes.executed(&gone(8)).container, "");
        assert_eq!(processes.executed(&gone(9)).container, "");
        let mut bytes = vec![0; Socket::SIZE];
        bytes[56..64].copy_from_slice(&7u64.to_ne_bytes());
        let socket = Socket { tgid: u32::MAX - 1, ..Socket::decode(&bytes).unwrap() };
        assert_eq!(processes.of(&socket).container, "0123456789ab");
    }

    #[test]
    fn a_process_of_another_namespace_has_the_identifier_by_which_it_knows_itself() {
        assert_eq!(innermost("Name:\tpython3\nNSpid:\t4711\t12\t1\nNSpgid:\t4711\n"), Some(1));
        assert_eq!(innermost("Name:\tpython3\n"), None);
        let me = std::process::id();
        let mine = farcall_agent::pid_namespace_of("self").unwrap();
        assert_eq!(own_pid(me), (me, mine));
        assert_eq!(own_pid(u32::MAX), (u32::MAX, 0), "nobody can be asked");

        let mut outer = std::process::Command::new("unshare");
        outer.args([
            "--user",
            "--map-root-user",
            "--pid",
            "--fork",
            "--kill-child",
            "sh",
            "-c",
            "echo in; read end",
        ]);
        outer.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
        let mut outer = outer.spawn().unwrap();
        let mut said = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(outer.stdout.as_mut().unwrap()), &mut said)
            .unwrap();
        if said != "in\n" {
            println!("SKIPPED: this user may not make a pid namespace");
            outer.wait().unwrap();
            return;
        }
        let children = format!("/proc/{0}/task/{0}/children", outer.id());
        let inner: u32 = fs::read_to_string(children).unwrap().trim().parse().unwrap();
        let (pid, namespace) = own_pid(inner);
        assert!(pid == 1 && namespace != mine && namespace != 0, "{pid} {namespace}");
        drop(outer.stdin.take());
        outer.wait().unwrap();
    }

    #[test]
    fn a_reused_identifier_is_another_process() {
        let mut processes = Processes::default();
        let mut execution = execution();
        let gone = execution.tgid;
        processes.executed(&execution);
        assert_eq!(processes.get(gone, 100).unwrap().executable, "/usr/bin/curl");
        assert_eq!(processes.get(gone, 200), None);
        execution.started = 200;
        execution.path = "/usr/bin/wget".into();
        processes.executed(&execution);
        assert_eq!(processes.get(gone, 100), None);
        assert_eq!(processes.get(gone, 200).unwrap().executable, "/usr/bin/wget");
    }

    #[test]
    fn a_living_process_is_named_by_its_executable_and_cgroup() {
        let me = std::process::id();
        assert_eq!(executable(me).unwrap(), std::env::current_exe().unwrap().to_string_lossy());
        assert!(cgroup_path(me).is_none_or(|path| path.starts_with('/')));
    }

    #[test]
    fn memory_is_bounded() {
        let mut processes = Processes::default();
        for n in 0..CAPACITY as u64 + 10 {
            processes.insert(Process {
                tgid: n as u32,
                own_pid: n as u32,
                pid_namespace: 1,
                parent: 0,
                started: n,
                uid: 0,
                executable: String::new(),
                service: String::new(),
                user: String::new(),
                comm: String::new(),
                cgroup: format!("/{n}"),
                cgroup_id: n,
                container: String::new(),
            });
        }
        assert_eq!(processes.by_tgid.len(), CAPACITY);
        assert_eq!(processes.by_cgroup.len(), CAPACITY);
    }
}
