//! The numbers that every table of calls shows.

use super::findings::words;
use super::row::Row;
use farcall::ledger::{Sketch, Sums};
use farcall::{Currency, Money};
use serde::Serialize;
use std::time::Duration;

/// Counts, latencies, bytes, tokens and cost over the calls of a row. Latencies are within 2%; everything else is exact.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Numbers {
    /// Calls.
    pub calls: u64,
    /// Calls that failed, or were answered with 4xx or 5xx.
    pub errors: u64,
    /// Errors as a share of the calls, 0 to 1.
    pub error_rate: f64,
    /// Calls that were not made, because a rule said so; part of `calls`, and no errors.
    pub refused: u64,
    /// Calls whose last attempt an injected fault failed or answered in the vendor's place; part of `calls`, neither errors
    /// nor refused.
    pub faulted: u64,
    /// Calls that the cache answered; part of `calls`.
    pub cached: u64,
    /// Those of them that got a stale answer, because the vendor failed or was not to be asked.
    pub stale: u64,
    /// Calls that failed, or were not to be made, and that the outbox took for delivery; part of `calls` and `errors`.
    pub parked: u64,
    /// The median from begin to the last byte, in milliseconds, over the calls that were neither refused nor
    /// answered from the cache; null without any.
    pub p50_ms: Option<f64>,
    /// The 99th percentile of the same.
    pub p99_ms: Option<f64>,
    /// Bytes of request bodies.
    pub bytes_out: u64,
    /// Bytes of response bodies.
    pub bytes_in: u64,
    /// Exchanges on the wire; those that a fault took the place of are none.
    pub attempts: u64,
    /// What calls waited before and between attempts because a rule said so, in milliseconds.
    pub waited_ms: f64,
    /// What the calls cost as far as known, in units of `currency`, as an exact decimal number; null where the
    /// cost of none is known.
    pub cost: Option<String>,
    /// The currency of `cost`.
    pub currency: String,
    /// Calls whose cost is not known, or not wholly: where there are any, the cost is at least `cost`.
    pub cost_unknown_calls: u64,
    /// Bytes of response bodies that came from the cache.
    pub saved_bytes: u64,
    /// What the answers cost that the cache had, as far as known, as an exact decimal number in `currency`; null
    /// where nothing is known of it.
    pub saved_cost: Option<String>,
    /// Requests of the vendor's quota that were not spent, because the cache had the answer.
    pub saved_requests: u64,
    /// Tokens of it that were not spent, as far as known.
    pub saved_tokens: u64,
    /// Tokens that went in.
    pub tokens_in: u64,
    /// Tokens that came out.
    pub tokens_out: u64,
    /// Calls that a library counted.
    pub library_calls: u64,
    /// Calls that only the kernel saw.
    pub kernel_calls: u64,
    /// Calls that a library counted and the kernel saw too; part of `library_calls`.
    pub confirmed_calls: u64,
    /// `library`, `kernel`, or `library+kernel` where both taps saw some.
    pub tap: &'static str,
}

/// Numbers under way.
#[derive(Clone, Debug, Default)]
pub(super) struct Account {
    pub(super) sums: Sums,
    pub(super) errors: u64,
    pub(super) refused: u64,
    pub(super) faulted: u64,
    pub(super) cached: u64,
    pub(super) stale: u64,
    pub(super) parked: u64,
    pub(super) latency: Sketch,
    pub(super) kernel: u64,
    pub(super) confirmed: u64,
}

impl Account {
    pub(super) fn add(&mut self, row: &Row<'_>) {
        self.sums.add(&row.sums);
        if row.outcome == "refused-fault" {
            self.faulted += row.sums.calls;
        } else if row.is_refused() {
            self.refused += row.sums.calls;
        } else if row.is_cached() {
            self.cached += row.sums.calls;
            self.stale += if row.outcome == "stale" { row.sums.calls } else { 0 };
        } else {
            self.latency.merge(&row.latency);
        }
        if row.outcome == "parked" {
            self.parked += row.sums.calls;
        }
        if row.is_error() {
            self.errors += row.sums.calls;
        }
        if row.is_kernel() {
            self.kernel += row.sums.calls;
        }
    }

