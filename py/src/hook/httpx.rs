//! The hooks of httpx's transports, sync and async.

use super::{ARGUMENTS_OFFSET, Begun, Hook, Places, counted, perform, while_under_way};
use crate::arguments::Arguments;
use crate::awaiting::{self, Work, awaitable, sendable, warn_unawaited};
use crate::body;
use crate::call::{Call, Request};
use crate::guard::{guarded, tell};
use crate::handle::{Handle, handle};
use crate::object;
use crate::types::Type;
use pyo3::ffi::{self, PyObject};
use pyo3::prelude::*;
use pyo3::{Borrowed, intern};

const PLACES: Places = Places { begin: "httpx.begin", head: "httpx.head", fail: "httpx.fail" };

/// httpx's `handle_request(self, request)`.
#[allow(unsafe_code)]
pub(super) unsafe extern "C" fn request(
    this: *mut PyObject,
    args: *const *mut PyObject,
    count: usize,
    names: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: CPython calls it, attached, with a hook, `count` objects at `args`, and as many more as there are names.
    unsafe {
        let hook = &*this.cast::<Hook>();
        let count = count & !ARGUMENTS_OFFSET;
        if count != 2 || !names.is_null() {
            return hook.forward(hook.whole, args, count, names);
        }
        let request = *args.add(1);
        let begin = |py: Python<'_>| begin(hook, Borrowed::from_ptr(py, request));
        perform(hook, (args, count, names), request, &PLACES, begin, |py, call, response, sent| {
            head(py, hook, call, response, sent)
        })
    }
}

/// Begins the call of a request whose body is in memory, where no rule decides.
///
/// # Safety
/// The hook is filled in.
#[allow(unsafe_code)]
unsafe fn begin(hook: &Hook, request: Borrowed<'_, '_, PyAny>) -> PyResult<Begun> {
    let py = request.py();
    if !handle().is_some_and(Handle::only_watches) {
        return Ok(Begun::Unknown);
    }
    let Some(content) = request.getattr_opt(intern!(py, "_content"))? else { return Ok(Begun::Unknown) };
    // SAFETY: it asks for a type, and for the size of what is of it.
    #[allow(unsafe_code)]
    let sent = unsafe {
        match ffi::PyBytes_Check(content.as_ptr()) {
            0 => return Ok(Begun::Unknown),
            _ => ffi::PyBytes_Size(content.as_ptr()).unsigned_abs() as u64,
        }
    };
    // The public properties of a URL parse and encode anew at each read.
    let uri = request.getattr(intern!(py, "url"))?.getattr(intern!(py, "_uri_reference"))?;
    let (scheme, host) = (uri.getattr(intern!(py, "scheme"))?, uri.getattr(intern!(py, "host"))?);
    let (port, path) = (uri.getattr(intern!(py, "port"))?, uri.getattr(intern!(py, "path"))?);
    let method = request.getattr(intern!(py, "method"))?;
    // SAFETY: the caller's promise.
    let scope = unsafe { hook.scope(py)? };
    let shown = [scheme.as_ptr(), host.as_ptr(), port.as_ptr(), path.as_ptr(), method.as_ptr()];
    let shown = Arguments { py, given: &shown };
    let request = Request {
        adapter: hook.adapter,
        method: shown.text(4)?,
        scheme: shown.text(0)?,
        host: shown.text(1)?,
        port: if shown.is_none(2) { None } else { Some(shown.number(2)?) },
        path: shown.text(3)?,
        scope: scope.as_ref().map(|scope| scope.get()),
    };
    counted(py, Call::begin(&request), sent)
}

/// The head of a response arrived, whose stream ends the call.
///
/// # Safety
/// The hook is filled in, and `call` is an instance of `Call`.
#[allow(unsafe_code)]
unsafe fn head(
    py: Python<'_>,
    hook: &Hook,
    call: *mut PyObject,
    response: Borrowed<'_, '_, PyAny>,
    sent: u64,
) -> PyResult<()> {
    let status = response.getattr(intern!(py, "status_code"))?;
    let status = Arguments { py, given: &[status.as_ptr()] }.number(0)?;
    let headers = response.getattr(intern!(py, "headers"))?;
    // SAFETY: the caller's promise; what is made is a new reference.
    unsafe {
        if object::is_open(object::held(call), status, sent, &headers)? {
            let stream = response.getattr(intern!(py, "stream"))?;
            let made = body::stream(py, call, stream.as_ptr(), headers.as_ptr(), hook.extra)?;
            response.setattr(intern!(py, "stream"), Bound::from_owned_ptr(py, made))?;
        }
    }
    Ok(())
}

