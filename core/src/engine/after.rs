//! What becomes of a call after the wire: the way back through the concepts, in reverse order.

use super::account::{Tokens, stated};
use super::cached::Saved;
use super::call::State;
use super::events::What;
use super::flow::{Flow, Prefix, Until};
use super::plan::{Part, Plan, Priced, Standing};
use super::{Call, Engine};
use crate::budget::{self, Spent};
use crate::call::{ErrorType, Headers, Outcome};
use crate::coding::Decoder;
use crate::cost::{self, Cost, Facts, Unknown, Usage, UsageReader};
use crate::outbox::{self, Failure};
use crate::quota::dialect::{Answer, Dialect, MAX_STATEMENTS, Reading, Refusal as VendorRefusal};
use crate::quota::{self, Claim, Limited};
use crate::resilience::{Ending, FailoverWhen, Judgement, Released, RetryFacts, RetryVerdict, should_retry};
use crate::rollout::Sample;
use crate::units::{Currency, Money, Timestamp};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// What a call cost, as the ledger takes it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Account {
    pub(super) cost: i64,
    pub(super) unknown: bool,
    pub(super) tokens_in: u64,
    pub(super) tokens_out: u64,
    pub(super) saved: Saved,
}

/// Of an answer whose body nobody reads.
pub(super) static NOT_STATED: Usage = Usage::unknown(Unknown::NotStated);
static NO_ANSWER: Usage = Usage::unknown(Unknown::NoAnswer);

impl Engine {
    /// The head of a response: what the vendor says about its quotas, and what the body will tell.
    pub(super) fn read_answer(&self, call: &mut Call, headers: &dyn Headers, now: Timestamp) {
        self.cache_answer(call, headers, now);
        if call.flow.as_ref().is_some_and(|standing| standing.flow.failed_over) {
            // What another host says is not what this one would have.
            call.look.decline();
        }
        call.look.answer(call.status, headers, self.advice.seed());
        let status = call.status;
        if status >= 400
            && let Some(Standing { flow, .. }) = &mut call.flow
        {
            let text = |name| headers.get(name).and_then(|value| std::str::from_utf8(value).ok());
            flow.told = should_retry(text);
        }
        let silent = status < 400 && !call.watches;
        if silent && call.flow.as_ref().is_none_or(|standing| !standing.plan.account.may_speak(call.id)) {
            Self::read_usage(call, headers);
            return;
        }
        let dialect = self.catalogue.dialect(call.found.vendor);
        let reading = dialect.read(&Answer::new(status, headers), now);
        if reading.ignored > 0 {
            self.tallies.ignored_limits.fetch_add(reading.ignored.into(), Ordering::Relaxed);
        }
        let Some(Standing { plan, flow }) = &mut call.flow else {
            if !reading.is_empty() {
                // From now on calls to this vendor are accounted for in detail.
                self.attended.states(call.found.vendor);
            }
            return;
        };
        if dialect.wants_body(status) {
            let wanted = dialect.headers().iter();
            let coding = decoder(headers);
            let headers =
                wanted.filter_map(|name| Some((name.to_string(), headers.get(name)?.to_vec()))).collect();
            let refusal = reading.refusal.filter(|_| !reading.cached);
            flow.prefix = Some(Prefix { status, headers, refusal, body: Vec::new() });
            flow.coding = coding;
        }
        self.take_reading(plan, flow, call.found.vendor, &reading, now);
        Self::read_usage(call, headers);
    }

    /// From here on the body is read for what the call used, where that is what it costs.
    fn read_usage(call: &mut Call, headers: &dyn Headers) {
        let Some(Standing { plan, flow }) = &mut call.flow else { return };
        if !matches!(plan.price, Priced::ByModel) || !(200..300).contains(&call.status) {
            return;
        }
        let text = |name| headers.get(name).and_then(|value| std::str::from_utf8(value).ok());
        let price = plan.rules.prices.find(&plan.vendor_name, &plan.endpoint_name, flow.model.as_str());
        if !price.is_none_or(cost::Price::asks_response) {
            return;
        }
        if flow.coding.is_none() {
            flow.coding = decoder(headers);
        }
        let encoding = text("content-encoding").filter(|_| flow.coding.is_none());
        let mut reader = UsageReader::new(price, text("content-type"), encoding);
        if let Some(price) = price {
            for name in price.headers() {
                if let Some(value) = text(name) {
                    reader.header(price, name, value);
                }
            }
        }
        flow.usage = Some(Box::new(reader));
    }

