//! How the vendors' quotas stand, as the store keeps it: a row for each quota and process that uses it, what was seen
//! last in the place of what was before.

use super::Pending;
use super::write::{Names, Presence, int_time};
use farcall::quota::{Configured, NamedStanding, Standing};
use farcall::{Caller, Timestamp};
use rusqlite::{Connection, params};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

pub(super) const SCHEMA: &str = r"
CREATE TABLE quotas (
    vendor TEXT NOT NULL,
    credential TEXT NOT NULL,
    policy TEXT NOT NULL,
    rule TEXT NOT NULL,
    caller INTEGER NOT NULL,
    at INTEGER NOT NULL,
    ends INTEGER NOT NULL,
    standing TEXT NOT NULL,
    PRIMARY KEY (vendor, credential, policy, rule, caller)
) STRICT, WITHOUT ROWID;
CREATE INDEX quotas_by_time ON quotas (at);
";

/// Processes of which one quota keeps what they know: with more, who used what is not told any more.
pub(crate) const MAX_PROCESSES: usize = 256;
/// Rows of all quotas together, the newest: a service whose credentials change by the hour has new quotas by the hour.
const MAX_ROWS: i64 = 16_384;
/// What has no end of its own says nothing of the present after so long.
const WITHOUT_END: Duration = Duration::from_secs(3_600);

/// What is told apart within a process: vendor, credential, policy, and the rule that keeps to it.
pub(super) type Key = (Arc<str>, String, Arc<str>, Arc<str>);

pub(super) fn key(quota: &NamedStanding) -> Key {
    // What all credentials use together is one quota, whichever rule of a credential's calls found it.
    let rule = if quota.of_vendor { Arc::from("") } else { Arc::clone(&quota.rule) };
    (Arc::clone(&quota.vendor), quota.credential.clone(), Arc::clone(&quota.policy), rule)
}

pub(super) fn write(names: &mut Names<'_>, pending: &Pending, presence: &Presence) -> rusqlite::Result<()> {
    for (key, quota) in &pending.quotas {
        write_one(names, key, quota, &presence.caller)?;
    }
    Ok(())
}

fn write_one(
    names: &mut Names<'_>,
    (vendor, credential, policy, rule): &Key,
    quota: &NamedStanding,
    caller: &Caller,
) -> rusqlite::Result<()> {
    let caller = names.caller(caller)?;
    let at = int_time(quota.at);
    names
        .connection
        .prepare_cached(
            "INSERT INTO quotas VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
             ON CONFLICT DO UPDATE SET at = excluded.at, ends = excluded.ends, standing = excluded.standing",
        )?
        .execute(params![
            vendor,
            credential,
            policy,
            rule,
            caller,
            at,
            int_time(ends(quota)),
            to_json(quota).to_string()
        ])?;
    forget(names.connection, (&**vendor, credential.as_str(), &**policy), (&**rule, caller), at)
}

/// Of the other processes goes what is over, and what is more than is kept.
fn forget(
    connection: &Connection,
    (vendor, credential, policy): (&str, &str, &str),
    (rule, caller): (&str, i64),
    at: i64,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "DELETE FROM quotas WHERE vendor = ?1 AND credential = ?2 AND policy = ?3
             AND (rule, caller) != (?4, ?5) AND ends <= ?6",
        )?
        .execute(params![vendor, credential, policy, rule, caller, at])?;
    connection
        .prepare_cached(
            "DELETE FROM quotas WHERE vendor = ?1 AND credential = ?2 AND policy = ?3 AND at <
                (SELECT at FROM quotas WHERE vendor = ?1 AND credential = ?2 AND policy = ?3
                 ORDER BY at DESC LIMIT 1 OFFSET ?4)",
        )?
        .execute(params![vendor, credential, policy, i64::try_from(MAX_PROCESSES - 1).unwrap_or(i64::MAX)])?;
    Ok(())
}

/// Keeps the newest rows, of all quotas together.
pub(super) fn bound(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute(
        "DELETE FROM quotas WHERE at < (SELECT at FROM quotas ORDER BY at DESC LIMIT 1 OFFSET ?1)",
        [MAX_ROWS - 1],
    )?;
    Ok(())
}

/// Until when it says something of the present.
fn ends(NamedStanding { at, standing, configured, .. }: &NamedStanding) -> Timestamp {
    if let Some(Configured { due_at, .. }) = configured {
        // A limit that nobody uses is all there.
        return due_at.unwrap_or_else(|| at.plus(WITHOUT_END));
    }
    let Standing { resets_at, blocked_until, learned_until, .. } = *standing;
    resets_at.max(blocked_until).max(learned_until).unwrap_or_else(|| at.plus(WITHOUT_END))
}

/// Times in Unix nanoseconds; what is not known is null.
fn to_json(quota: &NamedStanding) -> Value {
    let standing = &quota.standing;
    let moment = |at: Option<Timestamp>| at.map(Timestamp::as_nanos);
    let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    if let Some(Configured { limit, burst, due_at, .. }) = &quota.configured {
        return json!({
            "configured": true,
            "rule": &*quota.rule,
            "unit": quota.unit,
            "shared": quota.shared,
            "limit": limit.units,
            "window": nanos(limit.period),
            "burst": burst,
            "due_at": moment(*due_at),
        });
    }
    json!({
        "of_vendor": quota.of_vendor,
        "rule": &*quota.rule,
        "unit": quota.unit,
        "countable": quota.countable,
        "shared": quota.shared,
        "limit": standing.limit,
        "remaining": standing.remaining,
        "stated_at": moment(standing.stated_at),
        "opened_at": moment(standing.opened_at),
        "resets_at": moment(standing.resets_at),
        "window": standing.window.map(nanos),
        "own": standing.counted,
        "foreign": standing.foreign,
        "left": standing.left,
        "blocked_until": moment(standing.blocked_until),
        "blocked_why": standing.blocked_why.map(farcall::quota::Why::as_str),
        "learned_per_second": standing.learned_per_second,
        "learned_until": moment(standing.learned_until),
    })
}
