//! One call of the application, as an adapter would make it: asks the engine, obeys, tells what it saw.

use super::dice::Dice;
use super::vendor::{Ending, Exchange, Said};
use super::world::{What, World};
use crate::call::{ErrorType, Head, RefusedBy, Target};
use crate::engine::{Attempt, Call, Step};
use crate::units::spread;
use std::fmt::Write as _;

const SECOND: u64 = 1_000_000_000;
/// What a cache takes.
const FROM_CACHE: u64 = SECOND / 1_000;
/// What a body without a model weighs.
const BODY: u64 = 512;
/// Purposes of dice.
const WAYS: u64 = 0x5EED_0001;
const TOKENS: u64 = 0x5EED_0002;
const BACKOFF: u64 = 0x5EED_0003;

/// A call of the application, with all that was made of it.
#[derive(Debug, Default)]
pub(super) struct Flight {
    pub(super) call: Option<Call>,
    pub(super) turn: u32,
    pub(super) customer: u32,
    asked: u32,
    pub(super) engine: u32,
    /// Which of the SDK's attempts this is, from 0.
    sdk_attempt: u32,
    /// Of the engine's.
    attempts: u32,
    fate: u64,
    begun: u64,
    /// When it asked and was told to wait, before its first attempt.
    waiting_since: Option<u64>,
    waited: u64,
    exchange: Exchange,
    vendor: u32,
}

/// How a call ended, for the application.
#[derive(Clone, Copy, Debug)]
enum End {
    Status(u16),
    Error,
    Refused(RefusedBy),
}

