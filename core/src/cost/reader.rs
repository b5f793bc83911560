//! Reads what a call used from its response, as the bytes pass by.

use super::fields::{Field, Fields, Side, Slot};
use super::scan::{Event, Scanner, Token};
use super::usage::{MAX_COUNT, ModelName, ServiceTier, Tally, Usage};
use super::{Price, Unknown};
use crate::units::decimal;
use std::sync::Arc;

/// Reads the usage of one response: JSON, a stream of events (SSE), or JSON documents one after the other, in
/// the dialects of OpenAI (chat completions and Responses), Anthropic, Gemini, Cohere and those like them.
///
/// Takes the body in chunks of any size; holds about a KiB and allocates nothing. What vendors repeat in a
/// stream is a running total: the last statement holds.
///
/// ```
/// use farcall::cost::{Kind, UsageReader};
///
/// let mut reader = UsageReader::new(None, Some("application/json"), None);
/// reader.push(br#"{"model":"gpt-4o-2024-08-06","usage":{"prompt_tokens":12,"comp"#);
/// reader.push(br#"letion_tokens":7}}"#);
/// let usage = reader.finish(true);
/// assert_eq!(usage.model.as_str(), "gpt-4o-2024-08-06");
/// assert_eq!(usage.get(Kind::Output), Some(7));
/// ```
#[derive(Clone, Debug)]
pub struct UsageReader {
    form: Form,
    scanner: Scanner,
    lines: Lines,
    tally: Tally,
    list: ModalityEntry,
    fields: Arc<Fields>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// Nobody said: the first byte will tell.
    Unsaid,
    Json,
    Events,
    /// Not to be read, and why.
    Off(Unknown),
}

/// An entry of a list of modalities, until its end.
#[derive(Clone, Copy, Debug, Default)]
struct ModalityEntry {
    modality: Modality,
    count: Option<u64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Modality {
    #[default]
    Text,
    Audio,
    Image,
}

impl UsageReader {
    /// A reader for a response with these headers. `price` where it wants numbers of its own from the body.
    /// Bytes still in a content coding cannot be read; an adapter that sees them decoded leaves
    /// `content_encoding` out.
    #[must_use]
    pub fn new(price: Option<&Price>, content_type: Option<&str>, content_encoding: Option<&str>) -> Self {
        let encoded = content_encoding
            .is_some_and(|coding| !coding.is_empty() && !coding.eq_ignore_ascii_case("identity"));
        let form = if encoded { Form::Off(Unknown::Encoded) } else { Form::of(content_type) };
        Self {
            form,
            scanner: Scanner::new(),
            lines: Lines::new(),
            tally: Tally::new(),
            list: ModalityEntry::default(),
            fields: Arc::clone(price.map_or(Fields::response(), Price::fields)),
        }
    }

    /// Whether it looks at the body at all.
    #[must_use]
    pub fn reads(&self) -> bool {
        !matches!(self.form, Form::Off(_))
    }

    /// The next bytes of the body.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.form == Form::Unsaid {
            match bytes.iter().find(|byte| !byte.is_ascii_whitespace()) {
                None => return,
                Some(b'{' | b'[') => self.form = Form::Json,
                Some(b'd' | b'e' | b'i' | b'r' | b':') => self.form = Form::Events,
                Some(_) => self.form = Form::Off(Unknown::OtherContent),
            }
        }
        let Self { scanner, lines, tally, list, fields, form, .. } = self;
        match form {
            Form::Json => scanner.push(bytes, fields, |event| take(tally, list, event)),
            Form::Events => lines.push(bytes, |part| match part {
                Part::Piece(piece) => scanner.push(piece, fields, |event| take(tally, list, event)),
                Part::End => scanner.restart(),
            }),
            Form::Unsaid | Form::Off(_) => {}
        }
    }

    /// A number of the price's own that stood in a header of the response.
    pub fn header(&mut self, price: &Price, name: &str, value: &str) {
        if let Some(number) = price.unit_of_header(name) {
            take_unit(&mut self.tally, number, Some(value.trim()));
        }
    }

    /// What the call used. `whole`: the body came to its end; where it did not, what was stated so far is
    /// used, and the rest is unknown.
    #[must_use]
    pub fn finish(self, whole: bool) -> Usage {
        let off = match self.form {
            Form::Off(why) => Some(why),
            _ => None,
        };
        self.tally.account(whole, off, self.scanner.lost())
    }
}

impl Form {
    fn of(content_type: Option<&str>) -> Self {
        let Some(text) = content_type else { return Self::Unsaid };
        let media = text.split(';').next().unwrap_or("").trim();
        let is = |known: &str| media.eq_ignore_ascii_case(known);
        let ends = |known: &str| {
            media.len() >= known.len()
                && media.as_bytes()[media.len() - known.len()..].eq_ignore_ascii_case(known.as_bytes())
        };
        if is("text/event-stream") {
            Self::Events
        } else if ends("json") || ends("ndjson") || ends("jsonl") {
            Self::Json
        } else if media.is_empty() || is("text/plain") {
            Self::Unsaid
        } else {
            Self::Off(Unknown::OtherContent)
        }
    }
}

