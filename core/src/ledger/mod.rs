//! The ledger: the account of all calls, as sums and sketches that can be merged, never as a log of
//! everything.
//!
//! Each thread adds to a shard of its own; [`Engine::drain`](crate::Engine::drain) empties all of them into
//! [`Rollup`]s, one for each combination of vendor, endpoint, customer, tags, caller, tap, status and outcome
//! and minute. Totals are exact: what does not fit into the bounds is added to [`OTHER`], never dropped.

mod cache;
mod interner;
mod requests;
mod rollup;
mod series;
mod shard;
mod shards;
mod sighting;
mod sketch;
mod text;

pub use rollup::{Batch, Exemplar, Notice, Rollup, Spending, Spent, Sums, Used, Warned};
pub use sighting::Sighting;
pub use sketch::{BadSketch, Sketch};

pub(crate) use series::SeriesKey;
pub(crate) use shard::{Entry, Found, Settled, Shard};
pub(crate) use shards::{Held, Shards};
pub(crate) use sighting::RequestKeys;
pub(crate) use text::Text;

/// The name under which detail is added up that did not fit into the bounds.
pub const OTHER: &str = "other";
