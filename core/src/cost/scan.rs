//! A JSON scanner that is fed chunk by chunk and keeps only where it is.
//!
//! It follows the few paths that matter and skips all else by counting brackets, so that a body of any size
//! passes in linear time through a state of fixed size, and no split of it into chunks makes a difference.
//! A list is looked through: its entries are where the list is. It does not validate; what it cannot follow
//! it leaves, until the next document.

use super::fields::{Field, Fields, MAX_DEPTH};
use std::ops::Range;

/// A value at one of the paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token<'a> {
    /// A string, without its simple escapes; `None` where it is too long or escaped beyond that.
    Text(Option<&'a str>),
    /// A number as it was written; `None` where it is too long.
    Number(Option<&'a str>),
    /// `null`.
    Null,
    /// Anything else, `true` for one.
    Other,
}

/// What the scanner came across.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event<'a> {
    /// A value, and from which byte of the input to which it was written (strings without their quotes).
    Value(Field, Token<'a>, (u64, u64)),
    /// The end of an object at a path.
    Closed(Field),
}

/// The longest string or number that is kept.
pub(super) const MAX_TEXT: usize = 128;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Before a value, or the end of a list.
    Value,
    /// Before a key, or the end of an object.
    Key,
    InKey,
    Colon,
    /// In a string that is kept.
    InText,
    /// In a string that is not.
    InString,
    Literal,
    /// After a value.
    After,
    /// Within brackets in which nothing matters.
    Dead,
    DeadString,
    /// Lost: nothing more until the next document.
    Lost,
}

#[derive(Clone, Debug)]
pub(super) struct Scanner {
    state: State,
    /// The last byte was a backslash.
    escaped: bool,
    /// Open brackets since nothing mattered.
    dead: u64,
    /// Where each open bracket that matters stands, and whether it is a list.
    stack: [(u16, bool); MAX_DEPTH + 8],
    open: u8,
    /// Where the value to come stands; `None` where it does not matter.
    node: Option<u16>,
    text: [u8; MAX_TEXT],
    length: u8,
    /// The text is longer than what is kept, or escaped in a way that is not decoded.
    cut: bool,
    /// Bytes taken so far.
    taken: u64,
    start: u64,
    lost: u32,
}

impl Scanner {
    pub(super) fn new() -> Self {
        Self {
            state: State::Value,
            escaped: false,
            dead: 0,
            stack: [(0, false); MAX_DEPTH + 8],
            open: 0,
            node: Some(Fields::ROOT),
            text: [0; MAX_TEXT],
            length: 0,
            cut: false,
            taken: 0,
            start: 0,
            lost: 0,
        }
    }

    /// How often it was lost.
    pub(super) fn lost(&self) -> u32 {
        self.lost
    }

    /// The next byte begins a new document.
    pub(super) fn restart(&mut self) {
        if self.open > 0 || self.state == State::Dead || self.state == State::DeadString {
            self.lost = self.lost.saturating_add(1);
        }
        self.begin();
    }

    fn begin(&mut self) {
        self.state = State::Value;
        self.open = 0;
        self.node = Some(Fields::ROOT);
        self.escaped = false;
    }

