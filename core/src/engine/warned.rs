//! Calls that a rule of the policy lets pass, and has something to tell of: it warns, or is in report mode. Counted by
//! rule, for the ledger.

use super::Engine;
use super::states::Key;
use crate::ledger;
use crate::matcher::Subject;
use crate::policy::Verdict;
use crate::units::Timestamp;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What one rule says of the calls to one endpoint, and how many there were since the last drain.
#[derive(Debug)]
pub(super) struct Warned {
    pub(super) rule: Arc<str>,
    pub(super) verdict: Verdict,
    vendor: Arc<str>,
    endpoint: Arc<str>,
    calls: AtomicU64,
}

impl Warned {
    /// Another call.
    pub(super) fn count(&self) {
        self.calls.fetch_add(1, Ordering::Relaxed);
    }

    /// What the rule does, or would do, in words.
    pub(super) fn in_words(&self) -> &'static str {
        match self.verdict {
            Verdict::Deny => "would deny it, in report mode",
            Verdict::Throttle => "would throttle it, in report mode",
            Verdict::Warn | Verdict::Allow => "warns of it",
        }
    }
}

impl Engine {
    /// Where it is counted that this rule says so of such calls. Where too many rules are in use it is told all the same,
    /// and not counted.
    pub(super) fn warned(&self, rule: &Arc<str>, verdict: Verdict, subject: &Subject<'_>) -> Arc<Warned> {
        let make = || Warned {
            rule: Arc::clone(rule),
            verdict,
            vendor: subject.vendor.into(),
            endpoint: subject.endpoint.into(),
            calls: AtomicU64::new(0),
        };
        let key = Key::of(rule).and_number(verdict as u64).and(subject.vendor).and(subject.endpoint);
        self.kept(self.states.warned.get(key, make)).unwrap_or_else(|| Arc::new(make()))
    }

    /// What was counted since the last drain.
    pub(super) fn drain_warned(&self, now: Timestamp) -> Vec<ledger::Warned> {
        let drained = |state: Arc<Warned>| {
            let calls = state.calls.swap(0, Ordering::Relaxed);
            (calls > 0).then(|| ledger::Warned {
                minute: now.minute(),
                vendor: Arc::clone(&state.vendor),
                endpoint: Arc::clone(&state.endpoint),
                rule: Arc::clone(&state.rule),
                verdict: state.verdict,
                calls,
            })
        };
        self.states.warned.all().into_iter().filter_map(drained).collect()
    }
}
