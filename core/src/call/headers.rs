//! The headers of a request or an answer, in whatever form an adapter has them.

use crate::units::same;
use http::HeaderMap;

/// Headers by name. The engine tells adapters which ones it wants, so an implementation may hold only those.
pub trait Headers {
    /// The value of the header `name`, which is given in lower case; the first one where it is repeated.
    /// Values are bytes, for that is all that the wire promises (RFC 9110, section 5.5).
    fn get(&self, name: &str) -> Option<&[u8]>;

    /// The values of all `wanted` headers at once, each at its place: cheaper than to ask for one after the
    /// other where an implementation can walk through what it has. `values` come in empty and may be fewer than
    /// `wanted`. Returns the places of those that were there again with another value: a bit for each of the first 64.
    fn pick<'a>(&'a self, wanted: &HeaderNames, values: &mut [Option<&'a [u8]>]) -> u64 {
        for (name, value) in wanted.names().iter().zip(values) {
            *value = self.get(name);
        }
        0
    }

    /// Shows every line, as name and value in the order of the wire, and returns true. An implementation that has
    /// only some of the headers returns false: then nothing is concluded from what is missing.
    fn each(&self, _see: &mut dyn FnMut(&[u8], &[u8])) -> bool {
        false
    }
}

impl Headers for HeaderMap {
    fn get(&self, name: &str) -> Option<&[u8]> {
        Self::get(self, name).map(http::HeaderValue::as_bytes)
    }

    fn pick<'a>(&'a self, wanted: &HeaderNames, values: &mut [Option<&'a [u8]>]) -> u64 {
        wanted.pick(self.iter().map(|(name, value)| (name.as_ref(), value.as_bytes())), values)
    }

    fn each(&self, see: &mut dyn FnMut(&[u8], &[u8])) -> bool {
        self.iter().for_each(|(name, value)| see(name.as_ref(), value.as_bytes()));
        true
    }
}

/// Pairs of name and value, in the order of the wire; the case of names does not matter.
impl<N: AsRef<[u8]>, V: AsRef<[u8]>> Headers for [(N, V)] {
    fn get(&self, name: &str) -> Option<&[u8]> {
        self.iter()
            .find(|(known, _)| known.as_ref().eq_ignore_ascii_case(name.as_bytes()))
            .map(|(_, value)| value.as_ref())
    }

    fn pick<'a>(&'a self, wanted: &HeaderNames, values: &mut [Option<&'a [u8]>]) -> u64 {
        wanted.pick(self.iter().map(|(name, value)| (name.as_ref(), value.as_ref())), values)
    }

    fn each(&self, see: &mut dyn FnMut(&[u8], &[u8])) -> bool {
        self.iter().for_each(|(name, value)| see(name.as_ref(), value.as_ref()));
        true
    }
}

impl<T: Headers + ?Sized> Headers for &T {
    fn get(&self, name: &str) -> Option<&[u8]> {
        (**self).get(name)
    }

    fn pick<'a>(&'a self, wanted: &HeaderNames, values: &mut [Option<&'a [u8]>]) -> u64 {
        (**self).pick(wanted, values)
    }

    fn each(&self, see: &mut dyn FnMut(&[u8], &[u8])) -> bool {
        (**self).each(see)
    }
}

impl<N: AsRef<[u8]>, V: AsRef<[u8]>, const L: usize> Headers for [(N, V); L] {
    fn get(&self, name: &str) -> Option<&[u8]> {
        Headers::get(self.as_slice(), name)
    }

    fn pick<'a>(&'a self, wanted: &HeaderNames, values: &mut [Option<&'a [u8]>]) -> u64 {
        self.as_slice().pick(wanted, values)
    }

    fn each(&self, see: &mut dyn FnMut(&[u8], &[u8])) -> bool {
        self.as_slice().each(see)
    }
}

impl<N: AsRef<[u8]>, V: AsRef<[u8]>> Headers for Vec<(N, V)> {
    fn get(&self, name: &str) -> Option<&[u8]> {
        Headers::get(self.as_slice(), name)
    }

    fn pick<'a>(&'a self, wanted: &HeaderNames, values: &mut [Option<&'a [u8]>]) -> u64 {
        self.as_slice().pick(wanted, values)
    }

    fn each(&self, see: &mut dyn FnMut(&[u8], &[u8])) -> bool {
        self.as_slice().each(see)
    }
}

/// Header names, and the table that finds one among them without comparing it to all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderNames {
    names: Box<[Box<str>]>,
    /// The names once more, one after the other: found without a look at where each lies, and on cache lines that
    /// nothing else is written to.
    text: Box<[u8]>,
    /// Where in `text` a name lies, by [`hash`], open addressing; a power of two, at most a quarter full.
    table: Box<[Entry]>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    start: u32,
    length: u16,
    /// In `names`.
    place: u16,
}

impl Entry {
    const FREE: Self = Self { start: 0, length: 0, place: u16::MAX };
}

