//! Awaitables in the place of a library's own, that hand on what they are sent and look at what comes of it.
//!
//! In Python each of these is a coroutine or an async generator, whose frames make up most of what an async call costs.
//! `send`, `throw` and `close` go on to the one below as they came, so that what an event loop does with a task (wake it,
//! cancel it, drop it) is between it and the library.

mod driven;

use crate::types::{Instance, Type, collected, drop_ref, slot};
use pyo3::Borrowed;
use pyo3::exceptions::{PyGeneratorExit, PyRuntimeError, PyRuntimeWarning};
use pyo3::ffi::{self, PyObject};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;
use std::ffi::{CStr, c_void};

/// What is awaited, and what becomes of it.
///
/// # Safety
/// CPython calls, attached; `self` is the part of an object that is there.
#[allow(unsafe_code)]
pub(crate) trait Work {
    /// Begins: a new reference to what is awaited below.
    unsafe fn begin(&mut self, py: Python<'_>) -> PyResult<*mut PyObject>;

    /// Goes on below, by what `step` does.
    unsafe fn within<T>(&mut self, step: impl FnOnce() -> T) -> T;

    /// The one below returned this.
    ///
    /// # Errors
    /// What takes its place.
    unsafe fn returned(&mut self, value: Borrowed<'_, '_, PyAny>) -> PyResult<()>;

    /// The one below ended in the exception that is set, which stays set, or another in its place.
    unsafe fn raised(&mut self, py: Python<'_>);

    /// Nobody ever awaited it.
    unsafe fn unawaited(&mut self, _py: Python<'_>) {}

    /// The references that it holds, each once.
    fn fields(&mut self) -> impl Iterator<Item = *mut *mut PyObject>;
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing was begun.
    Fresh,
    /// What is below is there, and was not asked for anything.
    Ready,
    /// It waits for whom it told that it does.
    Begun,
    /// It is being run.
    Running,
    Done,
}

/// How CPython lays out an awaitable of some work.
#[repr(C)]
struct Awaitable<W> {
    base: PyObject,
    /// What is awaited below, as something that can be sent to; null before it begins and once it is done.
    below: *mut PyObject,
    state: State,
    work: W,
}

// SAFETY: a work holds references and plain data.
#[allow(unsafe_code)]
unsafe impl<W: Work> Instance for Awaitable<W> {
    fn references(&mut self) -> impl Iterator<Item = *mut *mut PyObject> {
        std::iter::once(&raw mut self.below).chain(self.work.fields())
    }

    unsafe fn end(this: *mut Self) {
        // SAFETY: the caller's promise.
        unsafe {
            let py = Python::assume_attached();
            let under_way = PyErr::take(py);
            match (*this).state {
                State::Fresh | State::Ready => (*this).work.unawaited(py),
                State::Begun | State::Running => {
                    // Where it stood, its frame is unwound.
                    driven::done(this);
                    PyErr::new::<PyGeneratorExit, _>(()).restore(py);
                    (*this).work.raised(py);
                    ffi::PyErr_Clear();
                }
                State::Done => {}
            }
            if let Some(error) = under_way {
                error.restore(py);
            }
        }
    }
}

/// Makes the type of a work's awaitables.
pub(crate) fn add_kind<W: Work>(
    module: &Bound<'_, PyModule>,
    made: &Type,
    name: &'static CStr,
) -> PyResult<()> {
    let new = collected::<Awaitable<W>>(
        module,
        name,
        0,
        c"What a library's own would be, awaited in its place.",
        driven::Methods::<W>::ALL,
        &[
            slot(ffi::Py_tp_getattro, attribute::<W> as *mut c_void),
            slot(ffi::Py_am_await, awaited::<W> as *mut c_void),
            slot(ffi::Py_am_send, driven::send::<W> as *mut c_void),
            slot(ffi::Py_tp_iter, itself as *mut c_void),
            slot(ffi::Py_tp_iternext, driven::next::<W> as *mut c_void),
        ],
    )?;
    made.set(new);
    Ok(())
}

/// A new awaitable of some work, which holds the references that are in it; `below` is what is awaited, where that is
/// there already (a new reference), or null.
///
/// # Safety
/// The thread is attached.
#[allow(unsafe_code)]
pub(crate) unsafe fn awaitable<W: Work>(kind: &Type, mut work: W, below: *mut PyObject) -> *mut PyObject {
    // SAFETY: an instance of the type has this layout, all of which is written before anybody else sees it.
    unsafe {
        let made = ffi::PyType_GenericAlloc(kind.get(), 0);
        if made.is_null() {
            work.fields().for_each(|field| drop_ref(field));
            ffi::Py_XDECREF(below);
            return made;
        }
        let this = made.cast::<Awaitable<W>>();
        (*this).below = below;
        (*this).state = if below.is_null() { State::Fresh } else { State::Ready };
        (&raw mut (*this).work).write(work);
        made
    }
}

/// What can be sent to, of something that can be awaited: takes a reference and gives a new one.
///
/// # Safety
/// The thread is attached, and the object is there.
#[allow(unsafe_code)]
pub(crate) unsafe fn sendable(py: Python<'_>, awaited: Bound<'_, PyAny>) -> PyResult<*mut PyObject> {
    static COROUTINE: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    let coroutine = COROUTINE.import(py, "types", "CoroutineType")?;
    if awaited.get_type_ptr() == coroutine.as_ptr().cast() {
        return Ok(awaited.into_ptr());
    }
    // SAFETY: a type's slot of that name is null, or a function of that type.
    unsafe {
        let found = ffi::PyType_GetSlot(awaited.get_type_ptr(), ffi::Py_am_await);
        if !found.is_null() {
            let found = std::mem::transmute::<*mut c_void, ffi::unaryfunc>(found);
            let iterator = Bound::from_owned_ptr_or_err(py, found(awaited.as_ptr()))?;
            if ffi::PyIter_Check(iterator.as_ptr()) != 0
                && iterator.get_type_ptr() != coroutine.as_ptr().cast()
            {
                return Ok(iterator.into_ptr());
            }
        }
    }
    // A coroutine that awaits it says what is wrong with it, and knows what else can be awaited.
    Ok(py.import("farcall._hook")?.call_method1("awaited", (awaited,))?.into_ptr())
}

/// Warns as of a coroutine that nobody awaited.
pub(crate) fn warn_unawaited(py: Python<'_>, name: &str) {
    let text = format!("coroutine '{name}' was never awaited");
    let warned = std::ffi::CString::new(text)
        .map_err(PyErr::from)
        .and_then(|text| PyErr::warn(py, &py.get_type::<PyRuntimeWarning>(), &text, 1));
    if let Err(error) = warned {
        error.write_unraisable(py, None);
    }
}

/// What `await` asks for: itself, but not of one that somebody else awaits, whom a second one would spoil.
#[allow(unsafe_code)]
unsafe extern "C" fn awaited<W: Work>(this: *mut PyObject) -> *mut PyObject {
    // SAFETY: CPython calls it, attached, with an instance.
    unsafe {
        if matches!((*this.cast::<Awaitable<W>>()).state, State::Begun | State::Running) {
            let error = PyRuntimeError::new_err("coroutine is being awaited already");
            error.restore(Python::assume_attached());
            return std::ptr::null_mut();
        }
        ffi::Py_NewRef(this)
    }
}

#[allow(unsafe_code)]
unsafe extern "C" fn itself(this: *mut PyObject) -> *mut PyObject {
    // SAFETY: CPython calls it with an instance.
    unsafe { ffi::Py_NewRef(this) }
}

/// What somebody asks of a coroutine who looks at where a task stands (`cr_frame`, `cr_await`), the one below answers.
#[allow(unsafe_code)]
unsafe extern "C" fn attribute<W: Work>(this: *mut PyObject, name: *mut PyObject) -> *mut PyObject {
    // SAFETY: CPython calls it, attached, with an instance and a name.
    unsafe {
        let found = ffi::PyObject_GenericGetAttr(this, name);
        let below = (*this.cast::<Awaitable<W>>()).below;
        if !found.is_null() || below.is_null() || ffi::PyErr_ExceptionMatches(ffi::PyExc_AttributeError) == 0
        {
            return found;
        }
        ffi::PyErr_Clear();
        ffi::PyObject_GetAttr(below, name)
    }
}
