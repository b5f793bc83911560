//! Quotas whose shared state cannot be had: `on_error` says what becomes of calls.
#![allow(clippy::unwrap_used)]

use farcall::quota::Shared;
use farcall::quota::{Cell, CellHome, Rule, SharesHome};
use farcall::{Call, Caller, Config, Engine, Head, QuotaHome, Refusal, RefusedBy, Step, Timestamp};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

const T0: Timestamp = Timestamp::from_nanos(1_763_700_000_000_000_000);
const GITHUB: &str = "https://api.github.com/user";

/// Memory of a host that there is, or is not.
#[derive(Debug, Default)]
struct Memory(AtomicBool);

impl QuotaHome for Memory {
    fn quota(&self, _: u64, _: &Rule) -> Option<(CellHome, Option<SharesHome>)> {
        self.0.load(Ordering::Relaxed).then(|| (Arc::new(Cell::new()) as CellHome, None))
    }
}

fn engine(rules: &str) -> (Engine, Arc<Memory>) {
    let config = Config::parse("farcall.toml", rules).unwrap_or_else(|errors| panic!("{errors:?}"));
    let (engine, memory) = (Engine::new(config, Caller::new("checkout"), 1, 42), Arc::new(Memory::default()));
    engine.set_quota_home(Arc::clone(&memory) as Arc<dyn QuotaHome>);
    (engine, memory)
}

fn begun(engine: &Engine, now: Timestamp) -> (Call, Option<Refusal>) {
    let mut call = engine.begin(&Head::new("GET", GITHUB), now, 7);
    let refused = match call.step(engine, now) {
        Step::Send(_) => None,
        Step::Refuse(refusal) => Some(refusal),
        step => panic!("{step:?}"),
    };
    (call, refused)
}

/// How a call comes out whose answer, if any, states that 50 of 60 are left.
fn called(engine: &Engine, now: Timestamp) -> Option<Refusal> {
    let (mut call, refused) = begun(engine, now);
    if refused.is_none() {
        let resets = (now.as_secs() + 3_600).to_string();
        let headers = [
            ("x-ratelimit-limit", "60"),
            ("x-ratelimit-remaining", "50"),
            ("x-ratelimit-reset", resets.as_str()),
            ("x-ratelimit-resource", "core"),
        ];
        call.answer(engine, 200, &headers.as_slice(), now);
        assert_eq!(call.step(engine, now), Step::Settled);
        call.end(engine, now);
    }
    refused
}

#[test]
fn a_rule_that_says_so_refuses_until_the_shared_state_is_there() {
    let (engine, memory) = engine(
        "[[quota]]\nname = \"ours\"\nmatch = { vendor = \"github\" }\nlimit = \"10 requests / 1s\"\non_error = \"refuse\"\n",
    );
    let refusal = called(&engine, T0).unwrap();
    assert_eq!((refusal.by, &*refusal.rule, &*refusal.reason), (RefusedBy::Quota, "ours", "unshared"));
    assert_eq!(refusal.until, None, "nobody knows when that is");
    let batch = engine.drain(T0);
    assert!(batch.incidents.is_empty(), "nobody used the quota up: {:?}", batch.incidents);
    memory.0.store(true, Ordering::Relaxed);
    let _ = engine.drain(T0.plus_millis(1_000));
    assert_eq!(called(&engine, T0.plus_millis(1_000)), None);
}

#[test]
fn what_the_vendor_states_is_held_to_the_same() {
    let (engine, memory) = engine("[[quota]]\nmatch = { vendor = \"github\" }\non_error = \"refuse\"\n");
    assert_eq!(called(&engine, T0), None, "nothing is stated yet, so nothing is shared");
    for second in 0..3 {
        let refusal = called(&engine, T0.plus_millis(second * 1_000)).unwrap();
        assert_eq!((refusal.by, &*refusal.reason), (RefusedBy::Quota, "unshared"));
        let _ = engine.drain(T0.plus_millis(second * 1_000));
    }
    memory.0.store(true, Ordering::Relaxed);
    let _ = called(&engine, T0.plus_millis(3_000));
    let _ = engine.drain(T0.plus_millis(3_000));
    assert_eq!(called(&engine, T0.plus_millis(4_000)), None);
}

