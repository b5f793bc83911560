//! Inspection: which credential a call carries. What it is, nobody is told: only a keyed fingerprint leaves this
//! module.

use crate::call::Headers;
use siphasher::sip::SipHasher24;
use std::fmt;

/// Header fields in which credentials travel, the usual one first.
pub(crate) const FIELDS: [&str; 6] =
    ["authorization", "x-api-key", "api-key", "x-goog-api-key", "x-shopify-access-token", "dd-api-key"];

/// Makes fingerprints of credentials, under a key that each installation makes for itself: equal in all processes
/// of the installation, and of no use to anybody else. SipHash-2-4 (Aumasson and Bernstein, 2012), a pseudorandom
/// function that costs some 20 ns where an HMAC would cost 500.
#[derive(Clone, Copy)]
pub struct Fingerprinter {
    key: [u8; 16],
}

impl fmt::Debug for Fingerprinter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fingerprinter")
    }
}

impl Fingerprinter {
    /// With this key.
    #[must_use]
    pub const fn new(key: [u8; 16]) -> Self {
        Self { key }
    }

    /// The fingerprint of the credential in these headers; 0 where there is none.
    #[must_use]
    pub fn of(&self, headers: &dyn Headers) -> u64 {
        self.of_value(FIELDS.iter().find_map(|name| headers.get(name)))
    }

    /// The fingerprint of a credential; 0 where there is none.
    #[must_use]
    pub fn of_value(&self, value: Option<&[u8]>) -> u64 {
        // In one piece: hashing what comes bit by bit takes longer.
        value.map_or(0, |value| SipHasher24::new_with_key(&self.key).hash(value).max(1))
    }
}

/// A fingerprint as people see it: 12 hexadecimal digits; empty for none.
pub(crate) fn in_words(fingerprint: u64) -> String {
    if fingerprint == 0 { String::new() } else { format!("{:012x}", fingerprint >> 16) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_the_same_under_one_key_and_another_under_another() {
        let headers = [("Authorization", "Bearer sk-1")];
        let (one, other) = (Fingerprinter::new([1; 16]), Fingerprinter::new([2; 16]));
        assert_eq!(one.of(&headers), Fingerprinter::new([1; 16]).of(&headers));
        assert_ne!(one.of(&headers), other.of(&headers));
        assert_ne!(one.of(&headers), one.of(&[("Authorization", "Bearer sk-2")]));
        let none: [(&str, &str); 1] = [("accept", "*/*")];
        assert_eq!((one.of(&none), in_words(0)), (0, String::new()));
        // Written down: ledgers and other processes know credentials by this.
        assert_eq!(one.of(&headers), 1_690_629_525_212_503_528);
        assert_eq!(format!("{one:?}"), "Fingerprinter", "the key is not shown");
    }
}
