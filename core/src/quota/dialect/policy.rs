//! Which of a vendor's policies a statement is about.

use crate::ledger::Text;
use std::fmt;

/// A policy of one dialect, to key state by; equal for equal policies of one [`Dialect`](super::Dialect) in
/// every process and run.
///
/// Policies that the catalogue names are numbered from 0. Those that the vendor names in the answer itself
/// have numbers from 32,768, made from the name: whoever keeps state for them bounds how many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PolicyIndex(u16);

impl PolicyIndex {
    pub(super) const NONE: Self = Self(0);
    const NAMED_BY_THE_VENDOR: u16 = 0x8000;

    pub(super) fn fixed(place: usize) -> Self {
        Self(u16::try_from(place).unwrap_or(Self::NAMED_BY_THE_VENDOR - 1))
    }

    pub(super) fn named(place: usize, name: &[u8]) -> Self {
        // FNV-1a: the number must not depend on the process, and few names need telling apart.
        let hash = name.iter().fold(0x811c_9dc5_u32 ^ place as u32, |hash, &byte| {
            (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
        });
        Self(Self::NAMED_BY_THE_VENDOR | ((hash >> 16) ^ hash) as u16 & 0x7fff)
    }

    /// The number.
    #[must_use]
    pub const fn number(self) -> u16 {
        self.0
    }

    /// Whether the vendor named it in the answer.
    #[must_use]
    pub const fn is_named_by_the_vendor(self) -> bool {
        self.0 & Self::NAMED_BY_THE_VENDOR != 0
    }
}

/// How much of a vendor's own name for a policy is kept.
const MAX_NAME: usize = 32;

/// The name that a vendor gave a policy in the answer; empty where it gave none. At most 32 bytes; bytes that
/// are no printable ASCII are shown as `?`.
#[derive(Clone, Copy, Debug)]
pub struct PolicyName(Text<MAX_NAME>);

impl PolicyName {
    pub(super) const NONE: Self = Self(Text::new());

    pub(super) fn new(name: &[u8]) -> Self {
        let mut shown = [b'?'; MAX_NAME];
        for (shown, &byte) in shown.iter_mut().zip(name) {
            if byte.is_ascii_graphic() || byte == b' ' {
                *shown = byte;
            }
        }
        let mut text = Text::new();
        text.push(std::str::from_utf8(&shown[..name.len().min(MAX_NAME)]).unwrap_or_default());
        Self(text)
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl fmt::Display for PolicyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_names_are_equal_policies_and_others_are_not() {
        let names: [&[u8]; 6] = [b"core", b"search", b"graphql", b"code_search", b"default", b"burst"];
        let numbers: std::collections::HashSet<_> =
            names.iter().map(|name| PolicyIndex::named(0, name)).collect();
        assert_eq!(numbers.len(), names.len());
        assert_eq!(PolicyIndex::named(0, b"core"), PolicyIndex::named(0, b"core"));
        assert_ne!(PolicyIndex::named(0, b"core"), PolicyIndex::named(1, b"core"));
        assert!(numbers.iter().all(|index| index.is_named_by_the_vendor()));
        assert!(!PolicyIndex::fixed(3).is_named_by_the_vendor());
    }

    #[test]
    fn a_name_is_short_and_printable() {
        assert_eq!(PolicyName::new(b"core").as_str(), "core");
        assert_eq!(PolicyName::new(b"a\xff\n").as_str(), "a??");
        assert_eq!(PolicyName::new(&[b'x'; 500]).as_str().len(), MAX_NAME);
    }
}
