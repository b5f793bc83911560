//! The file: made, opened, checked.

use super::OutboxError;
use super::lease::boot;
use crate::home::{give_to_owner, lock};
use crate::wal;
use rusqlite::config::DbConfig;
use rusqlite::hooks::Wal;
use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior, ffi};
use rustix::fs::{StatVfsMountFlags, statvfs};
use rustix::io::Errno;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

pub(super) const FILE: &str = "outbox.db";

/// Whether this directory has an outbox's file.
pub(crate) fn is_in(home: &Path) -> bool {
    home.join(FILE).exists()
}
/// Says why nothing is accepted any more, and in which boot that was.
const STOPPED: &str = "outbox.stopped";
/// `farcall outbox` in the file's header, so that no other program's file is taken for ours.
const APPLICATION: i64 = 0x6663_6f78;
const VERSION: i64 = 1;
/// How many statements a connection keeps prepared: all that the writer uses again and again.
const STATEMENTS: usize = 48;
/// How long a writer waits for those of other processes.
const BUSY: Duration = Duration::from_secs(5);

const SCHEMA: &str = "
CREATE TABLE item (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    queue TEXT NOT NULL,
    order_key TEXT,
    state INTEGER NOT NULL DEFAULT 0,
    blocked INTEGER NOT NULL,
    put_at INTEGER NOT NULL,
    next_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    max_attempts INTEGER,
    method TEXT NOT NULL,
    vendor TEXT NOT NULL,
    endpoint TEXT NOT NULL,
    host TEXT NOT NULL,
    customer TEXT,
    idempotency_key TEXT NOT NULL,
    bytes INTEGER NOT NULL,
    settled_at INTEGER,
    status INTEGER,
    error TEXT,
    token INTEGER,
    request BLOB NOT NULL,
    response BLOB
) STRICT;
CREATE INDEX item_due ON item (queue, next_at) WHERE state = 0 AND blocked = 0;
CREATE INDEX item_line ON item (queue, order_key, id) WHERE state = 0 AND order_key IS NOT NULL;
CREATE INDEX item_settled ON item (state, settled_at) WHERE state <> 0;
CREATE TABLE lease (
    queue TEXT PRIMARY KEY,
    token INTEGER NOT NULL,
    holder TEXT NOT NULL,
    boot TEXT NOT NULL,
    until INTEGER NOT NULL
) STRICT;
";

/// Where the outbox is. Holds nothing open.
#[derive(Clone, Debug)]
pub(super) struct Place {
    home: PathBuf,
    file: PathBuf,
    /// Whether it is a copy: then its directory has to be there.
    is_copy: bool,
}

/// An outbox that is open for writing, synced at each commit.
pub(super) struct Open {
    pub(super) connection: Connection,
    inode: u64,
    page: usize,
    /// How many pages of the log were in use after the last commit, of whichever process.
    in_log: Arc<AtomicUsize>,
    /// How many, when they were moved into the file last.
    moved: usize,
}

impl Open {
    /// How many bytes went into the log since it started over, or since they were moved last.
    pub(super) fn in_log(&mut self) -> usize {
        let in_log = self.in_log.load(Ordering::Relaxed);
        if in_log < self.moved {
            self.moved = 0;
        }
        (in_log - self.moved) * self.page
    }

    /// Moves the log into the file as far as readers allow; the log starts over when all of it was moved.
    pub(super) fn checkpoint(&mut self) -> rusqlite::Result<()> {
        self.moved = self.in_log.load(Ordering::Relaxed);
        self.connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
    }
}

/// Whether the index of the log could not be made or grow: a file that is shared memory, and says nothing about what
/// is on the disk. SQLite calls a full disk an I/O error there.
fn is_of_the_index(error: &rusqlite::Error) -> bool {
    let code = error.sqlite_extended_error_code();
    matches!(code, Some(ffi::SQLITE_IOERR_SHMOPEN | ffi::SQLITE_IOERR_SHMSIZE | ffi::SQLITE_IOERR_SHMMAP))
}

/// Puts the names in a directory on the disk.
///
/// # Errors
/// Inside, where the disk failed: then nobody can tell whether they are there. Around that, where it could not be asked.
pub(super) fn sync_directory(home: &Path) -> io::Result<Result<(), OutboxError>> {
    match File::open(home).and_then(|home| home.sync_all()) {
        Err(error) if Errno::from_io_error(&error) == Some(Errno::IO) => {
            let why = format!("{} cannot be synced: {error}", home.display());
            Ok(Err(OutboxError::Stopped(why)))
        }
        done => done.map(Ok),
    }
}

