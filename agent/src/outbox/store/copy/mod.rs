//! A place that has a store's calls once more: another file, or tables in a PostgreSQL. Whose calls they are is told
//! by the store's identity.

mod file;
mod none;

use super::super::pending::Pending;
use super::super::table::{New, State};
use super::super::{OutboxError, Receipt};
use super::moving::Copied;
use super::resolved;
use farcall::config::OutboxPlace;
pub(super) use file::FileCopy;
pub(super) use none::NoCopy;
use std::fmt::Debug;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// The copy in this place.
///
/// # Errors
/// Where the place is none.
pub(in crate::outbox) fn open(
    place: &OutboxPlace,
    timeout: Duration,
) -> Result<Arc<dyn CopyStore>, OutboxError> {
    match resolved(place)? {
        OutboxPlace::File(path) => Ok(Arc::new(FileCopy::new(&path))),
        OutboxPlace::Postgres(url) => postgres(&url, timeout),
        _ => Err(OutboxError::Settings("a copy is a file or a PostgreSQL".into())),
    }
}

#[cfg(feature = "postgres")]
fn postgres(url: &str, timeout: Duration) -> Result<Arc<dyn CopyStore>, OutboxError> {
    Ok(Arc::new(super::postgres::PostgresCopy::new(url, timeout)?))
}

#[cfg(not(feature = "postgres"))]
fn postgres(_url: &str, _timeout: Duration) -> Result<Arc<dyn CopyStore>, OutboxError> {
    Err(super::without_postgres())
}

/// Keeps calls for when the store is lost. What it answers when it writes is on its disk.
pub(in crate::outbox) trait CopyStore: Send + Sync + Debug {
    /// How it is named on the command line, without a password.
    fn name(&self) -> String;

    /// The directory that it is in, where that is on this host.
    fn directory(&self) -> Option<&Path> {
        None
    }

    /// Adds a call.
    fn add(&self, new: &Arc<New>) -> Pending<Receipt>;

    /// Says to whom the calls belong that are added from now on.
    fn belong(&self, store: &str, home: &Path) -> Pending<Belonging>;

    /// Says whose the calls are in all likelihood, while that cannot be asked.
    fn assume(&self, _store: &str, _home: &Path) {}

    /// Keeps what its calls can be read with, where it does.
    fn keep_key(&self, _home: &Path) {}

    /// What it has of the lost store's belongs to this one.
    fn adopt(&self, lost: &str, store: &str) -> Pending<()>;

    /// Its calls above a number.
    fn copied(&self, after: i64, many: i64) -> Pending<Vec<Copied>>;

    /// Marks calls: `None` forgets them.
    fn mark(&self, changes: Vec<(i64, Option<State>)>) -> Pending<()>;

    /// The highest number that the store had given to a call, as far as it heard: one that is not there any more has
    /// lost calls.
    fn heard(&self, store: &str) -> Pending<i64>;

    /// Lets it hear of that.
    fn hear(&self, store: &str, reached: i64) -> Pending<()>;

    /// Whether there is one.
    ///
    /// # Errors
    /// Where there is none.
    fn there(&self) -> Result<(), OutboxError>;

    /// Whether a call could be added now, as far as that can be told without adding one.
    fn can_be_written(&self) -> Pending<()>;

    /// Whose calls it has, the newest last.
    fn owners(&self) -> Pending<Vec<Owner>>;

    /// The highest number that a call has.
    fn last(&self) -> Pending<i64>;

    /// The numbers of an owner's calls that stand so, in the order in which they were taken: one that was copied late has
    /// a number that is higher than its turn.
    fn in_order(&self, owner: &str, state: State) -> Pending<Vec<i64>>;

    /// Calls by these numbers, whole, in this order: of the first of them as many as can be held at once. One that is
    /// not there is left out.
    fn these(&self, ids: &[i64]) -> Pending<Vec<(i64, New)>>;

    /// The key that is kept with it.
    fn key(&self) -> Option<[u8; 32]> {
        None
    }

    /// Adds those of these calls that it has not; of each whether it has it now.
    fn add_missing(&self, news: &[Arc<New>]) -> Vec<Result<(), OutboxError>>;

    /// Closes everything; the next question opens it again.
    fn pause(&self);

    /// Whether something is open that a child which is forked now must not use.
    fn is_open(&self) -> bool;

    /// Why nothing is copied any more, where its disk failed. A server stops by itself then.
    fn stopped(&self) -> Result<(), OutboxError> {
        Ok(())
    }

    /// Lets it be used again after its disk failed.
    fn resume(&self) -> Result<(), OutboxError>;
}

/// Whose a copy is, seen from one store.
#[cfg_attr(not(feature = "postgres"), allow(dead_code))] // A file is asked otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::outbox) enum Belonging {
    /// This one's alone.
    Ours,
    /// This one's from now on, beside what it has of another that had the same home directory on the same host.
    OursAfter(String),
    /// Another's.
    Anothers,
}

/// A store whose calls a copy has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::outbox) struct Owner {
    /// Its identity.
    pub(in crate::outbox) store: String,
    /// The host and home directory that it was first seen at; empty where that is not known.
    pub(in crate::outbox) place: String,
    pub(in crate::outbox) pending: u64,
    pub(in crate::outbox) dead: u64,
}
