//! What is kept, as bytes: for stores that lie outside of this process's memory.
//!
//! Numbers are little-endian, texts begin with their length. Whoever keeps a record says with it which
//! [`VERSION`](Kept::VERSION) it is of, and sees to it that it comes back whole.

use super::answer::{Answer, Label, Times};
use super::store::Kept;
use crate::units::Timestamp;
use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use std::sync::Arc;
use std::time::Duration;

const ANSWER: u8 = 0;
const VARIES: u8 = 1;
/// Headers of one answer; names of one `Vary`.
const MOST: u32 = 4_096;

impl Kept {
    /// Of the form of the bytes; another one cannot be read.
    pub const VERSION: u8 = 1;

    /// It, as bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.weight() + 64);
        match self {
            Self::Answer(answer) => {
                out.push(ANSWER);
                write_answer(answer, &mut out);
            }
            Self::Varies(names) => {
                out.push(VARIES);
                number(names.len(), &mut out);
                names.iter().for_each(|name| text(name.as_bytes(), &mut out));
            }
        }
        out
    }

    /// Reads what [`Kept::to_bytes`] wrote; `None` for anything else.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut from = Reader(bytes);
        let kept = match from.byte()? {
            ANSWER => Self::Answer(Arc::new(read_answer(&mut from)?)),
            VARIES => {
                let count = from.count()?;
                let names: Option<Vec<Box<str>>> = (0..count).map(|_| Some(from.str()?.into())).collect();
                Self::Varies(names?.into())
            }
            _ => return None,
        };
        from.0.is_empty().then_some(kept)
    }
}

fn write_answer(answer: &Answer, out: &mut Vec<u8>) {
    let Times { requested_at, received_at, initial_age, explicit, heuristic } = answer.times();
    let Label { vendor, endpoint, customer } = &*answer.label;
    out.extend_from_slice(&answer.status.to_le_bytes());
    out.extend_from_slice(&answer.uri.to_le_bytes());
    for moment in [requested_at, received_at] {
        out.extend_from_slice(&moment.as_nanos().to_le_bytes());
    }
    for span in [Some(initial_age), explicit, heuristic] {
        let nanos = span.map(|span| u64::try_from(span.as_nanos()).unwrap_or(u64::MAX - 1));
        out.extend_from_slice(&nanos.unwrap_or(u64::MAX).to_le_bytes());
    }
    out.push(u8::from(answer.cost.is_some()) | u8::from(customer.is_some()) << 1);
    out.extend_from_slice(&answer.cost.unwrap_or_default().to_le_bytes());
    out.extend_from_slice(&answer.tokens.to_le_bytes());
    for name in [vendor.as_bytes(), endpoint.as_bytes(), customer.as_deref().unwrap_or_default().as_bytes()] {
        text(name, out);
    }
    number(answer.headers.len(), out);
    for (name, value) in &answer.headers {
        text(name.as_str().as_bytes(), out);
        text(value.as_bytes(), out);
    }
    text(&answer.body, out);
}

fn read_answer(from: &mut Reader<'_>) -> Option<Answer> {
    let status = u16::from_le_bytes(from.array()?);
    let uri = from.word()?;
    let [requested_at, received_at] = [from.word()?, from.word()?].map(Timestamp::from_nanos);
    let mut span = || from.word().map(|nanos| (nanos != u64::MAX).then(|| Duration::from_nanos(nanos)));
    let (initial_age, explicit, heuristic) = (span()??, span()?, span()?);
    let times = Times { requested_at, received_at, initial_age, explicit, heuristic };
    let known = from.byte()?;
    let (cost, tokens) = (i64::from_le_bytes(from.array()?), from.word()?);
    let (vendor, endpoint, customer) = (from.str()?.into(), from.str()?.into(), from.str()?);
    let label = Label { vendor, endpoint, customer: (known & 2 != 0).then(|| customer.into()) };
    let mut headers = HeaderMap::new();
    for _ in 0..from.count()? {
        let (name, value) = (from.text()?, from.text()?);
        headers.append(HeaderName::from_bytes(name).ok()?, HeaderValue::from_bytes(value).ok()?);
    }
    let body = Bytes::copy_from_slice(from.text()?);
    let used = ((known & 1 != 0).then_some(cost), tokens);
    Some(Answer::of_record(Arc::new(label), status, headers, body, used, uri, times))
}

fn number(count: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(&u32::try_from(count).unwrap_or(u32::MAX).to_le_bytes());
}

fn text(bytes: &[u8], out: &mut Vec<u8>) {
    number(bytes.len(), out);
    out.extend_from_slice(bytes);
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn byte(&mut self) -> Option<u8> {
        Some(self.array::<1>()?[0])
    }

    fn word(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn count(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes).filter(|count| *count <= MOST)
    }

    fn text(&mut self) -> Option<&'a [u8]> {
        let length = self.array().map(u32::from_le_bytes)?;
        self.take(usize::try_from(length).ok()?)
    }

    fn str(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.text()?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn answer() -> Answer {
        let mut headers = HeaderMap::new();
        headers.append("cache-control", HeaderValue::from_static("max-age=60, must-revalidate"));
        headers.append("set-cookie", HeaderValue::from_static("a=1"));
        headers.append("set-cookie", HeaderValue::from_bytes(b"b=\xff").unwrap());
        let label = Label { vendor: "v".into(), endpoint: "GET /x".into(), customer: Some("acme".into()) };
        let times = Times {
            requested_at: Timestamp::from_nanos(5),
            received_at: Timestamp::from_nanos(9),
            initial_age: Duration::from_secs(3),
            explicit: Some(Duration::from_secs(60)),
            heuristic: None,
        };
        Answer::of_record(
            Arc::new(label),
            200,
            headers,
            Bytes::from_static(b"body"),
            (Some(-7), 5),
            11,
            times,
        )
    }

    #[test]
    fn what_was_written_is_read_again() {
        for cost in [None, Some(-7)] {
            let mut answer = answer();
            answer.cost = cost;
            let kept = Kept::Answer(Arc::new(answer.clone()));
            let Some(Kept::Answer(read)) = Kept::from_bytes(&kept.to_bytes()) else { panic!("no answer") };
            assert_eq!(format!("{read:?}"), format!("{answer:?}"));
        }
        let kept = Kept::Varies(["accept".into(), "x".into()].into());
        let Some(Kept::Varies(names)) = Kept::from_bytes(&kept.to_bytes()) else { panic!("no names") };
        assert_eq!(&*names, ["accept".into(), "x".into()]);
    }

    #[test]
    fn nothing_that_is_cut_short_or_too_long_is_read() {
        let bytes = Kept::Answer(Arc::new(answer())).to_bytes();
        for length in 0..bytes.len() {
            assert!(Kept::from_bytes(&bytes[..length]).is_none(), "{length}");
        }
        assert!(Kept::from_bytes(&[&bytes[..], &[0]].concat()).is_none());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), kind in 0_u8..2) {
            let _ = Kept::from_bytes(&bytes);
            let _ = Kept::from_bytes(&[&[kind], &bytes[..]].concat());
        }
    }
}
