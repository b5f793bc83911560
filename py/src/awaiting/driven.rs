//! What drives an awaitable: `send`, `throw` and `close`, as of a coroutine.

use super::{Awaitable, State, Work};
use crate::arguments::{Arguments, answer, none};
use crate::guard::{function_of_python, or_stay};
use crate::types::{definition, drop_ref};
use pyo3::Borrowed;
use pyo3::exceptions::{PyGeneratorExit, PyRuntimeError, PyStopIteration, PyValueError};
use pyo3::ffi::{self, Py_ssize_t, PyObject, PySendResult};
use pyo3::prelude::*;
use std::ffi::c_void;
use std::marker::PhantomData;
use std::sync::OnceLock;

/// The methods of a work's awaitables.
pub(super) struct Methods<W>(PhantomData<W>);

impl<W: Work> Methods<W> {
    pub(super) const ALL: &'static [ffi::PyMethodDef] = &[
        definition(c"send", send_method::<W>, c"send($self, value, /)\n--\n\nGoes on, as of a coroutine."),
        definition(c"throw", throw::<W>, c"throw($self, /, *args)\n--\n\nRaises below, as of a coroutine."),
        definition(c"close", close::<W>, c"close($self, /)\n--\n\nEnds it, as of a coroutine."),
        ffi::PyMethodDef::zeroed(),
    ];
}

