//! Hooks of urllib3 that hand a call on as they got it.
//!
//! A hook in Python takes `*args, **kwargs`, so that it fits every version of the library. A call with ten keywords is
//! then packed and unpacked twice, each keyword compared to each parameter: three quarters of what a call cost. These
//! pass the arguments on where they are. They know the common way alone; for all else there is a hook in Python.

use crate::call::{Call, Opened, Request};
use crate::handle::handle;
use crate::headers;
use crate::object::{self, Arguments, guarded, kind, slot};
use crate::scope::Scope;
use pyo3::exceptions::PyTypeError;
use pyo3::ffi::{self, Py_ssize_t, PyObject};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;
use pyo3::{Borrowed, intern};
use std::cell::RefCell;
use std::ffi::{c_char, c_void};
use std::mem::offset_of;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, Ordering};

/// How CPython lays out a hook. All references are owned.
#[repr(C)]
struct Hook {
    base: PyObject,
    vectorcall: ffi::vectorcallfunc,
    /// What was there before.
    original: *mut PyObject,
    /// The hook in Python, which knows every case.
    whole: *mut PyObject,
    /// What gives an exchange its scope, or the kind of http.client's responses, for a read.
    extra: *mut PyObject,
    /// What others set on it, as on a function.
    attributes: *mut PyObject,
    adapter: usize,
    forward: ffi::vectorcallfunc,
}

// Of the limited API from Python 3.12; the same since 3.8.
const HAVE_VECTORCALL: std::ffi::c_ulong = 1 << 11;
const ARGUMENTS_OFFSET: usize = 1 << (usize::BITS - 1);

static TYPE: AtomicPtr<ffi::PyTypeObject> = AtomicPtr::new(std::ptr::null_mut());

/// `PyObject_Vectorcall` and `PyVectorcall_Call`, which the limited API has from Python 3.12, and 3.11 exports already.
struct Forward(ffi::vectorcallfunc, *mut c_void);

// SAFETY: both lead to functions.
#[allow(unsafe_code)]
unsafe impl Sync for Forward {}
// SAFETY: the same.
#[allow(unsafe_code)]
unsafe impl Send for Forward {}

fn forward() -> Option<&'static Forward> {
    #[allow(unsafe_code)]
    unsafe extern "C" {
        fn dlsym(library: *mut c_void, name: *const c_char) -> *mut c_void;
    }
    static FORWARD: OnceLock<Option<Forward>> = OnceLock::new();
    let find = || {
        // SAFETY: the names end with zero, and null stands for all that the process has loaded. Where there is a function
        // of that name, it is CPython's, of that type.
        #[allow(unsafe_code)]
        unsafe {
            let function = dlsym(std::ptr::null_mut(), c"PyObject_Vectorcall".as_ptr());
            let call = dlsym(std::ptr::null_mut(), c"PyVectorcall_Call".as_ptr());
            if function.is_null() || call.is_null() {
                return None;
            }
            Some(Forward(std::mem::transmute::<*mut c_void, ffi::vectorcallfunc>(function), call))
        }
    };
    FORWARD.get_or_init(find).as_ref()
}

/// Adds the type and the functions to the module.
pub(crate) fn add_to(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(hook, module)?)?;
    module.add_function(wrap_pyfunction!(under_way, module)?)?;
    let Some(Forward(_, call)) = forward() else { return Ok(()) };
    let member = |name: &'static std::ffi::CStr, offset: usize| ffi::PyMemberDef {
        name: name.as_ptr(),
        type_code: ffi::Py_T_PYSSIZET,
        offset: Py_ssize_t::try_from(offset).unwrap_or(0),
        flags: ffi::Py_READONLY,
        doc: std::ptr::null(),
    };
    let mut members = [
        member(c"__vectorcalloffset__", offset_of!(Hook, vectorcall)),
        member(c"__dictoffset__", offset_of!(Hook, attributes)),
        ffi::PyMemberDef::default(),
    ];
    let hook = kind(
        module,
        c"farcall._farcall.Hook",
        size_of::<Hook>(),
        ffi::Py_TPFLAGS_DEFAULT
            | ffi::Py_TPFLAGS_DISALLOW_INSTANTIATION
            | ffi::Py_TPFLAGS_IMMUTABLETYPE
            | HAVE_VECTORCALL
            | ffi::Py_TPFLAGS_METHOD_DESCRIPTOR,
        &mut [
            slot(ffi::Py_tp_dealloc, dealloc as *mut c_void),
            slot(ffi::Py_tp_call, *call),
            slot(ffi::Py_tp_descr_get, get as *mut c_void),
            slot(ffi::Py_tp_members, members.as_mut_ptr().cast()),
            slot(ffi::Py_tp_doc, c"A method of a library, counted.".as_ptr().cast_mut().cast()),
            slot(0, std::ptr::null_mut()),
        ],
    )?;
    TYPE.store(hook.into_ptr().cast(), Ordering::Release);
    Ok(())
}