    /// What a reader should know of them, in sentences.
    pub(super) fn notes(&self) -> Vec<String> {
        let of_fault = |faulted| {
            let (calls, are, them) = match faulted {
                1 => ("1 call".to_owned(), "is neither an error nor", "it"),
                _ => (words::count(faulted, "call"), "are neither errors nor", "them"),
            };
            format!(
                "{calls} met a [[fault]] that failed or answered {them} in the vendor's place, and {are} refused."
            )
        };
        self.spared().into_iter().chain((self.faulted > 0).then(|| of_fault(self.faulted))).collect()
    }

    /// What the cache spared the quotas of vendors, in a sentence; `None` where that is nothing.
    fn spared(&self) -> Option<String> {
        let Sums { saved_requests: requests, saved_tokens: tokens, .. } = self.sums;
        match (requests, tokens) {
            (0, _) => None,
            (requests, 0) => {
                Some(format!("The cache spared the vendors' quotas {}.", words::count(requests, "request")))
            }
            (requests, tokens) => Some(format!(
                "The cache spared the vendors' quotas {} and {}.",
                words::count(requests, "request"),
                words::count(tokens, "token")
            )),
        }
    }

    pub(super) fn numbers(&self) -> Numbers {
        let library = self.sums.calls - self.kernel;
        Numbers {
            calls: self.sums.calls,
            errors: self.errors,
            error_rate: share(self.errors, self.sums.calls),
            refused: self.refused,
            faulted: self.faulted,
            cached: self.cached,
            stale: self.stale,
            parked: self.parked,
            p50_ms: self.latency.quantile(0.5).map(millis),
            p99_ms: self.latency.quantile(0.99).map(millis),
            bytes_out: self.sums.bytes_out,
            bytes_in: self.sums.bytes_in,
            attempts: self.sums.attempts,
            waited_ms: millis(self.sums.waited),
            cost: known_cost(&self.sums).map(decimal),
            currency: Currency::USD.to_string(),
            cost_unknown_calls: self.sums.cost_unknown,
            saved_bytes: self.sums.saved_bytes,
            saved_cost: (self.sums.saved_cost != 0).then(|| decimal(self.sums.saved_cost)),
            saved_requests: self.sums.saved_requests,
            saved_tokens: self.sums.saved_tokens,
            tokens_in: self.sums.tokens_in,
            tokens_out: self.sums.tokens_out,
            library_calls: library,
            kernel_calls: self.kernel,
            confirmed_calls: self.confirmed.min(library),
            tap: match (library > 0, self.kernel > 0 || self.confirmed > 0) {
                (true, true) => "library+kernel",
                (false, true) => "kernel",
                _ => "library",
            },
        }
    }
}

/// What calls cost as far as known; `None` where nothing of it is.
fn known_cost(sums: &Sums) -> Option<i64> {
    (sums.cost != 0 || sums.cost_unknown < sums.calls).then_some(sums.cost)
}

/// Nano-units as an exact decimal number, without the currency: `12.30`.
pub(super) fn decimal(nanos: i64) -> String {
    let text = Money::from_nanos(nanos, Currency::USD).to_string();
    text.split(' ').next().unwrap_or_default().to_owned()
}

/// `part` of `whole`, 0 to 1; 0 of nothing.
#[allow(clippy::cast_precision_loss)]
pub(super) fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// Milliseconds, to the microsecond.
pub(super) fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

/// The mean in milliseconds; `None` of nothing.
pub(super) fn mean(sum: Duration, count: u64) -> Option<f64> {
    #[allow(clippy::cast_precision_loss)]
    (count > 0).then(|| (sum.as_secs_f64() / count as f64 * 1e6).round() / 1e3)
}
