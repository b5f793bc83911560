//! What answers are kept under.

/// What an answer is kept under: a keyed hash of 128 bits, so that nobody can make two calls meet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(pub(super) u128);

impl Key {
    /// The number itself: equal only for the same key, under one secret.
    #[must_use]
    pub const fn number(self) -> u128 {
        self.0
    }

    /// The key of this number.
    #[must_use]
    pub const fn of(number: u128) -> Self {
        Self(number)
    }

    pub(super) const fn low(self) -> u64 {
        #[allow(clippy::cast_possible_truncation)] // That is what is asked for.
        return self.0 as u64;
    }
}

/// Makes keys, by SipHash-1-3 of 128 bits (Aumasson and Bernstein, "SipHash: a fast short-input PRF", 2012). Each part is
/// written with its length, so that no two lists of parts look alike, and in whole words: so the hash is four words and a
/// length, and one round for each word.
#[derive(Clone, Debug, Default)]
pub(super) struct Keyed {
    state: [u64; 4],
    words: u64,
}

impl Keyed {
    #[inline]
    pub(super) fn new(secret: &[u8; 16]) -> Self {
        let [first, second] = [tail(&secret[..8]), tail(&secret[8..])];
        let state = [
            first ^ 0x736f_6d65_7073_6575,
            second ^ 0x646f_7261_6e64_6f6d ^ 0xee,
            first ^ 0x6c79_6765_6e65_7261,
            second ^ 0x7465_6462_7974_6573,
        ];
        Self { state, words: 0 }
    }

    #[inline]
    pub(super) fn part(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.number(u64::from_le_bytes(*word));
        }
        match (rest.len(), bytes.last_chunk::<8>()) {
            (0, _) => {}
            (more, Some(last)) => self.number(u64::from_le_bytes(*last) >> (64 - 8 * more)),
            (_, None) => self.number(tail(rest)),
        }
    }

    /// A part that comes piece by piece; [`Pieces::end`] closes it.
    pub(super) fn pieces(&mut self) -> Pieces<'_> {
        Pieces { key: self, word: 0, length: 0 }
    }

    #[inline]
    pub(super) fn number(&mut self, number: u64) {
        self.state[3] ^= number;
        round(&mut self.state);
        self.state[0] ^= number;
        self.words = self.words.wrapping_add(1);
    }

    #[inline]
    pub(super) fn key(&self) -> Key {
        let mut end = self.clone();
        end.number(self.words << 59);
        let mut state = end.state;
        state[2] ^= 0xee;
        let low = finished(&mut state);
        state[1] ^= 0xdd;
        let high = finished(&mut state);
        Key(u128::from(high) << 64 | u128::from(low))
    }
}

#[inline]
const fn round([v0, v1, v2, v3]: &mut [u64; 4]) {
    *v0 = v0.wrapping_add(*v1);
    *v2 = v2.wrapping_add(*v3);
    *v1 = v1.rotate_left(13) ^ *v0;
    *v3 = v3.rotate_left(16) ^ *v2;
    *v0 = v0.rotate_left(32);
    *v2 = v2.wrapping_add(*v1);
    *v0 = v0.wrapping_add(*v3);
    *v1 = v1.rotate_left(17) ^ *v2;
    *v3 = v3.rotate_left(21) ^ *v0;
    *v2 = v2.rotate_left(32);
}

#[inline]
fn finished(state: &mut [u64; 4]) -> u64 {
    for _ in 0..3 {
        round(state);
    }
    state[0] ^ state[1] ^ state[2] ^ state[3]
}

/// Up to eight bytes as a word, the first one lowest. Without a copy, which would be a call for each.
#[inline]
fn tail(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte))
}

/// A part of which the length is known when it ends.
#[derive(Debug)]
pub(super) struct Pieces<'k> {
    key: &'k mut Keyed,
    word: u64,
    length: u64,
}

impl Pieces<'_> {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.word |= u64::from(*byte) << (self.length % 8 * 8);
            self.length += 1;
            if self.length.is_multiple_of(8) {
                self.key.number(std::mem::take(&mut self.word));
            }
        }
    }

    pub(super) fn end(self) {
        if !self.length.is_multiple_of(8) {
            self.key.number(self.word);
        }
        self.key.number(self.length);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use siphasher::sip128::{Hasher128, SipHasher13};
    use std::hash::Hasher;

    proptest! {
        #[test]
        fn a_key_is_the_siphash_of_the_words(
            secret: [u8; 16],
            parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..20),
        ) {
            let (mut key, mut peer) = (Keyed::new(&secret), SipHasher13::new_with_key(&secret));
            for part in &parts {
                key.part(part);
                peer.write_u64(part.len() as u64);
                for chunk in part.chunks(8) {
                    let mut word = [0; 8];
                    word[..chunk.len()].copy_from_slice(chunk);
                    peer.write_u64(u64::from_le_bytes(word));
                }
            }
            prop_assert_eq!(key.key().0, peer.finish128().as_u128());
        }

        #[test]
        fn pieces_are_told_apart_by_what_they_are_together(
            one in proptest::collection::vec(any::<u8>(), 0..40),
            cut in 0..40_usize,
            other in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let of = |pieces: &[&[u8]]| {
                let mut key = Keyed::new(&[7; 16]);
                let mut part = key.pieces();
                pieces.iter().for_each(|piece| part.push(piece));
                part.end();
                key.key()
            };
            let (first, second) = one.split_at(cut.min(one.len()));
            prop_assert_eq!(of(&[first, second]), of(&[&one]));
            prop_assert_eq!(of(&[&one]) == of(&[&other]), one == other);
        }
    }
}
