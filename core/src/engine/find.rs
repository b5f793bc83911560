//! What a call is: whom it goes to, what it asks there, on whose behalf, and which rules are about it. Found once, when
//! it begins.

use super::Engine;
use super::attended::Costs;
use super::plan::{self, Plan};
use super::plans::{PlanKey, Plans};
use super::request::Request;
use crate::attribution::{TagText, cut};
use crate::call::{Head, Tap, Target};
use crate::catalogue::{UNREADABLE, name_of_unknown, normalise};
use crate::inspect;
use crate::ledger::{Found, Shard};
use crate::matcher::{Fields, Subject};
use crate::units::{Timestamp, stable_hash};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

impl Engine {
    /// Vendor and endpoint of a request; `key` stands for it.
    pub(super) fn find(&self, shard: &mut Shard, key: u64, host: &str, head: &Head<'_>) -> (u32, u32) {
        let generation = self.learned.load(Ordering::Acquire);
        if shard.generation != generation {
            // Something was merged since: what was found before may have another template now.
            shard.forget_found();
            shard.generation = generation;
        }
        let Head { method, target: Target { path, .. }, .. } = *head;
        if let Some((vendor, endpoint)) = shard.requests.get(key, method, host, path) {
            shard.keep_vendor(vendor, &self.tallies);
            shard.keep_endpoint(endpoint, &self.tallies);
            return (vendor, endpoint);
        }
        self.find_anew(shard, key, host, head)
    }

    /// The long way.
    #[inline(never)]
    fn find_anew(&self, shard: &mut Shard, key: u64, host: &str, head: &Head<'_>) -> (u32, u32) {
        let Head { method, target: Target { path, .. }, .. } = *head;
        let vendor = self.find_vendor(shard, host);
        let endpoint = self.find_endpoint(shard, vendor, head);
        shard.requests.note(key, (method, host, path), (vendor, endpoint));
        (vendor, endpoint)
    }

    fn find_vendor(&self, shard: &mut Shard, host: &str) -> u32 {
        if host.is_empty() {
            self.tallies.unreadable_targets.fetch_add(1, Ordering::Relaxed);
            return shard.learned_vendor(UNREADABLE, &self.tallies);
        }
        if let Some(vendor) = shard.hosts.get(0, host) {
            shard.keep_vendor(vendor, &self.tallies);
            return vendor;
        }
        let vendor = match self.catalogue.find(host) {
            Some(vendor) => Shard::known_vendor(vendor),
            None => shard.learned_vendor(name_of_unknown(host), &self.tallies),
        };
        shard.hosts.insert(0, host, vendor);
        vendor
    }

    fn find_endpoint(&self, shard: &mut Shard, vendor: u32, head: &Head<'_>) -> u32 {
        let Target { path, .. } = head.target;
        if vendor < self.catalogue.vendor_count()
            && let Some(known) =
                self.catalogue.find_endpoint(crate::catalogue::VendorIndex(vendor), head.method, path)
        {
            return known;
        }
        let normalised = normalise(head.method, path);
        if let Some(seen) = shard.paths.get(vendor, normalised.as_str()) {
            shard.keep_endpoint(seen, &self.tallies);
            return seen;
        }
        let template = {
            let mut learner = self.learner.lock().unwrap_or_else(PoisonError::into_inner);
            let template = learner.template(shard.vendor_name(&self.catalogue, vendor), normalised.as_str());
            self.tallies.relearned.store(learner.resets(), Ordering::Relaxed);
            self.learned.store(learner.generation(), Ordering::Release);
            template
        };
        let endpoint = shard.learned_endpoint(vendor, template.as_str(), &self.tallies);
        shard.paths.insert(vendor, normalised.as_str(), endpoint);
        endpoint
    }

    pub(super) fn find_customer(&self, shard: &mut Shard, head: &Head<'_>) -> (u32, u32) {
        let name = head.customer.map(cut);
        if name.map(str::len) != head.customer.map(str::len) {
            self.tallies.cut_names.fetch_add(1, Ordering::Relaxed);
        }
        let customer = shard.customer(name, &self.tallies);
        match head.tags.is_empty() {
            true => (customer, Shard::no_tags()),
            false => (customer, self.find_tags(shard, head)),
        }
    }

