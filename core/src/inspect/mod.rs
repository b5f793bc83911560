//! Inspection: which credential a call carries, and which kinds of data. What the credential is, nobody is told:
//! only a keyed fingerprint leaves this module.

mod carried;
mod origin;
mod signed;

pub use carried::{Carried, carried};
pub(crate) use origin::Origins;

use crate::call::Headers;
use foldhash::fast::FixedState;
use siphasher::sip::SipHasher24;
use std::fmt;
use std::hash::{BuildHasher, Hasher};

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

    /// The fingerprint of a credential; 0 where there is none. Of a request that is signed, of who signed it (the key's
    /// id of AWS Signature Version 4, consumer and token of OAuth 1.0a, and the like): the rest differs each time.
    #[must_use]
    pub fn of_value(&self, value: Option<&[u8]>) -> u64 {
        let Some(value) = value else { return 0 };
        if let Some(parts) = signed::signer(value) {
            let mut hasher = SipHasher24::new_with_key(&self.key);
            // What comes behind each part is in none.
            parts.iter().for_each(|part| {
                hasher.write(part);
                hasher.write(b"\n");
            });
            return hasher.finish().max(1);
        }
        // In one piece: hashing what comes bit by bit takes longer.
        SipHasher24::new_with_key(&self.key).hash(value).max(1)
    }
}

/// The fingerprints of the credentials that were seen last, so that the usual one is not made again for each
/// call. Holds no credential: it knows them by a quick hash of 64 bits.
pub(crate) struct Recent {
    by: Fingerprinter,
    hasher: FixedState,
    /// Hashes and fingerprints, each at the place that its hash says; a hash of 0 is a free place.
    places: [(u64, u64); RECENT],
}

const RECENT: usize = 32;

impl fmt::Debug for Recent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Recent")
    }
}

impl Recent {
    pub(crate) fn new(by: Fingerprinter) -> Self {
        // Not the key itself: a quick hash keeps no secret.
        let seed = by.of_value(Some(b"recent"));
        Self { by, hasher: FixedState::with_seed(seed), places: [(0, 0); RECENT] }
    }

    /// What [`Fingerprinter::of_value`] says.
    pub(crate) fn of_value(&mut self, by: &Fingerprinter, value: Option<&[u8]>) -> u64 {
        let Some(value) = value else { return 0 };
        if self.by.key != by.key {
            *self = Self::new(*by);
        }
        let hash = self.hasher.hash_one(value).max(1);
        let place = &mut self.places[hash as usize % RECENT];
        if place.0 != hash {
            *place = (hash, by.of_value(Some(value)));
        }
        place.1
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

    #[test]
    fn a_signed_request_has_the_fingerprint_of_who_signed_it() {
        let by = Fingerprinter::new([1; 16]);
        let aws = |key: &str, day: u32, signature: u32| {
            let value = format!(
                "AWS4-HMAC-SHA256 Credential={key}/202611{day}/us-east-1/s3/aws4_request, SignedHeaders=host;x-amz-date, Signature={signature:064x}"
            );
            by.of(&[("authorization", value.as_str())])
        };
        assert_eq!(aws("AKIAIOSFODNN7EXAMPLE", 21, 1), aws("AKIAIOSFODNN7EXAMPLE", 22, 2));
        assert_ne!(aws("AKIAIOSFODNN7EXAMPLE", 21, 1), aws("AKIAI44QH8DHBEXAMPLE", 21, 1));
    }

    #[test]
    fn a_remembered_fingerprint_is_the_one_that_would_be_made() {
        let (one, other) = (Fingerprinter::new([1; 16]), Fingerprinter::new([2; 16]));
        let mut recent = Recent::new(one);
        assert_eq!(recent.of_value(&one, None), 0);
        for n in 0..2_000u32 {
            // Some come again, more than are kept come once, and the key changes under way.
            let value = format!("Bearer sk-{}", if n % 2 == 0 { n % 10 } else { n });
            let by = if n / 500 % 2 == 0 { &one } else { &other };
            assert_eq!(recent.of_value(by, Some(value.as_bytes())), by.of_value(Some(value.as_bytes())));
        }
    }
}
