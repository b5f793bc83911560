//! Copies of the calls, in files that are meant to be on other volumes. A copy gets a call before the store does, so
//! that what is acknowledged is in it; what was delivered since is marked in it later, by comparing it with the
//! store.

use super::super::super::table::{New, State};
use super::super::super::{OutboxError, Receipt, nanos, wall};
use super::super::moving::{self, Copied};
use super::super::resolved;
use super::{FileStore, Place, Store};
use crate::say;
use farcall::config::{OnMissingCopy, OutboxPlace, OutboxStore};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A call that is in a copy and not in the store, for so long, was never acknowledged.
const UNDER_WAY: Duration = Duration::from_secs(3_600);
/// So many calls of a copy are compared at once.
const MANY: i64 = 1_000;

#[derive(Debug)]
pub(super) struct Copies {
    home: PathBuf,
    settings: OutboxStore,
    copies: Vec<Copy>,
    /// Whether too few copies took a call when that was asked last.
    alarmed: AtomicBool,
}

#[derive(Debug)]
struct Copy {
    file: FileStore,
    /// Whether it is known to have the calls of this store, and no others.
    ours: AtomicBool,
    /// Whether it is known to have those of another.
    anothers: AtomicBool,
}

/// What became of one call in the copies.
pub(super) struct InCopies {
    /// Which copy has it, under which number.
    has: Vec<(usize, i64)>,
    missing: Option<OutboxError>,
}

impl InCopies {
    pub(super) fn is_enough(&self) -> bool {
        self.missing.is_none()
    }

    pub(super) fn missing(&self) -> Option<OutboxError> {
        self.missing.clone()
    }
}

impl Copies {
    pub(super) fn new(home: &Path, settings: &OutboxStore) -> Result<Self, OutboxError> {
        let mut copies = Vec::new();
        for place in &settings.copies {
            match resolved(place)? {
                OutboxPlace::File(path) => copies.push(Copy {
                    file: FileStore::new(Place::at(&path), Arc::default()),
                    ours: AtomicBool::new(false),
                    anothers: AtomicBool::new(false),
                }),
                _ => {
                    let what = "its `copies` are files; name a PostgreSQL as its `store`, and files as copies of that";
                    return Err(OutboxError::Settings(what.into()));
                }
            }
        }
        let this =
            Self { home: home.into(), settings: settings.clone(), copies, alarmed: AtomicBool::new(false) };
        this.warn_of_devices();
        Ok(this)
    }

    /// Two copies on one device are lost together.
    fn warn_of_devices(&self) {
        let own = self.settings.store.is_none().then_some(self.home.as_path());
        let directories = self.copies.iter().filter_map(|copy| copy.file.place().file().parent());
        let mut known: Vec<(u64, &Path)> = Vec::new();
        for directory in own.into_iter().chain(directories) {
            let Ok(metadata) = fs::metadata(directory) else { continue };
            match known.iter().find(|(device, _)| *device == metadata.dev()) {
                Some((_, other)) => say::say(&format!(
                    "the outbox has copies in {} and {}, which are on the same device and may be lost together (is one not mounted?)",
                    other.display(),
                    directory.display()
                )),
                None => known.push((metadata.dev(), directory)),
            }
        }
    }

    /// Adds calls to the copies, and waits until they are there or are known not to be.
    pub(super) fn add(&self, news: &[Arc<New>]) -> Vec<InCopies> {
        let asked: Vec<Vec<_>> = news
            .iter()
            .map(|new| match self.settings.needed(&new.vendor) {
                0 => Vec::new(),
                _ => self.copies.iter().map(|copy| copy.file.add(Arc::clone(new))).collect(),
            })
            .collect();
        news.iter().zip(asked).map(|(new, asked)| self.judge(new, asked)).collect()
    }

    fn judge(&self, new: &New, asked: Vec<super::Pending<Receipt>>) -> InCopies {
        let (mut has, mut why) = (Vec::new(), None);
        for (copy, pending) in asked.into_iter().enumerate() {
            match pending.wait() {
                Ok(receipt) => has.push((copy, receipt.id)),
                Err(error) => why = Some(error),
            }
        }
        let needed = self.settings.needed(&new.vendor);
        let short = has.len() < needed;
        if needed > 0 && self.alarmed.swap(short, Ordering::AcqRel) != short {
            say::say(&match &why {
                Some(why) if short => format!("calls are in {} copies instead of {needed}: {why}", has.len()),
                _ => "all copies of the outbox that are needed are written again".to_owned(),
            });
        }
        let refused = short && self.settings.on_missing_copy == OnMissingCopy::Refuse;
        let missing = refused.then(|| OutboxError::Copies {
            has: has.len(),
            needed,
            why: why.map(|why| why.to_string()).unwrap_or_default(),
        });
        InCopies { has, missing }
    }

