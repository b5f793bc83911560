//! The processes of the scope: which program, which user, which cgroup.

use std::{
    collections::{HashMap, VecDeque},
    fs,
    path::PathBuf,
    sync::Arc,
};

use crate::wire::record::{Execution, Socket};

/// A process, as it was when it was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Process identifier, outside any pid namespace.
    pub tgid: u32,
    /// Its parent's.
    pub parent: u32,
    /// Start, `CLOCK_BOOTTIME` nanoseconds. With `tgid` it names the process for as long as the machine runs.
    pub started: u64,
    /// Real user identifier.
    pub uid: u32,
    /// Path of the executable inside the process's own root, or the thread's name where nothing better was known.
    pub executable: String,
    /// The name of the thread that was seen first.
    pub comm: String,
    /// Path of the cgroup below the version 2 hierarchy, empty where the process was gone too soon.
    pub cgroup: String,
    /// The cgroup's identifier.
    pub cgroup_id: u64,
}

/// Processes remembered, the dead ones until room is needed.
pub const CAPACITY: usize = 16_384;

/// A bounded table of processes. The dead stay for a while: their last records may still be under way.
#[derive(Debug, Default)]
pub struct Processes {
    by_tgid: HashMap<u32, Arc<Process>>,
    order: VecDeque<(u32, u64)>,
}

impl Processes {
    /// A process executed a program.
    pub fn executed(&mut self, execution: &Execution) -> Arc<Process> {
        self.insert(Process {
            tgid: execution.tgid,
            parent: execution.parent,
            started: execution.started,
            uid: execution.uid,
            executable: executable(execution.tgid).unwrap_or_else(|| execution.path.clone()),
            comm: execution.comm.clone(),
            cgroup: cgroup_path(execution.tgid).unwrap_or_default(),
            cgroup_id: execution.cgroup,
        })
    }

    /// The process that opened a connection. Where it is new and already gone, it is taken for a fork of its parent.
    pub fn of(&mut self, socket: &Socket) -> Arc<Process> {
        if let Some(process) = self.get(socket.tgid, socket.started) {
            return process;
        }
        let parent = self.by_tgid.get(&socket.parent).cloned();
        let executable = executable(socket.tgid)
            .or_else(|| parent.as_ref().map(|parent| parent.executable.clone()))
            .unwrap_or_else(|| socket.comm.clone());
        let cgroup = cgroup_path(socket.tgid)
            .or_else(|| {
                parent.filter(|parent| parent.cgroup_id == socket.cgroup).map(|parent| parent.cgroup.clone())
            })
            .unwrap_or_default();
        self.insert(Process {
            tgid: socket.tgid,
            parent: socket.parent,
            started: socket.started,
            uid: socket.uid,
            executable,
            comm: socket.comm.clone(),
            cgroup,
            cgroup_id: socket.cgroup,
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

    fn insert(&mut self, process: Process) -> Arc<Process> {
        let process = Arc::new(process);
        self.order.push_back((process.tgid, process.started));
        self.by_tgid.insert(process.tgid, Arc::clone(&process));
        while self.order.len() > CAPACITY {
            let Some((tgid, started)) = self.order.pop_front() else { break };
            if self.by_tgid.get(&tgid).is_some_and(|oldest| oldest.started == started) {
                self.by_tgid.remove(&tgid);
            }
        }
        process
    }
}

fn executable(tgid: u32) -> Option<String> {
    let path: PathBuf = fs::read_link(format!("/proc/{tgid}/exe")).ok()?;
    let path = path.to_string_lossy();
    Some(path.strip_suffix(" (deleted)").unwrap_or(&path).to_owned())
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

    #[test]
    fn a_reused_identifier_is_another_process() {
        let mut processes = Processes::default();
        let mut execution = Execution {
            tgid: u32::MAX, // no such process: nothing is read from /proc
            parent: 1,
            uid: 0,
            started: 100,
            cgroup: 5,
            comm: "curl".into(),
            path: "/usr/bin/curl".into(),
        };
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
                parent: 0,
                started: n,
                uid: 0,
                executable: String::new(),
                comm: String::new(),
                cgroup: String::new(),
                cgroup_id: 0,
            });
        }
        assert_eq!(processes.by_tgid.len(), CAPACITY);
    }
}