fn take(tally: &mut Tally, list: &mut ModalityEntry, event: Event<'_>) {
    match event {
        Event::Value(Field::Count(slot), token, _) => {
            if let Some(count) = count(tally, token) {
                tally.state(slot, count);
            }
        }
        Event::Value(Field::Model, Token::Text(Some(name)), _) if !name.is_empty() => {
            tally.model = ModelName::new(name);
        }
        Event::Value(Field::ServiceTier, Token::Text(Some(word)), _) if tally.tier != ServiceTier::Fast => {
            tally.tier = ServiceTier::of_word(word);
        }
        Event::Value(Field::Speed, Token::Text(Some("fast")), _) => tally.tier = ServiceTier::Fast,
        Event::Value(Field::Finished, Token::Text(_), _) => tally.ended = true,
        Event::Value(Field::Type, Token::Text(Some(word)), _) => {
            tally.ended |= matches!(
                word,
                "response.completed" | "response.incomplete" | "response.failed" | "message-end"
            );
        }
        Event::Value(Field::Modality, Token::Text(Some(word)), _) => {
            list.modality = match word {
                "AUDIO" => Modality::Audio,
                "IMAGE" => Modality::Image,
                _ => Modality::Text,
            };
        }
        Event::Value(Field::ModalityCount, token, _) => list.count = count(tally, token),
        Event::Closed(Field::Modalities(side)) => {
            let slot = match (side, list.modality) {
                (Side::Prompt, Modality::Audio) => Some(Slot::AudioInput),
                (Side::Cache, Modality::Audio) => Some(Slot::CachedAudio),
                (Side::Answer, Modality::Audio) => Some(Slot::AudioOutput),
                (Side::Answer, Modality::Image) => Some(Slot::ImageOutput),
                _ => None,
            };
            if let (Some(slot), Some(count)) = (slot, list.count) {
                tally.state(slot, count);
            }
            *list = ModalityEntry::default();
        }
        Event::Value(Field::Unit(number), Token::Number(text), _) => take_unit(tally, number, text),
        Event::Value(Field::Unit(number), Token::Text(text), _) => take_unit(tally, number, text),
        _ => {}
    }
}

/// A count that can be believed. `null` states nothing.
fn count(tally: &mut Tally, token: Token<'_>) -> Option<u64> {
    let stated = match token {
        Token::Null => return None,
        Token::Number(Some(text)) => decimal(text, 0).ok().and_then(|count| u64::try_from(count).ok()),
        _ => None,
    };
    let believed = stated.filter(|count| *count <= MAX_COUNT);
    if believed.is_none() {
        tally.refuse();
    }
    believed
}

fn take_unit(tally: &mut Tally, number: u8, text: Option<&str>) {
    let stated = text.and_then(|text| decimal(text, 9).or_else(|_| rounded(text)).ok());
    let believed = stated.and_then(|count| u64::try_from(count).ok());
    match (believed.filter(|count| *count <= MAX_COUNT * 1_000_000), tally.units.get_mut(usize::from(number)))
    {
        (Some(count), Some(place)) => *place = count,
        _ => tally.refuse(),
    }
}

/// A number with more than nine decimals, as programs print floats: to the nearest billionth.
fn rounded(text: &str) -> Result<u128, crate::units::BadMoney> {
    decimal(text, 27).map(|fine| (fine + 500_000_000_000_000_000) / 1_000_000_000_000_000_000)
}

/// The lines of a stream of events, of which only `data` matters (WHATWG HTML, section 9.2.6).
#[derive(Clone, Copy, Debug)]
struct Lines {
    place: Place,
    /// The last line ended in a carriage return: a line feed right after belongs to it.
    after_cr: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// So many bytes of the line matched `data:`.
    Name(u8),
    Data,
    Other,
}

enum Part<'a> {
    /// Bytes of an event's data.
    Piece(&'a [u8]),
    /// The end of an event.
    End,
}

impl Lines {
    const NAME: &'static [u8] = b"data:";

    const fn new() -> Self {
        Self { place: Place::Name(0), after_cr: false }
    }

    fn push(&mut self, bytes: &[u8], mut sink: impl FnMut(Part<'_>)) {
        let mut at = 0;
        while at < bytes.len() {
            let rest = &bytes[at..];
            if std::mem::take(&mut self.after_cr) && rest[0] == b'\n' {
                at += 1;
                continue;
            }
            if matches!(self.place, Place::Data | Place::Other) {
                let end = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
                let piece = &rest[..end.unwrap_or(rest.len())];
                if self.place == Place::Data {
                    sink(Part::Piece(piece));
                }
                at += piece.len();
                if end.is_some() {
                    if self.place == Place::Data {
                        // Lines of one event are joined by a line feed, which also ends a number.
                        sink(Part::Piece(b"\n"));
                    }
                    self.after_cr = bytes[at] == b'\r';
                    self.place = Place::Name(0);
                    at += 1;
                }
                continue;
            }
            let Place::Name(matched) = self.place else { continue };
            let byte = rest[0];
            at += 1;
            self.place = match byte {
                b'\n' | b'\r' => {
                    self.after_cr = byte == b'\r';
                    if matched == 0 {
                        sink(Part::End);
                    }
                    Place::Name(0)
                }
                _ if byte == Self::NAME[usize::from(matched)] => {
                    if usize::from(matched) + 1 == Self::NAME.len() {
                        Place::Data
                    } else {
                        Place::Name(matched + 1)
                    }
                }
                _ => Place::Other,
            };
        }
    }
}
