//! Copies of an outbox for tests: in a file, and in a database of a PostgreSQL.
#![allow(dead_code, clippy::unwrap_used)]

use super::{Home, Vendor, config};
use farcall::config::OutboxPlace;
use farcall_agent::outbox::Parcel;
use farcall_agent::{Farcall, Options};
use rusqlite::Connection;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{fs, thread};

/// Long enough for any machine; nothing here takes that long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Where a copy is.
pub(crate) enum Copy {
    /// A file, and the volume that it is on.
    File { file: PathBuf, volume: tempfile::TempDir },
    #[cfg(feature = "postgres")]
    Postgres(String),
}

impl Copy {
    pub(crate) fn in_a_file() -> Self {
        let volume = tempfile::tempdir().unwrap();
        let mounted = volume.path().join("mounted");
        fs::create_dir(&mounted).unwrap();
        Self::File { file: mounted.join("copy.db"), volume }
    }

    /// As the configuration names it.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::File { file, .. } => file.to_str().unwrap(),
            #[cfg(feature = "postgres")]
            Self::Postgres(database) => database,
        }
    }

    pub(crate) fn place(&self) -> OutboxPlace {
        OutboxPlace::parse(self.name()).unwrap()
    }

    /// The idempotency keys of the calls in it, in their order.
    pub(crate) fn keys(&self) -> Vec<String> {
        match self {
            Self::File { file, .. } => keys(file),
            #[cfg(feature = "postgres")]
            Self::Postgres(database) => {
                let keys = ask(database, "SELECT idempotency_key FROM farcall_outbox_copy.item ORDER BY id");
                keys.lines().map(str::to_owned).collect()
            }
        }
    }

    /// A call of this key was put long ago, as far as the copy knows.
    pub(crate) fn put_long_ago(&self, key: &str) {
        match self {
            Self::File { file, .. } => {
                let db = Connection::open(file).unwrap();
                db.busy_timeout(PATIENCE).unwrap();
                let sql = "UPDATE item SET put_at = 1 WHERE idempotency_key = ?1";
                assert_eq!(db.execute(sql, [key]).unwrap(), 1);
            }
            #[cfg(feature = "postgres")]
            Self::Postgres(database) => {
                let sql = "UPDATE farcall_outbox_copy.item SET put_at = 1 WHERE idempotency_key";
                ask(database, &format!("{sql} = '{key}'"));
            }
        }
    }

    /// Its calls were put earlier by so much, as far as it knows.
    pub(crate) fn grow_older(&self, by: Duration) {
        let sql = |item: &str| {
            let by = by.as_nanos();
            format!(
                "UPDATE {item} SET put_at = put_at - {by}, next_at = next_at - {by}, expires_at = expires_at - {by}"
            )
        };
        match self {
            Self::File { file, .. } => {
                let db = Connection::open(file).unwrap();
                db.busy_timeout(PATIENCE).unwrap();
                assert!(db.execute(&sql("item"), []).unwrap() > 0);
            }
            #[cfg(feature = "postgres")]
            Self::Postgres(database) => drop(ask(database, &sql("farcall_outbox_copy.item"))),
        }
    }

    /// They are dead letters.
    pub(crate) fn bury(&self) {
        match self {
            Self::File { file, .. } => {
                let db = Connection::open(file).unwrap();
                db.busy_timeout(PATIENCE).unwrap();
                assert!(db.execute("UPDATE item SET state = 2", []).unwrap() > 0);
            }
            #[cfg(feature = "postgres")]
            Self::Postgres(database) => drop(ask(database, "UPDATE farcall_outbox_copy.item SET state = 2")),
        }
    }

    /// It was used before, and takes nothing until it is brought back.
    pub(crate) fn lose(&self) {
        match self {
            Self::File { file, volume } => {
                fs::rename(file.parent().unwrap(), volume.path().join("away")).unwrap();
            }
            #[cfg(feature = "postgres")]
            Self::Postgres(database) => drop(ask(
                database,
                "CREATE OR REPLACE FUNCTION public.full() RETURNS trigger LANGUAGE plpgsql AS
                    'BEGIN RAISE EXCEPTION ''no space is left'' USING ERRCODE = ''disk_full''; END';
                CREATE TRIGGER full_disk BEFORE INSERT ON farcall_outbox_copy.item
                    FOR EACH ROW EXECUTE FUNCTION public.full()",
            )),
        }
    }

    pub(crate) fn bring_back(&self) {
        match self {
            Self::File { file, volume } => {
                fs::rename(volume.path().join("away"), file.parent().unwrap()).unwrap();
            }
            #[cfg(feature = "postgres")]
            Self::Postgres(database) => drop(ask(database, "DROP FUNCTION public.full() CASCADE")),
        }
    }
}

