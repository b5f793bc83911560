//! An answer on its way in: what its head says about the vendor's quotas, and what its body will tell.

use super::account::{Stated, stated};
use super::decide;
use super::flow::{Flow, Prefix};
use super::plan::{Plan, Priced, Standing};
use super::{Call, Engine};
use crate::call::{Headers, Tap};
use crate::catalogue::name_of_unknown;
use crate::coding::Decoder;
use crate::cost::{self, UsageReader};
use crate::quota::dialect::{Answer, Dialect, MAX_STATEMENTS, Reading, Refusal as VendorRefusal};
use crate::quota::{Ask, Claim, Limited};
use crate::resilience::should_retry;
use crate::units::Timestamp;
use std::sync::Arc;
use std::sync::atomic::Ordering;

impl Engine {
    /// The head of a response: what the vendor says about its quotas, and what the body will tell.
    pub(super) fn read_answer(&self, call: &mut Call, headers: &dyn Headers, now: Timestamp) {
        if call.tap == Tap::Kernel {
            return self.overhear(call, headers, now);
        }
        self.cache_answer(call, headers, now);
        if let Some(look) = &mut call.look {
            if call.flow.as_ref().is_some_and(|standing| standing.flow.failed_over) {
                // What another host says is not what this one would have.
                look.decline();
            }
            look.answer(call.status, headers, self.advice.seed());
        }
        let status = call.status;
        if status >= 400
            && let Some(Standing { flow, .. }) = &mut call.flow
        {
            flow.told = told(headers);
        }
        let silent = status < 400 && !call.watches;
        match silent && call.flow.as_ref().is_none_or(|standing| !standing.plan.account.may_speak(call.id)) {
            true => self.read_usage(call, headers),
            false => self.read_statements(call, headers, now),
        }
    }

    /// What the vendor says about its quotas.
    #[inline(never)]
    fn read_statements(&self, call: &mut Call, headers: &dyn Headers, now: Timestamp) {
        let status = call.status;
        if let Some(Standing { plan, flow }) = &mut call.flow
            && self.other_vendor(plan, flow).is_some()
        {
            // What another vendor says about its quotas is nothing about those of this one. When to come back it may say.
            let reading = Dialect::generic().read(&Answer::new(status, headers), now);
            flow.retry_at = reading.retry_at;
            self.read_usage(call, headers);
            return;
        }
        let dialect = self.catalogue.dialect(call.found.vendor);
        let reading = dialect.read(&Answer::new(status, headers), now);
        if reading.ignored > 0 {
            self.tallies.ignored_limits.fetch_add(reading.ignored.into(), Ordering::Relaxed);
        }
        match reading.is_empty() {
            true => self.attended.states_nothing(call.found.vendor),
            // From now on calls to this vendor are accounted for in detail.
            false => self.attended.states(call.found.vendor),
        }
        let Some(Standing { plan, flow }) = &mut call.flow else { return };
        if dialect.wants_body(status) {
            let wanted = dialect.headers().iter();
            let coding = decoder(headers);
            let headers =
                wanted.filter_map(|name| Some((name.to_string(), headers.get(name)?.to_vec()))).collect();
            let refusal = reading.refusal.filter(|_| !reading.cached);
            flow.prefix = Some(Prefix { status, headers, refusal, body: Vec::new() });
            flow.coding = coding;
        }
        self.take_reading(plan, flow, (call.found.vendor, status), &reading, now);
        self.read_usage(call, headers);
    }

    /// Whose answer it is where a backup or a variant took the call to the host of another vendor.
    pub(super) fn other_vendor<'p>(&'p self, plan: &'p Plan, flow: &Flow) -> Option<&'p str> {
        match decide::is_changed(flow) {
            true => self.vendor_of_changed(plan, flow),
            false => None,
        }
    }

    #[inline(never)]
    fn vendor_of_changed<'p>(&'p self, plan: &'p Plan, flow: &Flow) -> Option<&'p str> {
        let host = decide::changes_of(plan, flow)?.host.as_deref()?;
        let host = host.rsplit_once(':').map_or(host, |(name, _)| name);
        let name =
            self.catalogue.vendor_of(host).map_or_else(|| name_of_unknown(host), |vendor| &vendor.name);
        (*name != *plan.vendor_name).then_some(name)
    }

    /// From here on the body is read for what the call used, where that is what it costs, or what a rule counts.
    fn read_usage(&self, call: &mut Call, headers: &dyn Headers) {
        let Some(Standing { plan, flow }) = &mut call.flow else { return };
        let other = self.other_vendor(plan, flow);
        let counts = matches!(plan.price, Priced::ByModel) || plan.counts_tokens || other.is_some();
        if counts && (200..300).contains(&call.status) {
            Self::begin_usage(plan, flow, other, headers);
        }
    }