    fn take_reading(&self, plan: &Plan, flow: &mut Flow, vendor: u32, reading: &Reading, now: Timestamp) {
        flow.retry_at = reading.retry_at;
        if reading.is_empty() || reading.cached {
            return;
        }
        let dialect = self.catalogue.dialect(vendor);
        let rule = plan.keep.as_ref().map_or(&self.watch_rule, |(_, rule)| rule);
        let make = |key, scope| self.stated_state(key, scope, rule);
        let (place, names) = (flow.place, (flow.asked_model(), &*plan.endpoint_name));
        let mut named = [None; MAX_STATEMENTS];
        for (statement, named) in reading.statements().iter().zip(&mut named) {
            let Some(policy) = plan.account.of(statement, dialect, place, names, make) else {
                self.tallies.folded_policies.fetch_add(1, Ordering::Relaxed);
                continue;
            };
            *named = Some(policy);
            let claim = claim_of(plan, flow, &policy.name);
            policy.state.state(rule, &claim, &stated(statement), now);
        }
        if plan.scoped {
            plan.account.names(place.endpoint, named.into_iter().flatten());
        }
        self.take_refusal(plan, flow, dialect, reading, None, now);
    }

    /// The vendor refused. `before`: what it seemed to mean before its body was read, which is counted already.
    fn take_refusal(
        &self,
        plan: &Plan,
        flow: &Flow,
        dialect: &Dialect,
        reading: &Reading,
        before: Option<VendorRefusal>,
        now: Timestamp,
    ) {
        let limited = |refusal| match refusal {
            VendorRefusal::Rate => Limited::Rate,
            VendorRefusal::Exhausted => Limited::Exhausted,
        };
        let Some(how) = reading.refusal.map(limited) else { return };
        let rule = plan.keep.as_ref().map_or(&self.watch_rule, |(_, rule)| rule);
        let make = |key, scope| self.stated_state(key, scope, rule);
        let (place, names) = (flow.place, (flow.asked_model(), &*plan.endpoint_name));
        // The policy that has nothing left is the one that refused; without one, nobody knows which.
        let used_up = reading.statements().iter().find(|statement| statement.remaining == Some(0));
        let mut asked = plan.account.asked(place).map(|(_, policy)| policy);
        let policy = match used_up {
            Some(statement) => plan.account.of(statement, dialect, place, names, make),
            None => asked.next().or_else(|| plan.account.unnamed(make)),
        };
        if let Some(policy) = policy {
            let claim = claim_of(plan, flow, &policy.name);
            match before.map(limited) {
                None => policy.state.limited(rule, &claim, how, reading.retry_at, now),
                Some(seemed) => policy.state.reread(&claim, (seemed, how), reading.retry_at, now),
            }
        }
    }

    /// More of a body: what it cost, or what its status means.
    pub(super) fn read_body(flow: &mut Flow, chunk: &[u8]) {
        flow.cached.push(chunk);
        let Flow { usage, coding, prefix, .. } = flow;
        let mut look = |chunk: &[u8]| {
            if let Some(reader) = usage {
                reader.push(chunk);
            }
            if let Some(prefix) = prefix {
                let chunk = &chunk[..chunk.len().min(prefix.room())];
                prefix.body.extend_from_slice(chunk);
            }
        };
        match coding {
            Some(decoder) => decoder.push(chunk, look),
            None => look(chunk),
        }
    }

    /// An attempt is over. Gives back what it held, and says whether another one follows: then the call stands
    /// as if it had not been sent.
    pub(super) fn after_attempt(&self, call: &mut Call, now: Timestamp) -> bool {
        let ending = match call.state {
            State::Answered => Ending::Status(call.status),
            State::Failed(error) => Ending::Error(error),
            _ => return false,
        };
        let attempts = call.attempts;
        let Some(Standing { plan, flow }) = &mut call.flow else { return false };
        // One that was sent beside another is no retry.
        let attempt = attempts.saturating_sub(flow.hedges);
        self.close_attempt(plan, flow, ending, now);
        flow.reached |= outbox::may_have_been_acted_upon(ending);
        self.critical(plan, flow, Failure::Ended(ending), call.id, now);
        if !Self::another(plan, flow, ending, attempt, now) {
            return false;
        }
        self.lose(plan, flow, Some(ending), now);
        self.again(call);
        true
    }

