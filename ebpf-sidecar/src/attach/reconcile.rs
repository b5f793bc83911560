//! Ends of connections that no program saw, found by looking which sockets still exist.

use std::{
    collections::HashSet,
    io::Read,
    time::{Duration, Instant},
};

use libbpf_rs::{Iter, Link};

use super::{AttachError, Attempting};
use crate::wire::record::Socket;

/// How often to look, at most.
const EVERY: Duration = Duration::from_secs(2);

/// A connection: the cookie of its socket, and when it was opened.
type Key = (u64, u64);

/// Compares what is followed with what exists.
#[derive(Debug)]
pub(super) struct Reconciliation {
    /// Connections without a living socket at the last look. A socket that connects is not alive for a moment, so one look
    /// proves nothing.
    suspects: HashSet<Key>,
    looked: Instant,
    takes: Duration,
}

impl Reconciliation {
    pub(super) fn new() -> Self {
        Self { suspects: HashSet::new(), looked: Instant::now(), takes: Duration::ZERO }
    }

    /// Whether it is time to look. Looking visits every socket: it may take a twentieth of the time, however many there are.
    pub(super) fn is_due(&self) -> bool {
        self.looked.elapsed() >= EVERY.max(self.takes * 20)
    }

    /// Those of the `open` connections whose end was missed, with their last counters as of then. `open` must have been
    /// read before.
    ///
    /// # Errors
    /// When the kernel does not list its sockets.
    pub(super) fn look(&mut self, open: &[Socket], list: &Link) -> Result<Vec<Key>, AttachError> {
        self.looked = Instant::now();
        if open.is_empty() {
            self.suspects.clear();
            return Ok(Vec::new());
        }
        let mut bytes = Vec::new();
        Iter::new(list)
            .attempting("listing sockets")?
            .read_to_end(&mut bytes)
            .map_err(|source| AttachError::Read { path: "the sockets that are followed".into(), source })?;
        let missed = self.compare(open, &alive(&bytes));
        self.takes = self.looked.elapsed();
        Ok(missed)
    }

    fn compare(&mut self, open: &[Socket], alive: &HashSet<Key>) -> Vec<Key> {
        let gone: HashSet<Key> = open
            .iter()
            .filter(|socket| socket.listed)
            .map(|socket| (socket.cookie, socket.opened))
            .filter(|key| !alive.contains(key))
            .collect();
        let missed = gone.intersection(&self.suspects).copied().collect();
        self.suspects = gone;
        missed
    }
}

/// Decodes the `struct fc_alive` that the iterator wrote.
fn alive(bytes: &[u8]) -> HashSet<Key> {
    let (records, _) = bytes.as_chunks::<8>();
    let (pairs, _) = records.as_chunks::<2>();
    pairs.iter().map(|[cookie, opened]| (u64::from_ne_bytes(*cookie), u64::from_ne_bytes(*opened))).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn socket(cookie: u64, opened: u64, listed: bool) -> Socket {
        let mut bytes = vec![0; Socket::SIZE];
        bytes[..8].copy_from_slice(&cookie.to_ne_bytes());
        bytes[8..16].copy_from_slice(&opened.to_ne_bytes());
        bytes[160] = u8::from(listed);
        Socket::decode(&bytes).unwrap()
    }

    #[test]
    fn an_end_was_missed_where_two_looks_in_a_row_find_no_living_socket() {
        let mut reconciliation = Reconciliation::new();
        let open = [socket(1, 10, true), socket(2, 20, true)];
        assert!(reconciliation.compare(&open, &[(1, 10)].into()).is_empty(), "it may be about to connect");
        assert!(reconciliation.compare(&open, &[(1, 10), (2, 20)].into()).is_empty(), "it was");
        assert!(reconciliation.compare(&open, &[(1, 10)].into()).is_empty());
        assert_eq!(reconciliation.compare(&open, &[(1, 10)].into()), [(2, 20)]);
    }

    #[test]
    fn a_socket_that_connected_again_lives_on_as_another_connection() {
        let mut reconciliation = Reconciliation::new();
        let (before, after) = ([socket(1, 10, true)], [socket(1, 11, true)]);
        assert!(reconciliation.compare(&before, &[(1, 11)].into()).is_empty());
        assert!(reconciliation.compare(&after, &HashSet::new()).is_empty(), "not looked at before");
        assert_eq!(reconciliation.compare(&after, &HashSet::new()), [(1, 11)]);
    }

    #[test]
    fn of_a_socket_that_is_not_listed_nothing_is_concluded() {
        let mut reconciliation = Reconciliation::new();
        for _ in 0..3 {
            assert!(reconciliation.compare(&[socket(1, 10, false)], &HashSet::new()).is_empty());
        }
    }

    #[test]
    fn the_list_is_read_in_the_layout_of_types_h() {
        let bytes: Vec<u8> = [7u64, 8, 9, 10].iter().flat_map(|word| word.to_ne_bytes()).collect();
        assert_eq!(alive(&bytes), [(7, 8), (9, 10)].into());
        assert_eq!(alive(&bytes[..20]), [(7, 8)].into());
    }
}