    #[inline(never)]
    fn begin_usage(plan: &Plan, flow: &mut Flow, other: Option<&str>, headers: &dyn Headers) {
        let text = |name| headers.get(name).and_then(|value| std::str::from_utf8(value).ok());
        let price = plan.rules.prices.find(
            other.unwrap_or(&plan.vendor_name),
            &plan.endpoint_name,
            flow.model.as_str(),
        );
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

    fn take_reading(
        &self,
        plan: &Plan,
        flow: &mut Flow,
        (vendor, status): (u32, u16),
        reading: &Reading,
        now: Timestamp,
    ) {
        flow.retry_at = reading.retry_at;
        if reading.is_empty() || reading.cached {
            return;
        }
        let dialect = self.catalogue.dialect(vendor);
        let rule = plan.keep.as_ref().map_or(&self.watch_rule, |(_, rule)| rule);
        let make = |key, scope| self.stated_state(key, scope, rule);
        let place = flow.place;
        let mut named = [None; MAX_STATEMENTS];
        for (statement, named) in reading.statements().iter().zip(&mut named) {
            let names = (flow.asked_model(), &*plan.endpoint_name);
            let Some(policy) = plan.account.of(statement, dialect, place, names, make) else {
                self.tallies.folded_policies.fetch_add(1, Ordering::Relaxed);
                continue;
            };
            *named = Some(policy);
            policy.touch();
            let claim = self.counted(plan, flow, policy, reading, now);
            policy.state.state(rule, &claim, &stated(statement), now);
        }
        if plan.scoped {
            plan.account.names(place.endpoint, named.into_iter().flatten());
        }
        self.take_refusal(plan, flow, dialect, reading, (status, None), now);
    }

    /// The claim that an attempt holds of a quota. One that went out before anybody knew of the quota is counted when its
    /// answer states it: the vendor counts it, too.
    fn counted(
        &self,
        plan: &Plan,
        flow: &mut Flow,
        policy: &Stated,
        reading: &Reading,
        now: Timestamp,
    ) -> Claim {
        let mut asked = plan.account.asked(flow.place);
        let Some((at, _)) = asked.find(|(_, known)| Arc::ptr_eq(&known.name, &policy.name)) else {
            let mut claim = Claim::new();
            // Only this answer tells that it is about the endpoint.
            if policy.is_named() && reading.refusal.is_none() {
                policy.state.watch(&self.watch_rule, &mut claim, &Ask::one(), &plan.user, now);
            }
            return claim;
        };
        // Who was refused may not have been counted by the vendor, either.
        if !flow.stated[at].is_held() && reading.refusal.is_none() {
            flow.claimed.1 = flow.claimed.1.max(at + 1);
            let ask = Ask::one().units(policy.units(flow.tokens_ahead(plan)));
            policy.state.watch(&self.watch_rule, &mut flow.stated[at], &ask, &plan.user, now);
        }
        flow.stated[at]
    }

    /// The vendor refused, with this status. `before`: what it seemed to mean before its body was read, which is counted already.
    pub(super) fn take_refusal(
        &self,
        plan: &Plan,
        flow: &Flow,
        dialect: &Dialect,
        reading: &Reading,
        (status, before): (u16, Option<VendorRefusal>),
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
            policy.touch();
            let claim = claim_of(plan, flow, &policy.name);
            // Of what only the vendor counts nobody can say what is left, but that nothing is, until its reset.
            let reset = || used_up.filter(|_| !policy.is_countable())?.resets_at;
            let retry_at = reading.retry_at.or_else(reset);
            match before.map(limited) {
                None => policy.state.limited(rule, &claim, (status, how), retry_at, now),
                Some(seemed) => policy.state.reread(&claim, status, (seemed, how), retry_at, now),
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
}

/// What the vendor says about another attempt.
#[inline(never)]
fn told(headers: &dyn Headers) -> Option<bool> {
    should_retry(|name| headers.get(name).and_then(|value| std::str::from_utf8(value).ok()))
}

/// What a body passes through that is looked at; `None` where it comes as it is, or nobody here can decode it.
fn decoder(headers: &dyn Headers) -> Option<Box<Decoder>> {
    let coding = std::str::from_utf8(headers.get("content-encoding")?).ok()?;
    Decoder::of(coding).map(Box::new)
}

/// The claim that an attempt holds of the quota of this name.
fn claim_of(plan: &Plan, flow: &Flow, name: &Arc<str>) -> Claim {
    let mut asked = plan.account.asked(flow.place);
    let place = asked.find(|(_, policy)| Arc::ptr_eq(&policy.name, name)).map(|(place, _)| place);
    place.map_or_else(Claim::new, |place| flow.stated[place])
}
