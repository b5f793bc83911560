//! What is kept of an answer's fields: those by which a vendor of the catalogue states its quotas. None of them is
//! secret.

use std::sync::LazyLock;

use farcall::{call::HeaderNames, catalogue::Catalogue};

/// Longest value that is kept; the catalogue's own bound is lower.
const MAX_VALUE: usize = 1_024;

static NAMES: LazyLock<HeaderNames> = LazyLock::new(|| Catalogue::builtin().quota_headers());

/// A field that is kept, by its place among their names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place(u16);

impl Place {
    /// That of the field of this name, whatever its case; `None` where it is not kept.
    pub(super) fn of(name: &[u8]) -> Option<Self> {
        NAMES.place(name).and_then(|place| u16::try_from(place).ok()).map(Self)
    }

    /// The field's name, in lower case.
    pub(super) fn name(self) -> &'static str {
        NAMES.names().get(usize::from(self.0)).map_or("", |name| name)
    }
}

/// A value as it is kept: empty where it is too long, or no text, to be any vendor's.
pub(super) fn value(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).ok().filter(|value| value.len() <= MAX_VALUE).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_the_vendors_state_is_kept_and_nothing_that_identifies_anybody() {
        for name in ["x-ratelimit-remaining", "X-RateLimit-Reset-Requests", "ratelimit-policy", "Retry-After"]
        {
            assert_eq!(Place::of(name.as_bytes()).unwrap().name(), name.to_ascii_lowercase());
        }
        for name in
            ["authorization", "x-api-key", "api-key", "cookie", "set-cookie", "location", "link", "etag"]
        {
            assert_eq!(Place::of(name.as_bytes()), None, "{name}");
        }
    }
}
