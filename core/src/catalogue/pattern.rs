//! Endpoint patterns, and the trie that finds the one that a request asks for.
//!
//! `GET /v1/customers/{customer}` matches one segment for each brace; `{rest*}` at the end matches all that
//! is left; a brace may have text around it (`POST /v1/models/{model}:generateContent`). `*` for the method
//! matches any. A literal segment wins over one with text around its brace, that over a bare brace, that over
//! the rest; a method that is named wins over `*`.

use thiserror::Error;

/// The most segments that a pattern, or the part of a path that is matched, may have.
const MAX_SEGMENTS: usize = 32;

/// A method and a path template in its written form.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pattern(Box<str>);

/// Why a text is not an endpoint pattern.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum BadPattern {
    /// There is no method, or it is not in capital letters.
    #[error("an endpoint starts with a method in capital letters or `*`, as in `GET /v1/items/{{id}}`")]
    Method,
    /// The path does not begin with a slash.
    #[error("the path of an endpoint begins with `/`")]
    Path,
    /// Braces that are not paired, empty, or more than one pair in a segment.
    #[error("a segment has at most one pair of braces, with a name inside, as in `{{id}}`")]
    Braces,
    /// `{rest*}` is not the last segment.
    #[error("`{{rest*}}` can only be the last segment")]
    Rest,
    /// More segments than any vendor has.
    #[error("an endpoint has at most 32 segments")]
    Long,
}

impl Pattern {
    /// Reads a pattern in its written form.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, BadPattern> {
        let (method, path) = text.split_once(' ').ok_or(BadPattern::Method)?;
        if method != "*"
            && (method.is_empty() || !method.bytes().all(|b| b.is_ascii_uppercase() || b == b'-'))
        {
            return Err(BadPattern::Method);
        }
        let path = path.strip_prefix('/').ok_or(BadPattern::Path)?;
        let segments: Vec<&str> = path.split('/').collect();
        if segments.len() > MAX_SEGMENTS {
            return Err(BadPattern::Long);
        }
        for (place, segment) in segments.iter().enumerate() {
            if let Segment::Rest = Segment::parse(segment)?
                && place + 1 < segments.len()
            {
                return Err(BadPattern::Rest);
            }
        }
        Ok(Self(text.into()))
    }

    /// The written form.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

enum Segment<'a> {
    Literal(&'a str),
    Param { prefix: &'a str, suffix: &'a str },
    Rest,
}

impl<'a> Segment<'a> {
    fn parse(text: &'a str) -> Result<Self, BadPattern> {
        let Some((prefix, rest)) = text.split_once('{') else {
            return if text.contains('}') { Err(BadPattern::Braces) } else { Ok(Self::Literal(text)) };
        };
        let (name, suffix) = rest.split_once('}').ok_or(BadPattern::Braces)?;
        if name.is_empty() || prefix.contains('}') || name.contains('{') || suffix.contains(['{', '}']) {
            return Err(BadPattern::Braces);
        }
        match name.strip_suffix('*') {
            Some("") => Err(BadPattern::Braces),
            Some(_) if prefix.is_empty() && suffix.is_empty() => Ok(Self::Rest),
            Some(_) => Err(BadPattern::Rest),
            None => Ok(Self::Param { prefix, suffix }),
        }
    }
}

/// The patterns of one vendor, as a trie of segments.
#[derive(Debug)]
pub(crate) struct PatternSet {
    nodes: Vec<Node>,
}

#[derive(Debug, Default)]
struct Node {
    literals: Vec<Literal>,
    /// Longest surrounding text first, so that the bare brace comes last.
    params: Vec<(Box<str>, Box<str>, u32)>,
    rest: Vec<Literal>,
    ends: Vec<Literal>,
}

/// A text, compared by its first bytes before all of it: on the hot path a call of `memcmp` for each
/// candidate costs more than the rest of the search.
#[derive(Debug)]
struct Literal {
    start: u64,
    text: Box<str>,
    /// The next node of a segment, the number of the pattern of a method.
    target: u32,
}

impl Literal {
    fn new(text: &str, target: u32) -> Self {
        Self { start: start_of(text), text: text.into(), target }
    }

    fn find(list: &[Self], text: &str) -> Option<u32> {
        let start = start_of(text);
        list.iter()
            .find(|known| known.start == start && (text.len() <= 7 || known.text.as_ref() == text))
            .map(|known| known.target)
    }
}

/// The first seven bytes of a text and, up to 255, its length: equal for equal texts, and of texts up to
/// seven bytes for those alone.
fn start_of(text: &str) -> u64 {
    let bytes = text.as_bytes();
    let start = match bytes.first_chunk::<8>() {
        Some(first) => u64::from_le_bytes(*first) & 0x00ff_ffff_ffff_ffff,
        None => {
            bytes.iter().rev().fold(0, |start, &byte| start << 8 | u64::from(byte)) & 0x00ff_ffff_ffff_ffff
        }
    };
    start | (bytes.len().min(255) as u64) << 56
}

impl PatternSet {
    pub(crate) fn new(patterns: &[Pattern]) -> Self {
        let mut set = Self { nodes: vec![Node::default()] };
        for (number, pattern) in patterns.iter().enumerate() {
            set.insert(pattern, u32::try_from(number).unwrap_or(u32::MAX));
        }
        set
    }

