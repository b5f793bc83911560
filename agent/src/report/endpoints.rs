//! What do we ask of them, and where does the time go?

use super::numbers::{Account, mean};
use super::source::Source;
use super::{Numbers, Query, ReportError, Table};
use serde::Serialize;
use std::collections::HashMap;
use std::rc::Rc;

/// An endpoint that was called.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct EndpointRow {
    /// The vendor's name.
    pub vendor: String,
    /// The name as the vendor writes it.
    pub label: String,
    /// Method and URL template.
    pub endpoint: String,
    /// What its calls amount to.
    #[serde(flatten)]
    pub numbers: Numbers,
    /// Resolving the name: the mean over those of the `connections` of which this is known, in milliseconds; null where
    /// there is none.
    pub dns_ms: Option<f64>,
    /// The TCP handshake, likewise.
    pub connect_ms: Option<f64>,
    /// The TLS handshake, likewise.
    pub tls_ms: Option<f64>,
    /// From begin to the head of the response: the mean over the calls that had one, in milliseconds.
    pub ttfb_ms: Option<f64>,
    /// From there to the last byte, likewise.
    pub transfer_ms: Option<f64>,
    /// New connections of which any of the three is known.
    pub connections: u64,
}

/// What do we ask of them: a row for each vendor and endpoint, the most called first.
///
/// # Errors
/// When there is no ledger, or it cannot be read.
pub fn endpoints(query: &Query) -> Result<Table<EndpointRow>, ReportError> {
    let source = Source::open(query)?;
    let mut under: HashMap<(Rc<str>, Rc<str>), Account> = HashMap::new();
    let mut totals = Account::default();
    source.rows(|row| {
        under.entry((Rc::clone(row.vendor), Rc::clone(row.endpoint))).or_default().add(row);
        totals.add(row);
    })?;
    source.confirmed(|vendor, endpoint, _, calls| {
        if let Some(account) = under.get_mut(&(Rc::clone(vendor), Rc::clone(endpoint))) {
            account.confirmed += calls;
            totals.confirmed += calls;
        }
    })?;
    let mut rows: Vec<EndpointRow> = under
        .into_iter()
        .map(|((vendor, endpoint), account)| {
            let sums = &account.sums;
            EndpointRow {
                label: source.label(&vendor),
                vendor: vendor.to_string(),
                endpoint: endpoint.to_string(),
                numbers: account.numbers(),
                dns_ms: mean(sums.dns, sums.dns_known),
                connect_ms: mean(sums.connect, sums.connect_known),
                tls_ms: mean(sums.tls, sums.tls_known),
                ttfb_ms: mean(sums.ttfb, sums.answered),
                transfer_ms: mean(sums.transfer, sums.answered),
                connections: sums.connections,
            }
        })
        .collect();
    rows.sort_by(|a, b| {
        b.numbers
            .calls
            .cmp(&a.numbers.calls)
            .then_with(|| (&a.vendor, &a.endpoint).cmp(&(&b.vendor, &b.endpoint)))
    });
    Ok(Table {
        report: "endpoints",
        window: query.window(),
        rows,
        totals: totals.numbers(),
        notes: Vec::new(),
    })
}