/// A hook of this kind in the place of `original`, with `whole` for what it does not know; `whole` itself where this
/// Python cannot have one.
#[pyfunction]
#[pyo3(signature = (kind, adapter, original, whole, extra, /))]
pub(crate) fn hook<'py>(
    kind: &str,
    adapter: usize,
    original: Bound<'py, PyAny>,
    whole: Bound<'py, PyAny>,
    extra: Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    let Some(Forward(forward, _)) = forward() else { return Ok(whole) };
    let vectorcall: ffi::vectorcallfunc = match kind {
        "exchange" => exchange,
        "read" => read,
        _ => return Err(PyTypeError::new_err(format!("no hook of the kind {kind}"))),
    };
    let py = whole.py();
    // SAFETY: the type was made when the module was loaded; its instances have the layout of `Hook`, all of which is
    // written before anybody else sees it.
    #[allow(unsafe_code)]
    unsafe {
        let made =
            Bound::from_owned_ptr_or_err(py, ffi::PyType_GenericAlloc(TYPE.load(Ordering::Acquire), 0))?;
        let hook = made.as_ptr().cast::<Hook>();
        (*hook).vectorcall = vectorcall;
        (*hook).original = original.into_ptr();
        (*hook).whole = whole.into_ptr();
        (*hook).extra = extra.into_ptr();
        (*hook).adapter = adapter;
        (*hook).forward = *forward;
        Ok(made)
    }
}

thread_local! {
    /// The exchanges that this thread makes, by their connections. Not a stack: greenlets come and go in any order.
    static UNDER_WAY: RefCell<Vec<(*mut PyObject, *mut PyObject)>> = const { RefCell::new(Vec::new()) };
}

/// The call whose exchange goes over this connection, of those that a native hook of this thread began.
#[pyfunction]
#[pyo3(signature = (connection, /))]
pub(crate) fn under_way<'py>(connection: &Bound<'py, PyAny>) -> Option<Bound<'py, PyAny>> {
    let find = |exchanges: &RefCell<Vec<(*mut PyObject, *mut PyObject)>>| {
        let exchanges = exchanges.borrow();
        let exchange = exchanges.iter().rev().find(|(key, _)| *key == connection.as_ptr());
        // SAFETY: the hook that put it there holds it until it takes it out again.
        #[allow(unsafe_code)]
        exchange.map(|(_, call)| unsafe { Bound::from_borrowed_ptr(connection.py(), *call) })
    };
    UNDER_WAY.try_with(find).ok().flatten()
}

/// What is to be done with an exchange.
enum Begun {
    /// This hook does not know how.
    Unknown,
    /// Nothing: our own code failed.
    Uncounted,
    /// A new reference to its call, and how long the body is that it sends.
    Counted(*mut PyObject, u64),
}

/// urllib3's `_make_request(self, conn, method, url, *, ...)`.
#[allow(unsafe_code)]
unsafe extern "C" fn exchange(
    this: *mut PyObject,
    args: *const *mut PyObject,
    count: usize,
    names: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: CPython calls it, attached, with a hook, `count` objects at `args`, and as many more as there are names.
    unsafe {
        let hook = &*this.cast::<Hook>();
        let given = count & !ARGUMENTS_OFFSET;
        let mut begun = Begun::Uncounted;
        guarded("urllib3.begin", || {
            begun = begin_exchange(hook, args, given, names)?;
            Ok(())
        });
        let (call, sent) = match begun {
            Begun::Unknown => return (hook.forward)(hook.whole, args, given, names),
            Begun::Uncounted => return (hook.forward)(hook.original, args, given, names),
            Begun::Counted(call, sent) => (call, sent),
        };
        // Fails where the thread is past its end: then nobody asks.
        let _ = UNDER_WAY.try_with(|exchanges| exchanges.borrow_mut().push((*args.add(1), call)));
        let response = (hook.forward)(hook.original, args, given, names);
        let _ = UNDER_WAY.try_with(|exchanges| {
            let mut exchanges = exchanges.borrow_mut();
            if let Some(place) = exchanges.iter().rposition(|(_, known)| *known == call) {
                exchanges.swap_remove(place);
            }
        });
        if response.is_null() {
            tell("fail", "urllib3.fail", call, Some(sent));
        } else {
            guarded("urllib3.head", || head(call, response, sent));
        }
        ffi::Py_DECREF(call);
        response
    }
}

