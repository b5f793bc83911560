//! The configuration file, while the process runs: what is written there is in force within a fraction of a second.
//!
//! A thread of its own, since a flush may wait for other writers of the ledger. A file with errors never takes
//! effect: the last good one stays in force, and so it does when the file is removed, which is said.

#[cfg(target_os = "linux")]
mod inotify;
mod settle;

use super::Setup;
use super::process::Process;
use crate::cache::{DEFAULT_BYTES, DISK_WAIT, REDIS_WAIT};
use crate::clock::Clock;
use crate::say;
use crate::tally::Tallies;
use farcall::Config;
use farcall::catalogue::Vendor;
use farcall::config::text_of;
use settle::{Changes, Stop, Stopped, Woken};
use std::fs::{self, Metadata};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

/// How often the file is looked at where nobody tells of changes.
const POLL: Duration = Duration::from_millis(100);
/// How often beside that: some file systems tell of the changes of this machine only.
const LOOK: Duration = Duration::from_secs(1);
/// A file that was changed less than this ago may have been changed again within the same tick of its clock.
const RECENT: Duration = Duration::from_secs(2);
/// A larger file is none of ours, in bytes.
const MAX_FILE: u64 = 4 << 20;
/// Errors of one file that are said.
const MAX_SAID: usize = 20;
/// Contents of which it is remembered that their errors were said.
const MAX_BAD: usize = 64;
/// Files of which it is remembered that something in them was said to take a restart.
const MAX_TOLD: usize = 8;

/// The file of one process.
#[derive(Debug)]
pub(super) struct Watch {
    /// Where it may be; the first that there is counts.
    candidates: Vec<PathBuf>,
    seen: Mutex<Seen>,
    thread: Mutex<Option<Running>>,
}

/// What was found last.
#[derive(Debug)]
struct Seen {
    stamp: Option<Stamp>,
    /// Whether the file was older than [`RECENT`] when it was read: then any change since shows in the stamp.
    settled: bool,
    text: Option<u64>,
    /// The file whose rules are in force.
    in_force: Option<PathBuf>,
    /// What was taken over from it last, and the hash of its text; `None` while that is what the process began with.
    good: Option<(Arc<Config>, u64)>,
    /// Contents whose errors were said, by hash.
    bad: Vec<u64>,
    /// Files of which it was said that something in them takes a restart.
    told: Vec<Arc<Config>>,
    /// Whether the file could not be read when it was last tried.
    unreadable: bool,
    gone: Gone,
}

/// Whether there is no file where the one was whose rules are in force.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Gone {
    /// There is one.
    #[default]
    No,
    /// Since then there is none: it may be about to be replaced.
    Since(Instant),
    /// And that was said.
    Said,
}

/// Tells one state of a file from another, without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    place: usize,
    inode: (u64, u64),
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

#[derive(Debug)]
struct Running {
    /// Dropping it ends the thread.
    stop: Stop,
    join: JoinHandle<()>,
}

impl Watch {
    /// Goes on from the text that the process was started with.
    pub(super) fn new(setup: &Setup) -> Self {
        Self {
            candidates: setup.config_files.clone(),
            seen: Mutex::new(Seen {
                stamp: None,
                settled: false,
                text: setup.config_text,
                in_force: setup.config_file.clone(),
                good: None,
                bad: Vec::new(),
                told: Vec::new(),
                unreadable: false,
                gone: Gone::No,
            }),
            thread: Mutex::new(None),
        }
    }

    /// The file whose rules are in force, also where it was removed since.
    pub(super) fn in_force(&self) -> Option<PathBuf> {
        lock(&self.seen).in_force.clone()
    }

    /// Puts in force what the process that this one was forked from took over last.
    pub(super) fn inherit(&self, parent: &Self, process: &Process) {
        // Held for ever where another thread of the parent had it: then the file tells, if it is good.
        let Ok(inherited) = parent.seen.try_lock() else { return };
        let Some((config, text)) = &inherited.good else { return };
        let mut seen = lock(&self.seen);
        Self::take_over(process, config);
        seen.text = Some(*text);
        seen.in_force = inherited.in_force.clone();
        seen.bad.clone_from(&inherited.bad);
        seen.told.clone_from(&inherited.told);
        seen.good = Some((Arc::clone(config), *text));
    }

    fn take_over(process: &Process, config: &Config) {
        process.engine.reload(config);
        #[cfg(feature = "outbox")]
        process.alarm.reload(config);
        #[cfg(feature = "outbox")]
        process.exporter.reload(&config.otlp);
        #[cfg(feature = "outbox")]
        crate::post::forget_certificates();
    }

