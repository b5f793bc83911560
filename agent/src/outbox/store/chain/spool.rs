//! What the store did not take because it could not be reached or was of no use: in the file of the home directory, until it goes on.

use super::super::super::table::{Count, Filter, Item, New, State, Whole};
use super::super::super::{OutboxError, Receipt, VendorCount, wall};
use super::super::moving::{self, States};
use super::{FileStore, FirstOfKey, Place, Store};
use crate::say;
use std::collections::HashSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::Notify;

/// So many go on at once.
const MANY: usize = 200;
/// The process that has it locked forwards.
const LOCK: &str = "outbox.forward";

#[derive(Debug)]
pub(super) struct Spool {
    file: FileStore,
    lock: PathBuf,
    /// Whether it was said that calls wait in it.
    said: AtomicBool,
}

/// Where a call is that was put into the spool.
pub(super) enum Found {
    Here(Box<Whole>),
    /// In the store, under this number.
    Went(i64),
    Nowhere,
}

impl Spool {
    pub(super) fn new(home: &Path, committed: Arc<Notify>) -> Self {
        Self {
            file: FileStore::new(Place::new(home), committed),
            lock: home.join(LOCK),
            said: AtomicBool::new(false),
        }
    }

    pub(super) fn file(&self) -> &FileStore {
        &self.file
    }

    /// `why` the store did not take it, which is said once until all went on.
    pub(super) fn add(&self, new: &Arc<New>, why: Option<&OutboxError>) -> Result<Receipt, OutboxError> {
        let mut receipt = self.file.add(Arc::clone(new)).wait()?;
        if let Some(why) = why.filter(|_| !self.said.swap(true, Ordering::AcqRel)) {
            let file = self.file.place().file().display();
            say::say(&format!("calls are kept in {file} until the outbox takes them: {why}"));
        }
        receipt.id = -receipt.id;
        Ok(receipt)
    }

    /// Whether calls wait in it, as far as can be told.
    pub(super) fn is_filled(&self) -> bool {
        let there = || self.file.look(|db| moving::whole(db, State::Pending, 0, 1));
        let filled = self.file.exists() && there().is_ok_and(|calls| !calls.is_empty());
        if !filled && self.said.swap(false, Ordering::AcqRel) {
            say::say(&format!("no call waits in {} any longer", self.file.place().file().display()));
        }
        filled
    }

    /// Whether calls of this one's key wait in it. Where that cannot be said they may.
    pub(super) fn has_line(&self, new: &New) -> bool {
        let Some(key) = &new.order_key else { return false };
        self.file.exists() && self.file.look(|db| moving::has_line(db, &new.queue, key)).unwrap_or(true)
    }

    pub(super) fn get(&self, id: i64) -> Result<Found, OutboxError> {
        if let Some(there) = self.file.look(|db| moving::number_there(db, id))? {
            return Ok(Found::Went(there));
        }
        Ok(match self.file.get(id).wait()? {
            Some((item, request, response)) => Found::Here(Box::new((renumbered(item), request, response))),
            None => Found::Nowhere,
        })
    }

    pub(super) fn list(&self, filter: &Filter) -> Result<Vec<Item>, OutboxError> {
        let items = self.file.list(filter).wait()?;
        Ok(items.into_iter().filter(|item| item.state != State::Delivered).map(renumbered).collect())
    }

    pub(super) fn counts(&self) -> Result<Vec<Count>, OutboxError> {
        let counts = self.file.counts().wait()?;
        Ok(counts.into_iter().filter(|count| count.state != State::Delivered).collect())
    }

    /// What it has by service, vendor and endpoint.
    pub(super) fn vendors(&self) -> Result<Vec<VendorCount>, OutboxError> {
        let counts = self.file.vendors().wait()?;
        Ok(counts.into_iter().filter(|count| count.pending + count.dead > 0).collect())
    }

    pub(super) fn states(&self, names: Vec<Vec<u8>>) -> Result<States, OutboxError> {
        // Those that went on are the store's to tell.
        let names: HashSet<Vec<u8>> = names.into_iter().collect();
        let mut states = States::new();
        let mut after = 0;
        loop {
            let part = self.file.look(|db| moving::copied(db, after, 1_000))?;
            let Some(last) = part.last() else { return Ok(states) };
            after = last.id;
            let here = part.into_iter().filter(|call| call.state != State::Delivered);
            states.extend(here.filter(|call| names.contains(&call.name)).map(|call| (call.name, call.state)));
        }
    }