#[test]
fn without_that_word_calls_go_under_the_processs_own_account() {
    let rule = "[[quota]]\nmatch = { vendor = \"github\" }\nlimit = \"2 requests / 1h\"\nburst = 2\n";
    let (engine, _) = engine(rule);
    assert_eq!((called(&engine, T0), called(&engine, T0)), (None, None));
    assert_eq!(&*called(&engine, T0).unwrap().reason, "own_limit");
}

#[test]
fn an_engine_that_shares_with_nobody_has_nothing_to_miss() {
    let rule = "[[quota]]\nmatch = { vendor = \"github\" }\nlimit = \"2 requests / 1h\"\nburst = 2\nshared = \"fleet\"\non_error = \"refuse\"\n";
    let engine = Engine::new(Config::parse("f", rule).unwrap(), Caller::new("checkout"), 1, 42);
    assert_eq!((called(&engine, T0), called(&engine, T0)), (None, None));
    assert_eq!(&*called(&engine, T0).unwrap().reason, "own_limit");
}

/// Memory with one cell, for whoever asks, which leases for a fleet; and what it was asked for and told.
#[derive(Debug, Default)]
struct Fleet {
    /// The quota of the rule, which comes first.
    key: OnceLock<u64>,
    asked: Mutex<Vec<(Shared, bool)>>,
    told: Mutex<Option<Shared>>,
    cell: Arc<Cell>,
}

impl QuotaHome for Fleet {
    fn quota(&self, key: u64, rule: &Rule) -> Option<(CellHome, Option<SharesHome>)> {
        if *self.key.get_or_init(|| key) == key {
            self.asked.lock().unwrap().push((rule.shared, rule.fair));
        }
        Some((Arc::clone(&self.cell) as CellHome, None))
    }

    fn keeps(&self, key: u64, rule: &Rule) {
        assert_eq!(self.key.get(), Some(&key));
        *self.told.lock().unwrap() = Some(rule.shared);
    }

    fn leases(&self) -> bool {
        true
    }
}

#[test]
fn a_reload_shares_a_quota_with_others_or_fairly_from_then_on() {
    let rules = |more: &str| {
        let rule = "[[quota]]\nname = \"q\"\nmatch = { vendor = \"github\" }\nlimit = \"2 requests / 1h\"\nburst = 2\n";
        Config::parse("f", &format!("{rule}{more}")).unwrap()
    };
    let engine = Engine::new(rules(""), Caller::new("checkout"), 1, 42);
    let home = Arc::new(Fleet::default());
    engine.set_quota_home(Arc::clone(&home) as Arc<dyn QuotaHome>);
    assert_eq!((called(&engine, T0), called(&engine, T0)), (None, None));
    let asked = |engine: &Engine| {
        let refusal = called(engine, T0).map(|refusal| refusal.reason.to_string());
        (refusal, home.asked.lock().unwrap().clone(), home.told.lock().unwrap().unwrap())
    };
    let mut seen = vec![(Shared::Host, false)];
    assert_eq!(asked(&engine), (Some("own_limit".to_owned()), seen.clone(), Shared::Host));
    // What was used stays used, as the cell is the same one.
    engine.reload(&rules("fair = \"customer\"\n"));
    seen.push((Shared::Host, true));
    assert_eq!(asked(&engine), (Some("own_limit".to_owned()), seen.clone(), Shared::Host));
    // Nobody has granted anything: it waits for that, and is not cut off for good.
    engine.reload(&rules("shared = \"fleet\"\non_error = \"refuse\"\nmax_wait = \"0s\"\n"));
    seen.push((Shared::Fleet, false));
    assert_eq!(asked(&engine), (Some("unshared".to_owned()), seen.clone(), Shared::Fleet));
    // And back again: whoever leases is told.
    engine.reload(&rules(""));
    assert_eq!(asked(&engine), (Some("own_limit".to_owned()), seen, Shared::Host));
}
