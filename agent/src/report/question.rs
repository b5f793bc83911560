//! Questions by name, for bindings and the command line.

use super::{
    Advice, Budgets, CallRow, CallerRow, Coverage, CustomerRow, EndpointRow, Finding, Incidents, Inventory,
    Notices, Query, Quotas, Render, ReportError, Style, Table, VendorRow,
};
use serde::Serialize;
use std::str::FromStr;

/// A question, by its name on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Question {
    /// Whom do we call?
    Vendors,
    /// What do we ask of them, and where does the time go?
    Endpoints,
    /// On whose behalf?
    Customers,
    /// From which programs?
    Callers,
    /// What can we not see?
    Coverage,
    /// Which single calls were slow or failed?
    Calls,
    /// Why were we rate limited?
    Incidents,
    /// What do the vendors allow us, and how much of it is left?
    Quotas,
    /// How far are the budgets spent?
    Budgets,
    /// What happened to rules?
    Notices,
    /// What should we look at?
    Findings,
    /// What should we do?
    Advise,
    /// All of these but the single calls, the incidents, the quotas, the budgets, the notices and the advice.
    All,
}

const QUESTIONS: [(&str, Question); 13] = [
    ("vendors", Question::Vendors),
    ("endpoints", Question::Endpoints),
    ("customers", Question::Customers),
    ("callers", Question::Callers),
    ("coverage", Question::Coverage),
    ("calls", Question::Calls),
    ("incidents", Question::Incidents),
    ("quotas", Question::Quotas),
    ("budgets", Question::Budgets),
    ("notices", Question::Notices),
    ("findings", Question::Findings),
    ("advise", Question::Advise),
    ("all", Question::All),
];

/// An answer; its JSON is that of the report itself.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum Report {
    Vendors(Table<VendorRow>),
    Endpoints(Table<EndpointRow>),
    Customers(Table<CustomerRow>),
    Callers(Table<CallerRow>),
    Coverage(Coverage),
    Calls(Table<CallRow>),
    Incidents(Incidents),
    Quotas(Quotas),
    Budgets(Budgets),
    Notices(Notices),
    Findings(Table<Finding>),
    Advise(Advice),
    All(Box<Inventory>),
}

impl Question {
    /// Asks the ledger.
    ///
    /// # Errors
    /// When there is no ledger, it cannot be read, or a filter does not fit the question.
    pub fn ask(self, query: &Query) -> Result<Report, ReportError> {
        Ok(match self {
            Self::Vendors => Report::Vendors(super::vendors(query)?),
            Self::Endpoints => Report::Endpoints(super::endpoints(query)?),
            Self::Customers => Report::Customers(super::customers(query)?),
            Self::Callers => Report::Callers(super::callers(query)?),
            Self::Coverage => Report::Coverage(super::coverage(query)?),
            Self::Calls => Report::Calls(super::calls(query)?),
            Self::Incidents => Report::Incidents(super::incidents(query)?),
            Self::Quotas => Report::Quotas(super::quotas(query)?),
            Self::Budgets => Report::Budgets(super::budgets(query)?),
            Self::Notices => Report::Notices(super::notices(query)?),
            Self::Findings => Report::Findings(super::findings(query)?),
            Self::Advise => Report::Advise(super::advise(query)?),
            Self::All => Report::All(Box::new(super::inventory(query)?)),
        })
    }

    pub(super) fn names() -> String {
        QUESTIONS.map(|(name, _)| name).join(", ")
    }
}

impl FromStr for Question {
    type Err = ReportError;

    fn from_str(name: &str) -> Result<Self, ReportError> {
        let found = QUESTIONS.into_iter().find(|(known, _)| *known == name);
        found.map(|(_, question)| question).ok_or_else(|| ReportError::NoSuchReport(name.into()))
    }
}

impl Report {
    /// The answer as JSON, as docs/report.md describes it.
    #[must_use]
    pub fn to_json(&self) -> String {
        // Only maps with keys that are not text could fail, and there are none.
        serde_json::to_string_pretty(self).unwrap_or_default()
    }
}

impl Render for Report {
    fn render(&self, style: &Style) -> String {
        match self {
            Self::Vendors(table) => table.render(style),
            Self::Endpoints(table) => table.render(style),
            Self::Customers(table) => table.render(style),
            Self::Callers(table) => table.render(style),
            Self::Coverage(table) => table.render(style),
            Self::Calls(table) => table.render(style),
            Self::Incidents(incidents) => incidents.render(style),
            Self::Quotas(quotas) => quotas.render(style),
            Self::Budgets(budgets) => budgets.render(style),
            Self::Notices(notices) => notices.render(style),
            Self::Findings(table) => table.render(style),
            Self::Advise(advice) => advice.render(style),
            Self::All(inventory) => inventory.render(style),
        }
    }
}
