//! A copy in a file, which is meant to be on another volume.

use super::super::super::file::Place;
use super::super::super::pending::Pending;
use super::super::super::seal::FILE;
use super::super::super::table::{self, New, State};
use super::super::super::{OutboxError, Receipt};
use super::super::moving::{self, Copied};
use super::super::{FileStore, Store};
use super::{Belonging, CopyStore, Owner};
use crate::say;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// One SQLite file. It is one store's.
#[derive(Debug)]
pub(in super::super) struct FileCopy {
    file: FileStore,
}

impl FileCopy {
    pub(in super::super) fn new(path: &Path) -> Self {
        Self { file: FileStore::new(Place::at(path), Arc::default()) }
    }

    fn path(&self) -> &Path {
        self.file.place().file()
    }

    /// Where the key is kept with which it can be read.
    fn key_beside(&self) -> PathBuf {
        let mut name = self.path().as_os_str().to_owned();
        name.push(".key");
        name.into()
    }
}

impl CopyStore for FileCopy {
    fn name(&self) -> String {
        self.path().display().to_string()
    }

    fn directory(&self) -> Option<&Path> {
        self.path().parent()
    }

    fn add(&self, new: &Arc<New>) -> Pending<Receipt> {
        self.file.add(Arc::clone(new))
    }

    fn belong(&self, store: &str, _home: &Path) -> Pending<Belonging> {
        let own = store.to_owned();
        self.file.write(0, move |db| match moving::identity(db)? {
            Some(other) if other == own => Ok(Belonging::Ours),
            Some(_) => Ok(Belonging::Anothers),
            None => moving::adopt(db, &own).map(|()| Belonging::Ours),
        })
    }

    /// Without the key nobody can read what is in the copy; the one in the home directory may be lost with it.
    fn keep_key(&self, home: &Path) {
        let Ok(key) = fs::read(home.join(FILE)) else { return };
        let beside = self.key_beside();
        let make = || {
            let mut new = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
            new.write_all(&key)?;
            new.sync_all()?;
            File::open(beside.parent().unwrap_or(Path::new("/")))?.sync_all()
        };
        match fs::read(&beside) {
            Ok(known) if known == key => {}
            Ok(_) => say::say(&format!(
                "{} is another key than the outbox's: move it away, and keep it for what was copied under it",
                beside.display()
            )),
            Err(_) => {
                if let Err(error) = make() {
                    say::say(&format!(
                        "cannot keep the outbox's key beside its copy, as {}: {error}",
                        beside.display()
                    ));
                }
            }
        }
    }

    /// Whose it was before does not matter: all that is in it is one store's.
    fn adopt(&self, _lost: &str, store: &str) -> Pending<()> {
        let own = store.to_owned();
        self.file.write(0, move |db| moving::adopt(db, &own))
    }

    fn copied(&self, after: i64, many: i64) -> Pending<Vec<Copied>> {
        Pending::ready(self.file.look_by_wall(|db, by_wall| {
            let mut calls = moving::copied(db, after, many)?;
            calls.iter_mut().for_each(|call| call.put_at = by_wall(call.put_at));
            Ok(calls)
        }))
    }

    fn mark(&self, changes: Vec<(i64, Option<State>)>) -> Pending<()> {
        self.file.write(0, move |db| moving::mark(db, &changes))
    }

    fn heard(&self, store: &str) -> Pending<i64> {
        Pending::ready(self.file.look(|db| moving::heard(db, store)))
    }

    fn hear(&self, store: &str, reached: i64) -> Pending<()> {
        let store = store.to_owned();
        self.file.write(0, move |db| moving::hear(db, &store, reached))
    }

    fn there(&self) -> Result<(), OutboxError> {
        match self.file.exists() {
            true => Ok(()),
            false => Err(OutboxError::unavailable(self.path(), "there is no such file")),
        }
    }

    fn can_be_written(&self) -> Pending<()> {
        let found = self.file.place().has_volume();
        Pending::ready(found.and_then(|()| self.file.look(moving::last).map(|_| ())))
    }

    fn owners(&self) -> Pending<Vec<Owner>> {
        Pending::ready(self.file.look(|db| {
            let counts = table::counts(db)?;
            let many =
                |state| counts.iter().filter(|count| count.state == state).map(|count| count.calls).sum();
            let store = moving::identity(db)?.unwrap_or_default();
            let (pending, dead) = (many(State::Pending), many(State::Dead));
            Ok(vec![Owner { store, place: String::new(), pending, dead }])
        }))
    }

    fn last(&self) -> Pending<i64> {
        Pending::ready(self.file.look(moving::last))
    }

    fn in_order(&self, _owner: &str, state: State) -> Pending<Vec<i64>> {
        Pending::ready(self.file.look(|db| moving::in_order(db, state)))
    }

    fn these(&self, ids: &[i64]) -> Pending<Vec<(i64, New)>> {
        Pending::ready(self.file.look(|db| {
            let db = &db.unchecked_transaction()?;
            moving::these(db, ids, moving::NAMED)
        }))
    }

    fn key(&self) -> Option<[u8; 32]> {
        fs::read(self.key_beside()).ok()?.try_into().ok()
    }

    fn add_missing(&self, news: &[Arc<New>]) -> Vec<Result<(), OutboxError>> {
        let all = news.to_vec();
        let bytes = all.iter().map(|new| new.request.len()).sum();
        let added = self.file.write(bytes, move |db| moving::add_missing(db, &all)).wait();
        news.iter().map(|_| added.clone()).collect()
    }

    fn pause(&self) {
        self.file.pause();
    }

    fn is_open(&self) -> bool {
        self.file.is_open()
    }

    fn stopped(&self) -> Result<(), OutboxError> {
        self.file.stopped()
    }

    fn resume(&self) -> Result<(), OutboxError> {
        self.file.resume()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::{fixture, wall};

    #[test]
    fn what_is_copied_late_keeps_its_turn_however_late_that_is() {
        const HOUR: i64 = 3_600_000_000_000;
        let directory = tempfile::tempdir().unwrap();
        let copy = FileCopy::new(&directory.path().join("copy.db"));
        let call = |name: u8, put_at: i64| {
            Arc::new(New {
                order_key: Some("a".into()),
                put_at,
                next_at: put_at,
                expires_at: put_at + 10 * HOUR,
                request: vec![name; 64],
                ..fixture::call(&name.to_string())
            })
        };
        let now = wall();
        for (name, put_at) in [(2, now - 1), (3, now)] {
            copy.add(&call(name, put_at)).wait().unwrap();
        }
        assert_eq!(copy.add_missing(&[call(1, now - 2 * HOUR), call(2, now - 1)]), [Ok(()), Ok(())]);
        let ids = copy.in_order("", State::Pending).wait().unwrap();
        let calls = copy.these(&ids).wait().unwrap();
        let names: Vec<&str> = calls.iter().map(|(_, new)| new.idempotency_key.as_str()).collect();
        assert_eq!(names, ["1", "2", "3"]);
        assert_eq!(calls[0].1.expires_at, now + 8 * HOUR, "nor does it grow younger");
    }
}
