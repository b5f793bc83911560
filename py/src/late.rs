//! A call of which the engine learns when it is over. Until then the objects are held that its request was read from:
//! they are the application's own, and need not be copied.

use crate::arguments::Arguments;
use crate::handle::Handle;
use crate::scope::Scope;
use farcall::ConnectTimes;
use farcall_agent::{CallGuard, LateCall, LateRequest};
use pyo3::Borrowed;
use pyo3::ffi::{self, PyObject};
use pyo3::prelude::*;

/// The objects that a request was read from: three strings, and a `Scope` or null.
#[derive(Clone, Copy)]
pub(crate) struct Objects {
    pub(crate) method: *mut PyObject,
    pub(crate) host: *mut PyObject,
    pub(crate) path: *mut PyObject,
    pub(crate) scope: *mut PyObject,
}

impl Objects {
    fn all(self) -> [*mut PyObject; 4] {
        [self.method, self.host, self.path, self.scope]
    }
}

/// References of our own to them.
struct Held(Objects);

// SAFETY: what is done with them is done by a thread that is attached: those who have a call do nothing with it but in
// functions that CPython calls. No other thread gets it meanwhile.
#[allow(unsafe_code)]
unsafe impl Send for Held {}
// SAFETY: the same.
#[allow(unsafe_code)]
unsafe impl Sync for Held {}

impl Drop for Held {
    fn drop(&mut self) {
        for object in self.0.all() {
            // SAFETY: attached, as said above; the reference is our own, or null.
            #[allow(unsafe_code)]
            unsafe {
                ffi::Py_XDECREF(object);
            }
        }
    }
}

/// The call. Nothing is counted before [`Late::tell`].
pub(crate) struct Late {
    pub(crate) call: LateCall,
    /// What has been told of making the connection.
    times: ConnectTimes,
    tls: bool,
    port: u16,
    held: Held,
}

impl Late {
    /// # Safety
    /// The thread is attached, and the objects are what [`Objects`] says.
    #[allow(unsafe_code)]
    pub(crate) unsafe fn new(call: LateCall, tls: bool, port: u16, objects: Objects) -> Self {
        for object in objects.all() {
            // SAFETY: the caller's promise.
            unsafe { ffi::Py_XINCREF(object) }
        }
        Self { call, times: ConnectTimes::default(), tls, port, held: Held(objects) }
    }

    pub(crate) fn connected(&mut self, with: impl FnOnce(ConnectTimes) -> ConnectTimes) {
        self.times = with(self.times);
        self.call.connected(self.times);
    }

    /// The head of the response arrived. `false` where its headers matter.
    pub(crate) fn head(&mut self, handle: &Handle, status: u16) -> bool {
        let now = handle.farcall.now_of(&self.call);
        self.call.head_at(status, now)
    }

    /// The call is over.
    pub(crate) fn tell(self, handle: &Handle, abandoned: bool) {
        let Self { call, tls, port, held, .. } = self;
        held.with(tls, port, |request| handle.farcall.tell(call, request, abandoned));
    }

    /// The engine is to see it from now on.
    pub(crate) fn as_it_goes(self, handle: &Handle) -> Option<(CallGuard, ConnectTimes)> {
        let Self { call, times, tls, port, held } = self;
        held.with(tls, port, |request| handle.farcall.as_it_goes(call, request)).flatten().zip(Some(times))
    }
}

impl Held {
    /// The request, while `then` runs; `None` where a string cannot be read any more, which was read before.
    fn with<T>(&self, tls: bool, port: u16, then: impl FnOnce(&LateRequest<'_>) -> T) -> Option<T> {
        let Objects { method, host, path, scope } = self.0;
        // SAFETY: attached, as said above; the objects are there, and `Scope` is what they were made with.
        #[allow(unsafe_code)]
        let (py, scope) = unsafe {
            let py = Python::assume_attached();
            (py, Borrowed::from_ptr_or_opt(py, scope).map(|scope| scope.cast_unchecked::<Scope>()))
        };
        let scope = scope.as_ref().map(|scope| scope.get());
        let shown = Arguments { py, given: &[method, host, path] };
        let (Ok(method), Ok(host), Ok(path)) = (shown.text(0), shown.text(1), shown.text(2)) else {
            return None;
        };
        let (customer, tags) = match scope {
            Some(scope) => (scope.customer.as_deref(), scope.tags.as_slice()),
            None => (None, [].as_slice()),
        };
        Some(then(&LateRequest { method, tls, host, port, path, customer, tags }))
    }
}
