//! Awaitables in the place of a library's own, that hand on what they are sent and look at what comes of it.
//!
//! In Python each of these is a coroutine or an async generator, whose frames make up most of what an async call costs.
//! `send`, `throw` and `close` go on to the one below as they came, so that what an event loop does with a task (wake it,
//! cancel it, drop it) is between it and the library.

use crate::arguments::{Arguments, answer, none};
use crate::types::{Definitions, clear_all, definition, kind, slot, visit_all};
use pyo3::Borrowed;
use pyo3::exceptions::{PyGeneratorExit, PyRuntimeError, PyRuntimeWarning, PyStopIteration};
use pyo3::ffi::{self, Py_ssize_t, PyObject, PySendResult, PyTypeObject};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;
use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicPtr, Ordering};

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
    Fresh,
    Begun,
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

/// The type of a work's awaitables, which is never freed; null until the module is loaded.
pub(crate) struct Kind(AtomicPtr<PyTypeObject>);

impl Kind {
    pub(crate) const fn new() -> Self {
        Self(AtomicPtr::new(std::ptr::null_mut()))
    }
}

/// Makes the type of a work's awaitables.
pub(crate) fn add_kind<W: Work>(
    module: &Bound<'_, PyModule>,
    made: &Kind,
    name: &'static std::ffi::CStr,
    methods: &'static Definitions<4>,
) -> PyResult<()> {
    let new = kind(
        module,
        name,
        size_of::<Awaitable<W>>(),
        ffi::Py_TPFLAGS_DEFAULT
            | ffi::Py_TPFLAGS_DISALLOW_INSTANTIATION
            | ffi::Py_TPFLAGS_IMMUTABLETYPE
            | ffi::Py_TPFLAGS_HAVE_GC,
        &mut [
            slot(ffi::Py_tp_dealloc, dealloc::<W> as *mut c_void),
            slot(ffi::Py_tp_traverse, traverse::<W> as *mut c_void),
            slot(ffi::Py_tp_clear, clear::<W> as *mut c_void),
            slot(ffi::Py_tp_getattro, attribute::<W> as *mut c_void),
            slot(ffi::Py_am_await, itself as *mut c_void),
            slot(ffi::Py_am_send, send::<W> as *mut c_void),
            slot(ffi::Py_tp_iter, itself as *mut c_void),
            slot(ffi::Py_tp_iternext, next::<W> as *mut c_void),
            slot(ffi::Py_tp_methods, methods.0.as_ptr().cast_mut().cast()),
            slot(
                ffi::Py_tp_doc,
                c"What a library's own would be, awaited in its place.".as_ptr().cast_mut().cast(),
            ),
            slot(0, std::ptr::null_mut()),
        ],
    )?;
    made.0.store(new.into_ptr().cast(), Ordering::Release);
    Ok(())
}

/// The methods of a work's awaitables.
pub(crate) const fn methods<W: Work>() -> Definitions<4> {
    Definitions([
        definition(c"send", send_method::<W>, c"send($self, value, /)\n--\n\nGoes on, as of a coroutine."),
        definition(c"throw", throw::<W>, c"throw($self, /, *args)\n--\n\nRaises below, as of a coroutine."),
        definition(c"close", close::<W>, c"close($self, /)\n--\n\nEnds it, as of a coroutine."),
        ffi::PyMethodDef::zeroed(),
    ])
}

