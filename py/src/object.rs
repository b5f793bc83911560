//! [`Call`] as a Python object: the function and the methods that every call goes through.
//!
//! Written against the C API itself. Between two calls a program waits for the network, and finds the caches cold:
//! then a function costs by the number of places that it touches, not by its instructions. PyO3's wrappers ask the
//! interpreter a dozen things for each argument and object, and made two thirds of what a call cost. These ask two:
//! for a text's bytes, and for an integer's value.

use crate::body;
use crate::call::{Call, Details, Opened, Request};
use crate::handle::{Handle, handle};
use crate::headers::{self, Shown};
use crate::parking;
use crate::scope::Scope;
use crate::step;
use farcall::resilience::Ending;
use farcall::{ErrorType, Headers};
use pyo3::exceptions::{PyOverflowError, PyRuntimeError, PyTypeError};
use pyo3::ffi::{self, Py_ssize_t, PyObject};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};
use std::ffi::{CStr, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicPtr, Ordering};

/// How CPython lays out an instance.
#[repr(C)]
struct Object {
    base: PyObject,
    call: Call,
}

/// The type `Call`, which is never freed; null until the module is loaded.
static TYPE: AtomicPtr<ffi::PyTypeObject> = AtomicPtr::new(std::ptr::null_mut());

/// Definitions that CPython reads and never writes.
pub(crate) struct Definitions<const N: usize>(pub(crate) [ffi::PyMethodDef; N]);

// SAFETY: the pointers in it lead to constants and functions.
#[allow(unsafe_code)]
unsafe impl<const N: usize> Sync for Definitions<N> {}

static FUNCTIONS: Definitions<4> = Definitions([
    definition(
        c"begin",
        begin,
        c"begin(adapter, method, scheme, host, port, path, scope, /)\n--\n\n\
          Begins a call; None between `uninstall()` and `install()`, and where rules decide (`decides`).\n\n\
          `adapter` is the number of the adapter that saw it, for `calls()`; `path` is what the request line says: a \
          path, perhaps with a query, or (to a proxy) an absolute URL.",
    ),
    definition(
        c"begin_deciding",
        begin_deciding,
        c"begin_deciding(adapter, method, scheme, host, port, path, scope, headers, length, content, replayable, channel, /)\n\
          --\n\n\
          Begins a call for which rules decide; None between `uninstall()` and `install()`.\n\n\
          `headers` are pairs (first and last of each count); `length` is the body's, None where nobody knows; \
          `content` is the body where it is in memory, else None; `replayable` says whether the request can be sent \
          again; `channel` are bytes that keep its answers apart from those of calls over another kind of connection, or \
          None.",
    ),
    definition(c"decides", decides, c"decides()\n--\n\nWhether rules decide about the calls that begin now."),
    definition(
        c"caches",
        caches,
        c"caches()\n--\n\nWhether a rule may keep an answer to the calls that begin now.",
    ),
]);

