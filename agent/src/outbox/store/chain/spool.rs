//! What the store did not take because it could not be reached: in the file of the home directory, until it goes on.

use super::super::super::table::{Count, Filter, Item, New, State, Whole};
use super::super::super::{OutboxError, Receipt, VendorCount, wall};
use super::super::moving::{self, States};
use super::{FileStore, Place, Store};
use std::collections::HashSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::Notify;

/// So many go on at once.
const MANY: usize = 200;
/// The process that has it locked forwards.
const LOCK: &str = "outbox.forward";

#[derive(Debug)]
pub(super) struct Spool {
    file: FileStore,
    lock: PathBuf,
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
        Self { file: FileStore::new(Place::new(home), committed), lock: home.join(LOCK) }
    }

    pub(super) fn file(&self) -> &FileStore {
        &self.file
    }

    pub(super) fn add(&self, new: &Arc<New>) -> Result<Receipt, OutboxError> {
        let mut receipt = self.file.add(Arc::clone(new)).wait()?;
        receipt.id = -receipt.id;
        Ok(receipt)
    }

    /// Whether calls wait in it, as far as can be told.
    pub(super) fn is_filled(&self) -> bool {
        self.file.exists()
            && self
                .file
                .look(|db| moving::whole(db, State::Pending, 0, 1))
                .is_ok_and(|calls| !calls.is_empty())
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
        self.file.vendors().wait()
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

    /// Gives calls to the store, in their order, unless another process does. Whether more wait.
    pub(super) fn forward(&self, store: &dyn Store) -> Result<bool, OutboxError> {
        let lock = File::create(&self.lock).map_err(|error| self.file.unavailable(&error))?;
        if lock.try_lock().is_err() {
            return Ok(true);
        }
        let calls = self.file.look(|db| moving::whole(db, State::Pending, 0, MANY))?;
        let more = calls.len() == MANY;
        let pending: Vec<_> = calls.into_iter().map(|(id, new)| (id, store.add(Arc::new(new)))).collect();
        let (mut went, mut gave_up, mut failed) = (Vec::new(), Vec::new(), None);
        for (id, pending) in pending {
            match pending.wait() {
                Ok(receipt) => went.push((id, receipt.id)),
                Err(error @ (OutboxError::Unreachable { .. } | OutboxError::Busy)) => failed = Some(error),
                // It never takes this one.
                Err(error) => gave_up.push((id, error.to_string())),
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
