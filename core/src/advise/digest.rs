//! The digest of a body, while its bytes pass.

/// Only so many bytes of a body are looked at; of a longer one, its length tells the rest.
pub(super) const LOOKED_AT: u64 = 64 << 10;

/// 64 bits that stand for a body, whatever pieces it comes in. A multiply-and-fold of 16 bytes at a time (as in
/// wyhash), seeded: who sends bodies cannot choose two that look alike. Not for secrets.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Digest {
    state: u64,
    part: [u8; 16],
    length: u64,
}

const KEY: u64 = 0x9e37_79b9_7f4a_7c15;

impl Digest {
    pub(crate) fn new(seed: u64) -> Self {
        Self { state: seed | 1, ..Self::default() }
    }

    /// How many bytes were looked at.
    pub(crate) const fn seen(&self) -> u64 {
        self.length
    }

    /// Whether more bytes make a difference.
    pub(crate) const fn wants_more(&self) -> bool {
        self.length < LOOKED_AT
    }

    pub(crate) fn push(&mut self, chunk: &[u8]) {
        let room = usize::try_from(LOOKED_AT - self.length.min(LOOKED_AT)).unwrap_or(0);
        let mut chunk = &chunk[..chunk.len().min(room)];
        let held = usize::try_from(self.length % 16).unwrap_or(0);
        self.length += chunk.len() as u64;
        if held > 0 {
            let taken = chunk.len().min(16 - held);
            self.part[held..held + taken].copy_from_slice(&chunk[..taken]);
            chunk = &chunk[taken..];
            if held + taken < 16 {
                return;
            }
            self.state = mixed(self.state, &self.part);
        }
        let (blocks, rest) = chunk.as_chunks::<16>();
        let mut state = self.state;
        for block in blocks {
            state = mixed(state, block);
        }
        self.state = state;
        self.part[..rest.len()].copy_from_slice(rest);
    }

    /// What stands for the body, of which `length` bytes came in all.
    pub(crate) fn finish(&self, status: u16, length: u64) -> u64 {
        let mut part = self.part;
        part[usize::try_from(self.length % 16).unwrap_or(0)..].fill(0);
        let state = mixed(self.state, &part);
        folded(state ^ length, KEY ^ u64::from(status)).max(1)
    }
}

fn mixed(state: u64, block: &[u8; 16]) -> u64 {
    let block = u128::from_le_bytes(*block);
    #[expect(clippy::cast_possible_truncation, reason = "its two halves")]
    let (low, high) = (block as u64, (block >> 64) as u64);
    folded(low ^ KEY, high ^ state)
}

#[expect(clippy::cast_possible_truncation, reason = "its two halves")]
const fn folded(a: u64, b: u64) -> u64 {
    let product = a as u128 * b as u128;
    product as u64 ^ (product >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    fn of(body: &[u8]) -> u64 {
        let mut digest = Digest::new(7);
        digest.push(body);
        digest.finish(200, body.len() as u64)
    }

    proptest! {
        #[test]
        fn it_does_not_matter_in_which_pieces_a_body_comes(
            body in proptest::collection::vec(any::<u8>(), 0..300),
            cuts in proptest::collection::vec(0..300_usize, 0..8),
        ) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(body.len())).collect();
            cuts.sort_unstable();
            let mut digest = Digest::new(7);
            let mut from = 0;
            for cut in cuts.into_iter().chain([body.len()]) {
                digest.push(&body[from..cut]);
                from = cut;
            }
            prop_assert_eq!(digest.finish(200, body.len() as u64), of(&body));
        }

        #[test]
        fn another_byte_anywhere_is_another_body(
            body in proptest::collection::vec(any::<u8>(), 1..300),
            at in any::<prop::sample::Index>(),
            by in 1..=255_u8,
        ) {
            let mut other = body.clone();
            other[at.index(body.len())] ^= by;
            prop_assert_ne!(of(&body), of(&other));
        }
    }

    #[test]
    fn bodies_of_nothing_but_zeros_differ_by_their_lengths() {
        let zeros = [0; 100];
        let all: HashSet<u64> = (0..=100).map(|length| of(&zeros[..length])).collect();
        assert_eq!(all.len(), 101);
    }

    #[test]
    fn a_long_body_is_looked_at_up_to_a_size_and_no_further() {
        let long = vec![b'x'; 100_000];
        let mut digest = Digest::new(7);
        digest.push(&long);
        assert_eq!((digest.seen(), digest.wants_more()), (LOOKED_AT, false));
        digest.push(b"more");
        assert_eq!(digest.seen(), LOOKED_AT);
        let mut other = Digest::new(7);
        other.push(&long[..LOOKED_AT as usize]);
        assert_eq!(digest.finish(200, 100_004), other.finish(200, 100_004));
        assert_ne!(digest.finish(200, 100_004), digest.finish(200, 100_005));
    }
}
