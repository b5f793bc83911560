//! The headers of a request or an answer, in whatever form an adapter has them.

use http::HeaderMap;

/// Headers by name. The engine tells adapters which ones it wants, so an implementation may hold only those.
pub trait Headers {
    /// The value of the header `name`, which is given in lower case; the first one where it is repeated.
    /// Values are bytes, for that is all that the wire promises (RFC 9110, section 5.5).
    fn get(&self, name: &str) -> Option<&[u8]>;
}

impl Headers for HeaderMap {
    fn get(&self, name: &str) -> Option<&[u8]> {
        Self::get(self, name).map(http::HeaderValue::as_bytes)
    }
}

/// Pairs of name and value, in the order of the wire; the case of names does not matter.
impl<N: AsRef<[u8]>, V: AsRef<[u8]>> Headers for [(N, V)] {
    fn get(&self, name: &str) -> Option<&[u8]> {
        self.iter()
            .find(|(known, _)| known.as_ref().eq_ignore_ascii_case(name.as_bytes()))
            .map(|(_, value)| value.as_ref())
    }
}

impl<T: Headers + ?Sized> Headers for &T {
    fn get(&self, name: &str) -> Option<&[u8]> {
        (**self).get(name)
    }
}

impl<N: AsRef<[u8]>, V: AsRef<[u8]>, const L: usize> Headers for [(N, V); L] {
    fn get(&self, name: &str) -> Option<&[u8]> {
        Headers::get(self.as_slice(), name)
    }
}

impl<N: AsRef<[u8]>, V: AsRef<[u8]>> Headers for Vec<(N, V)> {
    fn get(&self, name: &str) -> Option<&[u8]> {
        Headers::get(self.as_slice(), name)
    }
}

/// No headers at all: what is not shown cannot be looked at.
#[derive(Clone, Copy, Debug)]
pub struct NoHeaders;

impl Headers for NoHeaders {
    fn get(&self, _name: &str) -> Option<&[u8]> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_and_a_list_of_pairs_give_the_same() {
        let pairs = [("Retry-After", "7"), ("retry-after", "9")];
        let map: HeaderMap = [("retry-after".parse().unwrap(), "7".parse().unwrap())].into_iter().collect();
        for headers in [&pairs as &dyn Headers, &map] {
            assert_eq!(headers.get("retry-after"), Some(b"7".as_slice()));
            assert_eq!(headers.get("age"), None);
        }
    }
}
