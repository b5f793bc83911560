//! The end of a call: the way back through the concepts, in reverse order. What it cost, and what it gives back.

use super::account::Tokens;
use super::cached::{Saved, Stage};
use super::call::State;
use super::events::What;
use super::flow::{Flow, Prefix};
use super::plan::{BudgetUse, Plan, Priced, Standing};
use super::{Call, Engine};
use crate::budget::{self, Spent};
use crate::call::{ErrorType, Outcome};
use crate::config::Rule;
use crate::cost::{self, Cost, Facts, Price, Unknown, Usage, UsageReader};
use crate::outbox::Failure;
use crate::quota;
use crate::quota::dialect::Answer;
use crate::resilience::{Ending, Released};
use crate::rollout::{Canary, Sample, Side};
use crate::units::{Currency, Money, Timestamp};
use std::sync::Arc;

/// What a call cost, as the ledger takes it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Account {
    pub(super) cost: i64,
    /// Why that is not all.
    pub(super) unknown: Option<Unknown>,
    pub(super) tokens_in: u64,
    pub(super) tokens_out: u64,
    pub(super) saved: Saved,
}

/// How far a call came that is over.
#[derive(Clone, Copy)]
struct Over {
    answer: cost::Answer,
    /// Whether anything of it went out, now or before.
    was_tried: bool,
    /// Whether the last attempt did.
    was_sent: bool,
    used: Option<Tokens>,
}

/// Of an answer whose body nobody reads.
pub(super) static NOT_STATED: Usage = Usage::unknown(Unknown::NotStated);
static NO_ANSWER: Usage = Usage::unknown(Unknown::NoAnswer);

impl Engine {
    /// The call is over: settles all that it holds. Its status is still the vendor's, whatever the application gets.
    pub(super) fn close(&self, call: &mut Call, outcome: Outcome, now: Timestamp) -> Account {
        let vendor = call.found.vendor;
        let (sent, received, begun, status) = (call.bytes_out, call.bytes_in, call.begun, call.status);
        let (id, was_tried, head_at) = (call.id, call.attempts > 0, call.head_at);
        // Between two attempts nothing is out: the one before is accounted for.
        let was_sent = was_tried && call.state != State::Begun;
        let error = match (outcome, call.state) {
            (Outcome::Failed(error), _) | (_, State::Failed(error)) => Some(error),
            _ => None,
        };
        let Some(Standing { plan, flow }) = &mut call.flow else {
            return Account { unknown: Some(Unknown::NoPrice), ..Account::default() };
        };
        // A fault's attempt never was.
        let was_sent = was_sent && flow.stood_in.is_none();
        let ending = match outcome {
            Outcome::Failed(error) => Some(Ending::Error(error)),
            Outcome::Complete | Outcome::Abandoned => Some(Ending::Status(status)),
            Outcome::Refused(_) | Outcome::Cached | Outcome::Stale | Outcome::Parked => None,
        };
        match ending {
            Some(ending) => {
                self.close_attempt(plan, flow, ending, now);
                // The adapter that asks what follows still has all of the answer.
                if matches!(ending, Ending::Error(_)) && status != 0 && flow.judged != Some(ending) {
                    Self::broke_off(plan, flow, ending, now);
                }
                if was_sent && plan.critical.is_some() {
                    self.critical_over(plan, flow, ending, id, now);
                }
            }
            // What refused it may come after the place.
            None if flow.placed => Self::release_place(plan, flow, Released::Nothing, now),
            None => {}
        }
        if let Some(prefix) = flow.prefix.take() {
            self.read_prefix(plan, flow, vendor, &prefix, head_at, now);
        }
        let mut stated = None;
        let (used, prompt) = match flow.usage.take() {
            Some(reader) => read(reader, flow, outcome, &mut stated),
            None => (None, 0),
        };
        let usage = stated.as_ref().unwrap_or(if was_sent { &NOT_STATED } else { &NO_ANSWER });
        let answer = match (was_sent, status) {
            (false, _) => cost::Answer::NotSent,
            (true, 0) if matches!(error, Some(ErrorType::Dns | ErrorType::Connect | ErrorType::Tls)) => {
                cost::Answer::NotSent
            }
            (true, 0) => cost::Answer::None,
            (true, status) => cost::Answer::Status(status),
        };
        let cost = match self.other_vendor(plan, flow) {
            Some(vendor) if answer != cost::Answer::NotSent => {
                let facts = Facts::new(usage, answer, begun).bytes(sent, received);
                cost_by_table(plan, flow, vendor, &facts)
            }
            _ => Self::cost(plan, flow, usage, answer, (sent, received), begun),
        };
        let known = cost.unknown.is_none() && cost.currency == Currency::USD;
        let tokens = used.map(|used| used.all);
        if let Some(part) = &plan.cache
            && flow.cached.stage != Stage::Off
        {
            let used = (known.then_some(cost.nanos), tokens);
            self.cache_close(part, flow, (outcome, was_sent), used, now);
        }
        let over = Over { answer, was_tried, was_sent, used };
        self.settle_budgets(plan, flow, &cost, over, now);
        self.settle_quotas(plan, flow, over);
        if let Some(side) = flow.side.take()
            && was_tried
            && flow.stood_in.is_none()
        {
            // What the application gets instead, from the cache, the outbox or a rule, is no answer of this side.
            let failed = !was_sent || error.is_some() || status == 0 || status >= 500;
            let latency = head_at.since(flow.sent_at);
            let sample = if failed { Sample::failed() } else { Sample::answered(latency) };
            self.judge_rollout(plan, side, sample, now);
        }
        let ((dollars, unknown), lost) = (in_dollars(cost), flow.lost.take().map(in_dollars));
        let (lost_dollars, lost_unknown) = lost.unwrap_or((0, None));
        Account {
            cost: dollars.saturating_add(lost_dollars),
            unknown: unknown.or(lost_unknown),
            tokens_in: prompt,
            tokens_out: tokens.unwrap_or(0).saturating_sub(prompt),
            saved: flow.cached.saved,
        }
    }

