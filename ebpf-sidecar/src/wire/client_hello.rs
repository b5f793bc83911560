//! The client's first TLS message (RFC 8446 section 4.1.2): the server name and the protocols it offers.

/// What a ClientHello tells. Fields are empty where the client did not say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientHello {
    /// Server name indication (RFC 6066 section 3), in lower case. Under Encrypted Client Hello it is the
    /// provider's public name.
    pub server_name: Option<String>,
    /// Application protocols in the client's order (RFC 7301), at most [`MAX_PROTOCOLS`].
    pub protocols: Vec<String>,
    /// Whether the client sent an Encrypted Client Hello (RFC 9849), real or as grease.
    pub encrypted: bool,
}

/// Application protocols kept of one message.
pub const MAX_PROTOCOLS: usize = 16;

/// Bytes of a connection that are looked at. A longer ClientHello is [`Hello::Unreadable`].
pub const MAX_BYTES: usize = 16 * 1024 + 5;

/// The state of reading.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hello {
    /// The message goes on behind these bytes.
    Partial,
    /// The message.
    Read(ClientHello),
    /// Not a ClientHello, or a broken one.
    Unreadable,
}

/// Reads the ClientHello at the beginning of what a client sent. It may be spread over several records and segments:
/// ask again with all bytes so far after [`Hello::Partial`].
#[must_use]
pub fn parse(stream: &[u8]) -> Hello {
    let mut message = Vec::new();
    let mut rest = stream;
    loop {
        // Before the body is complete only two things can be wrong: the record is no handshake, or it is too long.
        let wanted = match message.get(1..4) {
            Some(len) => {
                if message[0] != 1 {
                    return Hello::Unreadable;
                }
                4 + (usize::from(len[0]) << 16 | usize::from(len[1]) << 8 | usize::from(len[2]))
            }
            None => 4,
        };
        if wanted > MAX_BYTES {
            return Hello::Unreadable;
        }
        if wanted > 4 && message.len() >= wanted {
            return body(&message[4..wanted]).map_or(Hello::Unreadable, Hello::Read);
        }
        match rest {
            [0x16, 3, _, high, low, tail @ ..] => {
                let len = usize::from(*high) << 8 | usize::from(*low);
                if len == 0 || len > 16 * 1024 {
                    return Hello::Unreadable;
                }
                let part = &tail[..len.min(tail.len())];
                message.extend_from_slice(part);
                rest = &tail[part.len()..];
            }
            [0x16, 3, ..] | [0x16] | [] if rest.len() < 5 => return Hello::Partial,
            _ => return Hello::Unreadable,
        }
    }
}

/// A cursor over length-prefixed fields.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }
    fn u8(&mut self) -> Option<usize> {
        self.take(1).map(|byte| usize::from(byte[0]))
    }
    fn u16(&mut self) -> Option<usize> {
        self.take(2).map(|bytes| usize::from(bytes[0]) << 8 | usize::from(bytes[1]))
    }
}

fn body(message: &[u8]) -> Option<ClientHello> {
    let mut reader = Reader(message);
    reader.take(2 + 32)?; // version, random
    let session = reader.u8()?;
    reader.take(session)?;
    let suites = reader.u16()?;
    reader.take(suites)?;
    let compression = reader.u8()?;
    reader.take(compression)?;
    let mut hello = ClientHello::default();
    if reader.0.is_empty() {
        return Some(hello); // no extensions: allowed before TLS 1.3
    }
    let len = reader.u16()?;
    let mut extensions = Reader(reader.take(len)?);
    while !extensions.0.is_empty() {
        let kind = extensions.u16()?;
        let len = extensions.u16()?;
        let data = extensions.take(len)?;
        match kind {
            0 => hello.server_name = server_name(data),
            16 => hello.protocols = protocols(data)?,
            0xfe0d => hello.encrypted = true,
            _ => {}
        }
    }
    Some(hello)
}

