//! Puts calls back from a copy: where the store was lost, or is an older one that was copied back.

use super::seal::{FILE, Keys, Purpose};
use super::store::copy::{self, Owner};
use super::table::{New, State};
use super::{Inner, OutboxError};
use crate::home::{give_to_owner, lock_file};
use farcall::config::OutboxPlace;
use serde::Serialize;
use std::collections::HashSet;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

/// So many calls at once.
const MANY: usize = 500;
/// Locked while calls are put back.
const LOCK: &str = "outbox.restore";

/// What a copy had.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Restored {
    /// Calls that were put back.
    pub restored: usize,
    /// Calls that were there, delivered or not.
    pub known: usize,
    /// Dead letters that were left where they are.
    pub dead: usize,
}

/// Puts back what `from` has of the outbox `of`, and the store has not; with the dead letters, to be delivered, where
/// `dead`.
pub(super) fn restore(
    inner: &Inner,
    from: &OutboxPlace,
    of: Option<&str>,
    dead: bool,
) -> Result<Restored, OutboxError> {
    let copy = copy::open(from, inner.timeout)?;
    copy.there()?;
    let name = copy.name();
    // It is read alone: whether its disk failed, or it never was an outbox, nothing has stopped for it.
    let wrong = |error| match error {
        OutboxError::CopyStopped { why, .. } => {
            let what = format!("it cannot be read as a copy of one: {why}");
            OutboxError::unavailable(name.as_ref(), what)
        }
        other => other,
    };
    let lost = owner(&name, copy.owners().wait().map_err(wrong)?, of)?;
    let store = inner.store()?;
    let _under_way = begin(&inner.home).map_err(|error| OutboxError::unavailable(&inner.home, error))?;
    let beside = copy.key();
    if let Some(key) = beside
        && store.newest_sealed().wait()?.is_none()
    {
        keep_key(&inner.home, &key)?;
    }
    let own = inner.keys()?;
    let all = own.with_another(beside);
    let mut done = Restored::default();
    // What is put back goes into the copies too, this one perhaps among them.
    let end = copy.last().wait().map_err(wrong)?;
    let mut seen = HashSet::new();
    let states: &[State] = if dead { &[State::Pending, State::Dead] } else { &[State::Pending] };
    for state in states {
        let mut ids = copy.in_order(&lost.store, *state).wait().map_err(wrong)?;
        ids.retain(|id| *id <= end);
        let mut left = ids.as_slice();
        while !left.is_empty() {
            let calls = copy.these(&left[..left.len().min(MANY)]).wait().map_err(wrong)?;
            // Those that are gone meanwhile were settled, or are another's to restore.
            let Some((last, _)) = calls.last() else {
                left = &left[left.len().min(MANY)..];
                continue;
            };
            left = left.iter().position(|id| id == last).map_or(&[], |place| &left[place + 1..]);
            let names = calls.iter().map(|(_, new)| super::seal::name_of(&new.request).to_vec()).collect();
            let known = store.states(names).wait()?;
            let mut pending = Vec::new();
            for (_, new) in calls {
                // A file has it twice that got what was put back from it before.
                if !seen.insert(super::seal::name_of(&new.request).to_vec()) {
                    continue;
                }
                if known.contains_key(super::seal::name_of(&new.request)) {
                    done.known += 1;
                } else {
                    let new = readable(new, &own, &all)?;
                    pending.push(store.add(Arc::new(if *state == State::Dead { anew(new) } else { new })));
                }
            }
            for pending in pending {
                pending.wait()?;
                done.restored += 1;
            }
        }
    }
    if !dead {
        done.dead = usize::try_from(lost.dead).unwrap_or(usize::MAX);
    }
    store.restored(&lost.store, &name);
    Ok(done)
}

/// From now on, until it is dropped, nobody takes calls out of the copies because the store has them not.
pub(super) fn begin(home: &Path) -> io::Result<File> {
    DirBuilder::new().recursive(true).mode(0o700).create(home)?;
    let file = open(home)?;
    lock_file(&file)?;
    Ok(file)
}

/// Nobody begins, until it is dropped; `None` where it is under way.
pub(super) fn none_under_way(home: &Path) -> Option<File> {
    let file = open(home).ok()?;
    file.try_lock_shared().ok()?;
    Some(file)
}

fn open(home: &Path) -> io::Result<File> {
    let file = home.join(LOCK);
    let opened = OpenOptions::new().append(true).create(true).mode(0o600).open(&file)?;
    give_to_owner(home, &file);
    Ok(opened)
}

/// Whose calls are put back: where there are those of one outbox, its.
fn owner(name: &str, owners: Vec<Owner>, of: Option<&str>) -> Result<Owner, OutboxError> {
    let found = match of {
        Some(of) => owners.iter().find(|owner| owner.store == of),
        None => owners.first().filter(|_| owners.len() == 1),
    };
    if let Some(owner) = found {
        return Ok(owner.clone());
    }
    let one = |owner: &Owner| {
        format!("  {}  {}: {} pending, {} dead", owner.store, owner.place, owner.pending, owner.dead)
    };
    let there = owners.iter().map(one).collect::<Vec<_>>().join("\n");
    Err(OutboxError::Whose(match (owners.is_empty(), of) {
        (true, _) => format!("there are no calls in the copy {name}"),
        (false, Some(of)) => format!("the copy {name} has no calls of the outbox {of}, but of\n{there}"),
        (false, None) => {
            format!("the copy {name} has calls of several outboxes; say with --of which:\n{there}")
        }
    }))
}

/// The call under a key of this home directory.
fn readable(mut new: New, own: &Keys, all: &Keys) -> Result<New, OutboxError> {
    if !own.knows(&new.request) {
        let content = all.open(Purpose::Request, &new.idempotency_key, &new.request)?;
        new.request = own.seal(Purpose::Request, &new.idempotency_key, &[&content])?;
    }
    Ok(new)
}

/// A dead letter that is delivered once more: at once, with its age counted from now.
fn anew(new: New) -> New {
    let now = new.clock.now();
    let age = new.expires_at.saturating_sub(new.put_at);
    New { next_at: now, expires_at: now.saturating_add(age), ..new }
}

/// Takes a copy's key for one that was lost with the home directory.
fn keep_key(home: &Path, key: &[u8; 32]) -> Result<(), OutboxError> {
    let wrong = |error: std::io::Error| OutboxError::unavailable(home, error);
    let new = OpenOptions::new().write(true).create_new(true).mode(0o600).open(home.join(FILE));
    let Ok(mut file) = new else { return Ok(()) };
    file.write_all(key).and_then(|()| file.sync_all()).map_err(wrong)?;
    give_to_owner(home, &home.join(FILE));
    File::open(home).and_then(|home| home.sync_all()).map_err(wrong)
}
