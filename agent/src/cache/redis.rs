//! Answers in a Redis or Valkey, which hosts share. They are sealed as those on the disk are, by a key that the hosts
//! have in common: the store learns nothing, and nothing that it makes up is taken for an answer.

use super::worker::Tier;
use farcall::cache::Key;
use redis::{Client, Commands, Connection, RedisError};
use std::io;
use std::time::Duration;

/// A connection has to be there within this time, in the thread that waits for nobody.
const CONNECT: Duration = Duration::from_millis(500);
/// So long an answer may take. Calls wait for less.
const ANSWER: Duration = Duration::from_millis(250);
/// What nobody wrote anew for so long goes.
const KEPT: Duration = Duration::from_secs(7 * 86_400);
/// Larger ones are not sent.
const LARGEST: usize = 4 << 20;
/// Keys that are asked for at once while all are gone through.
const AT_ONCE: usize = 256;

/// The store, and the connection to it.
pub(super) struct Redis {
    url: String,
    prefix: String,
    connection: Option<Connection>,
}

impl Redis {
    pub(super) fn new(url: &str, prefix: &str) -> Self {
        Self { url: url.to_owned(), prefix: format!("{prefix}cache:"), connection: None }
    }

    fn name(&self, key: Key) -> String {
        format!("{}{:032x}", self.prefix, key.number())
    }

    fn ask<T>(&mut self, what: impl FnOnce(&mut Connection) -> Result<T, RedisError>) -> io::Result<T> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.connect().map_err(io::Error::other)?,
        };
        let answer = what(&mut connection).map_err(io::Error::other)?;
        // After an error it is let go of: what still comes over it would be taken for another question's answer.
        self.connection = Some(connection);
        Ok(answer)
    }

    fn connect(&self) -> Result<Connection, RedisError> {
        let connection = Client::open(self.url.as_str())?.get_connection_with_timeout(CONNECT)?;
        connection.set_read_timeout(Some(ANSWER))?;
        connection.set_write_timeout(Some(ANSWER))?;
        Ok(connection)
    }
}

impl std::fmt::Debug for Redis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The address may hold a password.
        f.debug_struct("Redis").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

impl Tier for Redis {
    fn read(&mut self, key: Key) -> io::Result<Option<Vec<u8>>> {
        let name = self.name(key);
        self.ask(|connection| connection.get(name))
    }

    fn write(&mut self, key: Key, sealed: &[u8]) -> io::Result<()> {
        if sealed.len() > LARGEST {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is too large for that"));
        }
        let name = self.name(key);
        self.ask(|connection| connection.set_ex(name, sealed, KEPT.as_secs()))
    }

    fn remove(&mut self, key: Key) -> io::Result<()> {
        let name = self.name(key);
        self.ask(|connection| connection.del(name))
    }

    fn walk(&mut self, wants: &mut dyn FnMut(Key, Vec<u8>) -> bool) -> io::Result<u64> {
        let (mut cursor, mut removed) = (0_u64, 0);
        let pattern = format!("{}*", glob(&self.prefix));
        loop {
            let scanned: (u64, Vec<String>) = self.ask(|connection| {
                redis::cmd("SCAN").arg(cursor).arg("MATCH").arg(&pattern).arg("COUNT").arg(AT_ONCE).query(connection)
            })?;
            for name in &scanned.1 {
                let number = name.get(self.prefix.len()..).and_then(|key| u128::from_str_radix(key, 16).ok());
                let Some(key) = number.map(Key::of) else { continue };
                let sealed: Option<Vec<u8>> = self.ask(|connection| connection.get(name))?;
                if sealed.is_some_and(|sealed| wants(key, sealed)) {
                    self.remove(key)?;
                    removed += 1;
                }
            }
            cursor = scanned.0;
            if cursor == 0 {
                return Ok(removed);
            }
        }
    }
}

/// A text that stands for itself in a pattern.
fn glob(text: &str) -> String {
    text.chars().flat_map(|letter| if "*?[]\\^-".contains(letter) { vec!['\\', letter] } else { vec![letter] }).collect()
}
