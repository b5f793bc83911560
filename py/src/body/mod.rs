//! The body of a response of httpx on its way to the application: what it is handed, and what tells its call.
//!
//! Written against the C API, as [`crate::object`] is and for its reasons. In Python these were classes and generators,
//! and with the frames of both they made up half of what a call costs.

mod asynchronous;
mod chunks;

use crate::arguments::{Arguments, answer, none};
use crate::call::Call;
use crate::guard::{guarded, guarded_at_end, tell};
use crate::object;
use crate::types::{Definitions, Instance, Type, collected, definition, slot};
use pyo3::exceptions::{PyRuntimeError, PyTypeError};
use pyo3::ffi::{self, Py_ssize_t, PyObject};
use pyo3::prelude::*;
use std::ffi::{CStr, c_void};

/// The end mark of an event stream in OpenAI's dialect. Its SDKs close the response there, one read before HTTP would
/// say that this was all: such a stream is complete, not abandoned.
const DONE: &[u8] = b"data: [DONE]";

/// How CPython lays out a stream: the base of the classes that a library accepts. All references are owned; null in an
/// object that was not filled in yet, or that the collector has cleared.
#[repr(C)]
struct Body {
    base: PyObject,
    /// An instance of `Call`.
    call: *mut PyObject,
    stream: *mut PyObject,
    headers: *mut PyObject,
    /// The last chunk that came; null before there is one.
    last: *mut PyObject,
    /// Whether nothing has ended it yet.
    open: bool,
}

/// How CPython lays out what goes through a stream once.
#[repr(C)]
struct Chunks {
    base: PyObject,
    body: *mut PyObject,
    /// The iterator of the stream below; null where it is used up.
    below: *mut PyObject,
    /// Whether it has handed out something since.
    begun: bool,
}

// SAFETY: it is laid out so.
#[allow(unsafe_code)]
unsafe impl Instance for Body {
    fn references(&mut self) -> impl Iterator<Item = *mut *mut PyObject> {
        [&raw mut self.stream, &raw mut self.headers, &raw mut self.last, &raw mut self.call].into_iter()
    }
}

// SAFETY: it is laid out so.
#[allow(unsafe_code)]
unsafe impl Instance for Chunks {
    fn references(&mut self) -> impl Iterator<Item = *mut *mut PyObject> {
        [&raw mut self.below, &raw mut self.body].into_iter()
    }

    unsafe fn leave(this: *mut Self) {
        // SAFETY: the caller's promise. One that was begun is told before what is below it goes.
        unsafe { ffi::Py_XDECREF(left(this)) }
    }
}

static BODY: Type = Type::new();
static ASYNC_BODY: Type = Type::new();

static METHODS: Definitions<2> = Definitions([
    definition(c"close", close, c"close($self, /)\n--\n\nThe application lets go of the response."),
    ffi::PyMethodDef::zeroed(),
]);

/// Adds the types to the module.
pub(crate) fn add_to(module: &Bound<'_, PyModule>) -> PyResult<()> {
    chunks::add_to(module)?;
    asynchronous::add_to(module)?;
    let iterable = slot(ffi::Py_tp_iter, chunks::of as *mut c_void);
    let body = add_kind(module, c"farcall._farcall.Body", iterable, &METHODS)?;
    BODY.set(body.clone());
    module.add("Body", body)?;
    let iterable = slot(ffi::Py_am_aiter, asynchronous::of as *mut c_void);
    let body = add_kind(module, c"farcall._farcall.AsyncBody", iterable, &asynchronous::METHODS)?;
    ASYNC_BODY.set(body.clone());
    module.add("AsyncBody", body)
}

fn add_kind<'py>(
    module: &Bound<'py, PyModule>,
    name: &'static CStr,
    iterable: ffi::PyType_Slot,
    methods: &'static Definitions<2>,
) -> PyResult<Bound<'py, PyAny>> {
    let doc = c"A response's stream, whose call ends with it: the base of the classes that libraries accept.";
    collected::<Body>(module, name, ffi::Py_TPFLAGS_BASETYPE, doc, &methods.0, &[iterable])
}

/// A new stream for the call, in the place of `stream`: an instance of `kind`, which derives from `Body` or `AsyncBody`.
///
/// # Errors
/// Where `kind` does not, or there is no memory.
///
/// # Safety
/// The thread is attached, and `call` is an instance of `Call`.
#[allow(unsafe_code)]
pub(crate) unsafe fn stream(
    py: Python<'_>,
    call: *mut PyObject,
    stream: *mut PyObject,
    headers: *mut PyObject,
    kind: *mut PyObject,
) -> PyResult<*mut PyObject> {
    // SAFETY: an instance of a type that derives from either begins with their layout; its memory is zero, and is filled
    // in before anybody else sees it.
    unsafe {
        let derives = |base: &Type| ffi::PyType_IsSubtype(kind.cast(), base.get()) != 0;
        if ffi::PyType_Check(kind) == 0 || !(derives(&BODY) || derives(&ASYNC_BODY)) {
            return Err(PyTypeError::new_err("a class that derives from Body or AsyncBody is needed"));
        }
        let made = ffi::PyType_GenericAlloc(kind.cast(), 0);
        if made.is_null() {
            return Err(PyErr::fetch(py));
        }
        let body = made.cast::<Body>();
        (*body).call = ffi::Py_NewRef(call);
        (*body).stream = ffi::Py_NewRef(stream);
        (*body).headers = ffi::Py_NewRef(headers);
        (*body).open = true;
        Ok(made)
    }
}

