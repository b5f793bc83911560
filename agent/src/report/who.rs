//! The callers of a ledger, and which of them are one process.

use super::row::get;
use farcall::Caller;
use rusqlite::Connection;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

/// The callers by their numbers.
#[derive(Default)]
pub(super) struct Who {
    /// As they are written.
    pub(super) written: HashMap<i64, Rc<Caller>>,
    /// As they are shown: what the sidecar saw of a program that names itself goes under the program's own name.
    pub(super) shown: HashMap<i64, Rc<Caller>>,
    /// Those that hold a library.
    instrumented: HashSet<Rc<Caller>>,
}

impl Who {
    pub(super) fn read(connection: &Connection) -> rusqlite::Result<Self> {
        let mut who = Self::default();
        let mut statement = connection.prepare(
            "SELECT id, service, executable, pid, pid_namespace, started, container, user FROM callers",
        )?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let caller = Caller {
                service: row.get(1)?,
                executable: row.get(2)?,
                pid: get(row, 3)?,
                pid_namespace: get(row, 4)?,
                started: get(row, 5)?,
                container: row.get(6)?,
                user: row.get(7)?,
            };
            who.written.insert(row.get(0)?, Rc::new(caller));
        }
        // The latest first: a process that executes another program has a caller for each.
        let sql = "SELECT caller FROM processes WHERE role = 'program' ORDER BY since DESC, caller DESC";
        let mut statement = connection.prepare(sql)?;
        let mut rows = statement.query([])?;
        let mut libraries: HashMap<(u32, u64), Vec<Rc<Caller>>> = HashMap::new();
        while let Some(row) = rows.next()? {
            if let Some(caller) = who.written.get(&row.get(0)?) {
                libraries.entry((caller.pid, caller.started)).or_default().push(Rc::clone(caller));
                who.instrumented.insert(Rc::clone(caller));
            }
        }
        who.shown.clone_from(&who.written);
        for caller in who.shown.values_mut() {
            if caller.started == 0 || who.instrumented.contains(caller) {
                continue;
            }
            let known = libraries.get(&(caller.pid, caller.started)).map_or(&[][..], Vec::as_slice);
            let same = || known.iter().filter(|known| may_be_one_process(known, caller));
            let known = same().find(|known| known.executable == caller.executable).or_else(|| same().next());
            if let Some(known) = known.map(Rc::clone) {
                *caller = known;
            }
        }
        Ok(who)
    }

    /// Whether a library lives in this program.
    pub(super) fn is_instrumented(&self, caller: &Caller) -> bool {
        self.instrumented.contains(caller)
    }
}

/// Whether two callers of one pid and one start may be one process: nothing that is known of both says otherwise. Ledgers of
/// earlier versions name no PID namespace, the sidecar cannot ask a process that is gone, and some containers do not know
/// their own id.
pub(super) fn may_be_one_process(one: &Caller, other: &Caller) -> bool {
    if one.pid_namespace != 0 && other.pid_namespace != 0 {
        return one.pid_namespace == other.pid_namespace;
    }
    one.container == other.container || one.container.is_empty() || other.container.is_empty()
}
