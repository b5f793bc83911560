//! DNS responses (RFC 1035): which name a process asked for, and which addresses it was given.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The addresses that one response gave for one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The name that was asked for, in lower case, without the final dot.
    pub name: String,
    /// Addresses of the A and AAAA records, at most [`MAX_ADDRESSES`]. Aliases (CNAME) are followed by the server, so
    /// the records belong to the name that was asked for.
    pub addresses: Vec<IpAddr>,
}

/// Addresses kept of one response.
pub const MAX_ADDRESSES: usize = 64;

const TYPE_A: u16 = 1;
const TYPE_AAAA: u16 = 28;
const CLASS_IN: u16 = 1;

/// Reads a response to one question for an address. `None` for queries, errors, other questions and anything
/// malformed before the first address; a response cut short keeps the addresses before the cut.
#[must_use]
pub fn parse_response(message: &[u8]) -> Option<Answer> {
    let flags = u16_at(message, 2)?;
    let (is_response, is_query_opcode, code) = (flags & 0x8000 != 0, flags & 0x7800 == 0, flags & 0xf);
    if !is_response || !is_query_opcode || code != 0 || u16_at(message, 4)? != 1 {
        return None;
    }
    let (name, mut at) = question_name(message)?;
    let asked = u16_at(message, at)?;
    if (asked != TYPE_A && asked != TYPE_AAAA) || u16_at(message, at + 2)? != CLASS_IN {
        return None;
    }
    at += 4;
    let mut addresses = Vec::new();
    for _ in 0..u16_at(message, 6)? {
        let Some((address, next)) = address_record(message, at) else { break };
        at = next;
        if let Some(address) = address {
            addresses.push(address);
            if addresses.len() == MAX_ADDRESSES {
                break;
            }
        }
    }
    if addresses.is_empty() { None } else { Some(Answer { name, addresses }) }
}

fn u16_at(message: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(message.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

/// The name of the first question, which cannot be compressed, and the offset behind it.
fn question_name(message: &[u8]) -> Option<(String, usize)> {
    let mut name = String::new();
    let mut at = 12;
    loop {
        let len = usize::from(*message.get(at)?);
        at += 1;
        if len == 0 {
            break;
        }
        let label = message.get(at..at + len).filter(|_| len < 64)?;
        if !label.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')) {
            return None;
        }
        if !name.is_empty() {
            name.push('.');
        }
        name.extend(label.iter().map(|byte| byte.to_ascii_lowercase() as char));
        if name.len() > 253 {
            return None;
        }
        at += len;
    }
    if name.is_empty() { None } else { Some((name, at)) }
}

/// The address of the record at `at`, if it has one, and the offset of the next record.
fn address_record(message: &[u8], at: usize) -> Option<(Option<IpAddr>, usize)> {
    let at = skip_name(message, at)?;
    let (kind, class) = (u16_at(message, at)?, u16_at(message, at + 2)?);
    let len = usize::from(u16_at(message, at + 8)?);
    let data = message.get(at + 10..at + 10 + len)?;
    let address = match (kind, class) {
        (TYPE_A, CLASS_IN) => <[u8; 4]>::try_from(data).ok().map(|octets| Ipv4Addr::from(octets).into()),
        (TYPE_AAAA, CLASS_IN) => <[u8; 16]>::try_from(data).ok().map(|octets| Ipv6Addr::from(octets).into()),
        _ => None,
    };
    Some((address, at + 10 + len))
}

/// The offset behind a name, whose end is a root label or a pointer; pointers are not followed.
fn skip_name(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        let len = *message.get(at)?;
        match len {
            0 => return Some(at + 1),
            0xc0.. => return Some(at + 2),
            1..=63 => at += 1 + usize::from(len),
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn response(answers: &[&[u8]]) -> Vec<u8> {
        let mut message = vec![0x12, 0x34, 0x81, 0x80, 0, 1, 0, answers.len() as u8, 0, 0, 0, 0];
        message.extend(b"\x03API\x06stripe\x03com\x00\x00\x01\x00\x01");
        for answer in answers {
            message.extend(*answer);
        }
        message
    }

    const ALIAS: &[u8] = b"\xc0\x0c\x00\x05\x00\x01\x00\x00\x00\x3c\x00\x05\x02lb\xc0\x10";
    const A: &[u8] = b"\xc0\x2c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\x0a\x01\x02\x03";
    const AAAA: &[u8] =
        b"\xc0\x2c\x00\x1c\x00\x01\x00\x00\x00\x3c\x00\x10\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01";

    #[test]
    fn addresses_behind_an_alias_belong_to_the_name_that_was_asked_for() {
        let answer = parse_response(&response(&[ALIAS, A, AAAA])).unwrap();
        assert_eq!(answer.name, "api.stripe.com");
        assert_eq!(answer.addresses, ["10.1.2.3".parse::<IpAddr>().unwrap(), "2001:db8::1".parse().unwrap()]);
    }

    #[test]
    fn a_cut_response_keeps_what_came_before_the_cut() {
        let mut message = response(&[A, AAAA]);
        message.truncate(message.len() - 3);
        assert_eq!(parse_response(&message).unwrap().addresses.len(), 1);
    }

    #[test]
    fn queries_errors_and_empty_answers_are_none() {
        let mut query = response(&[A]);
        query[2] = 0x01;
        assert_eq!(parse_response(&query), None);
        let mut missing = response(&[]);
        missing[3] = 0x83;
        assert_eq!(parse_response(&missing), None);
        assert_eq!(parse_response(&response(&[])), None);
    }

    #[test]
    fn addresses_are_bounded() {
        let answers = vec![A; 200];
        assert_eq!(parse_response(&response(&answers)).unwrap().addresses.len(), MAX_ADDRESSES);
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(message in proptest::collection::vec(any::<u8>(), 0..512)) {
            let _ = parse_response(&message);
        }

        #[test]
        fn any_corruption_is_survived(at in 0usize..60, byte: u8) {
            let mut message = response(&[ALIAS, A, AAAA]);
            message[at] = byte;
            let _ = parse_response(&message);
        }
    }
}
