//! The container that a process runs in, from its cgroup.

/// The container's id in the text of `/proc/PID/cgroup`: the last run of 64 hexadecimal digits (Docker,
/// containerd, CRI-O, Podman) or 32 of them (some of Kubernetes' and ECS'), shortened to the 12 that people
/// know it by.
pub(crate) fn id(cgroup: &str) -> Option<String> {
    cgroup.lines().filter_map(|line| line.splitn(3, ':').nth(2)).find_map(of_path)
}

fn of_path(path: &str) -> Option<String> {
    path.rsplit('/').find_map(|part| {
        let part = part.strip_suffix(".scope").unwrap_or(part);
        // `docker-<id>`, `cri-containerd-<id>`, `<id>`, and `<task>-<number>` of ECS.
        part.rsplit('-').chain([part]).find(|id| is_id(id)).map(|id| id[..12].to_owned())
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
    fn outside_a_container_there_is_none() {
        for path in ["0::/", "0::/user.slice/user-1000.slice/session-2.scope", "", "garbage"] {
            assert_eq!(id(path), None, "{path}");
        }
    }
}
