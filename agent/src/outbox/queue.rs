//! Which processes deliver a call: those of its service, and where it takes a credential that a callback has, of these
//! the ones that know the callback. Each such set has a queue of its own, with a lease of its own; that of a service
//! alone has its name.

/// Between a service's name and that of a credential; in neither of them.
const BETWEEN: char = '\u{1f}';

/// The queue of a service's calls that take this credential, or none.
pub(super) fn name(service: &str, credential: Option<&str>) -> String {
    match credential {
        Some(credential) => format!("{service}{BETWEEN}{credential}"),
        None => service.to_owned(),
    }
}

/// The service and the credential of a queue.
pub(super) fn parts(queue: &str) -> (&str, Option<&str>) {
    match queue.split_once(BETWEEN) {
        Some((service, credential)) => (service, Some(credential)),
        None => (queue, None),
    }
}

/// The service's name as it can stand in a queue's.
pub(super) fn service(name: &str) -> String {
    name.replace(BETWEEN, " ")
}

/// Says that a call waits for another process.
pub(super) fn waits_for(credential: &str) -> String {
    format!("waits for a process that knows the credential `{credential}`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_says_whose_calls_it_has_and_what_they_take() {
        assert_eq!((name("shop", None), parts("shop")), ("shop".to_owned(), ("shop", None)));
        assert_eq!(parts(&name("shop", Some("stripe"))), ("shop", Some("stripe")));
        assert_eq!(parts(&name(&service("a\u{1f}b"), None)), ("a b", None));
    }
}
