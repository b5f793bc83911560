//! What is simulated: the vendors, the customers, and how long. Read from TOML by
//! [`Scenario::parse`](super::Scenario::parse); docs/simulate.md describes the file.

use super::what_if::WhatIf;
use crate::call::{ErrorType, Priority};
use crate::config::{ConfigError, read_scenario};
use crate::quota::Weight;
use crate::units::Timestamp;
use std::time::Duration;

/// A service, its customers and its vendors, over some time.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Scenario {
    /// `duration`: how long.
    pub duration: Duration,
    /// `start`: from which moment on. Days, weeks and budgets follow this calendar (UTC).
    pub start: Timestamp,
    /// `seed`: of all chance.
    pub seed: u64,
    /// `engines`: how many processes make the calls; they stand on one host and share what rules say is shared.
    pub engines: usize,
    /// `sample`: which share of the calls is simulated, against the same share of every limit and budget.
    pub sample: f64,
    /// `config`: the `farcall.toml` that goes with it; relative to the scenario's own folder.
    pub config: Option<String>,
    /// `[[vendor]]`: whom they call.
    pub vendors: Vec<Vendor>,
    /// `[[customer]]`: who calls.
    pub customers: Vec<Customer>,
    /// `[[clock_jump]]`: when a process's clock is set.
    pub clock_jumps: Vec<ClockJump>,
    /// What is answered without the vendor; from `[what_if]`.
    pub caches: Vec<Cache>,
    /// `[what_if]`: the change that is looked into.
    pub what_if: Option<WhatIf>,
}

impl Scenario {
    /// Reads the text of a scenario; `file` is the name that errors show.
    ///
    /// # Errors
    /// All that is wrong with it, in the order of the file.
    pub fn parse(file: &str, text: &str) -> Result<Self, Vec<ConfigError>> {
        read_scenario(file, text)
    }
}

/// A vendor that follows a script.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Vendor {
    /// `name`: as in the catalogue, or of one's own.
    pub name: String,
    /// `host`: where it answers.
    pub host: String,
    /// `latency`: how long its answers take, log-normally distributed.
    pub latency: Latency,
    /// `errors`: the share of exchanges that it answers with a 500.
    pub errors: f64,
    /// `outages`: when it is down.
    pub outages: Vec<Outage>,
    /// `limit`: what it allows a credential.
    pub limit: Option<Limit>,
    /// `capacity`: how many exchanges it works on at a time; it answers those beyond with a 503.
    pub capacity: Option<usize>,
}

/// A log-normal distribution, by two of its quantiles.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Latency {
    /// The median.
    pub p50: Duration,
    /// What 99 of 100 stay below.
    pub p99: Duration,
}

/// A time in which a vendor is down.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outage {
    /// `from`: when, from the scenario's start.
    pub from: Duration,
    /// `for`: how long.
    pub lasts: Duration,
    /// `share`: of the exchanges that meet it.
    pub share: f64,
    /// `status` or `error`: how it shows.
    pub shows: Shows,
}

/// How an outage shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shows {
    /// By this status.
    Status(u16),
    /// By this error; a timeout takes until whoever waits gives up, at most 30 seconds.
    Error(ErrorType),
}

/// What a vendor allows a credential.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Limit {
    /// Requests in a period.
    pub units: u64,
    /// The period.
    pub period: Duration,
    /// `form`.
    pub form: Form,
    /// `burst`: the size of the bucket.
    pub burst: u64,
    /// `states`: whether each answer says what is left.
    pub states: bool,
    /// `retry_after`: whether a 429 says when to come back.
    pub retry_after: bool,
}

/// How a vendor counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// `window`: from one multiple of the period to the next.
    #[default]
    Window,
    /// `bucket`: a bucket that refills steadily.
    Bucket,
}

/// Who causes calls.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Customer {
    /// `name`.
    pub name: String,
    /// `rate`: calls a second, on the average of a weekday without bursts.
    pub rate: f64,
    /// `priority`.
    pub priority: Priority,
    /// `weight`: in every fair share.
    pub weight: Option<Weight>,
    /// `credential`: whose name its calls carry; `shared` for all that do not say.
    pub credential: String,
    /// `deadline`: how long the application waits for an answer.
    pub deadline: Option<Duration>,
    /// `sdk_retries`: how often an SDK above the engine tries again by itself.
    pub sdk_retries: u32,
    /// `swing`: how far the rate of the busiest hour is above, and that of the quietest below the average.
    pub swing: f64,
    /// `peak`: the busiest moment of the day.
    pub peak: Duration,
    /// `weekend`: the rate on Saturdays and Sundays as a share of that of the other days.
    pub weekend: f64,
    /// `bursts`.
    pub bursts: Option<Bursts>,
    /// `calls`: what it asks for.
    pub calls: Vec<Asked>,
}

/// Times in which a customer calls more.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bursts {
    /// `every`: how often.
    pub every: Duration,
    /// `for`: how long.
    pub lasts: Duration,
    /// `factor`: how many times its rate.
    pub factor: f64,
}

/// A kind of call.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Asked {
    /// The vendor's place in [`Scenario::vendors`].
    pub vendor: usize,
    /// The endpoint as the scenario has it, `GET /v1/things/{thing}`.
    pub endpoint: String,
    /// Its method.
    pub method: String,
    /// A path that matches it.
    pub path: String,
    /// `weight`: how often it is asked for, compared with the customer's other calls.
    pub weight: f64,
    /// `model`: the model of a language model's vendor, with the tokens of a typical call.
    pub model: Option<Model>,
}

/// What a call to a language model uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    /// `model`.
    pub name: String,
    /// `tokens_in`: of each prompt.
    pub tokens_in: u64,
    /// `tokens_out`: of an answer: evenly distributed from none to twice as many.
    pub tokens_out: u64,
}

/// A process's clock is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockJump {
    /// `engine`: which one's, from 1; without it everybody's.
    pub engine: Option<usize>,
    /// `at`: when, from the scenario's start.
    pub at: Duration,
    /// `by`: so far, in milliseconds.
    pub by_millis: i64,
}

/// Calls that are answered without the vendor.
#[derive(Clone, Debug, PartialEq)]
pub struct Cache {
    /// `vendor`: whose; of all that have such an endpoint where not given.
    pub vendor: Option<String>,
    /// `endpoint`.
    pub endpoint: String,
    /// `hit`: which share.
    pub hit: f64,
}