/// # Safety
/// As of [`exchange`].
#[allow(unsafe_code)]
unsafe fn begin_exchange(
    hook: &Hook,
    args: *const *mut PyObject,
    count: usize,
    names: *mut PyObject,
) -> PyResult<Begun> {
    // SAFETY: the caller's promise.
    unsafe {
        if count != 4 || names.is_null() {
            return Ok(Begun::Unknown);
        }
        let py = Python::assume_attached();
        // By identity: what is written in a program's text is the same object as the one here.
        let (body, preload) = (intern!(py, "body").as_ptr(), intern!(py, "preload_content").as_ptr());
        let (mut content, mut unread) = (std::ptr::null_mut(), false);
        for place in 0..ffi::PyTuple_Size(names) {
            let name = ffi::PyTuple_GetItem(names, place);
            let value = *args.add(count + place.unsigned_abs());
            if name == body {
                content = value;
            } else if name == preload {
                unread = value == ffi::Py_False();
            }
        }
        if !unread || content.is_null() {
            return Ok(Begun::Unknown);
        }
        let sent = match () {
            () if content == ffi::Py_None() => 0,
            () if ffi::PyBytes_Check(content) != 0 => ffi::PyBytes_Size(content).unsigned_abs() as u64,
            () => return Ok(Begun::Unknown),
        };
        if !handle().is_some_and(|handle| handle.is_watching() && !handle.farcall.engine().decides()) {
            return Ok(Begun::Unknown);
        }
        let pool = Borrowed::from_ptr(py, *args);
        let (scheme, host) = (pool.getattr(intern!(py, "scheme"))?, pool.getattr(intern!(py, "host"))?);
        let port = pool.getattr(intern!(py, "port"))?;
        let scope = Bound::from_owned_ptr_or_err(py, ffi::PyObject_CallNoArgs(hook.extra))?;
        let scope = if scope.is_none() { None } else { Some(scope.cast_into::<Scope>()?) };
        let shown = [scheme.as_ptr(), host.as_ptr(), port.as_ptr(), *args.add(2), *args.add(3)];
        let shown = Arguments { py, given: &shown };
        let request = Request {
            adapter: hook.adapter,
            method: shown.text(3)?,
            scheme: shown.text(0)?,
            host: shown.text(1)?,
            port: if shown.is_none(2) { None } else { Some(shown.number(2)?) },
            path: shown.text(4)?,
            scope: scope.as_ref().map(|scope| scope.get()),
        };
        Ok(match Call::begin(&request) {
            Some(call) => {
                let call = object::object_of(call);
                if call.is_null() {
                    return Err(PyErr::fetch(py));
                }
                Begun::Counted(call, sent)
            }
            None => Begun::Unknown,
        })
    }
}

/// The head of a response arrived, which keeps its call until its body is read.
///
/// # Safety
/// Attached, with a call and a response.
#[allow(unsafe_code)]
unsafe fn head(call: *mut PyObject, response: *mut PyObject, sent: u64) -> PyResult<()> {
    // SAFETY: the caller's promise.
    unsafe {
        let py = Python::assume_attached();
        let (response, held) = (Borrowed::from_ptr(py, response), object::held(call));
        let status = response.getattr(intern!(py, "status"))?;
        let status = Arguments { py, given: &[status.as_ptr()] }.number(0)?;
        if held.head(status, sent) == Opened::ShowHeaders {
            let headers =
                py.import("farcall._adapters.urllib3_acting")?.getattr("headers_of")?.call1((response,))?;
            headers::lend(&headers, |headers| held.answer(status, headers))?;
            held.opened(status);
        }
        response.setattr(intern!(py, "_farcall_call"), Borrowed::from_ptr(py, call))?;
        // urllib3 1.26 returns http.client's response here, and wraps it afterwards.
        if is_zero(response.getattr_opt(intern!(py, "length_remaining"))?) {
            held.end();
        }
        Ok(())
    }
}

/// Whether it is the number 0.
fn is_zero(object: Option<Bound<'_, PyAny>>) -> bool {
    // SAFETY: attached, with an object that is there.
    #[allow(unsafe_code)]
    object.is_some_and(|object| unsafe {
        // A server may say any number: one that is too large is no error here, and is not zero.
        let mut overflow = 0;
        ffi::PyLong_Check(object.as_ptr()) != 0
            && ffi::PyLong_AsLongLongAndOverflow(object.as_ptr(), &raw mut overflow) == 0
            && overflow == 0
    })
}

