//! Puts calls back from a copy: where the store was lost, or is an older one that was copied back.

use super::seal::{FILE, Keys, Purpose};
use super::store::{FileStore, Store, key_beside, moving};
use super::table::{New, State};
use super::{Inner, OutboxError};
use crate::outbox::file::Place;
use serde::Serialize;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

/// So many calls at once.
const MANY: usize = 500;

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

/// Puts back what `from` has and the store has not; with the dead letters, to be delivered, where `dead`.
pub(super) fn restore(inner: &Inner, from: &Path, dead: bool) -> Result<Restored, OutboxError> {
    let copy = FileStore::new(Place::at(from), Arc::default());
    if !copy.exists() {
        return Err(OutboxError::unavailable(from, "there is no such file"));
    }
    let store = inner.store()?;
    let beside = fs::read(key_beside(from)).ok().and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
    if let Some(key) = beside
        && store.newest_sealed().wait()?.is_none()
    {
        keep_key(&inner.home, &key)?;
    }
    let own = inner.keys()?;
    let all = own.with_another(beside);
    let mut done = Restored::default();
    // What is put back goes into the copies too, this one perhaps among them.
    let end = copy.look(moving::last)?;
    let states: &[State] = if dead { &[State::Pending, State::Dead] } else { &[State::Pending] };
    for state in states {
        let mut after = 0;
        loop {
            let mut calls = copy.look(|db| moving::whole(db, *state, after, MANY))?;
            calls.retain(|(id, _)| *id <= end);
            let Some((last, _)) = calls.last() else { break };
            after = *last;
            let names = calls.iter().map(|(_, new)| super::seal::name_of(&new.request).to_vec()).collect();
            let known = store.states(names).wait()?;
            let mut pending = Vec::new();
            for (_, new) in calls {
                if known.contains_key(super::seal::name_of(&new.request)) {
                    done.known += 1;
                } else {
                    pending.push(store.add(Arc::new(readable(new, &own, &all)?)));
                }
            }
            for pending in pending {
                pending.wait()?;
                done.restored += 1;
            }
        }
    }
    if !dead {
        let counts = copy.counts().wait()?;
        let dead = counts.iter().filter(|count| count.state == State::Dead).map(|count| count.calls);
        done.dead = usize::try_from(dead.sum::<u64>()).unwrap_or(usize::MAX);
    }
    store.restored();
    Ok(done)
}

/// The call under a key of this home directory.
fn readable(mut new: New, own: &Keys, all: &Keys) -> Result<New, OutboxError> {
    if !own.knows(&new.request) {
        let content = all.open(Purpose::Request, &new.idempotency_key, &new.request)?;
        new.request = own.seal(Purpose::Request, &new.idempotency_key, &[&content])?;
    }
    Ok(new)
}

/// Takes a copy's key for one that was lost with the home directory.
fn keep_key(home: &Path, key: &[u8; 32]) -> Result<(), OutboxError> {
    let wrong = |error: std::io::Error| OutboxError::unavailable(home, error);
    fs::create_dir_all(home).map_err(wrong)?;
    let new = OpenOptions::new().write(true).create_new(true).mode(0o600).open(home.join(FILE));
    let Ok(mut file) = new else { return Ok(()) };
    file.write_all(key).and_then(|()| file.sync_all()).map_err(wrong)?;
    crate::home::give_to_owner(home, &home.join(FILE));
    File::open(home).and_then(|home| home.sync_all()).map_err(wrong)
}
