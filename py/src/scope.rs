//! On whose behalf calls are made, as the context variable of the Python side holds it.

use pyo3::prelude::*;

/// A customer and tags. Never changes: an inner scope is a new one.
#[pyclass(frozen, subclass, module = "farcall._farcall")]
#[derive(Debug)]
pub(crate) struct Scope {
    pub(crate) customer: Option<String>,
    pub(crate) tags: Vec<(String, String)>,
}

#[pymethods]
impl Scope {
    #[new]
    fn new(customer: Option<String>, tags: Vec<(String, String)>) -> Self {
        Self { customer, tags }
    }

    /// The customer's name; None where nobody said.
    #[getter]
    fn customer(&self) -> Option<&str> {
        self.customer.as_deref()
    }

    /// The tags, in the order in which they were set.
    #[getter]
    fn tags(&self) -> Vec<(&str, &str)> {
        self.tags.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect()
    }
}
