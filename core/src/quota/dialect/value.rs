//! Numbers, durations and keys in header values: small parsers that read bytes, allocate nothing and look at
//! no more than [`MAX_VALUE`] bytes.

/// A header value longer than this is not read at all; no vendor sends a tenth of it.
pub(super) const MAX_VALUE: usize = 1_024;

/// A value that was there and was not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ignored;

/// More than this of anything is no limit that a vendor sets.
const ABSURD: u64 = 1_000_000_000_000_000;

pub(super) fn trim(bytes: &[u8]) -> &[u8] {
    bytes.trim_ascii()
}

/// A count: digits, with a fraction that is cut off; what follows a `;` or `(` is not looked at, nor what follows a `,`
/// and has a parameter (draft 03 of the IETF's headers sent `100, 100;w=60`). Of two counts that differ, as a gateway's and
/// a vendor's that were joined into one line (`0, 5`), nobody knows which is meant.
pub(super) fn count(bytes: &[u8]) -> Result<u64, Ignored> {
    let end = bytes.iter().position(|byte| matches!(byte, b',' | b';' | b'(')).unwrap_or(bytes.len());
    let first = decimal(trim(&bytes[..end])).ok_or(Ignored)?;
    let mut others = bytes[end..].split(|byte| *byte == b',').skip(1);
    if first.0 > ABSURD || others.any(|other| decimal(trim(other)).is_some_and(|other| other != first)) {
        return Err(Ignored);
    }
    Ok(first.0)
}

/// A value that stands there several times, joined by commas, once: `40, 40`, or a date with its own comma.
pub(super) fn once(bytes: &[u8]) -> &[u8] {
    let commas = bytes.iter().filter(|byte| **byte == b',').count();
    if commas == 0 {
        return bytes;
    }
    let mut items = bytes.split(|byte| *byte == b',').map(trim);
    let first = items.next().unwrap_or(bytes);
    if items.all(|item| item == first) {
        return first;
    }
    let mut places = bytes.iter().enumerate().filter(|(_, byte)| **byte == b',').map(|(place, _)| place);
    match places.nth(commas / 2) {
        Some(middle) if trim(&bytes[..middle]) == trim(&bytes[middle + 1..]) => trim(&bytes[..middle]),
        _ => bytes,
    }
}

/// The `place`-th of the values that a header lists with commas.
pub(super) fn item(bytes: &[u8], place: usize) -> Option<&[u8]> {
    bytes.split(|byte| *byte == b',').nth(place)
}

/// `12`, `12.5`: the whole number and the fraction in billionths. No sign, no exponent, at most 18 digits.
pub(super) fn decimal(bytes: &[u8]) -> Option<(u64, u32)> {
    let (number, rest) = leading_decimal(bytes)?;
    rest.is_empty().then_some(number)
}

/// The decimal number at the beginning, and what follows it.
fn leading_decimal(bytes: &[u8]) -> Option<((u64, u32), &[u8])> {
    let digits = bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if digits == 0 || digits > 18 {
        return None;
    }
    let whole = bytes[..digits].iter().fold(0_u64, |sum, digit| sum * 10 + u64::from(digit - b'0'));
    let mut rest = &bytes[digits..];
    let mut billionths = 0;
    if let Some(after) = rest.strip_prefix(b".") {
        let digits = after.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if digits == 0 {
            return None;
        }
        let mut weight = 100_000_000;
        for digit in &after[..digits.min(9)] {
            billionths += u32::from(digit - b'0') * weight;
            weight /= 10;
        }
        rest = &after[digits..];
    }
    Some(((whole, billionths), rest))
}

/// Nanoseconds in a length of time that people's programs write: `6m0s`, `7.66s`, `12ms`, `1d2h`. A bare
/// `0` is no time; any other bare number has no unit and is nothing.
pub(super) fn duration(bytes: &[u8]) -> Option<u64> {
    if bytes == b"0" {
        return Some(0);
    }
    let mut rest = bytes;
    let mut total = 0_u64;
    while !rest.is_empty() {
        let ((whole, billionths), after) = leading_decimal(rest)?;
        let letters = after.iter().take_while(|byte| !byte.is_ascii_digit()).count();
        let unit: u64 = match &after[..letters] {
            b"ns" => 1,
            b"us" | b"\xc2\xb5s" | b"\xce\xbcs" => 1_000,
            b"ms" => 1_000_000,
            b"s" => 1_000_000_000,
            b"m" => 60_000_000_000,
            b"h" => 3_600_000_000_000,
            b"d" => 86_400_000_000_000,
            _ => return None,
        };
        let part = whole.checked_mul(unit)?.checked_add(scaled(billionths, unit))?;
        total = total.checked_add(part)?;
        rest = &after[letters..];
    }
    (!bytes.is_empty()).then_some(total)
}

/// Nanoseconds in a decimal number of `unit` nanoseconds.
pub(super) fn nanos((whole, billionths): (u64, u32), unit: u64) -> Option<u64> {
    whole.checked_mul(unit)?.checked_add(scaled(billionths, unit))
}

fn scaled(billionths: u32, unit: u64) -> u64 {
    u64::try_from(u128::from(billionths) * u128::from(unit) / 1_000_000_000).unwrap_or(u64::MAX)
}

