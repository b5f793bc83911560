//! On whose behalf?

use super::numbers::{Account, share};
use super::source::{Source, sorted};
use super::{Numbers, Query, ReportError, Table};
use farcall::attribution::UNKNOWN;
use serde::Serialize;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

/// A customer on whose behalf calls were made.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct CustomerRow {
    /// The customer's name; `unknown` where nobody said, `other` where there were too many.
    pub customer: String,
    /// The customer's share of all calls, 0 to 1.
    pub share: f64,
    /// What the calls amount to.
    #[serde(flatten)]
    pub numbers: Numbers,
    /// The vendors that were called.
    pub vendors: Vec<String>,
}

/// On whose behalf do we call: a row for each customer, the one with the most calls first.
///
/// # Errors
/// When there is no ledger, or it cannot be read.
pub fn customers(query: &Query) -> Result<Table<CustomerRow>, ReportError> {
    let source = Source::open(query)?;
    let mut under: HashMap<Rc<str>, (Account, HashSet<Rc<str>>)> = HashMap::new();
    let mut totals = Account::default();
    source.rows(|row| {
        let (account, vendors) = under.entry(Rc::clone(row.customer)).or_default();
        account.add(row);
        totals.add(row);
        if !vendors.contains(row.vendor) {
            vendors.insert(Rc::clone(row.vendor));
        }
    })?;
    let all = totals.sums.calls;
    let mut rows: Vec<CustomerRow> = under
        .into_iter()
        .map(|(customer, (account, vendors))| CustomerRow {
            customer: customer.to_string(),
            share: share(account.sums.calls, all),
            numbers: account.numbers(),
            vendors: sorted(&vendors),
        })
        .collect();
    rows.sort_by(|a, b| b.numbers.calls.cmp(&a.numbers.calls).then_with(|| a.customer.cmp(&b.customer)));
    let mut notes: Vec<String> = totals.notes();
    if rows.iter().any(|row| row.customer == UNKNOWN) {
        notes.push(
            "unknown: nobody said for whom. Name the customer around the work: farcall.customer(\"acme\") in \
             Python, farcall.withCustomer(\"acme\", fn) in Node, the request extension Customer in Rust."
                .into(),
        );
    }
    Ok(Table { report: "customers", window: query.window(), rows, totals: totals.numbers(), notes })
}
