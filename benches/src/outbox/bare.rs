//! What the outbox would be if it were nothing but rows: SQLite, synced at each commit.

use rusqlite::types::Value;
use rusqlite::{Connection, TransactionBehavior, params_from_iter};
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

/// A call as the outbox keeps it: a row of its own table, with its indices, and the bytes of what is sealed in it.
struct Call {
    insert: String,
    values: Vec<Value>,
    due: usize,
    sealed: usize,
}

impl Group {
    pub(super) fn start(home: &Path) -> Self {
        let mut connection = open(&home.join("group.db"));
        Self::of(move |waiting| {
            let mut insert = |body, to: &Connection| {
                to.prepare_cached(INSERT).unwrap().execute([body]).unwrap();
            };
            write(&mut connection, waiting, &mut insert);
        })
    }

    /// The same, with the columns, indices and bytes of the one call that is in this outbox.
    pub(super) fn of_calls(home: &Path) -> Self {
        let outbox = Connection::open(home.join("outbox.db")).unwrap();
        let mut connection = Connection::open(home.join("calls.db")).unwrap();
        connection.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL").unwrap();
        outbox
            .prepare("SELECT sql FROM sqlite_schema WHERE tbl_name = 'item' AND sql IS NOT NULL")
            .unwrap()
            .query_map([], |row| row.get::<_, String>(0))
            .unwrap()
            .for_each(|sql| connection.execute_batch(&sql.unwrap()).unwrap());
        let Call { insert, mut values, due, sealed } = Call::in_outbox(&outbox);
        Self::of(move |waiting| {
            let mut add = |body: Vec<u8>, to: &Connection| {
                if let Value::Integer(due) = &mut values[due] {
                    *due += 1_000;
                }
                let Value::Blob(request) = &mut values[sealed] else { panic!("a request is sealed") };
                request[..body.len()].copy_from_slice(&body);
                to.prepare_cached(&insert).unwrap().execute(params_from_iter(&values)).unwrap();
            };
            write(&mut connection, waiting, &mut add);
        })
    }

    fn of(write: impl FnOnce(&Receiver<Job>) + Send + 'static) -> Self {
        let (jobs, waiting) = channel();
        let writer = std::thread::spawn(move || write(&waiting));
        Self { jobs: Some(jobs), writer: Some(writer) }
    }

    pub(super) fn put(&self, body: &[u8]) {
        let (done, acknowledged) = sync_channel(1);
        self.jobs.as_ref().unwrap().send((body.to_vec(), done)).unwrap();
        acknowledged.recv().unwrap();
    }
}

fn write(connection: &mut Connection, waiting: &Receiver<Job>, add: &mut impl FnMut(Vec<u8>, &Connection)) {
    while let Ok(first) = waiting.recv() {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).unwrap();
        let mut done = Vec::new();
        for (body, acknowledge) in std::iter::once(first).chain(waiting.try_iter()) {
            add(body, &transaction);
            done.push(acknowledge);
        }
        transaction.commit().unwrap();
        done.into_iter().for_each(|acknowledge| acknowledge.send(()).unwrap());
    }
}

impl Call {
    fn in_outbox(outbox: &Connection) -> Self {
        let mut row = outbox.prepare("SELECT * FROM item LIMIT 1").unwrap();
        let names: Vec<String> = row.column_names().map(str::to_owned).collect();
        let values = |row: &rusqlite::Row<'_>| (0..names.len()).map(|column| row.get(column)).collect();
        let values: Vec<Value> = row.query_row([], values).unwrap();
        // What an outbox writes when a call is put; all else is as it is by itself.
        let put = |(name, value): &(String, Value)| name != "id" && *value != Value::Null;
        let (names, values): (Vec<String>, Vec<Value>) = names.into_iter().zip(values).filter(put).unzip();
        let place = |wanted: &str| names.iter().position(|name| name == wanted).unwrap();
        Self {
            insert: format!(
                "INSERT INTO item ({}) VALUES ({})",
                names.join(", "),
                vec!["?"; names.len()].join(", ")
            ),
            due: place("next_at"),
            sealed: place("request"),
            values,
        }
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
