//! A store with others beside it: copies that have each call before it is acknowledged, and a spool for when the
//! store cannot be reached.

mod complete;
mod copies;
mod forward;
mod spool;
#[cfg(test)]
mod tests;
mod thread;

use super::super::lease::Lease;
use super::super::metrics::Standings;
use super::super::pending::Pending;
use super::super::seal::name_of;
use super::super::table::{Count, Filter, Item, New, Settlement, Whole};
use super::super::{Beside, OutboxError, Receipt, VendorCount, wall};
use super::moving::{self, States};
use super::{Due, FileStore, Grant, Sealed, Store, Unserved, Waits, Wanted};
use crate::alarm::Alarm;
use crate::say;
use copies::{Copies, InCopies};
use farcall::config::OutboxStore;
use spool::Spool;
use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use thread::Thread;

/// A store and what is beside it. Calls in the spool have negative numbers.
#[derive(Debug)]
pub(in super::super) struct Chain {
    links: Arc<Links>,
    thread: Thread,
}

/// What a call goes through: the copies, then the store, or else the spool.
#[derive(Debug)]
pub(super) struct Links {
    store: Arc<dyn Store>,
    /// That of the home directory, where it is written down what was not copied.
    file: Arc<FileStore>,
    copies: Copies,
    spool: Option<Spool>,
}

impl Chain {
    /// `store` with what the settings ask for beside it; itself where that is nothing. `file` is the one of the home
    /// directory, whether it is the store or not.
    pub(in super::super) fn around(
        store: Arc<dyn Store>,
        file: Arc<FileStore>,
        home: &Path,
        settings: &OutboxStore,
        alarm: Option<Arc<Alarm>>,
    ) -> Arc<dyn Store> {
        if settings.copies.is_empty() && !settings.spool {
            return store;
        }
        let copies = Copies::new(home, settings, alarm);
        let spool = settings.spool.then(|| Spool::new(home, Arc::clone(&file)));
        let links = Arc::new(Links { store, file, copies, spool });
        Arc::new(Self { thread: Thread::new(Arc::clone(&links)), links })
    }

    /// Sees that what is in the spool goes on.
    fn look_after_spool(&self) {
        if self.links.spool.as_ref().is_some_and(Spool::is_filled) {
            self.thread.wake();
        }
    }
}

impl Links {
    /// Takes calls, in this order: each is in enough copies first.
    fn add(&self, news: &[Arc<New>]) -> Vec<Result<Receipt, OutboxError>> {
        let copied = self.copies.add(news);
        self.note(news, &copied);
        // Where the store may refuse one that the spool takes, the next of its key is not handed over before that is
        // known.
        let mut keys = FirstOfKey::default();
        let stored: Vec<_> = news
            .iter()
            .zip(&copied)
            .map(|(new, copied)| {
                let first = self.spool.is_none() || keys.is_first(new);
                (copied.is_enough() && first && !self.overtakes(new)).then(|| self.store.add(Arc::clone(new)))
            })
            .collect();
        let mut answers = Vec::with_capacity(news.len());
        for ((new, copied), stored) in news.iter().zip(copied).zip(stored) {
            let answer = match copied.missing() {
                Some(error) => Err(error),
                None => self.store_or_spool(new, stored),
            };
            if answer.is_err() {
                self.copies.take_back(copied);
            }
            answers.push(answer);
        }
        answers
    }

    /// Writes down which of these calls are taken into fewer copies than they should be in, before anybody is told that
    /// they are taken.
    fn note(&self, news: &[Arc<New>], copied: &[InCopies]) {
        let short = |(_, copied): &(&Arc<New>, &InCopies)| copied.is_short() && copied.is_enough();
        let short = news.iter().zip(copied).filter(short);
        let names: Vec<Vec<u8>> = short.map(|(new, _)| name_of(&new.request).to_vec()).collect();
        if names.is_empty() {
            return;
        }
        let noted = self.file.write(0, move |db| moving::note_uncopied(db, &names, wall())).wait();
        if let Err(error) = noted {
            say::say(&format!("calls that are taken without their copies will not be copied later: {error}"));
        }
    }

    /// `stored`: what the store says, where it was asked already.
    fn store_or_spool(
        &self,
        new: &Arc<New>,
        stored: Option<Pending<Receipt>>,
    ) -> Result<Receipt, OutboxError> {
        let stored = stored.or_else(|| (!self.overtakes(new)).then(|| self.store.add(Arc::clone(new))));
        match stored.map(Pending::wait) {
            None => self.to_spool(new, None),
            // Also a server that is reached: a standby, or one without room.
            Some(Err(error)) if self.spool.is_some() && error.is_passing() => {
                self.to_spool(new, Some(&error))
            }
            Some(answer) => answer,
        }
    }

