//! A response that no vendor sent now.

use bytes::Bytes;
use http::header::{HeaderMap, HeaderValue};

/// A response that no vendor sent now: from the cache, or from a rule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stored {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

impl Stored {
    /// Names and values of the headers, in the order in which they came; a byte that is no ASCII is the character of
    /// that number (ISO 8859-1).
    #[must_use]
    pub fn pairs(&self) -> Vec<(String, String)> {
        let text = |value: &HeaderValue| value.as_bytes().iter().copied().map(char::from).collect();
        self.headers.iter().map(|(name, value)| (name.as_str().to_owned(), text(value))).collect()
    }
}
