//! Header compression (RFC 7541), as far as it names a call: every field is decoded, few are kept.

use std::collections::VecDeque;

use super::{
    super::stated::{self, Place},
    huffman,
};

/// A field that matters to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Name {
    Method,
    Path,
    Authority,
    Status,
    Host,
    /// What an answer says of the vendor's quotas.
    Stated(Place),
    /// Any other; only its length counts, for the size of the table.
    Other(usize),
}

/// Most fields of a block that matter; a message has few of those.
const MAX_FIELDS: usize = 64;

/// A decoded field. The value is empty unless the name matters: secrets do not stay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Field {
    pub(super) name: Name,
    pub(super) value: String,
}

/// The block breaks the rules of compression, or our bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// The table of RFC 7541 appendix A.
const STATIC: [(&str, &str); 61] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
];

/// Size of the dynamic table unless the peer says otherwise, and the largest that we follow.
const DEFAULT_SIZE: usize = 4_096;
const MAX_SIZE: usize = 64 * 1024;
/// Octets that every entry counts on top of its own (RFC 7541 section 4.1).
const OVERHEAD: usize = 32;

/// The decoder of one direction.
#[derive(Debug)]
pub(super) struct Decoder {
    /// Newest first, each with its size.
    entries: VecDeque<(Field, usize)>,
    size: usize,
    limit: usize,
}

impl Default for Decoder {
    fn default() -> Self {
        Self { entries: VecDeque::new(), size: 0, limit: DEFAULT_SIZE }
    }
}

impl Decoder {
    /// Decodes a whole header block.
    pub(super) fn decode(&mut self, block: &[u8]) -> Result<Vec<Field>, Malformed> {
        let mut rest = block;
        let mut fields = Vec::new();
        while let Some(&first) = rest.first() {
            if first & 0x80 != 0 {
                let index = integer(&mut rest, 7)?;
                fields.push(self.field(index)?);
            } else if first & 0xe0 == 0x20 {
                let limit = integer(&mut rest, 5)?;
                if limit > MAX_SIZE {
                    return Err(Malformed);
                }
                self.limit = limit;
                self.evict();
            } else {
                let indexed = first & 0x40 != 0;
                let index = integer(&mut rest, if indexed { 6 } else { 4 })?;
                let name = match index {
                    0 => Name::of(&string(&mut rest)?),
                    index => self.field(index)?.name,
                };
                let value = string(&mut rest)?;
                let size = name.len() + value.len() + OVERHEAD;
                let value = match name {
                    Name::Other(_) => String::new(),
                    Name::Stated(_) => stated::value(&value).to_owned(),
                    _ => String::from_utf8(value).map_err(|_| Malformed)?,
                };
                let field = Field { name, value };
                if indexed {
                    self.insert(field.clone(), size);
                }
                fields.push(field);
            }
            // Only fields that matter are worth their memory.
            fields.retain(|field| !matches!(field.name, Name::Other(_)));
            if fields.len() > MAX_FIELDS {
                return Err(Malformed);
            }
        }
        Ok(fields)
    }

    fn field(&self, index: usize) -> Result<Field, Malformed> {
        let index = index.checked_sub(1).ok_or(Malformed)?;
        if let Some((name, value)) = STATIC.get(index) {
            let name = Name::of(name.as_bytes());
            let value = if matches!(name, Name::Other(_)) { "" } else { value };
            return Ok(Field { name, value: value.to_owned() });
        }
        self.entries.get(index - STATIC.len()).map(|(field, _)| field.clone()).ok_or(Malformed)
    }

    fn insert(&mut self, field: Field, size: usize) {
        self.entries.push_front((field, size));
        self.size += size;
        self.evict();
    }

    fn evict(&mut self) {
        while self.size > self.limit {
            let Some((_, size)) = self.entries.pop_back() else { break };
            self.size -= size;
        }
    }
}

impl Name {
    fn of(name: &[u8]) -> Self {
        match name {
            b":method" => Self::Method,
            b":path" => Self::Path,
            b":authority" => Self::Authority,
            b":status" => Self::Status,
            b"host" => Self::Host,
            other => Place::of(other).map_or(Self::Other(other.len()), Self::Stated),
        }
    }

