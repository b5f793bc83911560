//! Answers in a Redis or Valkey, which hosts share. They are sealed as those on the disk are, by a key that the hosts
//! have in common: the store learns nothing, and nothing that it makes up is taken for an answer.

use super::changes::Changes;
use super::tier::Tier;
use farcall::Timestamp;
use farcall::cache::Key;
use redis::{Client, Commands, Connection, RedisError};
use std::io;
use std::time::Duration;

/// A connection has to be there within this time, in the thread that waits for nobody.
const CONNECT: Duration = Duration::from_millis(500);
/// So long an answer may take. Calls wait for less.
const ANSWER: Duration = Duration::from_millis(250);
/// What nobody wrote anew for so long goes, and sooner what is of no use any more.
const KEPT: Duration = Duration::from_secs(7 * 86_400);
/// Larger ones are not sent.
const LARGEST: usize = 4 << 20;
/// Keys that are asked for at once while all are gone through.
const AT_ONCE: usize = 256;

/// A change that is learnt of late is taken to have been made by so much later: the store has another clock than the
/// host that asked for an answer.
const APART: Duration = Duration::from_secs(1);

/// Tells of the places of `ARGV` from the third on, and answers with those that others told of since `ARGV[1]`. One set
/// orders them by when the store was told, each with a later number than those before, whatever its clock does.
const EXCHANGE: &str = r"
local table, seen = KEYS[1], tonumber(ARGV[1])
local last = tonumber(redis.call('ZREVRANGE', table, 0, 0, 'WITHSCORES')[2] or '0')
if seen > last then seen = 0 end
local news = redis.call('ZRANGEBYSCORE', table, string.format('(%.0f', seen), '+inf', 'WITHSCORES')
if #ARGV > 2 then
    local time = redis.call('TIME')
    last = math.max(last + 1, tonumber(time[1]) * 1000000 + tonumber(time[2]))
    for at = 3, #ARGV do redis.call('ZADD', table, string.format('%.0f', last), ARGV[at]) end
    redis.call('PEXPIRE', table, ARGV[2])
end
return {string.format('%.0f', last), news}
";

/// The store, and the connection to it.
pub(super) struct Redis {
    url: String,
    prefix: String,
    /// Where hosts of one service tell each other what was changed.
    table: String,
    /// The number of the last change that this process knows of, in microseconds of the store's clock; `None` before it
    /// asked.
    seen: Option<u64>,
    connection: Option<Connection>,
}

