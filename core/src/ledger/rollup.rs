//! What leaves the ledger when it is drained.

use super::{Sighting, Sketch};
use crate::advise::{CredentialUse, Observed};
use crate::attribution::CallerId;
use crate::call::{Outcome, Tap};
use crate::cost::Unknown;
use crate::policy::Verdict;
use crate::quota::{NamedIncident, NamedStanding};
use crate::units::Timestamp;
use std::sync::Arc;
use std::time::Duration;

/// Sums over the calls of a series. All exact; durations saturate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sums {
    /// Calls.
    pub calls: u64,
    /// Attempts: exchanges on the wire.
    pub attempts: u64,
    /// Bytes of request bodies.
    pub bytes_out: u64,
    /// Bytes of response bodies, as the tap saw them (before decoding where it can).
    pub bytes_in: u64,
    /// From begin to the last byte.
    pub duration: Duration,
    /// From begin to the head of the response, over the calls that had one.
    pub ttfb: Duration,
    /// From the head of the response to its last byte.
    pub transfer: Duration,
    /// Calls that had a head of a response.
    pub answered: u64,
    /// Calls that made a connection of which something is known.
    pub connections: u64,
    /// Resolving names, over `dns_known` of the connections.
    pub dns: Duration,
    /// TCP handshakes, over `connect_known` of the connections.
    pub connect: Duration,
    /// TLS handshakes, over `tls_known` of the connections.
    pub tls: Duration,
    /// Connections of which it is known how long resolving the name took.
    pub dns_known: u64,
    /// The same of the TCP handshake.
    pub connect_known: u64,
    /// The same of the TLS handshake.
    pub tls_known: u64,
    /// Waiting before and between attempts, because a rule said so.
    pub waited: Duration,
    /// What the calls cost, as far as known, in nano-units of the configured currency (10⁻⁹ USD).
    pub cost: i64,
    /// Calls whose cost is not known, or not wholly.
    pub cost_unknown: u64,
    /// Tokens that went in: prompts, cached ones included.
    pub tokens_in: u64,
    /// Tokens that came out, reasoning included.
    pub tokens_out: u64,
    /// Bytes of response bodies that came from the cache, and not over the wire.
    pub saved_bytes: u64,
    /// What the answers cost that the cache had, as far as known, in nano-units: what calls would have cost.
    pub saved_cost: i64,
    /// Exchanges that did not have to be made, because the cache had the answer: requests of a quota not spent.
    pub saved_requests: u64,
    /// What the answers used that the cache had, in tokens of a quota not spent.
    pub saved_tokens: u64,
}

impl Sums {
    /// Adds another account to this one; what does not fit stays at the most.
    pub fn add(&mut self, other: &Self) {
        self.calls = self.calls.saturating_add(other.calls);
        self.attempts = self.attempts.saturating_add(other.attempts);
        self.bytes_out = self.bytes_out.saturating_add(other.bytes_out);
        self.bytes_in = self.bytes_in.saturating_add(other.bytes_in);
        self.answered = self.answered.saturating_add(other.answered);
        self.connections = self.connections.saturating_add(other.connections);
        self.dns_known = self.dns_known.saturating_add(other.dns_known);
        self.connect_known = self.connect_known.saturating_add(other.connect_known);
        self.tls_known = self.tls_known.saturating_add(other.tls_known);
        self.cost = self.cost.saturating_add(other.cost);
        self.cost_unknown = self.cost_unknown.saturating_add(other.cost_unknown);
        self.tokens_in = self.tokens_in.saturating_add(other.tokens_in);
        self.tokens_out = self.tokens_out.saturating_add(other.tokens_out);
        self.saved_bytes = self.saved_bytes.saturating_add(other.saved_bytes);
        self.saved_cost = self.saved_cost.saturating_add(other.saved_cost);
        self.saved_requests = self.saved_requests.saturating_add(other.saved_requests);
        self.saved_tokens = self.saved_tokens.saturating_add(other.saved_tokens);
        for (mine, more) in [
            (&mut self.waited, other.waited),
            (&mut self.duration, other.duration),
            (&mut self.ttfb, other.ttfb),
            (&mut self.transfer, other.transfer),
            (&mut self.dns, other.dns),
            (&mut self.connect, other.connect),
            (&mut self.tls, other.tls),
        ] {
            *mine = mine.saturating_add(more);
        }
    }
}

/// The account of one series over a part of one minute.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Rollup {
    /// Minutes since the Unix epoch, by the calls' end.
    pub minute: u64,
    /// The vendor's name.
    pub vendor: Arc<str>,
    /// Method and URL template.
    pub endpoint: Arc<str>,
    /// The customer; `unknown` where nobody said, `other` where there were too many.
    pub customer: Arc<str>,
    /// The tags in their one written form, `key=value,key=value`; empty for none.
    pub tags: Arc<str>,
    /// The program that called.
    pub caller: CallerId,
    /// Where the calls were seen.
    pub tap: Tap,
    /// The HTTP status; 0 where no response came.
    pub status: u16,
    /// How the calls came out.
    pub outcome: Outcome,
    /// The sums.
    pub sums: Sums,
    /// From begin to the last byte, as a distribution.
    pub latency: Sketch,
}

