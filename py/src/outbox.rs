//! The outbox, as JSON and bytes.

use crate::handle::handle;
use farcall_agent::outbox::{Asked, Outbox, OutboxError as Error, Parcel};
use pyo3::create_exception;
use pyo3::exceptions::PyException;
use pyo3::prelude::*;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

create_exception!(_farcall, OutboxError, PyException, "The outbox did not do what was asked.");
create_exception!(
    _farcall,
    OutboxUnavailableError,
    OutboxError,
    "The outbox cannot be asked now, and may be later: nothing is said of a call that was put before."
);

/// Takes a call for delivery; returns once it is on the disk: its receipt as JSON.
#[pyfunction]
#[pyo3(signature = (parcel, body, /))]
pub(crate) fn outbox_put(py: Python<'_>, parcel: &str, body: Vec<u8>) -> PyResult<String> {
    let outbox = outbox()?;
    let put = || outbox.put(Parcel::from_json(parcel, body)?);
    py.detach(put).map(|receipt| receipt.to_json()).map_err(to_python)
}

/// A call as it stands, as JSON.
#[pyfunction]
#[pyo3(signature = (number, /))]
pub(crate) fn outbox_item(py: Python<'_>, number: i64) -> PyResult<String> {
    let outbox = outbox()?;
    py.detach(|| outbox.item(number)).map(|item| item.to_json()).map_err(to_python)
}

/// A call as it stands once it was delivered or given up, or after `timeout` seconds, as JSON.
#[pyfunction]
#[pyo3(signature = (number, timeout, /))]
pub(crate) fn outbox_wait(py: Python<'_>, number: i64, timeout: f64) -> PyResult<String> {
    let timeout = Duration::try_from_secs_f64(timeout.max(0.0)).unwrap_or(Duration::MAX);
    let outbox = outbox()?;
    py.detach(|| outbox.wait(number, timeout)).map(|item| item.to_json()).map_err(to_python)
}

/// What the vendor answered, as JSON, and its body; None while nothing was delivered.
#[pyfunction]
#[pyo3(signature = (number, /))]
pub(crate) fn outbox_answer(py: Python<'_>, number: i64) -> PyResult<Option<(String, Vec<u8>)>> {
    let outbox = outbox()?;
    let answer = py.detach(|| outbox.answer(number)).map_err(to_python)?;
    Ok(answer.map(|answer| (answer.to_json(), answer.body)))
}

/// A credential that a delivery asked for.
#[pyclass(frozen)]
pub(crate) struct OutboxAsked(Mutex<Option<Asked>>);

#[pymethods]
impl OutboxAsked {
    /// Gives it, or says why not.
    #[pyo3(signature = (value, why, /))]
    fn give(&self, value: Option<String>, why: Option<String>) {
        let asked = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(asked) = asked {
            asked.answer(value.ok_or_else(|| why.unwrap_or_default()));
        }
    }
}

/// Registers what is asked for a credential at each delivery: called with an `OutboxAsked`, and to return at once.
#[pyfunction]
#[pyo3(signature = (name, ask, /))]
pub(crate) fn outbox_credential(py: Python<'_>, name: String, ask: Py<PyAny>) -> PyResult<()> {
    let outbox = outbox()?;
    let ask = move |asked| {
        // At the end of the interpreter there is nobody to ask; what raises has not answered.
        let _ = Python::try_attach(|py| {
            let asked = OutboxAsked(Mutex::new(Some(asked)));
            ask.call1(py, (asked,)).map(drop)
        });
    };
    py.detach(|| outbox.credential_later(name, ask)).map_err(to_python)
}

fn outbox() -> PyResult<Outbox> {
    let absent =
        || OutboxError::new_err("farcall is not installed in this process; call farcall.install() first");
    handle().ok_or_else(absent)?.farcall.outbox().map_err(to_python)
}

fn to_python(error: Error) -> PyErr {
    match error.is_passing() {
        true => OutboxUnavailableError::new_err(error.to_string()),
        false => OutboxError::new_err(error.to_string()),
    }
}