impl Redis {
    /// `table` stands for the service.
    pub(super) fn new(url: &str, prefix: &str, table: u128) -> Self {
        let (prefix, table) = (format!("{prefix}cache:"), format!("{prefix}changes:{table:032x}"));
        Self { url: url.to_owned(), prefix, table, seen: None, connection: None }
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

    fn write(&mut self, key: Key, sealed: &[u8], useful_for: Duration) -> io::Result<()> {
        if sealed.len() > LARGEST {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is too large for that"));
        }
        let name = self.name(key);
        self.ask(|connection| connection.set_ex(name, sealed, useful_for.min(KEPT).as_secs().max(1)))
    }

    fn remove(&mut self, key: Key) -> io::Result<()> {
        let name = self.name(key);
        self.ask(|connection| connection.del(name))
    }

    fn exchange(&mut self, changes: &Changes, now: Timestamp) -> io::Result<()> {
        let untold = changes.untold();
        let (table, seen) = (self.table.clone(), self.seen);
        let told: io::Result<(u64, Vec<(u64, u64)>)> = self.ask(|connection| {
            let mut command = redis::cmd("EVAL");
            command.arg(EXCHANGE).arg(1).arg(table).arg(seen.unwrap_or(0)).arg(KEPT.as_millis() as u64);
            untold.iter().for_each(|place| {
                command.arg(*place);
            });
            command.query(connection)
        });
        let (last, news) = match told {
            Ok(told) => told,
            Err(error) => {
                changes.put_back(untold);
                return Err(error);
            }
        };
        for (place, at) in news {
            let at = Timestamp::from_nanos(at.saturating_mul(1_000)).plus(APART);
            // One that was made while this process ran was made at the latest now.
            changes.learn(place, if seen.is_none() { at } else { now });
        }
        self.seen = Some(last);
        Ok(())
    }

    fn walk(&mut self, wants: &mut dyn FnMut(Key, Vec<u8>) -> bool) -> io::Result<u64> {
        let (mut cursor, mut removed) = (0_u64, 0);
        let pattern = format!("{}*", glob(&self.prefix));
        loop {
            let scanned: (u64, Vec<String>) = self.ask(|connection| {
                redis::cmd("SCAN")
                    .arg(cursor)
                    .arg("MATCH")
                    .arg(&pattern)
                    .arg("COUNT")
                    .arg(AT_ONCE)
                    .query(connection)
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
    text.chars()
        .flat_map(|letter| if "*?[]\\^-".contains(letter) { vec!['\\', letter] } else { vec![letter] })
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::shared::Beyond;
    use super::super::tests::{Process, URL, now};
    use super::*;
    use crate::redis_server::Server;
    use crate::{Farcall, Options};
    use farcall::matcher::Matcher;
    use farcall::{Head, Step};
    use rustix::process::{Pid, Signal, kill_process};
    use std::path::Path;
    use std::time::Instant;
    use tempfile::TempDir;

    impl Server {
        fn process(&self, home: &Path, patience: Duration) -> Process {
            let redis = Some((self.url.as_str(), "test:", patience));
            Process::with(home, "shop", &Beyond { disk: None, redis })
        }

        fn values(&self) -> Vec<Vec<u8>> {
            let mut connection = Client::open(self.url.as_str()).unwrap().get_connection().unwrap();
            let keys: Vec<String> = connection.keys("test:cache:*").unwrap();
            keys.iter().map(|key| connection.get(key).unwrap()).collect()
        }

        fn seconds_left(&self) -> Vec<i64> {
            let mut connection = Client::open(self.url.as_str()).unwrap().get_connection().unwrap();
            let keys: Vec<String> = connection.keys("test:cache:*").unwrap();
            keys.iter().map(|key| connection.ttl(key).unwrap()).collect()
        }
    }

    /// Two hosts with one key.
    fn hosts() -> [TempDir; 2] {
        [(); 2].map(|()| {
            let home = tempfile::tempdir().unwrap();
            std::fs::write(home.path().join("cache.key"), [7; 32]).unwrap();
            home
        })
    }

    const PATIENT: Duration = Duration::from_secs(60);

    #[test]
    fn hosts_with_one_key_share_answers_of_which_the_store_learns_nothing() {
        let (server, [one, other]) = (Server::start(), hosts());
        let first = server.process(one.path(), PATIENT);
        assert!(first.get(URL, Some("acme"), b"the body").1);
        first.settle();
        let values = server.values();
        assert_eq!(values.len(), 2, "an answer, and by what it varies");
        for seconds in server.seconds_left() {
            assert!((1..=3_600).contains(&seconds), "{seconds} s are left of an hour");
        }
        let said =
            |word: &[u8]| values.iter().any(|value| value.windows(word.len()).any(|part| part == word));
        assert!(!said(b"body") && !said(b"acme") && !said(b"rates"));
        let second = server.process(other.path(), PATIENT);
        assert_eq!(second.get(URL, Some("acme"), b""), (b"the body".to_vec(), false));
        assert!(second.get(URL, Some("globex"), b"x").1, "another customer's");
        let stranger = tempfile::tempdir().unwrap();
        assert!(server.process(stranger.path(), PATIENT).get(URL, Some("acme"), b"x").1, "another key");
        first.engine.purge_cache(&Matcher::new([("customer", "acme")]).unwrap(), now());
        first.settle();
        assert!(server.process(other.path(), PATIENT).get(URL, Some("acme"), b"new").1);
    }

    #[test]
    fn what_one_host_changes_no_other_one_hands_out_once_it_was_told() {
        let (server, [one, other]) = (Server::start(), hosts());
        let (first, second) = (server.process(one.path(), PATIENT), server.process(other.path(), PATIENT));
        assert!(first.get(URL, None, b"old").1);
        first.settle();
        assert_eq!(second.get(URL, None, b""), (b"old".to_vec(), false));
        first.delete("https://api.example.com/v1/rates");
        first.settle();
        let begun = Instant::now();
        while second.get(URL, None, b"new") == (b"old".to_vec(), false) {
            assert!(begun.elapsed() < Duration::from_secs(60), "it is not told");
            std::thread::sleep(Duration::from_millis(10));
        }
        let late = tempfile::tempdir().unwrap();
        std::fs::write(late.path().join("cache.key"), [7; 32]).unwrap();
        let got = server.process(late.path(), PATIENT).get(URL, None, b"newer");
        assert_ne!(got.0, b"old", "nor one that comes later");
        assert_eq!(server.values().len(), 2, "and what tells of it is no answer");
    }

    #[test]
    fn what_could_not_be_told_is_told_when_the_store_is_there_again() {
        let (mut server, [one, other]) = (Server::start(), hosts());
        let (first, second) = (server.process(one.path(), PATIENT), server.process(other.path(), PATIENT));
        assert!(first.get(URL, None, b"old").1);
        first.settle();
        assert_eq!(second.get(URL, None, b""), (b"old".to_vec(), false));
        kill_process(Pid::from_child(&server.child), Signal::STOP).unwrap();
        first.delete("https://api.example.com/v1/rates");
        first.settle();
        assert!(first.count("untold_changes") > 0);
        kill_process(Pid::from_child(&server.child), Signal::CONT).unwrap();
        let begun = Instant::now();
        while second.get(URL, None, b"new") == (b"old".to_vec(), false) {
            assert!(begun.elapsed() < Duration::from_secs(60), "it is not told");
            std::thread::sleep(Duration::from_millis(10));
        }
        server.child.kill().unwrap();
    }

    /// What a program of its own gets, from its start to its end: whether that was kept.
    fn asks(home: &Path, is_written: impl Fn() -> bool) -> bool {
        let farcall = Farcall::start(Options {
            home: Some(home.into()),
            config: Some(home.join("farcall.toml")),
            service: Some("shop".into()),
            flush_every: None,
            hub: false,
            ..Options::default()
        });
        let nothing: &[(&str, &str)] = &[];
        let head = Head::new("GET", URL).headers(&nothing).body(Some(0), true).caches(true);
        let mut call = farcall.guard(farcall.begin(&head));
        let kept = loop {
            match call.step() {
                Step::Wait(until) => std::thread::sleep(until.since(farcall.now())),
                Step::Respond(_) => break true,
                Step::Send(_) => break false,
                other => panic!("{other:?}"),
            }
        };
        if !kept {
            call.answer_at(200, &nothing, farcall.now());
            assert!(matches!(call.step(), Step::Settled));
            call.read(b"the body");
            call.end();
            let begun = Instant::now();
            while !is_written() {
                assert!(begun.elapsed() < PATIENT, "it is not written");
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        farcall.shutdown();
        kept
    }

    #[test]
    fn what_was_purged_while_no_program_ran_is_handed_out_by_none_that_begins_later() {
        let (server, [home, _]) = (Server::start(), hosts());
        let rules = format!(
            "cache_redis = \"{}\"\ncache_redis_wait = \"60s\"\n[share]\nprefix = \"test:\"\n[[cache]]\nmatch = {{}}\nttl = \"1h\"\n",
            server.url
        );
        std::fs::write(home.path().join("farcall.toml"), rules).unwrap();
        let is_written = || !server.values().is_empty();
        assert!(!asks(home.path(), is_written));
        let begun = Instant::now();
        while !asks(home.path(), is_written) {
            assert!(begun.elapsed() < PATIENT, "what the first one kept is never found");
        }
        crate::purge_cache(home.path(), &[]).unwrap();
        assert!(is_written(), "nobody is there who could remove it");
        assert!(!asks(home.path(), is_written));
    }

    #[test]
    fn a_store_that_is_stopped_or_dead_delays_no_call_by_more_than_it_may() {
        let (mut server, [home, _]) = (Server::start(), hosts());
        let patience = Duration::from_millis(5);
        let process = server.process(home.path(), patience);
        kill_process(Pid::from_child(&server.child), Signal::STOP).unwrap();
        for number in 0..20 {
            let url = format!("https://api.example.com/v1/rates/{number}");
            let head = Head::new("GET", &url).body(Some(0), true).caches(true);
            let (begun, mut waits) = (now(), 0);
            let mut call = process.engine.begin(&head, begun, number);
            while let Step::Wait(until) = call.step(&process.engine, now()) {
                assert!(until <= now().plus(patience), "no wait ends later");
                std::thread::sleep(until.since(now()));
                waits += 1;
            }
            assert!(waits <= 10, "{waits} waits");
            call.abandon(&process.engine, now());
        }
        server.child.kill().unwrap();
        server.child.wait().unwrap();
        assert!(process.get(URL, None, b"x").1);
        process.settle();
        let given_up = process.engine.counters().unfetched_answers;
        assert!(given_up + process.count("failed_cache_reads") > 0, "and it is told of");
    }
}
