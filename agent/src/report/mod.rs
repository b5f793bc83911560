//! The read side: a question becomes a typed table. The command line prints it, the bindings return it, and
//! its JSON is stable: docs/report.md describes it field by field.
//!
//! Every question is asked over a window of whole minutes that ends now. Both taps are added up: rows of the
//! kernel are only those calls that no library accounts for, so each call counts once.

mod advise;
mod alive;
mod budgets;
mod callers;
mod calls;
mod counters;
mod coverage;
mod customers;
mod doctor;
mod endpoints;
mod error;
mod filter;
mod findings;
mod incidents;
mod inventory;
mod notices;
mod numbers;
mod policy;
mod query;
mod question;
mod quotas;
mod refusal;
mod render;
mod row;
mod source;
pub(crate) mod time;
mod unmatched;
mod unsent;
mod vendors;
mod who;

pub use advise::{Advice, Advised, Answers, Worth, advise};
pub use budgets::{BudgetRow, Budgets, budgets};
pub use callers::{CallerRow, callers, services};
pub use calls::{CallRow, ExplainedCall, calls, explain_call};
pub use coverage::{Coverage, CoverageRow, CoverageTotals, Gap, Share, Unexplained, coverage};
pub use customers::{CustomerRow, customers};
pub use doctor::{Counter, Doctor, LedgerHealth, OutboxHealth, ProcessRow, SidecarHealth, counters, doctor};
pub use endpoints::{EndpointRow, endpoints};
pub use error::ReportError;
pub use filter::{BadFilter, Filter};
pub use findings::{Finding, findings};
pub use incidents::{
    ExplainedIncident, IncidentAnswers, IncidentMix, IncidentRow, IncidentShare, Incidents, explain_incident,
    incidents,
};
pub use inventory::{Inventory, inventory};
pub use notices::{NoticeRow, Notices, notices};
pub use numbers::Numbers;
pub use policy::{
    Asked, Backtest, BacktestRow, PolicyTest, RecommendedPolicy, TestedRule, UnmetRule, policy_backtest,
    policy_recommend, policy_test,
};
pub use query::{Query, Window};
pub use question::{Question, Report};
pub use quotas::{QuotaRow, Quotas, quotas};
pub use refusal::Warning;
pub use render::{Render, Style};
pub use unmatched::{Unmatched, unmatched};
pub use vendors::{VendorRow, vendors};

use serde::Serialize;

/// The answer to a question: rows, sorted by what matters, with their totals.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Table<R> {
    /// Which report this is.
    pub report: &'static str,
    /// The time that it covers.
    pub window: Window,
    /// The rows.
    pub rows: Vec<R>,
    /// All rows together.
    pub totals: Numbers,
    /// What a reader should know, in sentences.
    pub notes: Vec<String>,
}
