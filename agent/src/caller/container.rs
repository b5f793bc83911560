//! The container that a process runs in: one name for it, whoever asks, from inside or from the host.

use std::fs;

/// The first 12 digits of the id of the container that a process runs in, which is how people and `docker ps` know it;
/// `None` outside of a container, and where neither of the files that may name it can be read. `pid` is a number, or
/// `self`.
///
/// What the process's cgroup says is the same inside and outside, unless the container has a cgroup namespace of its own
/// (Docker's default with cgroup version 2): from inside, its cgroup is then the root, and the mount of `/etc/hostname`
/// names it.
#[must_use]
pub fn container_of(pid: &str) -> Option<String> {
    let cgroup = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    id(&cgroup).or_else(|| {
        let at_root = cgroup.lines().all(|line| path_of(line).is_none_or(|path| path == "/"));
        // Long on a host with many containers, and nothing there is at the root.
        at_root
            .then(|| fs::read_to_string(format!("/proc/{pid}/mountinfo")).ok())?
            .and_then(|mounts| id_of_mounts(&mounts))
    })
}

/// The id from the text of `/proc/PID/cgroup`: the last run of 64 hexadecimal digits (Docker, containerd, CRI-O, Podman) or
/// 32 of them (some of Kubernetes' and ECS').
fn id(cgroup: &str) -> Option<String> {
    cgroup.lines().filter_map(path_of).find_map(of_path)
}

fn path_of(line: &str) -> Option<&str> {
    line.splitn(3, ':').nth(2)
}

/// The id from the text of `/proc/PID/mountinfo` (proc_pid_mountinfo(5)), where Docker mounts
/// `.../containers/ID/hostname` on `/etc/hostname`.
fn id_of_mounts(mounts: &str) -> Option<String> {
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        let path = root.strip_suffix("/hostname").filter(|_| point == "/etc/hostname")?;
        let (folder, id) = path.rsplit_once('/')?;
        (folder.ends_with("/containers") && is_id(id)).then(|| id[..DIGITS].to_owned())
    })
}

/// Digits of an id that are enough.
const DIGITS: usize = 12;

fn of_path(path: &str) -> Option<String> {
    path.rsplit('/').find_map(|part| {
        let part = part.strip_suffix(".scope").unwrap_or(part);
        // `docker-<id>`, `cri-containerd-<id>`, `<id>`, and `<task>-<number>` of ECS.
        part.rsplit('-').chain([part]).find(|id| is_id(id)).map(|id| id[..DIGITS].to_owned())
    })
}

fn is_id(text: &str) -> bool {
    matches!(text.len(), 32 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_runtime_is_recognised() {
        let hex = "0123456789abcdef".repeat(4);
        for path in [
            format!("0::/docker/{hex}"),
            format!("0::/system.slice/docker-{hex}.scope"),
            format!("0::/kubepods.slice/kubepods-pod1.slice/cri-containerd-{hex}.scope"),
            format!("12:cpu:/\n5:memory:/kubepods/besteffort/pod1/{hex}"),
            format!("0::/machine.slice/libpod-{hex}.scope/container"),
            format!("9:cpu:/ecs/cluster/{}-2391573000", &hex[..32]),
        ] {
            assert_eq!(id(&path).as_deref(), Some("0123456789ab"), "{path}");
        }
    }

    #[test]
    fn a_container_with_a_cgroup_namespace_is_recognised_by_its_mounts() {
        let hex = "0123456789abcdef".repeat(4);
        let mounts = |path: &str| {
            format!(
                "600 599 0:50 / / rw - overlay overlay rw\n\
                 612 600 254:1 {path} /etc/hostname rw,relatime - ext4 /dev/vda1 rw\n"
            )
        };
        let docker = mounts(&format!("/var/lib/docker/containers/{hex}/hostname"));
        assert_eq!(id_of_mounts(&docker).as_deref(), Some("0123456789ab"));
        // Kubernetes mounts that of the pod's sandbox, which is another container.
        let sandbox = mounts(&format!("/run/containerd/io.containerd.grpc.v1.cri/sandboxes/{hex}/hostname"));
        assert_eq!(id_of_mounts(&sandbox), None);
        assert_eq!(id_of_mounts("garbage\n1 2 3\n"), None);
    }

    #[test]
    fn a_process_is_named_alike_by_itself_and_by_its_number() {
        assert_eq!(container_of("self"), container_of(&std::process::id().to_string()));
        assert_eq!(container_of("0"), None);
    }

    #[test]
    fn outside_a_container_there_is_none() {
        for path in ["0::/", "0::/user.slice/user-1000.slice/session-2.scope", "", "garbage"] {
            assert_eq!(id(path), None, "{path}");
        }
    }
}