    pub(super) fn push(&mut self, bytes: &[u8], fields: &Fields, mut sink: impl FnMut(Event<'_>)) {
        let mut at = 0;
        while at < bytes.len() {
            at += match self.state {
                State::InString | State::DeadString => self.skip_string(&bytes[at..]),
                State::Dead => self.skip_brackets(&bytes[at..]),
                State::InKey | State::InText => self.take_text(&bytes[at..], at, fields, &mut sink),
                State::Lost => bytes.len() - at,
                _ => {
                    let offset = self.taken + at as u64;
                    self.step(bytes[at], offset, fields, &mut sink)
                }
            };
        }
        self.taken += bytes.len() as u64;
    }

    /// Takes one byte, or none where it is to be looked at again: gives how many.
    fn step(&mut self, byte: u8, offset: u64, fields: &Fields, sink: &mut impl FnMut(Event<'_>)) -> usize {
        let blank = matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
        match (self.state, byte) {
            (State::Value | State::Key | State::Colon | State::After, _) if blank => {}
            (State::Value, b'{' | b'[') => self.open_bracket(byte == b'[', fields),
            (State::Value, b'"') => {
                let wanted = self.node.and_then(|node| fields.field(node)).is_some();
                self.state = if wanted { State::InText } else { State::InString };
                self.begin_text(offset + 1);
            }
            (State::Value | State::After, b']') | (State::Key | State::After, b'}') => {
                self.close_bracket(byte == b']', fields, sink);
            }
            (State::Value, b'-' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z') => {
                self.state = State::Literal;
                self.begin_text(offset);
                self.keep(&[byte]);
            }
            (State::Key, b'"') => {
                self.state = State::InKey;
                self.begin_text(offset + 1);
            }
            (State::Colon, b':') => self.state = State::Value,
            (State::Literal, b'-' | b'+' | b'.' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z') => {
                self.keep(&[byte]);
            }
            (State::Literal, _) => {
                self.end_literal(offset, fields, sink);
                self.after_value();
                return 0;
            }
            (State::After, b',') => match self.top() {
                Some((node, true)) => {
                    self.node = Some(node);
                    self.state = State::Value;
                }
                Some((_, false)) => self.state = State::Key,
                None => self.lose(),
            },
            // Documents one after the other, with or without a separator.
            (State::After, _) if self.open == 0 => {
                self.begin();
                return 0;
            }
            _ => self.lose(),
        }
        1
    }

    fn open_bracket(&mut self, list: bool, fields: &Fields) {
        match self.node.filter(|node| fields.has_children(*node)) {
            Some(node) if usize::from(self.open) < self.stack.len() => {
                self.stack[usize::from(self.open)] = (node, list);
                self.open += 1;
                self.state = if list { State::Value } else { State::Key };
            }
            _ => {
                self.dead = 1;
                self.state = State::Dead;
            }
        }
    }

    fn close_bracket(&mut self, list: bool, fields: &Fields, sink: &mut impl FnMut(Event<'_>)) {
        match self.top() {
            Some((node, is_list)) if is_list == list => {
                self.open -= 1;
                if !list && let Some(field) = fields.field(node) {
                    sink(Event::Closed(field));
                }
                self.after_value();
            }
            _ => self.lose(),
        }
    }

    fn after_value(&mut self) {
        self.state = State::After;
    }

    fn top(&self) -> Option<(u16, bool)> {
        usize::from(self.open).checked_sub(1).map(|top| self.stack[top])
    }

    fn lose(&mut self) {
        self.lost = self.lost.saturating_add(1);
        self.state = State::Lost;
        self.open = 0;
    }

    fn begin_text(&mut self, start: u64) {
        self.length = 0;
        self.cut = false;
        self.escaped = false;
        self.start = start;
    }

    fn keep(&mut self, bytes: &[u8]) {
        let from = usize::from(self.length);
        match self.text.get_mut(from..from + bytes.len()) {
            Some(place) => {
                place.copy_from_slice(bytes);
                self.length += bytes.len() as u8;
            }
            None => self.cut = true,
        }
    }

    /// Takes what there is of a text; `at` is its place in the chunk.
    fn take_text(
        &mut self,
        bytes: &[u8],
        at: usize,
        fields: &Fields,
        sink: &mut impl FnMut(Event<'_>),
    ) -> usize {
        if self.escaped {
            self.escaped = false;
            match bytes[0] {
                byte @ (b'"' | b'\\' | b'/') => self.keep(&[byte]),
                _ => self.cut = true,
            }
            return 1;
        }
        let found = find_quote(bytes);
        self.keep(&bytes[..found.unwrap_or(bytes.len())]);
        let Some(found) = found else { return bytes.len() };
        if bytes[found] == b'\\' {
            self.escaped = true;
        } else if self.state == State::InKey {
            let key = &self.text[..usize::from(self.length)];
            let parent = self.top().map(|(node, _)| node).filter(|_| !self.cut);
            self.node = parent.and_then(|parent| fields.child(parent, key));
            self.state = State::Colon;
        } else {
            let text = std::str::from_utf8(&self.text[..usize::from(self.length)]).ok();
            if let Some(field) = self.node.and_then(|node| fields.field(node)) {
                let text = Token::Text(text.filter(|_| !self.cut));
                sink(Event::Value(field, text, (self.start, self.taken + (at + found) as u64)));
            }
            self.after_value();
        }
        found + 1
    }

    fn end_literal(&mut self, offset: u64, fields: &Fields, sink: &mut impl FnMut(Event<'_>)) {
        let Some(field) = self.node.and_then(|node| fields.field(node)) else { return };
        let text = std::str::from_utf8(&self.text[..usize::from(self.length)]).unwrap_or("");
        let token = match text.as_bytes().first() {
            Some(b'-' | b'0'..=b'9') => Token::Number((!self.cut).then_some(text)),
            _ if text == "null" => Token::Null,
            _ => Token::Other,
        };
        sink(Event::Value(field, token, (self.start, offset)));
    }

    fn skip_string(&mut self, bytes: &[u8]) -> usize {
        if self.escaped {
            self.escaped = false;
            return 1;
        }
        let Some(found) = find_quote(bytes) else { return bytes.len() };
        if bytes[found] == b'\\' {
            self.escaped = true;
        } else if self.state == State::DeadString {
            self.state = State::Dead;
        } else {
            self.after_value();
        }
        found + 1
    }

    fn skip_brackets(&mut self, bytes: &[u8]) -> usize {
        for (place, byte) in bytes.iter().enumerate() {
            match byte {
                b'"' => {
                    self.state = State::DeadString;
                    return place + 1;
                }
                b'{' | b'[' => self.dead += 1,
                b'}' | b']' => {
                    self.dead -= 1;
                    if self.dead == 0 {
                        self.after_value();
                        return place + 1;
                    }
                }
                _ => {}
            }
        }
        bytes.len()
    }
}

/// The first quote or backslash, eight bytes at a time: most of a body is the inside of strings.
fn find_quote(bytes: &[u8]) -> Option<usize> {
    const LOW: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let holds = |word: u64, byte: u8| {
        let word = word ^ (LOW * u64::from(byte));
        word.wrapping_sub(LOW) & !word & HIGH
    };
    let mut chunks = bytes.chunks_exact(8);
    let mut place = 0;
    for chunk in &mut chunks {
        let word = chunk.try_into().map(u64::from_le_bytes).unwrap_or(0);
        let hits = holds(word, b'"') | holds(word, b'\\');
        if hits != 0 {
            return Some(place + (hits.trailing_zeros() / 8) as usize);
        }
        place += 8;
    }
    let rest = chunks.remainder();
    rest.iter().position(|byte| matches!(byte, b'"' | b'\\')).map(|found| place + found)
}

/// Where in a whole document the value of a field is written, the first time.
pub(super) fn find(body: &[u8], fields: &Fields, wanted: Field) -> Option<Range<usize>> {
    let mut found = None;
    Scanner::new().push(body, fields, |event| {
        if let Event::Value(field, Token::Text(_), (start, end)) = event
            && field == wanted
            && found.is_none()
        {
            found = Some((start, end));
        }
    });
    let (start, end) = found?;
    Some(usize::try_from(start).ok()?..usize::try_from(end).ok()?)
}
