//! Copies of the calls, in files and databases that are meant to be on other volumes. A copy gets a call before the
//! store does, so that what is acknowledged is in it; what was delivered since is marked in it later, by comparing it
//! with the store.

use super::super::super::beside::{Beside, MissingCopy, StoppedCopy, Without};
use super::super::super::deliver::DEAD;
use super::super::super::restore;
use super::super::super::seal;
use super::super::super::table::{New, State};
use super::super::super::{OutboxError, Receipt, nanos, wall};
use super::super::copy::{self, Belonging, CopyStore, NoCopy};
use super::super::moving::{self, Copied};
use super::super::resolved;
use super::{FileStore, Store};
use crate::alarm::{self, Alarm};
use crate::say;
use farcall::config::{OnMissingCopy, OutboxPlace, OutboxStore};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};
use std::time::Duration;

/// A call that is in a copy and not in the store, for so long, was never acknowledged.
pub(super) const UNDER_WAY: Duration = Duration::from_secs(3_600);
/// So many calls of a copy are compared at once.
const MANY: i64 = 1_000;
/// So many, where their requests are read too.
const WHOLE: usize = 200;

#[derive(Debug)]
pub(super) struct Copies {
    home: PathBuf,
    settings: OutboxStore,
    copies: Vec<Copy>,
    /// By which somebody is told of a call that was taken into too few; an operator has none.
    alarm: Option<Arc<Alarm>>,
    /// Whether too few copies took a call when that was asked last.
    alarmed: AtomicBool,
    /// Of copies that are lost together.
    warned: Once,
    /// Whether all that are needed took a call, after some had not.
    back: AtomicBool,
    /// Whether it is known whose they are in all likelihood.
    assumed: AtomicBool,
    /// The store's identity, and the highest number that it had given to a call, when that was asked last.
    seen: Mutex<Option<(String, i64)>>,
}

#[derive(Debug)]
struct Copy {
    place: Arc<dyn CopyStore>,
    /// Whether it is known to have the calls of this store.
    ours: AtomicBool,
    /// Whether it is known to have those of another, which was said.
    anothers: AtomicBool,
}

/// What became of one call in the copies.
pub(super) struct InCopies {
    /// Which copy has it, under which number.
    has: Vec<(usize, i64)>,
    /// Whether it should be in more.
    short: bool,
    missing: Option<OutboxError>,
}

impl InCopies {
    pub(super) fn is_enough(&self) -> bool {
        self.missing.is_none()
    }

    pub(super) fn is_short(&self) -> bool {
        self.short
    }

    pub(super) fn missing(&self) -> Option<OutboxError> {
        self.missing.clone()
    }
}

/// Whether the store has all calls of another one that wait in a copy.
fn is_known(copy: &dyn CopyStore, store: &dyn Store, of: &str) -> bool {
    let Ok(ids) = copy.in_order(of, State::Pending).wait() else { return false };
    ids.chunks(WHOLE).all(|ids| {
        let mut left = ids;
        while !left.is_empty() {
            let Ok(calls) = copy.these(left).wait() else { return false };
            // Those that are gone since need not be known.
            let Some((last, _)) = calls.last() else { return true };
            left = left.iter().position(|id| id == last).map_or(&[], |place| &left[place + 1..]);
            let names: Vec<_> = calls.iter().map(|(_, new)| seal::name_of(&new.request).to_vec()).collect();
            let Ok(known) = store.states(names.clone()).wait() else { return false };
            if !names.iter().all(|name| known.contains_key(name)) {
                return false;
            }
        }
        true
    })
}

/// Remembers who the store is, and under whose name its calls may have been copied from here before that was known.
fn stranded(store: &dyn Store, file: &FileStore, identity: &str) -> Option<String> {
    let (name, identity) = (store.name(), identity.to_owned());
    let before = file.write(0, move |db| {
        moving::remember_store(db, &name, &identity)?;
        moving::assumed(db)
    });
    before.wait().ok().flatten()
}

