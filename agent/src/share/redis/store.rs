//! Questions to the store, and its answers.

use super::Rate;
use farcall::Timestamp;
use farcall::config::ShareConfig;
use farcall::quota::{Grant, Wanted};
use redis::{Client, Connection, RedisError, RedisResult};
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
///
/// What a host owes comes out of the bucket, down to a bound, less what ran over since the store answered it last: nobody
/// took that, so what went instead is within the limit. A debt that was told already is known by its number.
///
/// The order of the numbers in `min` and `max` has it that one which is none (NaN) is none afterwards.
const SCRIPT: &str = r"
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local hosts = KEYS[2]
redis.call('ZADD', hosts, string.format('%.0f', now + tonumber(ARGV[7]) * 1000), ARGV[6])
redis.call('ZREMRANGEBYSCORE', hosts, '-inf', string.format('(%.0f', now))
redis.call('PEXPIRE', hosts, ARGV[7])
local grant, spilled = 0, 0
if KEYS[1] ~= hosts then
    local rate, most, owed = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[9])
    local known = redis.call('HMGET', KEYS[1], 'level', 'at', 'spilled')
    local level, at = tonumber(known[1]), tonumber(known[2])
    if not level or not at then level, at = tonumber(ARGV[5]), now end
    level = level + math.max(0, now - at) * rate / 1000000 + tonumber(ARGV[2])
    spilled = (tonumber(known[3]) or 0) + math.max(0, level - most)
    if not (spilled >= 0 and spilled < 1e15) then spilled = 0 end
    level = math.min(most, level)
    if owed > 0 then
        if redis.call('GET', KEYS[3]) == ARGV[10] then owed = 0 end
        redis.call('SET', KEYS[3], ARGV[10], 'PX', ARGV[8])
        local paid = math.max(0, math.min(owed, spilled - tonumber(ARGV[11])))
        spilled = spilled - paid
        level = level - (owed - paid)
    end
    level = math.max(-tonumber(ARGV[12]), level)
    grant = math.max(0, math.floor(math.min(tonumber(ARGV[1]), level)))
    redis.call('HSET', KEYS[1], 'level', string.format('%.9f', level - grant), 'at', string.format('%.0f', now), 'spilled', string.format('%.9f', spilled))
    redis.call('PEXPIRE', KEYS[1], ARGV[8])
end
return {grant, redis.call('ZCARD', hosts), math.floor(spilled)}
";

/// What to ask about one quota.
#[derive(Clone, Copy, Debug)]
pub(super) struct Question {
    pub(super) key: u64,
    pub(super) wanted: Wanted,
    pub(super) rate: Rate,
    pub(super) asked: Timestamp,
}

/// All that it says at once.
#[derive(Debug)]
pub(super) struct Answers {
    /// One for each question; `None` where something else lies under a key of that quota.
    pub(super) grants: Vec<Option<Grant>>,
    /// How many hosts there are in all; `None` where something else lies under the key of that.
    pub(super) hosts: Option<u32>,
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
        let (mut connection, script) = match self.connection.take() {
            Some(connected) => connected,
            None => self.connect()?,
        };
        let answers = self.try_ask(&mut connection, &script, questions)?;
        // After an error it is let go of: what still comes over it would be taken for the answer to another question.
        self.connection = Some((connection, script));
        Ok(answers)
    }

    fn connect(&self) -> RedisResult<(Connection, String)> {
        let mut connection = Client::open(self.url.as_str())?.get_connection_with_timeout(CONNECT)?;
        connection.set_read_timeout(Some(ANSWER))?;
        connection.set_write_timeout(Some(ANSWER))?;
        let script = redis::cmd("SCRIPT").arg("LOAD").arg(SCRIPT).query(&mut connection)?;
        Ok((connection, script))
    }

    fn try_ask(
        &self,
        connection: &mut Connection,
        script: &str,
        questions: &[Question],
    ) -> RedisResult<Answers> {
        let mut all = redis::pipe();
        let fleet = self.name_of_hosts();
        all.cmd("EVALSHA").arg(script).arg(2).arg(&fleet).arg(&fleet);
        all.arg(0).arg(0).arg(0).arg(0).arg(0).arg(&self.host).arg(GONE).arg(GONE);
        for Question { key, wanted, rate, .. } in questions {
            let quota = self.name(*key);
            let [bucket, hosts, told] = ["level", "hosts", "told"].map(|name| format!("{quota}:{name}"));
            let full = (rate.most.max(rate.debt) / rate.per_second * 1_000.0).ceil() as u64;
            all.cmd("EVALSHA").arg(script).arg(3).arg(bucket).arg(hosts);
            all.arg(format!("{told}:{}", self.host));
            all.arg(wanted.units).arg(wanted.returned).arg(rate.per_second).arg(rate.most).arg(rate.first);
            all.arg(&self.host).arg(GONE).arg(full.saturating_mul(2).max(60_000)).arg(wanted.owed);
            all.arg(wanted.debt).arg(wanted.spilled.unwrap_or(u64::MAX)).arg(rate.debt);
        }
        let answers: Vec<RedisResult<(u64, u32, u64)>> = all.ignore_errors().query(connection)?;
        let mut grants = answers.into_iter().map(|answer| match answer {
            Ok((units, hosts, spilled)) => Ok(Some(Grant { units, hosts, spilled })),
            Err(error) if is_about_a_key(&error) => Ok(None),
            Err(error) => Err(error),
        });
        let hosts = grants.next().transpose()?.flatten().map(|fleet| fleet.hosts);
        Ok(Answers { grants: grants.collect::<RedisResult<_>>()?, hosts })
    }

    /// What the names of all keys of a quota begin with. Braces: one slot of a cluster for all.
    pub(super) fn name(&self, key: u64) -> String {
        format!("{}{{{key:016x}}}", self.prefix)
    }

    /// Under what the store knows which hosts there are.
    pub(super) fn name_of_hosts(&self) -> String {
        format!("{}hosts", self.prefix)
    }
}

/// Whether something lies under a key that is not ours: nothing was changed then, and other keys are as good as ever.
/// Redis before 7 says so in the words of a script's failure, after another code.
fn is_about_a_key(error: &RedisError) -> bool {
    let wrong = "WRONGTYPE";
    error.code() == Some(wrong) || error.detail().is_some_and(|detail| detail.contains(wrong))
}
