//! Questions to the store, and its answers.

use super::Rate;
use farcall::Timestamp;
use farcall::config::ShareConfig;
use farcall::quota::Wanted;
use redis::{Client, Connection, RedisResult};
use std::time::Duration;

/// A connection has to be there within this time, in the thread that waits for nobody.
const CONNECT: Duration = Duration::from_millis(500);
/// So long an answer may take.
const ANSWER: Duration = Duration::from_millis(250);
/// A host that said nothing for so long is gone, in milliseconds.
const GONE: u64 = 4_000;

/// Takes units out of a quota, and says who shares it. A token bucket (the GCRA in other numbers) by the store's
/// own clock; run as one, so no two hosts get the same unit. A bucket that is not there, or was wiped, begins with
/// the burst.
const SCRIPT: &str = r"
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local hosts = KEYS[2]
redis.call('ZADD', hosts, string.format('%.0f', now + tonumber(ARGV[7]) * 1000), ARGV[6])
redis.call('ZREMRANGEBYSCORE', hosts, '-inf', string.format('(%.0f', now))
redis.call('PEXPIRE', hosts, ARGV[7])
local grant = 0
if KEYS[1] ~= hosts then
    local rate, most = tonumber(ARGV[3]), tonumber(ARGV[4])
    local known = redis.call('HMGET', KEYS[1], 'level', 'at')
    local level, at = tonumber(known[1]), tonumber(known[2])
    if not level or not at then level, at = tonumber(ARGV[5]), now end
    local passed = math.max(0, now - at)
    level = math.min(most, level + passed * rate / 1000000 + tonumber(ARGV[2]))
    level = math.max(level - tonumber(ARGV[9]), math.min(level, -math.max(most, rate)))
    grant = math.max(0, math.floor(math.min(tonumber(ARGV[1]), level)))
    redis.call('HSET', KEYS[1], 'level', string.format('%.9f', level - grant), 'at', string.format('%.0f', now))
    redis.call('PEXPIRE', KEYS[1], ARGV[8])
end
return {grant, redis.call('ZCARD', hosts)}
";

/// What to ask about one quota.
#[derive(Clone, Copy, Debug)]
pub(super) struct Question {
    pub(super) key: u64,
    pub(super) wanted: Wanted,
    pub(super) rate: Rate,
    pub(super) asked: Timestamp,
}

/// What the store says about one quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Grant {
    pub(super) units: u64,
    pub(super) hosts: u32,
}

/// All that it says at once.
#[derive(Debug)]
pub(super) struct Answers {
    pub(super) grants: Vec<Grant>,
    /// How many hosts there are in all.
    pub(super) hosts: u32,
}

pub(super) struct Store {
    url: String,
    prefix: String,
    host: String,
    connection: Option<(Connection, String)>,
}

impl Store {
    pub(super) fn new(share: &ShareConfig, host: u64) -> Self {
        Self {
            url: share.redis.clone().unwrap_or_default(),
            prefix: share.prefix.clone(),
            host: format!("{host:016x}"),
            connection: None,
        }
    }

    /// Asks all of it in one round trip, and says that this host is there.
    pub(super) fn ask(&mut self, questions: &[Question]) -> RedisResult<Answers> {
        let answers = self.try_ask(questions);
        if answers.is_err() {
            // What still comes over it would be taken for the answer to another question.
            self.connection = None;
        }
        answers
    }

    fn try_ask(&mut self, questions: &[Question]) -> RedisResult<Answers> {
        if self.connection.is_none() {
            let mut connection = Client::open(self.url.as_str())?.get_connection_with_timeout(CONNECT)?;
            connection.set_read_timeout(Some(ANSWER))?;
            connection.set_write_timeout(Some(ANSWER))?;
            let script = redis::cmd("SCRIPT").arg("LOAD").arg(SCRIPT).query::<String>(&mut connection)?;
            self.connection = Some((connection, script));
        }
        let Some((connection, script)) = &mut self.connection else {
            return Ok(Answers { grants: Vec::new(), hosts: 1 });
        };
        let mut all = redis::pipe();
        let fleet = format!("{}hosts", self.prefix);
        all.cmd("EVALSHA").arg(script.as_str()).arg(2).arg(&fleet).arg(&fleet);
        all.arg(0).arg(0).arg(0).arg(0).arg(0).arg(&self.host).arg(GONE).arg(GONE);
        for Question { key, wanted, rate, .. } in questions {
            // Braces: one slot of a cluster for both.
            let bucket = format!("{}{{{key:016x}}}:level", self.prefix);
            let hosts = format!("{}{{{key:016x}}}:hosts", self.prefix);
            let full = (rate.most / rate.per_second * 1_000.0).ceil() as u64;
            all.cmd("EVALSHA").arg(script.as_str()).arg(2).arg(bucket).arg(hosts);
            all.arg(wanted.units).arg(wanted.returned).arg(rate.per_second).arg(rate.most).arg(rate.first);
            all.arg(&self.host).arg(GONE).arg(full.saturating_mul(2).max(60_000)).arg(wanted.owed);
        }
        let answers: Vec<(u64, u32)> = all.query(connection)?;
        let mut grants = answers.into_iter().map(|(units, hosts)| Grant { units, hosts });
        let hosts = grants.next().map_or(1, |fleet| fleet.hosts);
        Ok(Answers { grants: grants.collect(), hosts })
    }
}
