//! Text patterns: `*` for any text, a leading `!` for the opposite, letters in either case.

/// Text with each character in lower case, as patterns are kept.
pub(super) fn fold(text: &str) -> String {
    lower(text).collect()
}

/// The characters in lower case.
pub(crate) fn lower(text: &str) -> impl Iterator<Item = char> + Clone {
    text.chars().flat_map(char::to_lowercase)
}

/// Whether two texts are equal but for the case of letters.
pub(super) fn same(text: &str, other: &str) -> bool {
    if text.is_ascii() && other.is_ascii() {
        return text.eq_ignore_ascii_case(other);
    }
    lower(text).eq(lower(other))
}

/// An endpoint without the names of its placeholders: `GET /items/{}` for `GET /items/{id}`.
pub(crate) fn unnamed(endpoint: &str) -> impl Iterator<Item = char> + Clone {
    let mut within = false;
    endpoint.chars().filter(move |letter| {
        let kept = !within || *letter == '}';
        within = *letter == '{' || within && *letter != '}';
        kept
    })
}

/// The same of a text that may be a pattern, cut within a name (`GET /items/{cus*`).
pub(super) fn unnamed_pattern(text: &str) -> String {
    let (mut out, mut rest) = (String::with_capacity(text.len()), text);
    while let Some((before, after)) = rest.split_once('{') {
        out.push_str(before);
        out.push('{');
        let name = after.find(['}', '/']).unwrap_or(after.len());
        // The `*` of `{rest*}` is part of the name.
        let cut = !after[name..].starts_with('}');
        rest = &after[after[..name].find('*').filter(|_| cut).unwrap_or(name)..];
    }
    out + rest
}

/// One pattern, in lower case.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Pattern {
    Exact(Box<str>),
    /// The parts around each `*`: two of them at least, and none in the middle is empty.
    Glob(Box<[Box<str>]>),
}

impl Pattern {
    pub(super) fn new(text: &str) -> Self {
        let folded = fold(text);
        if !folded.contains('*') {
            return Self::Exact(folded.into());
        }
        let parts: Vec<&str> = folded.split('*').collect();
        let last = parts.len() - 1;
        let kept = parts
            .iter()
            .enumerate()
            .filter(|(place, part)| *place == 0 || *place == last || !part.is_empty());
        Self::Glob(kept.map(|(_, part)| (*part).into()).collect())
    }

    /// Whether it is `*`.
    pub(super) fn is_any(&self) -> bool {
        matches!(self, Self::Glob(parts) if parts.iter().all(|part| part.is_empty()))
    }

    /// What every text that matches begins and ends with, but for what is in braces.
    pub(crate) fn ends(&self) -> (&str, &str) {
        let (first, last) = match self {
            Self::Exact(text) => (text.as_ref(), text.as_ref()),
            Self::Glob(parts) => {
                (parts.first().map_or("", AsRef::as_ref), parts.last().map_or("", AsRef::as_ref))
            }
        };
        let start = first.find('{').map_or(first, |brace| &first[..=brace]);
        (start, last.rfind('}').map_or(last, |brace| &last[brace..]))
    }

    fn has_placeholder(&self) -> bool {
        match self {
            Self::Exact(text) => text.contains('{'),
            Self::Glob(parts) => parts.iter().any(|part| part.contains('{')),
        }
    }

    pub(super) fn letters(&self) -> usize {
        match self {
            Self::Exact(text) => text.chars().count(),
            Self::Glob(parts) => parts.iter().map(|part| part.chars().count()).sum(),
        }
    }

    pub(super) fn matches(&self, text: &str) -> bool {
        if text.is_ascii() { self.matches_ascii(text.as_bytes()) } else { self.matches_chars(lower(text)) }
    }

    /// A part that is not ASCII equals no ASCII text, so that bytes can be compared.
    fn matches_ascii(&self, text: &[u8]) -> bool {
        let parts = match self {
            Self::Exact(whole) => return text.eq_ignore_ascii_case(whole.as_bytes()),
            Self::Glob(parts) => parts,
        };
        let [first, middle @ .., last] = parts.as_ref() else { return false };
        let Some((start, mut rest)) = text.split_at_checked(first.len()) else { return false };
        if !start.eq_ignore_ascii_case(first.as_bytes()) {
            return false;
        }
        for part in middle {
            let part = part.as_bytes();
            match rest.windows(part.len()).position(|window| window.eq_ignore_ascii_case(part)) {
                Some(place) => rest = &rest[place + part.len()..],
                None => return false,
            }
        }
        rest.len() >= last.len() && rest[rest.len() - last.len()..].eq_ignore_ascii_case(last.as_bytes())
    }

