//! Hooks of urllib3: the exchange, and the reading of a response's body.

use super::{ARGUMENTS_OFFSET, Begun, Hook, Places, counted, is_under_way, perform};
use crate::arguments::Arguments;
use crate::call::{Call, Opened, Request};
use crate::guard::{guarded, tell};
use crate::handle::{Handle, handle};
use crate::headers;
use crate::object;
use pyo3::ffi::{self, PyObject};
use pyo3::prelude::*;
use pyo3::{Borrowed, intern};

const PLACES: Places = Places { begin: "urllib3.begin", head: "urllib3.head", fail: "urllib3.fail" };

/// urllib3's `_make_request(self, conn, method, url, *, ...)`.
#[allow(unsafe_code)]
pub(super) unsafe extern "C" fn exchange(
    this: *mut PyObject,
    args: *const *mut PyObject,
    count: usize,
    names: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: CPython calls it, attached, with a hook, `count` objects at `args`, and as many more as there are names.
    unsafe {
        let hook = &*this.cast::<Hook>();
        let count = count & !ARGUMENTS_OFFSET;
        let connection = if count > 1 { *args.add(1) } else { std::ptr::null_mut() };
        if is_under_way(connection) {
            // Of two hooks, with somebody's wrapper between them, the outer one counts it.
            return hook.forward(hook.original, args, count, names);
        }
        let begin = |py: Python<'_>| begin_exchange(py, hook, args, count, names);
        perform(hook, (args, count, names), connection, &PLACES, begin, |_, call, response, sent| {
            head(call, response, sent)
        })
    }
}

/// # Safety
/// As of [`exchange`].
#[allow(unsafe_code)]
unsafe fn begin_exchange(
    py: Python<'_>,
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
        if !handle().is_some_and(Handle::only_watches) {
            return Ok(Begun::Unknown);
        }
        let pool = Borrowed::from_ptr(py, *args);
        let (scheme, host) = (pool.getattr(intern!(py, "scheme"))?, pool.getattr(intern!(py, "host"))?);
        let port = pool.getattr(intern!(py, "port"))?;
        let scope = hook.scope(py)?;
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
        counted(py, Call::begin(&request), sent)
    }
}

/// The head of a response arrived, which keeps its call until its body is read.
///
/// # Safety
/// Attached, with a call.
#[allow(unsafe_code)]
unsafe fn head(call: *mut PyObject, response: Borrowed<'_, '_, PyAny>, sent: u64) -> PyResult<()> {
    // SAFETY: the caller's promise.
    unsafe {
        let (py, held) = (response.py(), object::held(call));
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
pub(super) unsafe extern "C" fn read(
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
            return hook.forward(hook.whole, args, given, names);
        };
        let data = hook.forward(hook.original, args, given, names);
        if call.is_none() {
            return data;
        }
        if data.is_null() {
            tell("broke", "urllib3.body", call.as_ptr(), None);
        } else {
            let response = Borrowed::from_ptr(py, *args);
            if let Err(error) = guarded("urllib3.body", || came(hook, response, &call, data)) {
                ffi::Py_DECREF(data);
                error.restore(py);
                return std::ptr::null_mut();
            }
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
