//! The part of Structured Field Values (RFC 9651) that `RateLimit` and `RateLimit-Policy` use: a list of items
//! with parameters (section 3.1). A field that does not parse is ignored as a whole (section 4.2).

use super::value::Ignored;

/// An item of the list: its name, and its parameters as they stand.
#[derive(Clone, Copy, Debug)]
pub(super) struct Item<'a> {
    /// The string or token, without quotes.
    pub(super) name: &'a [u8],
    params: &'a [u8],
}

/// A bare item: the kinds of section 3.3, as far as they matter here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bare<'a> {
    Text(&'a [u8]),
    Integer(u64),
    /// Negative numbers, decimals, byte sequences, booleans, dates: valid, and nothing that we ask for.
    Other,
}

/// The items of a field, all of them checked before the first is given.
pub(super) fn items(field: &[u8]) -> Result<Items<'_>, Ignored> {
    let mut rest = skip_space(field);
    if rest.is_empty() {
        return Err(Ignored);
    }
    loop {
        let (_, after) = item(rest)?;
        rest = skip_space(after);
        match rest.split_first() {
            None => return Ok(Items { rest: field }),
            Some((b',', after)) => rest = skip_space(after),
            Some(_) => return Err(Ignored),
        }
    }
}

/// See [`items`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Items<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Items<'a> {
    type Item = Item<'a>;

    fn next(&mut self) -> Option<Item<'a>> {
        let rest = skip_space(self.rest);
        let rest = skip_space(rest.strip_prefix(b",").unwrap_or(rest));
        let (item, rest) = item(rest).ok()?;
        self.rest = rest;
        Some(item)
    }
}

impl<'a> Item<'a> {
    /// A parameter that is a number of at least 0; `Ignored` where it is there and is something else.
    pub(super) fn integer(&self, key: &[u8]) -> Result<Option<u64>, Ignored> {
        match self.param(key) {
            None => Ok(None),
            Some(Bare::Integer(number)) => Ok(Some(number)),
            Some(_) => Err(Ignored),
        }
    }

    /// A parameter that is a string or a token.
    pub(super) fn text(&self, key: &[u8]) -> Option<&'a [u8]> {
        match self.param(key) {
            Some(Bare::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// Whether another item says something else of the same policy, and neither says of which part of the calls.
    pub(super) fn contradicts(&self, other: &Self) -> bool {
        let of_all = |item: &Self| item.param(b"pk").is_none();
        self.name == other.name && self.params != other.params && of_all(self) && of_all(other)
    }

    /// The last of equal keys counts (section 4.2.3.2).
    fn param(&self, key: &[u8]) -> Option<Bare<'a>> {
        let mut rest = self.params;
        let mut found = None;
        while let Ok(Some((known, value, after))) = param(rest) {
            if known == key {
                found = Some(value);
            }
            rest = after;
        }
        found
    }
}

fn item(bytes: &[u8]) -> Result<(Item<'_>, &[u8]), Ignored> {
    let (name, after) = bare(bytes)?;
    let Bare::Text(name) = name else { return Err(Ignored) };
    let mut rest = after;
    while let Some((_, _, after)) = param(rest)? {
        rest = after;
    }
    Ok((Item { name, params: &after[..after.len() - rest.len()] }, rest))
}

type Param<'a> = (&'a [u8], Bare<'a>, &'a [u8]);

/// `;key=value` or `;key`, which means true; `None` where no parameter follows.
fn param(bytes: &[u8]) -> Result<Option<Param<'_>>, Ignored> {
    let Some(rest) = skip_space(bytes).strip_prefix(b";") else { return Ok(None) };
    let rest = skip_space(rest);
    if !rest.first().is_some_and(|byte| byte.is_ascii_lowercase() || *byte == b'*') {
        return Err(Ignored);
    }
    let is_key = |byte: &u8| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'-' | b'.' | b'*')
    };
    let (key, rest) = rest.split_at(rest.iter().take_while(|byte| is_key(byte)).count());
    match rest.strip_prefix(b"=") {
        None => Ok(Some((key, Bare::Other, rest))),
        Some(rest) => bare(rest).map(|(value, rest)| Some((key, value, rest))),
    }
}

