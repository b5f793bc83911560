//! What becomes of waits and ages when somebody sets the clock. They are kept as moments of the wall clock, since
//! they outlive processes and the machine's uptime; so, when that clock jumps, all moments jump with it, in the
//! transaction in which the first writer of this host notices: those of pending calls, and those of the others, or what is
//! kept for days would be forgotten by a clock that is set forward, and look as old as the jump until then.

use super::lease::{boot, boottime};
use super::wall;
use rusqlite::{Connection, OptionalExtension, params};
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

/// Less is no jump: whatever it delays or hastens by that is forgiven.
const SLACK: i64 = Duration::from_secs(30).as_nanos() as i64;
/// With more calls that stand so, they are left as they are: to move them all would write the file anew.
const MOST: i64 = 100_000;

/// By which clock moments are: how far it is ahead of the one that nobody can set, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ahead(i64);

impl Ahead {
    /// The wall clock as it is set at this moment.
    pub(super) fn wall() -> Self {
        Self(wall().saturating_sub(uptime()))
    }

    /// The clock of the moments in a file: the wall clock, or, where that has jumped, and they have not followed, the
    /// one that it was before.
    pub(super) fn of(connection: &Connection) -> rusqlite::Result<Self> {
        const EXISTS: &str = "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = 'clock')";
        let wall = Self::wall();
        if !connection.prepare_cached(EXISTS)?.query_row([], |row| row.get(0))? {
            return Ok(wall);
        }
        let mut statement = connection.prepare_cached("SELECT ahead FROM clock WHERE boot = ?1")?;
        let then = statement.query_row([boot()], |row| row.get(0).map(Self)).optional()?;
        Ok(then.filter(|then| is_jump(then.until(wall))).unwrap_or(wall))
    }

    /// What this clock shows.
    pub(super) fn now(self) -> i64 {
        uptime().saturating_add(self.0)
    }

    /// A moment by this clock, as it is by a later one.
    pub(super) fn moved(self, moment: i64, to: Self) -> i64 {
        let by = self.until(to);
        if is_jump(by) { moment.saturating_add(by) } else { moment }
    }

    /// A moment by this clock, as it is by another one, however little they differ.
    #[cfg(feature = "postgres")]
    pub(super) fn exactly(self, moment: i64, by: Self) -> i64 {
        moment.saturating_add(self.until(by))
    }

    /// Another clock, which is ahead by so much.
    #[cfg(feature = "postgres")]
    pub(super) fn by(nanos: i64) -> Self {
        Self(nanos)
    }

    /// This clock as it would be, had it been set forward by so much.
    #[cfg(all(test, feature = "postgres"))]
    pub(super) fn set_by(self, nanos: i64) -> Self {
        Self(self.0.saturating_add(nanos))
    }

    /// By how much a clock that was this one has been set forward.
    fn until(self, later: Self) -> i64 {
        later.0.saturating_sub(self.0)
    }
}

/// The clock that the moments in the file go by, as far as this process knows: without asking the file.
#[derive(Debug, Default)]
pub(super) struct Anchor {
    /// As in [`Ahead`]; 0 where that is not known.
    ahead: AtomicI64,
}

impl Anchor {
    /// Whether the wall clock has jumped since.
    pub(super) fn is_off(&self) -> bool {
        let then = self.ahead.load(Ordering::Acquire);
        then != 0 && is_jump(Ahead(then).until(Ahead::wall()))
    }

    /// What a transaction has [followed](follow), once that is committed.
    pub(super) fn set(&self, ahead: Ahead) {
        self.ahead.store(ahead.0, Ordering::Release);
    }
}

/// Moves what is pending, if the clock has jumped since anybody last looked in this boot of the machine. By which clock
/// it is then.
pub(super) fn follow(connection: &Connection) -> rusqlite::Result<Ahead> {
    follow_to(connection, Ahead::wall())
}