    fn matches_chars(&self, mut text: impl Iterator<Item = char> + Clone) -> bool {
        let parts = match self {
            Self::Exact(whole) => return text.eq(whole.chars()),
            Self::Glob(parts) => parts,
        };
        let [first, middle @ .., last] = parts.as_ref() else { return false };
        if !skip(&mut text, first) {
            return false;
        }
        for part in middle {
            loop {
                let mut attempt = text.clone();
                if skip(&mut attempt, part) {
                    text = attempt;
                    break;
                }
                if text.next().is_none() {
                    return false;
                }
            }
        }
        loop {
            if text.clone().eq(last.chars()) {
                return true;
            }
            if text.next().is_none() {
                return false;
            }
        }
    }

    /// Whether every text that `other` matches is matched too; `false` also where that cannot be told.
    pub(super) fn covers(&self, other: &Self) -> bool {
        match other {
            Self::Exact(text) => self.matches(text),
            // No part of a pattern contains `*`: what the other's `*` stands for is left to one of ours.
            Self::Glob(parts) => self.matches(&parts.join("*")),
        }
    }

    /// Whether no text is matched by both; `false` also where that cannot be told.
    pub(super) fn excludes(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Exact(text), pattern) | (pattern, Self::Exact(text)) => !pattern.matches(text),
            (Self::Glob(a), Self::Glob(b)) => {
                let differ = |a: &str, b: &str, from_end: bool| {
                    let length = a.len().min(b.len());
                    let (a, b) = (a.as_bytes(), b.as_bytes());
                    if from_end {
                        a[a.len() - length..] != b[b.len() - length..]
                    } else {
                        a[..length] != b[..length]
                    }
                };
                let (Some(a_first), Some(b_first)) = (a.first(), b.first()) else { return false };
                let (Some(a_last), Some(b_last)) = (a.last(), b.last()) else { return false };
                differ(a_first, b_first, false) || differ(a_last, b_last, true)
            }
        }
    }
}

/// Moves past `part`, if the text begins with it.
fn skip(text: &mut impl Iterator<Item = char>, part: &str) -> bool {
    part.chars().all(|wanted| text.next() == Some(wanted))
}

/// What a key is tested for: any of these, and none of those.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(crate) struct Test {
    /// Empty: any text.
    pub(crate) any_of: Box<[Pattern]>,
    pub(super) none_of: Box<[Pattern]>,
    /// Whether a pattern has a placeholder: these are kept [without names](unnamed) where endpoints are tested.
    placeholders: bool,
}

impl Test {
    pub(super) fn new(any_of: &[impl AsRef<str>], none_of: &[impl AsRef<str>]) -> Self {
        let (any_of, none_of) = (patterns(any_of), patterns(none_of));
        let placeholders = any_of.iter().chain(&none_of).any(Pattern::has_placeholder);
        Self { any_of, none_of, placeholders }
    }

    pub(super) fn one(&self, text: &str) -> bool {
        let any = |patterns: &[Pattern]| patterns.iter().any(|pattern| pattern.matches(text));
        (self.any_of.is_empty() || any(&self.any_of)) && !any(&self.none_of)
    }

    pub(super) fn many<'a>(&self, texts: impl Iterator<Item = &'a str> + Clone) -> bool {
        let any = |patterns: &[Pattern]| {
            texts.clone().any(|text| patterns.iter().any(|pattern| pattern.matches(text)))
        };
        (self.any_of.is_empty() || any(&self.any_of)) && (self.none_of.is_empty() || !any(&self.none_of))
    }

    /// An endpoint that takes any method (`* /v1/items`) is also looked at with the call's own. What a placeholder is
    /// called does not matter.
    pub(super) fn endpoint(&self, endpoint: &str, method: &str) -> bool {
        if !self.placeholders && !endpoint.starts_with('*') {
            return self.one(endpoint);
        }
        let path = endpoint.strip_prefix('*');
        let any = |patterns: &[Pattern]| {
            patterns.iter().any(|pattern| {
                if self.placeholders && pattern.has_placeholder() {
                    let folded = |text| unnamed(text).flat_map(char::to_lowercase);
                    pattern.matches_chars(folded(endpoint))
                        || path.is_some_and(|path| pattern.matches_chars(lower(method).chain(folded(path))))
                } else {
                    pattern.matches(endpoint)
                        || path.is_some_and(|path| pattern.matches_chars(lower(method).chain(lower(path))))
                }
            })
        };
        (self.any_of.is_empty() || any(&self.any_of)) && !any(&self.none_of)
    }

    /// The texts of which it must be one; `None` where a pattern can match others.
    pub(crate) fn exactly(&self) -> Option<impl Iterator<Item = &str>> {
        let all_exact =
            !self.any_of.is_empty() && self.any_of.iter().all(|pattern| matches!(pattern, Pattern::Exact(_)));
        all_exact.then(|| {
            self.any_of.iter().filter_map(|pattern| match pattern {
                Pattern::Exact(text) => Some(text.as_ref()),
                Pattern::Glob(_) => None,
            })
        })
    }
}