    #[inline(never)]
    fn find_tags(&self, shard: &mut Shard, head: &Head<'_>) -> u32 {
        let text = TagText::new(head.tags);
        self.tallies.cut_names.fetch_add(u64::from(text.cut), Ordering::Relaxed);
        shard.tag_set(text.as_str(), &self.tallies)
    }

    /// Whether rules may have something to say about calls to this vendor, it states its quotas, or they cost.
    pub(super) fn takes_part(&self, shard: &Shard, vendor: u32, tap: Tap) -> bool {
        if tap != Tap::Library {
            return false;
        }
        let (states, costs) = self.attended.of(vendor);
        self.decides()
            || states
            || match costs {
                Costs::No => false,
                Costs::Yes => true,
                Costs::Perhaps => {
                    let rules = self.rules.read().unwrap_or_else(PoisonError::into_inner);
                    rules.prices.has(shard.vendor_name(&self.catalogue, vendor))
                }
            }
    }

    #[allow(clippy::too_many_arguments)] // All that a call is known by.
    pub(super) fn plan_of(
        &self,
        (shard, plans): (&mut Shard, &mut Plans),
        number: usize,
        found: Found,
        host: &str,
        head: &Head<'_>,
        request: &Request<'_>,
        now: Timestamp,
    ) -> Arc<Plan> {
        let generation = self.generation.load(Ordering::Acquire);
        let by = self.fingerprinter.get().unwrap_or(&self.own_fingerprinter);
        let secret = plans.fingerprints.of_value(by, request.credential());
        let depends = plans.depends();
        let extra = plan::extra(depends, head.method, host, head.body);
        // Customers that the ledger adds up are still each their own to the rules: none pays for the others.
        let (folded, extra) = match Shard::is_folded(found.customer) {
            true => folded(head, extra),
            false => (None, extra),
        };
        let key = PlanKey { found, caller: head.caller.0, secret, extra };
        plans.get(key, generation, shard, |shard| {
            self.make_plan(shard, (number, secret), found, folded, (host, head), now)
        })
    }

    /// The plan of a call, where none was kept.
    #[cold]
    #[inline(never)]
    fn make_plan(
        &self,
        shard: &Shard,
        (lane, secret): (usize, u64),
        found: Found,
        folded: Option<&str>,
        (host, head): (&str, &Head<'_>),
        now: Timestamp,
    ) -> Plan {
        let rules = Arc::clone(&self.rules.read().unwrap_or_else(PoisonError::into_inner));
        let (vendor, endpoint, customer, tags) = shard.names(&self.catalogue, found);
        let customer = folded.unwrap_or(customer);
        let caller = self.caller(head.caller).unwrap_or_default();
        let fingerprint = inspect::in_words(secret);
        let origins = self.origins.get().filter(|_| rules.depends.contains(Fields::ORIGIN));
        let mut subject = Subject {
            vendor,
            vendor_tags: self.catalogue.tags(found.vendor),
            endpoint,
            method: head.method,
            host,
            customer,
            tags,
            caller: &caller,
            credential: &fingerprint,
            bytes: head.body,
            country: self.catalogue.country(found.vendor),
            origin: origins.map_or("", |origins| origins.of(head.headers)),
            ..Subject::default()
        };
        let data = inspect::carried(&rules.data, &subject);
        subject.data = &data;
        self.plan(&rules, &subject, self.catalogue.dialect(found.vendor), secret, lane, now)
    }
}

/// The customer by its name, and what tells its plans from others'.
#[inline(never)]
fn folded<'h>(head: &Head<'h>, extra: u64) -> (Option<&'h str>, u64) {
    let name = head.customer.map(cut);
    (name, name.map_or(extra, |name| stable_hash(extra, name.as_bytes())))
}
