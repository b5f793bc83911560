use super::map::{CELLS, Map, SHARES, Table};
use super::*;
use farcall::Timestamp;
use farcall::quota::{Ask, Claim, Rule, State, Unit, Verdict};
use farcall::rollout::{Canary, CanaryHome, Rollout, RolloutVerdict, Sample};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

const T0: Timestamp = Timestamp::from_nanos(1_790_000_000_000_000_000);

fn passes(cell: CellHome, rule: &Rule) -> usize {
    let state = State::at(cell, rule.fair.then(own_shares));
    let ask = || state.before(rule, &mut Claim::new(), &Ask::one(), &Default::default(), T0);
    (0..1_000).take_while(|_| ask() == Verdict::Pass).count()
}

fn rule() -> Rule {
    let mut rule = Rule::limit(100, Unit::Requests, Duration::from_secs(3_600));
    rule.burst = Some(100);
    rule.max_wait = Duration::ZERO;
    rule
}

#[test]
fn a_quota_is_one_for_all_who_map_it() {
    let home = tempfile::tempdir().unwrap();
    let (one, other) = (Memory::open(home.path()).unwrap(), Memory::open(home.path()).unwrap());
    assert_eq!(passes(one.cell(7).unwrap(), &rule()), 100);
    assert_eq!(passes(other.cell(7).unwrap(), &rule()), 0);
    assert_eq!(passes(other.cell(8).unwrap(), &rule()), 100);
    assert_eq!(one.host(), other.host());
    let mode = fs::metadata(home.path().join("quota.map")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_new_place_is_as_good_as_a_new_cell_and_new_shares() {
    let home = tempfile::tempdir().unwrap();
    let memory = Memory::open(home.path()).unwrap();
    let shares = memory.shares(7).unwrap();
    let (cell, shares) = (memory.cell(7).unwrap(), (*shares).as_ref());
    assert_eq!(format!("{:?}", (*cell).as_ref()), format!("{:?}", Cell::new()));
    assert_eq!(format!("{shares:?}"), format!("{:?}", Shares::new()));
    let mut fair = rule();
    fair.fair = true;
    let state = State::at(cell, memory.shares(7));
    let ask = |customer| {
        let ask = Ask::one().customer(customer, Default::default());
        state.before(&fair, &mut Claim::new(), &ask, &Default::default(), T0)
    };
    assert_eq!((0..100).filter(|n| ask(*n) == Verdict::Pass).count(), 100);
}

#[test]
fn what_is_not_a_map_of_this_version_is_replaced_and_never_read() {
    for wrong in [vec![], vec![0; 10], vec![7; 20_000_000]] {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("quota.map");
        fs::write(&file, wrong).unwrap();
        let memory = Memory::open(home.path()).unwrap();
        assert_eq!(passes(memory.cell(7).unwrap(), &rule()), 100);
        // Of another version, which has another meaning.
        let mut bytes = fs::read(&file).unwrap();
        bytes[8] += 1;
        fs::write(home.path().join("other"), &bytes).unwrap();
        fs::rename(home.path().join("other"), &file).unwrap();
        let replaced = Memory::open(home.path()).unwrap();
        assert_eq!(passes(replaced.cell(7).unwrap(), &rule()), 100);
        // Whoever had mapped the old one is not disturbed.
        assert_eq!(passes(memory.cell(7).unwrap(), &rule()), 0);
    }
}

#[test]
fn where_no_map_can_be_is_said_by_an_error() {
    let home = tempfile::tempdir().unwrap();
    fs::create_dir(home.path().join("quota.map")).unwrap();
    assert!(Memory::open(home.path()).is_err());
    assert!(Memory::open(Path::new("/proc/no/such/place")).is_err());
}

#[test]
fn a_full_map_takes_no_more_until_something_was_unused_for_a_day() {
    let home = tempfile::tempdir().unwrap();
    let memory = Memory::open(home.path()).unwrap();
    let first: Vec<_> = (0..SHARES as u64).map(|n| memory.shares(n * 977 + 5).unwrap()).collect();
    assert!(memory.shares(1_000_003).is_none());
    // All of them go on being found.
    assert!((0..SHARES as u64).all(|n| memory.shares(n * 977 + 5).is_some()));
    let later = memory.minute.load(Ordering::Relaxed) + UNUSED + 1;
    memory.minute.store(later, Ordering::Relaxed);
    // The first one is used again in time, the others are not.
    let _ = (*first[0]).as_ref();
    assert!((0..SHARES as u64 - 1).all(|n| memory.shares(n + 1_000_003).is_some()));
    assert!(memory.shares(2_000_003).is_none());
    assert_eq!(memory.evicted(), 0);
    // Who comes back after that has shares of its own.
    let _ = (*first[1]).as_ref();
    let _ = (*first[0]).as_ref();
    assert_eq!(memory.evicted(), 1);
}

#[test]
fn whoever_takes_a_place_over_finds_it_empty() {
    let home = tempfile::tempdir().unwrap();
    let memory = Memory::open(home.path()).unwrap();
    // All of one row.
    let keys: Vec<u64> = (1..=PROBES as u64).map(|n| n * CELLS as u64 + 9).collect();
    for key in &keys {
        assert_eq!(passes(memory.cell(*key).unwrap(), &rule()), 100);
    }
    let next = (PROBES as u64 + 1) * CELLS as u64 + 9;
    assert!(memory.cell(next).is_none());
    memory.minute.fetch_add(UNUSED + 1, Ordering::Relaxed);
    assert_eq!(passes(memory.cell(next).unwrap(), &rule()), 100);
}

#[test]
fn all_who_look_for_a_new_key_at_once_find_the_same_place() {
    let home = tempfile::tempdir().unwrap();
    let maps: Vec<_> = (0..4).map(|_| Memory::open(home.path()).unwrap()).collect();
    for round in 0..500_u64 {
        let places: Vec<_> = std::thread::scope(|scope| {
            let find = |memory: &Arc<Memory>| {
                memory.find(Table::Cells, round / 3 * 24 + 1 + (round % 3) * CELLS as u64)
            };
            let threads: Vec<_> = maps.iter().map(|memory| scope.spawn(move || find(memory))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap().unwrap()).collect()
        });
        assert!(places.iter().all(|place| *place == places[0]), "{places:?}");
    }
}

#[cfg(feature = "redis")]
#[test]
fn one_process_leads_until_it_is_gone_for_some_seconds() {
    let home = tempfile::tempdir().unwrap();
    let cell = Memory::open(home.path()).unwrap().cell(3).unwrap();
    let now = (1 << 40) - 1_000;
    assert!(cell.leads(1, now, LEADS) && !cell.leads(2, now + 1, LEADS) && cell.leads(1, now + 2_000, LEADS));
    assert!(!cell.leads(2, now + 2_001 + LEADS - 10, LEADS));
    assert!(cell.leads(2, now + 2_001 + LEADS, 300));
    assert!(!cell.leads(1, now + 2_001 + LEADS + 290, LEADS));
    assert!(cell.leads(1, now + 2_001 + LEADS + 310, u64::MAX));
    assert!(!cell.leads(2, now + 2_001 + LEADS + 320, LEADS));
    let now = now + 2_001 + LEADS + 320 + LEADS;
    assert!(cell.leads(2, now, LEADS));
    cell.resigns(1);
    assert!(!cell.leads(1, now + 1, LEADS));
    cell.resigns(2);
    assert!(cell.leads(1, now + 1, LEADS));
}

#[test]
fn a_map_is_there_once_it_was_made() {
    let home = tempfile::tempdir().unwrap();
    let hosts: Vec<u64> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..8).map(|_| scope.spawn(|| Map::open(home.path()).unwrap().host())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(hosts.iter().all(|host| *host == hosts[0]), "{hosts:?}");
}

#[test]
fn a_canary_outlives_the_machines_start_and_its_quotas_do_not() {
    let home = tempfile::tempdir().unwrap();
    let memory = Memory::open(home.path()).unwrap();
    assert_eq!(passes(memory.cell(7).unwrap(), &rule()), 100);
    assert_eq!(state(&*memory.canary(7).unwrap()), state(&Canary::new()), "a new place is a new canary");
    count(&memory.canary(7).unwrap());
    drop(memory);
    // The word of the machine's start is another one in each.
    let file = home.path().join("quota.map");
    let mut bytes = fs::read(&file).unwrap();
    bytes[24] ^= 1;
    fs::write(&file, bytes).unwrap();
    let memory = Memory::open(home.path()).unwrap();
    assert_eq!(passes(memory.cell(7).unwrap(), &rule()), 100);
    assert_eq!((*memory.canary(7).unwrap()).as_ref().evidence().old_calls, 1);
    assert_eq!(memory.known_canary(7).unwrap().evidence().old_calls, 1);
    assert!(memory.known_canary(8).is_none());
}

#[test]
fn what_is_no_map_of_canaries_is_replaced_and_beyond_its_places_there_are_none() {
    for wrong in [vec![], vec![0; 10], vec![7; 1_000_000]] {
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join("rollout.map"), wrong).unwrap();
        let memory = Memory::open(home.path()).unwrap();
        count(&memory.canary(7).unwrap());
        let other = Memory::open(home.path()).unwrap();
        assert_eq!((*other.canary(7).unwrap()).as_ref().evidence().old_calls, 1);
        let fit = (100..1_000).take_while(|key| other.canary(*key).is_some()).count();
        assert_eq!(fit, CANARIES - 1);
    }
}

fn state(canary: &impl AsRef<Canary>) -> String {
    format!("{:?}", canary.as_ref())
}

/// One call of the old side.
fn count(canary: &Arc<SharedCanary>) {
    let mut rule = farcall::rollout::Rule::new("r", farcall::rollout::By::Customer);
    rule.canary = Some(Default::default());
    let rollout = Rollout::at(Arc::clone(canary) as CanaryHome, &rule, T0);
    let RolloutVerdict::Old { side, .. } = rollout.before(&rule, None, 1, false) else {
        panic!("without a customer")
    };
    assert_eq!(rollout.after(&rule, side, Sample::answered(Duration::ZERO), T0), None);
}