/// `_raw_read(self, ...)` of urllib3's responses (1.26: `_fp_read`).
#[allow(unsafe_code)]
unsafe extern "C" fn read(
    this: *mut PyObject,
    args: *const *mut PyObject,
    count: usize,
    names: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: CPython calls it, attached, with a hook, `count` objects at `args`, and as many more as there are names.
    unsafe {
        let hook = &*this.cast::<Hook>();
        let given = count & !ARGUMENTS_OFFSET;
        let py = Python::assume_attached();
        let mut call = None;
        if given > 0 {
            let response = Borrowed::from_ptr(py, *args);
            call = response.getattr(intern!(py, "_farcall_call")).ok();
        }
        let Some(call) = call.filter(|call| call.is_none() || object::is_call(call.as_ptr())) else {
            return (hook.forward)(hook.whole, args, given, names);
        };
        let data = (hook.forward)(hook.original, args, given, names);
        if call.is_none() {
            return data;
        }
        if data.is_null() {
            tell("broke", "urllib3.body", call.as_ptr(), None);
        } else {
            guarded("urllib3.body", || came(hook, Borrowed::from_ptr(py, *args), &call, data));
        }
        data
    }
}

/// Part of a response's body was read, or its end.
///
/// # Safety
/// Attached, with a call and data that are there.
#[allow(unsafe_code)]
unsafe fn came(
    hook: &Hook,
    response: Borrowed<'_, '_, PyAny>,
    call: &Bound<'_, PyAny>,
    data: *mut PyObject,
) -> PyResult<()> {
    // SAFETY: the caller's promise.
    unsafe {
        let py = call.py();
        let held = object::held(call.as_ptr());
        let data = Borrowed::from_ptr(py, data);
        let below = response.getattr(intern!(py, "_fp"))?;
        let over = if below.is_none() {
            true
        } else if below.get_type_ptr().cast() == hook.extra {
            // What `isclosed()` of http.client looks at.
            below.getattr(intern!(py, "fp"))?.is_none()
        } else {
            below.call_method0(intern!(py, "isclosed"))?.is_truthy()?
        };
        let some = data.is_truthy()?;
        if over {
            if !some && response.getattr(intern!(py, "length_remaining"))?.is_truthy()? {
                // urllib3 1.26, and callers that do not insist on the announced length, call this an end.
                held.fail(farcall::ErrorType::Protocol, 0, 0);
            } else {
                if some && !held.is_settled() {
                    object::take(held, &Arguments { py, given: &[data.as_ptr()] })?;
                }
                held.end();
            }
            // Nothing is left to tell: urllib3 reads once more to be sure.
            response.setattr(intern!(py, "_farcall_call"), py.None())?;
        } else if some {
            object::take(held, &Arguments { py, given: &[data.as_ptr()] })?;
        }
        Ok(())
    }
}

/// Tells a call, in Python, what the exception that is set means for it; it stays set.
///
/// # Safety
/// Attached, with a call.
#[allow(unsafe_code)]
unsafe fn tell(function: &str, place: &str, call: *mut PyObject, sent: Option<u64>) {
    // SAFETY: the caller's promise.
    unsafe {
        let py = Python::assume_attached();
        let error = PyErr::fetch(py);
        let value = error.value(py).as_any().clone();
        // It counts its own failures. What remains is an interpreter that is ending.
        let _ = object::tell(py, function, place, call, &value, sent);
        error.restore(py);
    }
}

/// What a class gives for a hook: itself, or bound to an instance, like a function.
#[allow(unsafe_code)]
unsafe extern "C" fn get(
    this: *mut PyObject,
    instance: *mut PyObject,
    _owner: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: CPython calls it, attached, with a hook.
    unsafe {
        if instance.is_null() || instance == ffi::Py_None() {
            return ffi::Py_NewRef(this);
        }
        let py = Python::assume_attached();
        static METHOD: PyOnceLock<Py<PyType>> = PyOnceLock::new();
        let bound = METHOD
            .import(py, "types", "MethodType")
            .and_then(|kind| kind.call1((Borrowed::from_ptr(py, this), Borrowed::from_ptr(py, instance))));
        match bound {
            Ok(bound) => bound.into_ptr(),
            Err(error) => {
                error.restore(py);
                std::ptr::null_mut()
            }
        }
    }
}

#[allow(unsafe_code)]
unsafe extern "C" fn dealloc(this: *mut PyObject) {
    // SAFETY: CPython calls it once, when nobody refers to the object any more.
    unsafe {
        let kind = ffi::Py_TYPE(this);
        let hook = this.cast::<Hook>();
        for held in [(*hook).original, (*hook).whole, (*hook).extra, (*hook).attributes] {
            ffi::Py_XDECREF(held);
        }
        ffi::PyObject_Free(this.cast());
        ffi::Py_DECREF(kind.cast());
    }
}
