//! Headers between Python and the engine, as a library has them: pairs of `bytes`, or of `str`.

use farcall::{HeaderNames, Headers, Stored};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyString, PyTuple};

/// The name under which a channel stands among the headers; no header can have it.
const CHANNEL: &[u8] = b"farcall channel";

/// The headers of a message, copied: Python may change its own meanwhile.
pub(crate) struct Shown<'a> {
    /// All names and values, one after the other.
    text: Vec<u8>,
    /// Where a name and its value end in it.
    ends: Vec<(usize, usize)>,
    /// Whether each of them could be read.
    whole: bool,
    octets: bool,
    /// What else keeps the answers apart from others'.
    channel: Option<&'a [u8]>,
}

impl<'a> Shown<'a> {
    /// Reads tuples or lists, of which the first is a name and the last a value; what is neither `str` nor `bytes` is
    /// left out.
    ///
    /// # Errors
    /// An exception of the iterable's.
    pub(crate) fn read(pairs: &Bound<'_, PyAny>, channel: Option<&'a [u8]>) -> PyResult<Self> {
        let mut shown =
            Self { text: Vec::with_capacity(512), ends: Vec::new(), whole: true, octets: false, channel };
        if let Ok(list) = pairs.cast::<PyList>() {
            shown.ends.reserve_exact(list.len());
            list.iter().try_for_each(|pair| shown.add(&pair))?;
        } else {
            pairs.try_iter()?.try_for_each(|pair| shown.add(&pair?))?;
        }
        Ok(shown)
    }

    fn add(&mut self, pair: &Bound<'_, PyAny>) -> PyResult<()> {
        let start = self.text.len();
        let known = match pair.cast::<PyTuple>() {
            Ok(tuple) if !tuple.is_empty() => {
                let (name, value) = (tuple.get_borrowed_item(0)?, tuple.get_borrowed_item(tuple.len() - 1)?);
                self.octets = name.is_instance_of::<PyBytes>();
                self.push(&name).zip(self.push(&value))
            }
            _ => {
                let (name, value) = (pair.get_item(0)?, pair.get_item(-1)?);
                self.push(&name).zip(self.push(&value))
            }
        };
        match known {
            Some(ends) => self.ends.push(ends),
            None => {
                self.text.truncate(start);
                self.whole = false;
            }
        }
        Ok(())
    }

    /// Copies what an object holds; returns where it ends.
    fn push(&mut self, object: &Bound<'_, PyAny>) -> Option<usize> {
        if let Ok(bytes) = object.cast::<PyBytes>() {
            self.text.extend_from_slice(bytes.as_bytes());
        } else {
            let text = object.cast::<PyString>().ok()?.to_str().ok()?;
            if text.is_ascii() {
                self.text.extend_from_slice(text.as_bytes());
            } else {
                // What libraries show as text is ISO 8859-1 on the wire.
                for character in text.chars() {
                    match u8::try_from(character) {
                        Ok(byte) => self.text.push(byte),
                        Err(_) => {
                            self.text.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                        }
                    }
                }
            }
        }
        Some(self.text.len())
    }

    /// Whether the library has them as `bytes`.
    pub(crate) fn are_octets(&self) -> bool {
        self.octets
    }

    fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let starts = std::iter::once(0).chain(self.ends.iter().map(|(_, end)| *end));
        let parts = starts.zip(&self.ends);
        parts.map(|(start, (name, value))| (&self.text[start..*name], &self.text[*name..*value]))
    }
}

impl Headers for Shown<'_> {
    fn get(&self, name: &str) -> Option<&[u8]> {
        let mut all = self.iter();
        all.find(|(known, _)| known.eq_ignore_ascii_case(name.as_bytes())).map(|(_, value)| value)
    }

    fn pick<'a>(&'a self, wanted: &HeaderNames, values: &mut [Option<&'a [u8]>]) {
        for (name, value) in self.iter() {
            if let Some(place) = wanted.place(name)
                && let Some(first @ None) = values.get_mut(place)
            {
                *first = Some(value);
            }
        }
    }

    fn each(&self, see: &mut dyn FnMut(&[u8], &[u8])) -> bool {
        if let Some(channel) = self.channel {
            see(CHANNEL, channel);
        }
        self.iter().for_each(|(name, value)| see(name, value));
        self.whole
    }
}

/// The headers of an answer that is kept, as pairs of `bytes` (`octets`) or of `str`, in which a byte that is no ASCII
/// is the character of that number (ISO 8859-1).
pub(crate) fn of<'py>(py: Python<'py>, stored: &Stored, octets: bool) -> PyResult<Bound<'py, PyList>> {
    let text = |bytes: &[u8]| match std::str::from_utf8(bytes) {
        Ok(text) if text.is_ascii() => PyString::new(py, text).into_any(),
        _ => PyString::new(py, &bytes.iter().copied().map(char::from).collect::<String>()).into_any(),
    };
    let object = |bytes: &[u8]| match octets {
        true => PyBytes::new(py, bytes).into_any(),
        false => text(bytes),
    };
    let list = PyList::empty(py);
    for (name, value) in &stored.headers {
        list.append(PyTuple::new(py, [object(name.as_str().as_bytes()), object(value.as_bytes())])?)?;
    }
    Ok(list)
}