    /// Another attempt follows: the units of this one are used, and the next one asks for its own.
    pub(super) fn again(&self, call: &mut Call) {
        if let Some(Standing { plan, flow }) = &mut call.flow {
            self.release_claims(plan, flow);
            // What the next attempt is told of is its own.
            (flow.usage, flow.coding, flow.prefix) = (None, None, None);
            (flow.told, flow.retry_at) = (None, None);
        }
        call.look.again();
        call.status = 0;
        call.state = State::Begun;
    }

    fn close_attempt(&self, plan: &Plan, flow: &mut Flow, ending: Ending, now: Timestamp) {
        if let Some(hedge) = &plan.resilience.hedge
            && std::mem::take(&mut flow.timed)
        {
            let sent = flow.pair.map_or(flow.sent_at, |pair| pair.first.1);
            hedge.state.after(&hedge.rule, now.since(sent));
        }
        if flow.pair.take().is_some() {
            // Nobody waited for either of the two.
            self.lose(plan, flow, None, now);
        }
        if let Some(Part { name: _, rule, state }) = &plan.resilience.breaker
            && let Some(pass) = flow.pass.take()
            && let Some(phase) = state.after(rule, pass, Judgement::of(ending), now)
        {
            flow.events.add(now, What::Breaker { phase: phase.as_str() });
        }
        if flow.placed {
            let released = match ending {
                Ending::Status(429 | 503) | Ending::Error(ErrorType::Timeout) => Released::Overloaded,
                Ending::Status(_) => Released::Answered(now.since(flow.sent_at)),
                Ending::Error(_) => Released::Nothing,
            };
            Self::release_place(plan, flow, released, now);
        }
    }

    fn release_place(plan: &Plan, flow: &mut Flow, released: Released, now: Timestamp) {
        if let Some(Part { rule, state, .. }) = &plan.resilience.concurrency
            && std::mem::take(&mut flow.placed)
        {
            state.after(rule, released, now);
            flow.asked_for_place = None;
        }
    }

    fn another(plan: &Plan, flow: &mut Flow, ending: Ending, attempt: u32, now: Timestamp) -> bool {
        let sent = !matches!(ending, Ending::Error(ErrorType::Dns | ErrorType::Connect | ErrorType::Tls));
        let words = || in_words(ending);
        if let Some(Part { rule, state, .. }) = &plan.resilience.retry
            && !flow.failed_over
            && rule.concerns(ending, flow.told)
        {
            let mut facts = RetryFacts::new(flow.method, ending, attempt, now, flow.seed);
            facts.sent = sent;
            facts.replayable = flow.replayable;
            facts.key_honoured = plan.idempotency_header.is_some();
            facts.key_on_wire =
                flow.key_on_wire || (facts.key_honoured && flow.method == "POST" && flow.sdk.is_none());
            facts.sdk_retries = flow.sdk.is_some_and(|sdk| sdk.retries);
            facts.told = flow.told;
            facts.retry_at = flow.retry_at;
            facts.deadline = flow.deadline;
            match rule.retry(&facts, state) {
                RetryVerdict::Retry { at, reason } => {
                    let lasts = at.since(now);
                    flow.events.add(now, What::Retry { after: words(), why: reason.as_str(), lasts });
                    flow.resume = Some(Until::new(now, at));
                    return true;
                }
                RetryVerdict::Stop(crate::resilience::Stop::Final) => {}
                RetryVerdict::Stop(stop) => {
                    flow.events.add(now, What::NoRetry { after: words(), why: stop.as_str() });
                }
            }
        }
        let Some((failover, _)) = &plan.resilience.failover else { return false };
        let when = FailoverWhen::Ended { ending, sent: sent || flow.reached, handed_over: false };
        let goes = !flow.failed_over
            && failover.before(flow.method, when, flow.replayable, flow.deadline, now).is_some();
        if goes {
            flow.failed_over = true;
            flow.events.add(now, What::Failover { why: "the vendor failed" });
        }
        goes
    }

    fn release_claims(&self, plan: &Plan, flow: &mut Flow) {
        for (quota, claim) in plan.quotas.iter().zip(&mut flow.claims) {
            quota.state.end(claim);
            *claim = Claim::new();
        }
        for (at, policy) in plan.account.asked(flow.place) {
            policy.state.end(&mut flow.stated[at]);
            flow.stated[at] = Claim::new();
        }
    }

