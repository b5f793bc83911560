//! The hook of requests' adapters, which stands above urllib3's: an answer that is kept needs no connection, and none of
//! what an exchange is made of.

use super::{ARGUMENTS_OFFSET, Hook};
use crate::arguments::Arguments;
use crate::call::{Call, Details, Request, patience};
use crate::guard::guarded;
use crate::handle::{Handle, handle};
use crate::headers::{self, Shown};
use crate::object;
use crate::step;
use farcall::{Step, Stored};
use pyo3::exceptions::PyTypeError;
use pyo3::ffi::{self, PyObject};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDict, PyString, PyTuple, PyType};
use pyo3::{Borrowed, intern};
use std::time::Duration;

/// What a hook of requests knows of the library, and asks of its other half in Python.
#[pyclass(frozen, module = "farcall._farcall")]
pub(crate) struct Keeping {
    /// `HTTPAdapter`: of no other class is known what its connections are like.
    adapter: Py<PyType>,
    /// Its `build_response`, as long as nobody has put another one in its place.
    build: Py<PyAny>,
    /// What a refusal is to requests: raises.
    refuse: Py<PyAny>,
    /// The kind of refusals.
    refused: Py<PyType>,
    /// Goes on with a call that began.
    go_on: Py<PyAny>,
    /// Makes a response the way that the library does.
    make: Py<PyAny>,
    /// None where its responses have a shape that is not known.
    shape: Option<Shape>,
}

/// What a response of requests is made of.
#[derive(FromPyObject)]
struct Shape {
    kind: Py<PyType>,
    /// The attributes that are the same of all.
    common: Py<PyDict>,
    headers: Py<PyType>,
    cookies: Py<PyType>,
    /// A response of urllib3 that is one when somebody looks at it.
    raw: Py<PyType>,
    /// The options that it is made with.
    options: Py<PyAny>,
    encoding_of: Py<PyAny>,
    reasons: Py<PyDict>,
}

#[pymethods]
impl Keeping {
    #[new]
    #[pyo3(signature = (adapter, build, refuse, refused, go_on, make, shape, /))]
    fn new(
        adapter: Py<PyType>,
        build: Py<PyAny>,
        refuse: Py<PyAny>,
        refused: Py<PyType>,
        go_on: Py<PyAny>,
        make: Py<PyAny>,
        shape: Option<Shape>,
    ) -> Self {
        Self { adapter, build, refuse, refused, go_on, make, shape }
    }
}

/// What became of a request before urllib3 is asked.
enum Asked<'py> {
    /// This hook does not know how.
    Unknown,
    /// It goes out as ever.
    Out,
    Answered(Bound<'py, PyAny>),
    /// A call began, and this is its first step.
    Begun(Bound<'py, PyAny>, Bound<'py, PyAny>),
}

/// requests' `send(self, request, *, stream, timeout, verify, cert, proxies)`.
#[allow(unsafe_code)]
pub(super) unsafe extern "C" fn send(
    this: *mut PyObject,
    args: *const *mut PyObject,
    count: usize,
    names: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: CPython calls it, attached, with a hook, `count` objects at `args`, and as many more as there are names.
    unsafe {
        let hook = &*this.cast::<Hook>();
        let (py, count) = (Python::assume_attached(), count & !ARGUMENTS_OFFSET);
        if count < 2 {
            return hook.forward(hook.whole, args, count, names);
        }
        let (adapter, request) = (Borrowed::from_ptr(py, *args), Borrowed::from_ptr(py, *args.add(1)));
        let mut asked = Asked::Out;
        let asking = match handle().is_some_and(Handle::caches) {
            true => guarded("requests.begin", || {
                asked = match count {
                    2 => ask(hook, adapter, request, args.add(2), names)?,
                    _ => Asked::Unknown,
                };
                Ok(())
            }),
            false => Ok(()),
        };
        let done = asking.and_then(|()| match asked {
            Asked::Answered(response) => Ok(response),
            Asked::Unknown => Bound::from_owned_ptr_or_err(py, hook.forward(hook.whole, args, count, names)),
            Asked::Begun(call, step) => {
                let options = options(py, args.add(2), names)?;
                let go_on = keeping(py, hook)?.get().go_on.as_ptr();
                let given =
                    [call.as_ptr(), step.as_ptr(), adapter.as_ptr(), request.as_ptr(), options.as_ptr()];
                let response = hook.forward(go_on, given.as_ptr(), given.len(), std::ptr::null_mut());
                Bound::from_owned_ptr_or_err(py, response)
            }
            Asked::Out => {
                let response = hook.forward(hook.original, args, count, names);
                Bound::from_owned_ptr_or_err(py, response).map_err(|error| refusal(hook, request, error))
            }
        });
        match done {
            Ok(response) => response.into_ptr(),
            Err(error) => {
                error.restore(py);
                std::ptr::null_mut()
            }
        }
    }
}

