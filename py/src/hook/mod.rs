//! Hooks that hand a call on as they got it: methods of urllib3, requests and httpx, counted.
//!
//! A hook in Python that fits every version of a library takes `*args, **kwargs`: a call with ten keywords is packed and
//! unpacked twice, each keyword compared to each parameter. Even one that takes what it hands on has a frame of its own,
//! and reads each attribute by way of the interpreter. These pass the arguments on where they are. They know the common
//! way alone; for all else there is a hook in Python.

mod httpx;
mod requests;
mod urllib3;

use crate::arguments::answer;
use crate::guard::{function_of_python, guarded, or_stay, tell};
use crate::object;
use crate::scope::Scope;
use crate::types::{Definitions, Type, definition, kind, slot};
use pyo3::Borrowed;
use pyo3::exceptions::PyTypeError;
use pyo3::ffi::{self, Py_ssize_t, PyObject};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;
use std::cell::RefCell;
use std::ffi::c_void;
use std::mem::offset_of;
use std::sync::OnceLock;

/// How CPython lays out a hook. All references are owned.
#[repr(C)]
struct Hook {
    base: PyObject,
    vectorcall: ffi::vectorcallfunc,
    /// What was there before.
    original: *mut PyObject,
    /// The hook in Python, which knows every case.
    whole: *mut PyObject,
    /// What gives a call its scope.
    scope: *mut PyObject,
    /// For a read of urllib3's, the kind of http.client's responses; for httpx, the kind of its streams; for requests,
    /// its `Keeping`.
    extra: *mut PyObject,
    /// What others set on it, as on a function.
    attributes: *mut PyObject,
    adapter: usize,
    forward: Vectorcall,
}

/// `PyObject_Vectorcall`, which may unwind ([`or_stay`]).
type Vectorcall =
    unsafe extern "C-unwind" fn(*mut PyObject, *const *mut PyObject, usize, *mut PyObject) -> *mut PyObject;

impl Hook {
    /// Calls `function` with arguments as CPython gives them to a hook.
    ///
    /// # Safety
    /// The thread is attached, and there are `count` objects at `args`, and as many more as there are names.
    #[allow(unsafe_code)]
    #[inline]
    unsafe fn forward(
        &self,
        function: *mut PyObject,
        args: *const *mut PyObject,
        count: usize,
        names: *mut PyObject,
    ) -> *mut PyObject {
        // SAFETY: the caller's promise.
        or_stay(|| unsafe { (self.forward)(function, args, count, names) })
    }

    /// The scope that the call is made in.
    ///
    /// # Safety
    /// The thread is attached, and the hook is filled in.
    #[allow(unsafe_code)]
    unsafe fn scope<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, Scope>>> {
        // SAFETY: the caller's promise.
        let scope = unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyObject_CallNoArgs(self.scope))? };
        Ok(if scope.is_none() { None } else { Some(scope.cast_into::<Scope>()?) })
    }
}

// Of the limited API from Python 3.12; the same since 3.8.
const HAVE_VECTORCALL: std::ffi::c_ulong = 1 << 11;
const ARGUMENTS_OFFSET: usize = 1 << (usize::BITS - 1);

static METHODS: Definitions<2> = Definitions([
    definition(c"__reduce__", reduce, c"__reduce__($self, /)\n--\n\nIs found by its name, like a function."),
    ffi::PyMethodDef::zeroed(),
]);

static TYPE: Type = Type::new();

/// `PyObject_Vectorcall` and `PyVectorcall_Call`, which the limited API has from Python 3.12, and 3.11 exports already.
struct Forward(Vectorcall, *mut c_void);

// SAFETY: both lead to functions.
#[allow(unsafe_code)]
unsafe impl Sync for Forward {}
// SAFETY: the same.
#[allow(unsafe_code)]
unsafe impl Send for Forward {}

