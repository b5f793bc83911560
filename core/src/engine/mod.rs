//! The engine: what happens to a call, in which order.

mod account;
mod advised;
mod after;
mod answer;
mod at_hand;
mod attended;
mod cached;
mod call;
mod close;
mod content;
mod decide;
mod drain;
mod events;
mod faults;
mod find;
mod flow;
mod hedging;
mod lookup;
mod lost;
mod names;
mod overheard;
mod parking;
mod pipeline;
mod plan;
mod plans;
mod refresh;
mod request;
mod rules;
mod shadow;
mod states;
mod step;
mod told;
mod unfinished;
mod warned;

pub use call::Call;
pub use step::{Attempt, Step};

use crate::advise;
use crate::attribution::{Caller, CallerId};
use crate::cache::Cache;
use crate::catalogue::{Catalogue, Learner, name_of_unknown};
use crate::config::Config;
use crate::cost::Price;
use crate::inspect::{Fingerprinter, Origins};
use crate::ledger::{Notice, Shards};
use crate::outbox::Alarms;
use crate::quota;
use crate::resilience::EarlierAttempts;
use crate::rollout;
use crate::units::Timestamp;
use attended::Attended;
use names::Names;
use plans::Plans;
use rules::Rules;
use states::{AllStates, Key};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use unfinished::Unfinished;

/// The state that all calls of a process share. Every method takes `&self`; calls on different threads do not
/// wait for each other.
#[derive(Debug)]
pub struct Engine {
    catalogue: Catalogue,
    learner: Mutex<Learner>,
    learned: AtomicU32,
    shards: Shards<Plans>,
    callers: RwLock<Callers>,
    sightings: AtomicBool,
    /// The rules in force.
    rules: RwLock<Arc<Rules>>,
    /// Counts the sets of rules, so that plans of an earlier one are noticed.
    generation: AtomicU32,
    /// Whether the rules decide anything.
    decides: AtomicBool,
    states: AllStates,
    names: Names,
    attended: Attended,
    /// How quotas are watched that no rule keeps to.
    watch_rule: Arc<quota::Rule>,
    fingerprinter: OnceLock<Fingerprinter>,
    own_fingerprinter: Fingerprinter,
    origins: OnceLock<Origins>,
    alarms: OnceLock<Arc<dyn Alarms>>,
    home: RwLock<Option<Arc<dyn QuotaHome>>>,
    notices: Mutex<Vec<Notice>>,
    cache: Arc<Cache>,
    /// What is remembered for advice.
    advice: advise::Table,
    /// Failed attempts of SDKs that the SDK may go on from.
    unfinished: EarlierAttempts<Box<Unfinished>>,
    /// Copies of calls that are under way.
    shadows: AtomicU64,
    /// Tells this engine's calls from another's.
    identity: u32,
    tallies: Tallies,
    /// Whether calls are refused because shared state could not be had: it is asked for again.
    cut_off: AtomicBool,
}

/// Where the state of quotas and canaries lies that processes share. The agent has one; without it each process keeps its own.
pub trait QuotaHome: fmt::Debug + Send + Sync {
    /// The cell, and the shares where `fair`, of the quota of this key; `None` where there is no room or no shared
    /// memory.
    fn quota(&self, key: u64, rule: &quota::Rule) -> Option<(quota::CellHome, Option<quota::SharesHome>)>;

    /// The canary of this key; `None` where there is no room or no shared memory.
    fn canary(&self, _key: u64) -> Option<rollout::CanaryHome> {
        None
    }

    /// The quota of this key is kept under this rule from now on; told now and then, also where nothing changed.
    fn keeps(&self, _key: u64, _rule: &quota::Rule) {}

    /// Whether it has hosts lease what they share, so that [`quota::Shared::Fleet`] is more than the host.
    fn leases(&self) -> bool {
        false
    }
}

static NEXT_IDENTITY: AtomicU32 = AtomicU32::new(1);

/// Callers beyond this many at a time are added to the engine's own.
const MAX_CALLERS: usize = 65_536;

