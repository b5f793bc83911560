//! The framing of message bodies (RFC 9112 section 6), without keeping any of them.

/// Where a body stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Body {
    /// This many bytes are to come.
    Length(u64),
    /// Chunked transfer coding.
    Chunked(Chunked),
    /// Everything until the connection closes.
    UntilClose,
}

/// Where chunked transfer coding stands (RFC 9112 section 7.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Chunked {
    /// In the hexadecimal size of a chunk; so many digits were seen.
    Size { value: u64, digits: u8 },
    /// Behind the size, up to the end of the line.
    Extension { value: u64 },
    /// So many bytes of the chunk are to come.
    Data(u64),
    /// In the line end behind a chunk.
    DataEnd,
    /// In the trailer section; so many bytes of the current line were seen, and so many in all.
    Trailer { line: u32, total: u32 },
}

/// What became of some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Progress {
    /// Bytes that belonged to the body, with its framing.
    pub(super) taken: usize,
    /// Bytes of content among them.
    pub(super) content: u64,
    /// Whether the body ended with them.
    pub(super) done: bool,
}

/// Why a body cannot be followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoBody {
    /// The bytes break the rules of the transfer coding.
    Malformed,
    /// They go beyond our bounds.
    TooLong,
}

/// Longest line of extensions and longest trailer section that is believed.
const LINE_LIMIT: u32 = 64 * 1024;

impl Body {
    /// The body of a message that has none, or has this `Content-Length`.
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::Length(0)
    }

    /// A chunked body at its beginning.
    pub(super) fn chunked() -> Self {
        Self::Chunked(Chunked::Size { value: 0, digits: 0 })
    }

    /// Takes the bytes that belong to the body. Those before a fault are taken; the fault is the next call's.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Result<Progress, NoBody> {
        match self {
            Self::Length(left) => {
                let taken = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= taken as u64;
                Ok(Progress { taken, content: taken as u64, done: *left == 0 })
            }
            Self::UntilClose => Ok(Progress { taken: bytes.len(), content: bytes.len() as u64, done: false }),
            Self::Chunked(chunked) => chunked.feed(bytes),
        }
    }

    /// Passes over bytes that were not seen. Only where they are content for certain; else `false`.
    pub(super) fn skip(&mut self, missing: u64) -> bool {
        match self {
            Self::Length(left) | Self::Chunked(Chunked::Data(left)) if *left >= missing => {
                *left -= missing;
                true
            }
            Self::UntilClose => true,
            _ => false,
        }
    }
}

impl Chunked {
    fn feed(&mut self, bytes: &[u8]) -> Result<Progress, NoBody> {
        let (mut at, mut content) = (0, 0);
        while at < bytes.len() {
            if let Self::Data(left) = self {
                let taken = (bytes.len() - at).min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= taken as u64;
                content += taken as u64;
                at += taken;
                if *left == 0 {
                    *self = Self::DataEnd;
                }
                continue;
            }
            match self.framing(bytes[at]) {
                Ok(true) => return Ok(Progress { taken: at + 1, content, done: true }),
                Ok(false) => at += 1,
                Err(fault) if at == 0 => return Err(fault),
                Err(_) => break,
            }
        }
        Ok(Progress { taken: at, content, done: false })
    }