    /// Starts the thread, unless it runs.
    pub(super) fn start(&self, process: &Arc<Process>) -> io::Result<()> {
        let mut thread = lock(&self.thread);
        if self.candidates.is_empty() || thread.as_ref().is_some_and(|running| !running.join.is_finished()) {
            return Ok(());
        }
        let (stop, stopped) = Stop::pair()?;
        let process = Arc::clone(process);
        let join = crate::thread::spawn("farcall-config", move || process.watch.run(&process, &stopped))?;
        *thread = Some(Running { stop, join });
        Ok(())
    }

    /// Stops the thread and waits for it.
    pub(super) fn stop(&self) {
        let running = lock(&self.thread).take();
        if let Some(Running { stop, join }) = running {
            drop(stop);
            if join.thread().id() != std::thread::current().id() {
                let _ = join.join();
            }
        }
    }

    fn run(&self, process: &Process, stopped: &Stopped) {
        loop {
            // Watched first and read then: no change falls in between.
            let changes = Changes::of(&self.candidates);
            self.check(process, true);
            let are_told = changes.are_told();
            let every = if are_told { LOOK } else { POLL };
            loop {
                match changes.wait(stopped, every) {
                    Woken::Stop => return,
                    Woken::Changed => break,
                    // Where somebody closed what tells of them, they are watched anew.
                    Woken::Late if self.check(process, false) || are_told && !changes.are_told() => break,
                    Woken::Late => {}
                }
            }
        }
    }

    /// Looks at the file, and puts it in force if it is another one and good; `read`: even if it looks the same
    /// from outside. Whether it had changed.
    pub(super) fn check(&self, process: &Process, read: bool) -> bool {
        let mut seen = lock(&self.seen);
        let Some((stamp, metadata)) = self.find() else {
            // Removed, or about to be replaced: what is in force stays so.
            seen.miss(process);
            return seen.stamp.take().is_some();
        };
        let was_gone = std::mem::take(&mut seen.gone) == Gone::Said;
        if !read && seen.stamp == Some(stamp) && seen.settled {
            return false;
        }
        seen.settled = metadata.modified().map_or(true, |time| is_older(time, RECENT));
        let changed = seen.stamp.replace(stamp) != Some(stamp);
        let file = &self.candidates[stamp.place];
        let name = file.display();
        let was_unreadable = std::mem::take(&mut seen.unreadable);
        let is_too_large = stamp.bytes > MAX_FILE;
        let text = match if is_too_large { Ok(Vec::new()) } else { fs::read(file) } {
            _ if is_too_large => Err(format!("cannot read {name}: it is larger than 4 MiB")),
            Ok(bytes) => text_of(&name.to_string(), bytes).map_err(|error| error.to_string()),
            Err(error) => {
                // That may pass while the file stays as it is, as where no descriptor was left.
                (seen.settled, seen.unreadable) = (false, true);
                Err(format!("cannot read {name}: {error}"))
            }
        };
        let hash = hash_of(&text);
        if seen.text.replace(hash) == Some(hash) {
            // The same text in another place.
            let is_good = !seen.bad.contains(&hash);
            if is_good {
                seen.in_force = Some(file.clone());
            }
            if was_gone {
                let rules = if is_good {
                    "its rules are those in force"
                } else {
                    "the rules before it stay in force"
                };
                say::say(&format!("{name} is there again; {rules}"));
            }
            return changed;
        }
        let text = text.as_deref();
        let errors = match text.map(|text| (Config::parse(&name.to_string(), text), text)) {
            Ok((Ok(config), text)) => {
                Self::take_over(process, &config);
                warn(&config, &name.to_string(), text);
                seen.in_force = Some(file.clone());
                if was_gone {
                    say::say(&format!("{name} is there again; its rules are in force"));
                } else if was_unreadable {
                    say::say(&format!("{name} can be read now; its rules are in force"));
                }
                let config = Arc::new(config);
                seen.good = Some((Arc::clone(&config), hash));
                seen.tell_of_restart(process, &config, &name.to_string());
                return true;
            }
            Ok((Err(errors), _)) => errors.iter().take(MAX_SAID).map(ToString::to_string).collect(),
            Err(error) => vec![error.clone()],
        };
        Tallies::add(&process.tallies.rejected_reloads, 1);
        if !seen.bad.contains(&hash) {
            seen.bad.truncate(MAX_BAD - 1);
            seen.bad.insert(0, hash);
            errors.iter().for_each(|error| say::say(error));
            let instead = match seen.in_force {
                Some(_) => "the rules before it stay in force",
                None => "no rules are in force",
            };
            say::say(&format!("{name} was not taken over; {instead}"));
        }
        true
    }