#[derive(Debug, Default)]
struct Callers {
    known: Vec<Option<Arc<Caller>>>,
    free: Vec<u32>,
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What the engine could not do as asked since its birth; `farcall doctor` shows what is not zero.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Counters {
            $($(#[$doc])* pub $name: u64,)*
        }

        #[derive(Debug, Default)]
        pub(crate) struct Tallies {
            $(pub(crate) $name: AtomicU64,)*
        }

        impl Tallies {
            fn read(&self) -> Counters {
                Counters { $($name: self.$name.load(Ordering::Relaxed),)* }
            }
        }

        impl Counters {
            /// Name and value of each.
            #[must_use]
            pub fn named(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name),)*]
            }
        }
    };
}

counters! {
    /// Calls whose URL could not be read; counted under the vendor `unreadable`.
    unreadable_targets,
    /// Customers or tags that were too long or too many, and were cut.
    cut_names,
    /// Calls whose vendor was added to `other`, because there were too many unknown ones.
    folded_vendors,
    /// Calls whose endpoint was added to `other`.
    folded_endpoints,
    /// Calls whose customer was added to `other`.
    folded_customers,
    /// Calls whose tags were added to `other`.
    folded_tags,
    /// Calls that were added to a less detailed series, because there were too many series.
    folded_series,
    /// Callers that were added to the engine's own, because there were too many.
    folded_callers,
    /// Sightings that did not fit between two drains: the sidecar may count such a call again.
    lost_sightings,
    /// How often the learner of endpoints was full and started anew.
    relearned,
    /// Calls that ended in another engine than they began in, such as across a fork; not counted here.
    foreign_calls,
    /// Rate-limit headers that were malformed or could not be true.
    ignored_limits,
    /// Statements of vendors about more policies than are told apart.
    folded_policies,
    /// Budgets and quotas that plans go without, because too many are in use.
    unkept_rules,
    /// Calls whose body a budget or a quota of tokens goes by, by an adapter that did not show it: nothing, or too
    /// little, was reserved for them.
    unread_requests,
    /// Calls for which the condition of a policy could not be told.
    untold_conditions,
    /// Calls that a rule of the cache is about, by an adapter that cannot hand out what is kept.
    uncached_calls,
    /// Calls that a rule would have parked, by an adapter that cannot hand them over.
    unparkable_calls,
    /// Calls that were to be parked, and that the outbox did not take: they failed as if there were no such rule.
    unparked_calls,
    /// Looks of the cache for what other processes kept that took too long: the call went on without.
    unfetched_answers,
    /// Calls that an open breaker refused.
    breaker_refusals,
    /// Calls that a rule refused.
    refused_calls,
    /// Calls that a rule would have held up, stopped or answered, and that went out: the adapter could not do that.
    overlooked_calls,
    /// Sets of rules that were put in force after the first.
    reloads,
    /// Failed attempts of SDKs that were counted as calls of their own, because too many waited for the next one.
    ungrouped_attempts,
    /// Shadow copies that were not sent, because too many were under way or they would have had to wait.
    skipped_shadows,
    /// Calls to endpoints for which advice had no room.
    unadvised_calls,
    /// Events that no order of events explains, such as a response before a request; ignored.
    misplaced_events,
}

impl Engine {
    /// An engine for the program `caller`, with `shards` shards (one for each thread that makes calls at the
    /// same time is ideal), and a seed against hash flooding.
    #[must_use]
    pub fn new(config: Config, caller: Caller, shards: usize, seed: u64) -> Self {
        let rules = Arc::new(Rules::new(&config));
        let catalogue = Catalogue::new(config.vendors);
        let mut key = [0; 16];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        let own_fingerprinter = Fingerprinter::new(key);
        let plans = |seed| Plans::new(seed, own_fingerprinter);
        let shards = Shards::new(shards, config.ledger.max_series, seed, plans);
        let attended = Attended::new(&catalogue, &rules.prices);
        let advice = advise::Table::new(seed, config.advise, shards.len());
        Self {
            shards,
            decides: AtomicBool::new(rules.decide() || config.advise.compares_all()),
            rules: RwLock::new(rules),
            generation: AtomicU32::new(1),
            states: AllStates::default(),
            names: Names::new(),
            attended,
            watch_rule: Arc::new(quota::Rule::default()),
            fingerprinter: OnceLock::new(),
            own_fingerprinter,
            origins: OnceLock::new(),
            alarms: OnceLock::new(),
            home: RwLock::new(None),
            notices: Mutex::new(Vec::new()),
            cache: Arc::new(Cache::new(seed)),
            advice,
            unfinished: EarlierAttempts::default(),
            shadows: AtomicU64::new(0),
            catalogue,
            learner: Mutex::new(Learner::new()),
            learned: AtomicU32::new(0),
            callers: RwLock::new(Callers { known: vec![Some(Arc::new(caller))], free: Vec::new() }),
            sightings: AtomicBool::new(false),
            identity: NEXT_IDENTITY.fetch_add(1, Ordering::Relaxed),
            tallies: Tallies::default(),
            cut_off: AtomicBool::new(false),
        }
    }