static METHODS: Definitions<19> = Definitions([
    definition(
        c"connected",
        connected,
        c"connected($self, dns, connect, tls, /)\n--\n\n\
          Making a connection took so many seconds.\n\nParts may be told one by one; None is a part that is told at \
          another time, did not happen or could not be seen.",
    ),
    definition(
        c"head",
        head,
        c"head($self, status, sent, /)\n--\n\n\
          The head of the response arrived, and before it `sent` bytes of the request's body went out.\n\n\
          Returns True where a body may follow, False where none can and the call has settled, and None where the \
          headers are wanted: then `answer` and `opened` are to follow.",
    ),
    definition(
        c"headed",
        headed,
        c"headed($self, status, sent, headers, /)\n--\n\n\
          The head of the response arrived, and before it `sent` bytes of the request's body went out; its headers are \
          looked at where they are wanted.\n\nReturns whether a body may follow; where none can, the call has settled.",
    ),
    definition(
        c"respond",
        respond,
        c"respond($self, status, sent, stream, headers, kind, /)\n--\n\n\
          The same, of a response that has a stream; returns what is to be in its place: an instance of `kind`, a class \
          that derives from `Body`, where a body may follow, and else the stream itself.",
    ),
    definition(
        c"stream",
        stream,
        c"stream($self, stream, headers, kind, /)\n--\n\n\
          A stream that ends the call with what it is in the place of: an instance of `kind`, as `respond` gives.",
    ),
    definition(
        c"answer",
        answered,
        c"answer($self, status, headers, /)\n--\n\n\
          The head of the response arrived, with pairs of headers; `opened` or `step` follows.",
    ),
    definition(
        c"opened",
        opened,
        c"opened($self, status, /)\n--\n\n\
          The application gets the response.\n\n\
          Returns whether a body may follow; where none can, the call has settled.",
    ),
    definition(
        c"step",
        next_step,
        c"step($self, /)\n--\n\nWhat to do next: a tuple that begins with the number of its kind.",
    ),
    definition(
        c"hedge",
        hedge,
        c"hedge($self, /)\n--\n\n\
          A second attempt beside the one under way, as `step` tells of one; None where nothing has room for it.",
    ),
    definition(
        c"lost",
        lost,
        c"lost($self, number, status, error, /)\n--\n\n\
          Of two attempts that of this number ended with a status, or else with the error of this number; both are 0 \
          where it was given up, since the other one answered.",
    ),
    definition(
        c"shadow",
        shadow,
        c"shadow($self, /)\n--\n\n\
          A copy to send beside this call, and its attempt as `step` tells of one; None where there is no room for it.",
    ),
    definition(
        c"park",
        park,
        c"park($self, method, url, headers, body, /)\n--\n\n\
          Hands the request over to the outbox, as `step` asked; returns once it is on the disk or cannot be. `step` \
          follows.\n\n\
          `headers` are pairs; `body` is bytes.",
    ),
    definition(
        c"sent",
        sent,
        c"sent($self, count, /)\n--\n\nSo many more bytes of the request's body went out.",
    ),
    definition(
        c"failed",
        failed,
        c"failed($self, error, /)\n--\n\n\
          The attempt failed with the error of this number; `step` or `end` follows.",
    ),
    definition(
        c"body",
        body,
        c"body($self, data, /)\n--\n\nMore of the response's body arrived: the bytes, or how many.",
    ),
    definition(
        c"end",
        end,
        c"end($self, data, /)\n--\n\n\
          More of the response's body arrived (the bytes, or how many), and it was the last. Does nothing once settled.",
    ),
    definition(
        c"fail",
        fail,
        c"fail($self, error, sent, count, /)\n--\n\n\
          The call failed with the error of this number, after `sent` bytes of the request's body went out and \
          `count` more of the response's arrived. Does nothing once settled.",
    ),
    definition(
        c"abandon",
        abandon,
        c"abandon($self, /)\n--\n\nThe application let go of the response. Does nothing once settled.",
    ),
    ffi::PyMethodDef::zeroed(),
]);

/// Adds the type and the function to the module.
pub(crate) fn add_to(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    let kind = kind(
        module,
        c"farcall._farcall.Call",
        size_of::<Object>(),
        ffi::Py_TPFLAGS_DEFAULT | ffi::Py_TPFLAGS_DISALLOW_INSTANTIATION | ffi::Py_TPFLAGS_IMMUTABLETYPE,
        &mut [
            slot(ffi::Py_tp_dealloc, dealloc as *mut c_void),
            slot(ffi::Py_tp_methods, METHODS.0.as_ptr().cast_mut().cast()),
            slot(
                ffi::Py_tp_doc,
                c"A call under way; an object that is let go of unsettled counts as abandoned."
                    .as_ptr()
                    .cast_mut()
                    .cast(),
            ),
            slot(0, std::ptr::null_mut()),
        ],
    )?;
    TYPE.store(kind.clone().into_ptr().cast(), Ordering::Release);
    module.add("Call", kind)?;
    let name = module.name()?;
    for definition in &FUNCTIONS.0 {
        // SAFETY: the definition is static. The functions return a new reference or null with an exception, and what is
        // borrowed is static.
        #[allow(unsafe_code)]
        unsafe {
            let function = ffi::PyCFunction_NewEx(
                std::ptr::from_ref(definition).cast_mut(),
                std::ptr::null_mut(),
                name.as_ptr(),
            );
            let function = Bound::from_owned_ptr_or_err(py, function)?;
            module
                .add(function.getattr(pyo3::intern!(py, "__name__"))?.cast_into::<PyString>()?, function)?;
        }
    }
    Ok(())
}

