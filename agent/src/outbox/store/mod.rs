//! Where calls are kept. Delivery and operators ask a [`Store`], and do not know which one it is: an SQLite file of
//! this host, or a PostgreSQL that a fleet shares.

mod chain;
#[cfg(test)]
mod contract;
pub(super) mod copy;
mod file;
pub(super) mod moving;
#[cfg(feature = "postgres")]
mod postgres;

use chain::Chain;
pub(super) use file::FileStore;

use super::clock::Ahead;
use super::file::Place;
use super::lease::{Alive, Lease};
use super::metrics::Standings;
use super::pending::Pending;
use super::table::{Count, Filter, Item, New, Settlement, Whole};
use super::{Beside, OutboxError, Receipt, VendorCount};
use crate::alarm::Alarm;
use farcall::config::{OutboxPlace, OutboxStore};
use moving::States;
use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use tokio::sync::Notify;

/// The store that the configuration names.
///
/// # Errors
/// Where there can be none such.
pub(super) fn open(
    home: &Path,
    settings: &OutboxStore,
    alarm: Option<Arc<Alarm>>,
    committed: &Arc<Notify>,
) -> Result<Arc<dyn Store>, OutboxError> {
    let file = Arc::new(FileStore::new(Place::new(home), Arc::clone(committed)));
    let store = match &settings.store {
        Some(place) => postgres(place, settings, committed)?,
        None => Arc::clone(&file) as Arc<dyn Store>,
    };
    Ok(Chain::around(store, file, home, settings, alarm))
}

#[cfg(feature = "postgres")]
fn postgres(
    place: &OutboxPlace,
    settings: &OutboxStore,
    committed: &Arc<Notify>,
) -> Result<Arc<dyn Store>, OutboxError> {
    match resolved(place)? {
        OutboxPlace::Postgres(url) => {
            Ok(Arc::new(postgres::PostgresStore::new(&url, settings.timeout, Arc::clone(committed))?))
        }
        _ => Err(OutboxError::Settings(
            "its `store` is no PostgreSQL; write postgres://user@host/database".into(),
        )),
    }
}

#[cfg(not(feature = "postgres"))]
fn postgres(
    _place: &OutboxPlace,
    _settings: &OutboxStore,
    _committed: &Arc<Notify>,
) -> Result<Arc<dyn Store>, OutboxError> {
    Err(without_postgres())
}

#[cfg(not(feature = "postgres"))]
fn without_postgres() -> OutboxError {
    OutboxError::Settings("this program was built without PostgreSQL (the feature `postgres`)".into())
}

/// The place itself, where the configuration names an environment variable that has it.
fn resolved(place: &OutboxPlace) -> Result<OutboxPlace, OutboxError> {
    let OutboxPlace::Variable(name) = place else { return Ok(place.clone()) };
    let text = std::env::var(name).map_err(|_| {
        OutboxError::Settings(format!("the environment variable {name}, which says where it is, is not set"))
    })?;
    match OutboxPlace::parse(text.trim()) {
        Ok(OutboxPlace::Variable(_)) | Err(_) => {
            let what = format!(
                "what the environment variable {name} holds is no place for it; write postgres://user@host/database"
            );
            Err(OutboxError::Settings(what))
        }
        Ok(place) => Ok(place),
    }
}

/// Keeps calls, tells which are due, and who may deliver them. What it answers when it writes is on the disk.
pub(super) trait Store: Send + Sync + std::fmt::Debug {
    /// Whether there may be anything to deliver, as far as can be told without opening it.
    fn exists(&self) -> bool;

    /// Whether other hosts use it: then each process that delivers has calls of its own, and looks for more now and
    /// then however long there were none.
    fn is_shared(&self) -> bool {
        false
    }

    /// How it is named, without a password; empty where it is the file of the home directory.
    fn name(&self) -> String {
        String::new()
    }

    /// Adds a call.
    fn add(&self, new: Arc<New>) -> Pending<Receipt>;

    /// A call and what is sealed of it.
    fn get(&self, id: i64) -> Pending<Option<Whole>>;

    /// The beginning of what was sealed last, of whichever queue, where whoever adds must be able to read it: its
    /// key must be among ours. `None` where nothing is there.
    fn newest_sealed(&self) -> Pending<Option<Vec<u8>>> {
        Pending::ready(Ok(None))
    }

    /// The calls that the filter lets through, the oldest first.
    fn list(&self, filter: &Filter) -> Pending<Vec<Item>>;

    /// Those of them that wait on this host until the store takes them.
    ///
    /// # Errors
    /// Where their file cannot be read.
    fn waiting_here(&self, _filter: &Filter) -> Result<Vec<Item>, OutboxError> {
        Ok(Vec::new())
    }

    /// How many there are.
    fn counts(&self) -> Pending<Vec<Count>>;

    /// How many there are by service, vendor and endpoint, in no order.
    fn vendors(&self) -> Pending<Vec<VendorCount>>;

    /// How the calls of a service stand that are not delivered, however many there are: asked for with a connection of
    /// its own, so that nobody who puts or delivers waits for it. Some of them only, once `stop` says so.
    ///
    /// # Errors
    /// Where it cannot be asked.
    fn standings(&self, service: &str, stop: &AtomicBool) -> Result<Standings, OutboxError>;