    /// The vendors that the engine knows.
    #[must_use]
    pub fn catalogue(&self) -> &Catalogue {
        &self.catalogue
    }

    /// Whether any rule can decide anything, or `[advise]` wants calls shown whole. Where none can, every call's first step is to send it as it is and
    /// its second to settle, so that an adapter need only watch.
    #[must_use]
    pub fn decides(&self) -> bool {
        self.decides.load(Ordering::Relaxed)
    }

    /// Puts the rules of another configuration in force, at once and as a whole: a call that began under the old
    /// ones ends under them. `[[vendor]]` and `[ledger]` hold until a restart.
    pub fn reload(&self, config: &Config) {
        let mut rules = Rules::new(config);
        self.carry_volumes(&mut rules.prices);
        let rules = Arc::new(rules);
        let decides = rules.decide() || config.advise.compares_all();
        self.advise_as(config.advise);
        self.attended.set_prices(&self.catalogue, &rules.prices);
        *self.rules.write().unwrap_or_else(PoisonError::into_inner) = rules;
        self.decides.store(decides, Ordering::Relaxed);
        self.generation.fetch_add(1, Ordering::Release);
        self.attended.note_change();
        self.tallies.reloads.fetch_add(1, Ordering::Relaxed);
    }

    /// Makes fingerprints of credentials with the installation's key from now on. Said once.
    pub fn set_fingerprinter(&self, fingerprinter: Fingerprinter) {
        let _ = self.fingerprinter.set(fingerprinter);
    }

