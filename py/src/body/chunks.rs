//! What goes through a stream once: the chunks of a sync one, and what is the same of an async one.

use super::{Body, Chunks, arrived, below, broke, ended, left};
use crate::arguments::{answer, none};
use crate::guard::{function_of_python, or_stay};
use crate::types::{Definitions, Type, collected, definition, drop_ref, slot};
use pyo3::ffi::{self, Py_ssize_t, PyObject};
use pyo3::prelude::*;
use std::ffi::{CStr, c_void};
use std::sync::OnceLock;

static CHUNKS: Type = Type::new();

static METHODS: Definitions<2> = Definitions([
    definition(
        c"close",
        close,
        c"close($self, /)\n--\n\nNo more is wanted, as of a generator that is closed.",
    ),
    ffi::PyMethodDef::zeroed(),
]);

/// Makes the type.
pub(super) fn add_to(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let iterator =
        [slot(ffi::Py_tp_iter, itself as *mut c_void), slot(ffi::Py_tp_iternext, next as *mut c_void)];
    add_kind(module, &CHUNKS, c"farcall._farcall.Chunks", iterator, &METHODS)
}

/// Makes a type of which an instance is a [`Chunks`].
pub(super) fn add_kind(
    module: &Bound<'_, PyModule>,
    made: &Type,
    name: &'static CStr,
    iterator: [ffi::PyType_Slot; 2],
    methods: &'static Definitions<2>,
) -> PyResult<()> {
    let doc = c"What goes through a response's stream once.";
    made.set(collected::<Chunks>(module, name, 0, doc, &methods.0, &iterator)?);
    Ok(())
}

/// What `Body.__iter__` gives.
#[allow(unsafe_code)]
pub(super) unsafe extern "C" fn of(this: *mut PyObject) -> *mut PyObject {
    // SAFETY: CPython calls it, attached, with an instance.
    unsafe { through(this, &CHUNKS, |stream| ffi::PyObject_GetIter(stream)) }
}

/// A new instance of the type for a stream, over what `iterate` gives of the one below.
///
/// # Safety
/// The thread is attached, and `this` is a `Body`; `iterate` gives a new reference, or null with an exception.
#[allow(unsafe_code)]
pub(super) unsafe fn through(
    this: *mut PyObject,
    kind: &Type,
    iterate: impl FnOnce(*mut PyObject) -> *mut PyObject,
) -> *mut PyObject {
    // SAFETY: the caller's promise; allocated memory is zero, so that what is not filled in is null.
    unsafe {
        let py = Python::assume_attached();
        let stream = match below(py, this.cast()) {
            Ok(stream) => stream,
            Err(error) => {
                error.restore(py);
                return std::ptr::null_mut();
            }
        };
        let below = iterate(stream.as_ptr());
        if below.is_null() {
            broke(this.cast());
            return below;
        }
        let made = ffi::PyType_GenericAlloc(kind.get(), 0);
        if made.is_null() {
            ffi::Py_DECREF(below);
            return made;
        }
        let chunks = made.cast::<Chunks>();
        (*chunks).body = ffi::Py_NewRef(this);
        (*chunks).below = below;
        made
    }
}

#[allow(unsafe_code)]
pub(super) unsafe extern "C" fn itself(this: *mut PyObject) -> *mut PyObject {
    // SAFETY: CPython calls it with an instance.
    unsafe { ffi::Py_NewRef(this) }
}

/// What an iterator gives next, a new reference; null without an exception at its end.
///
/// # Safety
/// The thread is attached, and `iterator` is one.
#[allow(unsafe_code)]
unsafe fn next_of(iterator: *mut PyObject) -> *mut PyObject {
    type Next = unsafe extern "C-unwind" fn(*mut PyObject) -> *mut PyObject;
    static NEXT: OnceLock<Next> = OnceLock::new();
    // SAFETY: CPython has a function of this name, of this type.
    let next = NEXT.get_or_init(|| unsafe {
        std::mem::transmute::<*mut c_void, Next>(function_of_python(c"PyIter_Next"))
    });
    // SAFETY: the caller's promise.
    or_stay(|| unsafe { next(iterator) })
}

/// What `Chunks.__next__` gives: the next chunk; null without an exception at the end.
#[allow(unsafe_code)]
unsafe extern "C" fn next(this: *mut PyObject) -> *mut PyObject {
    // SAFETY: CPython calls it, attached, with an instance. What is used while other code may run is held meanwhile.
    unsafe {
        let chunks = this.cast::<Chunks>();
        let below = (*chunks).below;
        if below.is_null() {
            return below;
        }
        ffi::Py_INCREF(below);
        let chunk = next_of(below);
        let body = (*chunks).body.cast::<Body>();
        let mut told = Ok(());
        if !chunk.is_null() {
            (*chunks).begun = true;
            told = arrived(body, chunk);
        } else {
            if ffi::PyErr_Occurred().is_null() {
                told = ended(body);
            } else {
                broke(body);
            }
            drop_ref(&raw mut (*chunks).below);
        }
        ffi::Py_DECREF(below);
        if let Err(error) = told {
            ffi::Py_XDECREF(chunk);
            error.restore(Python::assume_attached());
            return std::ptr::null_mut();
        }
        chunk
    }
}

/// `Chunks.close()`.
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
            let Some(below) = Bound::from_owned_ptr_or_opt(given.py, left(this.cast())) else {
                return Ok(none());
            };
            match below.getattr_opt("close")? {
                Some(close) => close.call0().map(|_| none()),
                None => Ok(none()),
            }
        })
    }
}