    /// The call is over: settles all that it holds. Its status is still the vendor's, whatever the application gets.
    pub(super) fn close(&self, call: &mut Call, outcome: Outcome, now: Timestamp) -> Account {
        let vendor = call.found.vendor;
        let (sent, received, begun, status) = (call.bytes_out, call.bytes_in, call.begun, call.status);
        let (was_tried, head_at) = (call.attempts > 0, call.head_at);
        // Between two attempts nothing is out: the one before is accounted for.
        let was_sent = was_tried && call.state != State::Begun;
        let error = match (outcome, call.state) {
            (Outcome::Failed(error), _) | (_, State::Failed(error)) => Some(error),
            _ => None,
        };
        let Some(Standing { plan, flow }) = &mut call.flow else {
            return Account { unknown: true, ..Account::default() };
        };
        let ending = match outcome {
            Outcome::Failed(error) => Some(Ending::Error(error)),
            Outcome::Complete | Outcome::Abandoned => Some(Ending::Status(status)),
            Outcome::Refused(_) | Outcome::Cached | Outcome::Stale | Outcome::Parked => None,
        };
        match ending {
            Some(ending) => self.close_attempt(plan, flow, ending, now),
            // What refused it may come after the place.
            None => Self::release_place(plan, flow, Released::Nothing, now),
        }
        if let Some(prefix) = flow.prefix.take() {
            // Only now is known what a status meant whose meaning stands in the body.
            let answer = Answer::new(prefix.status, &prefix.headers).body_prefix(&prefix.body);
            let dialect = self.catalogue.dialect(vendor);
            // A wait begins when the vendor said it, however late its body was read.
            let reading = dialect.read(&answer, head_at);
            // Its headers were taken when they came; a second look would take them for newer than they are.
            if !reading.cached && (reading.refusal, reading.retry_at) != (prefix.refusal, flow.retry_at) {
                flow.retry_at = reading.retry_at;
                self.take_refusal(plan, flow, dialect, &reading, prefix.refusal, now);
            }
        }
        let read = flow.usage.take().map(|reader| {
            let legible = flow.coding.as_ref().is_none_or(|decoder| decoder.whole());
            let complete = outcome == Outcome::Complete;
            let mut usage = reader.finish(complete && legible);
            if complete && usage.unknown == Some(Unknown::Abandoned) {
                usage.unknown = Some(Unknown::Encoded);
            }
            usage
        });
        let usage = read.as_ref().unwrap_or(if was_sent { &NOT_STATED } else { &NO_ANSWER });
        let answer = match (was_sent, status) {
            (false, _) => cost::Answer::NotSent,
            (true, 0) if matches!(error, Some(ErrorType::Dns | ErrorType::Connect | ErrorType::Tls)) => {
                cost::Answer::NotSent
            }
            (true, 0) => cost::Answer::None,
            (true, status) => cost::Answer::Status(status),
        };
        let cost = Self::cost(plan, flow, usage, answer, (sent, received), begun);
        let known = cost.unknown.is_none() && cost.currency == Currency::USD;
        let used = read.as_ref().and_then(Tokens::used);
        let tokens = used.map(|used| used.all);
        self.cache_close(plan, flow, outcome, (known.then_some(cost.nanos), tokens), now);
        let prompt = read.as_ref().and_then(Usage::prompt_tokens).unwrap_or(0);
        for (at, (place, state)) in plan.budgets.iter().enumerate() {
            let Some(reservation) = flow.reserved[at].take() else { continue };
            let rule = &plan.rules.budgets[*place];
            let spent = match answer {
                // What went out before counts as one.
                cost::Answer::NotSent if was_tried && rule.then.limit.unit == budget::Unit::Requests => {
                    Spent { known: 1, all: true }
                }
                cost::Answer::NotSent => Spent::NOTHING,
                // An error that states no use of tokens used none, as it costs nothing.
                cost::Answer::Status(400..) if cost.nanos == 0 => {
                    rule.then.spent(cost.part(), cost.unknown.is_none(), tokens.or(Some(0)))
                }
                _ => rule.then.spent(cost.part(), cost.unknown.is_none(), tokens),
            };
            let settled = state.settle(&rule.then, reservation, spent, now);
            self.tell_of_budget(&rule.name, settled, flow, now);
        }
        for (quota, claim) in plan.quotas.iter().zip(&mut flow.claims) {
            match was_sent {
                true => {
                    if let Some(quota::Unit::Tokens) = quota.rule.limit.map(|limit| limit.unit)
                        && let Some(tokens) = tokens
                    {
                        quota.state.settle(&quota.rule, claim, tokens);
                    }
                    quota.state.end(claim);
                }
                false => quota.state.undo(claim),
            }
        }
        let rule = plan.keep.as_ref().map_or(&self.watch_rule, |(_, rule)| rule);
        for (at, policy) in plan.account.asked(flow.place) {
            let claim = &mut flow.stated[at];
            match was_sent {
                true => {
                    if let Some(tokens) = used {
                        policy.state.settle(rule, claim, policy.units(tokens));
                    }
                    policy.state.end(claim);
                }
                false => policy.state.undo(claim),
            }
        }
        if let Some((place, side)) = flow.side.take()
            && was_tried
            && let Some((_, state, _)) = plan.rollouts.iter().find(|(known, ..)| *known == place)
        {
            // What the application gets instead, from the cache, the outbox or a rule, is no answer of this side.
            let failed = !was_sent || error.is_some() || status == 0 || status >= 500;
            let latency = call.head_at.since(flow.sent_at);
            let sample = if failed { Sample::failed() } else { Sample::answered(latency) };
            if let Some(change) = state.after(&plan.rules.rollouts[place].then, side, sample, now) {
                self.note_rollout(&plan.rules.rollouts[place].name, change, now);
            }
        }
        let ((dollars, unknown), lost) = (in_dollars(cost), flow.lost.take().map(in_dollars));
        let (lost_dollars, lost_unknown) = lost.unwrap_or((0, false));
        Account {
            cost: dollars.saturating_add(lost_dollars),
            unknown: unknown || lost_unknown,
            tokens_in: prompt,
            tokens_out: tokens.unwrap_or(0).saturating_sub(prompt),
            saved: flow.cached.saved,
        }
    }

