//! The chunks of an async stream, and its closing.

use super::{Body, Chunks, arrived, below, broke, chunks, ended, left, let_go};
use crate::arguments::answer;
use crate::awaiting::{self, Work, awaitable, sendable};
use crate::types::{Definitions, Type, definition, drop_ref, slot};
use pyo3::Borrowed;
use pyo3::exceptions::{PyRuntimeError, PyStopAsyncIteration};
use pyo3::ffi::{self, Py_ssize_t, PyObject};
use pyo3::prelude::*;
use std::ffi::c_void;

static CHUNKS: Type = Type::new();
static CHUNK: Type = Type::new();
static CLOSING: Type = Type::new();

/// Of a stream.
pub(super) static METHODS: Definitions<2> = Definitions([
    definition(c"aclose", close, c"aclose($self, /)\n--\n\nThe application lets go of the response."),
    ffi::PyMethodDef::zeroed(),
]);

/// Of what goes through it.
static CHUNKS_METHODS: Definitions<2> = Definitions([
    definition(
        c"aclose",
        close_chunks,
        c"aclose($self, /)\n--\n\nNo more is wanted, as of an async generator that is closed.",
    ),
    ffi::PyMethodDef::zeroed(),
]);

/// Makes the types.
pub(super) fn add_to(module: &Bound<'_, PyModule>) -> PyResult<()> {
    awaiting::add_kind::<Chunk>(module, &CHUNK, c"farcall._farcall.Chunk")?;
    awaiting::add_kind::<Closing>(module, &CLOSING, c"farcall._farcall.Closing")?;
    let iterator =
        [slot(ffi::Py_am_aiter, chunks::itself as *mut c_void), slot(ffi::Py_am_anext, next as *mut c_void)];
    chunks::add_kind(module, &CHUNKS, c"farcall._farcall.AsyncChunks", iterator, &CHUNKS_METHODS)
}

/// What `AsyncBody.__aiter__` gives.
#[allow(unsafe_code)]
pub(super) unsafe extern "C" fn of(this: *mut PyObject) -> *mut PyObject {
    // SAFETY: CPython calls it, attached, with an instance, over a stream that is there.
    unsafe {
        let py = Python::assume_attached();
        chunks::through(this, &CHUNKS, |stream| {
            let made = Borrowed::from_ptr(py, stream).call_method0(pyo3::intern!(py, "__aiter__"));
            pointer(py, made.map(Bound::into_ptr))
        })
    }
}

/// What `AsyncChunks.__anext__` gives.
#[allow(unsafe_code)]
unsafe extern "C" fn next(this: *mut PyObject) -> *mut PyObject {
    // SAFETY: CPython calls it, attached, with an instance.
    unsafe {
        let py = Python::assume_attached();
        let chunks = this.cast::<Chunks>();
        let Some(below) = Bound::from_borrowed_ptr_or_opt(py, (*chunks).below) else {
            PyStopAsyncIteration::new_err(()).restore(py);
            return std::ptr::null_mut();
        };
        let awaited =
            below.call_method0(pyo3::intern!(py, "__anext__")).and_then(|awaited| sendable(py, awaited));
        match awaited {
            Ok(awaited) => awaitable(&CHUNK, Chunk(ffi::Py_NewRef(this)), awaited),
            Err(error) => {
                error.restore(py);
                over(this);
                std::ptr::null_mut()
            }
        }
    }
}

/// The stream ended in the exception that is set, which says whether that was all.
///
/// # Safety
/// The thread is attached, and `chunks` is one.
#[allow(unsafe_code)]
unsafe fn over(chunks: *mut PyObject) {
    // SAFETY: the caller's promise.
    unsafe {
        let py = Python::assume_attached();
        let chunks = chunks.cast::<Chunks>();
        let body = (*chunks).body.cast::<Body>();
        if ffi::PyErr_ExceptionMatches(ffi::PyExc_StopAsyncIteration) == 0 {
            broke(body);
        } else {
            let all = PyErr::fetch(py);
            ended(body).err().unwrap_or(all).restore(py);
        }
        let error = PyErr::fetch(py);
        drop_ref(&raw mut (*chunks).below);
        error.restore(py);
    }
}

/// The next chunk: of this [`Chunks`], a reference of its own.
struct Chunk(*mut PyObject);

