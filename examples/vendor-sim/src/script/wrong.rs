//! Answers that break the rules, by name: one row each.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, header};

use super::dialect::{DIALECTS, Numbers, Word};
use crate::answer::Answer;

type Wrong = fn(&mut Answer, &Numbers);

/// The ways of being wrong.
const WRONGS: &[(&str, Wrong)] = &[
    ("bad-content-length", |a, _| length(a, &["banana"])),
    ("negative-content-length", |a, _| length(a, &["-5"])),
    ("huge-content-length", |a, _| length(a, &["99999999999999999999999999"])),
    ("two-content-lengths", |a, _| length(a, &["5", "7"])),
    ("bad-chunk-size", |a, _| {
        raw(a, b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nZZ\r\nhello\r\n")
    }),
    ("garbage-status", |a, _| raw(a, b"HTP/9.9 banana ???\r\n\r\n")),
    ("garbage-bytes", |a, _| a.raw = Some((0..=255).collect())),
    ("folded-header", |a, _| raw(a, b"HTTP/1.1 200 OK\r\nx-odd: one\r\n two\r\ncontent-length: 0\r\n\r\n")),
    ("bare-newlines", |a, _| raw(a, b"HTTP/1.1 200 OK\ncontent-length: 2\n\nok")),
    ("nul-in-header", |a, _| raw(a, b"HTTP/1.1 200 OK\r\nx-odd: a\0b\r\ncontent-length: 0\r\n\r\n")),
    ("http09", |a, _| raw(a, b"hello from 1991")),
    ("non-utf8-header", |a, _| odd(a, Bytes::from_static(b"caf\xe9 \xff\xfe"))),
    ("huge-header", |a, _| odd(a, Bytes::from(vec![b'a'; 1 << 20]))),
    ("many-headers", |a, _| {
        for i in 0..2_000 {
            if let Ok(name) = HeaderName::from_bytes(format!("x-odd-{i}").as_bytes()) {
                a.headers.insert(name, HeaderValue::from_static("1"));
            }
        }
    }),
    ("not-gzip", |a, _| {
        a.headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }),
    ("bad-retry-after", |a, _| {
        a.headers.insert(header::RETRY_AFTER, HeaderValue::from_static("soon"));
    }),
    ("negative-limits", |a, n| limits(a, n, "-5")),
    ("nan-limits", |a, n| limits(a, n, "NaN")),
    ("absurd-limits", |a, n| limits(a, n, "179769313486231570000000000000000000000000000000e300")),
    ("empty-limits", |a, n| limits(a, n, "")),
];

pub(super) fn known(name: &str) -> bool {
    WRONGS.iter().any(|(n, _)| *n == name)
}

pub(super) fn names() -> String {
    WRONGS.iter().map(|(n, _)| *n).collect::<Vec<_>>().join(", ")
}

pub(super) fn apply(name: &str, answer: &mut Answer, numbers: &Numbers) {
    if let Some((_, wrong)) = WRONGS.iter().find(|(n, _)| *n == name) {
        wrong(answer, numbers);
    }
}

fn length(answer: &mut Answer, values: &[&'static str]) {
    answer.headers.remove(header::CONTENT_LENGTH);
    for value in values {
        answer.headers.append(header::CONTENT_LENGTH, HeaderValue::from_static(value));
    }
}

fn raw(answer: &mut Answer, bytes: &'static [u8]) {
    answer.raw = Some(Bytes::from_static(bytes));
}

fn odd(answer: &mut Answer, value: Bytes) {
    if let Ok(value) = HeaderValue::from_maybe_shared(value) {
        answer.headers.insert("x-odd", value);
    }
}

/// Every dialect's headers at once, all with the same nonsense.
fn limits(answer: &mut Answer, numbers: &Numbers, nonsense: &str) {
    let word = || Some(Word::Text(nonsense.to_owned()));
    let numbers = Numbers { limit: word(), remaining: word(), reset: word(), ..numbers.clone() };
    for dialect in DIALECTS {
        dialect.annotate(answer, &numbers);
    }
}
