//! The body of a response of httpx on its way to the application: what it is handed, and what tells its call.
//!
//! Written against the C API, as [`crate::object`] is and for its reasons. In Python these were a class and a
//! generator, and with the frames of both they made up half of what a call costs.

use crate::call::Call;
use crate::object::{self, Arguments, answer, definition, slot};
use pyo3::exceptions::PyTypeError;
use pyo3::ffi::{self, Py_ssize_t, PyObject, PyTypeObject};
use pyo3::prelude::*;
use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicPtr, Ordering};

/// The end mark of an event stream in OpenAI's dialect. Its SDKs close the response there, one read before HTTP would
/// say that this was all: such a stream is complete, not abandoned.
const DONE: &[u8] = b"data: [DONE]";

/// How CPython lays out a stream: the base of the class that a library accepts. All references are owned; null in an
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

// The types, which are never freed; null until the module is loaded.
static BODY: AtomicPtr<PyTypeObject> = AtomicPtr::new(std::ptr::null_mut());
static CHUNKS: AtomicPtr<PyTypeObject> = AtomicPtr::new(std::ptr::null_mut());

static BODY_METHODS: object::Definitions<2> = object::Definitions([
    definition(c"close", close, c"close($self, /)\n--\n\nThe application lets go of the response."),
    ffi::PyMethodDef::zeroed(),
]);

static CHUNKS_METHODS: object::Definitions<2> = object::Definitions([
    definition(
        c"close",
        close_chunks,
        c"close($self, /)\n--\n\nNo more is wanted, as of a generator that is closed.",
    ),
    ffi::PyMethodDef::zeroed(),
]);

/// Adds the types to the module.
pub(crate) fn add_to(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let common = ffi::Py_TPFLAGS_DEFAULT
        | ffi::Py_TPFLAGS_DISALLOW_INSTANTIATION
        | ffi::Py_TPFLAGS_IMMUTABLETYPE
        | ffi::Py_TPFLAGS_HAVE_GC;
    let body = object::kind(
        module,
        c"farcall._farcall.Body",
        size_of::<Body>(),
        common | ffi::Py_TPFLAGS_BASETYPE,
        &mut [
            slot(ffi::Py_tp_dealloc, dealloc_body as *mut c_void),
            slot(ffi::Py_tp_traverse, traverse_body as *mut c_void),
            slot(ffi::Py_tp_clear, clear_body as *mut c_void),
            slot(ffi::Py_tp_iter, iter as *mut c_void),
            slot(ffi::Py_tp_methods, BODY_METHODS.0.as_ptr().cast_mut().cast()),
            slot(
                ffi::Py_tp_doc,
                c"A response's stream, whose call ends with it: the base of the classes that libraries accept."
                    .as_ptr()
                    .cast_mut()
                    .cast(),
            ),
            slot(0, std::ptr::null_mut()),
        ],
    )?;
    let chunks = object::kind(
        module,
        c"farcall._farcall.Chunks",
        size_of::<Chunks>(),
        common,
        &mut [
            slot(ffi::Py_tp_dealloc, dealloc_chunks as *mut c_void),
            slot(ffi::Py_tp_traverse, traverse_chunks as *mut c_void),
            slot(ffi::Py_tp_clear, clear_chunks as *mut c_void),
            slot(ffi::Py_tp_iter, itself as *mut c_void),
            slot(ffi::Py_tp_iternext, next as *mut c_void),
            slot(ffi::Py_tp_methods, CHUNKS_METHODS.0.as_ptr().cast_mut().cast()),
            slot(ffi::Py_tp_doc, c"What goes through a response's stream once.".as_ptr().cast_mut().cast()),
            slot(0, std::ptr::null_mut()),
        ],
    )?;
    CHUNKS.store(chunks.into_ptr().cast(), Ordering::Release);
    BODY.store(body.clone().into_ptr().cast(), Ordering::Release);
    module.add("Body", body)
}

