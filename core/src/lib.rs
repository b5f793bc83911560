//! The engine of Farcall: a deterministic account of the calls that a service makes to other people's APIs.
//!
//! This crate performs no I/O, reads no clock and starts no thread. Whoever embeds it (an adapter, the agent,
//! the sidecar, a simulation) tells it what happens and when, and asks what to do next:
//!
//! ```
//! use farcall::{Caller, Config, Engine, Head, Step, Timestamp};
//!
//! let engine = Engine::new(Config::default(), Caller::new("checkout"), 1, 42);
//! let t0 = Timestamp::from_nanos(1_700_000_000_000_000_000);
//!
//! let head = Head::new("GET", "https://api.stripe.com/v1/customers/cus_9s6XKzkNRiz8i3").customer(Some("acme"));
//! let mut call = engine.begin(&head, t0, 7);
//! if let Step::Send(_attempt) = call.step(&engine, t0) {
//!     // Here the adapter performs the exchange, and reports what it saw.
//!     call.sent(0);
//!     call.head(200, t0.plus_millis(80));
//! }
//! assert!(matches!(call.step(&engine, t0.plus_millis(80)), Step::Settled));
//! call.body(512);
//! call.end(&engine, t0.plus_millis(95));
//!
//! let batch = engine.drain(t0.plus_millis(1_000));
//! assert_eq!(batch.rows[0].vendor.as_ref(), "stripe");
//! assert_eq!(batch.rows[0].endpoint.as_ref(), "GET /v1/customers/{customer}");
//! assert_eq!(batch.rows[0].customer.as_ref(), "acme");
//! ```

pub mod advise;
pub mod attribution;
pub mod budget;
pub mod cache;
pub mod call;
pub mod catalogue;
mod coding;
pub mod config;
pub mod cost;
mod engine;
pub mod fault;
pub mod inspect;
pub mod ledger;
pub mod matcher;
pub mod outbox;
pub mod policy;
mod quantile;
pub mod quota;
pub mod resilience;
pub mod rollout;
pub mod simulate;
pub mod units;

pub use attribution::{Caller, CallerId};
pub use call::{
    Changes, ConnectTimes, ErrorType, Head, HeaderNames, Headers, Outcome, Priority, Refusal, RefusedBy,
    Stored, Tap, Target,
};
pub use config::Config;
pub use engine::{Attempt, Call, Counters, Engine, QuotaHome, Step};
pub use units::{Currency, Money, Timestamp};