    /// How calls with these names stand, wherever they are.
    fn states(&self, names: Vec<Vec<u8>>) -> Result<States, OutboxError> {
        // In this order: calls go from the spool to the store, and one that goes meanwhile must not be missed in both.
        let mut states =
            self.spool.as_ref().map(|spool| spool.states(names.clone())).transpose()?.unwrap_or_default();
        states.extend(self.store.states(names).wait()?);
        Ok(states)
    }

    /// Whether calls of its key wait in the spool.
    fn overtakes(&self, new: &New) -> bool {
        self.spool.as_ref().is_some_and(|spool| spool.has_line(new))
    }

    /// `why` the store did not take it, where it was asked.
    fn to_spool(&self, new: &Arc<New>, why: Option<&OutboxError>) -> Result<Receipt, OutboxError> {
        match &self.spool {
            Some(spool) => spool.add(new, why),
            None => Err(OutboxError::Busy),
        }
    }
}

/// Which of some calls is the first of its order key.
#[derive(Debug, Default)]
struct FirstOfKey(HashSet<(String, String)>);

impl FirstOfKey {
    fn is_first(&mut self, new: &New) -> bool {
        new.order_key.as_ref().is_none_or(|key| self.0.insert((new.queue.clone(), key.clone())))
    }
}

/// A number in the spool, where it is one.
fn spooled(id: i64) -> Option<i64> {
    (id < 0).then(|| id.saturating_neg())
}

impl Store for Chain {
    fn exists(&self) -> bool {
        self.links.store.exists()
    }

    fn is_shared(&self) -> bool {
        self.links.store.is_shared()
    }

    fn add(&self, new: Arc<New>) -> Pending<Receipt> {
        self.thread.add(new)
    }

    /// Of the store, else of what waits in the spool: under another key nobody could read that where it goes on to.
    fn newest_sealed(&self) -> Pending<Option<Vec<u8>>> {
        let newest = || match (self.links.store.newest_sealed().wait()?, &self.links.spool) {
            (None, Some(spool)) => spool.newest_sealed(),
            (newest, _) => Ok(newest),
        };
        Pending::ready(newest())
    }

    fn get(&self, id: i64) -> Pending<Option<Whole>> {
        match (&self.links.spool, spooled(id)) {
            (Some(spool), Some(id)) => match spool.get(id) {
                Ok(spool::Found::Went(there)) => self.links.store.get(there),
                Ok(spool::Found::Here(whole)) => Pending::ready(Ok(Some(*whole))),
                Ok(spool::Found::Nowhere) => Pending::ready(Ok(None)),
                Err(error) => Pending::ready(Err(error)),
            },
            _ => self.links.store.get(id),
        }
    }

    fn list(&self, filter: &Filter) -> Pending<Vec<Item>> {
        let list = || {
            let mut items = self.links.store.list(filter).wait()?;
            items.extend(self.waiting_here(filter)?);
            if filter.limit > 0 {
                items.truncate(filter.limit);
            }
            Ok(items)
        };
        Pending::ready(list())
    }

    fn waiting_here(&self, filter: &Filter) -> Result<Vec<Item>, OutboxError> {
        self.links.spool.as_ref().map_or(Ok(Vec::new()), |spool| spool.list(filter))
    }

    fn counts(&self) -> Pending<Vec<Count>> {
        let count = || {
            let mut counts = self.links.store.counts().wait()?;
            for here in self.links.spool.as_ref().map_or(Ok(Vec::new()), Spool::counts)? {
                here.merge_into(&mut counts);
            }
            Ok(counts)
        };
        Pending::ready(count())
    }

    fn vendors(&self) -> Pending<Vec<VendorCount>> {
        let count = || {
            let mut counts = self.links.store.vendors().wait()?;
            // What went on since is the store's to count.
            for here in self.links.spool.as_ref().map_or(Ok(Vec::new()), Spool::vendors)? {
                VendorCount { delivered: 0, ..here }.merge_into(&mut counts);
            }
            Ok(counts)
        };
        Pending::ready(count())
    }

    fn standings(&self, service: &str, stop: &AtomicBool) -> Result<Standings, OutboxError> {
        let mut standings = self.links.store.standings(service, stop)?;
        if let Some(spool) = &self.links.spool {
            standings.add_all(spool.file().standings(service, stop)?);
        }
        Ok(standings)
    }