    /// Takes a call out of the copies that is not acknowledged. What stays there because of an error is found when
    /// they are compared.
    pub(super) fn take_back(&self, call: InCopies) {
        for (copy, id) in call.has {
            drop(self.copies[copy].file.write(0, move |db| moving::mark(db, &[(id, None)])));
        }
    }

    /// Sees whose copies they are, where that is not known; one that has another store's calls is left as it is,
    /// and looked at once more where `again`.
    pub(super) fn look(&self, store: &dyn Store, again: bool) -> Result<(), OutboxError> {
        let known = |copy: &&Copy| {
            copy.ours.load(Ordering::Acquire) || (!again && copy.anothers.load(Ordering::Acquire))
        };
        if self.copies.iter().all(|copy| known(&copy)) {
            return Ok(());
        }
        let identity = store.identity().wait()?;
        for copy in self.copies.iter().filter(|copy| !known(copy)) {
            let file = copy.file.place().file();
            let own = identity.clone();
            let adopt = move |db: &rusqlite::Transaction<'_>| match moving::identity(db)? {
                Some(other) => Ok(other == own),
                None => moving::adopt(db, &own).map(|()| true),
            };
            match copy.file.write(0, adopt).wait() {
                Ok(true) => {
                    copy.ours.store(true, Ordering::Release);
                    self.keep_key_beside(file);
                }
                Ok(false) if copy.anothers.swap(true, Ordering::AcqRel) => {}
                Ok(false) => say::say(&format!(
                    "the copy {0} has calls of another outbox: of this one before it was lost? Then `farcall outbox restore --from {0}`; else move it away",
                    file.display()
                )),
                // Said when a call cannot be added.
                Err(_) => {}
            }
        }
        Ok(())
    }

    /// Without the key nobody can read what is in the copy; the one in the home directory may be lost with it.
    fn keep_key_beside(&self, file: &Path) {
        let Ok(key) = fs::read(self.home.join(super::super::super::seal::FILE)) else { return };
        let beside = key_beside(file);
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

    /// They are copies of this store from now on.
    pub(super) fn adopt_all(&self, store: &dyn Store) {
        let Ok(identity) = store.identity().wait() else { return };
        for copy in &self.copies {
            let own = identity.clone();
            let _ = copy.file.write(0, move |db| moving::adopt(db, &own)).wait();
        }
    }

    /// How many there are.
    pub(super) fn many(&self) -> usize {
        self.copies.len()
    }

    /// Compares some calls of a copy with the store, and marks what was settled there. The number to go on from;
    /// `None` at the end.
    pub(super) fn compare(
        &self,
        which: usize,
        after: i64,
        states: &dyn Fn(Vec<Vec<u8>>) -> Result<moving::States, OutboxError>,
    ) -> Result<Option<i64>, OutboxError> {
        let Some(copy) = self.copies.get(which).filter(|copy| copy.ours.load(Ordering::Acquire)) else {
            return Ok(None);
        };
        let calls = copy.file.look(|db| moving::copied(db, after, MANY))?;
        let Some(last) = calls.last().map(|call| call.id) else { return Ok(None) };
        let states = states(calls.iter().map(|call| call.name.clone()).collect())?;
        let old = wall().saturating_sub(nanos(UNDER_WAY));
        let change = |call: &Copied| match states.get(&call.name) {
            Some(State::Delivered) => Some((call.id, None)),
            Some(state) => (*state != call.state).then_some((call.id, Some(*state))),
            None => (call.put_at < old).then_some((call.id, None)),
        };
        let changes: Vec<_> = calls.iter().filter_map(change).collect();
        if !changes.is_empty() {
            copy.file.write(0, move |db| moving::mark(db, &changes)).wait()?;
        }
        Ok(Some(last))
    }

    pub(super) fn each(&self, work: impl Fn(&FileStore)) {
        self.copies.iter().for_each(|copy| work(&copy.file));
    }

    pub(super) fn is_open(&self) -> bool {
        self.copies.iter().any(|copy| copy.file.is_open())
    }

    pub(super) fn resume(&self) -> Result<(), OutboxError> {
        self.copies.iter().try_for_each(|copy| copy.file.resume())
    }
}

/// Where the key is kept with which a copy can be read.
pub(in crate::outbox) fn key_beside(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".key");
    name.into()
}
