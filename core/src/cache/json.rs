//! Chosen fields of a JSON body (RFC 8259), as they tell calls apart: values as they are written, but for white space
//! between their parts.
//!
//! What is not understood, or can be understood in two ways, is not cut down to fields: such as a name that comes
//! twice, of which a vendor may take either, or one with escapes, of which there are many spellings. Then the whole body
//! tells calls apart, which may cost a hit.

use super::key::Keyed;

/// Longer bodies tell calls apart as a whole.
const LONGEST: usize = 256 * 1024;
/// Nor are those looked into that are nested deeper.
const DEEPEST: usize = 64;

/// Writes the fields of a body at these paths (names, with dots between them); `false`, and nothing of use, where it is
/// to count as a whole.
pub(super) fn write(key: &mut Keyed, body: &[u8], paths: &[String]) -> bool {
    body.len() <= LONGEST && paths.iter().all(|path| write_one(key, body, path).is_some())
}

fn write_one(key: &mut Keyed, body: &[u8], path: &str) -> Option<()> {
    key.part(path.as_bytes());
    let mut value = whole(body)?;
    for name in path.split('.') {
        match member(value, name.as_bytes())? {
            Some(inner) => value = inner,
            None => {
                key.number(0);
                return Some(());
            }
        }
    }
    key.number(1);
    write_value(key, value);
    Some(())
}

/// The body's one value, where it is nothing else.
fn whole(body: &[u8]) -> Option<&[u8]> {
    let mut from = Scanner { bytes: body, at: 0 };
    let value = from.value(0)?;
    from.space();
    (from.at == body.len()).then_some(value)
}

/// The member of this name, if an object has one; `None` where that is not for sure.
fn member<'a>(object: &'a [u8], name: &[u8]) -> Option<Option<&'a [u8]>> {
    let mut from = Scanner { bytes: object, at: 0 };
    if !from.eat(b'{') {
        return Some(None);
    }
    let mut found = None;
    let mut more = !from.eat(b'}');
    while more {
        let known = from.string()?;
        if known.contains(&b'\\') || !from.eat(b':') {
            return None;
        }
        let value = from.value(1)?;
        if known == name && found.replace(value).is_some() {
            return None;
        }
        more = from.eat(b',');
        if !more && !from.eat(b'}') {
            return None;
        }
    }
    Some(found)
}

