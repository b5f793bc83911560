//! The engine of Farcall under Python: this crate converts types, and nothing else.
//!
//! What is hooked, and when a call begins and ends, is written in Python beside it (`python/farcall/`); what
//! follows from it is decided by the engine.

mod arguments;
mod awaiting;
mod body;
mod call;
mod guard;
mod handle;
mod headers;
mod hook;
mod object;
mod outbox;
mod parking;
mod report;
mod scope;
mod sigterm;
mod stage;
mod step;
mod types;

use pyo3::prelude::*;

/// The native half of the package `farcall`; its stub is `_farcall.pyi`.
// Responses' streams rely on it: two threads may use one.
#[pymodule(gil_used = true)]
mod _farcall {
    use pyo3::prelude::*;

    #[pymodule_export]
    use super::handle::{
        after_fork, after_fork_in_parent, attached, before_fork, calls, counters, failed, flush, flush_late,
        home, is_enabled, shutdown, start, watch,
    };
    #[pymodule_export]
    use super::outbox::{
        OutboxAsked, OutboxError, OutboxUnavailableError, outbox_answer, outbox_credential, outbox_item,
        outbox_put, outbox_wait,
    };
    #[pymodule_export]
    use super::report::{purge_cache, report};
    #[pymodule_export]
    use super::scope::Scope;
    #[pymodule_export]
    use super::sigterm::{end_by_sigterm, mind_sigterm};
    #[pymodule_export]
    use super::step::replace_model;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        super::object::add_to(module)?;
        super::body::add_to(module)?;
        super::hook::add_to(module)
    }
}
