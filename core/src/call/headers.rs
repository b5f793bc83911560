//! Headers, as the engine looks at them: by name, without a map of its own.

/// Where a header's value can be looked up.
pub trait Headers {
    /// The first value of the header `name`, which is in lower case.
    fn get(&self, name: &str) -> Option<&[u8]>;
}

impl Headers for http::HeaderMap {
    fn get(&self, name: &str) -> Option<&[u8]> {
        Self::get(self, name).map(http::HeaderValue::as_bytes)
    }
}

/// Pairs of name and value; names in any case.
impl Headers for [(&str, &str)] {
    fn get(&self, name: &str) -> Option<&[u8]> {
        self.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_bytes())
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