    fn len(self) -> usize {
        match self {
            Self::Method | Self::Status => 7,
            Self::Path => 5,
            Self::Authority => 10,
            Self::Host => 4,
            Self::Stated(place) => place.name().len(),
            Self::Other(len) => len,
        }
    }
}

/// An integer with a prefix of so many bits (RFC 7541 section 5.1), below 2^28.
fn integer(rest: &mut &[u8], prefix: u32) -> Result<usize, Malformed> {
    let mask = (1usize << prefix) - 1;
    let (&first, tail) = rest.split_first().ok_or(Malformed)?;
    *rest = tail;
    let mut value = usize::from(first) & mask;
    if value < mask {
        return Ok(value);
    }
    for shift in [0, 7, 14, 21] {
        let (&byte, tail) = rest.split_first().ok_or(Malformed)?;
        *rest = tail;
        value += usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Malformed)
}

/// A string literal (RFC 7541 section 5.2).
fn string(rest: &mut &[u8]) -> Result<Vec<u8>, Malformed> {
    let is_huffman = rest.first().ok_or(Malformed)? & 0x80 != 0;
    let len = integer(rest, 7)?;
    let (bytes, tail) = rest.split_at_checked(len).ok_or(Malformed)?;
    *rest = tail;
    if is_huffman { huffman::decode(bytes).ok_or(Malformed) } else { Ok(bytes.to_vec()) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn field(name: Name, value: &str) -> Field {
        Field { name, value: value.into() }
    }

    #[test]
    fn requests_of_the_specification_decode_with_a_growing_table() {
        // RFC 7541, appendix C.4.
        let mut decoder = Decoder::default();
        let common = |extra: &[Field]| {
            let mut fields = vec![
                field(Name::Method, "GET"),
                field(Name::Path, "/"),
                field(Name::Authority, "www.example.com"),
            ];
            fields.splice(1..1, extra.iter().cloned());
            fields
        };
        let first = b"\x82\x86\x84\x41\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff";
        assert_eq!(decoder.decode(first).unwrap(), common(&[]));
        assert_eq!(decoder.size, 57);
        let second = b"\x82\x86\x84\xbe\x58\x86\xa8\xeb\x10\x64\x9c\xbf";
        assert_eq!(decoder.decode(second).unwrap(), common(&[]));
        assert_eq!(decoder.size, 110);
        let third = b"\x82\x87\x85\xbf\x40\x88\x25\xa8\x49\xe9\x5b\xa9\x7d\x7f\x89\x25\xa8\x49\xe9\x5b\xb8\xe8\xb4\xbf";
        let fields = decoder.decode(third).unwrap();
        assert_eq!(fields[1], field(Name::Path, "/index.html"));
        assert_eq!(fields[2], field(Name::Authority, "www.example.com"));
        assert_eq!(decoder.size, 164);
    }

    #[test]
    fn responses_of_the_specification_decode_with_eviction() {
        // RFC 7541, appendix C.5: a table of 256 octets.
        let mut decoder = Decoder { limit: 256, ..Decoder::default() };
        let first =
            b"\x48\x03302\x58\x07private\x61\x1dMon, 21 Oct 2013 20:13:21 GMT\x6e\x17https://www.example.com";
        // By the date vendors tell their clock.
        let date = field(Name::of(b"date"), "Mon, 21 Oct 2013 20:13:21 GMT");
        assert_eq!(decoder.decode(first).unwrap(), [field(Name::Status, "302"), date.clone()]);
        assert_eq!(decoder.size, 222);
        assert_eq!(decoder.decode(b"\x48\x03307\xc1\xc0\xbf").unwrap(), [field(Name::Status, "307"), date]);
        assert_eq!(decoder.size, 222);
    }

    #[test]
    fn values_of_other_fields_are_not_kept() {
        let mut decoder = Decoder::default();
        decoder.decode(b"\x57\x06secret").unwrap();
        assert_eq!(decoder.entries[0].0, field(Name::Other(13), ""));
        assert_eq!(decoder.size, 13 + 6 + 32);
    }

    #[test]
    fn unknown_indices_and_boundless_tables_are_malformed() {
        for block in [&b"\x80"[..], b"\xbe", b"\xff\xff\xff\xff\xff", b"\x3f\xff\xff\xff\x00", b"\x41\x05abc"]
        {
            assert_eq!(Decoder::default().decode(block), Err(Malformed), "{block:?}");
        }
    }
}
