//! What the outbox would be if it were nothing but rows: SQLite, synced at each commit.

use rusqlite::{Connection, TransactionBehavior};
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;

const INSERT: &str = "INSERT INTO item (body) VALUES (?1)";

fn open(path: &Path) -> Connection {
    let connection = Connection::open(path).unwrap();
    connection
        .execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
            CREATE TABLE item (id INTEGER PRIMARY KEY, body BLOB NOT NULL) STRICT;",
        )
        .unwrap();
    connection
}

type Job = (Vec<u8>, SyncSender<()>);

/// One thread writes: what waits goes into one transaction, and is acknowledged when that is on the disk.
pub(super) struct Group {
    jobs: Option<Sender<Job>>,
    writer: Option<JoinHandle<()>>,
}

impl Group {
    pub(super) fn start(home: &Path) -> Self {
        let connection = open(&home.join("group.db"));
        let (jobs, waiting) = channel();
        let writer = std::thread::spawn(move || write(connection, &waiting));
        Self { jobs: Some(jobs), writer: Some(writer) }
    }

    pub(super) fn put(&self, body: &[u8]) {
        let (done, acknowledged) = sync_channel(1);
        self.jobs.as_ref().unwrap().send((body.to_vec(), done)).unwrap();
        acknowledged.recv().unwrap();
    }
}

fn write(mut connection: Connection, waiting: &Receiver<Job>) {
    while let Ok(first) = waiting.recv() {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).unwrap();
        let mut done = Vec::new();
        for (body, acknowledge) in std::iter::once(first).chain(waiting.try_iter()) {
            transaction.prepare_cached(INSERT).unwrap().execute([body]).unwrap();
            done.push(acknowledge);
        }
        transaction.commit().unwrap();
        done.into_iter().for_each(|acknowledge| acknowledge.send(()).unwrap());
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(writer) = self.writer.take() {
            writer.join().unwrap();
        }
    }
}

/// Each row a commit.
pub(super) struct EachRow(Mutex<Connection>);

impl EachRow {
    pub(super) fn open(home: &Path) -> Self {
        Self(Mutex::new(open(&home.join("each.db"))))
    }

    pub(super) fn put(&self, body: &[u8]) {
        let connection = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        connection.prepare_cached(INSERT).unwrap().execute([body]).unwrap();
    }
}