    /// The environment variables of this process, by name and value: rules may ask which of them holds a credential.
    /// Keeps fingerprints of the values only. Said once, after [`Engine::set_fingerprinter`].
    pub fn set_environment<'a>(&self, variables: impl IntoIterator<Item = (&'a str, &'a str)>) {
        let fingerprinter = *self.fingerprinter.get().unwrap_or(&self.own_fingerprinter);
        if self.origins.set(Origins::new(fingerprinter, variables)).is_ok() {
            self.generation.fetch_add(1, Ordering::Release);
        }
    }

    /// Keeps the state of shared quotas and canaries there from now on.
    pub fn set_quota_home(&self, home: Arc<dyn QuotaHome>) {
        *self.home.write().unwrap_or_else(PoisonError::into_inner) = Some(home);
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// Tells of failures of critical calls there from now on. Said once.
    pub fn set_alarms(&self, alarms: Arc<dyn Alarms>) {
        let _ = self.alarms.set(alarms);
    }

    /// A quota's state, where its rule says that it lies.
    fn quota_state(&self, key: Key, rule: &quota::Rule) -> quota::State {
        let home = self.home.read().unwrap_or_else(PoisonError::into_inner);
        let shared = match rule.shared {
            quota::Shared::Process => None,
            // Without a home nothing is shared with anybody.
            _ => home.as_ref().map(|home| home.quota(key.0, rule)),
        };
        match shared {
            Some(Some((cell, shares))) => quota::State::at(cell, shares),
            Some(None) => {
                if rule.on_error == quota::OnError::Refuse {
                    self.cut_off.store(true, Ordering::Relaxed);
                }
                quota::State::cut_off(rule)
            }
            None => quota::State::new(rule),
        }
    }

    /// A rollout's state, with the canary that all processes share where they can.
    fn rollout_state(&self, rule: &rollout::Rule, now: Timestamp) -> rollout::Rollout {
        let home = self.home.read().unwrap_or_else(PoisonError::into_inner);
        let canary = home.as_ref().filter(|_| rule.canary.is_some()).and_then(|home| home.canary(rule.key()));
        match canary {
            Some(canary) => rollout::Rollout::at(canary, rule, now),
            None => rollout::Rollout::new(rule, now),
        }
    }

    /// A rule that shares with a fleet, where there is none, shares with the host.
    fn as_shared(&self, mut rule: quota::Rule) -> quota::Rule {
        if rule.shared == quota::Shared::Fleet
            && !self
                .home
                .read()
                .unwrap_or_else(PoisonError::into_inner)
                .as_ref()
                .is_some_and(|home| home.leases())
        {
            rule.shared = quota::Shared::Host;
        }
        rule
    }

    /// A plan keeps to a quota: its rule may be another one since a reload.
    fn tell_home(&self, key: Key, rule: &quota::Rule) {
        if let Some(home) = &*self.home.read().unwrap_or_else(PoisonError::into_inner)
            && (rule.shared == quota::Shared::Fleet || home.leases())
        {
            home.keeps(key.0, rule);
        }
    }

    /// Whether calls to this host's vendor are worth seeing whole though no rule decides: what they cost stands in
    /// the bodies of their answers, or what is left of a quota in the heads, by the catalogue until some were silent, by
    /// the vendor's own word or refusal for good. For adapters that otherwise tell of calls when they are over. `host` in
    /// lower case.
    #[must_use]
    pub fn reads_answers(&self, host: &str) -> bool {
        let number = self.catalogue.find(host).map_or(u32::MAX, |vendor| vendor.0);
        let (states, _) = self.attended.of(number);
        if states {
            return true;
        }
        let rules = self.rules.read().unwrap_or_else(PoisonError::into_inner);
        let vendor = self.catalogue.vendor_of(host);
        let name = vendor.map_or_else(|| name_of_unknown(host), |vendor| &vendor.name);
        rules.prices.of(name).any(Price::asks_response)
    }

    /// The header by which this vendor takes an idempotency key.
    fn idempotency_header(&self, vendor: &str, of_rule: Option<&str>) -> Option<Arc<str>> {
        let known = || {
            let vendor = self.catalogue.vendors().iter().find(|known| known.name == vendor)?;
            vendor.idempotency_header.as_deref()
        };
        of_rule.or_else(known).map(Arc::from)
    }

    /// Makes another program known, whose calls this engine accounts for. Where there are too many, the
    /// engine's own.
    pub fn add_caller(&self, caller: Caller) -> CallerId {
        let mut callers = self.callers.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(number) = callers.free.pop() {
            callers.known[number as usize] = Some(Arc::new(caller));
            return CallerId(number);
        }
        if callers.known.len() >= MAX_CALLERS {
            self.tallies.folded_callers.fetch_add(1, Ordering::Relaxed);
            return CallerId::SELF;
        }
        callers.known.push(Some(Arc::new(caller)));
        CallerId(u32::try_from(callers.known.len() - 1).unwrap_or(0))
    }

    /// Forgets a program. Only after a drain that followed its last call: the number goes to the next one.
    pub fn remove_caller(&self, id: CallerId) {
        let mut callers = self.callers.write().unwrap_or_else(PoisonError::into_inner);
        if id != CallerId::SELF
            && let Some(slot) = callers.known.get_mut(id.0 as usize)
            && slot.take().is_some()
        {
            callers.free.push(id.0);
        }
    }

    /// The program of this number.
    #[must_use]
    pub fn caller(&self, id: CallerId) -> Option<Arc<Caller>> {
        let callers = self.callers.read().unwrap_or_else(PoisonError::into_inner);
        callers.known.get(id.0 as usize).cloned().flatten()
    }

    /// Whether each call is recorded for the sidecar to match. Off at birth.
    pub fn record_sightings(&self, on: bool) {
        self.sightings.store(on, Ordering::Relaxed);
    }

    /// What could not be done as asked since the engine's birth.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.tallies.read()
    }
}
