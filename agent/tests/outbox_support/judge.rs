//! What the harnesses share that kill processes and break disks: who was told what, and what must hold of it.

use super::{Got, Vendor, config};
use farcall_agent::outbox::{Operator, State};
use std::collections::{HashMap, HashSet};
use std::io::{BufRead, BufReader, Read};
use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::process::Child;
use std::sync::mpsc::Sender;
use std::thread;
use std::time::{Duration, Instant};

/// Another process, which a test that fails leaves not behind, stopped or not.
pub(crate) struct Process(pub(crate) Child);

impl Deref for Process {
    type Target = Child;

    fn deref(&self) -> &Child {
        &self.0
    }
}

impl DerefMut for Process {
    fn deref_mut(&mut self) -> &mut Child {
        &mut self.0
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `name number` and the idempotency key of each call that a process was told is safe; `first` hears of the first one.
pub(crate) fn acknowledged(stdout: impl Read, first: &Sender<()>) -> Vec<(String, String)> {
    let lines = BufReader::new(stdout).lines().map_while(Result::ok);
    lines
        .inspect(|line| {
            if line.contains("acknowledged ") {
                let _ = first.send(());
            }
        })
        .filter_map(|line| {
            let rest = line.split_once("acknowledged ")?.1.to_owned();
            let (call, key) = rest.rsplit_once(' ')?;
            // The last line of a process that was killed may be torn.
            (key.len() == 32).then(|| (call.to_owned(), key.to_owned()))
        })
        .collect()
}

pub(crate) fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

pub(crate) fn home(vendor: &Vendor) -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("farcall.toml"), config(vendor)).unwrap();
    home
}

pub(crate) fn pending(home: &Path) -> u64 {
    let counts = Operator::at(home).counts().unwrap();
    counts.iter().filter(|count| count.state == State::Pending).map(|count| count.calls).sum()
}

pub(crate) fn until(what: &str, patience: Duration, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < patience, "waited in vain for {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// A request as the harness reads it: who put it, which one of his it was, its order key, its idempotency key.
pub(crate) fn read(got: &Got) -> (String, usize, String, String) {
    let [name, number, order]: [&str; 3] =
        got.body.split(' ').take(3).collect::<Vec<_>>().try_into().unwrap();
    let key = got.header("idempotency-key").unwrap().to_owned();
    (name.into(), number.parse().unwrap(), order.into(), key)
}

/// What must hold between processes: all that was acknowledged before a process began arrives before what that one put
/// under the same order key. `begun` has each process with how many calls were acknowledged before. Returns how many
/// such pairs of a process and an order key there were.
pub(crate) fn judge_between(
    got: &[Got],
    acknowledged: &[(String, String)],
    begun: &[(String, usize)],
) -> usize {
    let mut arrived: HashMap<String, (usize, String)> = HashMap::new();
    let mut first: HashMap<(String, String), usize> = HashMap::new();
    for (place, got) in got.iter().enumerate() {
        let (name, number, order, _) = read(got);
        if order != "-" {
            first.entry((name.clone(), order.clone())).or_insert(place);
            arrived.entry(format!("{name} {number}")).or_insert((place, order));
        }
    }
    let (mut latest, mut pairs): (HashMap<&str, (usize, &str)>, usize) = (HashMap::new(), 0);
    let (mut begun, mut acknowledged) = (begun.iter().collect::<Vec<_>>(), acknowledged.iter().enumerate());
    begun.sort_by_key(|(_, before)| *before);
    let mut seen = 0;
    for (name, before) in begun {
        while seen < *before {
            let Some((number, (call, _))) = acknowledged.next() else { break };
            seen = number + 1;
            if let Some((place, order)) = arrived.get(call) {
                let known = latest.entry(order).or_insert((*place, call));
                *known = (*known).max((*place, call));
            }
        }
        for (order, (last, call)) in &latest {
            if let Some(first) = first.get(&(name.clone(), (*order).to_owned())) {
                pairs += 1;
                assert!(last < first, "{order}: {call} was acknowledged before {name} began, and came later");
            }
        }
    }
    pairs
}

/// What must hold of all that the vendor got.
pub(crate) fn judge(got: &[Got], acknowledged: &[(String, String)]) {
    let mut keys: HashMap<String, String> = HashMap::new();
    let mut last: HashMap<(String, String), usize> = HashMap::new();
    let mut bodies = HashSet::new();
    for got in got {
        let (name, number, order, key) = read(got);
        let known = keys.entry(key.clone()).or_insert_with(|| got.body.clone());
        assert_eq!(*known, got.body, "two calls under one idempotency key");
        if !bodies.insert(format!("{name} {number}")) {
            assert!(
                keys.values().filter(|body| **body == got.body).count() == 1,
                "two keys for {}",
                got.body
            );
            continue;
        }
        if order != "-" {
            // Its first arrival: all that this process put before it under the same order key came before.
            let before = last.insert((name.clone(), order.clone()), number);
            assert!(
                before.is_none_or(|before| before < number),
                "{order}: {before:?} of {name} before {number}"
            );
        }
    }
    for (call, key) in acknowledged {
        assert!(bodies.contains(call), "the call {call} was acknowledged and is lost");
        assert!(keys.contains_key(key), "the call {call} came under another key than was acknowledged");
    }
}
