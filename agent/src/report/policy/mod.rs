//! Policies before they are in force: what a file says of one call, what it would have done to the ledger, and
//! the narrowest one that the ledger supports.

mod backtest;
mod recommend;
mod test;

pub use backtest::{Backtest, BacktestRow, policy_backtest};
pub use recommend::{RecommendedPolicy, policy_recommend};
pub use test::{Asked, PolicyTest, TestedRule, UnmetRule, policy_test};

use super::source::Source;
use super::{Query, ReportError};
use farcall::catalogue::Vendor;
use farcall::matcher::Subject;
use farcall::policy::Mode;
use farcall::{Caller, RefusedBy};
use std::collections::HashMap;
use std::rc::Rc;

/// Calls of the ledger that rules cannot tell apart.
struct Alike {
    vendor: Rc<str>,
    endpoint: Rc<str>,
    customer: Rc<str>,
    tags: String,
    caller: Rc<Caller>,
    calls: u64,
    /// Calls of them that a policy refused already.
    refused: u64,
    cost: i64,
    cost_unknown: u64,
}

impl Alike {
    /// As rules see them; `vendor` is the one of the catalogue.
    fn subject<'a>(&'a self, vendor: Option<&'a Vendor>) -> Subject<'a> {
        let mut subject = Subject::default();
        subject.vendor = &self.vendor;
        subject.vendor_tags = vendor.map_or(&[], |vendor| &vendor.tags);
        subject.country = vendor.and_then(|vendor| vendor.country.as_deref()).unwrap_or("");
        subject.endpoint = &self.endpoint;
        subject.method = self.endpoint.split_once(' ').map_or("", |(method, _)| method);
        subject.customer = &self.customer;
        subject.tags = &self.tags;
        subject.caller = &self.caller;
        subject
    }
}

/// The calls of the window; without those that a policy refused where these are to be left out.
fn alike(source: &Source<'_>, refused_too: bool) -> Result<Vec<Alike>, ReportError> {
    type Key = (Rc<str>, Rc<str>, Rc<str>, String, Rc<Caller>);
    let mut found: HashMap<Key, Alike> = HashMap::new();
    source.rows(|row| {
        let refused = row.outcome == RefusedBy::Policy.outcome();
        if refused && !refused_too {
            return;
        }
        let key = (
            Rc::clone(row.vendor),
            Rc::clone(row.endpoint),
            Rc::clone(row.customer),
            row.tags.to_owned(),
            Rc::clone(row.caller),
        );
        let alike = found.entry(key).or_insert_with_key(|(vendor, endpoint, customer, tags, caller)| Alike {
            vendor: Rc::clone(vendor),
            endpoint: Rc::clone(endpoint),
            customer: Rc::clone(customer),
            tags: tags.clone(),
            caller: Rc::clone(caller),
            calls: 0,
            refused: 0,
            cost: 0,
            cost_unknown: 0,
        });
        alike.calls += row.sums.calls;
        alike.refused += if refused { row.sums.calls } else { 0 };
        alike.cost = alike.cost.saturating_add(row.sums.cost);
        alike.cost_unknown += row.sums.cost_unknown;
    })?;
    Ok(found.into_values().collect())
}

/// The ledger that a question about policies asks.
fn open(query: &Query) -> Result<Source<'_>, ReportError> {
    Source::open(query)
}

const fn mode(mode: Mode) -> &'static str {
    match mode {
        Mode::Enforce => "enforce",
        Mode::Report => "report",
    }
}