fn forward() -> Option<&'static Forward> {
    static FORWARD: OnceLock<Option<Forward>> = OnceLock::new();
    let find = || {
        let function = function_of_python(c"PyObject_Vectorcall");
        let call = function_of_python(c"PyVectorcall_Call");
        if function.is_null() || call.is_null() {
            return None;
        }
        // SAFETY: where there is a function of that name, it is CPython's, of that type.
        #[allow(unsafe_code)]
        Some(Forward(unsafe { std::mem::transmute::<*mut c_void, Vectorcall>(function) }, call))
    };
    FORWARD.get_or_init(find).as_ref()
}

/// Adds the type and the functions to the module.
pub(crate) fn add_to(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(hook, module)?)?;
    module.add_function(wrap_pyfunction!(under_way, module)?)?;
    module.add_class::<requests::Keeping>()?;
    httpx::add_to(module)?;
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
            slot(ffi::Py_tp_methods, METHODS.0.as_ptr().cast_mut().cast()),
            slot(ffi::Py_tp_doc, c"A method of a library, counted.".as_ptr().cast_mut().cast()),
            slot(0, std::ptr::null_mut()),
        ],
    )?;
    TYPE.set(hook);
    Ok(())
}

/// A hook of this kind in the place of `original`, with `whole` for what it does not know; `whole` itself where this
/// Python cannot have one.
#[pyfunction]
#[pyo3(signature = (kind, adapter, original, whole, scope, extra, /))]
pub(crate) fn hook<'py>(
    kind: &str,
    adapter: usize,
    original: Bound<'py, PyAny>,
    whole: Bound<'py, PyAny>,
    scope: Bound<'py, PyAny>,
    extra: Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    let Some(Forward(forward, _)) = forward() else { return Ok(whole) };
    let vectorcall: ffi::vectorcallfunc = match kind {
        "exchange" => urllib3::exchange,
        "read" => urllib3::read,
        "request" => httpx::request,
        "async_request" => httpx::async_request,
        "send" => requests::send,
        _ => return Err(PyTypeError::new_err(format!("no hook of the kind {kind}"))),
    };
    let py = whole.py();
    // SAFETY: the type was made when the module was loaded; its instances have the layout of `Hook`, all of which is
    // written before anybody else sees it.
    #[allow(unsafe_code)]
    unsafe {
        let made = Bound::from_owned_ptr_or_err(py, ffi::PyType_GenericAlloc(TYPE.get(), 0))?;
        let hook = made.as_ptr().cast::<Hook>();
        (*hook).vectorcall = vectorcall;
        (*hook).original = original.into_ptr();
        (*hook).whole = whole.into_ptr();
        (*hook).scope = scope.into_ptr();
        (*hook).extra = extra.into_ptr();
        (*hook).adapter = adapter;
        (*hook).forward = *forward;
        Ok(made)
    }
}

thread_local! {
    /// The exchanges that this thread makes, by urllib3's connection or httpx's request. Not a stack: greenlets come and
    /// go in any order.
    static UNDER_WAY: RefCell<Vec<(*mut PyObject, *mut PyObject)>> = const { RefCell::new(Vec::new()) };
}

/// The call whose exchange goes over this connection of urllib3's, or sends this request of httpx's, of those that a
/// native hook of this thread is in.
#[pyfunction]
#[pyo3(signature = (key, /))]
pub(crate) fn under_way<'py>(key: &Bound<'py, PyAny>) -> Option<Bound<'py, PyAny>> {
    let find = |exchanges: &RefCell<Vec<(*mut PyObject, *mut PyObject)>>| {
        let exchanges = exchanges.borrow();
        let exchange = exchanges.iter().rev().find(|(known, _)| *known == key.as_ptr());
        // SAFETY: the hook that put it there holds it until it takes it out again.
        #[allow(unsafe_code)]
        exchange.map(|(_, call)| unsafe { Bound::from_borrowed_ptr(key.py(), *call) })
    };
    UNDER_WAY.try_with(find).ok().flatten()
}

/// Whether there is one by this key.
fn is_under_way(key: *mut PyObject) -> bool {
    let find = |exchanges: &RefCell<Vec<(*mut PyObject, *mut PyObject)>>| {
        exchanges.borrow().iter().any(|(known, _)| *known == key)
    };
    !key.is_null() && UNDER_WAY.try_with(find).unwrap_or(false)
}

