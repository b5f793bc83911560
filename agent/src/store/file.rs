//! The file: made, opened, migrated, moved aside when it is damaged.

use super::schema::{self, VERSION};
use super::write::MOST;
use super::{Failure, Kind};
use crate::home::{LEDGER, give_to_owner, lock_file};
use crate::wal;
use farcall::ledger::Sketch;
use rusqlite::functions::FunctionFlags;
use rusqlite::{Connection, OpenFlags, TransactionBehavior, config::DbConfig};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How long a flush waits for other writers: it is the flush thread's own time.
const BUSY: Duration = Duration::from_millis(1_500);

/// The log (`ledger.db-wal`) is moved into the file when it is longer than this, in bytes.
const MAX_LOG: u64 = 512 * 1024;
/// How long that may wait for others.
const TIDY: Duration = Duration::from_millis(100);

/// Where the ledger is. Holds nothing open.
#[derive(Debug)]
pub(crate) struct Store {
    home: PathBuf,
    file: PathBuf,
}

/// A ledger that is open for one flush.
pub(super) struct Open {
    pub(super) connection: Connection,
}

impl Store {
    pub(crate) fn new(home: PathBuf) -> Self {
        Self { file: home.join(LEDGER), home }
    }

    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    pub(super) fn open(&self) -> Result<Open, Failure> {
        self.make().map_err(|error| Failure::io(&self.file, &error))?;
        let connection = connect(&self.file, OpenFlags::SQLITE_OPEN_READ_WRITE)
            .map_err(|error| Failure::sqlite(&self.file, &error))?;
        let mut open = Open { connection };
        self.prepare(&mut open.connection)?;
        Ok(open)
    }

    /// Moves the log into the file once it is long enough to slow down those who open it. Where somebody reads
    /// from it for too long, a later flush does it.
    pub(super) fn tidy(&self, open: &Open) {
        let log = with_suffix(&self.file, "-wal");
        if fs::metadata(log).is_ok_and(|log| log.len() > MAX_LOG) {
            let _ = open.connection.busy_timeout(TIDY);
            let _ = open.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        }
    }

    /// Moves a damaged ledger aside, unless another process did: the new name, where it was this one.
    pub(super) fn set_aside(&self, damaged: Option<u64>) -> io::Result<Option<PathBuf>> {
        let _lock = self.lock()?;
        if inode(&self.file) != damaged {
            return Ok(None);
        }
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let aside = self.home.join(format!("{LEDGER}.corrupt-{time}"));
        fs::rename(&self.file, &aside)?;
        for suffix in ["-wal", "-shm"] {
            let _ = fs::rename(with_suffix(&self.file, suffix), with_suffix(&aside, suffix));
        }
        Ok(Some(aside))
    }

    pub(super) fn inode(&self) -> Option<u64> {
        inode(&self.file)
    }

    /// Makes the directory and an empty file that only this user may read, where there are none.
    fn make(&self) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.home)?;
        if self.file.exists() {
            return Ok(());
        }
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&self.file) {
            Ok(_) => give_to_owner(&self.home, &self.file),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn prepare(&self, connection: &mut Connection) -> Result<(), Failure> {
        let wrong = |error: rusqlite::Error| Failure::sqlite(&self.file, &error);
        let newer = |version| {
            Failure::new(
                &self.file,
                Kind::Newer,
                format!("a later version of farcall wrote it (schema {version}, this one knows {VERSION})"),
            )
        };
        // No checkpoint at each close, which is frequent here, nor SQLite's own after 1,000 pages: whoever opens
        // the log anew forgets how much of it was checkpointed, so that it would never start over. See `tidy`.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map_err(wrong)?;
        connection.pragma_update(None, "wal_autocheckpoint", 0).map_err(wrong)?;
        let version = schema::version(connection).map_err(wrong)?;
        if version > VERSION {
            return Err(newer(version));
        }
        if version < VERSION {
            let _lock = self.lock().map_err(|error| match error.kind() {
                io::ErrorKind::WouldBlock => {
                    let who = "another process has been making or migrating it for seconds";
                    Failure::new(&self.file, Kind::Busy, who)
                }
                _ => Failure::io(&self.file, &error),
            })?;
            wal::switch_on(connection).map_err(wrong)?;
            let transaction =
                connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(wrong)?;
            // Another process may have done it since.
            let version = schema::version(&transaction).map_err(wrong)?;
            if version > VERSION {
                return Err(newer(version));
            }
            schema::migrate(&transaction, version).and_then(|()| transaction.commit()).map_err(wrong)?;
        }
        // NORMAL: a crash of the machine may cost the last second or so, never the file.
        connection.pragma_update(None, "synchronous", "NORMAL").map_err(wrong)
    }

    /// One process at a time makes or replaces the file. Released when dropped.
    fn lock(&self) -> io::Result<File> {
        let path = self.home.join("ledger.lock");
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&path)?;
        give_to_owner(&self.home, &path);
        lock_file(&file)?;
        Ok(file)
    }
}

/// Opens the file with what every use of it needs.
pub(super) fn connect(file: &Path, flags: OpenFlags) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(file, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(BUSY)?;
    let pure =
        FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC | FunctionFlags::SQLITE_DIRECTONLY;
    connection.create_scalar_function("add_up", 2, pure, |context| {
        Ok(context.get::<i64>(0)?.saturating_add(context.get(1)?).min(MOST))
    })?;
    connection.create_scalar_function("sketch_merge", 2, pure, |context| {
        let read = |place| -> rusqlite::Result<Sketch> {
            // A sketch of a form that this version does not know loses its distribution, never its counts.
            Ok(Sketch::from_bytes(context.get_raw(place).as_blob().unwrap_or_default()).unwrap_or_default())
        };
        let mut sum = read(0)?;
        sum.merge(&read(1)?);
        Ok(sum.to_bytes())
    })?;
    Ok(connection)
}

fn inode(file: &Path) -> Option<u64> {
    fs::metadata(file).ok().map(|metadata| metadata.ino())
}

pub(super) fn with_suffix(file: &Path, suffix: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
