//! Whom do we call?

use super::numbers::Account;
use super::source::{Source, sorted};
use super::{Numbers, Query, ReportError, Table};
use serde::Serialize;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

/// A vendor that was called.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct VendorRow {
    /// The name that filters and rules use.
    pub vendor: String,
    /// The name as the vendor writes it.
    pub label: String,
    /// What its calls amount to.
    #[serde(flatten)]
    pub numbers: Numbers,
    /// On whose behalf it was called; `unknown` where nobody said. At most 100 are named.
    pub customers: Vec<String>,
    /// How many different customers, `unknown` not among them.
    pub customer_count: usize,
    /// The services that called it.
    pub callers: Vec<String>,
    /// How many of its endpoints were called.
    pub endpoint_count: usize,
}

/// How many customers are named in one row.
const MAX_NAMED: usize = 100;

#[derive(Default)]
struct Under {
    account: Account,
    customers: HashSet<Rc<str>>,
    callers: HashSet<Rc<str>>,
    endpoints: HashSet<Rc<str>>,
}

/// Whom do we call: a row for each vendor, the most called first.
///
/// # Errors
/// When there is no ledger, or it cannot be read.
pub fn vendors(query: &Query) -> Result<Table<VendorRow>, ReportError> {
    let source = Source::open(query)?;
    let mut under: HashMap<Rc<str>, Under> = HashMap::new();
    let mut totals = Account::default();
    source.rows(|row| {
        let vendor = under.entry(Rc::clone(row.vendor)).or_default();
        vendor.account.add(row);
        totals.add(row);
        if !vendor.customers.contains(row.customer) {
            vendor.customers.insert(Rc::clone(row.customer));
        }
        if !vendor.callers.contains(row.caller.service.as_str()) {
            vendor.callers.insert(row.caller.service.as_str().into());
        }
        if !vendor.endpoints.contains(row.endpoint) {
            vendor.endpoints.insert(Rc::clone(row.endpoint));
        }
    })?;
    source.confirmed(|vendor, _, _, calls| {
        if let Some(vendor) = under.get_mut(vendor) {
            vendor.account.confirmed += calls;
            totals.confirmed += calls;
        }
    })?;
    let mut rows: Vec<VendorRow> = under
        .into_iter()
        .map(|(vendor, under)| {
            let mut customers = sorted(&under.customers);
            customers.truncate(MAX_NAMED);
            VendorRow {
                label: source.label(&vendor),
                vendor: vendor.to_string(),
                numbers: under.account.numbers(),
                customer_count: under
                    .customers
                    .iter()
                    .filter(|name| ***name != *farcall::attribution::UNKNOWN)
                    .count(),
                customers,
                callers: sorted(&under.callers),
                endpoint_count: under.endpoints.len(),
            }
        })
        .collect();
    rows.sort_by(|a, b| b.numbers.calls.cmp(&a.numbers.calls).then_with(|| a.vendor.cmp(&b.vendor)));
    Ok(Table {
        report: "vendors",
        window: query.window(),
        rows,
        totals: totals.numbers(),
        notes: totals.notes(),
    })
}