/// The idempotency keys of the calls in a file, in their order; none where there is no file.
pub(crate) fn keys(file: &Path) -> Vec<String> {
    if !file.exists() {
        return Vec::new();
    }
    let db = Connection::open(file).unwrap();
    db.busy_timeout(PATIENCE).unwrap();
    let mut statement = db.prepare("SELECT idempotency_key FROM item ORDER BY id").unwrap();
    let keys = statement.query_map([], |row| row.get(0)).unwrap();
    keys.map(Result::unwrap).collect()
}

/// What a database answers, as psql prints it.
#[cfg(feature = "postgres")]
pub(crate) fn ask(database: &str, sql: &str) -> String {
    let mut psql = std::process::Command::new("psql");
    let done = psql.args(["-X", "-A", "-t", "-q", "-c", sql, database]).output().unwrap();
    assert!(done.status.success(), "{sql}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8_lossy(&done.stdout).trim().to_owned()
}

/// A home directory with these copies, and what else its section says.
pub(crate) fn home(copies: &[&str], more: &str) -> Home {
    let mut home = Home::in_a_file();
    home.settings = format!("[outbox_store]\ncopies = {copies:?}\ntimeout = \"30s\"\n{more}\n");
    home
}

pub(crate) fn start(home: &Home, vendor: &Vendor) -> Farcall {
    Farcall::start(Options {
        home: Some(home.path().into()),
        config: Some(home.configure(&config(vendor))),
        service: Some("shop".into()),
        hub: false,
        ..Options::default()
    })
}

pub(crate) fn later(vendor: &Vendor) -> Parcel {
    Parcel::new("POST", vendor.url("/")).delay(Duration::from_secs(86_400))
}

pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < PATIENCE, "waited in vain for {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

#[cfg(feature = "postgres")]
const KEY: &str = "FARCALL_OUTBOX_KEY";
#[cfg(feature = "postgres")]
const DATABASE: &str = "FARCALL_TEST_DATABASE";

/// Keeps the promise that the test of this name makes in a process of its own, which has the key in its environment,
/// and with a database.
#[cfg(feature = "postgres")]
pub(crate) fn with_a_key(test: &str, promise: impl FnOnce(&str)) {
    with_a_key_saying(test, promise, |_| {});
}

/// The same, and what the process says on stderr is as it should be.
#[cfg(feature = "postgres")]
pub(crate) fn with_a_key_saying(test: &str, promise: impl FnOnce(&str), right: impl FnOnce(&str)) {
    use std::{env, process::Command};
    if let Ok(database) = env::var(DATABASE) {
        return promise(&database);
    }
    let Some(server) = super::postgres::Server::shared() else { return };
    let kept = Command::new(env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(KEY, "5".repeat(64))
        .env(DATABASE, server.database())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&kept.stderr);
    assert!(
        kept.status.success(),
        "{test}: {}\n{}{said}",
        kept.status,
        String::from_utf8_lossy(&kept.stdout)
    );
    right(&said);
}

/// Each of these functions is a test on a copy in a file and on one in a PostgreSQL.
#[allow(unused_macros)]
macro_rules! on_each_copy {
    ($($promise:ident)*) => {
        mod in_a_file {
            $(#[test]
            fn $promise() {
                super::$promise(&super::Copy::in_a_file());
            })*
        }
        #[cfg(feature = "postgres")]
        mod in_postgres {
            $(#[test]
            fn $promise() {
                let test = concat!("in_postgres::", stringify!($promise));
                super::with_a_key(test, |database| super::$promise(&super::Copy::Postgres(database.into())));
            })*
        }
    };
}
#[allow(unused_imports)]
pub(crate) use on_each_copy;
