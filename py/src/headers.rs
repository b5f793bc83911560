//! Headers between Python and the engine, as a library has them: pairs of `bytes`, or of `str`.

use farcall::{HeaderNames, Headers, Stored};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyString, PyTuple};
use pyo3::{ffi, intern};

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

    /// Reads the values of a dict, if each of them is a tuple of text or of `bytes`: then nothing of Python's is run
    /// on the way.
    pub(crate) fn of_values(pairs: &Bound<'_, PyDict>) -> Option<Self> {
        let mut shown = Self {
            text: Vec::with_capacity(512),
            ends: Vec::new(),
            whole: true,
            octets: false,
            channel: None,
        };
        shown.ends.reserve_exact(pairs.len());
        for (_, pair) in pairs {
            shown.add(pair.cast::<PyTuple>().ok().filter(|pair| !pair.is_empty())?).ok()?;
        }
        Some(shown)
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

    fn pick<'a>(&'a self, wanted: &HeaderNames, values: &mut [Option<&'a [u8]>]) -> u64 {
        wanted.pick(self.iter(), values)
    }

    fn each(&self, see: &mut dyn FnMut(&[u8], &[u8])) -> bool {
        if let Some(channel) = self.channel {
            see(CHANNEL, channel);
        }
        self.iter().for_each(|(name, value)| see(name, value));
        self.whole
    }
}

/// Has `see` look at the headers of a response: at a list of tuples where it is, or at a copy of anything else.
///
/// `headers` are pairs, as [`Shown::read`] takes them, or what httpx has them in.
///
/// # Errors
/// An exception of the iterable's.
pub(crate) fn lend(headers: &Bound<'_, PyAny>, see: impl FnOnce(&dyn Headers)) -> PyResult<()> {
    let py = headers.py();
    let pairs = match headers.is_instance_of::<PyList>() {
        true => headers.clone(),
        // Tuples that begin with a name and end with its value; the public `raw` makes others of them at each read.
        false => match headers.getattr_opt(intern!(py, "_list"))? {
            Some(pairs) => pairs,
            None => headers.getattr(intern!(py, "raw"))?,
        },
    };
    match pairs.cast::<PyList>().ok().and_then(|list| Lent::of(list)) {
        Some(lent) => see(&lent),
        None => see(&Shown::read(&pairs, None)?),
    }
    Ok(())
}

/// The headers of a message where Python has them, for as long as none of it runs.
struct Lent<'a>(Vec<(&'a [u8], &'a [u8])>);

impl<'a> Lent<'a> {
    /// `None` where one of them is not a tuple of `bytes` or of ASCII text, whose bytes are those on the wire.
    fn of(list: &'a Bound<'_, PyList>) -> Option<Self> {
        let mut pairs = Vec::with_capacity(list.len());
        for place in 0..list.len() {
            // SAFETY: nothing runs that could change the list, and what it holds are a tuple and its items, neither of
            // which ever change, while `Lent` is there.
            #[allow(unsafe_code)]
            let pair = unsafe {
                let pair = ffi::PyList_GetItem(list.as_ptr(), ffi::Py_ssize_t::try_from(place).ok()?);
                if pair.is_null() || ffi::PyTuple_Check(pair) == 0 {
                    return None;
                }
                let size = ffi::PyTuple_Size(pair);
                if size == 0 {
                    return None;
                }
                (octets(ffi::PyTuple_GetItem(pair, 0))?, octets(ffi::PyTuple_GetItem(pair, size - 1))?)
            };
            pairs.push(pair);
        }
        Some(Self(pairs))
    }
}

/// What `bytes` or ASCII text holds; `None` for all else.
///
/// # Safety
/// The thread is attached, and the object is there for as long as the result is used.
#[allow(unsafe_code)]
unsafe fn octets<'a>(object: *mut ffi::PyObject) -> Option<&'a [u8]> {
    // SAFETY: the caller's promise; neither kind of object ever changes.
    unsafe {
        if ffi::PyBytes_Check(object) != 0 {
            let data = ffi::PyBytes_AsString(object).cast();
            return Some(std::slice::from_raw_parts(data, ffi::PyBytes_Size(object).unsigned_abs()));
        }
        if ffi::PyUnicode_Check(object) == 0 {
            return None;
        }
        let mut size = 0;
        let data = ffi::PyUnicode_AsUTF8AndSize(object, &mut size);
        if data.is_null() {
            ffi::PyErr_Clear();
            return None;
        }
        let text: &[u8] = std::slice::from_raw_parts(data.cast(), size.unsigned_abs());
        text.is_ascii().then_some(text)
    }
}

impl Headers for Lent<'_> {
    fn get(&self, name: &str) -> Option<&[u8]> {
        let known = self.0.iter().find(|(known, _)| known.eq_ignore_ascii_case(name.as_bytes()));
        known.map(|(_, value)| *value)
    }

    fn pick<'a>(&'a self, wanted: &HeaderNames, values: &mut [Option<&'a [u8]>]) -> u64 {
        wanted.pick(self.0.iter().copied(), values)
    }

    fn each(&self, see: &mut dyn FnMut(&[u8], &[u8])) -> bool {
        self.0.iter().for_each(|(name, value)| see(name, value));
        true
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
