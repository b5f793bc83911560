//! Connections that were open before the capture began, or before their process came into the cgroup.

use std::{collections::HashSet, fs, io::Read};

use libbpf_rs::{Iter, Link, MapCore, MapFlags};

use super::{AttachError, Attempting, cgroup::Cgroup};
use crate::wire::record::Socket;

/// What the iterator calls a listening socket.
const LISTENING: u8 = 2;

/// The open outbound connections of the processes in the cgroup, in the layout of the map `fc_conns`. `adoptees` is the
/// map that tells the iterator whose files to look at.
pub(super) fn open_connections(
    cgroup: &Cgroup,
    adoptees: &impl MapCore,
    iterator: &Link,
) -> Result<Vec<(Socket, Vec<u8>)>, AttachError> {
    let processes = cgroup.processes();
    for tgid in &processes {
        let id = cgroup_id(cgroup, *tgid).unwrap_or(cgroup.id);
        adoptees
            .update(&tgid.to_ne_bytes(), &id.to_ne_bytes(), MapFlags::ANY)
            .attempting("naming processes")?;
    }
    let mut bytes = Vec::new();
    let path = || std::path::PathBuf::from("the sockets of running processes");
    let read = Iter::new(iterator)
        .attempting("reading open sockets")?
        .read_to_end(&mut bytes)
        .map_err(|source| AttachError::Read { path: path(), source });
    // By the next time others may have their numbers.
    for tgid in &processes {
        let _gone = adoptees.delete(&tgid.to_ne_bytes());
    }
    read.map(|_| outbound(&bytes))
}

/// Connections among the sockets that were not accepted: their local port is none that somebody listens on.
fn outbound(bytes: &[u8]) -> Vec<(Socket, Vec<u8>)> {
    let sockets: Vec<(Socket, &[u8])> = bytes
        .chunks_exact(Socket::SIZE)
        .filter_map(|chunk| Socket::decode(chunk).map(|socket| (socket, chunk)))
        .collect();
    let is_listening = |chunk: &[u8]| chunk[Socket::JOINED] == LISTENING;
    let ports: HashSet<u16> =
        sockets.iter().filter(|(_, chunk)| is_listening(chunk)).map(|(socket, _)| socket.local.1).collect();
    sockets
        .into_iter()
        .filter(|(socket, chunk)| !is_listening(chunk) && !ports.contains(&socket.local.1))
        .map(|(socket, chunk)| (socket, chunk.to_vec()))
        .collect()
}

/// Identifier of the cgroup that the process is in: the inode of its directory.
fn cgroup_id(cgroup: &Cgroup, tgid: u32) -> Option<u64> {
    use std::os::unix::fs::MetadataExt;
    let text = fs::read_to_string(format!("/proc/{tgid}/cgroup")).ok()?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    fs::metadata(cgroup.mount.join(path)).ok().map(|metadata| metadata.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket(cookie: u64, port: u16, joined: u8) -> Vec<u8> {
        let mut bytes = vec![0; Socket::SIZE];
        bytes[..8].copy_from_slice(&cookie.to_ne_bytes());
        bytes[136..138].copy_from_slice(&port.to_ne_bytes());
        bytes[Socket::JOINED] = joined;
        bytes
    }

    #[test]
    fn accepted_connections_are_not_outbound() {
        let bytes = [socket(0, 8080, 2), socket(1, 8080, 1), socket(2, 40_000, 1)].concat();
        let found: Vec<u64> = outbound(&bytes).iter().map(|(socket, _)| socket.cookie).collect();
        assert_eq!(found, [2]);
        assert!(outbound(&[0; 7]).is_empty());
    }
}
