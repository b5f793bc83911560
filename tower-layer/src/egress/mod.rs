//! The layer that counts the calls of a service.
//!
//! Its place in a stack is next to the transport, below retries and redirects, so that each exchange on the wire
//! is seen. Where two are stacked, the outer one counts and the inner one stands back.

mod acting;
mod body;
mod error;
mod future;
mod layer;
mod opening;
mod parking;
mod reading;
mod rebody;
mod replay;
mod sendable;
mod service;

#[cfg(feature = "reqwest")]
pub(crate) use acting::is_of_use;
pub use body::{RequestBody, ResponseBody};
pub use error::EgressError;
pub use future::EgressFuture;
pub use layer::EgressLayer;
pub use rebody::{AsIs, Mapped, Rebody};
pub use service::Egress;

/// A mark on a request that a layer above already counts. It goes with the request, not with the task: what a
/// service in between asks of others on its own is still counted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counted;