    /// A critical call is over. An adapter may not have asked what follows, where nothing can; and an answer may break
    /// off later.
    #[inline(never)]
    fn critical_over(&self, plan: &Plan, flow: &mut Flow, ending: Ending, id: u64, now: Timestamp) {
        let told = flow.judged.is_some_and(|judged| {
            judged == ending || flow.delivers || Failure::Ended(judged).is_alarming(false)
        });
        if !told {
            self.critical(plan, flow, Failure::Ended(ending), id, now);
        }
    }

    /// Only now is known what a status meant whose meaning stands in the body.
    #[cold]
    #[inline(never)]
    fn read_prefix(
        &self,
        plan: &Plan,
        flow: &mut Flow,
        vendor: u32,
        prefix: &Prefix,
        head_at: Timestamp,
        now: Timestamp,
    ) {
        let answer = Answer::new(prefix.status, &prefix.headers).body_prefix(&prefix.body);
        let dialect = self.catalogue.dialect(vendor);
        // A wait begins when the vendor said it, however late its body was read.
        let reading = dialect.read(&answer, head_at);
        // Its headers were taken when they came; a second look would take them for newer than they are.
        if !reading.cached && (reading.refusal, reading.retry_at) != (prefix.refusal, flow.retry_at) {
            flow.retry_at = reading.retry_at;
            self.take_refusal(plan, flow, dialect, &reading, (prefix.status, prefix.refusal), now);
        }
    }

    /// What a side of a rollout came to.
    #[inline(never)]
    fn judge_rollout(&self, plan: &Plan, (place, side): (usize, Side), sample: Sample, now: Timestamp) {
        if let Some((_, state, _)) = plan.rollouts.iter().find(|(known, ..)| *known == place)
            && let Some(change) = state.after(&plan.rules.rollouts[place].then, side, sample, now)
        {
            let seen = state.canary().map(Canary::evidence).unwrap_or_default();
            self.note_rollout(&plan.rules.rollouts[place].name, change, &seen, now);
        }
    }

    /// What was set aside is spent, or given back.
    fn settle_budgets(&self, plan: &Plan, flow: &mut Flow, cost: &Cost, over: Over, now: Timestamp) {
        let tokens = over.used.map(|used| used.all);
        for (at, BudgetUse { place, partition, state, tally }) in plan.budgets.iter().enumerate() {
            let Some(reservation) = flow.reserved[at].take() else { continue };
            let rule = &plan.rules.budgets[*place];
            let spent = match over.answer {
                // What went out before counts as one.
                cost::Answer::NotSent if over.was_tried && rule.then.limit.unit == budget::Unit::Requests => {
                    Spent { known: 1, all: true }
                }
                cost::Answer::NotSent => Spent::NOTHING,
                // An error that states no use of tokens used none, as it costs nothing.
                cost::Answer::Status(400..) if cost.nanos == 0 => {
                    rule.then.spent(cost.part(), cost.unknown.is_none(), tokens.or(Some(0)))
                }
                _ => rule.then.spent(cost.part(), cost.unknown.is_none(), tokens),
            };
            let settled = state.settle_by(tally, &rule.then, reservation, spent, now);
            self.tell_of_budget(rule, partition, settled, flow, now);
        }
    }

