//! A call beside one that was answered with something stale: it asks whether that is still good, and nobody waits for
//! it (RFC 5861, section 3).

use super::plan::{Parts, Plan, Standing};
use super::shadow::{LONGEST, MOST};
use super::{Attempt, Call, Engine, Step, flow};
use crate::cache::Landing;
use crate::units::{Timestamp, spread};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// The tag that marks these calls in the ledger; its value is the rule's name.
const TAG: &str = "refresh";

impl Engine {
    /// The call that asks, and its attempt, where nothing stands in its way: it waits for nothing. Others wait for this
    /// one from now on, or take what is stale meanwhile.
    pub(super) fn refresh(&self, call: &mut Call, now: Timestamp) -> Option<Box<(Call, Attempt)>> {
        let Standing { plan, flow } = call.flow.as_mut()?;
        let rule = Arc::clone(&plan.cache.as_ref()?.name);
        if self.shadows.fetch_add(1, Ordering::AcqRel) >= MOST {
            flow.cached.land(Landing::Over, now);
            self.skip_shadow();
            return None;
        }
        let beside = Arc::clone(plan.refreshed.get_or_init(|| Arc::new(plan.of_refreshes())));
        let seed = spread(flow.seed ^ 0x5265_6672_6573_6821);
        let mut standing = flow::copy(beside, flow, now, seed);
        standing.flow.cached = flow.cached.take_to_refresh();
        let mut copy = Call {
            id: seed,
            found: self.marked(call.shard, call.found, TAG, &rule),
            begun: now,
            head_at: now,
            times: crate::call::ConnectTimes::default(),
            bytes_out: 0,
            bytes_in: 0,
            status: 0,
            attempts: 0,
            waited: 0,
            waiting_since: None,
            flow: Some(standing),
            refresh: None,
            state: super::call::State::Begun,
            ..*call
        };
        match copy.step(self, now) {
            Step::Send(attempt) => {
                let until = now.plus(LONGEST);
                let give_up_at = Some(attempt.give_up_at.map_or(until, |at| at.min(until)));
                Some(Box::new((copy, Attempt { give_up_at, ..attempt })))
            }
            Step::Wait(_) => {
                self.drop_copy(copy, now);
                None
            }
            // Refused, and counted as such.
            _ => None,
        }
    }
}

impl Plan {
    /// What applies to them: what they use and cost, and whether the vendor is to be asked at all.
    fn of_refreshes(&self) -> Self {
        let resilience = Parts { retry: None, hedge: None, failover: None, ..self.resilience.clone() };
        Self { rollouts: Vec::new(), faults: Vec::new(), resilience, ..self.clone() }
    }
}
