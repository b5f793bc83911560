//! From which programs?

use super::numbers::Account;
use super::source::{Source, sorted};
use super::{Numbers, Query, ReportError, Table};
use serde::Serialize;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::rc::Rc;

/// A program that made calls; all its processes together.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct CallerRow {
    /// The service's name.
    pub service: String,
    /// The executable's path.
    pub executable: String,
    /// The user that it runs as.
    pub user: String,
    /// Its containers; empty outside of one.
    pub containers: Vec<String>,
    /// Its processes that made calls, at most 100 of them; those that only the kernel sees are not told apart.
    pub pids: Vec<u32>,
    /// How many processes; `None` where some are not told apart.
    pub process_count: Option<usize>,
    /// Whether a library lives in it; without one, only the kernel sees its calls.
    pub instrumented: bool,
    /// What its calls amount to.
    #[serde(flatten)]
    pub numbers: Numbers,
    /// The vendors that it called.
    pub vendors: Vec<String>,
}

const MAX_PIDS: usize = 100;
/// The processes of a program without the library, which are not told apart.
const ANY_PROCESS: u32 = 0;

#[derive(Default)]
struct Under {
    account: Account,
    containers: HashSet<Rc<str>>,
    /// By PID namespace, pid and start.
    processes: HashSet<(u64, u32, u64)>,
    vendors: HashSet<Rc<str>>,
    instrumented: bool,
}

/// The services whose programs had the library within the window, by their names, whether or not they made calls. The
/// filters of the query are not used.
///
/// # Errors
/// When there is no ledger, or it cannot be read.
pub fn services(query: &Query) -> Result<BTreeSet<String>, ReportError> {
    let source = Source::open(query)?;
    let Some(connection) = source.connection() else { return Ok(BTreeSet::new()) };
    let from = i64::try_from(query.first_minute() * 60_000_000_000).unwrap_or(i64::MAX);
    let sql = "SELECT caller FROM processes WHERE role = 'program' AND last_flush >= ?1";
    let mut statement = connection.prepare(sql)?;
    let (mut rows, mut services) = (statement.query([from])?, BTreeSet::new());
    while let Some(row) = rows.next()? {
        services.extend(source.caller(row.get(0)?).map(|caller| caller.service.clone()));
    }
    Ok(services)
}

/// Which programs call: a row for each service, executable and user, the one with the most calls first.
///
/// # Errors
/// When there is no ledger, or it cannot be read.
pub fn callers(query: &Query) -> Result<Table<CallerRow>, ReportError> {
    let source = Source::open(query)?;
    let mut under: HashMap<[String; 3], Under> = HashMap::new();
    let mut totals = Account::default();
    source.rows(|row| {
        let caller = row.caller;
        let known = under
            .entry([caller.service.clone(), caller.executable.clone(), caller.user.clone()])
            .or_default();
        known.account.add(row);
        totals.add(row);
        known.processes.insert((caller.pid_namespace, caller.pid, caller.started));
        known.instrumented |= !row.is_kernel() || source.is_instrumented(caller);
        if !caller.container.is_empty() {
            known.containers.insert(caller.container.as_str().into());
        }
        if !known.vendors.contains(row.vendor) {
            known.vendors.insert(Rc::clone(row.vendor));
        }
    })?;
    source.confirmed(|_, _, caller, calls| {
        let key = [caller.service.clone(), caller.executable.clone(), caller.user.clone()];
        if let Some(known) = under.get_mut(&key) {
            known.account.confirmed += calls;
            totals.confirmed += calls;
        }
    })?;
    let mut rows: Vec<CallerRow> = under
        .into_iter()
        .map(|([service, executable, user], under)| {
            let mut pids: Vec<u32> = under.processes.iter().map(|(_, pid, _)| *pid).collect();
            let told_apart = !pids.contains(&ANY_PROCESS);
            pids.retain(|pid| *pid != ANY_PROCESS);
            pids.sort_unstable();
            pids.dedup();
            pids.truncate(MAX_PIDS);
            CallerRow {
                service,
                executable,
                user,
                containers: sorted(&under.containers),
                pids,
                process_count: told_apart.then_some(under.processes.len()),
                instrumented: under.instrumented,
                numbers: under.account.numbers(),
                vendors: sorted(&under.vendors),
            }
        })
        .collect();
    rows.sort_by(|a, b| {
        b.numbers
            .calls
            .cmp(&a.numbers.calls)
            .then_with(|| (&a.service, &a.executable).cmp(&(&b.service, &b.executable)))
    });
    Ok(Table { report: "callers", window: query.window(), rows, totals: totals.numbers(), notes: Vec::new() })
}
