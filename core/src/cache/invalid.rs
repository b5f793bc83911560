//! Which URIs were changed, and when (RFC 9111, section 4.4).
//!
//! A request that changes something makes useless what is kept of that URI, whoever asked for it and with whatever
//! headers. So nothing is looked for: each URI has a place in a table of moments, and an answer that was asked for
//! before the moment of its place is not used. URIs that share a place lose an answer now and then; none is kept that
//! should not be, nor one that was under way when the change was made.

use crate::units::Timestamp;
use std::sync::atomic::{AtomicU64, Ordering};

const PLACES: usize = 8_192;

#[derive(Debug)]
pub(super) struct Invalidations(Box<[AtomicU64]>);

impl Invalidations {
    pub(super) fn new() -> Self {
        Self((0..PLACES).map(|_| AtomicU64::new(0)).collect())
    }

    /// It was changed, at the latest now.
    pub(super) fn add(&self, uri: u64, now: Timestamp) {
        self.place(uri).fetch_max(now.as_nanos(), Ordering::AcqRel);
    }

    /// Whether it was changed since then.
    pub(super) fn since(&self, uri: u64, then: Timestamp) -> bool {
        self.place(uri).load(Ordering::Acquire) >= then.as_nanos()
    }

    fn place(&self, uri: u64) -> &AtomicU64 {
        #[allow(clippy::cast_possible_truncation)] // A remainder of a small number.
        let place = (uri % PLACES as u64) as usize;
        &self.0[place]
    }
}
