//! What the store did not take because it could not be reached or was of no use: in the file of the home directory, until it goes on.

use super::super::super::table::{Count, Filter, Item, New, State, Whole};
use super::super::super::{OutboxError, Receipt, VendorCount};
use super::super::moving::{self, States};
use super::forward::{AGAIN, Lap, forward};
use super::{FileStore, Store};
use crate::say;
use std::collections::HashSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The process that has it locked forwards.
const LOCK: &str = "outbox.forward";

#[derive(Debug)]
pub(super) struct Spool {
    file: Arc<FileStore>,
    lock: PathBuf,
    /// Whether it was said that calls wait in it.
    said: AtomicBool,
    lap: Mutex<Lap>,
}

/// Where a call is that was put into the spool.
pub(super) enum Found {
    Here(Box<Whole>),
    /// In the store, under this number.
    Went(i64),
    Nowhere,
}

impl Spool {
    /// `file` is the one of the home directory.
    pub(super) fn new(home: &Path, file: Arc<FileStore>) -> Self {
        Self { file, lock: home.join(LOCK), said: AtomicBool::new(false), lap: Mutex::default() }
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
        let filled = self.file.exists() && self.file.look(moving::any_pending).unwrap_or(false);
        if !filled && self.said.swap(false, Ordering::AcqRel) {
            say::say(&format!("no call waits in {} any longer", self.file.place().file().display()));
        }
        filled
    }

    /// The beginning of what was sealed last of what waits in it.
    pub(super) fn newest_sealed(&self) -> Result<Option<Vec<u8>>, OutboxError> {
        self.file.look(moving::newest_sealed)
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

    /// How many wait in it, how many of them the store refused when it was asked last, and why the oldest of those.
    pub(super) fn waiting(&self) -> Result<(u64, u64, Option<String>), OutboxError> {
        match self.file.exists() {
            true => self.file.look(|db| moving::waiting(db).map(Some)).map(Option::unwrap_or_default),
            false => Ok((0, 0, None)),
        }
    }

    /// Gives calls to the store, unless another process does. How long until there may be more to do.
    pub(super) fn forward(&self, store: &dyn Store) -> Result<Duration, OutboxError> {
        let lock = File::create(&self.lock).map_err(|error| self.file.unavailable(&error))?;
        if lock.try_lock().is_err() {
            return Ok(AGAIN);
        }
        let mut lap = self.lap.lock().unwrap_or_else(PoisonError::into_inner);
        forward(self, &mut lap, store)
    }
}

fn renumbered(mut item: Item) -> Item {
    item.id = -item.id;
    item
}