static EXCHANGE: Type = Type::new();

/// Makes the type of async exchanges.
pub(super) fn add_to(module: &Bound<'_, PyModule>) -> PyResult<()> {
    awaiting::add_kind::<Exchange>(module, &EXCHANGE, c"farcall._farcall.Exchange")
}

/// httpx's `handle_async_request(self, request)`, which does nothing before it is awaited.
#[allow(unsafe_code)]
pub(super) unsafe extern "C" fn async_request(
    this: *mut PyObject,
    args: *const *mut PyObject,
    count: usize,
    names: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: CPython calls it, attached, with a hook, `count` objects at `args`, and as many more as there are names.
    unsafe {
        let count = count & !ARGUMENTS_OFFSET;
        if count != 2 || !names.is_null() {
            let hook = &*this.cast::<Hook>();
            return hook.forward(hook.whole, args, count, names);
        }
        let exchange = Exchange {
            hook: ffi::Py_NewRef(this),
            transport: ffi::Py_NewRef(*args),
            request: ffi::Py_NewRef(*args.add(1)),
            call: std::ptr::null_mut(),
            sent: 0,
        };
        awaitable(&EXCHANGE, exchange, std::ptr::null_mut())
    }
}

/// An exchange of an async transport. Its references are its own; null where the collector has cleared them, and `call`
/// where there is none to tell.
struct Exchange {
    hook: *mut PyObject,
    transport: *mut PyObject,
    request: *mut PyObject,
    call: *mut PyObject,
    sent: u64,
}

#[allow(unsafe_code)]
impl Work for Exchange {
    unsafe fn begin(&mut self, py: Python<'_>) -> PyResult<*mut PyObject> {
        // SAFETY: the caller's promise; nobody clears what is being awaited.
        unsafe {
            let hook = &*self.hook.cast::<Hook>();
            let mut begun = Begun::Uncounted;
            guarded(PLACES.begin, || {
                begun = begin(hook, Borrowed::from_ptr(py, self.request))?;
                Ok(())
            })?;
            let function = match begun {
                Begun::Unknown => hook.whole,
                Begun::Uncounted => hook.original,
                Begun::Counted(call, sent) => {
                    (self.call, self.sent) = (call, sent);
                    hook.original
                }
            };
            let args = [self.transport, self.request];
            let made = self.within(|| hook.forward(function, args.as_ptr(), 2, std::ptr::null_mut()));
            let made = Bound::from_owned_ptr_or_err(py, made).and_then(|awaited| sendable(py, awaited));
            made.map_err(|error| {
                error.restore(py);
                self.raised(py);
                PyErr::fetch(py)
            })
        }
    }

    unsafe fn within<T>(&mut self, step: impl FnOnce() -> T) -> T {
        match self.call.is_null() {
            true => step(),
            false => while_under_way(self.request, self.call, step),
        }
    }

    unsafe fn returned(&mut self, response: Borrowed<'_, '_, PyAny>) -> PyResult<()> {
        if self.call.is_null() || self.hook.is_null() {
            return Ok(());
        }
        // SAFETY: the caller's promise.
        unsafe {
            let (py, hook) = (response.py(), &*self.hook.cast::<Hook>());
            guarded(PLACES.head, || head(py, hook, self.call, response, self.sent))
        }
    }

    unsafe fn raised(&mut self, _py: Python<'_>) {
        if !self.call.is_null() {
            // SAFETY: the caller's promise.
            unsafe { tell("fail", PLACES.fail, self.call, Some(self.sent)) }
        }
    }

    unsafe fn unawaited(&mut self, py: Python<'_>) {
        warn_unawaited(py, "AsyncHTTPTransport.handle_async_request");
    }

    fn fields(&mut self) -> impl Iterator<Item = *mut *mut PyObject> {
        [&raw mut self.hook, &raw mut self.transport, &raw mut self.request, &raw mut self.call].into_iter()
    }
}