/// A new awaitable of some work, which holds the references that are in it; `below` is what is awaited, where that is
/// there already (a new reference), or null.
///
/// # Safety
/// The thread is attached.
#[allow(unsafe_code)]
pub(crate) unsafe fn awaitable<W: Work>(kind: &Kind, mut work: W, below: *mut PyObject) -> *mut PyObject {
    // SAFETY: an instance of the type has this layout, all of which is written before anybody else sees it.
    unsafe {
        let made = ffi::PyType_GenericAlloc(kind.0.load(Ordering::Acquire), 0);
        if made.is_null() {
            work.fields().for_each(|field| clear_all(&[field]));
            ffi::Py_XDECREF(below);
            return made;
        }
        let this = made.cast::<Awaitable<W>>();
        (*this).below = below;
        (*this).state = if below.is_null() { State::Fresh } else { State::Begun };
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

#[allow(unsafe_code)]
unsafe extern "C" fn itself(this: *mut PyObject) -> *mut PyObject {
    // SAFETY: CPython calls it with an instance.
    unsafe { ffi::Py_NewRef(this) }
}

/// What is awaited below, held for as long as it runs; begins it where that is still to be done.
///
/// # Safety
/// The thread is attached, and the awaitable is there.
#[allow(unsafe_code)]
unsafe fn below<'py, W: Work>(py: Python<'py>, this: *mut Awaitable<W>) -> PyResult<Bound<'py, PyAny>> {
    // SAFETY: the caller's promise.
    unsafe {
        match (*this).state {
            // What the collector has cleared is as if it were over.
            state if state == State::Done || (state == State::Begun && (*this).below.is_null()) => {
                return Err(PyRuntimeError::new_err("cannot reuse already awaited coroutine"));
            }
            State::Fresh => {
                // Not again, whatever comes of it.
                (*this).state = State::Done;
                let below = (*this).work.begin(py)?;
                (*this).below = below;
                (*this).state = State::Begun;
            }
            _ => {}
        }
        Ok(Bound::from_borrowed_ptr(py, (*this).below))
    }
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

/// It is over: lets go of what is below.
///
/// # Safety
/// As of [`below`].
#[allow(unsafe_code)]
unsafe fn done<W: Work>(this: *mut Awaitable<W>) {
    // SAFETY: the caller's promise.
    unsafe {
        (*this).state = State::Done;
        clear_all(&[&raw mut (*this).below]);
    }
}

/// The one below returned `value` (a reference that is taken over): the same, or null with an exception.
///
/// # Safety
/// As of [`below`].
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

/// `am_send`.
#[allow(unsafe_code)]
unsafe extern "C" fn send<W: Work>(
    this: *mut PyObject,
    value: *mut PyObject,
    result: *mut *mut PyObject,
) -> PySendResult {
    // SAFETY: CPython calls it, attached, with an instance, which it holds meanwhile.
    unsafe {
        let (py, this) = (Python::assume_attached(), this.cast::<Awaitable<W>>());
        *result = std::ptr::null_mut();
        let below = match below(py, this) {
            Ok(below) => below,
            Err(error) => {
                error.restore(py);
                return PySendResult::PYGEN_ERROR;
            }
        };
        let mut got = std::ptr::null_mut();
        match (*this).work.within(|| ffi::PyIter_Send(below.as_ptr(), value, &mut got)) {
            PySendResult::PYGEN_NEXT => {
                *result = got;
                PySendResult::PYGEN_NEXT
            }
            PySendResult::PYGEN_RETURN => {
                *result = returned(py, this, got);
                if (*result).is_null() { PySendResult::PYGEN_ERROR } else { PySendResult::PYGEN_RETURN }
            }
            PySendResult::PYGEN_ERROR => {
                raised(py, this);
                PySendResult::PYGEN_ERROR
            }
        }
    }
}

/// The one below ended in the exception that is set.
///
/// # Safety
/// As of [`below`].
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
unsafe extern "C" fn next<W: Work>(this: *mut PyObject) -> *mut PyObject {
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
            let below = below(py, this)?;
            let thrown = (*this).work.within(|| match below.getattr_opt("throw") {
                Ok(Some(throw)) => throw.call1(given.tuple()?),
                // One that cannot be told: it is raised where it is awaited.
                Ok(None) => raise(given).map(|_| unreachable(py)),
                Err(error) => Err(error),
            });
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

/// In the place of what a coroutine that was raised in would give: it gives nothing.
fn unreachable(py: Python<'_>) -> Bound<'_, PyAny> {
    py.None().into_bound(py)
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
            if (*this).state != State::Begun {
                (*this).state = State::Done;
                return Ok(none());
            }
            let below = below(py, this)?;
            let closed = match below.getattr_opt("close")? {
                Some(close) => (*this).work.within(|| close.call0().map(|_| ())),
                None => Ok(()),
            };
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

#[allow(unsafe_code)]
unsafe extern "C" fn traverse<W: Work>(
    this: *mut PyObject,
    visit: ffi::visitproc,
    arg: *mut c_void,
) -> c_int {
    // SAFETY: the collector calls it with an instance.
    unsafe {
        let kind = ffi::Py_TYPE(this).cast();
        let this = this.cast::<Awaitable<W>>();
        for field in (*this).work.fields() {
            let stop = visit_all(&[*field], visit, arg);
            if stop != 0 {
                return stop;
            }
        }
        visit_all(&[(*this).below, kind], visit, arg)
    }
}

#[allow(unsafe_code)]
unsafe extern "C" fn clear<W: Work>(this: *mut PyObject) -> c_int {
    // SAFETY: CPython calls it with an instance.
    unsafe {
        let this = this.cast::<Awaitable<W>>();
        clear_all(&[&raw mut (*this).below]);
        (*this).work.fields().for_each(|field| clear_all(&[field]));
    }
    0
}

#[allow(unsafe_code)]
unsafe extern "C" fn dealloc<W: Work>(this: *mut PyObject) {
    // SAFETY: CPython calls it once, when nobody refers to the object any more; an exception may be under way.
    unsafe {
        let kind = ffi::Py_TYPE(this);
        ffi::PyObject_GC_UnTrack(this.cast());
        let (py, awaitable) = (Python::assume_attached(), this.cast::<Awaitable<W>>());
        let under_way = PyErr::take(py);
        match (*awaitable).state {
            State::Fresh => (*awaitable).work.unawaited(py),
            State::Begun => {
                // Where it stood, its frame is unwound.
                done(awaitable);
                PyErr::new::<PyGeneratorExit, _>(()).restore(py);
                (*awaitable).work.raised(py);
                ffi::PyErr_Clear();
            }
            State::Done => {}
        }
        if let Some(error) = under_way {
            error.restore(py);
        }
        clear::<W>(this);
        ffi::PyObject_GC_Del(this.cast());
        ffi::Py_DECREF(kind.cast());
    }
}
