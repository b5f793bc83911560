//! Content codings (RFC 9110, section 8.4.1): the bytes of a body as it was before it was compressed, while they
//! pass by. Clients ask for compressed answers, and the adapters that see them sit below what decodes them.

use brotli_decompressor::{BrotliDecompressStream, BrotliResult, BrotliState, StandardAlloc};
use flate2::{Decompress, FlushDecompress, Status};
use std::fmt;

/// Bytes that are decoded at a time.
const STRIDE: usize = 4 * 1024;
/// Beyond so many decoded bytes a body is not looked at: few bytes can decode to any number.
const MOST: u64 = 64 * 1024 * 1024;

/// Decodes one body, in chunks of any size.
pub(crate) struct Decoder {
    coding: Coding,
    /// Whether any byte came in.
    begun: bool,
    /// Bytes that may still come out.
    left: u64,
    out: [u8; STRIDE],
}

enum Coding {
    /// `gzip` (RFC 1952): its header, then a deflated body.
    Gzip(Header, Decompress),
    /// `deflate`, of which nothing is seen yet: with zlib's header (RFC 1950), or without, as some send it.
    Deflate,
    Inflating(Decompress),
    /// `br` (RFC 7932).
    Brotli(Box<BrotliState<StandardAlloc, StandardAlloc, StandardAlloc>>),
    /// At its end.
    Ended,
    /// Broken, or longer than anybody looks.
    GivenUp,
}

impl Decoder {
    /// A decoder for what `Content-Encoding` names; `None` for what cannot be decoded here, such as two of them.
    pub(crate) fn of(content_encoding: &str) -> Option<Self> {
        let is = |name: &str| content_encoding.trim().eq_ignore_ascii_case(name);
        let coding = if is("gzip") || is("x-gzip") {
            Coding::Gzip(Header::default(), Decompress::new(false))
        } else if is("deflate") {
            Coding::Deflate
        } else if is("br") {
            let alloc = StandardAlloc::default;
            Coding::Brotli(Box::new(BrotliState::new_strict(alloc(), alloc(), alloc())))
        } else {
            return None;
        };
        Some(Self { coding, begun: false, left: MOST, out: [0; STRIDE] })
    }

    /// Whether all that came in was decoded to its end. An empty body is whole, whatever its coding.
    pub(crate) fn whole(&self) -> bool {
        !self.begun || matches!(self.coding, Coding::Ended)
    }

    /// The next bytes, and to `sink` what they decode to. Bytes that are no such coding decode to nothing.
    pub(crate) fn push(&mut self, mut bytes: &[u8], mut sink: impl FnMut(&[u8])) {
        if matches!(self.coding, Coding::Ended | Coding::GivenUp) {
            return;
        }
        self.begun |= !bytes.is_empty();
        if let (Coding::Deflate, Some(first)) = (&self.coding, bytes.first()) {
            // Method 8 and a window of at most 32 KiB: what zlib's header begins with, and hardly a raw block.
            let zlib = first & 0x0F == 8 && first >> 4 <= 7;
            self.coding = Coding::Inflating(Decompress::new(zlib));
        }
        if let Coding::Gzip(header, _) = &mut self.coding {
            bytes = header.skip(bytes);
        }
        let mut full = false;
        while !bytes.is_empty() || full {
            let Some((read, written, over)) = self.step(bytes) else {
                self.coding = Coding::GivenUp;
                return;
            };
            sink(&self.out[..written]);
            self.left = self.left.saturating_sub(written as u64);
            if over {
                self.coding = Coding::Ended;
                return;
            }
            if self.left == 0 {
                self.coding = Coding::GivenUp;
                return;
            }
            if read == 0 && written == 0 {
                return;
            }
            bytes = &bytes[read..];
            full = written == STRIDE;
        }
    }

