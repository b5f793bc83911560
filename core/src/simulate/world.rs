//! The course of events: one queue, one virtual clock.

use super::Progress;
use super::account::Account;
use super::demand::Demand;
use super::flight::Flight;
use super::home::Host;
use super::report::{Report, Sums, VendorUse};
use super::scenario::{Asked, Customer, Scenario};
use super::vendor::{Scripted, Texts};
use crate::Config;
use crate::attribution::Caller;
use crate::engine::{Engine, QuotaHome};
use crate::units::Timestamp;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

const SECOND: u64 = 1_000_000_000;
/// How long after the end the last calls may take.
const AFTER: u64 = 3_600 * SECOND;
/// Events between two reports of progress.
const STRIDE: u64 = 1 << 17;

/// What happens next. Ordered by time, then by when it was planned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Event {
    at: u64,
    number: u64,
    what: What,
}

/// Events of a call carry the turn of their flight: what was planned for an earlier one is void.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum What {
    Arrive(u32),
    Begin { flight: u32, turn: u32 },
    Ask { flight: u32, turn: u32 },
    Hedge { flight: u32, turn: u32 },
    Answer { flight: u32, turn: u32 },
    Drain,
    Jump(u32),
}

pub(super) struct World<'s> {
    pub(super) scenario: &'s Scenario,
    pub(super) engines: Vec<Engine>,
    /// How far each engine's clock is off.
    pub(super) offsets: Vec<i64>,
    pub(super) vendors: Vec<Scripted<'s>>,
    demands: Vec<Demand<'s>>,
    /// By customer: the place of its credential, and the header that carries it.
    pub(super) credentials: Vec<(usize, String)>,
    /// By customer: the sums of the weights of its calls up to each.
    pub(super) weights: Vec<Vec<f64>>,
    /// By customer: what the next call's chances are drawn from.
    pub(super) fates: Vec<u64>,
    /// By customer and call: which share a cache answers.
    pub(super) hits: Vec<Vec<f64>>,
    queue: BinaryHeap<Reverse<Event>>,
    planned: u64,
    pub(super) flights: Vec<Flight>,
    pub(super) free: Vec<u32>,
    account: Account,
    pub(super) sums: Vec<Sums>,
    pub(super) texts: Texts,
    pub(super) body: String,
    pub(super) now: u64,
    start: u64,
    end: u64,
    pub(super) most_under_way: u64,
}

impl<'s> World<'s> {
    pub(super) fn new(scenario: &'s Scenario, config: &Config, seed: u64) -> Self {
        let host: Arc<dyn QuotaHome> = Arc::new(Host::default());
        let engines: Vec<Engine> = (0..scenario.engines as u64)
            .map(|number| {
                // One seed: a credential has the same fingerprint in all processes of an installation.
                let name = config.service.as_deref().unwrap_or("simulated");
                let mut caller = Caller::new(name);
                caller.pid = u32::try_from(number + 1).unwrap_or(0);
                let engine = Engine::new(config.clone(), caller, 1, seed);
                engine.set_quota_home(Arc::clone(&host));
                engine
            })
            .collect();
        let mut names: Vec<&str> = Vec::new();
        let credentials: Vec<_> = scenario
            .customers
            .iter()
            .map(|customer| {
                let name = customer.credential.as_str();
                let place = names.iter().position(|known| *known == name).unwrap_or(names.len());
                if place == names.len() {
                    names.push(name);
                }
                (place, format!("Bearer {name}"))
            })
            .collect();
        let start = scenario.start.as_nanos();
        let catalogue = engines[0].catalogue();
        let vendors = scenario
            .vendors
            .iter()
            .map(|vendor| Scripted::new(vendor, catalogue, names.len(), scenario.sample, seed, start));
        let vendors = vendors.collect();
        let hit = |asked: &Asked| {
            let vendor = &scenario.vendors[asked.vendor].name;
            let caches = scenario.caches.iter().filter(|cache| cache.endpoint == asked.endpoint);
            caches
                .filter(|cache| cache.vendor.as_ref().is_none_or(|name| name == vendor))
                .map(|cache| cache.hit)
                .fold(0.0, f64::max)
        };
        let sums_of = |customer: &Customer| {
            customer
                .calls
                .iter()
                .scan(0.0, |sum, asked| {
                    *sum += asked.weight;
                    Some(*sum)
                })
                .collect()
        };
        Self {
            offsets: vec![0; engines.len()],
            vendors,
            demands: scenario
                .customers
                .iter()
                .map(|customer| Demand::new(customer, scenario.sample, seed, scenario.start))
                .collect(),
            credentials,
            fates: vec![0; scenario.customers.len()],
            weights: scenario.customers.iter().map(sums_of).collect(),
            hits: scenario
                .customers
                .iter()
                .map(|customer| customer.calls.iter().map(hit).collect())
                .collect(),
            queue: BinaryHeap::new(),
            planned: 0,
            flights: Vec::new(),
            free: Vec::new(),
            account: Account::new(scenario.customers.iter().map(|customer| customer.name.as_str())),
            sums: vec![Sums::default(); scenario.customers.len()],
            texts: Texts::default(),
            body: String::new(),
            now: start,
            start,
            end: scenario.start.plus(scenario.duration).as_nanos(),
            most_under_way: 0,
            engines,
            scenario,
        }
    }

