//! The store: `ledger.db`, written by any number of processes at once.
//!
//! A connection lives only while a flush writes: a fork between two flushes finds no open database, a directory
//! that was removed and made again is simply found again, and a file that another process moved aside is not
//! written any further. (SQLite forbids to carry a connection across a fork, and in WAL mode even a new one in
//! the child would share the parent's idea of the locks.) Opening costs well under a millisecond once a second.

mod advice;
mod compact;
mod connection;
mod failure;
mod file;
mod incident;
mod notices;
mod pending;
mod purges;
mod quotas;
mod read;
mod schema;
mod spending;
mod write;

pub use connection::{Confirmation, ConnectionRollup, ExplainedBy, Verdict};

pub(crate) use failure::{Failure, Kind};
pub(crate) use file::Store;
pub(crate) use pending::Pending;
pub(crate) use quotas::MAX_PROCESSES;
pub(crate) use read::{ReadFailure, open as open_for_reading};
pub(crate) use write::{Beside, Presence};
