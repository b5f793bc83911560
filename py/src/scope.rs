//! On whose behalf calls are made, as the context variable of the Python side holds it.

use farcall::{Head, Priority};
use pyo3::prelude::*;
use std::sync::Arc;

/// A customer, tags and a priority. Never changes: an inner scope is a new one.
#[pyclass(frozen, subclass, module = "farcall._farcall")]
#[derive(Debug)]
pub(crate) struct Scope {
    pub(crate) words: Arc<Words>,
}

/// What a scope says. Outlives it where a call was begun in it.
#[derive(Debug)]
pub(crate) struct Words {
    customer: Option<String>,
    tags: Vec<(String, String)>,
    priority: Priority,
}

/// One more than the engine keeps, so that it notices and counts that there were too many.
const TAGS: usize = farcall::attribution::MAX_TAGS + 1;

impl Words {
    /// Does something with the head of a call that is made in this scope.
    pub(crate) fn with<R>(&self, head: Head<'_>, with: impl FnOnce(&Head<'_>) -> R) -> R {
        let mut tags = [("", ""); TAGS];
        let kept = self.tags.len().min(TAGS);
        for (slot, (key, value)) in tags.iter_mut().zip(&self.tags) {
            *slot = (key, value);
        }
        with(&head.customer(self.customer.as_deref()).tags(&tags[..kept]).priority(self.priority))
    }
}

#[pymethods]
impl Scope {
    #[new]
    #[pyo3(signature = (customer, tags, batch = false, /))]
    fn new(customer: Option<String>, tags: Vec<(String, String)>, batch: bool) -> Self {
        let priority = if batch { Priority::Batch } else { Priority::Interactive };
        Self { words: Arc::new(Words { customer, tags, priority }) }
    }

    /// Whether nobody waits for the answers.
    #[getter]
    fn batch(&self) -> bool {
        self.words.priority == Priority::Batch
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