fn follow_to(connection: &Connection, now: Ahead) -> rusqlite::Result<Ahead> {
    connection.execute_batch(
        "CREATE TABLE IF NOT EXISTS clock (one INTEGER PRIMARY KEY CHECK (one = 1), boot TEXT NOT NULL,
            ahead INTEGER NOT NULL) STRICT",
    )?;
    let last: Option<(String, Ahead)> = connection
        .query_row("SELECT boot, ahead FROM clock", [], |row| Ok((row.get(0)?, Ahead(row.get(1)?))))
        .optional()?;
    match last {
        Some((boot_then, then)) if boot_then == boot() && !is_jump(then.until(now)) => Ok(then),
        last => {
            // How long the machine was off nobody knows.
            if let Some((_, then)) = last.filter(|(boot_then, _)| boot_then == boot()) {
                shift(connection, then, now)?;
            }
            let sql = "INSERT INTO clock VALUES (1, ?1, ?2)
                ON CONFLICT (one) DO UPDATE SET boot = ?1, ahead = ?2";
            connection.execute(sql, params![boot(), now.0])?;
            Ok(now)
        }
    }
}

fn is_jump(by: i64) -> bool {
    by.saturating_abs() > SLACK
}

/// The clock that nobody can set.
pub(super) fn uptime() -> i64 {
    i64::try_from(boottime()).unwrap_or(i64::MAX)
}

/// A moment that was computed at another as it is now, should the clock have jumped in between.
pub(super) fn rebased(moment: i64, computed_at: i64, now: i64) -> i64 {
    let by = now.saturating_sub(computed_at);
    if is_jump(by) { moment.saturating_add(by) } else { moment }
}

fn shift(connection: &Connection, then: Ahead, now: Ahead) -> rusqlite::Result<()> {
    let by = then.until(now);
    // What is later by far was written by another clock than the one that jumped: before the machine started.
    let latest = then.now().saturating_add(SLACK);
    // Each by its index: most of the file is not pending at all.
    let pending = ["blocked = 0", "blocked <> 0 AND order_key IS NOT NULL"];
    let many = pending.iter().try_fold(0, |many, which| {
        Ok::<_, rusqlite::Error>(many + count(connection, &format!("state = 0 AND {which}"))?)
    })?;
    let moved =
        |moment: &str, of: &str| format!("{moment} = {moment} + iif({of} <= ?3, min(?1, ?2 - {moment}), 0)");
    let all = ["put_at", "next_at", "expires_at"].map(|moment| moved(moment, "put_at")).join(", ");
    for which in pending.iter().filter(|_| many <= MOST) {
        let sql = format!(
            "UPDATE item SET {all}
            WHERE id IN (SELECT id FROM item WHERE state = 0 AND {which}) AND put_at <= ?3"
        );
        connection.execute(&sql, params![by, i64::MAX, latest])?;
    }
    // `state <> 0` adds nothing but the index.
    for settled in ["state = 1 AND state <> 0", "state = 2 AND state <> 0"] {
        if count(connection, settled)? <= MOST {
            let settled_at = moved("settled_at", "settled_at");
            let sql = format!(
                "UPDATE item SET {all}, {settled_at}
                WHERE id IN (SELECT id FROM item WHERE {settled}) AND min(put_at, settled_at) <= ?3"
            );
            connection.execute(&sql, params![by, i64::MAX, latest])?;
        }
    }
    Ok(())
}

