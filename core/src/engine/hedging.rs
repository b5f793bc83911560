//! A second attempt beside a first one that is slow.

use super::account::{MAX_ASKED, Place, Tokens};
use super::after::in_words;
use super::call::State;
use super::decide::{self, Begun};
use super::events::What;
use super::faults::{self, Met};
use super::flow::Flow;
use super::plan::{BudgetUse, MAX_QUOTAS, Plan, Standing};
use super::{Attempt, Call, Engine, Step};
use crate::budget::{Action, Unit};
use crate::outbox;
use crate::quota::{Ask, Claim, Rule, State as QuotaState, Verdict};
use crate::resilience::Ending;
use crate::units::Timestamp;

/// Two attempts under way: their numbers, and when they were sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pair {
    pub(super) first: (u32, Timestamp),
    second: (u32, Timestamp),
}

impl Engine {
    /// A second attempt beside the first, where quotas have room for it at once, and the budget allows. Of one that a
    /// fault holds back, that one: it is due.
    pub(super) fn hedge(&self, call: &mut Call, now: Timestamp) -> Option<Attempt> {
        let Standing { flow, .. } = call.flow.as_ref().filter(|_| call.state == State::Sent)?;
        match flow.pair.is_some() && flow.met.is_some() {
            true => self.held_is_due(call, now),
            false => self.second(call, now),
        }
    }

    fn second(&self, call: &mut Call, now: Timestamp) -> Option<Attempt> {
        let Standing { plan, flow } = call.flow.as_mut()?;
        let hedge = plan.resilience.hedge.as_ref()?;
        if flow.pair.is_some() || !pays_for_another(plan, flow, now) || !hedge.state.take(&hedge.rule, now) {
            return None;
        }
        let ask = Ask::one().priority(flow.priority);
        let sizes = (flow.tokens_ahead(plan), flow.body);
        let first = match &flow.met {
            Some(Met { begun, .. }) => (begun.number, begun.since),
            None => (call.attempts + flow.faulted, flow.sent_at),
        };
        let number = first.0 + 1;
        let fault = faults::beside(plan, flow, number, now);
        // A fault's takes nothing.
        if fault.is_none() && !self.has_room(plan, flow.place, &ask, sizes, now) {
            hedge.state.give_back();
            return None;
        }
        flow.events.add(now, What::Hedge);
        flow.hedges += 1;
        flow.pair = Some(Pair { first, second: (number, now) });
        if let Some(met) = fault {
            met.tell(plan, flow, now);
            if let Err(fault) = met.over(plan, flow, now) {
                flow.faulted += 1;
                self.lose_one(plan, flow, number, (Some(fault.ending()), false), now);
                return None;
            }
        }
        call.attempts += 1;
        (flow.sent_at, flow.timed) = (now, true);
        Some(decide::attempt(plan, flow, Begun { number, since: now, hedge_at: None }, now))
    }

    /// What to do where a second attempt is due beside one that a fault holds back: send it, where that may be. The
    /// adapter then asks for the one that is held back when that is due.
    #[cold]
    #[inline(never)]
    pub(super) fn hedge_held(&self, call: &mut Call, now: Timestamp) -> Step {
        let mut due = None;
        if let Some(Standing { plan, flow }) = &mut call.flow {
            due = flow.met.map(|met| met.ends(plan, flow).0);
            // It is asked for once.
            if let Some(met) = &mut flow.met {
                met.begun.hedge_at = None;
            }
        }
        match self.second(call, now) {
            Some(attempt) => {
                call.state = State::Sent;
                Step::Send(Attempt { hedge_at: due, ..attempt })
            }
            None => self.next(call, now),
        }
    }

    /// The first attempt was held back, and is let go of beside the second.
    #[cold]
    #[inline(never)]
    fn held_is_due(&self, call: &mut Call, now: Timestamp) -> Option<Attempt> {
        let Standing { plan, flow } = call.flow.as_mut()?;
        let met = flow.met.take()?;
        if let Err(fault) = met.over(plan, flow, now) {
            flow.faulted += 1;
            self.lose_one(plan, flow, met.begun.number, (Some(fault.ending()), false), now);
            return None;
        }
        call.attempts += 1;
        Some(decide::attempt(plan, flow, Begun { hedge_at: None, ..met.begun }, now))
    }

