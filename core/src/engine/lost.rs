//! Attempts that the call's answer does not come from, and what they cost all the same: those that others followed,
//! and the slower ones of two.

use super::Engine;
use super::close::NOT_STATED;
use super::events::What;
use super::flow::Flow;
use super::plan::{BudgetUse, Plan, Priced};
use crate::budget::{Spent, Unit};
use crate::call::ErrorType;
use crate::cost::{Answer, Cost, Unknown};
use crate::resilience::Ending;
use crate::units::Timestamp;

impl Engine {
    /// Counts what an attempt cost that ended so (`None`: was given up), and whose answer nobody reads.
    #[inline(never)]
    pub(super) fn lose(&self, plan: &Plan, flow: &mut Flow, ending: Option<Ending>, now: Timestamp) {
        let answer = match ending {
            Some(Ending::Error(ErrorType::Dns | ErrorType::Connect | ErrorType::Tls)) => return,
            Some(Ending::Status(status)) => Answer::Status(status),
            Some(Ending::Error(_)) | None => Answer::None,
        };
        let cost = match plan.price {
            Priced::Never => None,
            _ => Some(Self::cost(plan, flow, &NOT_STATED, answer, (flow.body, 0), now)),
        };
        let cost = cost.filter(|cost| cost.nanos != 0 || cost.unknown.is_some());
        for (at, BudgetUse { place, partition, state, .. }) in plan.budgets.iter().enumerate() {
            let (rule, Some(reserved)) = (&plan.rules.budgets[*place], flow.reserved[at]) else { continue };
            let spent = match (rule.then.limit.unit, cost) {
                (Unit::Money(_), Some(cost)) => rule.then.spent(cost.part(), cost.unknown.is_none(), None),
                (Unit::Tokens, _) if answer == Answer::None => Spent { known: 0, all: false },
                _ => continue,
            };
            let settled = state.settle_more(&rule.then, reserved.amount(), spent, now);
            self.tell_of_budget(rule, partition, settled, flow, now);
        }
        let Some(cost) = cost else { return };
        flow.events.add(now, What::LostCost(cost));
        flow.lost = Some(flow.lost.map_or(cost, |before| together(before, cost)));
    }
}

/// Two costs; of another currency than the first one's nothing is known.
fn together(one: Cost, other: Cost) -> Cost {
    let same = one.currency == other.currency || other.nanos == 0;
    Cost {
        nanos: if same { one.nanos.saturating_add(other.nanos) } else { one.nanos },
        currency: one.currency,
        unknown: one.unknown.or(other.unknown).or((!same).then_some(Unknown::NoPrice)),
    }
}