/// What stands below a stream.
///
/// # Errors
/// Where it was never filled in.
///
/// # Safety
/// The thread is attached, and `body` is there.
#[allow(unsafe_code)]
unsafe fn below<'py>(py: Python<'py>, body: *mut Body) -> PyResult<Bound<'py, PyAny>> {
    // SAFETY: the caller's promise.
    unsafe {
        Bound::from_borrowed_ptr_or_opt(py, (*body).stream)
            .ok_or_else(|| PyRuntimeError::new_err("there is no stream"))
    }
}

/// A chunk came.
///
/// # Errors
/// As of [`guarded`].
///
/// # Safety
/// Both are there, or `body` is null.
#[allow(unsafe_code)]
unsafe fn arrived(body: *mut Body, chunk: *mut PyObject) -> PyResult<()> {
    // SAFETY: the caller's promise; the old chunk goes when nothing refers to it from here any more.
    unsafe {
        if body.is_null() {
            return Ok(());
        }
        let old = std::mem::replace(&mut (*body).last, ffi::Py_NewRef(chunk));
        ffi::Py_XDECREF(old);
        guarded("httpx.body", || match call_of(body) {
            Some(call) => object::take(call, &Arguments { py: Python::assume_attached(), given: &[chunk] }),
            None => Ok(()),
        })
    }
}

/// Nothing more comes: that was all.
///
/// # Errors
/// As of [`guarded`].
///
/// # Safety
/// `body` is there or null.
#[allow(unsafe_code)]
unsafe fn ended(body: *mut Body) -> PyResult<()> {
    // SAFETY: the caller's promise.
    unsafe {
        if body.is_null() {
            return Ok(());
        }
        (*body).open = false;
        guarded("httpx.end", || {
            if let Some(call) = call_of(body) {
                call.end();
            }
            Ok(())
        })
    }
}

/// The stream ended in the exception that is set.
///
/// # Safety
/// The thread is attached, and `body` is there or null.
#[allow(unsafe_code)]
unsafe fn broke(body: *mut Body) {
    // SAFETY: the caller's promise.
    unsafe {
        if !body.is_null() && !(*body).call.is_null() {
            tell("broke", "httpx.body", (*body).call, None);
        }
    }
}

/// `Body.close()`.
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
            let body = this.cast::<Body>();
            let Ok(stream) = below(given.py, body) else { return Ok(none()) };
            let closed = stream.call_method0(pyo3::intern!(given.py, "close"));
            let_go(given.py, body)?;
            closed.map(|_| none())
        })
    }
}

/// The application let go of a response, perhaps before its end. One whose body broke has settled before.
///
/// # Errors
/// As of [`guarded`].
///
/// # Safety
/// `body` is there.
#[allow(unsafe_code)]
unsafe fn let_go(py: Python<'_>, body: *mut Body) -> PyResult<()> {
    // SAFETY: the caller's promise; what the collector clears, it clears of what nobody can ask any more.
    unsafe {
        if !(*body).open || (*body).headers.is_null() {
            return Ok(());
        }
        (*body).open = false;
        guarded("httpx.close", || {
            let whole = if (*body).last.is_null() {
                let headers = Bound::from_borrowed_ptr(py, (*body).headers);
                headers.call_method1("get", ("content-length",))?.eq("0")?
            } else {
                let last = Bound::from_borrowed_ptr(py, (*body).last);
                last.extract::<&[u8]>()?.trim_ascii_end().ends_with(DONE)
            };
            if let Some(call) = call_of(body) {
                match whole {
                    true => call.end(),
                    false => call.abandon(),
                }
            }
            Ok(())
        })
    }
}

/// Nobody wants what is left; returns the iterator below, which is the caller's now, or null.
///
/// # Safety
/// The thread is attached, and `chunks` is there.
#[allow(unsafe_code)]
unsafe fn left(chunks: *mut Chunks) -> *mut PyObject {
    // SAFETY: the caller's promise.
    unsafe {
        let below = std::mem::replace(&mut (*chunks).below, std::ptr::null_mut());
        if !below.is_null() && (*chunks).begun {
            guarded_at_end("httpx.body", || {
                if let Some(call) = call_of((*chunks).body.cast()) {
                    call.abandon();
                }
                Ok(())
            });
        }
        below
    }
}

/// The call of a stream.
///
/// # Safety
/// `body` is null, or there for as long as the result is used.
#[allow(unsafe_code)]
unsafe fn call_of<'a>(body: *mut Body) -> Option<&'a Call> {
    // SAFETY: the caller's promise; `call` is null or an instance of `Call`.
    unsafe {
        let call = body.as_ref()?.call;
        (!call.is_null()).then(|| object::held(call))
    }
}