    fn find(&self) -> Option<(Stamp, Metadata)> {
        self.candidates.iter().enumerate().find_map(|(place, file)| {
            let metadata = fs::metadata(file).ok().filter(Metadata::is_file)?;
            let stamp = Stamp {
                place,
                inode: (metadata.dev(), metadata.ino()),
                bytes: metadata.len(),
                modified: (metadata.mtime(), metadata.mtime_nsec()),
                changed: (metadata.ctime(), metadata.ctime_nsec()),
            };
            Some((stamp, metadata))
        })
    }
}

impl Seen {
    /// Says which settings of a file hold from a start on only, unless that was said of the same ones: a file may be
    /// changed to and fro.
    fn tell_of_restart(&mut self, process: &Process, config: &Arc<Config>, name: &str) {
        let pending = started_with(&process.setup.config, config);
        let others: Vec<_> = self.told.iter().map(|told| started_with(told, config)).collect();
        let new =
            pending.iter().filter(|setting| others.iter().all(|other| other.contains(*setting))).count();
        if new > 0 {
            Tallies::add(&process.tallies.unchanged_settings, new as u64);
            let settings = pending.join(", ");
            say::say(&format!(
                "{name}: its rules are in force; what it says of {settings} will be when this program is restarted"
            ));
            self.told.truncate(MAX_TOLD - 1);
            self.told.insert(0, Arc::clone(config));
        }
    }

    /// There is no file. Where it stays away for longer than a replacement takes, that is said and counted, once.
    fn miss(&mut self, process: &Process) {
        let Some(file) = &self.in_force else { return };
        match self.gone {
            Gone::No => self.gone = Gone::Since(Instant::now()),
            Gone::Since(since) if since.elapsed() >= LOOK => {
                Tallies::add(&process.tallies.rejected_reloads, 1);
                let name = file.display();
                let why = match fs::metadata(file) {
                    Ok(_) => format!("{name} is no file any more"),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => format!("{name} was removed"),
                    Err(error) => format!("cannot read {name}: {error}"),
                };
                say::say(&format!(
                    "{why}; its rules stay in force until this program ends. To end them, write an empty file there"
                ));
                self.gone = Gone::Said;
            }
            Gone::Since(_) | Gone::Said => {}
        }
    }
}

/// Says what in a file is allowed, and surely not meant.
pub(super) fn warn(config: &Config, file: &str, text: &str) {
    let warnings = config.warnings(file, text, Clock::new().now());
    warnings.iter().take(MAX_SAID).for_each(|warning| say::say(&warning.to_string()));
}

/// The settings that hold from the start of a process to its end, and are others in a file that is read later.
fn started_with(before: &Config, now: &Config) -> Vec<&'static str> {
    // What vendors ask is taken over with the rules.
    let vendors = |config: &Config| -> Vec<Vendor> {
        let free = |vendor: &Vendor| {
            let mut vendor = vendor.clone();
            vendor.prices.clear();
            vendor
        };
        config.vendors.iter().map(free).collect()
    };
    // What is written as it would be without is no other.
    let memory = |config: &Config| config.cache_memory.unwrap_or(DEFAULT_BYTES);
    let disk_wait = |config: &Config| config.cache_disk_wait.unwrap_or(DISK_WAIT);
    let redis_wait = |config: &Config| config.cache_redis_wait.unwrap_or(REDIS_WAIT);
    let settings = [
        ("service", before.service == now.service),
        ("[ledger]", before.ledger == now.ledger),
        ("[share]", before.share == now.share),
        ("[outbox_store]", before.outbox_store == now.outbox_store),
        ("[[vendor]]", vendors(before) == vendors(now)),
        ("cache_memory", memory(before) == memory(now)),
        ("cache_disk", before.cache_disk == now.cache_disk),
        ("cache_disk_wait", disk_wait(before) == disk_wait(now)),
        ("cache_redis", before.cache_redis == now.cache_redis),
        ("cache_redis_wait", redis_wait(before) == redis_wait(now)),
    ];
    settings.into_iter().filter(|(_, same)| !same).map(|(name, _)| name).collect()
}

/// Stands for a content, or for why there is none.
pub(super) fn hash_of(text: &Result<String, String>) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

fn is_older(time: SystemTime, age: Duration) -> bool {
    SystemTime::now().duration_since(time).is_ok_and(|elapsed| elapsed > age)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