/// A new stream for the call, in the place of `stream`: an instance of `kind`, which derives from `Body`.
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
    // SAFETY: an instance of a type that derives from `Body` begins with its layout; its memory is zero, and is filled in
    // before anybody else sees it.
    unsafe {
        if ffi::PyType_Check(kind) == 0
            || ffi::PyType_IsSubtype(kind.cast(), BODY.load(Ordering::Acquire)) == 0
        {
            return Err(PyTypeError::new_err("a class that derives from Body is needed"));
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

/// What `Body.__iter__` gives.
#[allow(unsafe_code)]
unsafe extern "C" fn iter(this: *mut PyObject) -> *mut PyObject {
    // SAFETY: CPython calls it, attached, with an instance; allocated memory is zero, so that what is not filled in
    // is null.
    unsafe {
        let body = this.cast::<Body>();
        if (*body).stream.is_null() {
            ffi::PyErr_SetString(ffi::PyExc_RuntimeError, c"there is no stream".as_ptr());
            return std::ptr::null_mut();
        }
        let below = ffi::PyObject_GetIter((*body).stream);
        if below.is_null() {
            broke(body);
            return below;
        }
        let made = ffi::PyType_GenericAlloc(CHUNKS.load(Ordering::Acquire), 0);
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
unsafe extern "C" fn itself(this: *mut PyObject) -> *mut PyObject {
    // SAFETY: CPython calls it with an instance.
    unsafe { ffi::Py_NewRef(this) }
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
        let chunk = ffi::PyIter_Next(below);
        let body = (*chunks).body.cast::<Body>();
        if !chunk.is_null() {
            (*chunks).begun = true;
            arrived(body, chunk);
        } else if ffi::PyErr_Occurred().is_null() {
            forget(&raw mut (*chunks).below);
            if !body.is_null() {
                (*body).open = false;
                object::guarded("httpx.end", || {
                    if let Some(call) = call_of(body) {
                        call.end();
                    }
                    Ok(())
                });
            }
        } else {
            broke(body);
            forget(&raw mut (*chunks).below);
        }
        ffi::Py_DECREF(below);
        chunk
    }
}

/// A chunk came.
///
/// # Safety
/// Both are there, or `body` is null.
#[allow(unsafe_code)]
unsafe fn arrived(body: *mut Body, chunk: *mut PyObject) {
    // SAFETY: the caller's promise; the old chunk goes when nothing refers to it from here any more.
    unsafe {
        if body.is_null() {
            return;
        }
        let old = std::mem::replace(&mut (*body).last, ffi::Py_NewRef(chunk));
        ffi::Py_XDECREF(old);
        object::guarded("httpx.body", || match call_of(body) {
            Some(call) => object::take(call, &Arguments { py: Python::assume_attached(), given: &[chunk] }),
            None => Ok(()),
        });
    }
}

/// The stream ended in the exception that is set, and stays so.
///
/// # Safety
/// The thread is attached, and `body` is there or null.
#[allow(unsafe_code)]
unsafe fn broke(body: *mut Body) {
    // SAFETY: the caller's promise.
    unsafe {
        if body.is_null() || (*body).call.is_null() {
            return;
        }
        let py = Python::assume_attached();
        let error = PyErr::fetch(py);
        // What fails here is an interpreter that is ending.
        let _ = object::tell(py, "broke", "httpx.body", (*body).call, error.value(py).as_any(), None);
        error.restore(py);
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
            if (*body).stream.is_null() {
                return Ok(object::none());
            }
            let stream = Bound::from_borrowed_ptr(given.py, (*body).stream);
            let closed = stream.call_method0(pyo3::intern!(given.py, "close"));
            if (*body).open {
                (*body).open = false;
                object::guarded("httpx.close", || let_go(given, body));
            }
            closed.map(|_| object::none())
        })
    }
}

/// The application closed a response before its end. One whose body broke has settled before.
///
/// # Safety
/// `body` is there, and filled in.
#[allow(unsafe_code)]
unsafe fn let_go(given: &Arguments<'_, '_>, body: *mut Body) -> PyResult<()> {
    // SAFETY: the caller's promise.
    unsafe {
        let whole = if (*body).last.is_null() {
            let headers = Bound::from_borrowed_ptr(given.py, (*body).headers);
            headers.call_method1("get", ("content-length",))?.eq("0")?
        } else {
            let last = Bound::from_borrowed_ptr(given.py, (*body).last);
            last.extract::<&[u8]>()?.trim_ascii_end().ends_with(DONE)
        };
        if let Some(call) = call_of(body) {
            match whole {
                true => call.end(),
                false => call.abandon(),
            }
        }
        Ok(())
    }
}

/// `Chunks.close()`.
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
            let chunks = this.cast::<Chunks>();
            let Some(below) = Bound::from_owned_ptr_or_opt(given.py, left(chunks)) else {
                return Ok(object::none());
            };
            match below.getattr_opt("close")? {
                Some(close) => close.call0().map(|_| object::none()),
                None => Ok(object::none()),
            }
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
            object::guarded("httpx.body", || {
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

/// Lets go of what a field holds.
///
/// # Safety
/// The field holds a reference of its own, or null.
#[allow(unsafe_code)]
unsafe fn forget(field: *mut *mut PyObject) {
    // SAFETY: the caller's promise. The field is empty before other code can run.
    unsafe {
        let held = std::mem::replace(&mut *field, std::ptr::null_mut());
        ffi::Py_XDECREF(held);
    }
}

/// Shows objects to the collector.
///
/// # Safety
/// Each of them is there or null; `visit` and `arg` are the collector's.
#[allow(unsafe_code)]
unsafe fn visit_all(objects: [*mut PyObject; 3], visit: ffi::visitproc, arg: *mut c_void) -> c_int {
    for object in objects {
        // SAFETY: the caller's promise.
        let stop = if object.is_null() { 0 } else { unsafe { visit(object, arg) } };
        if stop != 0 {
            return stop;
        }
    }
    0
}

#[allow(unsafe_code)]
unsafe extern "C" fn traverse_body(this: *mut PyObject, visit: ffi::visitproc, arg: *mut c_void) -> c_int {
    // SAFETY: the collector calls it with an instance. `Call` holds nothing that it would look for.
    unsafe {
        let body = this.cast::<Body>();
        visit_all([(*body).stream, (*body).headers, ffi::Py_TYPE(this).cast()], visit, arg)
    }
}

#[allow(unsafe_code)]
unsafe extern "C" fn clear_body(this: *mut PyObject) -> c_int {
    // SAFETY: CPython calls it with an instance.
    unsafe {
        let body = this.cast::<Body>();
        for field in [&raw mut (*body).stream, &raw mut (*body).headers, &raw mut (*body).last] {
            forget(field);
        }
        forget(&raw mut (*body).call);
    }
    0
}

#[allow(unsafe_code)]
unsafe extern "C" fn dealloc_body(this: *mut PyObject) {
    // SAFETY: CPython calls it once, when nobody refers to the object any more.
    unsafe {
        let kind = ffi::Py_TYPE(this);
        ffi::PyObject_GC_UnTrack(this.cast());
        clear_body(this);
        ffi::PyObject_GC_Del(this.cast());
        ffi::Py_DECREF(kind.cast());
    }
}

#[allow(unsafe_code)]
unsafe extern "C" fn traverse_chunks(this: *mut PyObject, visit: ffi::visitproc, arg: *mut c_void) -> c_int {
    // SAFETY: the collector calls it with an instance.
    unsafe {
        let chunks = this.cast::<Chunks>();
        visit_all([(*chunks).body, (*chunks).below, ffi::Py_TYPE(this).cast()], visit, arg)
    }
}

#[allow(unsafe_code)]
unsafe extern "C" fn clear_chunks(this: *mut PyObject) -> c_int {
    // SAFETY: CPython calls it with an instance. An iterator that was begun is told before what is below it goes.
    unsafe {
        let chunks = this.cast::<Chunks>();
        ffi::Py_XDECREF(left(chunks));
        forget(&raw mut (*chunks).body);
    }
    0
}

#[allow(unsafe_code)]
unsafe extern "C" fn dealloc_chunks(this: *mut PyObject) {
    // SAFETY: CPython calls it once, when nobody refers to the object any more; an exception may be under way.
    unsafe {
        let kind = ffi::Py_TYPE(this);
        ffi::PyObject_GC_UnTrack(this.cast());
        clear_chunks(this);
        ffi::PyObject_GC_Del(this.cast());
        ffi::Py_DECREF(kind.cast());
    }
}