    /// Forgets what went on, or was given up, so long ago; nobody waits for it.
    pub(super) fn tidy(&self, age: Duration) {
        if self.file.exists() {
            drop(self.file.tidy(age, age));
        }
    }

    /// Gives calls to the store, in their order, unless another process does. Whether more wait.
    pub(super) fn forward(&self, store: &dyn Store) -> Result<bool, OutboxError> {
        let lock = File::create(&self.lock).map_err(|error| self.file.unavailable(&error))?;
        if lock.try_lock().is_err() {
            return Ok(true);
        }
        let calls = self.file.look(|db| moving::whole(db, State::Pending, 0, MANY))?;
        let many = calls.len();
        // One that is refused must not be overtaken by the next of its key.
        let mut keys = FirstOfKey::default();
        let calls: Vec<_> = calls.into_iter().filter(|(_, new)| keys.is_first(new)).collect();
        let more = many == MANY || calls.len() < many;
        let pending: Vec<_> = calls.into_iter().map(|(id, new)| (id, store.add(Arc::new(new)))).collect();
        let (mut went, mut gave_up, mut failed) = (Vec::new(), Vec::new(), None);
        for (id, pending) in pending {
            match pending.wait() {
                Ok(receipt) => went.push((id, receipt.id)),
                // It never takes this one.
                Err(error @ OutboxError::Invalid(_)) => gave_up.push((id, error.to_string())),
                // Its disk may be full, or another server the primary: the call was acknowledged, and waits.
                Err(error) => failed = Some(error),
            }
        }
        if !went.is_empty() || !gave_up.is_empty() {
            let now = wall();
            let work = move |db: &rusqlite::Transaction<'_>| {
                went.iter().try_for_each(|(id, there)| moving::went(db, *id, *there, now))?;
                gave_up.iter().try_for_each(|(id, error)| moving::give_up(db, *id, error, now))
            };
            self.file.write(0, work).wait()?;
        }
        failed.map_or(Ok(more), Err)
    }
}

fn renumbered(mut item: Item) -> Item {
    item.id = -item.id;
    item
}

#[cfg(test)]
mod tests {
    use super::super::super::super::nanos;
    use super::super::super::super::seal::{Keys, Purpose};
    use super::*;
    use std::time::Instant;

    fn call(keys: &Keys) -> Arc<New> {
        let now = wall();
        Arc::new(New {
            queue: "q".into(),
            order_key: None,
            put_at: now,
            next_at: now,
            expires_at: now + nanos(Duration::from_secs(86_400)),
            max_attempts: None,
            method: "POST".into(),
            vendor: "v".into(),
            endpoint: String::new(),
            host: "h".into(),
            customer: None,
            idempotency_key: "k".into(),
            bytes: 3,
            request: keys.seal(Purpose::Request, "k", &[b"abc"]).unwrap(),
        })
    }

    #[test]
    fn what_the_store_cannot_take_now_waits_and_its_old_number_is_forgotten_in_time() {
        let home = tempfile::tempdir().unwrap();
        let keys = Keys::of(home.path(), None).unwrap();
        let spool = Spool::new(home.path(), Arc::default());
        let id = -spool.add(&call(&keys), None).unwrap().id;
        // Reached, and yet of no use: as a server whose disk is full, or that is a standby now.
        let place = home.path().join("later");
        let store = FileStore::new(Place::at(&place.join("outbox.db")), Arc::default());
        assert!(matches!(spool.forward(&store), Err(OutboxError::Unavailable { .. })));
        let Found::Here(whole) = spool.get(id).unwrap() else { panic!("it is there") };
        assert_eq!(whole.0.state, State::Pending);
        std::fs::create_dir(&place).unwrap();
        assert!(!spool.forward(&store).unwrap());
        let Found::Went(there) = spool.get(id).unwrap() else { panic!("it went on") };
        assert!(store.get(there).wait().unwrap().is_some());
        let begun = Instant::now();
        while !matches!(spool.get(id).unwrap(), Found::Nowhere) {
            assert!(begun.elapsed() < Duration::from_secs(60));
            spool.tidy(Duration::ZERO);
        }
    }
}
