//! How a vendor says "you have n left", and "not now": its rate-limit headers, normalised.
//!
//! A dialect is data ([`Spec`]), read from the catalogue's files; no vendor has code of its own. One function
//! reads them all, [`Dialect::read`]: without allocation, in bounded time, and without ever panicking,
//! whatever the headers hold. Equal header names mean different things at different vendors, so the
//! vendor's own data decides the reading and a plausibility check guards it. What stays unclear is no
//! statement, and is counted: a missing value is better than a wrong wait.
//!
//! ```
//! use farcall::catalogue::Catalogue;
//! use farcall::quota::dialect::{Answer, Dialect, Refusal};
//! use farcall::Timestamp;
//!
//! let catalogue = Catalogue::builtin();
//! let openai = Dialect::new(&catalogue.vendor_of("api.openai.com").unwrap().dialect);
//! let headers = [
//!     ("x-ratelimit-limit-requests", "500"),
//!     ("x-ratelimit-remaining-requests", "0"),
//!     ("x-ratelimit-reset-requests", "6m0s"),
//! ];
//! let now = Timestamp::from_nanos(1_700_000_000_000_000_000);
//! let reading = openai.read(&Answer::new(429, &headers), now);
//! assert_eq!(reading.refusal, Some(Refusal::Rate));
//! assert_eq!(reading.statements()[0].remaining, Some(0));
//! assert_eq!(reading.wait_until(now), Some(now.plus_millis(360_000)));
//! ```

mod clock;
mod date;
mod forms;
mod generic;
mod policy;
mod read;
mod reading;
mod spec;
mod structured;
mod value;

pub use policy::{PolicyIndex, PolicyName};
pub use read::{Answer, BODY_PREFIX, Dialect};
pub use reading::{MAX_STATEMENTS, Reading, Refusal, Statement};
pub use spec::{
    Encoding, Form, LimitSpec, MAX_LIMITS, Meaning, RefusalSpec, RetrySource, RetrySpec, Scope, Spec, Unit,
};
