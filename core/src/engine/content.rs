//! The request's body, for an adapter that has it in pieces: how much of it is kept, and who looks at it.

use super::call::State;
use super::plan::Standing;
use super::{Call, Engine};
use crate::budget;
use crate::call::Head;
use crate::cost::RequestReader;
use crate::matcher::Fields;
use crate::quota;
use crate::resilience::REPLAY_BYTES;

impl Engine {
    /// How much of a request's body an adapter that has to keep it may come to need, before it is known what applies to
    /// the request: for another attempt, or for rules that go by the body. 0 where no rule does either.
    #[must_use]
    pub fn replay_bytes(&self) -> u64 {
        let rules = self.rules.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        let replayed = rules.resilience.iter().map(|rule| rule.then.replay_bytes()).max().unwrap_or_default();
        let by_budgets = rules
            .budgets
            .iter()
            .any(|rule| !rule.then.downgrades.is_empty() || rule.then.limit.unit != budget::Unit::Requests);
        let by_quotas = rules.quotas.iter().any(|rule| {
            let counts =
                |limit: &quota::Limit| matches!(limit.unit, quota::Unit::Tokens | quota::Unit::Bytes);
            rule.then.limit.as_ref().is_some_and(counts)
        });
        let judged = by_budgets || by_quotas || rules.depends.contains(Fields::BYTES);
        replayed.max(if judged { RequestReader::PREFIX as u64 } else { 0 })
    }
}

impl Call {
    /// How much of the request's body is worth keeping for another attempt, after the first or beside it. 0 where no rule
    /// sends any.
    #[must_use]
    pub fn replay_bytes(&self) -> u64 {
        let Some(Standing { plan, .. }) = &self.flow else { return 0 };
        let parts = &plan.resilience;
        let repeats = parts.retry.as_ref().is_some_and(|retry| retry.rule.attempts > 1);
        let again = repeats || parts.failover.is_some() || parts.hedge.is_some();
        if again { plan.replay_bytes() } else { 0 }
    }

    /// For an adapter that keeps what is written of a body while it goes out, and did not say that the request can be
    /// sent again: of how many bytes it is, once all of it is there. Said before the first step of one that has none, and
    /// before the step that follows an attempt.
    pub fn replays(&mut self, whole: Option<u64>) {
        if let Some(Standing { plan, flow }) = &mut self.flow {
            flow.replayable = whole.is_some_and(|bytes| bytes <= plan.replay_bytes());
        }
    }

    /// Whether rules or prices go by what the request's body says, and nobody showed it: then [`Call::show`] is of use
    /// before the first step. Only where it may be JSON, as models are asked in.
    #[must_use]
    pub fn wants_content(&self) -> bool {
        let asks = |Standing { flow, .. }: &Standing| flow.unseen && !flow.began;
        self.state == State::Begun && self.flow.as_ref().is_some_and(asks)
    }

    /// Shows the request as [`Engine::begin`](super::Engine::begin) saw it, with its body
    /// ([`Head::content`](crate::Head::content)). Before the first step.
    pub fn show(&mut self, head: &Head<'_>) {
        if self.wants_content()
            && let Some(Standing { plan, flow }) = &mut self.flow
        {
            flow.body = head.body.unwrap_or(head.content.len() as u64);
            flow.ask_for(plan, head);
            flow.find_place(plan);
        }
    }

    /// For an adapter that has to keep a body so as to have it more than once, and did not say that the request can be
    /// sent again: whether it is to keep this one, of so many bytes at most. That is for another attempt as
    /// `replay_bytes` says, and 64 KiB at least for the outbox, and for those who look at it ([`Call::wants_content`]).
    /// Before the first step.
    #[must_use]
    pub fn keep(&mut self, most: Option<u64>) -> bool {
        let Some(Standing { plan, flow }) = &mut self.flow else { return false };
        let within = |bound| most.is_some_and(|most| most <= bound);
        flow.replayable = within(plan.replay_bytes());
        flow.whole = within(plan.replay_bytes().max(REPLAY_BYTES));
        flow.replayable || flow.whole && (flow.unseen || plan.park.is_some())
    }

    /// The adapter cannot change where the first attempt goes.
    pub(super) fn stays(&mut self) {
        if let Some(Standing { flow, .. }) = &mut self.flow {
            flow.unsent = false;
        }
    }
}
