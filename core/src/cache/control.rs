//! `Cache-Control`, of requests and of responses (RFC 9111, section 5.2).

use std::time::Duration;

/// The directives of a message, as far as they mean something to a cache. Unknown ones are ignored (section 5.2.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Control {
    pub(super) no_store: bool,
    pub(super) no_cache: bool,
    pub(super) public: bool,
    pub(super) private: bool,
    pub(super) must_revalidate: bool,
    pub(super) proxy_revalidate: bool,
    pub(super) must_understand: bool,
    pub(super) only_if_cached: bool,
    pub(super) max_age: Option<Duration>,
    pub(super) s_maxage: Option<Duration>,
    /// `Duration::MAX` where any staleness will do.
    pub(super) max_stale: Option<Duration>,
    pub(super) min_fresh: Option<Duration>,
    /// RFC 5861, section 3.
    pub(super) stale_while_revalidate: Option<Duration>,
    /// RFC 5861, section 4.
    pub(super) stale_if_error: Option<Duration>,
}

/// The greatest number of seconds that is told from a greater one (section 1.2.2).
const MOST: u64 = 1 << 31;

impl Control {
    /// Adds what one field line says.
    pub(super) fn add(&mut self, line: &[u8]) {
        for directive in directives(line) {
            let equals = directive.iter().position(|byte| *byte == b'=');
            let (name, argument) = match equals {
                Some(at) => (directive[..at].trim_ascii(), Some(unquote(directive[at + 1..].trim_ascii()))),
                None => (directive, None),
            };
            self.set(name, argument);
        }
    }

    fn set(&mut self, name: &[u8], argument: Option<&[u8]>) {
        let is = |word: &str| name.eq_ignore_ascii_case(word.as_bytes());
        let flags = [
            ("no-store", &mut self.no_store),
            // With field names it is about these alone; a cache may take it for all (sections 5.2.2.4, 5.2.2.7).
            ("no-cache", &mut self.no_cache),
            ("public", &mut self.public),
            ("private", &mut self.private),
            ("must-revalidate", &mut self.must_revalidate),
            ("proxy-revalidate", &mut self.proxy_revalidate),
            ("must-understand", &mut self.must_understand),
            ("only-if-cached", &mut self.only_if_cached),
        ];
        for (word, flag) in flags {
            *flag |= is(word);
        }
        // Of two that contradict each other, and where one cannot be read, the stricter one (section 4.2.1).
        let lifetimes = [
            ("max-age", &mut self.max_age),
            ("s-maxage", &mut self.s_maxage),
            ("stale-while-revalidate", &mut self.stale_while_revalidate),
            ("stale-if-error", &mut self.stale_if_error),
        ];
        for (word, slot) in lifetimes {
            if is(word) {
                let told = seconds(argument).unwrap_or_default();
                *slot = Some(slot.map_or(told, |before| before.min(told)));
            }
        }
        if is("max-stale") {
            let told = match argument {
                None => Duration::MAX,
                some => seconds(some).unwrap_or_default(),
            };
            self.max_stale = Some(self.max_stale.map_or(told, |before| before.min(told)));
        }
        if is("min-fresh") {
            let told = seconds(argument).unwrap_or(Duration::from_secs(MOST));
            self.min_fresh = Some(self.min_fresh.map_or(told, |before| before.max(told)));
        }
    }
}

/// The directives of a line: split at commas that no quotes are around.
fn directives(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let (mut quoted, mut escaped) = (false, false);
    line.split(move |byte| {
        match *byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b',' if !quoted => return true,
            _ => {}
        }
        false
    })
    .map(<[u8]>::trim_ascii)
    .filter(|directive| !directive.is_empty())
}

fn unquote(argument: &[u8]) -> &[u8] {
    match argument {
        [b'"', inner @ .., b'"'] => inner,
        bare => bare,
    }
}

/// Delta-seconds (section 1.2.2); `None` for what is no whole number.
pub(super) fn seconds(argument: Option<&[u8]>) -> Option<Duration> {
    let digits = argument.filter(|digits| !digits.is_empty() && digits.iter().all(u8::is_ascii_digit))?;
    let number = digits
        .iter()
        .fold(0_u64, |all, digit| all.saturating_mul(10).saturating_add(u64::from(digit - b'0')).min(MOST));
    Some(Duration::from_secs(number))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(line: &str) -> Control {
        let mut control = Control::default();
        control.add(line.as_bytes());
        control
    }

    const fn s(seconds: u64) -> Option<Duration> {
        Some(Duration::from_secs(seconds))
    }

    #[test]
    fn directives_are_read_whatever_their_case_and_quotes() {
        let control = read("Max-Age=60 , PRIVATE=\"a,\\\"no-store\", stale-if-error=\"5\",,x=\"no-cache\"");
        let expected = Control { max_age: s(60), private: true, stale_if_error: s(5), ..Control::default() };
        assert_eq!(control, expected);
    }

    #[test]
    fn of_contradicting_lifetimes_the_shorter_counts_and_what_is_no_number_is_stale() {
        assert_eq!(read("max-age=60, max-age=5").max_age, s(5));
        for odd in ["max-age=abc", "max-age=-1", "max-age", "max-age=1.5", "max-age="] {
            assert_eq!(read(odd).max_age, s(0), "{odd}");
        }
        assert_eq!(read("max-age=99999999999999999999").max_age, s(MOST));
        assert_eq!(read("max-stale").max_stale, Some(Duration::MAX));
        assert_eq!(read("max-stale=soon").max_stale, s(0));
    }

    proptest! {
        #[test]
        fn nothing_on_the_wire_makes_it_panic(line in proptest::collection::vec(any::<u8>(), 0..80)) {
            Control::default().add(&line);
        }
    }
}