    pub(super) fn run(mut self, progress: &mut dyn FnMut(Progress)) -> Report {
        for customer in 0..self.demands.len() {
            self.arrival(customer as u32);
        }
        for (place, jump) in self.scenario.clock_jumps.iter().enumerate() {
            let at = self.scenario.start.plus(jump.at).as_nanos();
            self.plan(at, What::Jump(place as u32));
        }
        let drain = self.drain_every();
        self.plan(self.start + drain, What::Drain);
        let mut events = 0u64;
        while let Some(Reverse(event)) = self.queue.pop() {
            events += 1;
            if events.is_multiple_of(STRIDE) {
                progress(self.progress());
            }
            self.now = event.at;
            if self.now > self.end.saturating_add(AFTER) {
                break;
            }
            match event.what {
                What::Arrive(customer) => self.arrive(customer),
                What::Begin { flight, turn } if self.is_turn(flight, turn) => self.begin(flight),
                What::Ask { flight, turn } if self.is_turn(flight, turn) => self.ask(flight),
                What::Hedge { flight, turn } if self.is_turn(flight, turn) => self.hedge(flight),
                What::Answer { flight, turn } if self.is_turn(flight, turn) => self.answer(flight),
                What::Drain => {
                    self.drain();
                    if self.now < self.end || self.free.len() < self.flights.len() {
                        self.plan(self.now + drain, What::Drain);
                    }
                }
                What::Jump(place) => self.jump(place as usize),
                _ => {}
            }
        }
        progress(Progress { share: 1.0, ..self.progress() });
        self.report()
    }

    fn progress(&self) -> Progress {
        let share = (self.now - self.start) as f64 / (self.end - self.start) as f64;
        Progress { share: share.min(1.0), calls: self.sums.iter().map(|sums| sums.calls).sum() }
    }

    pub(super) fn plan(&mut self, at: u64, what: What) {
        self.planned += 1;
        self.queue.push(Reverse(Event { at, number: self.planned, what }));
    }

    fn is_turn(&self, flight: u32, turn: u32) -> bool {
        self.flights[flight as usize].turn == turn
    }

    /// As the agent, once a second; less often where that would be most of the work, once a minute at the least.
    fn drain_every(&self) -> u64 {
        ((self.end - self.start) / 500_000).clamp(SECOND, 60 * SECOND)
    }

    /// What an engine's clock shows.
    pub(super) fn local(&self, engine: u32) -> Timestamp {
        Timestamp::from_nanos(self.now.saturating_add_signed(self.offsets[engine as usize]))
    }

    /// The next call of a customer.
    pub(super) fn arrival(&mut self, customer: u32) {
        if let Some((at, fate)) = self.demands[customer as usize].next(self.end) {
            self.fates[customer as usize] = fate;
            self.plan(at, What::Arrive(customer));
        }
    }

    fn drain(&mut self) {
        for number in 0..self.engines.len() {
            let now = self.local(number as u32);
            let batch = self.engines[number].drain(now);
            self.account.take(number, batch, &mut self.sums);
        }
        if self.engines.len() > 1 && self.account.asks_spending() {
            for number in 0..self.engines.len() {
                self.account.tell(&self.engines[number], self.local(number as u32));
            }
        }
    }

    fn jump(&mut self, place: usize) {
        let jump = self.scenario.clock_jumps[place];
        let by = jump.by_millis.saturating_mul(1_000_000);
        for (number, offset) in self.offsets.iter_mut().enumerate() {
            if jump.engine.is_none_or(|engine| engine == number + 1) {
                *offset = offset.saturating_add(by);
            }
        }
    }

    fn report(mut self) -> Report {
        // What is still under way an hour after the end hangs: it counts as failed.
        for place in 0..self.flights.len() {
            if let Some(mut call) = self.flights[place].call.take() {
                let flight = &self.flights[place];
                call.abandon(&self.engines[flight.engine as usize], self.local(flight.engine));
                self.sums[flight.customer as usize].failed += 1;
            }
        }
        self.drain();
        let mut all = Sums::default();
        self.sums.iter().for_each(|sums| all.add(sums));
        let mut counters: Vec<(&'static str, u64)> = Vec::new();
        for (name, count) in self.engines.iter().flat_map(|engine| engine.counters().named()) {
            match counters.iter_mut().find(|(known, _)| *known == name) {
                Some((_, sum)) => *sum += count,
                None => counters.push((name, count)),
            }
        }
        counters.retain(|(_, count)| *count > 0);
        let vendors = self.vendors.iter().map(|vendor| {
            let (allowed, used) = vendor.allowed(self.scenario.duration);
            VendorUse { name: vendor.name().to_owned(), seen: vendor.seen, allowed, used }
        });
        Report {
            sample: self.scenario.sample,
            all,
            vendors: vendors.collect(),
            budgets: self.account.budgets(),
            incidents: self.account.incidents,
            worst: self.account.worst(),
            under_way: self.most_under_way,
            counters,
            customers: self
                .scenario
                .customers
                .iter()
                .map(|customer| customer.name.clone())
                .zip(self.sums)
                .collect(),
        }
    }
}
