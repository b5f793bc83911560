//! The Huffman code of HPACK (RFC 7541, appendix B). It is canonical: lengths alone give the codes.

use std::sync::LazyLock;

/// Lengths of the codes of the 256 octets, in bits. The end-of-string symbol, which never occurs in a string, has the
/// last code of 30 bits.
#[rustfmt::skip]
const LENGTHS: [u8; 256] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
    28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5,
    6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
    21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
    19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
];

/// Longest code.
const MAX_BITS: usize = 30;

/// For each length the first code, how many there are, and where their symbols begin in `symbols`.
struct Code {
    first: [u32; MAX_BITS + 1],
    count: [u32; MAX_BITS + 1],
    start: [usize; MAX_BITS + 1],
    symbols: Vec<u8>,
}

static CODE: LazyLock<Code> = LazyLock::new(|| {
    let mut code = Code {
        first: [0; MAX_BITS + 1],
        count: [0; MAX_BITS + 1],
        start: [0; MAX_BITS + 1],
        symbols: Vec::with_capacity(256),
    };
    let mut next = 0u32;
    for bits in 1..=MAX_BITS {
        next <<= 1;
        code.first[bits] = next;
        code.start[bits] = code.symbols.len();
        for (symbol, length) in (0u8..=255).zip(LENGTHS) {
            if usize::from(length) == bits {
                code.symbols.push(symbol);
                next += 1;
            }
        }
        code.count[bits] = next - code.first[bits];
    }
    code
});

/// Decodes a string. `None` for a code that does not exist, or padding that is not the beginning of end-of-string
/// (RFC 7541 section 5.2).
pub(super) fn decode(encoded: &[u8]) -> Option<Vec<u8>> {
    let code = &*CODE;
    // The shortest code has five bits.
    let mut decoded = Vec::with_capacity(encoded.len() * 8 / 5 + 1);
    let (mut bits, mut value) = (0usize, 0u32);
    for byte in encoded {
        for shift in (0..8).rev() {
            value = value << 1 | u32::from(byte >> shift & 1);
            bits += 1;
            if bits > MAX_BITS {
                return None;
            }
            let place = value.wrapping_sub(code.first[bits]);
            if value >= code.first[bits] && place < code.count[bits] {
                decoded.push(code.symbols[code.start[bits] + place as usize]);
                (bits, value) = (0, 0);
            }
        }
    }
    let padding_is_ones = bits < 8 && value == (1 << bits) - 1;
    padding_is_ones.then_some(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_of_the_specification_decode() {
        // RFC 7541, appendix C.4 and C.6.
        let cases: [(&[u8], &str); 4] = [
            (b"\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff", "www.example.com"),
            (b"\xa8\xeb\x10\x64\x9c\xbf", "no-cache"),
            (b"\x64\x02", "302"),
            (
                b"\xd0\x7a\xbe\x94\x10\x54\xd4\x44\xa8\x20\x05\x95\x04\x0b\x81\x66\xe0\x82\xa6\x2d\x1b\xff",
                "Mon, 21 Oct 2013 20:13:21 GMT",
            ),
        ];
        for (encoded, text) in cases {
            assert_eq!(decode(encoded).as_deref(), Some(text.as_bytes()));
        }
    }

    #[test]
    fn every_octet_has_a_code_and_the_code_is_complete() {
        assert_eq!(CODE.symbols.len(), 256);
        let used: u64 = LENGTHS.iter().map(|length| 1u64 << (MAX_BITS - usize::from(*length))).sum();
        assert_eq!(used, (1 << MAX_BITS) - 1, "one code is left for end-of-string");
    }

    #[test]
    fn wrong_padding_and_end_of_string_are_refused() {
        assert_eq!(decode(b"\xa8\xeb\x10\x64\x9c\xbe"), None);
        assert_eq!(decode(b"\xff"), None);
        assert_eq!(decode(b"\xff\xff\xff\xff"), None);
        assert_eq!(decode(b""), Some(Vec::new()));
    }
}