#[allow(unsafe_code)]
impl Work for Chunk {
    unsafe fn begin(&mut self, _py: Python<'_>) -> PyResult<*mut PyObject> {
        Err(PyRuntimeError::new_err("a chunk is asked for before it is awaited"))
    }

    unsafe fn within<T>(&mut self, step: impl FnOnce() -> T) -> T {
        step()
    }

    unsafe fn returned(&mut self, value: Borrowed<'_, '_, PyAny>) -> PyResult<()> {
        // SAFETY: what it holds is there, or was cleared.
        unsafe {
            let Some(chunks) = self.0.cast::<Chunks>().as_mut() else { return Ok(()) };
            chunks.begun = true;
            arrived(chunks.body.cast(), value.as_ptr())
        }
    }

    unsafe fn raised(&mut self, _py: Python<'_>) {
        if !self.0.is_null() {
            // SAFETY: the caller's promise.
            unsafe { over(self.0) }
        }
    }

    fn fields(&mut self) -> impl Iterator<Item = *mut *mut PyObject> {
        std::iter::once(&raw mut self.0)
    }
}

/// The closing of this `Body`, a reference of its own.
struct Closing(*mut PyObject);

#[allow(unsafe_code)]
impl Work for Closing {
    unsafe fn begin(&mut self, py: Python<'_>) -> PyResult<*mut PyObject> {
        // SAFETY: the caller's promise.
        unsafe {
            let closing = below(py, self.0.cast())
                .and_then(|stream| stream.call_method0(pyo3::intern!(py, "aclose")))
                .and_then(|awaited| sendable(py, awaited));
            if closing.is_err() {
                let_go(py, self.0.cast())?;
            }
            closing
        }
    }

    unsafe fn within<T>(&mut self, step: impl FnOnce() -> T) -> T {
        step()
    }

    unsafe fn returned(&mut self, value: Borrowed<'_, '_, PyAny>) -> PyResult<()> {
        if self.0.is_null() {
            return Ok(());
        }
        // SAFETY: the caller's promise.
        unsafe { let_go(value.py(), self.0.cast()) }
    }

    unsafe fn raised(&mut self, py: Python<'_>) {
        if self.0.is_null() {
            return;
        }
        let error = PyErr::fetch(py);
        // SAFETY: the caller's promise.
        match unsafe { let_go(py, self.0.cast()) } {
            Ok(()) => error.restore(py),
            Err(other) => {
                other.set_context(py, Some(error));
                other.restore(py);
            }
        }
    }

    unsafe fn unawaited(&mut self, py: Python<'_>) {
        awaiting::warn_unawaited(py, "aclose");
    }

    fn fields(&mut self) -> impl Iterator<Item = *mut *mut PyObject> {
        std::iter::once(&raw mut self.0)
    }
}

/// `AsyncBody.aclose()`.
#[allow(unsafe_code)]
unsafe extern "C" fn close(
    this: *mut PyObject,
    args: *mut *mut PyObject,
    count: Py_ssize_t,
) -> *mut PyObject {
    // SAFETY: CPython calls it with an instance.
    unsafe {
        answer(args, count, |given| {
            given.expect(0)?;
            Ok(awaitable(&CLOSING, Closing(ffi::Py_NewRef(this)), std::ptr::null_mut()))
        })
    }
}

/// `AsyncChunks.aclose()`.
#[allow(unsafe_code)]
unsafe extern "C" fn close_chunks(
    this: *mut PyObject,
    args: *mut *mut PyObject,
    count: Py_ssize_t,
) -> *mut PyObject {
    // SAFETY: CPython calls it with an instance.
    unsafe {
        answer(args, count, |given| {
            given.expect(0)?;
            let below = Bound::from_owned_ptr_or_opt(given.py, left(this.cast()));
            let close = match &below {
                Some(below) => below.getattr_opt("aclose")?,
                None => None,
            };
            let closing = match close {
                Some(close) => close.call0()?,
                None => given.py.import("farcall._hook")?.call_method0("nothing")?,
            };
            Ok(closing.into_ptr())
        })
    }
}

/// The object, or null with the exception.
fn pointer(py: Python<'_>, made: PyResult<*mut PyObject>) -> *mut PyObject {
    made.unwrap_or_else(|error| {
        error.restore(py);
        std::ptr::null_mut()
    })
}