/// One text as a condition writes it, for what is no part of a [`Subject`](super::Subject): `*` for any text, a
/// leading `!` for the opposite, letters in either case.
///
/// ```
/// use farcall::matcher::Text;
/// assert!(Text::new("lib*").matches("Library") && !Text::new("!kernel").matches("kernel"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text(Test);

impl Text {
    /// Reads a text; space around it does not count.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let text = text.trim();
        Self(match text.strip_prefix('!') {
            Some(not) => Test::new(&[""; 0], &[not.trim()]),
            None => Test::new(&[text], &[""; 0]),
        })
    }

    /// Whether a text is meant.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        self.0.one(text)
    }
}

fn patterns(texts: &[impl AsRef<str>]) -> Box<[Pattern]> {
    let mut patterns: Vec<Pattern> = texts.iter().map(|text| Pattern::new(text.as_ref())).collect();
    patterns.sort();
    patterns.dedup();
    patterns.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn matches(pattern: &str, text: &str) -> bool {
        Pattern::new(pattern).matches(text)
    }

    #[test]
    fn stars_stand_for_any_text() {
        assert!(matches("Stripe", "stripe") && !matches("strip", "stripe"));
        assert!(matches("s*p*", "stripe") && !matches("s*x*", "stripe") && matches("*", ""));
        assert!(!matches("a*a", "a"), "the parts do not overlap");
        assert!(matches("a**b", "a-b") && matches("**", "x") && Pattern::new("**").is_any());
    }

    #[test]
    fn placeholders_have_no_names() {
        let both = |text: &str| (unnamed(text).collect::<String>(), unnamed_pattern(text));
        for (text, without) in [
            ("GET /a/{id}/b/{rest*}", "GET /a/{}/b/{}"),
            ("POST /m/{model}:copy", "POST /m/{}:copy"),
            ("GET /a", "GET /a"),
        ] {
            assert_eq!(both(text), (without.to_owned(), without.to_owned()));
        }
        assert_eq!(unnamed_pattern("GET /a/{cus*"), "GET /a/{*");
        assert_eq!(unnamed_pattern("GET /a/{cus*/b/{id}"), "GET /a/{*/b/{}");
    }

    #[test]
    fn letters_beyond_ascii_have_cases_too() {
        assert!(matches("ÉCOLE", "école") && matches("*CO*É", "éCoLÉ") && !matches("é*x", "école"));
        assert!(matches("k", "\u{212a}"), "the Kelvin sign is a k");
        assert!(same("Émile", "éMILE") && !same("a", "é"));
    }

    #[test]
    fn cover_and_exclusion_are_told_where_they_are_certain() {
        let covers = |a, b| Pattern::new(a).covers(&Pattern::new(b));
        assert!(covers("GET *", "GET /v1/*") && covers("*", "a*b") && covers("a*c", "a*b*c"));
        assert!(!covers("GET /v1/*", "GET *") && !covers("a*b", "a*") && covers("x", "X"));
        let excludes = |a, b| Pattern::new(a).excludes(&Pattern::new(b));
        assert!(excludes("GET *", "POST *") && excludes("*a", "*b") && excludes("a", "b*"));
        assert!(!excludes("a*", "ab*") && !excludes("a*", "*b"));
    }

    /// The report's filters said it this way before: the meaning, word for word.
    fn plainly(pattern: &str, text: &str) -> bool {
        let text = fold(text);
        let folded = fold(pattern);
        let parts: Vec<&str> = folded.split('*').collect();
        let [first, middle @ .., last] = parts.as_slice() else { return parts[0] == text };
        let Some(mut rest) = text.strip_prefix(first) else { return false };
        for part in middle {
            match rest.find(part) {
                Some(place) => rest = &rest[place + part.len()..],
                None => return false,
            }
        }
        rest.ends_with(last)
    }

    proptest! {
        #[test]
        fn it_means_what_the_plain_form_means(pattern in "[aAbéÉ*]{0,6}", text in "[aAbBéÉK]{0,8}") {
            prop_assert_eq!(matches(&pattern, &text), plainly(&pattern, &text));
        }

        #[test]
        fn what_is_covered_is_matched(a in "[ab*]{1,5}", b in "[ab*]{1,5}", text in "[ab]{0,6}") {
            let (a, b) = (Pattern::new(&a), Pattern::new(&b));
            if a.covers(&b) && b.matches(&text) {
                prop_assert!(a.matches(&text));
            }
            if a.excludes(&b) {
                prop_assert!(!(a.matches(&text) && b.matches(&text)));
            }
        }
    }
}