/// A new type, of which an instance takes so many bytes.
pub(crate) fn kind<'py>(
    module: &Bound<'py, PyModule>,
    name: &'static CStr,
    size: usize,
    flags: std::ffi::c_ulong,
    slots: &mut [ffi::PyType_Slot],
) -> PyResult<Bound<'py, PyAny>> {
    let mut spec = ffi::PyType_Spec {
        name: name.as_ptr(),
        basicsize: c_int::try_from(size)?,
        itemsize: 0,
        flags: u32::try_from(flags)?,
        slots: slots.as_mut_ptr(),
    };
    // SAFETY: the specification is complete and ends with an empty slot, CPython copies it, and what its slots point
    // at is static. A new reference or null with an exception comes of it.
    #[allow(unsafe_code)]
    unsafe {
        Bound::from_owned_ptr_or_err(module.py(), ffi::PyType_FromSpec(&mut spec))
    }
}

pub(crate) const fn slot(slot: c_int, pfunc: *mut c_void) -> ffi::PyType_Slot {
    ffi::PyType_Slot { slot, pfunc }
}

pub(crate) const fn definition(
    name: &'static CStr,
    function: ffi::PyCFunctionFast,
    doc: &'static CStr,
) -> ffi::PyMethodDef {
    ffi::PyMethodDef {
        ml_name: name.as_ptr(),
        ml_meth: ffi::PyMethodDefPointer { PyCFunctionFast: function },
        ml_flags: ffi::METH_FASTCALL,
        ml_doc: doc.as_ptr(),
    }
}

/// The arguments of a function that is being called.
pub(crate) struct Arguments<'a, 'py> {
    pub(crate) py: Python<'py>,
    pub(crate) given: &'a [*mut PyObject],
}

impl<'a, 'py> Arguments<'a, 'py> {
    pub(crate) fn expect(&self, count: usize) -> PyResult<()> {
        if self.given.len() == count {
            return Ok(());
        }
        Err(PyTypeError::new_err(format!("{count} arguments are needed, {} were given", self.given.len())))
    }

    pub(crate) fn text(&self, place: usize) -> PyResult<&'a str> {
        let mut size = 0;
        // SAFETY: the object is there while the function runs, and with it its bytes, which are UTF-8. What is not
        // a `str` gives null and an exception.
        #[allow(unsafe_code)]
        unsafe {
            let bytes = ffi::PyUnicode_AsUTF8AndSize(self.given[place], &mut size);
            if bytes.is_null() {
                return Err(PyErr::fetch(self.py));
            }
            Ok(std::str::from_utf8_unchecked(std::slice::from_raw_parts(bytes.cast(), size.unsigned_abs())))
        }
    }

    pub(crate) fn number<T: TryFrom<i64>>(&self, place: usize) -> PyResult<T> {
        // SAFETY: the object is there while the function runs.
        #[allow(unsafe_code)]
        let number = unsafe { ffi::PyLong_AsLongLong(self.given[place]) };
        match T::try_from(number) {
            // Also said where it is no number, or too large.
            Ok(_) if number == -1 && PyErr::occurred(self.py) => Err(PyErr::fetch(self.py)),
            Ok(number) => Ok(number),
            Err(_) => Err(PyErr::take(self.py)
                .unwrap_or_else(|| PyOverflowError::new_err(format!("{number} is out of bounds")))),
        }
    }

    fn object(&self, place: usize) -> Borrowed<'a, 'py, PyAny> {
        // SAFETY: the object is there while the function runs.
        #[allow(unsafe_code)]
        unsafe {
            Borrowed::from_ptr(self.py, self.given[place])
        }
    }

    /// The bytes of a `bytes` object; `None` for any other.
    fn bytes(&self, place: usize) -> Option<&'a [u8]> {
        // SAFETY: the object is there while the function runs, and with it its bytes, which never change.
        #[allow(unsafe_code)]
        unsafe {
            let object = self.given[place];
            if ffi::PyBytes_Check(object) == 0 {
                return None;
            }
            let data = ffi::PyBytes_AsString(object).cast();
            Some(std::slice::from_raw_parts(data, ffi::PyBytes_Size(object).unsigned_abs()))
        }
    }

    fn request(&self, scope: Option<&'a Scope>) -> PyResult<Request<'a>> {
        Ok(Request {
            adapter: self.number(0)?,
            method: self.text(1)?,
            scheme: self.text(2)?,
            host: self.text(3)?,
            port: if self.is_none(4) { None } else { Some(self.number(4)?) },
            path: self.text(5)?,
            scope,
        })
    }

    fn is_number(&self, place: usize) -> bool {
        // SAFETY: the object is there while the function runs.
        #[allow(unsafe_code)]
        unsafe {
            ffi::PyLong_Check(self.given[place]) != 0
        }
    }

    pub(crate) fn is_none(&self, place: usize) -> bool {
        // SAFETY: it asks for an address.
        #[allow(unsafe_code)]
        unsafe {
            self.given[place] == ffi::Py_None()
        }
    }
}