impl Place {
    pub(super) fn new(home: &Path) -> Self {
        Self { file: home.join(FILE), home: home.into(), is_copy: false }
    }

    /// A copy, in a directory that has to be there: one that is made where a volume should be mounted would be on the
    /// wrong volume.
    pub(super) fn at(file: &Path) -> Self {
        let home = file.parent().unwrap_or(Path::new("/"));
        Self { file: file.into(), home: home.into(), is_copy: true }
    }

    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    pub(super) fn home(&self) -> &Path {
        &self.home
    }

    pub(super) fn exists(&self) -> bool {
        self.file.exists()
    }

    /// Opens it for writing; makes it where there is none.
    pub(super) fn open(&self) -> Result<Open, OutboxError> {
        self.stopped()?;
        if self.is_copy {
            self.has_volume()?;
        }
        self.make().map_err(|error| self.unavailable(error))?;
        let mut connection = self.connect(OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        self.prepare(&mut connection)?;
        self.sync_names()?;
        let wrong = |error: rusqlite::Error| self.failure(&error);
        let page: u32 = connection.pragma_query_value(None, "page_size", |row| row.get(0)).map_err(wrong)?;
        let in_log = Arc::new(AtomicUsize::new(0));
        let pages = Arc::clone(&in_log);
        let count = move |_: &mut Wal, many| {
            pages.store(usize::try_from(many).unwrap_or(0), Ordering::Relaxed);
            Ok(())
        };
        connection.wal_hook(Some(count)).map_err(wrong)?;
        let inode = self.inode().map_err(|error| self.unavailable(error))?;
        Ok(Open { connection, inode, page: page as usize, in_log, moved: 0 })
    }

    /// Opens it for reading; `None` where there is none.
    pub(super) fn open_for_reading(&self) -> Result<Option<Connection>, OutboxError> {
        if !self.exists() {
            return Ok(None);
        }
        // Not read-only: who comes first after a crash has to recover the log.
        let connection = self.connect(OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        match self.version(&connection)? {
            0 => Ok(None),
            VERSION => Ok(Some(connection)),
            other => Err(self.newer(other)),
        }
    }

    /// Whether the file is still the one that was opened: what is written to one that was removed is lost.
    pub(super) fn is_same(&self, open: &Open) -> bool {
        self.inode().is_ok_and(|inode| inode == open.inode)
    }

    /// An error where a disk failed under the outbox since the machine started, and nobody looked since. What the
    /// system says after such a failure cannot be trusted, by no process; a restart of the machine shows what is
    /// really on the disk.
    pub(super) fn stopped(&self) -> Result<(), OutboxError> {
        let Ok(text) = fs::read_to_string(self.home.join(STOPPED)) else { return Ok(()) };
        match text.split_once('\n') {
            Some((then, why)) if then == boot() => Err(self.stop_for(why.trim())),
            _ => Ok(()),
        }
    }

    /// An error where the directory is not there, or nothing in it can be changed.
    pub(super) fn has_volume(&self) -> Result<(), OutboxError> {
        let home = self.home.display();
        match fs::metadata(&self.home) {
            Ok(found) if !found.is_dir() => Err(self.unavailable(format!("{home} is no directory"))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(self.unavailable(format!("the directory {home} is not there (is its volume mounted?)")))
            }
            Err(error) => Err(self.unavailable(format!("{home}: {error}"))),
            Ok(_) => match statvfs(&self.home) {
                Ok(volume) if volume.f_flag.contains(StatVfsMountFlags::RDONLY) => Err(self
                    .unavailable(format!("the directory {home} is on a volume that is mounted read-only"))),
                _ => Ok(()),
            },
        }
    }

    /// Why nothing is written any more.
    fn stop_for(&self, why: &str) -> OutboxError {
        match self.is_copy {
            true => OutboxError::CopyStopped { copy: self.file.display().to_string(), why: why.into() },
            false => OutboxError::Stopped(why.into()),
        }
    }

    /// Keeps other processes from going on, as far as that disk can still be written.
    pub(super) fn stop(&self, why: &str) {
        let _ = fs::write(self.home.join(STOPPED), format!("{}\n{why}\n", boot()));
    }

    /// Lets all processes that start from now on go on.
    pub(super) fn resume(&self) -> io::Result<()> {
        match fs::remove_file(self.home.join(STOPPED)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    pub(super) fn unavailable(&self, what: impl ToString) -> OutboxError {
        OutboxError::unavailable(&self.file, what)
    }

    /// What a failure of SQLite means: whether the disk can still be trusted.
    pub(super) fn failure(&self, error: &rusqlite::Error) -> OutboxError {
        match error.sqlite_error_code() {
            Some(ErrorCode::SystemIoFailure) if is_of_the_index(error) => {
                self.unavailable("there is no room for the index of its log (is the disk full?)")
            }
            // No disk failed, and whatever it was is put right only by another file in its place.
            Some(ErrorCode::NotADatabase) => match self.is_copy {
                true => {
                    let file = self.file.display();
                    self.stop_for(&format!("{error}; move {file}, {file}-wal and {file}-shm away"))
                }
                false => OutboxError::NotADatabase { file: self.file.clone() },
            },
            Some(ErrorCode::SystemIoFailure | ErrorCode::DatabaseCorrupt) => match self.is_copy {
                true => self.stop_for(&error.to_string()),
                false => self.stop_for(&format!("{}: {error}", self.file.display())),
            },
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => OutboxError::Busy,
            _ => self.unavailable(error),
        }
    }

    pub(super) fn inode(&self) -> io::Result<u64> {
        fs::metadata(&self.file).map(|metadata| metadata.ino())
    }

    fn make(&self) -> io::Result<()> {
        if !self.is_copy {
            DirBuilder::new().recursive(true).mode(0o700).create(&self.home)?;
        }
        if self.file.exists() {
            return Ok(());
        }
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&self.file) {
            Ok(_) => give_to_owner(&self.home, &self.file),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        // So is the directory's name, before anything is acknowledged; its own are synced at each opening.
        match self.home.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            Some(parent) => File::open(parent)?.sync_all(),
            None => Ok(()),
        }
    }

    /// The names of the file and of its log are on the disk before anything is acknowledged, whoever made them: he may
    /// have died before he came so far. A sync of these that failed says as much as any other.
    fn sync_names(&self) -> Result<(), OutboxError> {
        match sync_directory(&self.home) {
            Ok(Err(OutboxError::Stopped(why))) => Err(self.stop_for(&why)),
            Ok(synced) => synced,
            Err(error) => Err(self.unavailable(error)),
        }
    }

    fn connect(&self, flags: OpenFlags) -> Result<Connection, OutboxError> {
        let wrong = |error: rusqlite::Error| self.failure(&error);
        let connection = Connection::open_with_flags(&self.file, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)
            .map_err(wrong)?;
        connection.busy_timeout(BUSY).map_err(wrong)?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS);
        // Checkpoints are the writer's, which looks at how they went.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map_err(wrong)?;
        connection.pragma_update(None, "wal_autocheckpoint", 0).map_err(wrong)?;
        Ok(connection)
    }

    fn prepare(&self, connection: &mut Connection) -> Result<(), OutboxError> {
        let wrong = |error: rusqlite::Error| self.failure(&error);
        connection.pragma_update(None, "synchronous", "FULL").map_err(wrong)?;
        connection.pragma_update(None, "fullfsync", true).map_err(wrong)?;
        let mut journal: String =
            connection.pragma_query_value(None, "journal_mode", |row| row.get(0)).map_err(wrong)?;
        if self.version(connection)? == 0 || journal != "wal" {
            let _lock = lock(&self.home).map_err(|error| self.unavailable(error))?;
            journal = wal::switch_on(connection).map_err(wrong)?;
            let transaction =
                connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(wrong)?;
            // Another process may have done it since.
            if self.version(&transaction)? == 0 {
                transaction.execute_batch(SCHEMA).map_err(wrong)?;
                transaction.pragma_update(None, "application_id", APPLICATION).map_err(wrong)?;
                transaction.pragma_update(None, "user_version", VERSION).map_err(wrong)?;
            }
            transaction.commit().map_err(wrong)?;
        }
        let synchronous: i64 =
            connection.pragma_query_value(None, "synchronous", |row| row.get(0)).map_err(wrong)?;
        if synchronous != 2 || journal != "wal" {
            let what =
                format!("SQLite does not sync as asked (synchronous={synchronous}, journal_mode={journal})");
            return Err(self.unavailable(what));
        }
        Ok(())
    }

    /// 0 where nothing is in it yet.
    fn version(&self, connection: &Connection) -> Result<i64, OutboxError> {
        let read = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
        let version = read("user_version").map_err(|error| self.failure(&error))?;
        let application = read("application_id").map_err(|error| self.failure(&error))?;
        if version > VERSION {
            return Err(self.newer(version));
        }
        if version != 0 && application != APPLICATION {
            return Err(self.unavailable("it is another program's file; move it away"));
        }
        Ok(version)
    }

    fn newer(&self, version: i64) -> OutboxError {
        let what =
            format!("a later version of farcall wrote it (schema {version}, this one knows {VERSION})");
        self.unavailable(what)
    }
}