/// Begins a call where nothing is said of its connection but what is usual, and its body is in memory; answers it from
/// what is kept.
///
/// # Safety
/// As of [`send`]; `values` leads to as many objects as there are names.
#[allow(unsafe_code)]
unsafe fn ask<'py>(
    hook: &Hook,
    adapter: Borrowed<'_, 'py, PyAny>,
    request: Borrowed<'_, 'py, PyAny>,
    values: *const *mut PyObject,
    names: *mut PyObject,
) -> PyResult<Asked<'py>> {
    let py = request.py();
    // SAFETY: the caller's promise.
    let (keeping, usual) = unsafe { (keeping(py, hook)?.get(), usual(py, values, names)) };
    let Some(patience) = usual else { return Ok(Asked::Unknown) };
    if adapter.get_type().as_ptr() != keeping.adapter.as_ptr() || has_settings(&adapter)? {
        return Ok(Asked::Unknown);
    }
    let body = request.getattr(intern!(py, "body"))?;
    let content = match body.cast::<PyBytes>() {
        Ok(body) => body.as_bytes(),
        Err(_) if body.is_none() => &[],
        Err(_) => return Ok(Asked::Unknown),
    };
    let fields = request.getattr(intern!(py, "headers"))?;
    // The mapping's own way to its pairs goes through Python for each.
    let fields = match fields.getattr_opt(intern!(py, "_store"))? {
        Some(store) => store.cast_into::<PyDict>().ok().and_then(|store| Shown::of_values(&store)),
        None => None,
    };
    let Some(fields) = fields else { return Ok(Asked::Unknown) };
    let (method, url) = (request.getattr(intern!(py, "method"))?, request.getattr(intern!(py, "url"))?);
    // SAFETY: the hook is filled in.
    let scope = unsafe { hook.scope(py)? };
    let shown = Arguments { py, given: &[method.as_ptr(), url.as_ptr()] };
    let begun = Request {
        adapter: hook.adapter,
        method: shown.text(0)?,
        scheme: "",
        host: "",
        port: None,
        path: shown.text(1)?,
        scope: scope.as_ref().map(|scope| scope.get()),
    };
    let length = Some(content.len() as u64);
    let details = Details { headers: &fields, length, content, replayable: true, patience, hedges: false };
    let Some(call) = Call::begin_deciding(&begun, &details) else { return Ok(Asked::Out) };
    match call.step() {
        (Step::Respond(stored), ..) => {
            let mut asked = Asked::Out;
            guarded("requests.stored", || {
                asked = Asked::Answered(keeping.response(&stored, &adapter, &request, &url)?);
                Ok(())
            })?;
            Ok(asked)
        }
        (step, now, octets) => {
            // SAFETY: a new reference, or null with an exception.
            #[allow(unsafe_code)]
            let call = unsafe { Bound::from_owned_ptr_or_err(py, object::object_of(call))? };
            Ok(Asked::Begun(call, step::to_python(py, step, now, octets)?.into_any()))
        }
    }
}