/// How many there are of these; no more than one above [`MOST`].
fn count(connection: &Connection, which: &str) -> rusqlite::Result<i64> {
    let sql = format!("SELECT count(*) FROM (SELECT 1 FROM item WHERE {which} LIMIT {})", MOST + 1);
    connection.query_row(&sql, [], |row| row.get(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::file::Place;

    const HOUR: i64 = 3_600_000_000_000;

    fn moments(db: &Connection) -> Vec<(i64, i64, i64)> {
        let mut all = db.prepare("SELECT put_at, next_at, expires_at FROM item ORDER BY id").unwrap();
        let rows = all.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap();
        rows.map(Result::unwrap).collect()
    }

    #[test]
    fn what_is_pending_jumps_with_the_clock_and_keeps_its_waits_and_its_age() {
        let home = tempfile::tempdir().unwrap();
        let open = Place::new(home.path()).open().unwrap();
        let (db, now) = (&open.connection, Ahead::wall());
        follow_to(db, now).unwrap();
        let insert =
            "INSERT INTO item (queue, order_key, state, blocked, put_at, next_at, expires_at, method, vendor,
                endpoint, host, idempotency_key, bytes, request)
            VALUES ('q', ?1, ?2, ?3, 10, 20, ?4, 'POST', 'v', '', 'h', 'k', 0, x'')";
        let rows = [(None, 0, 0, 30), (Some("a"), 0, 0, i64::MAX), (Some("a"), 0, 1, 30), (None, 1, 0, 30)];
        for (key, state, blocked, expires) in rows {
            db.execute(insert, params![key, state, blocked, expires]).unwrap();
        }
        let before = moments(db);
        follow_to(db, Ahead(now.0 + SLACK)).unwrap();
        assert_eq!(moments(db), before, "clocks are never quite right");
        follow_to(db, Ahead(now.0 + 6 * HOUR)).unwrap();
        let h = 6 * HOUR;
        let moved =
            [(h + 10, h + 20, h + 30), (h + 10, h + 20, i64::MAX), (h + 10, h + 20, h + 30), (10, 20, 30)];
        assert_eq!(moments(db), moved);
        // Another process, which has not seen it, does not do it again.
        follow_to(db, Ahead(now.0 + 6 * HOUR)).unwrap();
        assert_eq!(moments(db), moved);
        follow_to(db, now).unwrap();
        assert_eq!(moments(db)[0], before[0], "and back");
        db.execute("UPDATE clock SET boot = 'another'", []).unwrap();
        follow_to(db, Ahead(now.0 - 6 * HOUR)).unwrap();
        assert_eq!(moments(db)[0], before[0], "how long the machine was off nobody knows");
    }

    #[test]
    fn what_was_settled_is_kept_as_long_as_ever_and_what_another_clock_wrote_is_left_alone() {
        let home = tempfile::tempdir().unwrap();
        let open = Place::new(home.path()).open().unwrap();
        let (db, now, year) = (&open.connection, Ahead::wall(), 365 * 24 * HOUR);
        follow_to(db, now).unwrap();
        let insert = "INSERT INTO item (queue, state, blocked, put_at, next_at, expires_at, settled_at, method, vendor,
                endpoint, host, idempotency_key, bytes, request)
            VALUES ('q', ?1, 0, ?2, ?2, ?2, ?2, 'POST', 'v', '', 'h', 'k', 0, x'')";
        // As of the years before a machine whose clock starts at 1970.
        let before = wall() + year;
        for (state, at) in [(1, 10), (2, 10), (0, before), (2, before)] {
            db.execute(insert, params![state, at]).unwrap();
        }
        follow_to(db, Ahead(now.0 + 24 * HOUR * 31)).unwrap();
        let mut all = db.prepare("SELECT settled_at FROM item ORDER BY id").unwrap();
        let settled: Vec<i64> = all.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
        let jumped = 24 * HOUR * 31 + 10;
        assert_eq!(settled, [jumped, jumped, before, before]);
        assert_eq!(moments(db)[..2], [(jumped, jumped, jumped); 2], "nor do they look older than they are");
        assert_eq!(moments(db)[2], (before, before, before));
    }

    #[test]
    fn a_moment_from_before_a_jump_is_read_as_one_from_after_it() {
        assert_eq!(rebased(110, 100, 105), 110);
        assert_eq!(rebased(110, 100, 100 + HOUR), 110 + HOUR);
        assert_eq!(rebased(HOUR + 110, HOUR + 100, 100), 110);
        assert_eq!(rebased(i64::MAX, 0, HOUR), i64::MAX);
    }
}
