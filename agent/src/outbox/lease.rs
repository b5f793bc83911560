//! Who delivers. One process at a time holds the lease of a queue; whoever takes it gets a higher number, the
//! fencing token, and what a holder of a lower one reports is refused.
//!
//! Time here is CLOCK_BOOTTIME, which all processes of a host share, which counts while the machine sleeps and
//! which nobody can set.

use rusqlite::{Connection, OptionalExtension, params};
use rustix::time::{ClockId, clock_gettime};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How long a lease holds that is not renewed.
pub(super) const HOLDS: Duration = Duration::from_secs(10);
/// How often it is renewed.
pub(super) const RENEWED: Duration = Duration::from_secs(3);
/// Before its end nothing is sent any more: what was sent last has so long to leave the machine.
const MARGIN: Duration = Duration::from_secs(2);

/// Until when this process may send. Asked before each piece that goes out.
#[derive(Debug, Default)]
pub(super) struct Permit {
    /// Nanoseconds of CLOCK_BOOTTIME; 0 while the lease is not ours.
    until: AtomicU64,
}

impl Permit {
    pub(super) fn is_good(&self) -> bool {
        boottime() < self.until.load(Ordering::Acquire)
    }

    /// The lease holds until then.
    pub(super) fn extend(&self, until: u64) {
        self.until.store(until.saturating_sub(nanos(MARGIN)), Ordering::Release);
    }

    pub(super) fn end(&self) {
        self.until.store(0, Ordering::Release);
    }
}

/// A lease that was taken or renewed: its token, and until when it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lease {
    pub(super) token: i64,
    pub(super) until: u64,
}

/// Takes the lease where it is free. The moment counts at which the write lock is had, not the one of the question.
pub(super) fn take(connection: &Connection, queue: &str, holder: &str) -> rusqlite::Result<Option<Lease>> {
    let now = boottime();
    let until = now + nanos(HOLDS);
    let sql = "INSERT INTO lease (queue, token, holder, boot, until) VALUES (?1, 1, ?2, ?3, ?4)
        ON CONFLICT (queue) DO UPDATE SET token = token + 1, holder = ?2, boot = ?3, until = ?4
        WHERE boot <> ?3 OR until <= ?5 RETURNING token";
    let row = params![queue, holder, boot(), signed(until), signed(now)];
    let token = connection.query_row(sql, row, |row| row.get(0)).optional()?;
    Ok(token.map(|token| Lease { token, until }))
}

/// Renews the lease, unless another process took it.
pub(super) fn renew(connection: &Connection, queue: &str, token: i64) -> rusqlite::Result<Option<Lease>> {
    let until = boottime() + nanos(HOLDS);
    let sql = "UPDATE lease SET until = ?3 WHERE queue = ?1 AND token = ?2 AND boot = ?4";
    let renewed = connection.execute(sql, params![queue, token, signed(until), boot()])?;
    Ok((renewed == 1).then_some(Lease { token, until }))
}

/// Lets others have it at once.
pub(super) fn release(connection: &Connection, queue: &str, token: i64) -> rusqlite::Result<()> {
    connection
        .execute("UPDATE lease SET until = 0 WHERE queue = ?1 AND token = ?2", params![queue, token])
        .map(|_| ())
}

/// Whether somebody holds it; for who only wants to know whether to ask.
pub(super) fn is_held(connection: &Connection, queue: &str) -> rusqlite::Result<bool> {
    let sql = "SELECT boot = ?2 AND until > ?3 FROM lease WHERE queue = ?1";
    let row = params![queue, boot(), signed(boottime())];
    Ok(connection.query_row(sql, row, |row| row.get(0)).optional()?.unwrap_or(false))
}

/// Tells this start of the machine from others: a lease of another one is nobody's.
pub(super) fn boot() -> &'static str {
    static BOOT: OnceLock<String> = OnceLock::new();
    BOOT.get_or_init(|| {
        let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        id.trim().to_owned()
    })
}

/// Nanoseconds since the machine started.
fn boottime() -> u64 {
    #[cfg(target_os = "linux")]
    let clock = ClockId::Boottime;
    #[cfg(not(target_os = "linux"))]
    let clock = ClockId::Monotonic;
    let time = clock_gettime(clock);
    let (secs, rest) = (u64::try_from(time.tv_sec).unwrap_or(0), u64::try_from(time.tv_nsec).unwrap_or(0));
    secs.saturating_mul(1_000_000_000).saturating_add(rest)
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn signed(nanos: u64) -> i64 {
    i64::try_from(nanos).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::file::Place;

    #[test]
    fn a_lease_has_one_holder_and_each_next_one_a_higher_token() {
        let home = tempfile::tempdir().unwrap();
        let open = Place::new(home.path()).open().unwrap();
        let connection = &open.connection;
        let first = take(connection, "q", "a").unwrap().unwrap();
        assert!(is_held(connection, "q").unwrap());
        assert_eq!(take(connection, "q", "b").unwrap(), None);
        assert!(take(connection, "other", "b").unwrap().is_some(), "each queue has its own");
        assert_eq!(renew(connection, "q", first.token).unwrap().unwrap().token, first.token);
        release(connection, "q", first.token).unwrap();
        let second = take(connection, "q", "b").unwrap().unwrap();
        assert!(second.token > first.token);
        assert_eq!(renew(connection, "q", first.token).unwrap(), None, "it passed to another");
        release(connection, "q", first.token).unwrap();
        assert!(is_held(connection, "q").unwrap(), "only the holder gives it back");
        connection.execute("UPDATE lease SET boot = 'another'", []).unwrap();
        assert!(
            take(connection, "q", "a").unwrap().unwrap().token > second.token,
            "a restart ends all leases"
        );
    }

    #[test]
    fn nothing_is_sent_within_the_margin_of_the_end() {
        let permit = Permit::default();
        assert!(!permit.is_good());
        permit.extend(boottime() + nanos(MARGIN));
        assert!(!permit.is_good());
        permit.extend(boottime() + nanos(HOLDS));
        assert!(permit.is_good());
        permit.end();
        assert!(!permit.is_good());
    }
}
