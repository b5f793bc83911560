//! Where calls are kept. Delivery and operators ask a [`Store`], and do not know which one it is: an SQLite file of
//! this host, or a PostgreSQL that a fleet shares.

mod file;

pub(super) use file::FileStore;

use super::OutboxError;
use super::Receipt;
use super::lease::{Alive, Lease};
use super::pending::Pending;
use super::table::{Count, Filter, Item, New, Settlement, Whole};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

/// Keeps calls, tells which are due, and who may deliver them. What it answers when it writes is on the disk.
pub(super) trait Store: Send + Sync + std::fmt::Debug {
    /// Whether there may be anything to deliver, as far as can be told without opening it.
    fn exists(&self) -> bool;

    /// Adds a call.
    fn add(&self, new: Arc<New>) -> Pending<Receipt>;

    /// A call and what is sealed of it.
    fn get(&self, id: i64) -> Pending<Option<Whole>>;

    /// The beginning of what was sealed last, of whichever queue: whose key must be among ours. `None` where
    /// nothing is there.
    fn newest_sealed(&self) -> Pending<Option<Vec<u8>>>;

    /// The calls that the filter lets through, the oldest first.
    fn list(&self, filter: &Filter) -> Pending<Vec<Item>>;

    /// How many there are.
    fn counts(&self) -> Pending<Vec<Count>>;

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

    /// Up to `room` calls that are due and not among those on their way. `None` where the token is no longer good.
    fn due(&self, queue: &str, token: i64, under_way: &HashSet<i64>, room: usize) -> Pending<Option<Due>>;

    /// Writes how an attempt came out, if the token still is the one under which it was made. Whether it is.
    fn settle(&self, token: i64, item: &Item, settlement: Arc<Settlement>) -> Pending<bool>;

    /// Forgets what was delivered, or given up, so long ago; some at a time. Whether there may be more.
    fn tidy(&self, delivered: Duration, dead: Duration) -> Pending<bool>;

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

/// Calls that are due, with what is sealed of them.
#[derive(Debug, Default)]
pub(super) struct Due {
    pub(super) calls: Vec<(Item, Vec<u8>)>,
    /// When the next one is, from now; `None` where there is none.
    pub(super) next: Option<Duration>,
}