impl Copies {
    pub(super) fn new(home: &Path, settings: &OutboxStore, alarm: Option<Arc<Alarm>>) -> Self {
        let copy = |place| {
            let place =
                copy::open(place, settings.timeout).unwrap_or_else(|why| Arc::new(NoCopy::new(place, why)));
            Copy { place, ours: AtomicBool::new(false), anothers: AtomicBool::new(false) }
        };
        let copies = settings.copies.iter().map(copy).collect();
        Self {
            home: home.into(),
            settings: settings.clone(),
            copies,
            alarm,
            alarmed: AtomicBool::new(false),
            warned: Once::new(),
            back: AtomicBool::new(false),
            assumed: AtomicBool::new(false),
            seen: Mutex::default(),
        }
    }

    /// Two copies on one device are lost together.
    fn warn_of_devices(&self) {
        let own = self.settings.store.is_none().then_some(self.home.as_path());
        let directories = self.copies.iter().filter_map(|copy| copy.place.directory());
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

    /// Nor is a database a copy of itself.
    fn warn_of_databases(&self) {
        let places = self.settings.store.iter().chain(&self.settings.copies);
        let databases = places.filter_map(|place| resolved(place).ok());
        let mut known: Vec<OutboxPlace> = Vec::new();
        for database in databases.filter(|place| matches!(place, OutboxPlace::Postgres(_))) {
            if known.contains(&database) {
                say::say("the outbox has two copies in the same database, which are lost together");
            }
            known.push(database);
        }
    }

    /// Adds calls to the copies, and waits until they are there or are known not to be.
    pub(super) fn add(&self, news: &[Arc<New>]) -> Vec<InCopies> {
        // Now, and not for those who only look.
        self.warned.call_once(|| {
            self.warn_of_devices();
            self.warn_of_databases();
        });
        let asked: Vec<Vec<_>> = news
            .iter()
            .map(|new| match self.settings.needed(&new.vendor) {
                0 => Vec::new(),
                _ => self.copies.iter().map(|copy| copy.place.add(new)).collect(),
            })
            .collect();
        news.iter().zip(asked).map(|(new, asked)| self.judge(new, asked)).collect()
    }

    fn judge(&self, new: &New, asked: Vec<super::Pending<Receipt>>) -> InCopies {
        let (mut has, mut why) = (Vec::new(), None);
        for (copy, pending) in asked.into_iter().enumerate() {
            match pending.wait() {
                Ok(receipt) => has.push((copy, receipt.id)),
                Err(error) => why = Some(error.of_copy(&self.copies[copy].place.name())),
            }
        }
        let needed = self.settings.needed(&new.vendor);
        let short = has.len() < needed;
        let why = why.unwrap_or_default();
        if needed > 0 {
            self.tell(new, has.len(), needed, &why);
        }
        let refused = short && self.settings.on_missing_copy == OnMissingCopy::Refuse;
        let missing = refused.then_some(OutboxError::Copies { has: has.len(), needed, why });
        InCopies { has, short, missing }
    }

    /// Says that a call is in too few copies: each one to the alarm where it is taken, else once, until it is over.
    fn tell(&self, new: &New, has: usize, needed: usize, why: &str) {
        let short = has < needed;
        let changed = self.alarmed.swap(short, Ordering::AcqRel) != short;
        match &self.alarm {
            _ if !short && changed => {
                self.back.store(true, Ordering::Release);
                say::say("all copies of the outbox that are needed are written again");
            }
            Some(alarm) if short && self.settings.on_missing_copy == OnMissingCopy::Alarm => {
                let (vendor, endpoint) = (new.vendor.as_str(), new.endpoint.as_str());
                let customer = new.customer.as_deref();
                alarm.missing_copy(&alarm::MissingCopy { vendor, endpoint, customer, has, needed, why });
            }
            _ if changed => {
                say::say(&format!("calls are in {has} of the {needed} copies that are asked for: {why}"))
            }
            _ => {}
        }
    }

    /// Whether they are written again since this was asked last.
    pub(super) fn are_back(&self) -> bool {
        self.back.swap(false, Ordering::AcqRel)
    }

    /// Adds to them what they miss of these; of each whether it is in as many as it should be now.
    pub(super) fn complete(&self, news: &[Arc<New>]) -> Vec<bool> {
        let mut has = vec![0; news.len()];
        for copy in &self.copies {
            for (has, added) in has.iter_mut().zip(copy.place.add_missing(news)) {
                *has += usize::from(added.is_ok());
            }
        }
        news.iter().zip(has).map(|(new, has)| has >= self.settings.needed(&new.vendor)).collect()
    }

    /// Takes a call out of the copies that is not acknowledged. What stays there because of an error is found when
    /// they are compared.
    pub(super) fn take_back(&self, call: InCopies) {
        for (copy, id) in call.has {
            drop(self.copies[copy].place.mark(vec![(id, None)]));
        }
    }

    /// Sees whose copies they are, where that is not known; one that has another store's calls is left as it is,
    /// and looked at once more where `again`. `doubted` is looked at in any case.
    pub(super) fn look(
        &self,
        store: &dyn Store,
        file: &FileStore,
        again: bool,
        doubted: Option<usize>,
    ) -> Result<(), OutboxError> {
        let doubted = doubted.and_then(|which| self.copies.get(which));
        let known = |copy: &&Copy| {
            let ours = copy.ours.load(Ordering::Acquire) && !doubted.is_some_and(|it| ptr::eq(it, *copy));
            ours || (!again && copy.anothers.load(Ordering::Acquire))
        };
        let asked: Vec<&Copy> = self.copies.iter().filter(|copy| !known(copy)).collect();
        if asked.is_empty() {
            return Ok(());
        }
        let identity = match self.identity(store, &asked) {
            Ok(identity) => identity,
            Err(error) => {
                self.assume(store, file);
                return Err(error);
            }
        };
        // What was copied while the store had never been reached from here.
        let before = store.is_shared().then(|| stranded(store, file, &identity)).flatten();
        for copy in asked {
            match copy.place.belong(&identity, &self.home).wait() {
                Ok(Belonging::Anothers) => {
                    copy.ours.store(false, Ordering::Release);
                    self.say_of_another(copy, None);
                }
                Ok(belonging) => {
                    if let Some(before) = &before
                        && copy.place.adopt(before, &identity).wait().is_err()
                    {
                        continue;
                    }
                    copy.ours.store(true, Ordering::Release);
                    copy.place.keep_key(&self.home);
                    self.tell_number(copy);
                    match belonging {
                        // Its calls are this store's by now; there may be those of yet another.
                        Belonging::OursAfter(lost) if before.as_ref() == Some(&lost) => {
                            if let Ok(Belonging::OursAfter(lost)) =
                                copy.place.belong(&identity, &self.home).wait()
                            {
                                self.say_of_another(copy, Some(&lost));
                            }
                        }
                        Belonging::OursAfter(lost) => self.say_of_another(copy, Some(&lost)),
                        Belonging::Ours | Belonging::Anothers => {}
                    }
                }
                // Said when a call cannot be added.
                Err(_) => {}
            }
        }
        Ok(())
    }

    /// Who the store is. One that has lost calls, as a file that was copied back has, is another from then on: what its
    /// copies have beside is not theirs to clear, but an operator's to put back.
    fn identity(&self, store: &dyn Store, asked: &[&Copy]) -> Result<String, OutboxError> {
        let identity = store.identity().wait()?;
        // The copies first: another process may put and tell them meanwhile, and what they have heard by then the store
        // has reached whenever it is asked.
        let heard: Vec<i64> =
            asked.iter().map(|copy| copy.place.heard(&identity).wait().unwrap_or_default()).collect();
        let Some(reached) = store.reached().wait()? else { return Ok(identity) };
        let Some((copy, _)) = asked.iter().zip(heard).find(|(_, heard)| *heard > reached) else {
            *self.seen() = Some((identity.clone(), reached));
            return Ok(identity);
        };
        if self.alarm.is_some() {
            let name = copy.place.name();
            say::say(&format!(
                "the outbox is older than its copy {name}, as a file is that was copied back: `farcall outbox restore --from {name}` puts back what it lacks"
            ));
        }
        store.turn_back(&identity).wait()?;
        self.copies.iter().for_each(|copy| copy.ours.store(false, Ordering::Release));
        *self.seen() = None;
        store.identity().wait()
    }

    fn seen(&self) -> MutexGuard<'_, Option<(String, i64)>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a copy hear how far the store is.
    fn tell_number(&self, copy: &Copy) {
        if let Some((identity, reached)) = &*self.seen() {
            let _ = copy.place.hear(identity, *reached).wait();
        }
    }

    /// Lets the copies hear how far the store is by now.
    pub(super) fn tell_numbers(&self, store: &dyn Store) {
        let Ok(Some(now)) = store.reached().wait() else { return };
        if let Some((_, reached)) = &mut *self.seen() {
            if now < *reached {
                // An older one than was seen is another file by now: the copies are to be looked at before they hear more.
                self.copies.iter().for_each(|copy| copy.ours.store(false, Ordering::Release));
                return;
            }
            *reached = now;
        }
        self.copies
            .iter()
            .filter(|copy| copy.ours.load(Ordering::Acquire))
            .for_each(|copy| self.tell_number(copy));
    }

    /// The store cannot be asked who it is: it is the one that it was when it was reached last, or one that has the
    /// calls of this home directory later.
    fn assume(&self, store: &dyn Store, file: &FileStore) {
        if !store.is_shared() || self.assumed.swap(true, Ordering::AcqRel) {
            return;
        }
        let name = store.name();
        let assumed = file.write(0, move |db| match moving::known_store(db, &name)? {
            Some(identity) => Ok(identity),
            None => moving::assume(db),
        });
        let Ok(identity) = assumed.wait() else { return };
        for copy in self.copies.iter().filter(|copy| !copy.ours.load(Ordering::Acquire)) {
            copy.place.assume(&identity, &self.home);
            copy.place.keep_key(&self.home);
        }
    }

    /// They are copies of this store from now on, and no longer of the one that was lost: the one that all was put back
    /// from, and others that have nothing beside. One that has is left as it is, for what the store has not is in time
    /// forgotten in its own copies.
    pub(super) fn adopt_all(&self, store: &dyn Store, lost: &str, from: &str) {
        let Ok(identity) = store.identity().wait() else { return };
        let path = |name: &str| fs::canonicalize(name).unwrap_or_else(|_| name.into());
        for copy in &self.copies {
            let name = copy.place.name();
            if path(&name) == path(from) || is_known(&*copy.place, store, lost) {
                let _ = copy.place.adopt(lost, &identity).wait();
            } else {
                say::say(&format!(
                    "the copy {name} may have calls of the lost outbox that {from} had not: `farcall outbox restore --from {name}`, too"
                ));
            }
        }
    }

    /// How many there are.
    pub(super) fn many(&self) -> usize {
        self.copies.len()
    }

    /// Compares some calls of a copy with the store, and marks what was settled there. `elsewhere`: whether calls may lie
    /// where `states` does not look. The number to go on from; `None` at the end.
    pub(super) fn compare(
        &self,
        which: usize,
        after: i64,
        elsewhere: bool,
        states: &dyn Fn(Vec<Vec<u8>>) -> Result<moving::States, OutboxError>,
    ) -> Result<Option<i64>, OutboxError> {
        let Some(copy) = self.copies.get(which).filter(|copy| copy.ours.load(Ordering::Acquire)) else {
            return Ok(None);
        };
        // What is put back is in a copy before it is in the store, however old it is.
        let Some(_none_is_put_back) = restore::none_under_way(&self.home) else { return Ok(None) };
        let calls = copy.place.copied(after, MANY).wait()?;
        let Some(last) = calls.last().map(|call| call.id) else { return Ok(None) };
        let states = states(calls.iter().map(|call| call.name.clone()).collect())?;
        let before = |age| wall().saturating_sub(nanos(age));
        let (old, older) = (before(UNDER_WAY), before(DEAD));
        let change = |call: &Copied| match states.get(&call.name) {
            Some(State::Delivered) => Some((call.id, None)),
            Some(state) => (*state != call.state).then_some((call.id, Some(*state))),
            None => {
                // A dead letter that was not restored may be yet; another call another host may have in its spool, for as
                // long as it cannot reach the store.
                let late = call.state == State::Dead || elsewhere;
                let over = call.put_at < if late { older } else { old };
                over.then_some((call.id, None))
            }
        };
        let changes: Vec<_> = calls.iter().filter_map(change).collect();
        if !changes.is_empty() {
            copy.place.mark(changes).wait()?;
        }
        Ok(Some(last))
    }

    pub(super) fn pause(&self) {
        self.copies.iter().for_each(|copy| copy.place.pause());
    }

    pub(super) fn is_open(&self) -> bool {
        self.copies.iter().any(|copy| copy.place.is_open())
    }

    /// Which of them cannot be written, and what becomes of calls for it.
    pub(super) fn stand(&self, beside: &mut Beside) {
        let asked: Vec<_> = self.copies.iter().map(|copy| copy.place.can_be_written()).collect();
        for (copy, asked) in self.copies.iter().zip(asked) {
            let name = copy.place.name();
            match (copy.place.stopped(), asked.wait()) {
                (Err(error), _) => {
                    beside.stopped_copies.push(StoppedCopy { name, why: error.reason() });
                }
                (Ok(()), Err(error)) => {
                    beside.missing_copies.push(MissingCopy { name, why: error.reason() });
                }
                (Ok(()), Ok(())) => beside.written += 1,
            }
        }
        let settings = &self.settings;
        beside.needed = settings.copies_needed.unwrap_or(self.copies.len());
        if beside.written == self.copies.len() {
            return;
        }
        let lacking = |needed: usize| needed > beside.written;
        let of_some = settings.vendor_copies.iter().any(|(vendor, _)| lacking(settings.needed(vendor)));
        beside.without_copies = Some(match (lacking(beside.needed), settings.on_missing_copy) {
            (false, _) if !of_some => Without::Taken,
            (_, OnMissingCopy::Alarm) => Without::TakenWithAlarm,
            (true, _) => Without::Refused,
            (false, _) => Without::SomeRefused,
        });
    }

    pub(super) fn resume(&self) -> Result<(), OutboxError> {
        self.copies.iter().try_for_each(|copy| copy.place.resume())
    }

    /// Says once that a copy has calls of another outbox; which one, where it has those of several. An operator puts
    /// them back, or need not know.
    fn say_of_another(&self, copy: &Copy, lost: Option<&str>) {
        if copy.anothers.swap(true, Ordering::AcqRel) || self.alarm.is_none() {
            return;
        }
        let name = copy.place.name();
        say::say(&match lost {
            None => format!(
                "the copy {name} has calls of another outbox: of this one before it was lost? Then `farcall outbox restore --from {name}`; else move it away"
            ),
            Some(lost) => format!(
                "the copy {name} has calls of another outbox that was in this directory: was it lost? Then `farcall outbox restore --from ADDRESS --of {lost}`; else delete them there (docs/outbox.md)"
            ),
        });
    }
}