/// The head of a response arrived, whose headers stand at `place`. Returns whether a body may follow.
fn is_open(call: &Call, given: &Arguments<'_, '_>, place: usize) -> PyResult<bool> {
    let status = given.number(0)?;
    Ok(match call.head(status, given.number(1)?) {
        Opened::Settled => false,
        Opened::Body => true,
        Opened::ShowHeaders => {
            headers::lend(&given.object(place), |headers| call.answer(status, headers))?;
            call.opened(status)
        }
    })
}

/// Part of a response's body: bytes, a number of bytes, or another buffer.
pub(crate) fn take(call: &Call, given: &Arguments<'_, '_>) -> PyResult<()> {
    if let Some(chunk) = given.bytes(0) {
        call.read(chunk);
    } else if given.is_number(0) {
        // Not by trying: an exception, even one that nobody sees, costs more than all the rest of a call's end.
        call.body(given.number(0)?);
    } else {
        // SAFETY: the object is there while the function runs; a new reference, or null with an exception, comes of it.
        #[allow(unsafe_code)]
        let copy =
            unsafe { Bound::from_owned_ptr_or_err(given.py, ffi::PyBytes_FromObject(given.given[0]))? };
        call.read(copy.cast::<PyBytes>()?.as_bytes());
    }
    Ok(())
}

/// The call that an object holds.
///
/// # Safety
/// It is an instance of `Call`, and there for as long as the result is used.
#[allow(unsafe_code)]
pub(crate) unsafe fn held<'a>(object: *mut PyObject) -> &'a Call {
    // SAFETY: the caller's promise.
    unsafe { &(*object.cast::<Object>()).call }
}

/// Does what the application must not feel: an error and a panic of ours are counted as a fault at `place`. An exception
/// that is under way stays.
pub(crate) fn guarded(place: &str, work: impl FnOnce() -> PyResult<()>) {
    let failure = match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(())) => return,
        Ok(Err(error)) => error,
        Err(_) => PyRuntimeError::new_err("farcall panicked"),
    };
    // SAFETY: those who call this are called by CPython, attached.
    #[allow(unsafe_code)]
    let py = unsafe { Python::assume_attached() };
    let under_way = PyErr::take(py);
    // What remains is an interpreter that is ending.
    let told = py
        .import("farcall._faults")
        .and_then(|faults| faults.call_method1("fault", (place, failure.value(py))));
    drop(told);
    if let Some(error) = under_way {
        error.restore(py);
    }
}

/// A new reference to None.
pub(crate) fn none() -> *mut PyObject {
    // SAFETY: it lives for ever.
    #[allow(unsafe_code)]
    unsafe {
        ffi::Py_NewRef(ffi::Py_None())
    }
}

/// A new reference to True or False.
fn truth(value: bool) -> *mut PyObject {
    // SAFETY: they live for ever.
    #[allow(unsafe_code)]
    unsafe {
        ffi::Py_NewRef(if value { ffi::Py_True() } else { ffi::Py_False() })
    }
}

/// Tells a call of the exception that `error` is, by a function of `farcall._hook`.
///
/// # Errors
/// None of that function's, which counts its own.
///
/// # Safety
/// The object is there.
#[allow(unsafe_code)]
pub(crate) unsafe fn tell(
    py: Python<'_>,
    function: &str,
    place: &str,
    call: *mut PyObject,
    error: &Bound<'_, PyAny>,
    sent: Option<u64>,
) -> PyResult<()> {
    // SAFETY: the caller's promise.
    let call = unsafe { Borrowed::from_ptr(py, call) };
    let function = py.import(pyo3::intern!(py, "farcall._hook"))?.getattr(function)?;
    match sent {
        Some(sent) => function.call1((place, call, error, sent)),
        None => function.call1((place, call, error)),
    }?;
    Ok(())
}

