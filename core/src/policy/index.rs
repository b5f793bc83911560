//! Finds the rules that may be about a call without asking all of them.
//!
//! Each rule is filed under the texts that its match demands: the exact ones, hashed together, and the first or
//! last bytes of one pattern. Rules that demand texts of the same things form a shape; there are few shapes,
//! whatever the number of rules, and a lookup probes one table once for each. (Packet classifiers know this as
//! tuple space search.) A bucket may hold rules that do not match: whoever looks asks them.

use crate::matcher::{Condition, Field, Fields, Matcher, Subject, Test, lower, unnamed};
use hashbrown::HashMap;
use std::collections::BTreeMap;
use std::hash::{BuildHasherDefault, Hasher};

/// The most shapes; the rules of further ones are filed under a single text.
const MAX_SHAPES: usize = 24;
/// The most probes for one lookup; further rules are asked every time.
const MAX_PROBES: usize = 64;
/// The most places that one rule with lists is filed under.
const MAX_COPIES: usize = 64;
/// The lengths of the beginnings and ends of patterns that are hashed: few, so that there are few shapes.
const LENGTHS: [usize; 8] = [4, 8, 12, 16, 20, 24, 32, 48];

/// Something that a call is looked up by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Exact(Field),
    /// The value of the tag with this key.
    Tag(Box<str>),
    /// One of the vendor's tags.
    VendorTag,
    /// So many first bytes.
    Start(Field, usize),
    /// So many last bytes.
    End(Field, usize),
}

impl Part {
    /// How many calls share a text here, roughly: the lowest tells most rules apart.
    fn commonness(&self) -> u8 {
        match self {
            Self::Exact(Field::Customer) => 0,
            Self::Exact(Field::Credential) => 1,
            Self::Exact(Field::Endpoint) => 2,
            Self::Tag(_) => 3,
            Self::Exact(Field::Host) => 4,
            Self::Start(..) | Self::End(..) => 5,
            Self::Exact(Field::Vendor) => 6,
            Self::Exact(_) => 7,
            Self::VendorTag => 8,
        }
    }
}

/// A part, and the hashes of the texts that a rule demands there.
type Demand = (Part, Vec<u64>);

#[derive(Clone, Debug, Default)]
pub(super) struct Index {
    probes: Box<[Probe]>,
    buckets: HashMap<u64, Bucket, BuildHasherDefault<Ready>>,
    /// The places of rules, bucket by bucket, ascending in each.
    places: Box<[u32]>,
    /// The rules that are filed under nothing.
    wild: Box<[u32]>,
    /// All rules, for the calls that no hash can stand for.
    all: Box<[u32]>,
    /// The exact texts that are hashed once for all probes.
    exact: Fields,
    by_endpoint: bool,
    /// Whether a rule demands an endpoint with a placeholder, which is filed without its name.
    by_placeholder: bool,
}

#[derive(Clone, Debug)]
struct Probe {
    seed: u64,
    parts: Box<[Part]>,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    start: u32,
    end: u32,
}

impl Index {
    /// Files matchers by their places.
    pub(super) fn new(matchers: &[&Matcher]) -> Self {
        let demands: Vec<Vec<Demand>> = matchers.iter().map(|matcher| demands(matcher)).collect();
        let mut shapes: BTreeMap<Vec<Part>, usize> = BTreeMap::new();
        for demand in &demands {
            *shapes.entry(shape(demand)).or_default() += 1;
        }
        let mut popular: Vec<(Vec<Part>, usize)> = shapes.into_iter().collect();
        popular.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        popular.truncate(MAX_SHAPES);

        let mut probes: BTreeMap<Vec<Part>, u64> = BTreeMap::new();
        let mut filed: BTreeMap<u64, Vec<u32>> = BTreeMap::new();
        let mut wild = Vec::new();
        for (place, mut demand) in (0_u32..).zip(demands) {
            if !popular.iter().any(|(known, _)| *known == shape(&demand)) {
                demand = demand.into_iter().min_by_key(|(part, _)| part.commonness()).into_iter().collect();
            }
            if demand.is_empty() || (probes.len() >= MAX_PROBES && !probes.contains_key(&shape(&demand))) {
                wild.push(place);
                continue;
            }
            let next = mix(0x5eed, probes.len() as u64 + 1);
            let seed = *probes.entry(shape(&demand)).or_insert(next);
            for key in combinations(seed, &demand) {
                let bucket = filed.entry(key).or_default();
                if bucket.last() != Some(&place) {
                    bucket.push(place);
                }
            }
        }
        let mut index =
            Self { wild: wild.into(), all: (0_u32..).take(matchers.len()).collect(), ..Self::default() };
        let mut places = Vec::new();
        for (key, bucket) in filed {
            let start = u32::try_from(places.len()).unwrap_or(u32::MAX);
            places.extend(bucket);
            let end = u32::try_from(places.len()).unwrap_or(u32::MAX);
            index.buckets.insert(key, Bucket { start, end });
        }
        index.places = places.into();
        index.by_placeholder = matchers.iter().any(|matcher| has_placeholder(matcher));
        for part in probes.keys().flatten() {
            if let Part::Exact(field) = part {
                index.exact = index.exact | Fields::of(*field);
            }
            index.by_endpoint |= matches!(
                part,
                Part::Exact(Field::Endpoint)
                    | Part::Start(Field::Endpoint, _)
                    | Part::End(Field::Endpoint, _)
            );
        }
        index.probes = probes.into_iter().map(|(parts, seed)| Probe { seed, parts: parts.into() }).collect();
        index
    }

