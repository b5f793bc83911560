//! Requests that come again and again.

use crate::units::same;

/// Requests that are known at a time.
const PLACES: usize = 256;
/// The longest host and path together that are known: then a place has two cache lines.
const TEXT: usize = 88;

/// Vendor and endpoint of whole requests, found the long way before: a program asks much of what it asks in the same
/// words. A request takes its place when it comes the second time in a row; paths that never come again displace
/// nothing. Holds no reference: it is emptied when a name leaves.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    places: Box<[Place]>,
}

#[derive(Clone, Debug)]
#[repr(align(64))]
struct Place {
    hash: u64,
    method: u64,
    vendor: u32,
    endpoint: u32,
    /// A part of the hash of the request that was here last and went the long way.
    came: u32,
    host: u8,
    path: u8,
    text: [u8; TEXT],
}

impl Place {
    const FREE: Self =
        Self { hash: 0, method: 0, vendor: 0, endpoint: 0, came: 0, host: 0, path: 0, text: [0; TEXT] };
}

impl Requests {
    /// Vendor and endpoint of a request; `hash` is one of all that it is known by.
    pub(crate) fn get(&self, hash: u64, method: &str, host: &str, path: &str) -> Option<(u32, u32)> {
        let place = self.places.get(place_of(hash))?;
        let (host, path) = (host.as_bytes(), path.as_bytes());
        let (at, end) = (usize::from(place.host), usize::from(place.host) + usize::from(place.path));
        let known = place.hash == hash
            && same(place.text.get(..at)?, host)
            && same(place.text.get(at..end)?, path)
            && word(method) == Some(place.method);
        known.then_some((place.vendor, place.endpoint))
    }

    /// A request was found the long way.
    pub(crate) fn note(
        &mut self,
        hash: u64,
        (method, host, path): (&str, &str, &str),
        (vendor, endpoint): (u32, u32),
    ) {
        if self.places.is_empty() {
            self.places = vec![Place::FREE; PLACES].into_boxed_slice();
        }
        let place = &mut self.places[place_of(hash)];
        #[expect(clippy::cast_possible_truncation, reason = "a part of a hash")]
        let came = hash as u32;
        if std::mem::replace(&mut place.came, came) != came {
            return;
        }
        let (at, end) = (host.len(), host.len() + path.len());
        let (Some(method), Some(_), false) = (word(method), place.text.get(..end), host.is_empty()) else {
            return;
        };
        place.text[..at].copy_from_slice(host.as_bytes());
        place.text[at..end].copy_from_slice(path.as_bytes());
        // Both are at most as long as the text.
        (place.host, place.path) = (u8::try_from(at).unwrap_or(0), u8::try_from(end - at).unwrap_or(0));
        (place.hash, place.method, place.vendor, place.endpoint) = (hash, method, vendor, endpoint);
    }

    pub(crate) fn clear(&mut self) {
        for place in &mut self.places {
            (place.hash, place.host, place.path) = (0, 0, 0);
        }
    }
}

const fn place_of(hash: u64) -> usize {
    (hash >> 32) as usize % PLACES
}

/// A method as one word; `None` for one that is longer than any known.
fn word(method: &str) -> Option<u64> {
    let bytes = method.as_bytes();
    (bytes.len() <= 8).then(|| bytes.iter().fold(0, |word, &byte| word << 8 | u64::from(byte)))
}

#[cfg(test)]
mod tests {
    use super::super::RequestKeys;
    use super::*;
    use proptest::prelude::*;

    fn key((method, host, path): (&str, &str, &str)) -> u64 {
        RequestKeys::new(method, host, path).request
    }

    fn get(requests: &Requests, request: (&str, &str, &str)) -> Option<(u32, u32)> {
        requests.get(key(request), request.0, request.1, request.2)
    }

    #[test]
    fn a_request_is_known_when_it_came_twice_and_until_a_name_leaves() {
        let mut requests = Requests::default();
        let request = ("GET", "api.example.com", "/v1/items");
        requests.note(key(request), request, (1, 2));
        assert_eq!(get(&requests, request), None);
        requests.note(key(request), request, (1, 2));
        assert_eq!(get(&requests, request), Some((1, 2)));
        requests.clear();
        assert_eq!(get(&requests, request), None);
    }

    #[test]
    fn equal_hashes_of_others_are_not_taken_for_it() {
        let mut requests = Requests::default();
        let request = ("GET", "api.example.com", "/v1/items");
        let hash = key(request);
        for _ in 0..2 {
            requests.note(hash, request, (1, 2));
        }
        for (method, host, path) in [
            ("PUT", "api.example.com", "/v1/items"),
            ("GET", "api.example.co", "m/v1/items"),
            ("GET", "api.example.com", "/v1/item"),
            ("GET", "api.example.com", "/v1/items/"),
            ("PROPPATCH-X", "api.example.com", "/v1/items"),
        ] {
            assert_eq!(requests.get(hash, method, host, path), None, "{method} {host} {path}");
        }
    }

    #[test]
    fn what_is_too_long_or_has_no_host_goes_the_long_way() {
        let mut requests = Requests::default();
        let long = "/x".repeat(100);
        for request in
            [("GET", "a.example", long.as_str()), ("GET", "", "/"), ("PROPPATCH-X", "a.example", "/")]
        {
            for _ in 0..3 {
                requests.note(key(request), request, (1, 2));
            }
            assert_eq!(get(&requests, request), None);
        }
    }

    proptest! {
        #[test]
        fn what_it_says_is_what_was_noted_last(
            all in proptest::collection::vec((0..40_usize, 0..3_usize, 0..1_000_u32), 1..300),
        ) {
            let mut requests = Requests::default();
            let mut noted = std::collections::HashMap::new();
            for (path, host, number) in all {
                let (path, host) = (format!("/v1/{}", "abcdefgh/".repeat(path % 12) + &path.to_string()), format!("h{host}"));
                let request = ("GET", host.as_str(), path.as_str());
                if let Some(known) = get(&requests, request) {
                    prop_assert_eq!(Some(&known), noted.get(&(host.clone(), path.clone())));
                } else {
                    let found = *noted.entry((host.clone(), path.clone())).or_insert((number, number + 1));
                    requests.note(key(request), request, found);
                }
            }
        }
    }
}
