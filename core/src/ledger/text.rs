//! A short text on the stack.

use std::fmt;

/// At most `N` bytes of text, without allocation; what does not fit is cut at a character's border.
#[derive(Clone, Copy)]
pub(crate) struct Text<const N: usize> {
    bytes: [u8; N],
    len: usize,
}

impl<const N: usize> Text<N> {
    pub(crate) const fn new() -> Self {
        Self { bytes: [0; N], len: 0 }
    }

    pub(crate) fn push(&mut self, text: &str) {
        let room = N - self.len;
        let text = if text.len() <= room { text } else { &text[..text.floor_char_boundary(room)] };
        self.bytes[self.len..self.len + text.len()].copy_from_slice(text.as_bytes());
        self.len += text.len();
    }

    /// The text in ASCII lower case.
    pub(crate) fn lower(text: &str) -> Self {
        let mut lower = Self::new();
        lower.push(text);
        lower.bytes[..lower.len].make_ascii_lowercase();
        lower
    }

    pub(crate) fn as_str(&self) -> &str {
        // Only whole characters are ever pushed.
        std::str::from_utf8(&self.bytes[..self.len]).unwrap_or_default()
    }

    pub(crate) const fn len(&self) -> usize {
        self.len
    }
}

impl<const N: usize> fmt::Debug for Text<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}
