//! What a request is known by: which answers would answer it.

use crate::call::Target;
use foldhash::fast::FixedState;
use std::hash::BuildHasher;

/// The headers that are looked at: those that answers usually vary by, then the two others.
pub(crate) const FIELDS: [&str; VARYING + 2] =
    ["accept", "accept-encoding", "accept-language", "cookie", "origin", "range", "traceparent"];

const VARYING: usize = 5;
/// Requests for one URL, in so many lots by their other headers, each of which remembers one. Where they differ each
/// time, no URL takes more room than that.
const SIDE_BY_SIDE: u64 = 8;

/// What the headers of a request say, in a few numbers that hold none of it: for adapters that have the headers when
/// the request is made and not when the call begins. Made by [`Engine::marks`](crate::Engine::marks).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// The credential's fingerprint; 0 for none.
    pub(crate) credential: u64,
    /// Hashes of the values, by their place in [`FIELDS`].
    varying: [u32; VARYING],
    /// Stands for the trace that the request is a part of: one for each request that came in, where those are traced.
    pub(crate) trace: u64,
    ranged: bool,
    /// What keeps requests apart beside their headers.
    client: u64,
    /// Stands for all other headers that keep requests apart in a cache.
    pub(crate) others: u64,
}

impl Marks {
    pub(crate) fn new(hasher: &FixedState, values: &[Option<&[u8]>; FIELDS.len()], credential: u64) -> Self {
        let mut varying = [0; VARYING];
        for (hash, value) in varying.iter_mut().zip(values) {
            *hash = value.map_or(0, |value| short(hasher.hash_one(value)));
        }
        let [.., range, trace] = values;
        Self {
            credential,
            varying,
            // RFC: W3C Trace Context, section 3.2: version, trace-id, parent-id, flags.
            trace: trace.and_then(|value| value.get(3..35)).map_or(0, |id| hasher.hash_one(id).max(1)),
            ranged: range.is_some(),
            client: 0,
            others: 0,
        }
    }

    /// Another header that keeps requests apart in a cache, in whatever order they come.
    pub(crate) fn add(&mut self, hasher: &FixedState, name: &[u8], value: &[u8]) {
        let line = match name.iter().any(u8::is_ascii_uppercase) {
            false => hasher.hash_one((name, value)),
            true => hasher.hash_one((name.to_ascii_lowercase().as_slice(), value)),
        };
        self.others = self.others.wrapping_add(line);
    }

    /// Keeps requests apart that differ in this: such as the client that adds headers of its own further down.
    #[must_use]
    pub fn of_client(mut self, client: &[u8]) -> Self {
        self.client = crate::units::stable_hash(0, client);
        self
    }

    /// Keeps apart the requests of clients of this kind, as the cache does.
    pub(crate) const fn of_kind(mut self, client: u32) -> Self {
        self.client = self.client.wrapping_add(client as u64);
        self
    }
}

/// What a request is known by.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Asked {
    pub(crate) marks: Marks,
    /// Stands for the method, the URL, the credential and the customer; 0 where the request is not compared.
    pub(crate) url: u64,
    /// Stands for the path alone.
    pub(crate) path: u64,
    /// Stands for the customer; 0 for nobody in particular.
    pub(crate) customer: u64,
}

impl Asked {
    pub(crate) fn new(
        hasher: &FixedState,
        method: &str,
        target: &Target<'_>,
        customer: Option<&str>,
        marks: Marks,
    ) -> Self {
        let customer =
            customer.filter(|name| !name.is_empty()).map_or(0, |name| hasher.hash_one(name).max(1));
        let path = hasher.hash_one(target.path);
        let Target { tls, port, query, .. } = *target;
        // Hosts are case-insensitive, and few write one in two ways: a call that is taken for another's is not.
        let url =
            (method.len(), tls, port, target.host, path, query, (marks.credential, marks.client), customer);
        let compared = matches!(method, "GET" | "HEAD") && !marks.ranged;
        Self { marks, url: if compared { hasher.hash_one(url).max(1) } else { 0 }, path, customer }
    }