/// The first host name of the list. A name that is no host name is dropped: it must not reach a ledger or a terminal.
fn server_name(data: &[u8]) -> Option<String> {
    let mut reader = Reader(data);
    let len = reader.u16()?;
    let mut names = Reader(reader.take(len)?);
    while !names.0.is_empty() {
        let kind = names.u8()?;
        let len = names.u16()?;
        let name = names.take(len)?;
        if kind == 0 {
            let plausible = !name.is_empty()
                && name.len() <= 253
                && name.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'));
            return plausible.then(|| String::from_utf8_lossy(name).to_ascii_lowercase());
        }
    }
    None
}

fn protocols(data: &[u8]) -> Option<Vec<String>> {
    let mut reader = Reader(data);
    let len = reader.u16()?;
    let mut list = Reader(reader.take(len)?);
    let mut protocols = Vec::new();
    while !list.0.is_empty() && protocols.len() < MAX_PROTOCOLS {
        let len = list.u8()?;
        protocols.push(String::from_utf8_lossy(list.take(len)?).into_owned());
    }
    Some(protocols)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn extension(kind: u16, data: &[u8]) -> Vec<u8> {
        [&kind.to_be_bytes()[..], &(data.len() as u16).to_be_bytes(), data].concat()
    }

    fn handshake() -> Vec<u8> {
        let name = b"API.OpenAI.com";
        let sni = [&[0, (name.len() + 3) as u8, 0, 0, name.len() as u8][..], name].concat();
        let extensions = [
            extension(0x0a0a, &[]),
            extension(0, &sni),
            extension(16, b"\x00\x0c\x02h2\x08http/1.1"),
            extension(0xfe0d, &[1, 2, 3]),
        ]
        .concat();
        let body = [
            &[3, 3][..],
            &[7; 32],
            &[2, 9, 9],
            &[0, 2, 0x13, 1],
            &[1, 0],
            &(extensions.len() as u16).to_be_bytes(),
            &extensions,
        ]
        .concat();
        [&[1, 0, (body.len() >> 8) as u8, body.len() as u8][..], &body].concat()
    }

    fn records(message: &[u8], size: usize) -> Vec<u8> {
        message
            .chunks(size)
            .flat_map(|part| [&[0x16, 3, 1][..], &(part.len() as u16).to_be_bytes(), part].concat())
            .collect()
    }

    fn expected() -> Hello {
        Hello::Read(ClientHello {
            server_name: Some("api.openai.com".into()),
            protocols: vec!["h2".into(), "http/1.1".into()],
            encrypted: true,
        })
    }

    #[test]
    fn name_and_protocols_are_read() {
        assert_eq!(parse(&records(&handshake(), 16384)), expected());
    }

    #[test]
    fn every_prefix_is_partial_and_later_bytes_do_not_matter() {
        let stream = records(&handshake(), 16384);
        for end in 0..stream.len() {
            assert_eq!(parse(&stream[..end]), Hello::Partial, "at {end}");
        }
        assert_eq!(parse(&[stream, vec![0x14, 3, 3, 0, 1, 1]].concat()), expected());
    }

    #[test]
    fn a_message_spread_over_records_is_joined() {
        for size in 1..20 {
            assert_eq!(parse(&records(&handshake(), size)), expected(), "records of {size}");
        }
    }

    #[test]
    fn other_protocols_and_oversized_messages_are_unreadable() {
        assert_eq!(parse(b"GET / HTTP/1.1\r\n"), Hello::Unreadable);
        assert_eq!(parse(&[0x16, 3, 1, 0, 4, 2, 0, 0, 0]), Hello::Unreadable);
        assert_eq!(parse(&[0x16, 3, 1, 0, 4, 1, 0xff, 0xff, 0xff]), Hello::Unreadable);
        assert_eq!(parse(&[0x16, 3, 1, 0, 0]), Hello::Unreadable);
    }

    #[test]
    fn a_name_with_control_characters_is_dropped() {
        let sni = [&[0, 6, 0, 0, 3][..], b"a\x1bb"].concat();
        assert_eq!(server_name(&sni), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(stream in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = parse(&stream);
        }

        #[test]
        fn any_corruption_is_survived(at in 0usize..120, byte: u8) {
            let mut stream = records(&handshake(), 64);
            let at = at % stream.len();
            stream[at] = byte;
            let _ = parse(&stream);
        }
    }
}