/// How long the client would wait for an answer, in seconds, where it says, and the other options say of the connection
/// what they say by themselves, and the body is to be read at once. `None` where they do not, or nobody knows.
///
/// # Safety
/// As of [`ask`].
#[allow(unsafe_code)]
unsafe fn usual(
    py: Python<'_>,
    values: *const *mut PyObject,
    names: *mut PyObject,
) -> Option<Option<Duration>> {
    let (stream, verify, cert) = (intern!(py, "stream"), intern!(py, "verify"), intern!(py, "cert"));
    let (timeout, proxies) = (intern!(py, "timeout"), intern!(py, "proxies"));
    let mut waits = None;
    // SAFETY: the caller's promise.
    unsafe {
        for place in 0..size(names) {
            let name = ffi::PyTuple_GetItem(names, place.cast_signed());
            let value = *values.add(place);
            // By identity: what is written in a program's text is the same object as the one here. Another one of the
            // same text is no option that is known.
            let is_usual = match () {
                () if name == stream.as_ptr() => value == ffi::Py_False(),
                () if name == verify.as_ptr() => value == ffi::Py_True() || ffi::PyUnicode_Check(value) != 0,
                () if name == cert.as_ptr() => value == ffi::Py_None(),
                // Another network may be behind one.
                () if name == proxies.as_ptr() => {
                    value == ffi::Py_None() || (ffi::PyDict_Check(value) != 0 && ffi::PyDict_Size(value) == 0)
                }
                () if name == timeout.as_ptr() => {
                    waits = patience_of(Borrowed::from_ptr(py, value))?;
                    true
                }
                () => false,
            };
            if !is_usual {
                return None;
            }
        }
    }
    Some(waits)
}

/// What a timeout of requests says of the wait for an answer: a number, or the second of two; the outer `None` where it
/// is something else.
fn patience_of(timeout: Borrowed<'_, '_, PyAny>) -> Option<Option<Duration>> {
    let of = |value: &Bound<'_, PyAny>| match value.is_none() {
        true => Some(None),
        false => value.extract::<f64>().ok().map(patience),
    };
    match timeout.cast::<PyTuple>() {
        Ok(two) if two.len() == 2 => of(&two.get_item(1).ok()?),
        Ok(_) => None,
        Err(_) => of(&timeout),
    }
}

/// How many names there are.
///
/// # Safety
/// As of [`ask`].
#[allow(unsafe_code)]
unsafe fn size(names: *mut PyObject) -> usize {
    // SAFETY: the caller's promise: a tuple, or null.
    if names.is_null() { 0 } else { unsafe { ffi::PyTuple_Size(names) }.unsigned_abs() }
}

/// Whether an adapter was told more of its pools than how large they are: `maxsize` and `block`.
fn has_settings(adapter: &Bound<'_, PyAny>) -> PyResult<bool> {
    let py = adapter.py();
    let manager = adapter.getattr(intern!(py, "poolmanager"))?;
    Ok(manager.getattr(intern!(py, "connection_pool_kw"))?.len()? > 2)
}

/// The options as Python takes them.
///
/// # Safety
/// As of [`ask`].
#[allow(unsafe_code)]
unsafe fn options<'py>(
    py: Python<'py>,
    values: *const *mut PyObject,
    names: *mut PyObject,
) -> PyResult<Bound<'py, PyDict>> {
    let options = PyDict::new(py);
    // SAFETY: the caller's promise.
    unsafe {
        for place in 0..size(names) {
            let name = Borrowed::from_ptr(py, ffi::PyTuple_GetItem(names, place.cast_signed()));
            options.set_item(name, Borrowed::from_ptr(py, *values.add(place)))?;
        }
    }
    Ok(options)
}

/// What the hook was made with.
fn keeping<'a, 'py>(py: Python<'py>, hook: &'a Hook) -> PyResult<Borrowed<'a, 'py, Keeping>> {
    // SAFETY: the hook holds it.
    #[allow(unsafe_code)]
    let extra = unsafe { Borrowed::from_ptr(py, hook.extra) };
    extra.cast::<Keeping>().map_err(|_| PyTypeError::new_err("a Keeping is needed"))
}

