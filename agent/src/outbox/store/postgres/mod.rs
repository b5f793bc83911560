//! A PostgreSQL that the hosts of a fleet share.

mod alone;
mod calls;
mod claim;
mod clock;
mod copy;
mod job;
mod schema;
#[cfg(test)]
mod tests;
mod thread;

use super::super::lease::Lease;
use super::super::metrics::Standings;
use super::super::pending::Pending;
use super::super::table::{Count, Filter, Item, New, Settlement, Whole};
use super::super::{OutboxError, Receipt, VendorCount};
use super::moving::States;
use super::{Due, Grant, Sealed, Store, Unserved, Waits, Wanted};
pub(super) use copy::PostgresCopy;
use schema::Tables;
use sqlx::ConnectOptions;
use sqlx::postgres::PgConnectOptions;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use thread::{Server, Thread};
use tokio::sync::Notify;

/// Tables in one database, which all hosts use that know its address.
#[derive(Debug)]
pub(in super::super) struct PostgresStore {
    thread: Thread,
}

impl PostgresStore {
    /// `committed` rings after each commit.
    pub(in super::super) fn new(
        url: &str,
        timeout: Duration,
        committed: Arc<Notify>,
    ) -> Result<Self, OutboxError> {
        let server = server(url, timeout, Tables::Store)?;
        Ok(Self { thread: Thread::new(server, committed) })
    }
}

/// The server at this address.
fn server(url: &str, timeout: Duration, tables: Tables) -> Result<Server, OutboxError> {
    let options = PgConnectOptions::from_str(url).map_err(|_| {
        OutboxError::Settings(
            "the address of its PostgreSQL is none; write postgres://user@host/database".into(),
        )
    })?;
    let place = match options.get_socket() {
        Some(socket) => socket.display().to_string(),
        None => options.get_host().to_owned(),
    };
    let database = options.get_database().unwrap_or(options.get_username());
    let name = format!("postgres://{place}:{}/{database}", options.get_port());
    let options = options.application_name("farcall outbox").disable_statement_logging();
    Ok(Server { options, name, timeout, tables })
}

impl Store for PostgresStore {
    fn exists(&self) -> bool {
        true
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn name(&self) -> String {
        self.thread.name().to_owned()
    }

    fn add(&self, new: Arc<New>) -> Pending<Receipt> {
        self.thread.put(new, None)
    }

    fn get(&self, id: i64) -> Pending<Option<Whole>> {
        self.thread.ask(async move |db| calls::get(db, id).await)
    }

    fn list(&self, filter: &Filter) -> Pending<Vec<Item>> {
        let filter = filter.clone();
        self.thread.ask(async move |db| calls::list(db, &filter).await)
    }

    fn counts(&self) -> Pending<Vec<Count>> {
        self.thread.ask(calls::counts)
    }

    fn vendors(&self) -> Pending<Vec<VendorCount>> {
        self.thread.ask(calls::vendors)
    }

    fn standings(&self, service: &str, stop: &AtomicBool) -> Result<Standings, OutboxError> {
        alone::ask(self.thread.server(), stop, async |db| calls::standings(db, service).await)
            .map(Option::unwrap_or_default)
    }

    fn unserved(&self) -> Result<Vec<Unserved>, OutboxError> {
        self.thread.ask(claim::unserved).wait()
    }

    fn sealed(&self) -> Result<Vec<Sealed>, OutboxError> {
        self.thread.ask(claim::sealed).wait()
    }

    fn retry(&self, ids: Vec<i64>) -> Pending<usize> {
        self.thread.ask(async move |db| calls::retry(db, &ids).await)
    }

    fn remove(&self, ids: Vec<i64>) -> Pending<usize> {
        self.thread.ask(async move |db| calls::remove(db, &ids).await)
    }

    fn waits(&self, queue: &str, ours: bool) -> Pending<Waits> {
        if ours {
            return Pending::ready(Ok(Waits::default()));
        }
        let queue = queue.to_owned();
        self.thread.ask(async move |db| claim::waits(db, &queue).await)
    }

    fn take(&self, queue: &str) -> Pending<Option<Grant>> {
        let queue = queue.to_owned();
        self.thread.ask(async move |db| {
            let lease = claim::take(db, &queue).await?;
            Ok(Some(Grant { lease, alive: None }))
        })
    }

    fn renew(&self, _queue: &str, token: i64) -> Pending<Option<Lease>> {
        self.thread.ask(async move |db| claim::renew(db, token).await)
    }

    fn release(&self, _queue: &str, token: i64) -> Pending<()> {
        self.thread.ask(async move |db| claim::release(db, token).await)
    }

    fn due(&self, wanted: Wanted) -> Pending<Option<Due>> {
        self.thread.ask(async move |db| claim::due(db, &wanted).await)
    }

    fn settle(&self, token: i64, item: &Item, settlement: Arc<Settlement>) -> Pending<bool> {
        self.thread.settle(token, item, settlement)
    }

    fn tidy(&self, delivered: Duration, dead: Duration) -> Pending<bool> {
        self.thread.ask(async move |db| calls::tidy(db, delivered, dead).await)
    }

    fn states(&self, names: Vec<Vec<u8>>) -> Pending<States> {
        self.thread.ask(async move |db| calls::states(db, &names).await)
    }

    fn named(&self, names: Vec<Vec<u8>>) -> Pending<Vec<New>> {
        self.thread.ask(async move |db| calls::named(db, &names).await)
    }

    fn identity(&self) -> Pending<String> {
        self.thread.ask(calls::identity)
    }

    fn rest(&self) {}

    fn pause(&self) {
        self.thread.pause();
    }

    /// A child has a connection of its own.
    fn is_open(&self) -> bool {
        false
    }

    /// The server itself stops where its disk fails.
    fn stopped(&self) -> Result<(), OutboxError> {
        Ok(())
    }

    fn resume(&self) -> Result<(), OutboxError> {
        Ok(())
    }

    fn unavailable(&self, what: &dyn std::fmt::Display) -> OutboxError {
        OutboxError::unavailable(self.thread.name().as_ref(), what)
    }
}
