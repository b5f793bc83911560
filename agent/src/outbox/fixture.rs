//! Calls for tests of parts.

use super::clock::Ahead;
use super::nanos;
use super::seal::{Keys, Purpose};
use super::table::New;
use std::time::Duration;

/// A call of the queue `q` under this idempotency key, with nothing in it: it is put now, due at once, and may grow a day
/// old.
pub(super) fn call(key: &str) -> New {
    let clock = Ahead::wall();
    let now = clock.now();
    New {
        clock,
        queue: "q".into(),
        order_key: None,
        put_at: now,
        next_at: now,
        expires_at: now + nanos(Duration::from_secs(86_400)),
        max_attempts: None,
        method: "POST".into(),
        vendor: "v".into(),
        endpoint: String::new(),
        host: "h".into(),
        customer: None,
        idempotency_key: key.into(),
        bytes: 0,
        request: Vec::new(),
    }
}

/// The same with something sealed in it, by which it has a name.
pub(super) fn sealed(keys: &Keys, key: &str) -> New {
    New { bytes: 3, request: keys.seal(Purpose::Request, key, &[b"abc"]).unwrap(), ..call(key) }
}