/// What a refusal by urllib3's hook is to requests; any other error is what it was.
fn refusal(hook: &Hook, request: Borrowed<'_, '_, PyAny>, error: PyErr) -> PyErr {
    let py = request.py();
    let refuse = || {
        let keeping = keeping(py, hook)?.get();
        match error.is_instance(py, keeping.refused.bind(py)) {
            true => keeping.refuse.bind(py).call1((error.value(py), request)).map(|_| ()),
            false => Ok(()),
        }
    };
    refuse().err().unwrap_or(error)
}

impl Keeping {
    /// A response of requests that is read already.
    fn response<'py>(
        &self,
        stored: &Stored,
        adapter: &Bound<'py, PyAny>,
        request: &Bound<'py, PyAny>,
        url: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = adapter.py();
        let (pairs, body) = (headers::of(py, stored, false)?, PyBytes::new(py, &stored.body));
        // Names that come twice, and what makes a body, or the cookies of a response, more than what is there already.
        let plain = stored.headers.len() == stored.headers.keys_len()
            && !["content-encoding", "set-cookie"].iter().any(|name| stored.headers.contains_key(*name));
        let shape = match &self.shape {
            Some(shape) if plain && self.is_own(adapter)? => shape,
            _ => return self.make.bind(py).call1((stored.status, pairs, body, adapter, request)),
        };
        let store = PyDict::new(py);
        for pair in &pairs {
            store.set_item(pair.get_item(0)?, pair)?;
        }
        let kind = store.get_item(intern!(py, "content-type"))?;
        let encoding = match kind {
            Some(pair) => shape.encoding_of.bind(py).call1((pair.get_item(1)?,))?,
            None => py.None().into_bound(py),
        };
        let fields = empty(shape.headers.bind(py))?;
        fields.setattr(intern!(py, "_store"), store)?;
        let raw = empty(shape.raw.bind(py))?;
        let parts = (stored.status, pairs, &body, &shape.options).into_pyobject(py)?;
        raw.setattr(intern!(py, "_farcall_parts"), parts)?;
        let response = empty(shape.kind.bind(py))?;
        for (name, value) in shape.common.bind(py) {
            response.setattr(name.cast::<PyString>()?, value)?;
        }
        let status = stored.status.into_pyobject(py)?;
        response.setattr(intern!(py, "reason"), shape.reasons.bind(py).get_item(&status)?)?;
        response.setattr(intern!(py, "status_code"), status)?;
        response.setattr(intern!(py, "headers"), fields)?;
        response.setattr(intern!(py, "encoding"), encoding)?;
        response.setattr(intern!(py, "url"), url)?;
        response.setattr(intern!(py, "request"), request)?;
        response.setattr(intern!(py, "connection"), adapter)?;
        response.setattr(intern!(py, "raw"), raw)?;
        response.setattr(intern!(py, "cookies"), empty(shape.cookies.bind(py))?)?;
        response.setattr(intern!(py, "history"), pyo3::types::PyList::empty(py))?;
        response.setattr(intern!(py, "_content"), body)?;
        response.setattr(intern!(py, "_content_consumed"), PyBool::new(py, true))?;
        Ok(response)
    }

    /// Whether the adapter builds its responses as it comes.
    fn is_own(&self, adapter: &Bound<'_, PyAny>) -> PyResult<bool> {
        let build = adapter.get_type().getattr(intern!(adapter.py(), "build_response"))?;
        Ok(build.is(&self.build))
    }
}

/// An instance of a class that is written in Python, of which nothing is filled in.
fn empty<'py>(kind: &Bound<'py, PyType>) -> PyResult<Bound<'py, PyAny>> {
    // SAFETY: a new reference, or null with an exception. What its constructor would do is done by the caller.
    #[allow(unsafe_code)]
    unsafe {
        Bound::from_owned_ptr_or_err(kind.py(), ffi::PyType_GenericAlloc(kind.as_type_ptr(), 0))
    }
}