/// Goes on below, by what `step` does with what is awaited there; begins it where that is still to be done.
///
/// # Errors
/// Where it is over or being run, and where it cannot begin.
///
/// # Safety
/// The thread is attached, and the awaitable is there.
#[allow(unsafe_code)]
unsafe fn go_on<T, W: Work>(
    py: Python<'_>,
    this: *mut Awaitable<W>,
    step: impl FnOnce(&Bound<'_, PyAny>) -> T,
) -> PyResult<T> {
    // SAFETY: the caller's promise.
    unsafe {
        match (*this).state {
            State::Running => return Err(PyValueError::new_err("coroutine already executing")),
            State::Fresh => {
                (*this).state = State::Running;
                let begun = (*this).work.begin(py);
                // Not again, whatever came of it.
                (*this).state = State::Done;
                (*this).below = begun?;
            }
            // What the collector has cleared is as if it were over.
            State::Ready | State::Begun if !(*this).below.is_null() => {}
            State::Ready | State::Begun | State::Done => {
                return Err(PyRuntimeError::new_err("cannot reuse already awaited coroutine"));
            }
        }
        let below = Bound::from_borrowed_ptr(py, (*this).below);
        (*this).state = State::Running;
        let done = (*this).work.within(|| step(&below));
        (*this).state = State::Begun;
        Ok(done)
    }
}

/// It is over: lets go of what is below.
///
/// # Safety
/// As of [`go_on`].
#[allow(unsafe_code)]
pub(super) unsafe fn done<W: Work>(this: *mut Awaitable<W>) {
    // SAFETY: the caller's promise.
    unsafe {
        (*this).state = State::Done;
        drop_ref(&raw mut (*this).below);
    }
}

/// The one below returned `value` (a reference that is taken over): the same, or null with an exception.
///
/// # Safety
/// As of [`go_on`].
#[allow(unsafe_code)]
unsafe fn returned<W: Work>(py: Python<'_>, this: *mut Awaitable<W>, value: *mut PyObject) -> *mut PyObject {
    // SAFETY: the caller's promise.
    unsafe {
        done(this);
        match (*this).work.returned(Borrowed::from_ptr(py, value)) {
            Ok(()) => value,
            Err(error) => {
                ffi::Py_DECREF(value);
                error.restore(py);
                std::ptr::null_mut()
            }
        }
    }
}

/// Goes on with a coroutine.
///
/// # Safety
/// As of CPython's own `PyIter_Send`.
#[allow(unsafe_code)]
unsafe fn send_to(
    coroutine: *mut PyObject,
    value: *mut PyObject,
    result: *mut *mut PyObject,
) -> PySendResult {
    type Send = unsafe extern "C-unwind" fn(*mut PyObject, *mut PyObject, *mut *mut PyObject) -> PySendResult;
    static SEND: OnceLock<Send> = OnceLock::new();
    // SAFETY: CPython has a function of this name, of this type.
    let send = SEND.get_or_init(|| unsafe {
        std::mem::transmute::<*mut c_void, Send>(function_of_python(c"PyIter_Send"))
    });
    // SAFETY: the caller's promise.
    or_stay(|| unsafe { send(coroutine, value, result) })
}

/// `am_send`.
#[allow(unsafe_code)]
pub(super) unsafe extern "C" fn send<W: Work>(
    this: *mut PyObject,
    value: *mut PyObject,
    result: *mut *mut PyObject,
) -> PySendResult {
    // SAFETY: CPython calls it, attached, with an instance, which it holds meanwhile.
    unsafe {
        let (py, this) = (Python::assume_attached(), this.cast::<Awaitable<W>>());
        *result = std::ptr::null_mut();
        let mut got = std::ptr::null_mut();
        match go_on(py, this, |below| send_to(below.as_ptr(), value, &raw mut got)) {
            Ok(PySendResult::PYGEN_NEXT) => {
                *result = got;
                PySendResult::PYGEN_NEXT
            }
            Ok(PySendResult::PYGEN_RETURN) => {
                *result = returned(py, this, got);
                if (*result).is_null() { PySendResult::PYGEN_ERROR } else { PySendResult::PYGEN_RETURN }
            }
            Ok(PySendResult::PYGEN_ERROR) => {
                raised(py, this);
                PySendResult::PYGEN_ERROR
            }
            Err(error) => {
                error.restore(py);
                PySendResult::PYGEN_ERROR
            }
        }
    }
}

/// The one below ended in the exception that is set.
///
/// # Safety
/// As of [`go_on`].
#[allow(unsafe_code)]
unsafe fn raised<W: Work>(py: Python<'_>, this: *mut Awaitable<W>) {
    // SAFETY: the caller's promise.
    unsafe {
        let error = PyErr::fetch(py);
        done(this);
        error.restore(py);
        (*this).work.raised(py);
    }
}

/// The same for who is not told by a number whether it returned: null with `StopIteration`.
///
/// # Safety
/// As of [`send`].
#[allow(unsafe_code)]
unsafe fn sent<W: Work>(this: *mut PyObject, value: *mut PyObject) -> *mut PyObject {
    // SAFETY: the caller's promise.
    unsafe {
        let mut got = std::ptr::null_mut();
        match send::<W>(this, value, &mut got) {
            PySendResult::PYGEN_RETURN => stop(got),
            _ => got,
        }
    }
}

/// Raises `StopIteration` with this value, a reference that is taken over.
///
/// # Safety
/// The thread is attached, and the value is there.
#[allow(unsafe_code)]
unsafe fn stop(value: *mut PyObject) -> *mut PyObject {
    // SAFETY: the caller's promise.
    unsafe {
        let py = Python::assume_attached();
        // As the one argument, whatever it is: a tuple would be taken for all of them.
        let value = Bound::from_owned_ptr(py, value).unbind();
        PyStopIteration::new_err((value,)).restore(py);
        std::ptr::null_mut()
    }
}

#[allow(unsafe_code)]
pub(super) unsafe extern "C" fn next<W: Work>(this: *mut PyObject) -> *mut PyObject {
    // SAFETY: CPython calls it, attached, with an instance.
    unsafe { sent::<W>(this, ffi::Py_None()) }
}

#[allow(unsafe_code)]
unsafe extern "C" fn send_method<W: Work>(
    this: *mut PyObject,
    args: *mut *mut PyObject,
    count: Py_ssize_t,
) -> *mut PyObject {
    // SAFETY: CPython calls it, attached, with an instance.
    unsafe {
        answer(args, count, |given| {
            given.expect(1)?;
            Ok(sent::<W>(this, given.given[0]))
        })
    }
}

#[allow(unsafe_code)]
unsafe extern "C" fn throw<W: Work>(
    this: *mut PyObject,
    args: *mut *mut PyObject,
    count: Py_ssize_t,
) -> *mut PyObject {
    // SAFETY: CPython calls it, attached, with an instance.
    unsafe {
        answer(args, count, |given| {
            let (py, this) = (given.py, this.cast::<Awaitable<W>>());
            if (*this).state == State::Fresh {
                (*this).state = State::Done;
                return raise(given);
            }
            let thrown = go_on(py, this, |below| match below.getattr_opt("throw")? {
                Some(throw) => throw.call1(given.tuple()?).map(Bound::unbind),
                // One that cannot be told: it is raised where it is awaited.
                None => raise(given).map(|_| py.None()),
            })?;
            match thrown {
                Ok(value) => Ok(value.into_ptr()),
                Err(error) if error.is_instance_of::<PyStopIteration>(py) => {
                    let value = error.value(py).getattr("value")?;
                    let value = returned(py, this, value.into_ptr());
                    Ok(if value.is_null() { value } else { stop(value) })
                }
                Err(error) => {
                    error.restore(py);
                    raised(py, this);
                    Ok(std::ptr::null_mut())
                }
            }
        })
    }
}

/// Raises what the arguments of `throw` say.
fn raise(given: &Arguments<'_, '_>) -> PyResult<*mut PyObject> {
    let fresh = given.py.import("farcall._hook")?.call_method0("nothing")?;
    fresh.call_method1("throw", given.tuple()?).map(|value| value.into_ptr())
}

#[allow(unsafe_code)]
unsafe extern "C" fn close<W: Work>(
    this: *mut PyObject,
    args: *mut *mut PyObject,
    count: Py_ssize_t,
) -> *mut PyObject {
    // SAFETY: CPython calls it, attached, with an instance.
    unsafe {
        answer(args, count, |given| {
            given.expect(0)?;
            let (py, this) = (given.py, this.cast::<Awaitable<W>>());
            if matches!((*this).state, State::Fresh | State::Done) {
                (*this).state = State::Done;
                return Ok(none());
            }
            let closed = go_on(py, this, |below| match below.getattr_opt("close")? {
                Some(close) => close.call0().map(|_| ()),
                None => Ok(()),
            })?;
            // As a coroutine sees it that awaits the one below.
            let ended = match closed {
                Ok(()) => PyErr::new::<PyGeneratorExit, _>(()),
                Err(error) => error,
            };
            ended.restore(py);
            raised(py, this);
            let error = PyErr::fetch(py);
            match error.is_instance_of::<PyGeneratorExit>(py) {
                true => Ok(none()),
                false => Err(error),
            }
        })
    }
}
