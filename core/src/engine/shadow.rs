//! A copy of a call, beside it: the variant of a rollout answers it too, and nobody gets that answer.

use super::call::State;
use super::plan::{Parts, Plan, Standing};
use super::{Attempt, Call, Engine, Step, flow};
use crate::attribution::{MAX_TAGS, TagText};
use crate::call::Outcome;
use crate::ledger::Found;
use crate::units::{Timestamp, spread};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Copies under way at a time in a process; further ones are not sent, and counted.
pub(super) const MOST: u64 = 32;
/// A copy that takes longer is given up.
pub(super) const LONGEST: Duration = Duration::from_secs(30);
/// The tag that marks copies in the ledger; its value is the rollout's name.
const TAG: &str = "shadow";

impl Engine {
    /// A copy of the call, which is to be sent at once, where a rollout wants one and nothing stands in its way: it
    /// waits for nothing, and no rule judges the vendor by it.
    pub(super) fn shadow(&self, call: &mut Call, now: Timestamp) -> Option<(Call, Attempt)> {
        let Standing { plan, flow } = call.flow.as_mut().filter(|_| call.state == State::Sent)?;
        let place = flow.shadow.take()?;
        let (_, _, changes) = plan.rollouts.iter().find(|(known, ..)| *known == place)?;
        if self.shadows.fetch_add(1, Ordering::AcqRel) >= MOST {
            self.skip_shadow();
            return None;
        }
        let name = &plan.rules.rollouts[place].name;
        let copied = Arc::clone(plan.copied.get_or_init(|| Arc::new(plan.of_copies())));
        let seed = spread(flow.seed ^ 0x5368_6164_6F77);
        let mut copy = Call {
            id: seed,
            found: self.marked(call.shard, call.found, TAG, name),
            begun: now,
            head_at: now,
            times: crate::call::ConnectTimes::default(),
            bytes_out: 0,
            bytes_in: 0,
            status: 0,
            attempts: 0,
            waited: 0,
            waiting_since: None,
            look: None,
            flow: Some(flow::copy(copied, flow, now, seed)),
            refresh: None,
            state: State::Begun,
            ..*call
        };
        match copy.step(self, now) {
            Step::Send(attempt) => {
                let changes = Some(Arc::clone(changes));
                Some((copy, Attempt { changes, give_up_at: Some(now.plus(LONGEST)), ..attempt }))
            }
            Step::Wait(_) => {
                self.drop_copy(copy, now);
                None
            }
            // Refused, and counted as such.
            _ => None,
        }
    }

    /// A copy that would have to wait gives back what it holds, and never was.
    pub(super) fn drop_copy(&self, mut copy: Call, now: Timestamp) {
        let _nothing = self.close(&mut copy, Outcome::Failed(crate::ErrorType::Cancelled), now);
        self.shards.lock(copy.shard).shard.release(copy.found);
        if let Some(standing) = copy.flow.take() {
            let _no_story = flow::give_back(standing.flow, now);
        }
        self.skip_shadow();
    }

    pub(super) fn skip_shadow(&self) {
        self.shadows.fetch_sub(1, Ordering::AcqRel);
        self.tallies.skipped_shadows.fetch_add(1, Ordering::Relaxed);
    }

    /// One more reference to each name of a call, with the tag that marks a copy.
    pub(super) fn marked(&self, shard: usize, found: Found, tag: &str, rule: &str) -> Found {
        let shard = &mut self.shards.lock(shard).shard;
        let text = {
            let (.., tags) = shard.names(&self.catalogue, found);
            let own = tags.split(',').filter_map(|tag| tag.split_once('=')).filter(|(key, _)| *key != tag);
            let mut marked = [("", ""); MAX_TAGS];
            // First, so that it stays where there are too many.
            let all = std::iter::once((tag, rule)).chain(own);
            let count = all.zip(&mut marked).map(|(tag, slot)| *slot = tag).count();
            TagText::new(&marked[..count])
        };
        let tags = shard.tag_set(text.as_str(), &self.tallies);
        shard.keep(Found { tags: crate::ledger::Shard::no_tags(), ..found });
        Found { tags, ..found }
    }
}

impl Plan {
    /// What applies to copies of these calls: what they use and cost. Nothing that would decide anew, or judge the
    /// vendor by its variant.
    fn of_copies(&self) -> Self {
        Self { rollouts: Vec::new(), faults: Vec::new(), resilience: Parts::default(), ..self.clone() }
    }
}
