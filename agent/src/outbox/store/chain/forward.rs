//! How the spool's calls go on to the store. One that the store refuses holds up the later ones of its key and nobody
//! else: the others go on around it, and it is tried again later and later, until it is too old.

use super::super::super::OutboxError;
use super::super::super::clock::Ahead;
use super::super::super::table::New;
use super::super::moving;
use super::Store;
use super::spool::Spool;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// So many are given to the store before anybody else has his turn.
const MANY: usize = 200;
/// So many bytes at once.
const BYTES: usize = 16 * 1024 * 1024;
/// So many numbers are looked at for them.
const LOOKED: usize = 1_000;
/// So soon again is tried a store that took nothing.
pub(super) const AGAIN: Duration = Duration::from_secs(1);
/// So late at the latest is tried again what was refused.
const LATEST: Duration = Duration::from_secs(30);
/// Of so many it is remembered when to try them again.
const MAX_REFUSED: usize = 10_000;

/// Where a process is in the spool. It goes through it again and again, since what was refused may be taken later.
#[derive(Debug, Default)]
pub(super) struct Lap {
    /// All up to this one had their turn.
    after: i64,
    laps: u32,
    /// The first one that was pending in this lap.
    first: Option<i64>,
    refused: HashMap<i64, Refused>,
}

#[derive(Debug)]
struct Refused {
    again: Instant,
    wait: Duration,
}

/// What became of some calls.
#[derive(Default)]
struct Outcome {
    /// Their numbers here and there.
    went: Vec<(i64, i64)>,
    gave_up: Vec<(i64, String)>,
    refused: Vec<(i64, String)>,
    /// The store took nothing.
    failed: Option<OutboxError>,
}

impl Lap {
    /// The next calls that may be tried, by their numbers; `true` where the lap is over with them.
    fn next(&mut self, spool: &Spool, now: Instant) -> Result<(Vec<i64>, bool), OutboxError> {
        let heads = spool.file().look(|db| moving::heads(db, self.after, LOOKED))?;
        self.first = self.first.or(heads.first().copied());
        let mut over = heads.len() < LOOKED;
        let mut after = heads.last().copied();
        let due = |id: &i64| self.refused.get(id).is_none_or(|refused| refused.again <= now);
        let mut due: Vec<i64> = heads.into_iter().filter(due).collect();
        if due.len() > MANY {
            due.truncate(MANY);
            (over, after) = (false, due.last().copied());
        }
        self.after = after.unwrap_or(self.after);
        Ok((due, over))
    }

    /// The next lap begins where calls were pending in this one, and now and then where the file begins: what was
    /// given up may be pending once more.
    fn again(&mut self) {
        self.laps = self.laps.wrapping_add(1);
        let first = self.first.take().filter(|_| !self.laps.is_multiple_of(16));
        self.after = first.map_or(0, |first| first - 1);
    }

    fn refused(&mut self, id: i64, now: Instant) {
        if self.refused.len() >= MAX_REFUSED {
            self.refused.clear();
        }
        let refused = self.refused.entry(id).or_insert(Refused { again: now, wait: AGAIN / 2 });
        refused.wait = (refused.wait * 2).min(LATEST);
        refused.again = now + refused.wait;
    }
}

/// Gives some calls to the store, those of one key in their order. How long until there may be more to do.
pub(super) fn forward(spool: &Spool, lap: &mut Lap, store: &dyn Store) -> Result<Duration, OutboxError> {
    let (begun, began_at) = (Instant::now(), lap.after);
    let (mut ids, over) = lap.next(spool, begun)?;
    let tried = !ids.is_empty();
    let mut outcome = Outcome::default();
    let mut room = MANY;
    while !ids.is_empty() && outcome.failed.is_none() {
        ids.truncate(room);
        let calls = read(spool, &ids)?;
        let loaded: HashSet<i64> = calls.iter().map(|(id, _)| *id).collect();
        room = room.saturating_sub(calls.len());
        let mut next = Vec::new();
        let all: Vec<_> = calls
            .into_iter()
            .map(|(id, new)| {
                let new = Arc::new(new);
                (id, Arc::clone(&new), store.add(new))
            })
            .collect();
        for (id, new, pending) in all {
            let went = outcome.note(id, &new, pending.wait());
            if went && let Some(key) = &new.order_key {
                next.extend(spool.file().look(|db| moving::behind(db, &new.queue, key, id))?);
            }
        }
        // Those for which there was no room.
        next.extend(ids.iter().filter(|id| !loaded.contains(id)));
        ids = if loaded.is_empty() || room == 0 { Vec::new() } else { next };
    }
    outcome.write(spool)?;
    let progress = !outcome.went.is_empty() || !outcome.gave_up.is_empty();
    let now = Instant::now();
    for id in outcome.went.iter().map(|(id, _)| id).chain(outcome.gave_up.iter().map(|(id, _)| id)) {
        lap.refused.remove(id);
    }
    outcome.refused.iter().for_each(|(id, _)| lap.refused(*id, now));
    if let Some(error) = outcome.failed {
        // They have their turn again.
        lap.after = began_at;
        return Err(error);
    }
    if over {
        lap.again();
    }
    Ok(if progress || (!tried && !over) { Duration::ZERO } else { AGAIN })
}

/// The pending ones of these calls, as many as there is room for.
pub(super) fn read(spool: &Spool, ids: &[i64]) -> Result<Vec<(i64, New)>, OutboxError> {
    spool.file().look(|db| {
        let db = &db.unchecked_transaction()?;
        moving::pending(db, ids, BYTES)
    })
}

impl Outcome {
    /// Whether it went on.
    fn note(&mut self, id: i64, new: &New, answer: Result<super::Receipt, OutboxError>) -> bool {
        match answer {
            Ok(receipt) => {
                self.went.push((id, receipt.id));
                return true;
            }
            // It never takes this one.
            Err(error @ OutboxError::Invalid(_)) => self.gave_up.push((id, error.to_string())),
            Err(error @ (OutboxError::Unreachable { .. } | OutboxError::Busy)) => self.failed = Some(error),
            Err(error) if new.expires_at <= new.clock.now() => {
                self.gave_up.push((id, format!("it grew too old before it was taken: {error}")));
            }
            // Its disk may be full, or another server the primary: the call was acknowledged, and waits.
            Err(error) => self.refused.push((id, error.to_string())),
        }
        false
    }

    fn write(&self, spool: &Spool) -> Result<(), OutboxError> {
        let (went, gave_up, refused) = (self.went.clone(), self.gave_up.clone(), self.refused.clone());
        if went.is_empty() && gave_up.is_empty() && refused.is_empty() {
            return Ok(());
        }
        let work = move |db: &rusqlite::Transaction<'_>| {
            let now = Ahead::of(db)?.now();
            went.iter().try_for_each(|(id, there)| moving::went(db, *id, *there, now))?;
            gave_up.iter().try_for_each(|(id, error)| moving::give_up(db, *id, error, now))?;
            refused.iter().try_for_each(|(id, error)| moving::refused(db, *id, error))
        };
        spool.file().write(0, work).wait()
    }
}
