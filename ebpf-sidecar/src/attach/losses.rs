//! What the kernel side could not deliver, or we not follow.

use std::{
    fs,
    os::fd::{AsRawFd, BorrowedFd},
};

use serde::Serialize;

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
    /// The same as `skipped` of the tracepoint's program that follows the states of sockets. The cgroup's program, which is
    /// never skipped, ran instead, so nothing is lost.
    pub skipped_states: u64,
}

impl Losses {
    /// Name and value of each, as `farcall doctor` shows them.
    #[must_use]
    pub fn named(&self) -> [(&'static str, u64); 11] {
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
        ]
    }

    /// Whether nothing was lost. Bytes that were cut are none of it: their number is known. Nor is what one of two
    /// programs was skipped for.
    #[must_use]
    pub fn none(&self) -> bool {
        self.named().iter().all(|(_, count)| *count == 0)
    }
}

/// How often the kernel skipped a program, from what it says of the program's descriptor; 0 where it does not say.
pub(super) fn skipped(program: BorrowedFd<'_>) -> u64 {
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
        assert!(Losses { skipped_states: 3, cut_bytes: 5, ..Losses::default() }.none());
        assert!(!Losses { skipped: 1, ..Losses::default() }.none());
    }
}
