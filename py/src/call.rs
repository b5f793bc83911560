//! One call, as an adapter in Python holds it.

use crate::handle::handle;
use crate::scope::Scope;
use farcall::{ConnectTimes, ErrorType, Head, Step, Target};
use farcall_agent::CallGuard;
use pyo3::prelude::*;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A call under way. An object that is let go of unsettled (garbage-collected with the response that held
/// it) counts as abandoned; one that a fork copied counts in the parent alone.
#[pyclass(frozen, module = "farcall._farcall")]
pub(crate) struct Call {
    // Held for some ten nanoseconds, and contended only where two threads read the same response.
    state: Mutex<State>,
}

struct State {
    guard: CallGuard,
    /// What has been told of making the connection.
    times: ConnectTimes,
    /// Whether the method says that the response has no body. A CONNECT that succeeds makes a tunnel, whose bytes are
    /// not one.
    bodiless: bool,
}

/// One more than the engine keeps, so that it notices and counts that there were too many.
const TAGS: usize = farcall::attribution::MAX_TAGS + 1;

/// Begins a call; None between `uninstall()` and `install()`. `adapter` is the number of the adapter that saw it, for
/// `calls()`; `path` is what the request line says: a path, perhaps with a query, or (to a proxy) an absolute URL.
#[pyfunction]
#[pyo3(signature = (adapter, method, scheme, host, port, path, scope, /))]
pub(crate) fn begin(
    adapter: usize,
    method: &str,
    scheme: &str,
    host: &str,
    port: Option<u16>,
    path: &str,
    scope: Option<&Bound<'_, Scope>>,
) -> Option<Call> {
    let handle = handle().filter(|handle| handle.is_watching())?;
    handle.tally(adapter);
    let mut head = Head::to(method, target(matches!(scheme, "https" | "wss"), host, port, path));
    let mut tags = [("", ""); TAGS];
    if let Some(scope) = scope {
        let scope = scope.get();
        let kept = scope.tags.len().min(TAGS);
        for (slot, (key, value)) in tags.iter_mut().zip(&scope.tags) {
            *slot = (key, value);
        }
        head = head.customer(scope.customer.as_deref()).tags(&tags[..kept]);
    }
    let mut guard = handle.farcall.guard(handle.farcall.begin(&head));
    match guard.step() {
        // Anything but "send" is for adapters that can act on it.
        Step::Send(_) => Some(Call {
            state: Mutex::new(State {
                guard,
                times: ConnectTimes::default(),
                bodiless: matches!(method, "HEAD" | "CONNECT"),
            }),
        }),
        _ => None,
    }
}

fn target<'a>(tls: bool, host: &'a str, port: Option<u16>, path: &'a str) -> Target<'a> {
    let port = port.unwrap_or(if tls { 443 } else { 80 });
    match path.starts_with('/') {
        true => Target::new(tls, host, port, path),
        false => Target::parse(path).unwrap_or_else(|| Target::new(tls, host, port, "/")),
    }
}

impl Call {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[pymethods]
impl Call {
    /// Making a connection took so many seconds. Parts may be told one by one; None is a part that is told at
    /// another time, did not happen or could not be seen.
    #[pyo3(signature = (dns, connect, tls, /))]
    fn connected(&self, dns: Option<f64>, connect: Option<f64>, tls: Option<f64>) {
        let time = |seconds: Option<f64>| seconds.and_then(|s| Duration::try_from_secs_f64(s).ok());
        let mut state = self.lock();
        let known = state.times;
        state.times = ConnectTimes {
            dns: time(dns).or(known.dns),
            connect: time(connect).or(known.connect),
            tls: time(tls).or(known.tls),
        };
        let times = state.times;
        state.guard.connected(times);
    }

    /// The head of the response arrived, and before it `sent` bytes of the request's body went out. Returns whether a
    /// body may follow (RFC 9112, section 6.3; after 101 it is another protocol); where none can, the call has settled.
    #[pyo3(signature = (status, sent, /))]
    fn head(&self, status: u16, sent: u64) -> bool {
        let state = &mut *self.lock();
        let call = &mut state.guard;
        call.sent(sent);
        call.head(status);
        let has_body = !(state.bodiless || matches!(status, 101 | 204 | 304));
        if !has_body && !call.is_settled() {
            call.end();
        }
        has_body
    }

    /// So many more bytes of the response's body arrived.
    #[pyo3(signature = (count, /))]
    fn body(&self, count: u64) {
        self.lock().guard.body(count);
    }

    /// So many more bytes of the response's body arrived, and they were the last. Does nothing once settled.
    #[pyo3(signature = (count, /))]
    fn end(&self, count: u64) {
        let call = &mut self.lock().guard;
        if !call.is_settled() {
            call.body(count);
            call.end();
        }
    }

    /// The call failed with the error of this number, after `sent` bytes of the request's body went out and
    /// `count` more of the response's arrived. Does nothing once settled.
    #[pyo3(signature = (error, sent, count, /))]
    fn fail(&self, error: u8, sent: u64, count: u64) {
        let call = &mut self.lock().guard;
        if !call.is_settled() {
            call.sent(sent);
            call.body(count);
            call.failed(ErrorType::from_number(error));
            call.end();
        }
    }

    /// The application let go of the response. Does nothing once settled.
    fn abandon(&self) {
        self.lock().guard.abandon();
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        // The guard abandons what is not settled.
        if let Some(handle) = handle()
            && !self.lock().guard.is_settled()
        {
            handle.note_dropped();
        }
    }
}