    /// Calls `visit` with the places, ascending in each bucket, of rules that may match; no other rule does.
    pub(super) fn each_bucket(&self, subject: &Subject<'_>, mut visit: impl FnMut(&[u32])) {
        if self.by_endpoint && subject.endpoint.starts_with('*') {
            // An endpoint that takes any method is matched in two forms, of which neither stands for both.
            visit(&self.all);
            return;
        }
        let mut exact = [0_u64; Field::ALL.len()];
        for field in self.exact.iter() {
            exact[field as usize] = match subject.text(field) {
                // A rule without any placeholder demands none of these.
                text if field == Field::Endpoint && self.by_placeholder && text.contains('{') => {
                    hash_bytes(bytes_of(unnamed(text).flat_map(char::to_lowercase)))
                }
                text => hash(text),
            };
        }
        for probe in &self.probes {
            self.probe(subject, &exact, probe.seed, &probe.parts, &mut visit);
        }
        if !self.wild.is_empty() {
            visit(&self.wild);
        }
    }

    fn probe(
        &self,
        subject: &Subject<'_>,
        exact: &[u64; Field::ALL.len()],
        key: u64,
        parts: &[Part],
        visit: &mut impl FnMut(&[u32]),
    ) {
        let Some((part, rest)) = parts.split_first() else {
            if let Some(bucket) = self.buckets.get(&key) {
                visit(&self.places[bucket.start as usize..bucket.end as usize]);
            }
            return;
        };
        let hash = match part {
            Part::Exact(field) => Some(exact[*field as usize]),
            Part::Tag(tag) => subject.tag(tag).map(hash),
            Part::Start(field, length) => hash_start(subject.text(*field), *length),
            Part::End(field, length) => hash_end(subject.text(*field), *length),
            Part::VendorTag => {
                for tag in subject.vendor_tags {
                    self.probe(subject, exact, mix(key, hash(tag)), rest, visit);
                }
                return;
            }
        };
        if let Some(hash) = hash {
            self.probe(subject, exact, mix(key, hash), rest, visit);
        }
    }
}

fn has_placeholder(matcher: &Matcher) -> bool {
    matcher.conditions().iter().any(|condition| match condition {
        Condition::One(Field::Endpoint, test) => {
            test.exactly().is_some_and(|mut texts| texts.any(|text| text.contains('{')))
        }
        _ => false,
    })
}

fn shape(demand: &[Demand]) -> Vec<Part> {
    demand.iter().map(|(part, _)| part.clone()).collect()
}

/// What a matcher demands of every call that it matches, in a fixed order of parts.
fn demands(matcher: &Matcher) -> Vec<Demand> {
    let mut demands = Vec::new();
    let mut copies = 1;
    let mut affix: Option<Demand> = None;
    for condition in matcher.conditions() {
        let (part, test) = match condition {
            Condition::One(field, test) => (Part::Exact(*field), test),
            Condition::VendorTag(test) => (Part::VendorTag, test),
            Condition::Tag(key, test) => (Part::Tag(key.clone()), test),
            Condition::Data(_) | Condition::AnyTag(_) | Condition::Bytes(_) => continue,
        };
        let exact: Option<Vec<u64>> = test.exactly().map(|texts| texts.map(hash).collect());
        if let Some(hashes) = exact
            && copies * hashes.len() <= MAX_COPIES
        {
            copies *= hashes.len();
            demands.push((part, hashes));
        } else if let Part::Exact(field) = part {
            let better = |new: &Demand| affix.as_ref().is_none_or(|known| length(&new.0) > length(&known.0));
            affix = affix_of(field, test).filter(better).or(affix);
        }
    }
    if let Some(affix) = affix
        && copies * affix.1.len() <= MAX_COPIES
    {
        demands.push(affix);
    }
    demands.sort_by(|a, b| a.0.cmp(&b.0));
    // What is looked up first is the same for many rules, what comes last tells them apart.
    demands
}

fn length(part: &Part) -> usize {
    match part {
        Part::Start(_, length) | Part::End(_, length) => *length,
        _ => 0,
    }
}