fn bare(bytes: &[u8]) -> Result<(Bare<'_>, &[u8]), Ignored> {
    let (first, rest) = bytes.split_first().ok_or(Ignored)?;
    match first {
        b'"' => {
            let mut escaped = false;
            for (place, byte) in rest.iter().enumerate() {
                match byte {
                    b'"' if !escaped => return Ok((Bare::Text(&rest[..place]), &rest[place + 1..])),
                    b'\\' if !escaped => escaped = true,
                    b' '..=b'~' => escaped = false,
                    _ => break,
                }
            }
            Err(Ignored)
        }
        b'a'..=b'z' | b'A'..=b'Z' | b'*' => {
            let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:/".contains(byte);
            let (token, rest) = bytes.split_at(bytes.iter().take_while(|byte| is_token(byte)).count());
            Ok((Bare::Text(token), rest))
        }
        b'0'..=b'9' => {
            let (digits, rest) =
                bytes.split_at(bytes.iter().take_while(|byte| byte.is_ascii_digit()).count());
            if digits.len() > 15 {
                return Err(Ignored);
            }
            match rest.strip_prefix(b".") {
                Some(rest) => {
                    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
                    if (1..=3).contains(&digits) { Ok((Bare::Other, &rest[digits..])) } else { Err(Ignored) }
                }
                None => {
                    let number = digits.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0'));
                    Ok((Bare::Integer(number), rest))
                }
            }
        }
        b'-' | b'@' => {
            let rest = if *first == b'@' { rest.strip_prefix(b"-").unwrap_or(rest) } else { rest };
            match rest.first() {
                Some(b'0'..=b'9') => bare(rest).map(|(_, rest)| (Bare::Other, rest)),
                _ => Err(Ignored),
            }
        }
        b':' => match rest.iter().position(|byte| *byte == b':') {
            Some(end) if rest[..end].iter().all(|b| b.is_ascii_alphanumeric() || b"+/=".contains(b)) => {
                Ok((Bare::Other, &rest[end + 1..]))
            }
            _ => Err(Ignored),
        },
        b'?' => match rest.split_first() {
            Some((b'0' | b'1', rest)) => Ok((Bare::Other, rest)),
            _ => Err(Ignored),
        },
        _ => Err(Ignored),
    }
}

fn skip_space(bytes: &[u8]) -> &[u8] {
    &bytes[bytes.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count()..]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_examples_of_the_draft_are_read() {
        let policy =
            items(br#""burst";q=100;w=60, "daily";q=1000;qu="content-bytes";w=86400;pk=:c2lt:"#).unwrap();
        let all: Vec<_> =
            policy.map(|item| (item.name, item.integer(b"q").unwrap(), item.text(b"qu"))).collect();
        assert_eq!(
            all,
            [
                (b"burst".as_slice(), Some(100), None),
                (b"daily".as_slice(), Some(1000), Some(b"content-bytes".as_slice()))
            ]
        );
        let mut limit = items(br#" "default" ; r=50;t=30 "#).unwrap();
        let item = limit.next().unwrap();
        assert_eq!(
            (item.integer(b"r"), item.integer(b"t"), item.integer(b"x")),
            (Ok(Some(50)), Ok(Some(30)), Ok(None))
        );
        assert!(limit.next().is_none());
        assert_eq!(items(b"a;r=-5").unwrap().next().unwrap().integer(b"r"), Err(Ignored));
        assert_eq!(
            items(b"a;r=1;r=2").unwrap().next().unwrap().integer(b"r"),
            Ok(Some(2)),
            "the last one counts"
        );
    }

    #[test]
    fn what_does_not_parse_is_ignored_as_a_whole() {
        for field in [
            "",
            ",",
            r#""a";r=1,"#,
            r#""a";r=1 "b";r=2"#,
            r#""unclosed;r=1"#,
            r#""a";R=1"#,
            r#""a";r="#,
            r#""a";=1"#,
            r#""a";r=1.2345"#,
            r#""a";r=9999999999999999"#,
            r#""fixed window";"api";q=500"#,
            "100;w=60",
            "\"a\u{7f}\"",
        ] {
            assert!(items(field.as_bytes()).is_err(), "{field}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_and_what_was_checked_is_given(bytes in proptest::collection::vec(prop_oneof![any::<u8>(), proptest::sample::select(b"\"a;r=1,:?@-. ".to_vec())], 0..60)) {
            if let Ok(list) = items(&bytes) {
                prop_assert!(list.count() >= 1);
                for item in list { let _ = (item.integer(b"r"), item.text(b"a")); }
            }
        }
    }
}