/// Has the call be found by `key` while `step` runs.
fn while_under_way<T>(key: *mut PyObject, call: *mut PyObject, step: impl FnOnce() -> T) -> T {
    // Fails where the thread is past its end: then nobody asks.
    let _ = UNDER_WAY.try_with(|exchanges| exchanges.borrow_mut().push((key, call)));
    let done = step();
    let _ = UNDER_WAY.try_with(|exchanges| {
        let mut exchanges = exchanges.borrow_mut();
        if let Some(place) = exchanges.iter().rposition(|(_, known)| *known == call) {
            exchanges.swap_remove(place);
        }
    });
    done
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

/// Where a failure of ours is counted.
struct Places {
    begin: &'static str,
    head: &'static str,
    fail: &'static str,
}

/// Makes an exchange, whose call is found by `key` while it is under way.
///
/// # Safety
/// CPython called the hook, attached, with `count` objects at `args`, and as many more as there are names; `key` is one
/// of them, or null where there are fewer.
#[allow(unsafe_code)]
unsafe fn perform(
    hook: &Hook,
    (args, count, names): (*const *mut PyObject, usize, *mut PyObject),
    key: *mut PyObject,
    places: &Places,
    begin: impl FnOnce(Python<'_>) -> PyResult<Begun>,
    head: impl FnOnce(Python<'_>, *mut PyObject, Borrowed<'_, '_, PyAny>, u64) -> PyResult<()>,
) -> *mut PyObject {
    // SAFETY: the caller's promise.
    unsafe {
        let py = Python::assume_attached();
        let mut begun = Begun::Uncounted;
        let done = guarded(places.begin, || {
            begun = begin(py)?;
            Ok(())
        });
        if let Err(error) = done {
            error.restore(py);
            return std::ptr::null_mut();
        }
        let (call, sent) = match begun {
            Begun::Unknown => return hook.forward(hook.whole, args, count, names),
            Begun::Uncounted => return hook.forward(hook.original, args, count, names),
            Begun::Counted(call, sent) => (call, sent),
        };
        let mut response = while_under_way(key, call, || hook.forward(hook.original, args, count, names));
        if response.is_null() {
            tell("fail", places.fail, call, Some(sent));
        } else if let Err(error) =
            guarded(places.head, || head(py, call, Borrowed::from_ptr(py, response), sent))
        {
            ffi::Py_DECREF(response);
            response = std::ptr::null_mut();
            error.restore(py);
        }
        ffi::Py_DECREF(call);
        response
    }
}

/// A new reference to the object of a call that began.
fn counted(py: Python<'_>, call: Option<crate::call::Call>, sent: u64) -> PyResult<Begun> {
    let Some(call) = call else { return Ok(Begun::Unknown) };
    let call = object::object_of(call);
    if call.is_null() { Err(PyErr::fetch(py)) } else { Ok(Begun::Counted(call, sent)) }
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

/// What copies and pickles it: its name, as of a function.
#[allow(unsafe_code)]
unsafe extern "C" fn reduce(
    this: *mut PyObject,
    args: *mut *mut PyObject,
    count: Py_ssize_t,
) -> *mut PyObject {
    // SAFETY: CPython calls it, attached, with a hook.
    unsafe {
        answer(args, count, |given| {
            let hook = Borrowed::from_ptr(given.py, this);
            Ok(hook.getattr(pyo3::intern!(given.py, "__qualname__"))?.into_ptr())
        })
    }
}

#[allow(unsafe_code)]
unsafe extern "C" fn dealloc(this: *mut PyObject) {
    // SAFETY: CPython calls it once, when nobody refers to the object any more.
    unsafe {
        let kind = ffi::Py_TYPE(this);
        let hook = this.cast::<Hook>();
        for held in [(*hook).original, (*hook).whole, (*hook).scope, (*hook).extra, (*hook).attributes] {
            ffi::Py_XDECREF(held);
        }
        ffi::PyObject_Free(this.cast());
        ffi::Py_DECREF(kind.cast());
    }
}