    /// Bytes taken, bytes given, and whether that was the last; `None` where it is broken.
    fn step(&mut self, bytes: &[u8]) -> Option<(usize, usize, bool)> {
        match &mut self.coding {
            Coding::Gzip(_, inflate) | Coding::Inflating(inflate) => {
                let before = (inflate.total_in(), inflate.total_out());
                let status = inflate.decompress(bytes, &mut self.out, FlushDecompress::None).ok()?;
                let since = |before: u64, now: u64| usize::try_from(now - before).ok();
                let read = since(before.0, inflate.total_in())?;
                let written = since(before.1, inflate.total_out())?;
                Some((read, written, status == Status::StreamEnd))
            }
            Coding::Brotli(state) => {
                let (mut to_read, mut read) = (bytes.len(), 0);
                let (mut room, mut written, mut total) = (STRIDE, 0, 0);
                let result = BrotliDecompressStream(
                    &mut to_read,
                    &mut read,
                    bytes,
                    &mut room,
                    &mut written,
                    &mut self.out,
                    &mut total,
                    state,
                );
                match result {
                    BrotliResult::ResultFailure => None,
                    result => Some((read, written, matches!(result, BrotliResult::ResultSuccess))),
                }
            }
            Coding::Deflate | Coding::Ended | Coding::GivenUp => None,
        }
    }
}

impl fmt::Debug for Decoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What it holds is a part of somebody's body.
        f.debug_struct("Decoder").field("left", &self.left).finish_non_exhaustive()
    }
}

/// The header of a gzip member, of which nothing matters but where it ends (RFC 1952, section 2.3).
#[derive(Clone, Copy, Debug, Default)]
struct Header {
    part: Part,
    flags: u8,
    /// Bytes of the present part that were seen.
    seen: usize,
    /// How long the extra field is.
    extra: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Part {
    #[default]
    Fixed,
    ExtraLength,
    Extra,
    Name,
    Comment,
    Checksum,
    Body,
}

impl Header {
    /// What is left of `bytes` after the header.
    fn skip<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        for (at, byte) in bytes.iter().enumerate() {
            if self.part == Part::Body {
                return &bytes[at..];
            }
            self.take(*byte);
        }
        &[]
    }

    fn take(&mut self, byte: u8) {
        if self.part == Part::Fixed && self.seen == 3 {
            self.flags = byte;
        }
        if self.part == Part::ExtraLength {
            self.extra |= usize::from(byte) << (8 * self.seen);
        }
        self.seen += 1;
        let whole = match self.part {
            Part::Fixed => self.seen == 10,
            Part::ExtraLength | Part::Checksum => self.seen == 2,
            Part::Extra => self.seen >= self.extra,
            Part::Name | Part::Comment => byte == 0,
            Part::Body => false,
        };
        if whole {
            self.part = self.after();
            self.seen = 0;
        }
    }