    /// Tells of a mark that a budget has reached.
    pub(super) fn tell_of_budget(
        &self,
        name: &Arc<str>,
        settled: budget::Settled,
        flow: &mut Flow,
        now: Timestamp,
    ) {
        if let Some(percent) = settled.warning {
            self.warn_of_budget(name, percent, now);
            let rule = Arc::clone(name);
            flow.events.add(now, What::Budget { rule, says: "has reached a mark that it warns at" });
        }
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
        let facts = Facts::new(usage, answer, begun).bytes(sent, received);
        let model = flow.model.as_str();
        match &plan.price {
            Priced::Never => Cost::unknown(Unknown::NoPrice, Currency::USD),
            Priced::Each(money) => match answer {
                cost::Answer::None => Cost::unknown(Unknown::NoAnswer, money.currency()),
                cost::Answer::Status(400..) => Cost::known(Money::zero(money.currency())),
                _ => Cost::known(*money),
            },
            Priced::Same(price) => price.settle(&facts),
            Priced::ByModel => plan
                .rules
                .prices
                .settle(&plan.vendor_name, &plan.endpoint_name, model, &facts)
                .unwrap_or_else(|| Cost::known(Money::zero(Currency::USD))),
        }
    }
}

/// A cost in nano-dollars, as the ledger keeps it, and whether that is not all.
fn in_dollars(cost: Cost) -> (i64, bool) {
    match cost.currency == Currency::USD {
        true => (cost.nanos, cost.unknown.is_some()),
        false => (0, cost.unknown.is_some() || cost.nanos != 0),
    }
}

/// What a body passes through that is looked at; `None` where it comes as it is, or nobody here can decode it.
fn decoder(headers: &dyn Headers) -> Option<Box<Decoder>> {
    let coding = std::str::from_utf8(headers.get("content-encoding")?).ok()?;
    Decoder::of(coding).map(Box::new)
}

/// How an attempt ended, for people.
pub(super) fn in_words(ending: Ending) -> String {
    match ending {
        Ending::Status(status) => format!("answered {status}"),
        Ending::Error(error) => format!("failed ({})", error.as_str()),
    }
}

/// The claim that an attempt holds of the quota of this name.
fn claim_of(plan: &Plan, flow: &Flow, name: &Arc<str>) -> Claim {
    let mut asked = plan.account.asked(flow.place);
    let place = asked.find(|(_, policy)| Arc::ptr_eq(&policy.name, name)).map(|(place, _)| place);
    place.map_or_else(Claim::new, |place| flow.stated[place])
}
