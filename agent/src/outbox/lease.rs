//! Who delivers. One process at a time holds the lease of a queue; whoever takes it gets a higher number, the
//! fencing token, and what a holder of a lower one reports is refused.
//!
//! Time here is CLOCK_BOOTTIME, which all processes of a host share, which counts while the machine sleeps and
//! which nobody can set.

use crate::home::give_to_owner;
use ring::digest::{SHA256, digest};
use rusqlite::{Connection, OptionalExtension, params};
use rustix::time::{ClockId, clock_gettime};
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How long a lease holds that is not renewed. Tests of parts have no thread that renews it.
pub(super) const HOLDS: Duration = Duration::from_secs(if cfg!(test) { 600 } else { 10 });
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

/// Shows that the holder of a token lives: a file of its own, locked as long as the process has it open. The system
/// unlocks it when the process dies, and not when it is stopped; a fork keeps the lock for its parent, which costs
/// time and no more.
#[derive(Debug)]
pub(super) struct Alive {
    _locked: File,
}

/// Where the files of a queue's tokens are.
fn sign(home: &Path, queue: &str, token: i64) -> PathBuf {
    let name = digest(&SHA256, queue.as_bytes());
    let name: String = name.as_ref()[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    home.join(format!("outbox.lease.{name}.{token}"))
}

/// Whether the process that took this token is known to be dead.
fn is_dead(home: &Path, queue: &str, token: i64) -> bool {
    File::open(sign(home, queue, token)).is_ok_and(|file| file.try_lock().is_ok())
}

/// Takes the lease where it is free: it has ended, or its holder is dead. The moment counts at which the write lock
/// is had, not the one of the question.
pub(super) fn take(
    connection: &Connection,
    home: &Path,
    queue: &str,
    holder: &str,
) -> rusqlite::Result<Option<(Lease, Option<Alive>)>> {
    let (now, until) = (boottime(), ends());
    let sql = "SELECT token, boot, until FROM lease WHERE queue = ?1";
    let last: Option<(i64, String, i64)> =
        connection.query_row(sql, [queue], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).optional()?;
    let token = match &last {
        None => 1,
        Some((token, then, until)) => {
            if then == boot() && *until > signed(now) && !is_dead(home, queue, *token) {
                return Ok(None);
            }
            token + 1
        }
    };
    // Locked before anybody can read of it.
    let alive = show(home, queue, token);
    let sql = "INSERT INTO lease (queue, token, holder, boot, until) VALUES (?1, ?2, ?3, ?4, ?5)
        ON CONFLICT (queue) DO UPDATE SET token = ?2, holder = ?3, boot = ?4, until = ?5";
    connection.execute(sql, params![queue, token, holder, boot(), signed(until)])?;
    let _ = fs::remove_file(sign(home, queue, token - 1));
    Ok(Some((Lease { token, until }, alive)))
}

/// `None` where it cannot be shown; then others wait for the end of the lease.
fn show(home: &Path, queue: &str, token: i64) -> Option<Alive> {
    let file = sign(home, queue, token);
    let locked = OpenOptions::new().create(true).append(true).mode(0o600).open(&file).ok()?;
    give_to_owner(home, &file);
    locked.try_lock().ok()?;
    Some(Alive { _locked: locked })
}

/// Renews the lease, unless another process took it.
pub(super) fn renew(connection: &Connection, queue: &str, token: i64) -> rusqlite::Result<Option<Lease>> {
    let until = ends();
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
pub(super) fn is_held(connection: &Connection, home: &Path, queue: &str) -> rusqlite::Result<bool> {
    let sql = "SELECT token FROM lease WHERE queue = ?1 AND boot = ?2 AND until > ?3";
    let row = params![queue, boot(), signed(boottime())];
    let token: Option<i64> = connection.query_row(sql, row, |row| row.get(0)).optional()?;
    Ok(token.is_some_and(|token| !is_dead(home, queue, token)))
}

/// Tells this start of the machine from others: a lease of another one is nobody's.
pub(super) fn boot() -> &'static str {
    static BOOT: OnceLock<String> = OnceLock::new();
    BOOT.get_or_init(|| {
        let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        id.trim().to_owned()
    })
}

/// When a lease ends that is taken or renewed now.
pub(super) fn ends() -> u64 {
    boottime() + nanos(HOLDS)
}

/// Nanoseconds since the machine started.
pub(super) fn boottime() -> u64 {
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
        let (connection, home) = (&open.connection, home.path());
        let (first, alive) = take(connection, home, "q", "a").unwrap().unwrap();
        assert!(is_held(connection, home, "q").unwrap());
        assert!(take(connection, home, "q", "b").unwrap().is_none());
        assert!(take(connection, home, "other", "b").unwrap().is_some(), "each queue has its own");
        assert_eq!(renew(connection, "q", first.token).unwrap().unwrap().token, first.token);
        release(connection, "q", first.token).unwrap();
        let (second, second_alive) = take(connection, home, "q", "b").unwrap().unwrap();
        assert!(second.token > first.token);
        assert_eq!(renew(connection, "q", first.token).unwrap(), None, "it passed to another");
        release(connection, "q", first.token).unwrap();
        drop(alive);
        assert!(is_held(connection, home, "q").unwrap(), "only the holder gives it back");
        drop(second_alive);
        let (third, _alive) = take(connection, home, "q", "c").unwrap().unwrap();
        assert!(third.token > second.token, "the second one died");
        assert!(take(connection, home, "q", "d").unwrap().is_none());
        connection.execute("UPDATE lease SET boot = 'another'", []).unwrap();
        let (fourth, _alive) = take(connection, home, "q", "a").unwrap().unwrap();
        assert!(fourth.token > third.token, "a restart of the machine ends all leases");
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
