//! What answers are kept under.

use siphasher::sip128::{Hasher128, SipHasher13};
use std::hash::Hasher;

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

/// Makes keys. Each part is written with its length, so that no two lists of parts look alike, and in whole words, which
/// is what the hash takes fastest.
#[derive(Clone, Debug, Default)]
pub(super) struct Keyed(SipHasher13);

impl Keyed {
    pub(super) fn new(secret: &[u8; 16]) -> Self {
        Self(SipHasher13::new_with_key(secret))
    }

    pub(super) fn part(&mut self, bytes: &[u8]) {
        self.0.write_u64(bytes.len() as u64);
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.0.write_u64(u64::from_le_bytes(*word));
        }
        if !rest.is_empty() {
            let mut word = [0; 8];
            word[..rest.len()].copy_from_slice(rest);
            self.0.write_u64(u64::from_le_bytes(word));
        }
    }

    /// A part of a part, of which the end has to be told by what follows.
    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.0.write(bytes);
    }

    pub(super) fn number(&mut self, number: u64) {
        self.0.write_u64(number);
    }

    pub(super) fn key(&self) -> Key {
        Key(self.0.finish128().as_u128())
    }
}
