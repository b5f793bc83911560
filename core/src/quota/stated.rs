//! What a vendor said about a quota, in one form, and whether it can be true.

use crate::units::Timestamp;
use std::time::Duration;

/// A vendor's statement about one quota, as read from one answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stated {
    /// Units in a window.
    pub limit: Option<u64>,
    /// Units left; 0 where use exceeds the limit.
    pub remaining: Option<u64>,
    /// When the window ends.
    pub resets_at: Option<Timestamp>,
    /// How long a window is.
    pub window: Option<Duration>,
}

/// What a statement was worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reading {
    /// It was taken.
    Taken,
    /// A newer call's answer came before; only a lower remainder was taken from it.
    Older,
    /// It cannot be true (more left than the limit, a reset in the past or in more than a year), or speaks of a
    /// window that is over. Nothing was taken from it.
    Implausible,
}

/// A statement that can be true.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plausible {
    pub(super) limit: Option<u32>,
    pub(super) remaining: Option<u32>,
    /// In nanoseconds.
    pub(super) resets_at: Option<u64>,
    /// In milliseconds.
    pub(super) window: Option<u32>,
}

const YEAR: u64 = 366 * 86_400 * 1_000_000_000;

impl Stated {
    /// A missing value is better than a wrong wait: whatever is unclear makes the whole statement none.
    pub(super) fn check(&self, now: Timestamp) -> Option<Plausible> {
        let now = now.as_nanos();
        if self.limit == Some(0) && self.remaining != Some(0)
            || self.limit.zip(self.remaining).is_some_and(|(l, r)| r > l)
        {
            return None;
        }
        let window = self.window.map(super::rule::nanos).filter(|window| *window > 0);
        if window.is_some_and(|window| window > YEAR) {
            return None;
        }
        let resets_at = match (self.resets_at, window) {
            (Some(at), _) => Some(at.as_nanos()),
            (None, Some(window)) => Some(now.saturating_add(window)),
            (None, None) => None,
        };
        if resets_at.is_some_and(|at| at <= now || at - now > YEAR) {
            return None;
        }
        let clamp = |units: u64| units.min(i32::MAX as u64) as u32;
        Some(Plausible {
            limit: self.limit.map(clamp),
            remaining: self.remaining.map(clamp),
            resets_at,
            window: window.map(|window| (window / 1_000_000).clamp(1, u64::from(u32::MAX)) as u32),
        })
    }
}
