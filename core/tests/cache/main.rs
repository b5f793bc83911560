//! What the cache does with calls, told by the sections of its RFCs. A row is a story: requests and the vendor's
//! answers at given seconds, and what came of each.
#![allow(clippy::unwrap_used)]

mod at_once;
mod coalescing;
mod fallback;
mod isolation;
mod peer;
mod refresh;
mod rfc9111;
mod support;