    fn insert(&mut self, pattern: &Pattern, number: u32) {
        let Some((method, path)) = pattern.as_str().split_once(" /") else { return };
        let mut at = 0;
        for text in path.split('/') {
            let fresh = u32::try_from(self.nodes.len()).unwrap_or(u32::MAX);
            let node = &mut self.nodes[at];
            let next = match Segment::parse(text) {
                Ok(Segment::Literal(literal)) => match Literal::find(&node.literals, literal) {
                    Some(next) => next,
                    None => {
                        node.literals.push(Literal::new(literal, fresh));
                        fresh
                    }
                },
                Ok(Segment::Param { prefix, suffix }) => {
                    match node.params.iter().find(|(p, s, _)| p.as_ref() == prefix && s.as_ref() == suffix) {
                        Some((_, _, next)) => *next,
                        None => {
                            node.params.push((prefix.into(), suffix.into(), fresh));
                            node.params.sort_by_key(|(p, s, _)| std::cmp::Reverse(p.len() + s.len()));
                            fresh
                        }
                    }
                }
                Ok(Segment::Rest) => {
                    node.rest.push(Literal::new(method, number));
                    return;
                }
                Err(_) => return, // Cannot be: `Pattern::parse` refused it.
            };
            if next == fresh {
                self.nodes.push(Node::default());
            }
            at = next as usize;
        }
        self.nodes[at].ends.push(Literal::new(method, number));
    }

    /// The number of the pattern that a request asks for.
    pub(crate) fn find(&self, method: &str, path: &str) -> Option<u32> {
        let path = path.strip_prefix('/').unwrap_or(path);
        // A slash at the end makes no other endpoint.
        let path = path.strip_suffix('/').unwrap_or(path);
        self.find_from(0, method, Some(path), 0)
    }

    fn find_from(&self, at: usize, method: &str, rest: Option<&str>, depth: usize) -> Option<u32> {
        let node = &self.nodes[at];
        let Some(rest) = rest else { return by_method(&node.ends, method) };
        if depth < MAX_SEGMENTS {
            let (segment, next) = match rest.bytes().position(|byte| byte == b'/') {
                Some(slash) => (&rest[..slash], Some(&rest[slash + 1..])),
                None => (rest, None),
            };
            if let Some(target) = Literal::find(&node.literals, segment)
                && let Some(found) = self.find_from(target as usize, method, next, depth + 1)
            {
                return Some(found);
            }
            for (prefix, suffix, target) in &node.params {
                // An empty text is not compared: `memcmp` of nothing at a dangling address takes a slow path of
                // the processor.
                if segment.len() > prefix.len() + suffix.len()
                    && (prefix.is_empty() || segment.starts_with(prefix.as_ref()))
                    && (suffix.is_empty() || segment.ends_with(suffix.as_ref()))
                    && let Some(found) = self.find_from(*target as usize, method, next, depth + 1)
                {
                    return Some(found);
                }
            }
        }
        by_method(&node.rest, method)
    }
}

fn by_method(ends: &[Literal], method: &str) -> Option<u32> {
    Literal::find(ends, method).or_else(|| Literal::find(ends, "*"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(patterns: &[&str]) -> PatternSet {
        PatternSet::new(&patterns.iter().map(|text| Pattern::parse(text).unwrap()).collect::<Vec<_>>())
    }

    #[test]
    fn the_most_specific_pattern_wins() {
        let set = set(&[
            "GET /v1/{any*}",
            "GET /v1/items/{id}",
            "GET /v1/items/search",
            "POST /v1/items/{id}:copy",
            "* /v1/items/{id}",
            "GET /v1/items/{id}/parts/{part}",
        ]);
        assert_eq!(set.find("GET", "/v1/items/search"), Some(2));
        assert_eq!(set.find("GET", "/v1/items/42"), Some(1));
        assert_eq!(set.find("GET", "/v1/items/42/"), Some(1));
        assert_eq!(set.find("POST", "/v1/items/42:copy"), Some(3));
        assert_eq!(set.find("DELETE", "/v1/items/42"), Some(4));
        assert_eq!(
            set.find("GET", "/v1/items/search/parts/7"),
            Some(5),
            "a literal that leads nowhere is left again"
        );
        assert_eq!(set.find("GET", "/v1/else/where"), Some(0));
        assert_eq!(set.find("GET", "/v2"), None);
    }

    #[test]
    fn a_brace_needs_at_least_one_character() {
        assert_eq!(set(&["GET /a/{id}/b"]).find("GET", "/a//b"), None);
    }

    #[test]
    fn patterns_that_mean_nothing_are_refused_with_the_reason() {
        assert_eq!(Pattern::parse("/v1"), Err(BadPattern::Method));
        assert_eq!(Pattern::parse("get /v1"), Err(BadPattern::Method));
        assert_eq!(Pattern::parse("GET v1"), Err(BadPattern::Path));
        assert_eq!(Pattern::parse("GET /{"), Err(BadPattern::Braces));
        assert_eq!(Pattern::parse("GET /{}"), Err(BadPattern::Braces));
        assert_eq!(Pattern::parse("GET /{a*}/b"), Err(BadPattern::Rest));
        assert_eq!(Pattern::parse(&format!("GET {}", "/a".repeat(40))), Err(BadPattern::Long));
    }
}
