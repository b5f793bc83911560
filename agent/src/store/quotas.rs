//! How the vendors' quotas stand, as the store keeps it: a row for each quota and process that uses it, what was seen
//! last in the place of what was before.

use super::Pending;
use super::write::{Names, Presence, int_time};
use farcall::quota::{NamedStanding, Standing};
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

/// Until when it says something of the present.
fn ends(NamedStanding { at, standing, .. }: &NamedStanding) -> Timestamp {
    let Standing { resets_at, blocked_until, learned_until, .. } = *standing;
    resets_at.max(blocked_until).max(learned_until).unwrap_or_else(|| at.plus(WITHOUT_END))
}

/// Times in Unix nanoseconds; what is not known is null.
fn to_json(quota: &NamedStanding) -> Value {
    let standing = &quota.standing;
    let moment = |at: Option<Timestamp>| at.map(Timestamp::as_nanos);
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
        "window": standing.window.map(|window| u64::try_from(window.as_nanos()).unwrap_or(u64::MAX)),
        "own": standing.counted,
        "foreign": standing.foreign,
        "left": standing.left,
        "blocked_until": moment(standing.blocked_until),
        "blocked_why": standing.blocked_why.map(farcall::quota::Why::as_str),
        "learned_per_second": standing.learned_per_second,
        "learned_until": moment(standing.learned_until),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tally::Tallies;
    use farcall::{Config, Engine, Head};
    use std::sync::atomic::Ordering;

    #[test]
    fn what_cannot_be_written_stays_bounded_and_the_latest_word_holds() {
        let engine = Engine::new(Config::default(), Caller::new("checkout"), 1, 1);
        let (mut pending, tallies) = (Pending::new(100), Tallies::default());
        let call = |credential: u32, remaining: &str, second: u64| {
            let now = Timestamp::from_nanos((1_763_700_000 + second) * 1_000_000_000);
            let credential = format!("Bearer {credential}");
            let sent = [("authorization", credential.as_str())];
            let head = Head::new("GET", "https://api.example.com/v1/things");
            let said = [("x-ratelimit-limit", "100"), ("x-ratelimit-remaining", remaining)];
            let mut call = engine.begin(&head.headers(&sent.as_slice()), now, 7);
            let _ = call.step(&engine, now);
            call.answer(&engine, 200, &said.as_slice(), now);
            call.end(&engine, now);
        };
        for second in 0..10 {
            (0..1_000).for_each(|n| call(second * 1_000 + n, "99", second.into()));
            let now = Timestamp::from_nanos((1_763_700_000 + u64::from(second)) * 1_000_000_000);
            pending.add(engine.drain(now), &engine, &tallies);
        }
        assert_eq!(pending.quotas.len() as u64 + tallies.lost_quotas.load(Ordering::Relaxed), 10_000);
        let bounded = pending.quotas.len();
        call(5, "42", 11);
        pending.add(engine.drain(Timestamp::from_nanos(1_763_700_011_000_000_000)), &engine, &tallies);
        let remaining = pending.quotas.values().filter(|quota| quota.standing.remaining == Some(42));
        assert_eq!((remaining.count(), pending.quotas.len()), (1, bounded));
        assert!(bounded < 10_000);
    }
}