    fn unserved(&self) -> Result<Vec<Unserved>, OutboxError> {
        self.links.store.unserved()
    }

    fn sealed(&self) -> Result<Vec<Sealed>, OutboxError> {
        let mut sealed = self.links.store.sealed()?;
        if let Some(spool) = &self.links.spool {
            sealed.extend(spool.file().sealed()?);
        }
        Ok(sealed)
    }

    fn retry(&self, ids: Vec<i64>) -> Pending<usize> {
        self.both(ids, |store, ids| store.retry(ids))
    }

    fn remove(&self, ids: Vec<i64>) -> Pending<usize> {
        self.both(ids, |store, ids| store.remove(ids))
    }

    fn waits(&self, queue: &str, ours: bool) -> Pending<Waits> {
        self.look_after_spool();
        self.links.store.waits(queue, ours)
    }

    fn take(&self, queue: &str) -> Pending<Option<Grant>> {
        self.links.store.take(queue)
    }

    fn renew(&self, queue: &str, token: i64) -> Pending<Option<Lease>> {
        self.links.store.renew(queue, token)
    }

    fn release(&self, queue: &str, token: i64) -> Pending<()> {
        self.links.store.release(queue, token)
    }

    fn due(&self, wanted: Wanted) -> Pending<Option<Due>> {
        self.look_after_spool();
        self.links.store.due(wanted)
    }

    fn settle(&self, token: i64, item: &Item, settlement: Arc<Settlement>) -> Pending<bool> {
        self.links.store.settle(token, item, settlement)
    }

    fn tidy(&self, delivered: Duration, dead: Duration) -> Pending<bool> {
        self.thread.compare();
        if let Some(spool) = &self.links.spool {
            spool.tidy(dead);
        }
        self.links.store.tidy(delivered, dead)
    }

    fn states(&self, names: Vec<Vec<u8>>) -> Pending<States> {
        Pending::ready(self.links.states(names))
    }

    fn named(&self, names: Vec<Vec<u8>>) -> Pending<Vec<New>> {
        self.links.store.named(names)
    }

    fn beside(&self) -> Result<Beside, OutboxError> {
        let mut beside = Beside::default();
        if let Some(spool) = &self.links.spool {
            (beside.spooled, beside.refused, beside.why) = spool.waiting()?;
        }
        beside.uncopied = self.links.file.look(moving::many_uncopied)?;
        self.links.copies.stand(&mut beside);
        Ok(beside)
    }

    fn identity(&self) -> Pending<String> {
        self.links.store.identity()
    }

    fn name(&self) -> String {
        self.links.store.name()
    }

    fn restored(&self, lost: &str, from: &str) {
        self.links.copies.adopt_all(&*self.links.store, lost, from);
    }

    fn rest(&self) {
        self.links.store.rest();
    }

    fn pause(&self) {
        self.thread.pause();
        self.links.store.pause();
        self.links.copies.pause();
        self.links.file.pause();
    }

    fn is_open(&self) -> bool {
        self.links.file.is_open() || self.links.store.is_open() || self.links.copies.is_open()
    }

    fn stopped(&self) -> Result<(), OutboxError> {
        self.links.store.stopped()?;
        self.links.spool.as_ref().map_or(Ok(()), |spool| spool.file().stopped())
    }

    fn resume(&self) -> Result<(), OutboxError> {
        self.links.store.resume()?;
        if let Some(spool) = &self.links.spool {
            spool.file().resume()?;
        }
        self.links.copies.resume()
    }

    fn unavailable(&self, what: &dyn std::fmt::Display) -> OutboxError {
        self.links.store.unavailable(what)
    }
}

impl Chain {
    /// Does something to calls in the store and to those in the spool; how many there were.
    fn both(&self, ids: Vec<i64>, work: impl Fn(&dyn Store, Vec<i64>) -> Pending<usize>) -> Pending<usize> {
        let Some(spool) = &self.links.spool else { return work(&*self.links.store, ids) };
        let (here, there): (Vec<i64>, Vec<i64>) = ids.into_iter().partition(|id| *id < 0);
        let here = here.into_iter().filter_map(spooled).collect();
        let done = || {
            let many = if there.is_empty() { 0 } else { work(&*self.links.store, there).wait()? };
            Ok(many + work(spool.file(), here).wait()?)
        };
        Pending::ready(done())
    }
}
