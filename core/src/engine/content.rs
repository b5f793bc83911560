//! The request's body, for an adapter that has it in pieces: how much of it is kept, and who looks at it.

use super::Call;
use super::call::State;
use super::plan::Standing;
use crate::call::Head;
use crate::resilience::REPLAY_BYTES;

impl Call {
    /// Whether rules or prices go by what the request's body says, and nobody showed it: then [`Call::show`] is of use
    /// before the first step. Only where it may be JSON, as models are asked in.
    #[must_use]
    pub fn wants_content(&self) -> bool {
        self.state == State::Begun && self.flow.as_ref().is_some_and(|Standing { flow, .. }| flow.unseen)
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