impl HeaderNames {
    /// What [`Headers::pick`] does, in one walk through these pairs of name and value.
    pub fn pick<'a>(
        &self,
        headers: impl Iterator<Item = (&'a [u8], &'a [u8])>,
        values: &mut [Option<&'a [u8]>],
    ) -> u64 {
        let mut others = 0;
        for (name, value) in headers {
            let Some(place) = self.place(name) else { continue };
            match values.get_mut(place) {
                Some(first @ None) => *first = Some(value),
                Some(Some(first)) if first.trim_ascii() != value.trim_ascii() => {
                    others |= 1_u64.checked_shl(place as u32).unwrap_or(0);
                }
                _ => {}
            }
        }
        others
    }

    /// The set of these names, in lower case and in order.
    #[must_use]
    pub fn new<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let mut names: Vec<Box<str>> =
            names.into_iter().map(|name| name.to_ascii_lowercase().into_boxed_str()).collect();
        // No field has such a name.
        names.retain(|name| u16::try_from(name.len()).is_ok());
        names.sort();
        names.dedup();
        names.truncate(usize::from(u16::MAX));
        let mut table = vec![Entry::FREE; (names.len() * 4).next_power_of_two()].into_boxed_slice();
        let mask = table.len() - 1;
        let mut text = Vec::new();
        for (place, name) in (0_u16..).zip(&names) {
            let mut at = hash(name.as_bytes()) & mask;
            while table[at] != Entry::FREE {
                at = (at + 1) & mask;
            }
            let (start, length) = (u32::try_from(text.len()), u16::try_from(name.len()));
            // Fewer than 65,536 names of as many bytes.
            let (Ok(start), Ok(length)) = (start, length) else { continue };
            table[at] = Entry { start, length, place };
            text.extend_from_slice(name.as_bytes());
        }
        Self { names: names.into(), text: text.into(), table }
    }

    /// The names, in lower case and in order.
    #[must_use]
    pub fn names(&self) -> &[Box<str>] {
        &self.names
    }

    /// The place of a name, whatever its case.
    #[must_use]
    pub fn place(&self, name: &[u8]) -> Option<usize> {
        let mask = self.table.len() - 1;
        let mut at = hash(name) & mask;
        loop {
            let entry = self.table[at];
            if entry.place == Entry::FREE.place {
                return None;
            }
            if usize::from(entry.length) == name.len()
                && let Some(known) =
                    self.text.get(entry.start as usize..).and_then(|text| text.get(..name.len()))
                && (same(known, name) || known.eq_ignore_ascii_case(name))
            {
                return Some(usize::from(entry.place));
            }
            at = (at + 1) & mask;
        }
    }
}

/// From a name's length, its first and its last bytes, in one case. Whoever sends names that collide
/// makes a search longer by at most the number of wanted names.
fn hash(name: &[u8]) -> usize {
    const LOWER: u64 = 0x2020_2020_2020_2020;
    let (first, last) = if let (Some(first), Some(last)) = (name.first_chunk::<8>(), name.last_chunk::<8>()) {
        (u64::from_le_bytes(*first), u64::from_le_bytes(*last))
    } else if let (Some(first), Some(last)) = (name.first_chunk::<4>(), name.last_chunk::<4>()) {
        (u32::from_le_bytes(*first).into(), u32::from_le_bytes(*last).into())
    } else {
        (name.iter().fold(0, |sum, byte| (sum << 8) | u64::from(*byte)), 0)
    };
    let mixed = (first | LOWER).rotate_left(23) ^ (last | LOWER) ^ ((name.len() as u64) << 56);
    (mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as usize
}

/// No headers at all: what is not shown cannot be looked at.
#[derive(Clone, Copy, Debug)]
pub struct NoHeaders;

impl Headers for NoHeaders {
    fn get(&self, _name: &str) -> Option<&[u8]> {
        None
    }

    fn pick<'a>(&'a self, _wanted: &HeaderNames, _values: &mut [Option<&'a [u8]>]) -> u64 {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_map_and_a_list_of_pairs_give_the_same() {
        let pairs = [("Retry-After", "7"), ("retry-after", "9")];
        let map: HeaderMap = [("retry-after".parse().unwrap(), "7".parse().unwrap())].into_iter().collect();
        for headers in [&pairs as &dyn Headers, &map] {
            assert_eq!(headers.get("retry-after"), Some(b"7".as_slice()));
            assert_eq!(headers.get("age"), None);
        }
    }

    proptest! {
        #[test]
        fn picking_all_at_once_is_asking_one_by_one(
            names in proptest::collection::vec("[a-zA-Z-]{0,20}", 0..40),
            headers in proptest::collection::vec(("[a-zA-Z-]{0,20}", "[0-9]{0,4}"), 0..40),
            room in 0..50_usize,
        ) {
            let wanted = HeaderNames::new(names.iter().map(String::as_str));
            // Some of what is wanted is there.
            let headers: Vec<(String, String)> = headers
                .into_iter()
                .enumerate()
                .map(|(n, (name, value))| (names.get(n * 2).cloned().unwrap_or(name), value))
                .collect();
            let mut values = vec![None; room];
            headers.pick(&wanted, &mut values);
            for (place, name) in wanted.names().iter().enumerate() {
                prop_assert_eq!(wanted.place(name.to_ascii_uppercase().as_bytes()), Some(place));
                if let Some(value) = values.get(place) {
                    prop_assert_eq!(*value, Headers::get(&headers, name));
                }
            }
        }
    }
}
