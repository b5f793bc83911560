//! A call that a rule has parked: from the adapter's hands into the outbox, and back to the call what came of it.

use super::{OutboxError, Parcel, Pending, Receipt};
use crate::handle::CallGuard;
use farcall::outbox::{Parked, Terms};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

impl Parcel {
    /// The same, on the terms of a rule.
    #[must_use]
    pub fn on(mut self, terms: &Terms) -> Self {
        self.customer = self.customer.or_else(|| terms.customer.as_deref().map(str::to_owned));
        self.order_key.clone_from(&terms.order_key);
        self.idempotency_key.clone_from(&terms.idempotency_key);
        self.idempotency_header = terms.idempotency_header.as_deref().map(str::to_owned);
        self.delay = terms.delay;
        self.max_age = terms.max_age.unwrap_or(self.max_age);
        self.max_attempts = terms.max_attempts;
        self
    }
}

/// A call on its way into the outbox: awaited, or waited for. Dropped before it says so, the call may be parked all the
/// same.
#[derive(Debug)]
#[must_use = "the call is not parked before this says so"]
pub struct Parking(Result<Pending<Receipt>, Option<OutboxError>>);

impl Parking {
    /// Waits until the call is on the disk.
    ///
    /// # Errors
    /// Where it was not taken.
    pub fn wait(self) -> Result<Receipt, OutboxError> {
        match self.0 {
            Ok(pending) => pending.wait(),
            Err(error) => Err(error.unwrap_or(OutboxError::Busy)),
        }
    }
}

impl Future for Parking {
    type Output = Result<Receipt, OutboxError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            Ok(pending) => Pin::new(pending).poll(cx),
            Err(error) => Poll::Ready(Err(error.take().unwrap_or(OutboxError::Busy))),
        }
    }
}

impl CallGuard {
    /// Hands the request over to the outbox, as [`Step::Park`](farcall::Step::Park) asks; then [`parked`](CallGuard::parked) is to be told
    /// what came of it.
    pub fn park(&self, terms: &Terms, request: Parcel) -> Parking {
        let taken = self.farcall().outbox().and_then(|outbox| outbox.submit(request.on(terms)));
        Parking(taken.map_err(Some))
    }

    /// What came of [`Step::Park`](farcall::Step::Park); the next step follows from it.
    pub fn parked(&mut self, taken: &Result<Receipt, OutboxError>) {
        match taken {
            Ok(Receipt { id, idempotency_key, .. }) => {
                self.tell_parked(Ok(Parked { id: *id, idempotency_key }));
            }
            Err(error) => self.tell_parked(Err(&error.to_string())),
        }
    }
}
