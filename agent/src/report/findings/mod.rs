//! What should we look at: rules over the ledger, each of which says a sentence with its evidence.

mod bypass;
mod errors;
mod noticed;
mod opaque;
mod policy;
mod polling;
mod rate_limited;
mod unattributed;
pub(super) mod words;

use super::numbers::Account;
use super::source::Source;
use super::{Query, ReportError, Table};
use farcall::Caller;
use serde::Serialize;
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::rc::Rc;

/// Something worth looking at.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Finding {
    /// The rule that found it: `uncached-polling`, `rate-limited`, `errors`, `bypass`, `uninstrumented`, `opaque`,
    /// `unattributed`, `policy`, `rolled-back`, `budget`.
    pub rule: &'static str,
    /// What it is, in a sentence or two.
    pub sentence: String,
    /// The vendor that it is about; null where it is about none.
    pub vendor: Option<String>,
    /// The endpoint that it is about; null likewise.
    pub endpoint: Option<String>,
    /// The services that it is about.
    pub callers: Vec<String>,
    /// The numbers that the sentence rests on.
    pub evidence: Map<String, Value>,
}

/// The account of one kind of call, as the rules look at it.
pub(super) struct Series {
    pub(super) vendor: Rc<str>,
    pub(super) endpoint: Rc<str>,
    pub(super) customer: Rc<str>,
    pub(super) caller: Rc<Caller>,
    pub(super) kernel: bool,
    pub(super) status: u16,
    pub(super) complete: bool,
    pub(super) error: bool,
    pub(super) calls: u64,
    pub(super) bytes_in: u64,
}

/// A call that was kept, as the rules look at it.
pub(super) struct Example {
    pub(super) vendor: Rc<str>,
    pub(super) endpoint: Rc<str>,
    pub(super) service: String,
    pub(super) status: u16,
    pub(super) begun: u64,
    pub(super) bytes_in: u64,
}

/// What the rules look at.
pub(super) struct Scene<'s> {
    pub(super) source: &'s Source<'s>,
    pub(super) series: Vec<Series>,
    pub(super) examples: Vec<Example>,
}

/// What should we look at: what costs most to overlook first.
///
/// # Errors
/// When there is no ledger, or it cannot be read.
pub fn findings(query: &Query) -> Result<Table<Finding>, ReportError> {
    let source = Source::open(query)?;
    let mut totals = Account::default();
    let mut series = Vec::new();
    source.rows(|row| {
        totals.add(row);
        // What was not made says nothing about the vendor, nor about what could be saved.
        if row.is_refused() || row.is_cached() {
            return;
        }
        series.push(Series {
            vendor: Rc::clone(row.vendor),
            endpoint: Rc::clone(row.endpoint),
            customer: Rc::clone(row.customer),
            caller: Rc::clone(row.caller),
            kernel: row.is_kernel(),
            status: row.status,
            complete: row.outcome == "complete",
            error: row.is_error(),
            calls: row.sums.calls,
            bytes_in: row.sums.bytes_in,
        });
    })?;
    let mut examples = Vec::new();
    source.kept(|row, kept| {
        examples.push(Example {
            vendor: Rc::clone(row.vendor),
            endpoint: Rc::clone(row.endpoint),
            service: row.caller.service.clone(),
            status: row.status,
            begun: kept.begun,
            bytes_in: kept.bytes_in,
        });
        true
    })?;
    let window = query.window();
    let scene = Scene { source: &source, series, examples };
    let mut rows = Vec::new();
    polling::find(&scene, &mut rows);
    rate_limited::find(&scene, &mut rows);
    errors::find(&scene, &mut rows);
    bypass::find(&scene, &mut rows);
    opaque::find(&scene, &mut rows)?;
    unattributed::find(&scene, &mut rows);
    policy::find(&scene, &mut rows)?;
    noticed::find(&scene, &mut rows)?;
    Ok(Table { report: "findings", window, rows, totals: totals.numbers(), notes: Vec::new() })
}

impl Scene<'_> {
    /// The sum of `calls` over the series by what `key` gives, the largest first.
    fn by<'s>(
        &'s self,
        among: impl Fn(&Series) -> bool,
        key: impl Fn(&'s Series) -> &'s str,
    ) -> Vec<(&'s str, u64)> {
        let mut sums: HashMap<&str, u64> = HashMap::new();
        for series in self.series.iter().filter(|series| among(series)) {
            *sums.entry(key(series)).or_default() += series.calls;
        }
        let mut sums: Vec<_> = sums.into_iter().collect();
        sums.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(b.0)));
        sums
    }

    /// The sum of `calls` over the series that `among` chooses.
    fn count(&self, among: impl Fn(&Series) -> bool) -> u64 {
        self.series.iter().filter(|series| among(series)).map(|series| series.calls).sum()
    }
}

/// Evidence from names and numbers.
pub(super) fn evidence<const N: usize>(facts: [(&str, Value); N]) -> Map<String, Value> {
    facts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}