/// A single call that stands for others: the slowest of a series since the last drain, or a failed one.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Exemplar {
    /// The call's id: unique among the calls of an engine for all practical purposes.
    pub id: u64,
    /// When it began.
    pub begun: Timestamp,
    /// How long it took to its last byte.
    pub duration: Duration,
    /// How long to the head of the response; `None` where there was none.
    pub ttfb: Option<Duration>,
    /// Bytes of the request's body.
    pub bytes_out: u64,
    /// Bytes of the response's body.
    pub bytes_in: u64,
    /// Exchanges on the wire.
    pub attempts: u32,
    /// Waited before and between attempts, because a rule said so.
    pub waited: Duration,
    /// What it cost as far as known, in nano-units; `None` where nothing of it is.
    pub cost: Option<i64>,
    /// Why that is not all; `None` where it is.
    pub cost_unknown: Option<Unknown>,
    /// What happened to it besides being sent and answered, a line for each event; empty where nothing did.
    pub events: String,
    /// The row of the same batch that the call belongs to: that of its series.
    pub row: usize,
}

/// How one budget stands, for one of what it is kept apart by.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Spending {
    /// The rule's account: its name, the unit and the period ([`crate::budget::Rule::account`]).
    pub budget: Arc<str>,
    /// What it is kept apart by, as `customer=acme`; empty for one budget for all.
    pub partition: Arc<str>,
    /// The period's number.
    pub period: u64,
    /// What this process settled in the period and did not tell yet, in the budget's unit (nano-units for money).
    pub spent: u64,
    /// What is known to be spent in all.
    pub used: u64,
    /// The limit.
    pub limit: u64,
}

/// What this process used of a price that falls with the month's volume, and did not tell yet.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Used {
    /// What the price holds for, after [`crate::cost::VOLUME`].
    pub price: Arc<str>,
    /// The month's number.
    pub month: u64,
    /// Calls, tokens or bytes, as the price counts.
    pub amount: u64,
}

/// What all processes together have spent of a budget in a period, or used of a price in a month.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spent {
    pub(crate) budget: String,
    pub(crate) partition: String,
    pub(crate) period: u64,
    pub(crate) total: u64,
}

impl Spent {
    /// The sum of all [`Spending::spent`] of the same budget, partition and period; or of all [`Used::amount`] of the
    /// same price and month, without a partition.
    #[must_use]
    pub const fn new(budget: String, partition: String, period: u64, total: u64) -> Self {
        Self { budget, partition, period, total }
    }
}

/// Something that happened to a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Notice {
    /// When.
    pub at: Timestamp,
    /// The concept: `budget`, `rollout`, `alarm`.
    pub concept: &'static str,
    /// The rule's name.
    pub rule: Arc<str>,
    /// What, as a sentence without its subject: `reached 80% of its limit of 50.00 USD / month`. Of an alarm the call
    /// that failed.
    pub what: String,
    /// Whether whoever runs the program should hear of it as it happens.
    pub urgent: bool,
    /// From then on the same words about the same rule, whichever process says them, are the same thing; `None` where
    /// each notice is a thing of its own.
    pub same_since: Option<Timestamp>,
}

/// How often a rule of the policy had something to tell of calls that it let pass.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Warned {
    /// Minutes since the Unix epoch, by the drain.
    pub minute: u64,
    /// The vendor's name.
    pub vendor: Arc<str>,
    /// Method and URL template.
    pub endpoint: Arc<str>,
    /// The rule's name.
    pub rule: Arc<str>,
    /// [`Verdict::Warn`], or what the rule would have done, were it not in report mode.
    pub verdict: Verdict,
    /// The calls since the last drain.
    pub calls: u64,
}

/// All that happened since the last drain.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Batch {
    /// The rollups.
    pub rows: Vec<Rollup>,
    /// Single calls worth showing.
    pub exemplars: Vec<Exemplar>,
    /// What became known of broken quotas since the last drain.
    pub incidents: Vec<NamedIncident>,
    /// How the vendors' quotas stand that changed since the last drain.
    pub quotas: Vec<NamedStanding>,
    /// How budgets stand.
    pub budgets: Vec<Spending>,
    /// What was used of prices that fall with the month's volume.
    pub volumes: Vec<Used>,
    /// Things that happened to rules rather than to calls: a canary that was promoted, a budget that warns.
    pub notices: Vec<Notice>,
    /// Of which calls rules of the policy warned, and which they would have refused or throttled.
    pub warned: Vec<Warned>,
    /// What was seen of endpoints, for advice.
    pub advice: Vec<Observed>,
    /// How often credentials were used.
    pub credentials: Vec<CredentialUse>,
    /// Each call, for the sidecar to match; empty unless
    /// [`Engine::record_sightings`](crate::Engine::record_sightings) asked for them.
    pub sightings: Vec<Sighting>,
}
