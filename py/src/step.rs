//! What the engine answers, as tuples that begin with the number of their kind.

use crate::headers;
use farcall::{Attempt, Refusal, Step, Timestamp};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};

// The numbers of `farcall._acting`.
const SETTLED: u8 = 0;
const SEND: u8 = 1;
const WAIT: u8 = 2;
const REFUSE: u8 = 3;
const RESPOND: u8 = 4;
const FAIL: u8 = 5;
const PARK: u8 = 6;

/// The step as of `now`; times are told as seconds from then, and where the application sees them as seconds since 1970.
/// Headers to hand out are bytes (`octets`) or text.
pub(crate) fn to_python<'py>(
    py: Python<'py>,
    step: Step,
    now: Timestamp,
    octets: bool,
) -> PyResult<Bound<'py, PyTuple>> {
    let left = |at: Timestamp| at.since(now).as_secs_f64();
    match step {
        Step::Send(attempt) => send(py, &attempt, now),
        Step::Wait(until) => (WAIT, left(until)).into_pyobject(py),
        Step::Refuse(refusal) => {
            let Refusal { by, rule, reason, until, at, .. } = &refusal;
            let seconds = |until: &Timestamp| until.as_nanos() as f64 / 1e9;
            (
                REFUSE,
                refusal.to_string(),
                by.as_str(),
                rule.as_ref(),
                reason.as_ref(),
                until.as_ref().map(seconds),
                until.map(|until| until.since(*at).as_secs_f64()),
            )
                .into_pyobject(py)
        }
        Step::Respond(stored) => {
            let body = PyBytes::new(py, &stored.body);
            (RESPOND, stored.status, headers::of(py, &stored, octets)?, body).into_pyobject(py)
        }
        Step::Fail(error) => (FAIL, error as u8).into_pyobject(py),
        Step::Park(_) => (PARK,).into_pyobject(py),
        // Settled; and what a later version asks for, this one cannot do: the application gets what there is.
        _ => (SETTLED,).into_pyobject(py),
    }
}

/// An attempt to send.
pub(crate) fn send<'py>(py: Python<'py>, attempt: &Attempt, now: Timestamp) -> PyResult<Bound<'py, PyTuple>> {
    let left = |at: Timestamp| at.since(now).as_secs_f64();
    let key = attempt.idempotency_header().map(|(name, value)| (name.to_owned(), value));
    let changes = attempt.changes.as_deref();
    let condition = attempt.condition.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
    let headers: Vec<(String, String)> = changes.map(|changes| changes.headers.clone()).unwrap_or_default();
    let model = attempt.model.as_deref().or_else(|| changes.and_then(|changes| changes.model.as_deref()));
    (
        SEND,
        changes.and_then(|changes| changes.host.as_deref()),
        changes.and_then(|changes| changes.path_prefix.as_deref()),
        key.into_iter().chain(condition).chain(headers).collect::<Vec<_>>(),
        model,
        attempt.give_up_at.map(left),
        attempt.truncate,
        attempt.number,
        attempt.hedge_at.map(left),
        attempt.shadow,
    )
        .into_pyobject(py)
}

/// The body of a request with another model in place of its own; None where it names none.
#[pyfunction]
#[pyo3(signature = (body, model, /))]
pub(crate) fn replace_model<'py>(py: Python<'py>, body: &[u8], model: &str) -> Option<Bound<'py, PyBytes>> {
    farcall::cost::replace_model(body, model).map(|changed| PyBytes::new(py, &changed))
}