impl World<'_> {
    /// A customer causes a call.
    pub(super) fn arrive(&mut self, customer: u32) {
        let place = customer as usize;
        let fate = self.fates[place];
        self.arrival(customer);
        self.sums[place].calls += 1;
        let mut dice = Dice::new(fate, WAYS);
        let weights = &self.weights[place];
        let drawn = dice.unit() * weights.last().copied().unwrap_or(0.0);
        let asked = weights.partition_point(|sum| *sum <= drawn).min(weights.len() - 1);
        if dice.unit() < self.hits[place][asked] {
            let sums = &mut self.sums[place];
            sums.cached += 1;
            sums.answered += 1;
            sums.latency.record(FROM_CACHE);
            return;
        }
        let engine = (dice.draw() % self.engines.len() as u64) as u32;
        let flight = self.free.pop().unwrap_or_else(|| {
            self.flights.push(Flight::default());
            (self.flights.len() - 1) as u32
        });
        self.most_under_way = self.most_under_way.max((self.flights.len() - self.free.len()) as u64);
        let turn = self.flights[flight as usize].turn + 1;
        self.flights[flight as usize] = Flight {
            turn,
            customer,
            asked: asked as u32,
            engine,
            fate,
            begun: self.now,
            ..Flight::default()
        };
        self.begin(flight);
    }

    /// The application, or the SDK above the engine, makes a call.
    pub(super) fn begin(&mut self, number: u32) {
        let flight = &mut self.flights[number as usize];
        let customer = &self.scenario.customers[flight.customer as usize];
        let asked = &customer.calls[flight.asked as usize];
        let vendor = &self.scenario.vendors[asked.vendor];
        let (_, credential) = &self.credentials[flight.customer as usize];
        let retry = [b'0' + flight.sdk_attempt.min(9) as u8];
        let with_sdk =
            [("authorization", credential.as_bytes()), ("x-stainless-retry-count", retry.as_slice())];
        let headers = &with_sdk[..if customer.sdk_retries > 0 { 2 } else { 1 }];
        let offset = self.offsets[flight.engine as usize];
        let now = self.now.saturating_add_signed(offset);
        let deadline = customer.deadline.map(|deadline| {
            let at = flight.begun.saturating_add(u64::try_from(deadline.as_nanos()).unwrap_or(u64::MAX));
            crate::Timestamp::from_nanos(at.saturating_add_signed(offset))
        });
        let bytes = if asked.method == "GET" { 0 } else { BODY };
        self.body.clear();
        if let Some(model) = &asked.model {
            let most = model.tokens_out * 2;
            let _ = write!(self.body, r#"{{"model":"{}","max_tokens":{most},"messages":[]}}"#, model.name);
        }
        // About four bytes a token.
        let bytes =
            asked.model.as_ref().map_or(bytes, |model| (model.tokens_in * 4).max(self.body.len() as u64));
        let mut head = Head::to(&asked.method, Target::new(true, &vendor.host, 443, &asked.path))
            .customer(Some(&customer.name))
            .headers(&headers)
            .body(Some(bytes), true)
            .deadline(deadline)
            .priority(customer.priority);
        if !self.body.is_empty() {
            head = head.content(self.body.as_bytes());
        }
        let now = crate::Timestamp::from_nanos(now);
        let seed = flight.fate ^ u64::from(flight.sdk_attempt);
        flight.attempts = 0;
        flight.call = Some(self.engines[flight.engine as usize].begin(&head, now, seed));
        self.ask(number);
    }

    /// Asks the engine what to do, and does it.
    pub(super) fn ask(&mut self, number: u32) {
        let now = self.local(self.flights[number as usize].engine);
        let flight = &mut self.flights[number as usize];
        if let Some(since) = flight.waiting_since.take() {
            flight.waited += self.now - since;
        }
        let engine = &self.engines[flight.engine as usize];
        let Some(call) = &mut flight.call else { return };
        match call.step(engine, now) {
            Step::Send(attempt) => self.send(number, &attempt),
            Step::Wait(until) => {
                if flight.attempts == 0 {
                    flight.waiting_since = Some(self.now);
                }
                // As a timer: a moment that is not after now is the next tick.
                let wait = until.as_nanos().saturating_sub(now.as_nanos()).max(1_000);
                flight.turn += 1;
                let turn = flight.turn;
                self.plan(self.now.saturating_add(wait), What::Ask { flight: number, turn });
            }
            Step::Refuse(refusal) => self.over(number, End::Refused(refusal.by)),
            Step::Respond(stored) => self.over(number, End::Status(stored.status)),
            Step::Fail(_) => self.over(number, End::Error),
            // No simulated adapter says that it can; the engine goes on without.
            Step::Park(_) => self.ask(number),
            Step::Settled => self.settled(number),
        }
    }

    fn send(&mut self, number: u32, attempt: &Attempt) {
        let now = self.local(self.flights[number as usize].engine);
        let flight = &mut self.flights[number as usize];
        let customer = &self.scenario.customers[flight.customer as usize];
        let asked = &customer.calls[flight.asked as usize];
        flight.attempts += 1;
        let elsewhere = attempt.changes.as_ref().and_then(|changes| changes.host.as_deref());
        let vendor = elsewhere.and_then(|host| self.vendors.iter().position(|vendor| vendor.host() == host));
        flight.vendor = vendor.unwrap_or(asked.vendor) as u32;
        let fate = flight.fate ^ u64::from(flight.sdk_attempt) << 8 ^ u64::from(flight.attempts);
        let credential = self.credentials[flight.customer as usize].0;
        let mut exchange = self.vendors[flight.vendor as usize].exchange(credential, spread(fate), self.now);
        let deadline = customer.deadline.map(|deadline| flight.begun + deadline.as_nanos() as u64);
        let given_up = attempt.give_up_at.map(|at| self.now + at.as_nanos().saturating_sub(now.as_nanos()));
        if let Some(at) = given_up.into_iter().chain(deadline).min()
            && at < exchange.at
        {
            exchange = Exchange {
                at: at.max(self.now),
                ending: Ending::Error(ErrorType::Timeout),
                said: Said::default(),
            };
        }
        flight.exchange = exchange;
        flight.turn += 1;
        let turn = flight.turn;
        if let Some(call) = &mut flight.call
            && asked.method != "GET"
        {
            call.sent(BODY);
        }
        self.plan(exchange.at, What::Answer { flight: number, turn });
        if let Some(at) = attempt.hedge_at {
            let at = self.now + at.as_nanos().saturating_sub(now.as_nanos());
            if at < exchange.at {
                self.plan(at, What::Hedge { flight: number, turn });
            }
        }
    }

    /// The answer is late: a second exchange beside the first, if the engine agrees. The sooner answer counts.
    pub(super) fn hedge(&mut self, number: u32) {
        let now = self.local(self.flights[number as usize].engine);
        let flight = &mut self.flights[number as usize];
        let engine = &self.engines[flight.engine as usize];
        let Some(call) = &mut flight.call else { return };
        if call.hedge(engine, now).is_none() {
            return;
        }
        flight.attempts += 1;
        let fate = spread(flight.fate ^ u64::from(flight.attempts) << 16);
        let credential = self.credentials[flight.customer as usize].0;
        let second = self.vendors[flight.vendor as usize].exchange(credential, fate, self.now);
        if second.at < flight.exchange.at {
            flight.exchange = second;
            flight.turn += 1;
            let turn = flight.turn;
            self.plan(second.at, What::Answer { flight: number, turn });
        }
    }

    pub(super) fn answer(&mut self, number: u32) {
        let now = self.local(self.flights[number as usize].engine);
        let flight = &mut self.flights[number as usize];
        let engine = &self.engines[flight.engine as usize];
        let Some(call) = &mut flight.call else { return };
        match flight.exchange.ending {
            Ending::Status(status) if call.wants_headers(status) => {
                let vendor = &self.vendors[flight.vendor as usize];
                let headers = vendor.headers(&flight.exchange.said, &mut self.texts, self.now);
                call.answer(engine, status, &headers, now);
            }
            Ending::Status(status) => call.head(status, now),
            Ending::Error(error) => call.failed(error),
        }
        self.ask(number);
    }

    /// The engine has no more to say: the body is read, and the call ends.
    fn settled(&mut self, number: u32) {
        let now = self.local(self.flights[number as usize].engine);
        let flight = &mut self.flights[number as usize];
        let engine = &self.engines[flight.engine as usize];
        let asked = &self.scenario.customers[flight.customer as usize].calls[flight.asked as usize];
        let end = match flight.exchange.ending {
            Ending::Status(status) => End::Status(status),
            Ending::Error(_) => End::Error,
        };
        if let (Some(call), Ending::Status(status)) = (&mut flight.call, flight.exchange.ending) {
            match &asked.model {
                Some(model) if status < 300 && call.wants_body() => {
                    let mut dice = Dice::new(flight.fate, TOKENS);
                    let out = (dice.unit() * (2 * model.tokens_out + 1) as f64) as u64;
                    self.body.clear();
                    let _ = write!(
                        self.body,
                        r#"{{"model":"{}","usage":{{"prompt_tokens":{},"completion_tokens":{out},"total_tokens":{}}}}}"#,
                        model.name,
                        model.tokens_in,
                        model.tokens_in + out
                    );
                    call.read(self.body.as_bytes());
                }
                _ => call.body(BODY),
            }
        }
        if let Some(call) = &mut flight.call {
            call.end(engine, now);
        }
        self.over(number, end);
    }

    /// What came of it, for the application; unless the SDK above the engine tries again.
    fn over(&mut self, number: u32, end: End) {
        let flight = &mut self.flights[number as usize];
        flight.call = None;
        flight.turn += 1;
        let customer = &self.scenario.customers[flight.customer as usize];
        let sums = &mut self.sums[flight.customer as usize];
        sums.attempts += u64::from(flight.attempts);
        sums.retries += u64::from(flight.attempts.saturating_sub(1));
        let again = match end {
            End::Status(status) => status == 429 || status >= 500,
            End::Error => true,
            End::Refused(_) => false,
        };
        if again && flight.sdk_attempt < customer.sdk_retries {
            // Half a second, doubled each time, at most 8, less up to a quarter: what OpenAI's and its kin do.
            let mut dice = Dice::new(flight.fate ^ u64::from(flight.sdk_attempt), BACKOFF);
            let back_off = ((SECOND / 2) << flight.sdk_attempt).min(8 * SECOND);
            let wait = (back_off as f64 * (1.0 - 0.25 * dice.unit())) as u64;
            let at = flight.exchange.said.retry_at().unwrap_or(0).max(self.now + wait);
            let deadline = customer.deadline.map_or(u64::MAX, |lasts| flight.begun + lasts.as_nanos() as u64);
            if at < deadline {
                flight.sdk_attempt += 1;
                sums.sdk_retries += 1;
                let turn = flight.turn;
                self.plan(at, What::Begin { flight: number, turn });
                return;
            }
        }
        if flight.waited > 0 {
            sums.waited += 1;
            sums.waits.record(flight.waited);
        }
        match end {
            End::Status(429) => sums.limited += 1,
            End::Status(500..) | End::Error => sums.failed += 1,
            End::Status(_) => {
                sums.answered += 1;
                sums.latency.record(self.now - flight.begun);
            }
            End::Refused(by) => {
                let place = RefusedBy::ALL.iter().position(|known| *known == by);
                sums.refused[place.unwrap_or(0)] += 1;
            }
        }
        self.free.push(number);
    }
}
