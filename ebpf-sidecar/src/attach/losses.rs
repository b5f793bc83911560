//! What the kernel side could not deliver, or we not follow.

use std::{
    fs,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
};

use libbpf_rs::{MapCore, MapFlags, ProgramMut};
use serde::Serialize;

use super::{AttachError, Attempting, skeleton::FarcallSkel};
use crate::tap::Observer;

/// How often something could not be delivered or followed, by reason. All zero is the normal state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Losses {
    /// The ring buffer was full.
    pub ring_full: u64,
    /// Payload was withheld so that connection records keep their room.
    pub ring_pressure: u64,
    /// An application's buffer could not be read.
    pub fault: u64,
    /// More connections at once than the kernel map holds.
    pub connection_map: u64,
    /// More threads inside a TLS call than the kernel map holds.
    pub call_map: u64,
    /// More TLS streams than the kernel map holds.
    pub stream_map: u64,
    /// Bytes in the middle of long operations, which were left out. Their number is known, so nothing is lost.
    pub cut_bytes: u64,
    /// Packets whose payload could not be read.
    pub packet: u64,
    /// Runs of programs that the kernel skipped, because they would have nested in themselves.
    pub skipped: u64,
    /// Records that could not be decoded: programs and user space of different builds.
    pub undecodable: u64,
    /// Pieces of streams that were not followed, because too many were open at once.
    pub unfollowed: u64,
    /// Calls that nobody heard of, because their process was unknown.
    pub unowned: u64,
    /// Hosts files that could not be read: connections under them may keep their address for a name.
    pub unread_hosts: u64,
    /// The same as `skipped` of the tracepoint's program that follows the states of sockets. The cgroup's program, which is
    /// never skipped, ran instead, so nothing is lost.
    pub skipped_states: u64,
    /// Connections whose end no program saw, and which were found to be gone a few seconds later. Their bytes are as of their
    /// last packet, and they seem to have lasted those seconds longer; nothing else is lost.
    pub ends_found: u64,
    /// How often the cgroup was removed and made anew. Those of its connections that were opened and closed before it was
    /// looked at are not seen.
    pub successions: u64,
}

impl Losses {
    pub(super) fn read(skel: &FarcallSkel<'_>, observer: &Observer) -> Result<Self, AttachError> {
        let count = |reason: u32| -> Result<u64, AttachError> {
            let per_cpu = skel
                .maps
                .fc_losses
                .lookup_percpu(&reason.to_ne_bytes(), MapFlags::ANY)
                .attempting("reading losses")?;
            Ok(per_cpu
                .unwrap_or_default()
                .iter()
                .filter_map(|value| value.get(..8)?.try_into().ok().map(u64::from_ne_bytes))
                .sum())
        };
        let programs = &skel.progs;
        let skipped = |programs: &[&ProgramMut<'_>]| -> u64 {
            programs
                .iter()
                .filter(|program| program.autoload())
                .map(|program| skipped_runs(program.as_fd()))
                .sum()
        };
        Ok(Self {
            ring_full: count(0)?,
            ring_pressure: count(1)?,
            fault: count(2)?,
            connection_map: count(3)?,
            call_map: count(4)?,
            stream_map: count(5)?,
            cut_bytes: count(6)?,
            packet: count(7)?,
            skipped: skipped(&[
                &programs.fc_exec,
                &programs.fc_exit,
                &programs.fc_moved,
                &programs.fc_sock_send,
                &programs.fc_sock_recv,
                &programs.fc_tcp_recv,
            ]),
            undecodable: observer.undecodable(),
            unfollowed: observer.unfollowed(),
            unowned: observer.unowned(),
            unread_hosts: observer.unread_hosts(),
            skipped_states: skipped(&[&programs.fc_tcp_state]),
            ends_found: 0,
            successions: 0,
        })
    }

    /// Name and value of each, as `farcall doctor` shows them.
    #[must_use]
    pub fn named(&self) -> [(&'static str, u64); 15] {
        [
            ("sidecar_ring_full", self.ring_full),
            ("sidecar_ring_pressure", self.ring_pressure),
            ("sidecar_unreadable_buffers", self.fault),
            ("sidecar_too_many_connections", self.connection_map),
            ("sidecar_too_many_tls_calls", self.call_map),
            ("sidecar_too_many_tls_streams", self.stream_map),
            ("sidecar_unreadable_packets", self.packet),
            ("sidecar_skipped_programs", self.skipped),
            ("sidecar_undecodable_records", self.undecodable),
            ("sidecar_unfollowed_pieces", self.unfollowed),
            ("sidecar_calls_without_process", self.unowned),
            ("sidecar_unread_hosts_files", self.unread_hosts),
            ("sidecar_ends_found_late", self.ends_found),
            ("sidecar_skipped_but_seen_otherwise", self.skipped_states),
            ("sidecar_cgroup_made_anew", self.successions),
        ]
    }

    /// The last of [`named`](Self::named): what was made up for.
    const MADE_UP_FOR: usize = 3;

    /// Whether nothing was lost. Bytes that were cut are none of it: their number is known. Nor is what was made up for.
    #[must_use]
    pub fn none(&self) -> bool {
        let named = self.named();
        named[..named.len() - Self::MADE_UP_FOR].iter().all(|(_, count)| *count == 0)
    }
}

/// How often the kernel skipped a program, from what it says of the program's descriptor; 0 where it does not say.
fn skipped_runs(program: BorrowedFd<'_>) -> u64 {
    let path = format!("/proc/self/fdinfo/{}", program.as_raw_fd());
    fs::read_to_string(path).ok().and_then(|text| misses(&text)).unwrap_or(0)
}

fn misses(fdinfo: &str) -> Option<u64> {
    fdinfo.lines().find_map(|line| line.strip_prefix("recursion_misses:"))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn skipped_runs_are_read_from_what_the_kernel_says_of_a_program() {
        let text = "pos:\t0\nprog_type:\t26\nrun_cnt:\t7\nrecursion_misses:\t42\nverified_insns:\t9\n";
        assert_eq!(misses(text), Some(42));
        assert_eq!(misses("pos:\t0\n"), None);
    }

    #[test]
    fn what_another_program_made_up_for_is_no_loss_and_what_none_did_is() {
        assert!(
            Losses { skipped_states: 3, ends_found: 1, successions: 1, cut_bytes: 5, ..Losses::default() }
                .none()
        );
        assert!(!Losses { skipped: 1, ..Losses::default() }.none());
    }
}