    /// The queues of callbacks that have calls which are due, and that no process delivers from.
    ///
    /// # Errors
    /// Where it cannot be asked.
    fn unserved(&self) -> Result<Vec<Unserved>, OutboxError>;

    /// Under which keys calls are sealed that wait, and may be delivered: the beginning of what is sealed, and how many
    /// calls there are of it, with those that wait for them; of very many calls those that are due first.
    ///
    /// # Errors
    /// Where it cannot be asked.
    fn sealed(&self) -> Result<Vec<Sealed>, OutboxError>;

    /// Delivers calls anew; how many there were that can be.
    fn retry(&self, ids: Vec<i64>) -> Pending<usize>;

    /// Forgets calls; how many there were.
    fn remove(&self, ids: Vec<i64>) -> Pending<usize>;

    /// What there is for who does not deliver yet; `ours` where this process does, which asks less.
    fn waits(&self, queue: &str, ours: bool) -> Pending<Waits>;

    /// Takes the right to deliver, where it is free.
    fn take(&self, queue: &str) -> Pending<Option<Grant>>;

    /// Renews it; `None` where it passed to another.
    fn renew(&self, queue: &str, token: i64) -> Pending<Option<Lease>>;

    /// Lets others have it at once.
    fn release(&self, queue: &str, token: i64) -> Pending<()>;

    /// Calls that are due. `None` where the token is no longer good.
    fn due(&self, wanted: Wanted) -> Pending<Option<Due>>;

    /// Writes how an attempt came out, if the token still is the one under which it was made. Whether it is.
    fn settle(&self, token: i64, item: &Item, settlement: Arc<Settlement>) -> Pending<bool>;

    /// Forgets what was delivered, or given up, so long ago; some at a time. Whether there may be more.
    fn tidy(&self, delivered: Duration, dead: Duration) -> Pending<bool>;

    /// How the calls with these names stand that it has.
    fn states(&self, names: Vec<Vec<u8>>) -> Pending<States>;

    /// Its pending calls with these names, whole, in the order in which they were added: all, or as many as can be
    /// held at once.
    fn named(&self, names: Vec<Vec<u8>>) -> Pending<Vec<New>>;

    /// What lies beside it on this host.
    ///
    /// # Errors
    /// Where its file cannot be read.
    fn beside(&self) -> Result<Beside, OutboxError> {
        Ok(Beside::default())
    }

    /// What tells it from all other stores.
    fn identity(&self) -> Pending<String>;

    /// The highest number that it ever gave to a call, where that goes back only by a loss of calls: by a file that was
    /// copied back, say. `None` where that cannot be told.
    fn reached(&self) -> Pending<Option<i64>> {
        Pending::ready(Ok(None))
    }

    /// It is not the one any more that it `was`, for it has lost calls: its copies are those of another.
    fn turn_back(&self, _was: &str) -> Pending<()> {
        Pending::ready(Ok(()))
    }

    /// What is beside it, and has calls of the store that was lost, has this one's from now on.
    fn restored(&self, _lost: &str, _from: &str) {}

    /// Closes what delivery has open.
    fn rest(&self);

    /// Ends all threads and closes everything; the next question opens it again.
    fn pause(&self);

    /// Whether something is open that a child which is forked now must not use.
    fn is_open(&self) -> bool;

    /// Why nothing is accepted any more, where the disk failed.
    fn stopped(&self) -> Result<(), OutboxError>;

    /// Lets processes that start from now on use it again.
    fn resume(&self) -> Result<(), OutboxError>;

    /// The error for something that went wrong with it.
    fn unavailable(&self, what: &dyn std::fmt::Display) -> OutboxError;
}

/// What was sealed begins so, and how many calls do, or wait for one of the same order key that does.
pub(super) type Sealed = (Vec<u8>, u64);

/// A queue from which nobody delivers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unserved {
    pub(super) queue: String,
    /// Calls that are pending in it.
    pub(super) calls: u64,
    /// When the oldest of them was put, in nanoseconds since the Unix epoch.
    pub(super) oldest: i64,
}

/// For so long a call is due before it counts as waiting for somebody: whoever can deliver it has looked by then.
const PATIENCE: Duration = Duration::from_secs(6);

/// What there is to be delivered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Waits {
    /// Whether a call is pending that may be delivered at all.
    pub(super) pending: bool,
    /// Whether another process has the right to deliver it.
    pub(super) held: bool,
}

/// The right to deliver, and what shows others on this host that its holder lives.
#[derive(Debug)]
pub(super) struct Grant {
    pub(super) lease: Lease,
    pub(super) alive: Option<Alive>,
}

/// Which calls to deliver. A file's one holder needs neither token nor keys.
#[derive(Debug)]
#[cfg_attr(not(feature = "postgres"), allow(dead_code))]
pub(super) struct Wanted {
    pub(super) queue: String,
    pub(super) token: i64,
    /// Those on their way.
    pub(super) under_way: HashSet<i64>,
    /// At most so many.
    pub(super) room: usize,
    /// Which keys this process has: what others encrypted is theirs, where hosts differ in that.
    pub(super) keys: Vec<Vec<u8>>,
}

/// Calls that are due, with what is sealed of them.
#[derive(Debug, Default)]
pub(super) struct Due {
    pub(super) calls: Vec<(Item, Vec<u8>)>,
    /// When the next one is, from now; `None` where there is none.
    pub(super) next: Option<Duration>,
    /// By which their moments are.
    pub(super) clock: Ahead,
}
