//! A service by its name: one that was misspelt must not look like one whose calls are all delivered.

use crate::output::complain;
use farcall_agent::outbox::{Operator, OutboxError};
use farcall_agent::report::{self, Query};
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

/// Whether there is a service of this name; says so on stderr where there is none, and which there are. One whose
/// programs ran here has an outbox, with or without calls; so may have one of another host, where those share it.
///
/// # Errors
/// Where the outbox cannot be asked.
pub(super) fn is_there(operator: &Operator, home: &Path, service: &str) -> Result<bool, OutboxError> {
    let with_calls: BTreeSet<String> = operator.counts()?.into_iter().map(|count| count.service).collect();
    let seen = report::services(&Query::at(home).since(Duration::MAX)).unwrap_or_default();
    if with_calls.contains(service) || seen.contains(service) {
        return Ok(true);
    }
    let names = |names: &BTreeSet<String>| {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        if names.is_empty() { "none".to_owned() } else { names.join(", ") }
    };
    if operator.is_shared()? {
        let with_calls = names(&with_calls);
        complain(&format!(
            "the outbox has no calls of the service {service}; those that have calls there: {with_calls}"
        ));
        return Ok(true);
    }
    let all = names(&seen.into_iter().chain(with_calls).collect());
    complain(&format!("no service here is called {service}; those that have an outbox here: {all}"));
    Ok(false)
}
