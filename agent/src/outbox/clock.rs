//! What becomes of waits and ages when somebody sets the clock. They are kept as moments of the wall clock, since
//! they outlive processes and the machine's uptime; so, when that clock jumps, all moments jump with it, in the
//! transaction in which the first writer of this host notices: those of pending calls, and when the others were settled,
//! or what is kept for days would be forgotten by a clock that is set forward.

use super::lease::{boot, boottime};
use super::wall;
use rusqlite::{Connection, OptionalExtension, params};
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

/// Less is no jump: whatever it delays or hastens by that is forgiven.
const SLACK: i64 = Duration::from_secs(30).as_nanos() as i64;
/// With more calls that stand so, they are left as they are: to move them all would write the file anew.
const MOST: i64 = 100_000;

/// How far the wall clock was ahead of the one that nobody can set, when the file was looked at last.
#[derive(Debug, Default)]
pub(super) struct Anchor {
    /// Nanoseconds; 0 where that is not known.
    ahead: AtomicI64,
}

impl Anchor {
    /// Whether the clock has jumped since.
    pub(super) fn is_off(&self) -> bool {
        let then = self.ahead.load(Ordering::Acquire);
        then != 0 && is_jump(ahead().saturating_sub(then))
    }

    /// Moves what is pending, if the clock has jumped since anybody last looked in this boot of the machine.
    pub(super) fn follow(&self, connection: &Connection) -> rusqlite::Result<()> {
        self.follow_to(connection, ahead())
    }

    fn follow_to(&self, connection: &Connection, now: i64) -> rusqlite::Result<()> {
        connection.execute_batch(
            "CREATE TABLE IF NOT EXISTS clock (one INTEGER PRIMARY KEY CHECK (one = 1), boot TEXT NOT NULL,
                ahead INTEGER NOT NULL) STRICT",
        )?;
        let last: Option<(String, i64)> = connection
            .query_row("SELECT boot, ahead FROM clock", [], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        let then = match last {
            Some((boot_then, then)) if boot_then == boot() && !is_jump(now.saturating_sub(then)) => then,
            last => {
                // How long the machine was off nobody knows.
                if let Some((_, then)) = last.filter(|(boot_then, _)| boot_then == boot()) {
                    shift(connection, now.saturating_sub(then))?;
                }
                let sql = "INSERT INTO clock VALUES (1, ?1, ?2)
                    ON CONFLICT (one) DO UPDATE SET boot = ?1, ahead = ?2";
                connection.execute(sql, params![boot(), now])?;
                now
            }
        };
        self.ahead.store(then, Ordering::Release);
        Ok(())
    }
}

fn is_jump(by: i64) -> bool {
    by.saturating_abs() > SLACK
}

fn ahead() -> i64 {
    wall().saturating_sub(i64::try_from(boottime()).unwrap_or(i64::MAX))
}

/// A moment that was computed at another as it is now, should the clock have jumped in between.
pub(super) fn rebased(moment: i64, computed_at: i64, now: i64) -> i64 {
    let by = now.saturating_sub(computed_at);
    if is_jump(by) { moment.saturating_add(by) } else { moment }
}

fn shift(connection: &Connection, by: i64) -> rusqlite::Result<()> {
    // What is later by far was written by another clock than the one that jumped: before the machine started.
    let latest = wall().saturating_sub(by).saturating_add(SLACK);
    // Each by its index: most of the file is not pending at all.
    let pending = ["blocked = 0", "blocked <> 0 AND order_key IS NOT NULL"];
    let many = pending.iter().try_fold(0, |many, which| {
        Ok::<_, rusqlite::Error>(many + count(connection, &format!("state = 0 AND {which}"))?)
    })?;
    for which in pending.iter().filter(|_| many <= MOST) {
        let sql = format!(
            "UPDATE item SET put_at = put_at + min(?1, ?2 - put_at), next_at = next_at + min(?1, ?2 - next_at),
                expires_at = expires_at + min(?1, ?2 - expires_at)
            WHERE id IN (SELECT id FROM item WHERE state = 0 AND {which}) AND put_at <= ?3"
        );
        connection.execute(&sql, params![by, i64::MAX, latest])?;
    }
    // `state <> 0` adds nothing but the index.
    for settled in ["state = 1 AND state <> 0", "state = 2 AND state <> 0"] {
        if count(connection, settled)? <= MOST {
            let sql = format!(
                "UPDATE item SET settled_at = settled_at + min(?1, ?2 - settled_at)
                WHERE id IN (SELECT id FROM item WHERE {settled}) AND settled_at <= ?3"
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
        let (db, anchor) = (&open.connection, Anchor::default());
        let now = ahead();
        anchor.follow_to(db, now).unwrap();
        let insert =
            "INSERT INTO item (queue, order_key, state, blocked, put_at, next_at, expires_at, method, vendor,
                endpoint, host, idempotency_key, bytes, request)
            VALUES ('q', ?1, ?2, ?3, 10, 20, ?4, 'POST', 'v', '', 'h', 'k', 0, x'')";
        let rows = [(None, 0, 0, 30), (Some("a"), 0, 0, i64::MAX), (Some("a"), 0, 1, 30), (None, 1, 0, 30)];
        for (key, state, blocked, expires) in rows {
            db.execute(insert, params![key, state, blocked, expires]).unwrap();
        }
        let before = moments(db);
        anchor.follow_to(db, now + SLACK).unwrap();
        assert_eq!(moments(db), before, "clocks are never quite right");
        anchor.follow_to(db, now + 6 * HOUR).unwrap();
        let h = 6 * HOUR;
        let moved =
            [(h + 10, h + 20, h + 30), (h + 10, h + 20, i64::MAX), (h + 10, h + 20, h + 30), (10, 20, 30)];
        assert_eq!(moments(db), moved);
        // Another process, which has not seen it, does not do it again.
        Anchor::default().follow_to(db, now + 6 * HOUR).unwrap();
        assert_eq!(moments(db), moved);
        anchor.follow_to(db, now).unwrap();
        assert_eq!(moments(db)[0], before[0], "and back");
        db.execute("UPDATE clock SET boot = 'another'", []).unwrap();
        anchor.follow_to(db, now - 6 * HOUR).unwrap();
        assert_eq!(moments(db)[0], before[0], "how long the machine was off nobody knows");
    }

    #[test]
    fn what_was_settled_is_kept_as_long_as_ever_and_what_another_clock_wrote_is_left_alone() {
        let home = tempfile::tempdir().unwrap();
        let open = Place::new(home.path()).open().unwrap();
        let (db, anchor) = (&open.connection, Anchor::default());
        let (now, year) = (ahead(), 365 * 24 * HOUR);
        anchor.follow_to(db, now).unwrap();
        let insert = "INSERT INTO item (queue, state, blocked, put_at, next_at, expires_at, settled_at, method, vendor,
                endpoint, host, idempotency_key, bytes, request)
            VALUES ('q', ?1, 0, ?2, ?2, ?2, ?2, 'POST', 'v', '', 'h', 'k', 0, x'')";
        // As of the years before a machine whose clock starts at 1970.
        let before = wall() + year;
        for (state, at) in [(1, 10), (2, 10), (0, before), (2, before)] {
            db.execute(insert, params![state, at]).unwrap();
        }
        anchor.follow_to(db, now + 24 * HOUR * 31).unwrap();
        let mut all = db.prepare("SELECT settled_at FROM item ORDER BY id").unwrap();
        let settled: Vec<i64> = all.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
        let jumped = 24 * HOUR * 31 + 10;
        assert_eq!(settled, [jumped, jumped, before, before]);
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
