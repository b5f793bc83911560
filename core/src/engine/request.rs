//! What the engine reads of a request's headers, in one walk over them.

use crate::advise;
use crate::call::{HeaderNames, Headers};
use crate::inspect;
use crate::resilience::{SDK_HEADERS, SdkAttempt, may_be_sdk, recognise_by};
use std::sync::LazyLock;

const MOST: usize = inspect::FIELDS.len() + SDK_HEADERS.len() + advise::FIELDS.len();

/// The names that are looked for, and the places of their values for those who ask.
struct Wanted {
    names: HeaderNames,
    credentials: [usize; inspect::FIELDS.len()],
    sdk: [usize; SDK_HEADERS.len()],
    advice: [usize; advise::FIELDS.len()],
}

static WANTED: LazyLock<Wanted> = LazyLock::new(|| {
    let names = HeaderNames::new(inspect::FIELDS.into_iter().chain(SDK_HEADERS).chain(advise::FIELDS));
    let place = |name: &str| names.place(name.as_bytes()).unwrap_or(MOST - 1);
    Wanted {
        credentials: inspect::FIELDS.map(place),
        sdk: SDK_HEADERS.map(place),
        advice: advise::FIELDS.map(place),
        names,
    }
});

/// Copied rather than written one by one, which is shorter.
static NONE: [Option<&[u8]>; MOST] = [None; MOST];

/// The headers of one request that matter.
pub(super) struct Request<'h> {
    wanted: &'static Wanted,
    values: [Option<&'h [u8]>; MOST],
}

impl<'h> Request<'h> {
    pub(super) fn new() -> Self {
        Self { wanted: &WANTED, values: NONE }
    }

    /// Reads them, in the place where they are: too large to be moved on the hot path.
    pub(super) fn see(&mut self, headers: &'h dyn Headers) -> &Self {
        headers.pick(&self.wanted.names, &mut self.values);
        self
    }

    /// The credential, in whatever field it travels.
    pub(super) fn credential(&self) -> Option<&'h [u8]> {
        self.wanted.credentials.iter().find_map(|place| self.values[*place])
    }

    /// The SDK that made it, and which attempt it is.
    #[inline]
    pub(super) fn sdk(&self) -> Option<SdkAttempt> {
        // Most requests have no field of these but the user agent, and that says at its first letter that it is none.
        let [fields @ .., agent] = &self.wanted.sdk;
        let signed = self.values[*agent].is_some_and(may_be_sdk);
        match signed || fields.iter().any(|place| self.values[*place].is_some()) {
            true => self.recognised(),
            false => None,
        }
    }

    #[inline(never)]
    fn recognised(&self) -> Option<SdkAttempt> {
        recognise_by(&self.wanted.sdk.map(|place| self.values[place]))
    }

    /// What tells answers apart, in the order of [`advise::FIELDS`].
    pub(super) fn advice(&self) -> [Option<&'h [u8]>; advise::FIELDS.len()] {
        self.wanted.advice.map(|place| self.values[place])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resilience::recognise;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn one_walk_finds_what_asking_one_by_one_does(
            headers in proptest::collection::vec(
                (
                    prop::sample::select([inspect::FIELDS.as_slice(), &SDK_HEADERS, &["accept"]].concat()),
                    prop::sample::select(vec!["1", "", "got (x)", "azsdk-1", "gccl-invocation-id/7", "attempt=2; max=2"]),
                ),
                0..12,
            ),
        ) {
            let mut request = Request::new();
            request.see(&headers);
            let get = |name: &str| Headers::get(&headers, name);
            prop_assert_eq!(request.credential(), inspect::FIELDS.iter().find_map(|name| get(name)));
            let asked = recognise(|name| get(name).and_then(|value| std::str::from_utf8(value).ok()));
            prop_assert_eq!(request.sdk(), asked);
        }
    }
}
