//! The file in the home directory.

use super::super::clock::Ahead;
use super::super::file::Place;
use super::super::lease::{self, Lease};
use super::super::metrics::Standings;
use super::super::pending::Pending;
use super::super::table::{self, Count, Filter, Item, New, Settlement, Whole};
use super::super::writer::Writer;
use super::super::{OutboxError, Receipt, VendorCount, nanos, vendors};
use super::moving::{self, States};
use super::{Due, Grant, PATIENCE, Sealed, Store, Unserved, Waits, Wanted};
use crate::outbox::deliver::FARTHEST;
use rusqlite::{Connection, Transaction};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

/// One SQLite file, which the processes of this host share.
#[derive(Debug)]
pub(in super::super) struct FileStore {
    place: Place,
    writer: Writer,
    /// Delivery's, and the file that it has open.
    reader: Mutex<Option<(Connection, u64)>>,
    /// How many have the file open to read.
    reading: AtomicUsize,
}

impl FileStore {
    /// `committed` rings after each commit.
    pub(in super::super) fn new(place: Place, committed: Arc<Notify>) -> Self {
        Self {
            writer: Writer::new(place.clone(), committed),
            place,
            reader: Mutex::new(None),
            reading: AtomicUsize::new(0),
        }
    }

    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// Asks with a connection of its own; the default where there is no file.
    pub(in crate::outbox) fn look<T: Default>(
        &self,
        question: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, OutboxError> {
        self.reading.fetch_add(1, Ordering::AcqRel);
        let ask = || match self.place.open_for_reading()? {
            Some(connection) => question(&connection).map_err(|error| self.place.failure(&error)),
            None => Ok(T::default()),
        };
        let answer = ask();
        self.reading.fetch_sub(1, Ordering::AcqRel);
        answer
    }

    /// Asks for moments that people read by the wall clock, together with what shows them by that: in the file they are
    /// by the clock from before a jump until somebody writes there.
    pub(super) fn look_by_wall<T: Default>(
        &self,
        question: impl FnOnce(&Connection, &dyn Fn(i64) -> i64) -> rusqlite::Result<T>,
    ) -> Result<T, OutboxError> {
        self.look(|connection| {
            // As of one commit.
            let connection = &connection.unchecked_transaction()?;
            let (clock, wall) = (Ahead::of(connection)?, Ahead::wall());
            question(connection, &|moment| clock.moved(moment, wall))
        })
    }

    /// Asks with delivery's connection, which stays open; the default where there is no file.
    fn read<T: Default>(
        &self,
        question: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, OutboxError> {
        let mut reader = self.reader();
        // What is in one that was removed or replaced is not to be delivered any more.
        let inode = self.place.inode().unwrap_or_default();
        if reader.take_if(|(_, open)| *open != inode).is_some() {
            self.reading.fetch_sub(1, Ordering::AcqRel);
        }
        if reader.is_none() {
            self.reading.fetch_add(1, Ordering::AcqRel);
            match self.place.open_for_reading() {
                Ok(Some(connection)) => *reader = Some((connection, inode)),
                other => {
                    self.reading.fetch_sub(1, Ordering::AcqRel);
                    return other.map(|_| T::default());
                }
            }
        }
        match reader.as_ref() {
            Some((connection, _)) => question(connection).map_err(|error| self.place.failure(&error)),
            None => Ok(T::default()),
        }
    }

    pub(super) fn write<T: Send + 'static>(
        &self,
        bytes: usize,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Pending<T> {
        self.writer.submit(bytes, work)
    }

    fn reader(&self) -> MutexGuard<'_, Option<(Connection, u64)>> {
        self.reader.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for FileStore {
    fn exists(&self) -> bool {
        self.place.exists()
    }

    fn add(&self, new: Arc<New>) -> Pending<Receipt> {
        // Whoever delivers looks often enough by itself for what is not due yet.
        let soon = new.next_at - new.put_at < nanos(Duration::from_secs(1));
        self.writer.put(new, soon)
    }

    fn get(&self, id: i64) -> Pending<Option<Whole>> {
        Pending::ready(self.look_by_wall(|connection, by_wall| {
            let mut whole = table::get(connection, id)?;
            if let Some((item, ..)) = &mut whole {
                item.show(by_wall);
            }
            Ok(whole)
        }))
    }

    fn newest_sealed(&self) -> Pending<Option<Vec<u8>>> {
        Pending::ready(self.look(table::newest_sealed))
    }

    fn list(&self, filter: &Filter) -> Pending<Vec<Item>> {
        Pending::ready(self.look_by_wall(|connection, by_wall| {
            let mut items = table::list(connection, filter)?;
            items.iter_mut().for_each(|item| item.show(by_wall));
            Ok(items)
        }))
    }

    fn counts(&self) -> Pending<Vec<Count>> {
        Pending::ready(self.look_by_wall(|connection, by_wall| {
            let mut counts = table::counts(connection)?;
            counts.iter_mut().for_each(|count| count.oldest = by_wall(count.oldest));
            Ok(counts)
        }))
    }

    fn vendors(&self) -> Pending<Vec<VendorCount>> {
        Pending::ready(self.look_by_wall(|connection, by_wall| {
            let mut counts = vendors::of_file(connection)?;
            counts.iter_mut().for_each(|count| count.oldest = count.oldest.map(by_wall));
            Ok(counts)
        }))
    }

    fn standings(&self, service: &str, stop: &AtomicBool) -> Result<Standings, OutboxError> {
        self.look_by_wall(|connection, by_wall| {
            let mut standings = table::standings(connection, service, stop)?;
            standings.show(by_wall);
            Ok(standings)
        })
    }

    fn unserved(&self) -> Result<Vec<Unserved>, OutboxError> {
        self.look_by_wall(|connection, by_wall| {
            let late = Ahead::of(connection)?.now().saturating_sub(nanos(PATIENCE));
            let mut unserved = Vec::new();
            for line in table::lines_of_callbacks(connection)? {
                if line.due.is_some_and(|due| due <= late)
                    && !lease::is_held(connection, self.place.home(), &line.queue)?
                {
                    let oldest = by_wall(line.oldest);
                    unserved.push(Unserved { queue: line.queue, calls: line.calls, oldest });
                }
            }
            Ok(unserved)
        })
    }

    fn sealed(&self) -> Result<Vec<Sealed>, OutboxError> {
        self.look(table::sealed)
    }

    fn retry(&self, ids: Vec<i64>) -> Pending<usize> {
        if !self.exists() {
            return Pending::ready(Ok(0));
        }
        self.write(0, move |connection| {
            let now = Ahead::of(connection)?.now();
            ids.iter().try_fold(0, |many, id| Ok(many + usize::from(table::retry(connection, *id, now)?)))
        })
    }

    fn remove(&self, ids: Vec<i64>) -> Pending<usize> {
        if !self.exists() {
            return Pending::ready(Ok(0));
        }
        self.write(0, move |connection| {
            ids.iter().try_fold(0, |many, id| Ok(many + usize::from(table::remove(connection, *id)?)))
        })
    }

    fn waits(&self, queue: &str, ours: bool) -> Pending<Waits> {
        Pending::ready(self.read(|connection| {
            let pending = table::has_pending(connection, queue)?;
            let held = pending && !ours && lease::is_held(connection, self.place.home(), queue)?;
            Ok(Waits { pending, held })
        }))
    }

    fn take(&self, queue: &str) -> Pending<Option<Grant>> {
        let (home, queue) = (self.place.home().to_owned(), queue.to_owned());
        self.write(0, move |db| {
            let holder = format!("{queue} (pid {})", std::process::id());
            let taken = lease::take(db, &home, &queue, &holder)?;
            Ok(taken.map(|(lease, alive)| Grant { lease, alive }))
        })
    }

    fn renew(&self, queue: &str, token: i64) -> Pending<Option<Lease>> {
        let queue = queue.to_owned();
        self.write(0, move |db| lease::renew(db, &queue, token))
    }

    fn release(&self, queue: &str, token: i64) -> Pending<()> {
        let queue = queue.to_owned();
        self.write(0, move |db| lease::release(db, &queue, token))
    }

    fn due(&self, wanted: Wanted) -> Pending<Option<Due>> {
        let Wanted { queue, under_way, room, .. } = wanted;
        if self.writer.is_behind_the_clock() {
            // For those who read the moments in the file by the wall clock.
            drop(self.write(0, |_| Ok(())));
        }
        Pending::ready(self.read(|connection| {
            // The moments, and by which clock they are, as of one commit.
            let connection = &connection.unchecked_transaction()?;
            let clock = Ahead::of(connection)?;
            let (now, mut due) = (clock.now(), Due { clock, ..Due::default() });
            if room > 0 {
                let far = now.saturating_add(2 * nanos(FARTHEST));
                // Those on their way are due all the same; of these no body is read.
                let items = table::due(connection, &queue, now, far, room + under_way.len())?;
                let others = items.into_iter().filter(|item| !under_way.contains(&item.id));
                for item in others.take(room) {
                    if let Some(sealed) = table::request(connection, item.id)? {
                        due.calls.push((item, sealed));
                    }
                }
            }
            due.next = table::next_due(connection, &queue, now)?
                .map(|at| Duration::from_nanos(u64::try_from(at.saturating_sub(now)).unwrap_or(0)));
            Ok(Some(due))
        }))
    }

    fn settle(&self, token: i64, item: &Item, settlement: Arc<Settlement>) -> Pending<bool> {
        let bytes = match &*settlement {
            Settlement::Delivered { response, .. } => response.len(),
            _ => 0,
        };
        let (queue, id, key) = (item.queue(), item.id, item.idempotency_key.clone());
        self.write(bytes, move |db| {
            table::settle(db, (&queue, token), (id, &key), &settlement, Ahead::of(db)?.now())
        })
    }

    fn tidy(&self, delivered: Duration, dead: Duration) -> Pending<bool> {
        self.write(0, move |db| {
            let now = Ahead::of(db)?.now();
            let before = |age| now.saturating_sub(nanos(age));
            table::tidy(db, before(delivered), before(dead))
        })
    }

    fn states(&self, names: Vec<Vec<u8>>) -> Pending<States> {
        self.write(0, move |db| {
            moving::index_names(db)?;
            moving::states(db, &names)
        })
    }

    fn named(&self, names: Vec<Vec<u8>>) -> Pending<Vec<New>> {
        self.write(0, move |db| {
            moving::index_names(db)?;
            moving::named(db, &names)
        })
    }

    fn identity(&self) -> Pending<String> {
        self.write(0, |db| moving::own_identity(db))
    }

    fn reached(&self) -> Pending<Option<i64>> {
        Pending::ready(self.look(moving::reached).map(Some))
    }

    fn turn_back(&self, was: &str) -> Pending<()> {
        let was = was.to_owned();
        self.write(0, move |db| moving::rename(db, &was))
    }

    fn rest(&self) {
        if self.reader().take().is_some() {
            self.reading.fetch_sub(1, Ordering::AcqRel);
        }
    }

    fn pause(&self) {
        self.writer.pause();
    }

    fn is_open(&self) -> bool {
        self.reading.load(Ordering::Acquire) > 0 || self.writer.is_open()
    }

    fn stopped(&self) -> Result<(), OutboxError> {
        self.place.stopped()
    }

    fn resume(&self) -> Result<(), OutboxError> {
        self.place.resume().map_err(|error| self.place.unavailable(error))?;
        if !self.place.exists() {
            return Ok(());
        }
        let wrong = |error: rusqlite::Error| self.place.failure(&error);
        let open = self.place.open()?;
        let found: String =
            open.connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0)).map_err(wrong)?;
        match found.as_str() {
            "ok" => Ok(()),
            damage => Err(self.place.unavailable(format!("it is damaged: {damage}"))),
        }
    }

    fn unavailable(&self, what: &dyn std::fmt::Display) -> OutboxError {
        self.place.unavailable(what)
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::{fixture, wall};
    use super::*;
    use std::collections::HashSet;

    const MINUTE: i64 = 60_000_000_000;

    fn call(key: &str, age: i64) -> Arc<New> {
        let new = fixture::call(key);
        Arc::new(New { expires_at: new.put_at.saturating_add(age), ..new })
    }

    fn due(store: &FileStore, token: i64) -> Due {
        let (queue, under_way, keys) = ("q".into(), HashSet::new(), Vec::new());
        let wanted = Wanted { queue, token, under_way, room: 9, keys };
        store.due(wanted).wait().unwrap().unwrap_or_default()
    }

    #[test]
    fn until_the_moments_in_the_file_follow_a_jump_all_goes_by_the_clock_from_before_it() {
        let home = tempfile::tempdir().unwrap();
        let store = FileStore::new(Place::new(home.path()), Arc::default());
        let token = store.take("q").wait().unwrap().unwrap().lease.token;
        store.add(call("k", 10 * MINUTE)).wait().unwrap();
        // As the file is when the clock has been set forward by an hour since.
        let jump =
            "UPDATE item SET put_at = put_at - ?1, next_at = next_at - ?1, expires_at = expires_at - ?1";
        store.write(0, move |db| db.execute(jump, [60 * MINUTE])).wait().unwrap();
        let jump = "UPDATE clock SET ahead = ahead - ?1";
        store.write(0, move |db| db.execute(jump, [60 * MINUTE])).wait().unwrap();
        let listed = store.list(&Filter::default()).wait().unwrap().remove(0);
        let got = store.get(listed.id).wait().unwrap().unwrap().0;
        // Who looks sees when it was, and will be, by the clock on the wall.
        let near = |moment: i64, expected: i64| {
            let off = moment - wall() - expected;
            assert!((-MINUTE..=MINUTE).contains(&off), "{off}");
        };
        for item in [listed, got] {
            near(item.put_at, 0);
            near(item.next_at, 0);
            near(item.expires_at, 10 * MINUTE);
        }
        near(store.counts().wait().unwrap()[0].oldest, 0);
        near(store.vendors().wait().unwrap()[0].oldest.unwrap(), 0);
        near(store.standings("q", &AtomicBool::new(false)).unwrap().oldest().unwrap(), 0);
        let mut found = due(&store, token);
        let (item, _) = found.calls.pop().unwrap();
        assert!(item.expires_at < wall(), "as the wall clock has it, it is too old");
        let left = item.expires_at - found.clock.now();
        assert!(left > 9 * MINUTE && left <= 10 * MINUTE, "{left}");
        store.add(call("later", 10 * MINUTE)).wait().unwrap();
        let again = Settlement::Later {
            at: wall() + 5 * MINUTE,
            now: wall(),
            counts: true,
            status: None,
            error: String::new(),
        };
        assert!(store.settle(token, &item, Arc::new(again)).wait().unwrap());
        let found = due(&store, token);
        assert_eq!(found.calls.len(), 1, "the other one");
        let next = nanos(found.next.unwrap());
        assert!(next > 4 * MINUTE && next <= 5 * MINUTE, "no wait grows or shrinks: {next}");
        // Whoever opens the file next has it follow.
        store.pause();
        store.write(0, |_| Ok(())).wait().unwrap();
        for item in store.list(&Filter::default()).wait().unwrap() {
            let left = item.expires_at - wall();
            assert!(left > 9 * MINUTE && left <= 10 * MINUTE, "{left}");
        }
    }

    #[test]
    fn what_is_in_a_file_that_was_replaced_is_delivered_no_more() {
        let home = tempfile::tempdir().unwrap();
        let store = FileStore::new(Place::new(home.path()), Arc::default());
        let call = |key| call(key, i64::MAX);
        let due = || {
            let calls = due(&store, 1).calls.into_iter();
            calls.map(|(item, _)| item.idempotency_key).collect::<Vec<_>>()
        };
        store.add(call("old")).wait().unwrap();
        assert_eq!(due(), ["old"]);
        for name in ["outbox.db", "outbox.db-wal", "outbox.db-shm"] {
            let _ = std::fs::rename(home.path().join(name), home.path().join(format!("old.{name}")));
        }
        assert!(due().is_empty());
        store.add(call("new")).wait().unwrap();
        assert_eq!(due(), ["new"]);
    }
}