    /// Stands for all that an answer with this `Vary` depends on (RFC 9110, section 12.5.5); `None` where that is more
    /// than is known of the request.
    pub(crate) fn key(&self, vary: Option<&[u8]>) -> Option<u64> {
        // A few of those whose other headers differ are remembered side by side.
        let mut key = self.url.wrapping_add(self.marks.others % SIDE_BY_SIDE).max(1);
        let Some(vary) = vary else { return Some(key) };
        for name in vary.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            if name.is_empty() || name.eq_ignore_ascii_case(b"authorization") {
                continue;
            }
            let place =
                FIELDS[..VARYING].iter().position(|known| known.as_bytes().eq_ignore_ascii_case(name))?;
            let value = u64::from(self.marks.varying[place]) << 8 | place as u64;
            key = (key ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
        }
        Some(key.max(1))
    }
}

#[expect(clippy::cast_possible_truncation, reason = "half of a hash is one")]
const fn short(hash: u64) -> u32 {
    hash as u32 | 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(
        method: &str,
        url: &str,
        customer: Option<&str>,
        headers: &[(&str, &str)],
        credential: u64,
    ) -> Asked {
        let hasher = FixedState::with_seed(1);
        let values = FIELDS
            .map(|name| headers.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_bytes()));
        let marks = Marks::new(&hasher, &values, credential);
        Asked::new(&hasher, method, &Target::parse(url).unwrap(), customer, marks)
    }

    #[test]
    fn requests_are_equal_that_one_answer_would_answer() {
        let one = |url, customer, credential| asked("GET", url, customer, &[], credential).url;
        let base = one("https://a.example/x?q=1", Some("acme"), 5);
        assert_eq!(base, one("https://a.example/x?q=1", Some("acme"), 5));
        for other in [
            one("https://a.example/x?q=2", Some("acme"), 5),
            one("https://a.example/y?q=1", Some("acme"), 5),
            one("https://b.example/x?q=1", Some("acme"), 5),
            one("http://a.example/x?q=1", Some("acme"), 5),
            one("https://a.example/x?q=1", Some("globex"), 5),
            one("https://a.example/x?q=1", None, 5),
            one("https://a.example/x?q=1", Some("acme"), 6),
            asked("HEAD", "https://a.example/x?q=1", Some("acme"), &[], 5).url,
        ] {
            assert_ne!(base, other);
        }
        assert_eq!(asked("POST", "https://a.example/x", None, &[], 0).url, 0, "bodies are not compared");
        assert_eq!(asked("GET", "https://a.example/x", None, &[("range", "bytes=0-9")], 0).url, 0);
    }

    #[test]
    fn what_an_answer_varies_by_tells_requests_apart_and_nothing_else_does() {
        let with = |language| asked("GET", "https://a.example/x", None, &[("accept-language", language)], 0);
        let (german, french) = (with("de"), with("fr"));
        assert_eq!(german.key(None), french.key(None));
        assert_eq!(german.key(Some(b"Accept-Encoding")), french.key(Some(b"accept-encoding")));
        assert_ne!(
            german.key(Some(b"Accept, Accept-Language")),
            french.key(Some(b"Accept, Accept-Language"))
        );
        assert_eq!(german.key(Some(b"*")), None);
        assert_eq!(german.key(Some(b"X-Region")), None, "it is not known of the request");
    }

    #[test]
    fn a_trace_is_known_by_its_id_and_not_by_who_is_its_parent() {
        let trace =
            |value| asked("GET", "https://a.example/x", None, &[("traceparent", value)], 0).marks.trace;
        let one = trace("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
        assert_eq!(one, trace("00-4bf92f3577b34da6a3ce929d0e0e4736-b7ad6b7169203331-01"));
        assert_ne!(one, trace("00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01"));
        assert_eq!(trace("broken"), 0);
    }
}
