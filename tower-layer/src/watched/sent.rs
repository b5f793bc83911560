//! How much of a request's body went out.

use super::SPARE;
use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of a request's body that the transport has taken. The body goes its own way, into the connection's
/// task, hence the sharing; counters are used again, so that a call allocates none.
#[derive(Clone, Debug)]
pub(crate) struct Sent(Arc<AtomicU64>);

thread_local! {
    static COUNTERS: RefCell<Vec<Sent>> = const { RefCell::new(Vec::new()) };
}

impl Sent {
    pub(crate) fn take() -> Self {
        let spare =
            COUNTERS.try_with(|counters| counters.try_borrow_mut().ok().and_then(|mut spare| spare.pop()));
        spare.ok().flatten().unwrap_or_else(|| Self(Arc::new(AtomicU64::new(0))))
    }

    pub(crate) fn add(&self, bytes: usize) {
        self.0.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Keeps the counter for another call, unless the body still holds it.
    pub(super) fn give_back(mut self) {
        if let Some(bytes) = Arc::get_mut(&mut self.0) {
            *bytes.get_mut() = 0;
            let _ = COUNTERS.try_with(|counters| {
                if let Ok(mut counters) = counters.try_borrow_mut()
                    && counters.len() < SPARE
                {
                    counters.push(self);
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_used_again_once_their_body_is_gone() {
        let (first, held) = (Sent::take(), Sent::take());
        let body = held.clone();
        let place = Arc::as_ptr(&first.0);
        first.add(5);
        first.give_back();
        held.give_back();
        let next = Sent::take();
        assert_eq!((Arc::as_ptr(&next.0), next.bytes()), (place, 0));
        assert!(!Arc::ptr_eq(&Sent::take().0, &body.0), "a counter that a body still holds is left to it");
    }
}