/// Writes a value that was read before, without the white space between its parts.
fn write_value(key: &mut Keyed, value: &[u8]) {
    let mut pieces = key.pieces();
    let (mut quoted, mut escaped, mut start) = (false, false, 0);
    for (at, byte) in value.iter().enumerate() {
        match *byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => quoted = !quoted,
            b' ' | b'\t' | b'\n' | b'\r' if !quoted => {
                pieces.push(&value[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    pieces.push(&value[start..]);
    pieces.end();
}

struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Scanner<'a> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn eat(&mut self, byte: u8) -> bool {
        self.space();
        let is = self.peek() == Some(byte);
        self.at += usize::from(is);
        is
    }

    /// What stands between quotes.
    fn string(&mut self) -> Option<&'a [u8]> {
        if !self.eat(b'"') {
            return None;
        }
        let start = self.at;
        loop {
            match self.peek()? {
                b'"' => break,
                b'\\' => self.at += 2,
                0..=0x1F => return None,
                _ => self.at += 1,
            }
        }
        self.at += 1;
        self.bytes.get(start..self.at - 1)
    }

    /// A value, whatever it is.
    fn value(&mut self, depth: usize) -> Option<&'a [u8]> {
        self.space();
        let start = self.at;
        match self.peek()? {
            b'"' => drop(self.string()?),
            open @ (b'{' | b'[') if depth < DEEPEST => {
                self.at += 1;
                let close = if open == b'{' { b'}' } else { b']' };
                let mut more = !self.eat(close);
                while more {
                    if open == b'{' {
                        self.string()?;
                        if !self.eat(b':') {
                            return None;
                        }
                    }
                    self.value(depth + 1)?;
                    more = self.eat(b',');
                    if !more && !self.eat(close) {
                        return None;
                    }
                }
            }
            b'-' | b'0'..=b'9' | b'a'..=b'z' => {
                while matches!(self.peek(), Some(b'-' | b'+' | b'.' | b'0'..=b'9' | b'a'..=b'z' | b'E')) {
                    self.at += 1;
                }
                let word = &self.bytes[start..self.at];
                let number = word[0] == b'-' || word[0].is_ascii_digit();
                if !number && !matches!(word, b"true" | b"false" | b"null") {
                    return None;
                }
            }
            _ => return None,
        }
        self.bytes.get(start..self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What stands for a body by these fields; `None` where it counts as a whole.
    fn by(body: &str, paths: &[&str]) -> Option<u128> {
        let paths: Vec<String> = paths.iter().map(|path| (*path).to_owned()).collect();
        let mut key = Keyed::new(&[7; 16]);
        write(&mut key, body.as_bytes(), &paths).then(|| key.key().0)
    }

    #[test]
    fn only_the_fields_that_are_named_tell_bodies_apart() {
        let body = r#"{"model":"m","id":1,"filter":{"region":["eu", "us"],"at":"now"}}"#;
        let same =
            "{\n \"id\" : 2,\t\"filter\":{\"at\":\"later\",\"region\":[\"eu\",\"us\"] },\"model\":\"m\"}";
        let fields = ["model", "filter.region"];
        assert!(by(body, &fields).is_some());
        assert_eq!(by(body, &fields), by(same, &fields));
        for other in [
            r#"{"model":"n","filter":{"region":["eu","us"]}}"#,
            r#"{"model":"m","filter":{"region":["us","eu"]}}"#,
            r#"{"model":"m","filter":{"region":["eu","u s"]}}"#,
            r#"{"model":"m","filter":{"region":"eu,us"}}"#,
            r#"{"model":"m","filter":{}}"#,
            r#"{"model":"m"}"#,
            r#"{"model":null,"filter":{"region":["eu","us"]}}"#,
            r#"["model","m"]"#,
        ] {
            assert!(by(other, &fields).is_some_and(|key| Some(key) != by(body, &fields)), "{other}");
        }
        assert_ne!(
            by(r#"{"a":"1 2"}"#, &["a"]),
            by(r#"{"a":"12"}"#, &["a"]),
            "white space in a string counts"
        );
        assert_ne!(by(r#"{"a":"\" "}"#, &["a"]), by(r#"{"a":"\""}"#, &["a"]));
        assert_ne!(by(r#"{"a":1}"#, &["a"]), by(r#"{"b":1}"#, &["b"]));
    }

    #[test]
    fn what_can_be_read_in_two_ways_counts_as_a_whole() {
        for body in [
            "",
            "model",
            r#"{"model":"m""#,
            r#"{"model":"m"} {}"#,
            r#"{"model":"m","model":"n"}"#,
            r#"{"mod\u0065l":"m"}"#,
            r#"{"model" "m"}"#,
            r#"{"model":"m",}"#,
            r#"{"model":yes}"#,
            "{\"model\":\"a\nb\"}",
            r#"{"model":"m\"#,
        ] {
            assert_eq!(by(body, &["model"]), None, "{body}");
        }
        let deep = format!("{{\"model\":{}1{}}}", "[".repeat(80), "]".repeat(80));
        assert_eq!(by(&deep, &["model"]), None);
        assert_eq!(by(&format!("{{\"model\":\"{}\"}}", "x".repeat(LONGEST)), &["model"]), None);
    }

    proptest! {
        #[test]
        fn no_body_makes_it_panic(body in "[\\[\\]{}:,\"\\\\a-e0-9 .-]{0,80}") {
            let _ = by(&body, &["a", "b.c"]);
        }
    }
}