    fn after(&self) -> Part {
        let has = |bit: u8| self.flags & bit != 0;
        [
            (Part::Fixed, Part::ExtraLength, has(4)),
            (Part::ExtraLength, Part::Extra, has(4) && self.extra > 0),
            (Part::Extra, Part::Name, has(8)),
            (Part::Name, Part::Comment, has(16)),
            (Part::Comment, Part::Checksum, has(2)),
        ]
        .into_iter()
        .skip_while(|(part, ..)| *part != self.part)
        .find_map(|(_, next, is)| is.then_some(next))
        .unwrap_or(Part::Body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
    use proptest::prelude::*;
    use std::io::Write;

    fn encoded(coding: &str, body: &[u8]) -> Vec<u8> {
        let level = Compression::best();
        match coding {
            "gzip" => {
                let all = flate2::GzBuilder::new().extra(vec![1, 2, 3]).filename("a.json").comment("c");
                let mut encoder = all.write(Vec::new(), level);
                encoder.write_all(body).unwrap();
                encoder.finish().unwrap()
            }
            "plain gzip" => {
                let mut encoder = GzEncoder::new(Vec::new(), level);
                encoder.write_all(body).unwrap();
                encoder.finish().unwrap()
            }
            "zlib" => {
                let mut encoder = ZlibEncoder::new(Vec::new(), level);
                encoder.write_all(body).unwrap();
                encoder.finish().unwrap()
            }
            "raw" => {
                let mut encoder = DeflateEncoder::new(Vec::new(), level);
                encoder.write_all(body).unwrap();
                encoder.finish().unwrap()
            }
            _ => unreachable!(),
        }
    }

    fn decoded(name: &str, bytes: &[u8], chunk: usize) -> Vec<u8> {
        let mut decoder = Decoder::of(name).unwrap();
        let mut out = Vec::new();
        bytes.chunks(chunk).for_each(|chunk| decoder.push(chunk, |bytes| out.extend_from_slice(bytes)));
        assert!(decoder.whole());
        out
    }

    proptest! {
        #[test]
        fn a_body_comes_out_as_it_was_whatever_its_chunks(
            body in proptest::collection::vec(any::<u8>(), 0..20_000),
            repeats in 1_usize..20,
            chunk in 1_usize..3_000,
        ) {
            let body = body.repeat(repeats);
            for (name, coding) in
                [("gzip", "gzip"), ("GZip", "plain gzip"), ("deflate", "zlib"), ("deflate", "raw")]
            {
                prop_assert!(decoded(name, &encoded(coding, &body), chunk) == body, "{coding}");
            }
        }

        #[test]
        fn bytes_that_are_no_such_coding_do_no_harm(
            bytes in proptest::collection::vec(any::<u8>(), 0..500),
            chunk in 1_usize..50,
        ) {
            for name in ["gzip", "deflate", "br"] {
                let mut decoder = Decoder::of(name).unwrap();
                let mut out = 0;
                bytes.chunks(chunk).for_each(|chunk| decoder.push(chunk, |bytes| out += bytes.len()));
                prop_assert!(out <= MOST as usize);
            }
        }
    }

    #[test]
    fn brotli_comes_out_as_it_was_whatever_its_chunks() {
        // As Node's `brotliCompressSync` wrote them.
        let short = b"\x1b\x50\x00\x10\x8c\xc4\x38\x16\xf2\x4c\x2a\x7e\x02\x71\x5b\xea\xcb\x3f\x9c\x73\x8e\xad\x19\x4d\xe2\x51\x9b\x58\x30\x3a\xe0\x90\x03\xc7\xcf\x0f\x16\x00\x05\x1e\x60\xb0\x01\x27\x9e\x86\xe9\xb4\x0f\xf1\x92\x51\x57\x63\xa9\x9b\x87\x6a\x2a\x11\xfa\xc5\x47\xed\x35\xeb\xf6\x85\x76\x18\x26\x1c\x82\x92\xf6\x3f";
        let long = b"\x1b\x5f\xea\xf8\xa5\x75\xc2\xc8\xe8\xd4\x2a\x87\xd5\x02\xec\xc8\xe5\xb3\x83\x38\x00";
        for chunk in [1, 2, 7, 100] {
            let text = r#"{"model":"gpt-4o-2024-08-06","usage":{"prompt_tokens":40,"completion_tokens":60}}"#;
            assert_eq!(decoded("br", short, chunk), text.as_bytes());
            assert_eq!(decoded("br", long, chunk), b"data: hello ".repeat(5_000));
        }
    }

    #[test]
    fn few_bytes_that_decode_to_very_many_are_given_up() {
        let bomb = encoded("plain gzip", &vec![0; 80 * 1024 * 1024]);
        let mut decoder = Decoder::of("gzip").unwrap();
        let mut out = 0_u64;
        decoder.push(&bomb, |bytes| out += bytes.len() as u64);
        assert!(out <= MOST + STRIDE as u64, "{out}");
        assert!(!decoder.whole());
    }

    #[test]
    fn brotli_asks_for_no_more_memory_than_its_standard_allows() {
        // A window of 1 GiB, as "large window brotli" announces it.
        let mut decoder = Decoder::of("br").unwrap();
        decoder.push(&[0x11, 0x1E], |_| {});
        assert!(matches!(decoder.coding, Coding::GivenUp));
    }

    #[test]
    fn a_body_that_breaks_off_is_not_whole_and_an_empty_one_is() {
        let body = encoded("plain gzip", b"{\"usage\":{}}");
        let mut decoder = Decoder::of("gzip").unwrap();
        decoder.push(&[], |_| {});
        assert!(decoder.whole());
        decoder.push(&body[..body.len() - 9], |_| {});
        assert!(!decoder.whole());
    }

    #[test]
    fn what_cannot_be_decoded_is_said_not_guessed() {
        for name in ["zstd", "gzip, br", "identity", "compress", ""] {
            assert!(Decoder::of(name).is_none(), "{name}");
        }
    }
}