/// Whether an object is an instance of `Call`.
pub(crate) fn is_call(object: *mut PyObject) -> bool {
    // SAFETY: it asks for an address.
    #[allow(unsafe_code)]
    unsafe {
        ffi::Py_TYPE(object) == TYPE.load(Ordering::Acquire)
    }
}

/// A new object that holds the call; null with an exception where there is no memory.
pub(crate) fn object_of(call: Call) -> *mut PyObject {
    // SAFETY: the type was made when the module was loaded; its instances have the layout of `Object`, whose `call` is
    // written before anybody else sees it.
    #[allow(unsafe_code)]
    unsafe {
        let object: *mut Object = ffi::PyObject_New(TYPE.load(Ordering::Acquire));
        if !object.is_null() {
            (&raw mut (*object).call).write(call);
        }
        object.cast()
    }
}

/// The same, in PyO3's hands.
#[allow(unsafe_code)]
fn bound(py: Python<'_>, call: Call) -> PyResult<Bound<'_, PyAny>> {
    // SAFETY: a new reference, or null with an exception set.
    unsafe { Bound::from_owned_ptr_or_err(py, object_of(call)) }
}

/// Runs what a function does, which gives a new reference; an error and a panic of ours become exceptions.
///
/// # Safety
/// The thread is attached to the interpreter, and `args` leads to `count` objects that live as long as the call.
#[allow(unsafe_code)]
pub(crate) unsafe fn answer(
    args: *mut *mut PyObject,
    count: Py_ssize_t,
    function: impl FnOnce(&Arguments<'_, '_>) -> PyResult<*mut PyObject>,
) -> *mut PyObject {
    // SAFETY: the caller's promise.
    let py = unsafe { Python::assume_attached() };
    let given = match count {
        // There need not be an array.
        0 => &[],
        // SAFETY: the caller's promise.
        _ => unsafe { std::slice::from_raw_parts(args, count.unsigned_abs()) },
    };
    let arguments = Arguments { py, given };
    let error = match catch_unwind(AssertUnwindSafe(|| function(&arguments))) {
        Ok(Ok(object)) => return object,
        Ok(Err(error)) => error,
        Err(_) => PyRuntimeError::new_err("farcall panicked"),
    };
    error.restore(py);
    std::ptr::null_mut()
}

/// A function as CPython calls it (`METH_FASTCALL`), with as many arguments as it must have.
macro_rules! functions {
    ($($name:ident($count:literal) = |$this:ident, $call:ident, $arguments:ident| $body:expr;)*) => {$(
        #[allow(unsafe_code)]
        unsafe extern "C" fn $name(
            $this: *mut PyObject,
            args: *mut *mut PyObject,
            count: Py_ssize_t,
        ) -> *mut PyObject {
            // SAFETY: CPython calls it, attached, with objects that live as long as it runs. A method's `this` is
            // an instance of the type that the method belongs to, for the descriptor checks that.
            unsafe {
                answer(args, count, |$arguments| {
                    $arguments.expect($count)?;
                    let $call = || held($this);
                    $body
                })
            }
        }
    )*};
}

functions! {
    begin(7) = |_this, _call, given| {
        let scope = given.object(6);
        let scope = if given.is_none(6) { None } else { Some(scope.cast::<Scope>()?) };
        let request = given.request(scope.as_ref().map(|scope| scope.get()))?;
        Ok(Call::begin(&request).map_or_else(none, object_of))
    };
    begin_deciding(12) = |_this, _call, given| {
        let scope = given.object(6);
        let scope = if given.is_none(6) { None } else { Some(scope.cast::<Scope>()?) };
        let request = given.request(scope.as_ref().map(|scope| scope.get()))?;
        let headers = Shown::read(&given.object(7), given.bytes(11))?;
        let details = Details {
            headers: &headers,
            length: if given.is_none(8) { None } else { Some(given.number(8)?) },
            content: given.bytes(9).unwrap_or_default(),
            replayable: given.object(10).is_truthy()?,
        };
        Ok(Call::begin_deciding(&request, &details).map_or_else(none, object_of))
    };
    decides(0) = |_this, _call, _given| Ok(truth(handle().is_some_and(Handle::decides)));
    caches(0) = |_this, _call, _given| Ok(truth(handle().is_some_and(Handle::caches)));
    connected(3) = |_this, call, given| {
        let seconds = |place| match given.is_none(place) {
            true => Ok(None),
            false => given.object(place).extract::<f64>().map(Some),
        };
        call().connected(seconds(0)?, seconds(1)?, seconds(2)?);
        Ok(none())
    };
    head(2) = |_this, call, given| Ok(match call().head(given.number(0)?, given.number(1)?) {
        Opened::Settled => truth(false),
        Opened::Body => truth(true),
        Opened::ShowHeaders => none(),
    });
    headed(3) = |_this, call, given| {
        Ok(truth(is_open(call(), given, 2)?))
    };
    respond(5) = |this, call, given| {
        let Arguments { py, given: objects } = given;
        match is_open(call(), given, 3)? {
            true => body::stream(*py, this, objects[2], objects[3], objects[4]),
            false => Ok(ffi::Py_NewRef(objects[2])),
        }
    };
    stream(3) = |this, _call, given| {
        let Arguments { py, given: objects } = given;
        body::stream(*py, this, objects[0], objects[1], objects[2])
    };
    answered(2) = |_this, call, given| {
        call().answer(given.number(0)?, &Shown::read(&given.object(1), None)?);
        Ok(none())
    };
    opened(1) = |_this, call, given| Ok(truth(call().opened(given.number(0)?)));
    next_step(0) = |_this, call, given| {
        let (step, now, octets) = call().step();
        Ok(step::to_python(given.py, step, now, octets)?.into_ptr())
    };
    hedge(0) = |_this, call, given| match call().hedge() {
        Some((attempt, now)) => Ok(step::send(given.py, &attempt, now)?.into_ptr()),
        None => Ok(none()),
    };
    lost(3) = |_this, call, given| {
        let ending = match (given.number(1)?, given.number(2)?) {
            (0_u16, 0_u8) => None,
            (0, error) => Some(Ending::Error(ErrorType::from_number(error))),
            (status, _) => Some(Ending::Status(status)),
        };
        call().lost(given.number(0)?, ending);
        Ok(none())
    };
    shadow(0) = |_this, call, given| {
        let Some((copy, attempt, now)) = call().shadow() else { return Ok(none()) };
        let attempt = step::send(given.py, &attempt, now)?;
        Ok((bound(given.py, copy)?, attempt).into_pyobject(given.py)?.into_ptr())
    };
    park(4) = |_this, call, given| {
        if let Some(terms) = call().take_terms() {
            let mut headers = Vec::new();
            Shown::read(&given.object(2), None)?.each(&mut |name, value| headers.push((name.to_vec(), value.to_vec())));
            let request = (given.text(0)?, given.text(1)?);
            let body = given.bytes(3).unwrap_or_default();
            parking::park(given.py, call(), &terms, request, &headers, body);
        }
        Ok(none())
    };
    sent(1) = |_this, call, given| {
        call().sent(given.number(0)?);
        Ok(none())
    };
    failed(1) = |_this, call, given| {
        call().failed(ErrorType::from_number(given.number(0)?));
        Ok(none())
    };
    body(1) = |_this, call, given| {
        take(call(), given)?;
        Ok(none())
    };
    end(1) = |_this, call, given| {
        // Nothing is left to tell of a call that has settled.
        if !call().is_settled() {
            take(call(), given)?;
            call().end();
        }
        Ok(none())
    };
    fail(3) = |_this, call, given| {
        call().fail(ErrorType::from_number(given.number(0)?), given.number(1)?, given.number(2)?);
        Ok(none())
    };
    abandon(0) = |_this, call, _given| {
        call().abandon();
        Ok(none())
    };
}

#[allow(unsafe_code)]
unsafe extern "C" fn dealloc(this: *mut PyObject) {
    // SAFETY: CPython calls it once, when nobody refers to the object any more. The memory is from `PyObject_New`, to
    // which `PyObject_Free` belongs, and which took a reference to the type.
    unsafe {
        let kind = ffi::Py_TYPE(this);
        let call = &raw mut (*this.cast::<Object>()).call;
        // Counting a call touches nothing of Python, so that an exception under way stays.
        let _ = catch_unwind(AssertUnwindSafe(|| call.drop_in_place()));
        ffi::PyObject_Free(this.cast());
        ffi::Py_DECREF(kind.cast());
    }
}