/// The longest beginning or end that all texts which pass a test have, as far as [`LENGTHS`] go.
fn affix_of(field: Field, test: &Test) -> Option<Demand> {
    let shortest = |end: fn(&crate::matcher::Pattern) -> &str| {
        let least = test.any_of.iter().map(|pattern| end(pattern).len()).min()?;
        LENGTHS.into_iter().rev().find(|length| *length <= least)
    };
    let start = shortest(|pattern| pattern.ends().0);
    let end = shortest(|pattern| pattern.ends().1);
    if end > start {
        let length = end?;
        let hashes = test.any_of.iter().filter_map(|pattern| hash_end(pattern.ends().1, length));
        Some((Part::End(field, length), hashes.collect()))
    } else {
        let length = start?;
        let hashes = test.any_of.iter().filter_map(|pattern| hash_start(pattern.ends().0, length));
        Some((Part::Start(field, length), hashes.collect()))
    }
}

/// The keys of a rule: one for each combination of the texts that its parts allow.
fn combinations(seed: u64, demand: &[Demand]) -> Vec<u64> {
    demand.iter().fold(vec![seed], |keys, (_, hashes)| {
        keys.iter().flat_map(|key| hashes.iter().map(|hash| mix(*key, *hash))).collect()
    })
}

const fn mix(key: u64, value: u64) -> u64 {
    let product = (key ^ value).wrapping_add(0x9E37_79B9_7F4A_7C15) as u128 * 0xD6E8_FEB8_6659_FD93;
    (product >> 64) as u64 ^ product as u64
}

/// The hash of a text, whatever the case of its letters. Equal texts have equal hashes, and some others too:
/// whoever finds a rule by one asks it.
fn hash(text: &str) -> u64 {
    if text.is_ascii() { hash_ascii(text.as_bytes()) } else { hash_bytes(folded(text)) }
}

/// Of the first bytes of the text in lower case; `None` where it is shorter.
fn hash_start(text: &str, length: usize) -> Option<u64> {
    if text.is_ascii() {
        return text.as_bytes().get(..length).map(hash_ascii);
    }
    (folded(text).count() >= length).then(|| hash_bytes(folded(text).take(length)))
}

/// Of the last bytes of the text in lower case; `None` where it is shorter.
fn hash_end(text: &str, length: usize) -> Option<u64> {
    if text.is_ascii() {
        return text.len().checked_sub(length).map(|start| hash_ascii(&text.as_bytes()[start..]));
    }
    let start = folded(text).count().checked_sub(length)?;
    Some(hash_bytes(folded(text).skip(start)))
}

/// The bytes of the text in lower case.
fn folded(text: &str) -> impl Iterator<Item = u8> + Clone {
    bytes_of(lower(text))
}

fn bytes_of(letters: impl Iterator<Item = char> + Clone) -> impl Iterator<Item = u8> + Clone {
    letters.flat_map(|letter| {
        let mut bytes = [0; 4];
        let length = letter.encode_utf8(&mut bytes).len();
        bytes.into_iter().take(length)
    })
}

/// Turns letters to lower case, eight at a time, and some signs to others.
const LOWER: u64 = 0x2020_2020_2020_2020;

fn hash_ascii(bytes: &[u8]) -> u64 {
    let (chunks, rest) = bytes.as_chunks::<8>();
    let hash =
        chunks.iter().fold(bytes.len() as u64, |hash, chunk| mix(hash, u64::from_le_bytes(*chunk) | LOWER));
    if rest.is_empty() {
        return hash;
    }
    let last = rest.iter().rev().fold(0, |last, &byte| last << 8 | u64::from(byte));
    mix(hash, last | LOWER)
}

/// The same as [`hash_ascii`], of bytes that lie nowhere.
fn hash_bytes(bytes: impl Iterator<Item = u8> + Clone) -> u64 {
    let length = bytes.clone().count();
    let mut hash = length as u64;
    let (mut chunk, mut filled) = (0_u64, 0);
    for byte in bytes {
        chunk |= u64::from(byte) << (8 * filled);
        filled += 1;
        if filled == 8 {
            hash = mix(hash, chunk | LOWER);
            (chunk, filled) = (0, 0);
        }
    }
    if filled > 0 { mix(hash, chunk | LOWER) } else { hash }
}

/// Keys are hashes already.
#[derive(Clone, Copy, Debug, Default)]
struct Ready(u64);

impl Hasher for Ready {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _bytes: &[u8]) {
        unreachable!("only keys of 64 bits are hashed");
    }

    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn letters_of_either_case_hash_alike(text in "[a-zA-ZäÄßéÉЯяΩω/ -]{0,40}", length in 1_usize..20) {
            let upper: String = lower(&text).flat_map(|letter| {
                // Only where the way back is the same letter.
                let big: Vec<char> = letter.to_uppercase().collect();
                if big.len() == 1 { big } else { vec![letter] }
            }).collect();
            prop_assert_eq!(hash(&text), hash(&upper));
            prop_assert_eq!(hash_start(&text, length), hash_start(&upper, length));
            prop_assert_eq!(hash_end(&text, length), hash_end(&upper, length));
            if text.is_ascii() {
                prop_assert_eq!(hash(&text), hash_bytes(text.bytes()));
            }
        }
    }
}