    /// Takes one byte between chunks. Returns whether the body ended with it.
    fn framing(&mut self, byte: u8) -> Result<bool, NoBody> {
        *self = match (&*self, byte) {
            (&Self::Size { value, digits }, byte) if byte.is_ascii_hexdigit() => {
                let digit = (byte as char).to_digit(16).unwrap_or(0);
                // Zeros may lead, as many as the vendor likes; the value must fit.
                if value >> 60 != 0 {
                    return Err(NoBody::Malformed);
                }
                Self::Size { value: value << 4 | u64::from(digit), digits: digits.saturating_add(1) }
            }
            (&Self::Size { value, digits: 1.. }, b';' | b' ' | b'\t' | b'\r') => Self::Extension { value },
            (&Self::Size { value, digits: 1.. } | &Self::Extension { value }, b'\n') => match value {
                0 => Self::Trailer { line: 0, total: 0 },
                left => Self::Data(left),
            },
            (&Self::Extension { value }, _) => Self::Extension { value },
            (Self::DataEnd, b'\r') => Self::DataEnd,
            (Self::DataEnd, b'\n') => Self::Size { value: 0, digits: 0 },
            (&Self::Trailer { line: 0, .. }, b'\n') => return Ok(true),
            (&Self::Trailer { total, .. }, b'\n') if total < LINE_LIMIT => {
                Self::Trailer { line: 0, total: total + 1 }
            }
            (&Self::Trailer { line, total }, b'\r') => Self::Trailer { line, total },
            (&Self::Trailer { line, total }, _) if total < LINE_LIMIT => {
                Self::Trailer { line: line + 1, total: total + 1 }
            }
            (Self::Trailer { .. }, _) => return Err(NoBody::TooLong),
            _ => return Err(NoBody::Malformed),
        };
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn feed_all(body: &mut Body, bytes: &[u8]) -> Result<Progress, NoBody> {
        let mut all = body.feed(bytes)?;
        while all.taken < bytes.len() && !all.done {
            let next = body.feed(&bytes[all.taken..])?;
            all = Progress {
                taken: all.taken + next.taken,
                content: all.content + next.content,
                done: next.done,
            };
        }
        Ok(all)
    }

    #[test]
    fn content_length_takes_what_is_its_own() {
        let mut body = Body::Length(5);
        assert_eq!(feed_all(&mut body, b"abc").unwrap(), Progress { taken: 3, content: 3, done: false });
        assert_eq!(feed_all(&mut body, b"deGET").unwrap(), Progress { taken: 2, content: 2, done: true });
    }

    #[test]
    fn chunks_extensions_and_trailers_are_framing_not_content() {
        let wire =
            b"4\r\nWiki\r\n6;name=\"v\"\r\npedia \r\nA \r\nin chunks.\r\n0\r\nExpires: never\r\n\r\nHTTP/1.1";
        let mut body = Body::chunked();
        let progress = feed_all(&mut body, wire).unwrap();
        assert_eq!(progress, Progress { taken: wire.len() - 8, content: 20, done: true });
    }

    #[test]
    fn broken_chunks_are_malformed() {
        for wire in [&b"\r\n"[..], b"xyz\r\n", b"11111111111111111\r\n", b"1\r\nab\r\n", b";\r\n"] {
            assert_eq!(feed_all(&mut Body::chunked(), wire), Err(NoBody::Malformed), "{wire:?}");
        }
    }

    #[test]
    fn what_came_before_a_broken_chunk_is_content() {
        let mut body = Body::chunked();
        assert_eq!(body.feed(b"5\r\nhello\r\nZZ\r\n"), Ok(Progress { taken: 10, content: 5, done: false }));
        assert_eq!(body.feed(b"ZZ\r\n"), Err(NoBody::Malformed));
    }

    #[test]
    fn leading_zeros_are_no_fault_and_a_long_trailer_is_not_the_vendors() {
        let zeros = [&b"0".repeat(40)[..], b"5\r\nhello\r\n0\r\n"].concat();
        let mut body = Body::chunked();
        assert_eq!(feed_all(&mut body, &zeros).map(|progress| progress.content), Ok(5));
        assert_eq!(feed_all(&mut body, &b"x".repeat(LINE_LIMIT as usize + 1)), Err(NoBody::TooLong));
    }

    #[test]
    fn a_gap_is_passed_over_only_inside_content() {
        let mut length = Body::Length(10);
        assert!(length.skip(10));
        assert!(length.is_empty());
        assert!(!Body::Length(10).skip(11));
        assert!(!Body::chunked().skip(1));
        let mut chunked = Body::chunked();
        feed_all(&mut chunked, b"a\r\nab").unwrap();
        assert!(chunked.skip(7));
        assert!(!chunked.skip(2));
        assert!(Body::UntilClose.skip(1 << 40));
    }
}
