//! What this machine offers, and what depends on it.

use std::{fs, path::Path};

use libbpf_rs::{MapType, ProgramType, btf::types as btf};
use serde::Serialize;

use super::{AttachError, cgroup};

/// How much depends on a feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Need {
    /// Without it nothing is seen.
    Connections,
    /// Without it connections are seen, calls are not.
    Calls,
    /// Without it some detail is missing.
    Detail,
}

/// One feature of this machine.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// What was looked for.
    pub feature: &'static str,
    /// Whether it is there.
    pub present: bool,
    /// How much depends on it.
    pub need: Need,
    /// What depends on it, for people.
    pub used_for: &'static str,
    /// What was found, or what to do.
    pub detail: String,
}

/// Looks for everything that the sidecar uses, without attaching to anything.
#[must_use]
pub fn check() -> Vec<Finding> {
    let capabilities = capabilities();
    let btf = libbpf_rs::btf::Btf::from_vmlinux().ok();
    let has_tracepoint = |name: &str| {
        btf.as_ref()
            .is_some_and(|btf| btf.type_by_name::<btf::Typedef<'_>>(&format!("btf_trace_{name}")).is_some())
    };
    let has_function =
        |name: &str| btf.as_ref().is_some_and(|btf| btf.type_by_name::<btf::Func<'_>>(name).is_some());
    let finding = |feature, present, need, used_for, found: &str, missing: &str| Finding {
        feature,
        present,
        need,
        used_for,
        detail: if present { found } else { missing }.to_owned(),
    };
    let mount = cgroup::mount_point();
    vec![
        privileges(capabilities.unwrap_or(0), kernel()),
        probe_privileges(capabilities.unwrap_or(0), kernel()),
        Finding {
            feature: "cgroup version 2",
            present: mount.is_ok(),
            need: Need::Connections,
            used_for: "confining the capture to the services that you name",
            detail: mount
                .map_or_else(|error| error.to_string(), |path| format!("mounted at {}", path.display())),
        },
        finding(
            "BTF",
            Path::new("/sys/kernel/btf/vmlinux").exists(),
            Need::Connections,
            "finding kernel fields, whatever the version (CO-RE)",
            "/sys/kernel/btf/vmlinux",
            "this kernel was built without CONFIG_DEBUG_INFO_BTF; distributions since 2021 have it",
        ),
        finding(
            "ring buffer",
            MapType::RingBuf.is_supported().unwrap_or(false),
            Need::Connections,
            "carrying records in order",
            "supported",
            "needs Linux 5.8",
        ),
        finding(
            "cgroup packet programs",
            ProgramType::CgroupSkb.is_supported().unwrap_or(false),
            Need::Connections,
            "DNS answers, TLS server names, plaintext HTTP",
            "supported",
            "needs CONFIG_CGROUP_BPF",
        ),
        finding(
            "cgroup socket programs",
            ProgramType::SockOps.is_supported().unwrap_or(false),
            Need::Connections,
            "the end of every connection",
            "supported",
            "needs CONFIG_CGROUP_BPF",
        ),
        finding(
            "TCP state tracepoint",
            has_tracepoint("inet_sock_set_state"),
            Need::Connections,
            "connections, their owners and exact byte counts",
            "inet_sock_set_state",
            "needs Linux 4.16 with BTF",
        ),
        finding(
            "process tracepoints",
            has_tracepoint("sched_process_exec") && has_tracepoint("sched_process_exit"),
            Need::Connections,
            "naming programs that end within milliseconds",
            "sched_process_exec, sched_process_exit",
            "needs BTF",
        ),
        finding(
            "uprobes",
            Path::new("/sys/bus/event_source/devices/uprobe/type").exists(),
            Need::Calls,
            "calls inside TLS (OpenSSL 1.1 and 3 as shared libraries)",
            "supported",
            "needs CONFIG_UPROBES, and /sys mounted",
        ),
        return_probes(kernel()),
        finding(
            "socket length tracepoints",
            has_socket_lengths(),
            Need::Detail,
            "joining a TLS stream with its socket where the program does its own I/O (curl)",
            "sock_send_length, sock_recv_length",
            "needs Linux 6.3; until then a stream is joined at its first read",
        ),
        finding(
            "cgroup tracepoint",
            tells_of_moves(),
            Need::Detail,
            "what a process has open that is moved into the cgroup later",
            "cgroup_attach_task",
            "needs Linux 4.17 with BTF; without it, calls on connections that such a process brings along are not counted",
        ),
        finding(
            "preemption guard",
            has_function("bpf_preempt_disable") || !uprobes_are_preemptible(),
            Need::Detail,
            "keeping two probes on one CPU apart (Linux 6.13 and later)",
            if has_function("bpf_preempt_disable") {
                "bpf_preempt_disable"
            } else {
                "not needed on this kernel"
            },
            if btf.is_some() {
                "this kernel preempts uprobe programs but lacks bpf_preempt_disable"
            } else {
                "this kernel preempts uprobe programs; whether it has bpf_preempt_disable, BTF would say"
            },
        ),
        finding(
            "host process identifiers",
            in_first_pid_namespace(),
            Need::Calls,
            "finding the executable and libraries of a process",
            "this is the host's pid namespace",
            HOST_PIDS,
        ),
    ]
}

/// Whether the kernel tells which socket a thread sends to and receives from.
pub(super) fn has_socket_lengths() -> bool {
    has_tracepoints(&["btf_trace_sock_send_length", "btf_trace_sock_recv_length"])
}

/// Whether the kernel tells of processes that are moved to another cgroup.
pub(super) fn tells_of_moves() -> bool {
    has_tracepoints(&["btf_trace_cgroup_attach_task"])
}

fn has_tracepoints(names: &[&str]) -> bool {
    libbpf_rs::btf::Btf::from_vmlinux()
        .is_ok_and(|btf| names.iter().all(|name| btf.type_by_name::<btf::Typedef<'_>>(name).is_some()))
}

/// Whether calls are seen: nothing is missing but details.
#[must_use]
pub fn sufficient(findings: &[Finding]) -> bool {
    findings.iter().all(|finding| finding.present || finding.need == Need::Detail)
}

const CAP_NET_ADMIN: u64 = 1 << 12;
const CAP_SYS_PTRACE: u64 = 1 << 19;
const CAP_SYS_ADMIN: u64 = 1 << 21;
const CAP_PERFMON: u64 = 1 << 38;
const CAP_BPF: u64 = 1 << 39;
const NEEDED: [(u64, &str); 4] = [
    (CAP_BPF, "CAP_BPF"),
    (CAP_PERFMON, "CAP_PERFMON"),
    (CAP_NET_ADMIN, "CAP_NET_ADMIN"),
    (CAP_SYS_PTRACE, "CAP_SYS_PTRACE"),
];

/// What the kernel asks for. `CAP_SYS_ADMIN` includes `CAP_BPF` and `CAP_PERFMON` (capabilities(7)), and from Linux 6.9 on, where
/// BPF asks, `CAP_NET_ADMIN`; before, attaching to a cgroup's packets wants that one itself.
fn privileges(held: u64, kernel: (u32, u32)) -> Finding {
    let included = match held & CAP_SYS_ADMIN != 0 {
        true if kernel >= (6, 9) => CAP_BPF | CAP_PERFMON | CAP_NET_ADMIN,
        true => CAP_BPF | CAP_PERFMON,
        false => 0,
    };
    let missing = NEEDED.iter().filter(|(capability, _)| (held | included) & capability == 0);
    let missing: Vec<&str> = missing.map(|(_, name)| *name).collect();
    let present = missing.is_empty();
    let detail = match (present, included) {
        (true, 0) => "CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN and CAP_SYS_PTRACE are held".to_owned(),
        (true, _) => "CAP_SYS_ADMIN and what it does not include are held".to_owned(),
        (false, _) => format!("run as root, or with {}", missing.join(", ")),
    };
    Finding {
        feature: "privileges",
        present,
        need: Need::Connections,
        used_for: "loading and attaching BPF programs",
        detail,
    }
}

/// `CAP_SYS_ADMIN`: Linux 6.18 answers EACCES to whoever places a uprobe without it, whatever else is held. Earlier
/// kernels are content with `CAP_PERFMON`.
fn probe_privileges(held: u64, kernel: (u32, u32)) -> Finding {
    let present = held & CAP_SYS_ADMIN != 0;
    let detail = match (present, kernel >= (6, 18)) {
        (true, _) => "CAP_SYS_ADMIN is held",
        (false, true) => {
            "run as root, or with CAP_SYS_ADMIN beside the others: this kernel places no uprobe without it"
        }
        (false, false) => {
            "this kernel does without; from Linux 6.18 on run as root, or with CAP_SYS_ADMIN, too"
        }
    };
    Finding {
        feature: "probe privileges",
        present,
        need: if kernel >= (6, 18) { Need::Calls } else { Need::Detail },
        used_for: "placing uprobes on TLS libraries, also on those that are mapped later",
        detail: detail.to_owned(),
    }
}

/// From Linux 6.11 on, x86-64 returns from a probed function by a system call, which until 6.14 was asked of seccomp filters,
/// too: one that does not list it ends the program (systemd's issue 34615).
fn return_probes(kernel: (u32, u32)) -> Finding {
    let present = !(cfg!(target_arch = "x86_64") && ((6, 11)..(6, 14)).contains(&kernel));
    let detail = if present {
        "no seccomp filter is asked about them"
    } else {
        "Linux 6.11 to 6.13 asks seccomp filters about the system call uretprobe, unless yours has the mend of 6.14: where \
         a container's or a service's filter does not list it, a program that uses a probed library is killed"
    };
    Finding {
        feature: "return probes",
        present,
        need: Need::Detail,
        used_for: "probing programs that run under a seccomp filter without harm",
        detail: detail.to_owned(),
    }
}

/// The effective capabilities of this process.
fn capabilities() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

fn uprobes_are_preemptible() -> bool {
    kernel() >= (6, 13)
}

/// The kernel's version; where nobody knows it, one that asks for everything.
fn kernel() -> (u32, u32) {
    let Ok(release) = fs::read_to_string("/proc/sys/kernel/osrelease") else { return (u32::MAX, 0) };
    let mut parts = release.split(['.', '-']).map(|part| part.parse::<u32>().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

/// What to do outside the first pid namespace.
pub(super) const HOST_PIDS: &str = "run in the host's pid namespace (docker run --pid=host, hostPID: true)";

/// Refuses to go on outside the first pid namespace. The kernel names processes as they are known there: libraries would
/// be known by other numbers than their calls, and each call would count twice.
///
/// # Errors
/// [`AttachError::PidNamespace`] there, with the remedy that [`check`] gives.
pub fn require_host_pids() -> Result<(), AttachError> {
    if in_first_pid_namespace() { Ok(()) } else { Err(AttachError::PidNamespace) }
}

/// The first pid namespace has a fixed inode number (include/linux/proc_ns.h, PROC_PID_INIT_INO).
fn in_first_pid_namespace() -> bool {
    fs::read_link("/proc/self/ns/pid").is_ok_and(|link| link.as_os_str() == "pid:[4026531836]")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_detail_is_no_failure_and_a_missing_tracepoint_is_one() {
        let finding =
            |present, need| Finding { feature: "f", present, need, used_for: "", detail: String::new() };
        assert!(sufficient(&[finding(true, Need::Connections), finding(false, Need::Detail)]));
        assert!(!sufficient(&[finding(false, Need::Calls)]));
        assert!(!sufficient(&[finding(false, Need::Connections)]));
    }

    #[test]
    fn without_sys_admin_a_kernel_that_wants_it_shows_no_calls() {
        let all_but_it = NEEDED.iter().fold(0, |all, (capability, _)| all | capability);
        let new = probe_privileges(all_but_it, (6, 18));
        assert!(!sufficient(std::slice::from_ref(&new)) && new.detail.contains("CAP_SYS_ADMIN"), "{new:?}");
        assert!(!sufficient(&[probe_privileges(all_but_it, (7, 0))]));
        assert!(sufficient(&[probe_privileges(all_but_it, (6, 1))]), "older ones do without");
        assert!(probe_privileges(all_but_it | CAP_SYS_ADMIN, (6, 18)).present);
    }

    #[test]
    fn what_another_capability_includes_is_not_missed_and_what_is_missed_is_named() {
        let with_sys_admin = |held| privileges(held | CAP_SYS_ADMIN, (6, 18));
        assert!(with_sys_admin(CAP_SYS_PTRACE).present);
        assert_eq!(with_sys_admin(0).detail, "run as root, or with CAP_SYS_PTRACE");
        let before = privileges(CAP_SYS_PTRACE | CAP_SYS_ADMIN, (6, 8));
        assert_eq!((before.present, &*before.detail), (false, "run as root, or with CAP_NET_ADMIN"));
        let without = privileges(CAP_NET_ADMIN | CAP_BPF | CAP_SYS_PTRACE, (6, 18));
        assert_eq!((without.present, &*without.detail), (false, "run as root, or with CAP_PERFMON"));
    }

    #[test]
    fn kernels_on_which_a_seccomp_filter_may_end_a_probed_program_are_named() {
        for (kernel, is_safe) in [((6, 10), true), ((6, 11), false), ((6, 13), false), ((6, 14), true)] {
            let finding = return_probes(kernel);
            assert_eq!(finding.present, is_safe || !cfg!(target_arch = "x86_64"), "{kernel:?}");
            assert_eq!(finding.detail.contains("killed"), !finding.present);
        }
    }

    #[test]
    fn every_finding_says_what_it_is_for() {
        for finding in check() {
            assert!(!finding.used_for.is_empty() && !finding.detail.is_empty(), "{finding:?}");
        }
    }
}
