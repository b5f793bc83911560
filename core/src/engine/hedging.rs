//! A second attempt beside a first one that is slow.

use super::account::{MAX_ASKED, Place, Tokens};
use super::after::in_words;
use super::call::State;
use super::events::What;
use super::flow::Flow;
use super::plan::{BudgetUse, MAX_QUOTAS, Plan, Standing};
use super::{Attempt, Call, Engine, decide};
use crate::budget::{Action, Unit};
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
    /// A second attempt beside the first, where quotas have room for it at once, and the budget allows.
    pub(super) fn hedge(&self, call: &mut Call, now: Timestamp) -> Option<Attempt> {
        let Standing { plan, flow } = call.flow.as_mut().filter(|_| call.state == State::Sent)?;
        let hedge = plan.resilience.hedge.as_ref()?;
        if flow.pair.is_some() || !pays_for_another(plan, flow, now) || !hedge.state.take(&hedge.rule, now) {
            return None;
        }
        let ask = Ask::one().priority(flow.priority);
        let sizes = (flow.tokens_ahead(plan), flow.body);
        if !self.has_room(plan, flow.place, &ask, sizes, now) {
            hedge.state.give_back();
            return None;
        }
        flow.events.add(now, What::Hedge);
        flow.hedges += 1;
        let first = (call.attempts, flow.sent_at);
        call.attempts += 1;
        flow.pair = Some(Pair { first, second: (call.attempts, now) });
        Some(decide::attempt(plan, flow, call.attempts, now))
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
        let Some(Standing { plan, flow }) = &mut call.flow else { return };
        let Some(Pair { first, second }) = flow.pair.take() else { return };
        let (loser, other) = if number == second.0 { (second, first) } else { (first, second) };
        flow.sent_at = other.1;
        if let Some(hedge) = &plan.resilience.hedge {
            hedge.state.after(&hedge.rule, now.since(loser.1));
        }
        let how = ending.map_or_else(|| "was given up".to_owned(), in_words);
        flow.events.add(now, What::Lost { which: if loser.0 == first.0 { "first" } else { "second" }, how });
        self.lose(plan, flow, ending, now);
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