    /// The units are used, as many as it came to, or given back.
    fn settle_quotas(&self, plan: &Plan, flow: &mut Flow, over: Over) {
        for (quota, claim) in plan.quotas.iter().zip(&mut flow.claims) {
            match over.was_sent {
                true => {
                    if let Some(quota::Unit::Tokens) = quota.rule.limit.map(|limit| limit.unit)
                        && let Some(Tokens { all: tokens, .. }) = over.used
                    {
                        quota.state.settle(&quota.rule, claim, tokens);
                    }
                    quota.state.end(claim);
                }
                false => quota.state.undo(claim),
            }
        }
        if plan.account.is_stated() {
            self.settle_stated(plan, flow, over);
        }
    }

    /// The same of the vendor's.
    #[inline(never)]
    fn settle_stated(&self, plan: &Plan, flow: &mut Flow, over: Over) {
        let rule = plan.keep.as_ref().map_or(&self.watch_rule, |(_, rule)| rule);
        for (at, policy) in plan.account.asked(flow.place) {
            let claim = &mut flow.stated[at];
            match over.was_sent {
                true => {
                    if let Some(tokens) = over.used {
                        policy.touch();
                        policy.state.settle(rule, claim, policy.units(tokens));
                    }
                    policy.state.end(claim);
                }
                false => policy.state.undo(claim),
            }
        }
    }

    /// Tells of a mark that a budget has reached.
    pub(super) fn tell_of_budget(
        &self,
        rule: &Rule<budget::Rule>,
        partition: &str,
        settled: budget::Settled,
        flow: &mut Flow,
        now: Timestamp,
    ) {
        if let Some(percent) = settled.warning {
            self.tell_of_mark(rule, partition, percent, flow, now);
        }
    }

    #[cold]
    #[inline(never)]
    fn tell_of_mark(
        &self,
        rule: &Rule<budget::Rule>,
        partition: &str,
        percent: u8,
        flow: &mut Flow,
        now: Timestamp,
    ) {
        self.warn_of_budget(rule, partition, percent, now);
        let rule = Arc::clone(&rule.name);
        flow.events.add(now, What::Budget { rule, says: "has reached a mark that it warns at" });
    }

    pub(super) fn cost(
        plan: &Plan,
        flow: &Flow,
        usage: &Usage,
        answer: cost::Answer,
        (sent, received): (u64, u64),
        begun: Timestamp,
    ) -> Cost {
        if answer == cost::Answer::NotSent {
            return Cost::known(Money::zero(Currency::USD));
        }
        let facts = || Facts::new(usage, answer, begun).bytes(sent, received);
        match &plan.price {
            Priced::Never => Cost::unknown(Unknown::NoPrice, Currency::USD),
            Priced::Each(money) => match answer {
                cost::Answer::None => Cost::unknown(Unknown::NoAnswer, money.currency()),
                cost::Answer::Status(400..) => Cost::known(Money::zero(money.currency())),
                _ => Cost::known(*money),
            },
            Priced::Same(price) => cost_by_price(price, &facts()),
            Priced::ByModel => cost_by_table(plan, flow, &plan.vendor_name, &facts()),
        }
    }
}

/// What the body of an answer said that the call used: what was stated, what that comes to, and the tokens of the prompt.
#[inline(never)]
fn read(
    reader: Box<UsageReader>,
    flow: &Flow,
    outcome: Outcome,
    stated: &mut Option<Usage>,
) -> (Option<Tokens>, u64) {
    let legible = flow.coding.as_ref().is_none_or(|decoder| decoder.whole());
    let complete = outcome == Outcome::Complete;
    let mut usage = reader.finish(complete && legible);
    if complete && usage.unknown == Some(Unknown::Abandoned) {
        usage.unknown = Some(Unknown::Encoded);
    }
    let usage = stated.insert(usage);
    (Tokens::used(usage), usage.prompt_tokens().unwrap_or(0))
}

#[inline(never)]
fn cost_by_price(price: &Price, facts: &Facts<'_>) -> Cost {
    price.settle(facts)
}

#[inline(never)]
fn cost_by_table(plan: &Plan, flow: &Flow, vendor: &str, facts: &Facts<'_>) -> Cost {
    let settled = plan.rules.prices.settle(vendor, &plan.endpoint_name, flow.model.as_str(), facts);
    settled.unwrap_or_else(|| Cost::known(Money::zero(Currency::USD)))
}

/// A cost in nano-dollars, as the ledger keeps it, and why that is not all.
fn in_dollars(cost: Cost) -> (i64, Option<Unknown>) {
    match cost.currency == Currency::USD {
        true => (cost.nanos, cost.unknown),
        false => (0, cost.unknown.or((cost.nanos != 0).then_some(Unknown::OtherCurrency))),
    }
}
