//! On whose behalf calls are made, as the context variable of the Python side holds it.

use farcall::Priority;
use farcall_agent::Scope as Words;
use pyo3::prelude::*;
use std::sync::Arc;

/// A customer, tags and a priority. Never changes: an inner scope is a new one.
#[pyclass(frozen, subclass, module = "farcall._farcall")]
#[derive(Debug)]
pub(crate) struct Scope {
    /// Kept by calls beyond the scope.
    pub(crate) words: Arc<Words>,
    pub(crate) priority: Priority,
}

#[pymethods]
impl Scope {
    #[new]
    #[pyo3(signature = (customer, tags, batch = false, /))]
    fn new(customer: Option<String>, tags: Vec<(String, String)>, batch: bool) -> Self {
        let priority = if batch { Priority::Batch } else { Priority::Interactive };
        Self { words: Arc::new(Words { customer, tags }), priority }
    }

    /// Whether nobody waits for the answers.
    #[getter]
    fn batch(&self) -> bool {
        self.priority == Priority::Batch
    }

    /// The customer's name; None where nobody said.
    #[getter]
    fn customer(&self) -> Option<&str> {
        self.words.customer.as_deref()
    }

    /// The tags, in the order in which they were set.
    #[getter]
    fn tags(&self) -> Vec<(&str, &str)> {
        self.words.tags.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect()
    }
}
