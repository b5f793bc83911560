//! A call that a rule has parked, on its way into the outbox: on a thread of libuv's pool.

use crate::handle::unharmed;
use farcall_agent::outbox::{OutboxError, Parking, Receipt};
use napi::bindgen_prelude::{Env, Result};
use napi::{Error, Status, Task};
use std::sync::{Arc, Mutex, PoisonError};

/// What came of it, for the call's next step.
#[derive(Clone, Default)]
pub(crate) struct Came(Arc<Mutex<Option<std::result::Result<Receipt, OutboxError>>>>);

impl Came {
    /// Once.
    pub(crate) fn take(&self) -> Option<std::result::Result<Receipt, OutboxError>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Waits until the call is on the disk, or cannot be.
pub struct ParkTask {
    parking: Option<Parking>,
    came: Came,
}

impl ParkTask {
    pub(crate) fn new(parking: Option<Parking>, came: Came) -> Self {
        Self { parking, came }
    }
}

impl Task for ParkTask {
    type Output = ();
    type JsValue = ();

    fn compute(&mut self) -> Result<()> {
        unharmed(|| {
            let parking = self.parking.take();
            let parking = parking.ok_or_else(|| {
                Error::new(Status::GenericFailure, "the last step was not to park the call")
            })?;
            let taken = parking.wait();
            *self.came.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(taken);
            Ok(())
        })
    }

    fn resolve(&mut self, _env: Env, (): ()) -> Result<()> {
        Ok(())
    }
}