    /// The second attempt is over, and a fault holds the first one back. Whether that one is waited for; where not, the
    /// second is the call's.
    #[cold]
    #[inline(never)]
    pub(super) fn waits_for_held(&self, call: &mut Call, ending: Ending, now: Timestamp) -> bool {
        let Some(Standing { plan, flow }) = &mut call.flow else { return false };
        let Some(Pair { first, second }) = flow.pair else { return false };
        if !matches!(ending, Ending::Error(_) | Ending::Status(429 | 500..)) {
            let how = "given up while it was held back";
            flow.events.add(now, What::FaultOver { attempt: first.0, how });
            flow.met = None;
            flow.faulted += 1;
            self.lose_one(plan, flow, first.0, (None, false), now);
            return false;
        }
        flow.reached |= outbox::may_have_been_acted_upon(ending);
        self.lose_one(plan, flow, second.0, (Some(ending), true), now);
        (flow.usage, flow.coding, flow.prefix) = (None, None, None);
        (flow.told, flow.retry_at, flow.seen) = (None, None, call.status);
        if let Some(look) = &mut call.look {
            look.again();
        }
        (call.status, call.state) = (0, State::Begun);
        true
    }

    /// Takes one more of each quota, or none of any: nobody waits for a hedge.
    fn has_room(
        &self,
        plan: &Plan,
        place: Place,
        ask: &Ask,
        (tokens, bytes): (Tokens, u64),
        now: Timestamp,
    ) -> bool {
        let mut taken: [Option<(&QuotaState, Claim)>; MAX_QUOTAS + 2 * MAX_ASKED] =
            [None; MAX_QUOTAS + 2 * MAX_ASKED];
        let own = plan.quotas.iter().map(|quota| {
            let ask = ask
                .units(decide::units_of(&quota.rule, tokens.all, bytes))
                .customer(plan.customer, quota.weight);
            (&*quota.state, &*quota.rule, ask, true)
        });
        let kept = plan.keep.iter().flat_map(|(_, rule)| {
            plan.account.asked(place).map(move |(_, stated)| {
                let ask = ask.units(stated.units(tokens)).customer(plan.customer, plan.weight);
                (&*stated.state, &**rule, ask, stated.is_countable())
            })
        });
        let asked: [&mut dyn Iterator<Item = (&QuotaState, &Rule, Ask, bool)>; 2] =
            [&mut { own }, &mut { kept }];
        let asked = asked.into_iter().flatten();
        for (slot, (state, rule, ask, countable)) in taken.iter_mut().zip(asked) {
            let mut claim = Claim::new();
            let verdict = match countable {
                true => state.before(rule, &mut claim, &ask, &plan.user, now),
                false => state.heed(rule, &mut claim, &ask, &plan.user, now),
            };
            if verdict != Verdict::Pass {
                state.undo(&mut claim);
                for (state, mut claim) in taken.into_iter().flatten() {
                    state.undo(&mut claim);
                }
                return false;
            }
            *slot = Some((state, claim));
        }
        for (state, mut claim) in taken.into_iter().flatten() {
            state.end(&mut claim);
        }
        true
    }

    /// One of two attempts came to nothing, or the other one was faster.
    pub(super) fn lost(&self, call: &mut Call, number: u32, ending: Option<Ending>, now: Timestamp) {
        if let Some(Standing { plan, flow }) = &mut call.flow {
            self.lose_one(plan, flow, number, (ending, true), now);
        }
    }

    /// The same, and whether it went out.
    fn lose_one(
        &self,
        plan: &Plan,
        flow: &mut Flow,
        number: u32,
        (ending, went_out): (Option<Ending>, bool),
        now: Timestamp,
    ) {
        let Some(Pair { first, second }) = flow.pair.take() else { return };
        let (loser, other) = if number == second.0 { (second, first) } else { (first, second) };
        flow.sent_at = other.1;
        if let Some(hedge) = &plan.resilience.hedge {
            hedge.state.after(&hedge.rule, now.since(loser.1));
        }
        let how = ending.map_or_else(|| "was given up".to_owned(), in_words);
        flow.events.add(now, What::Lost { which: if loser.0 == first.0 { "first" } else { "second" }, how });
        if went_out {
            self.lose(plan, flow, ending, now);
        }
    }
}

/// Whether all budgets that hold calls back have room for what another attempt may cost.
fn pays_for_another(plan: &Plan, flow: &Flow, now: Timestamp) -> bool {
    plan.budgets.iter().zip(&flow.reserved).all(|(BudgetUse { place, state, .. }, reserved)| {
        let rule = &plan.rules.budgets[*place].then;
        let (Some(reserved), Action::Refuse | Action::Throttle) = (reserved, rule.over) else { return true };
        if matches!(rule.limit.unit, Unit::Requests) {
            return true;
        }
        let status = state.status(rule, now);
        let with_it = status.used.saturating_add(status.elsewhere).saturating_add(reserved.amount());
        with_it <= status.limit
    })
}
