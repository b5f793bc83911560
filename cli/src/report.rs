//! `farcall report`.

use crate::output::{failed, print, table};
use crate::{Exit, Ledger};
use clap::ValueEnum;
use farcall_agent::report::{Filter, Query, Question, ReportError};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  farcall report vendors
  farcall report customers vendor=openai --since 1d
  farcall report endpoints caller=checkout 'status>=400'
  farcall report calls outcome=timeout --limit 20
  farcall report calls 'outcome=refused-*'    which calls did rules refuse?
  farcall report incidents vendor=openai --since 1d
  farcall report quotas vendor=openai         what is left of what the vendor allows?
  farcall report budgets customer=acme
  farcall report notices --since 1d           which budgets warned, why was a canary rolled back?
  farcall report vendors --json | jq '.rows[] | select(.error_rate > 0.05) | .vendor'

Filters: KEY OPERATOR VALUE without spaces, all of which must match.
  keys       vendor, vendor.tag, endpoint, method, customer, caller (or caller.service), caller.executable, caller.user,
             caller.container, caller.pid, tap, status, outcome, tag, tag.KEY
  operators  = != and, for status and caller.pid, >= <= > < (quote them: 'status>=500')
  values     * stands for any text, a leading ! for the opposite: customer=acme*, caller=!billing")]
pub(crate) struct Arguments {
    /// The question
    #[arg(value_enum)]
    question: Name,
    /// Only what matches: vendor=stripe 'status>=500'
    #[arg(value_name = "FILTER")]
    filters: Vec<Filter>,
    /// The most single calls, quotas or notices to show; 0 for all
    #[arg(long, default_value_t = 50)]
    limit: usize,
    #[command(flatten)]
    ledger: Ledger,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Name {
    /// Whom do we call?
    Vendors,
    /// What do we ask of them, and where does the time go?
    Endpoints,
    /// On whose behalf?
    Customers,
    /// From which programs?
    Callers,
    /// What can we not see, and why?
    Coverage,
    /// Which single calls were slow or failed?
    Calls,
    /// Why were we rate limited?
    Incidents,
    /// What do the vendors allow us, and how much of it is left?
    Quotas,
    /// How far are the budgets spent?
    Budgets,
    /// What happened to rules: budgets that warn, canaries that were promoted or rolled back, alarms?
    Notices,
    /// What should we look at?
    Findings,
    /// What should we do? `farcall advise` asks the same
    Advise,
    /// All of these but the single calls, the incidents, the quotas, the budgets, the notices and the advice
    All,
}

impl From<Name> for Question {
    fn from(name: Name) -> Self {
        match name {
            Name::Vendors => Self::Vendors,
            Name::Endpoints => Self::Endpoints,
            Name::Customers => Self::Customers,
            Name::Callers => Self::Callers,
            Name::Coverage => Self::Coverage,
            Name::Calls => Self::Calls,
            Name::Incidents => Self::Incidents,
            Name::Quotas => Self::Quotas,
            Name::Budgets => Self::Budgets,
            Name::Notices => Self::Notices,
            Name::Findings => Self::Findings,
            Name::Advise => Self::Advise,
            Name::All => Self::All,
        }
    }
}

pub(crate) fn run(arguments: &Arguments) -> Exit {
    let Some(mut query) = Query::here(arguments.ledger.home.as_deref()) else {
        return failed(&ReportError::NoHome);
    };
    query.since = arguments.ledger.since;
    query.filters.clone_from(&arguments.filters);
    query.limit = arguments.limit;
    match Question::from(arguments.question).ask(&query) {
        Ok(report) if arguments.ledger.json => print(&(report.to_json() + "\n"), Exit::Fine),
        Ok(report) => table(&report, &query),
        Err(error) => failed(&error),
    }
}
