//! All of it in one document.

use super::{
    CallerRow, Coverage, CustomerRow, EndpointRow, Finding, Query, ReportError, Table, VendorRow, Window,
    callers, coverage, customers, endpoints, findings, vendors,
};
use serde::Serialize;

/// The answers to all questions about one window.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Inventory {
    /// Whom do we call?
    pub vendors: Table<VendorRow>,
    /// What do we ask of them?
    pub endpoints: Table<EndpointRow>,
    /// On whose behalf?
    pub customers: Table<CustomerRow>,
    /// From which programs?
    pub callers: Table<CallerRow>,
    /// What can we not see? Absent where a filter asks for what connections do not have.
    pub coverage: Option<Coverage>,
    /// What should we look at?
    pub findings: Table<Finding>,
}

/// Its JSON: the rows alone, under the name of their report.
#[derive(Serialize)]
struct Document<'i> {
    window: &'i Window,
    vendors: &'i [VendorRow],
    endpoints: &'i [EndpointRow],
    customers: &'i [CustomerRow],
    callers: &'i [CallerRow],
    coverage: Option<&'i Coverage>,
    findings: &'i [Finding],
    totals: &'i super::Numbers,
}

impl Serialize for Inventory {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Document {
            window: &self.vendors.window,
            vendors: &self.vendors.rows,
            endpoints: &self.endpoints.rows,
            customers: &self.customers.rows,
            callers: &self.callers.rows,
            coverage: self.coverage.as_ref(),
            findings: &self.findings.rows,
            totals: &self.vendors.totals,
        }
        .serialize(serializer)
    }
}

/// All answers about one window.
///
/// # Errors
/// When there is no ledger, or it cannot be read.
pub fn inventory(query: &Query) -> Result<Inventory, ReportError> {
    Ok(Inventory {
        vendors: vendors(query)?,
        endpoints: endpoints(query)?,
        customers: customers(query)?,
        callers: callers(query)?,
        coverage: match coverage(query) {
            Err(ReportError::Filter(_)) => None,
            answer => Some(answer?),
        },
        findings: findings(query)?,
    })
}