/// The value of a key in `total=100; remaining=99`, `a: 1, b: 2` or a JSON object: what follows the first
/// whole occurrence of the key and its `=` or `:`, up to the next separator, without quotes.
pub(super) fn pair<'a>(bytes: &'a [u8], key: &[u8]) -> Option<&'a [u8]> {
    pair_from(bytes, key, 0).map(|(value, _)| value)
}

/// The same; of several values that are not equal, nobody knows which is meant.
pub(super) fn only_pair<'a>(bytes: &'a [u8], key: &[u8]) -> Result<Option<&'a [u8]>, Ignored> {
    let Some((first, mut from)) = pair_from(bytes, key, 0) else { return Ok(None) };
    while let Some((value, next)) = pair_from(bytes, key, from) {
        if value != first {
            return Err(Ignored);
        }
        from = next;
    }
    Ok(Some(first))
}

/// The same from a place in `bytes` on, and the place behind the key.
fn pair_from<'a>(bytes: &'a [u8], key: &[u8], mut from: usize) -> Option<(&'a [u8], usize)> {
    while let Some(found) = find(&bytes[from..], key) {
        let start = from + found;
        from = start + key.len();
        let before = if start == 0 { b' ' } else { bytes[start - 1] };
        if !matches!(before, b' ' | b'\t' | b'\n' | b'\r' | b',' | b';' | b'{' | b'"') {
            continue;
        }
        let after = bytes[from..].strip_prefix(b"\"").unwrap_or(&bytes[from..]).trim_ascii_start();
        let Some(value) = after.strip_prefix(b"=").or_else(|| after.strip_prefix(b":")) else { continue };
        let value = value.trim_ascii_start();
        let (value, quoted) = match value.strip_prefix(b"\"") {
            Some(value) => (value, true),
            None => (value, false),
        };
        let ends = |byte: &u8| match byte {
            b'"' => true,
            b',' | b';' | b'}' | b'(' | b' ' | b'\n' | b'\r' => !quoted,
            _ => false,
        };
        return Some((&value[..value.iter().position(ends).unwrap_or(value.len())], from));
    }
    None
}

/// Where `needle` begins in `bytes`. Both are short here: a bounded prefix, and a word of the catalogue.
pub(super) fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    let first = *needle.first()?;
    let mut from = 0;
    while let Some(place) = bytes[from..].iter().position(|byte| *byte == first) {
        if bytes[from + place..].starts_with(needle) {
            return Some(from + place);
        }
        from += place + 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_what_vendors_mean_and_nothing_else() {
        for (text, expected) in [
            ("100", Ok(100)),
            (" 7 ", Ok(7)),
            ("99.9", Ok(99)),
            ("100, 100;w=60", Ok(100)),
            ("100, 100;w=60, 1000;w=3600", Ok(100)),
            ("20, 20;w=1", Ok(20)),
            ("5, 5", Ok(5)),
            ("0, 5", Err(Ignored)),
            ("5,7, 5;w=1", Err(Ignored)),
            ("17(appName=x)", Ok(17)),
            ("0", Ok(0)),
            ("", Err(Ignored)),
            ("-1", Err(Ignored)),
            ("+1", Err(Ignored)),
            ("NaN", Err(Ignored)),
            ("inf", Err(Ignored)),
            ("1e6", Err(Ignored)),
            ("0x10", Err(Ignored)),
            ("1.", Err(Ignored)),
            ("12 apples", Err(Ignored)),
            ("unlimited", Err(Ignored)),
            ("9999999999999999", Err(Ignored)),
            ("99999999999999999999999999", Err(Ignored)),
        ] {
            assert_eq!(count(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn durations_are_read_in_every_spelling_that_vendors_use() {
        for (text, expected) in [
            ("6m0s", Some(360_000_000_000)),
            ("7.66s", Some(7_660_000_000)),
            ("12ms", Some(12_000_000)),
            ("2m59.56s", Some(179_560_000_000)),
            ("1h2m3s", Some(3_723_000_000_000)),
            ("1d", Some(86_400_000_000_000)),
            ("0s", Some(0)),
            ("0", Some(0)),
            ("60", None),
            ("", None),
            ("-1s", None),
            ("s", None),
            ("1y", None),
            ("999999999999999999h", None),
        ] {
            assert_eq!(duration(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn a_key_is_found_only_as_a_whole_word() {
        let salesforce = b"per-app-api-usage=17/250(appName=x); api-usage=18/5000";
        assert_eq!(pair(salesforce, b"api-usage"), Some(b"18/5000".as_slice()));
        assert_eq!(pair(salesforce, b"per-app-api-usage"), Some(b"17/250".as_slice()));
        let json = br#"{"call_count": 28, "total_time":25,"retryDelay": "34.5s"}"#;
        assert_eq!(pair(json, b"call_count"), Some(b"28".as_slice()));
        assert_eq!(pair(json, b"total_time"), Some(b"25".as_slice()));
        assert_eq!(pair(json, b"retryDelay"), Some(b"34.5s".as_slice()));
        assert_eq!(pair(b"total=100; remaining=99; resets=41", b"remaining"), Some(b"99".as_slice()));
        assert_eq!(pair(b"remaining", b"remaining"), None);
        assert_eq!(pair(b"", b"x"), None);
    }
}
