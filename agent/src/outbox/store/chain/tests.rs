//! What waits in the spool goes on in the order of each key, around what the store does not take. The store is a file
//! here, too: what it refuses, a trigger says.

use super::super::super::clock::Ahead;
use super::super::super::file::Place;
use super::super::super::restore;
use super::super::super::seal::{Keys, name_of};
use super::super::super::table::{Filter, Item, New, State};
use super::super::super::{fixture, nanos};
use super::super::moving::States;
use super::super::{FileStore, Store, Wanted};
use super::spool::{Found, Spool};
use super::{Copies, Links, forward};
use farcall::config::{OutboxPlace, OutboxStore};
use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Long enough for any machine; nothing here takes that long.
const PATIENCE: Duration = Duration::from_secs(60);
const AGE: Duration = Duration::from_secs(86_400);

/// A store that refuses some calls, and a spool.
struct Bench {
    links: Links,
    store: Arc<FileStore>,
    keys: Keys,
    directory: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = |path: PathBuf| Arc::new(FileStore::new(Place::at(&path), Arc::default()));
        let store = file(directory.path().join("store.db"));
        let here = file(directory.path().join("outbox.db"));
        let spool = Spool::new(directory.path(), Arc::clone(&here));
        let copies = Copies::new(directory.path(), &OutboxStore::default(), None);
        let links =
            Links { store: Arc::clone(&store) as Arc<dyn Store>, file: here, copies, spool: Some(spool) };
        Self { links, store, keys: Keys::of(directory.path(), None).unwrap(), directory }
    }

    fn spool(&self) -> &Spool {
        self.links.spool.as_ref().unwrap()
    }

    fn call(&self, name: &str, key: Option<&str>, age: Duration) -> Arc<New> {
        let new = fixture::sealed(&self.keys, name);
        Arc::new(New { order_key: key.map(str::to_owned), expires_at: new.put_at + nanos(age), ..new })
    }

    /// From now on the store refuses the calls of these names, by GLOB, and no others.
    fn refuse(&self, names: Option<&str>) {
        let sql = match names {
            Some(names) => format!(
                "DROP TRIGGER IF EXISTS refuse;
                CREATE TRIGGER refuse BEFORE INSERT ON item WHEN new.idempotency_key GLOB '{names}'
                    BEGIN SELECT raise(ABORT, 'the store does not want it'); END"
            ),
            None => "DROP TRIGGER IF EXISTS refuse".to_owned(),
        };
        self.store.write(0, move |db| db.execute_batch(&sql)).wait().unwrap();
    }

    /// Puts calls at once; the numbers that they got.
    fn put(&self, calls: &[Arc<New>]) -> Vec<i64> {
        self.links.add(calls).into_iter().map(|answer| answer.unwrap().id).collect()
    }

    fn names_in(&self, store: &dyn Store) -> Vec<String> {
        let items = store.list(&Filter::default()).wait().unwrap();
        let there = items.into_iter().filter(|item| item.state == State::Pending);
        there.map(|item| item.idempotency_key).collect()
    }

    /// Forwards until the store has these, in this order.
    fn forward_until(&self, names: &[&str]) {
        let begun = Instant::now();
        while self.names_in(&*self.store) != names {
            assert!(begun.elapsed() < PATIENCE, "{:?}", self.names_in(&*self.store));
            self.spool().forward(&*self.store).unwrap();
        }
    }

    fn waiting(&self, id: i64) -> Item {
        match self.spool().get(-id).unwrap() {
            Found::Here(whole) => whole.0,
            Found::Went(_) | Found::Nowhere => panic!("{id} is not in the spool"),
        }
    }
}

#[test]
fn of_calls_put_at_once_none_overtakes_one_of_its_key_that_the_store_refuses() {
    let bench = Bench::new();
    bench.refuse(Some("first"));
    let calls = [("first", Some("a")), ("second", Some("a")), ("other", Some("b")), ("free", None)]
        .map(|(name, key)| bench.call(name, key, AGE));
    let ids = bench.put(&calls);
    assert_eq!(ids.iter().map(|id| *id < 0).collect::<Vec<_>>(), [true, true, false, false], "{ids:?}");
    assert!(bench.put(&[bench.call("third", Some("a"), AGE)])[0] < 0, "nor does a later one");
    bench.refuse(None);
    bench.forward_until(&["other", "free", "first", "second", "third"]);
}

#[test]
fn what_goes_on_overtakes_none_of_its_key_that_the_store_refuses_yet() {
    let bench = Bench::new();
    bench.refuse(Some("*"));
    let calls = [("a1", Some("a")), ("b1", Some("b")), ("a2", Some("a")), ("b2", Some("b")), ("free", None)]
        .map(|(name, key)| bench.call(name, key, AGE));
    let ids = bench.put(&calls);
    assert!(ids.iter().all(|id| *id < 0), "{ids:?}");
    bench.refuse(Some("a1"));
    bench.forward_until(&["b1", "free", "b2"]);
    assert_eq!(bench.names_in(bench.spool().file()), ["a1", "a2"]);
    bench.refuse(None);
    bench.forward_until(&["b1", "free", "b2", "a1", "a2"]);
}

#[test]
fn what_is_left_in_the_spool_can_be_delivered_from_there_where_it_is_the_store_again() {
    let bench = Bench::new();
    bench.refuse(Some("*"));
    let gone = [("no gone", Some("c"), Duration::ZERO)];
    let calls = [("a1", Some("a"), AGE), ("no a2", Some("a"), AGE), ("c1", Some("c"), AGE)];
    let calls = gone.iter().chain(&calls).map(|(name, key, age)| bench.call(name, *key, *age));
    bench.put(&calls.collect::<Vec<_>>());
    bench.refuse(Some("no *"));
    bench.forward_until(&["a1", "c1"]);
    bench.refuse(Some("*"));
    bench.put(&[bench.call("c2", Some("c"), AGE)]);
    let wanted = Wanted { queue: "q".into(), token: 1, under_way: HashSet::new(), room: 9, keys: Vec::new() };
    let due = bench.spool().file().due(wanted).wait().unwrap().unwrap();
    let names: Vec<_> = due.calls.into_iter().map(|(item, _)| item.idempotency_key).collect();
    assert_eq!(names, ["no a2", "c2"]);
}

#[test]
fn calls_that_the_store_refuses_for_good_hold_up_no_others_and_say_why_they_wait() {
    let bench = Bench::new();
    bench.refuse(Some("*"));
    let refused: Vec<_> = (0..450).map(|number| bench.call(&format!("bad {number}"), None, AGE)).collect();
    let refused = bench.put(&refused);
    let good = bench.put(&[bench.call("good", None, AGE)])[0];
    bench.refuse(Some("bad *"));
    bench.forward_until(&["good"]);
    assert!(matches!(bench.spool().get(-good).unwrap(), Found::Went(_)));
    let item = bench.waiting(refused[0]);
    assert_eq!(item.state, State::Pending);
    assert!(item.error.is_some_and(|error| error.contains("the store does not want it")));
    let (waiting, of_them, why) = bench.spool().waiting().unwrap();
    assert_eq!((waiting, of_them), (450, 450));
    assert!(why.is_some_and(|why| why.contains("the store does not want it")));
}

#[test]
fn what_the_store_refuses_until_it_is_too_old_is_a_dead_letter_that_lets_the_next_of_its_key_go() {
    let bench = Bench::new();
    bench.refuse(Some("old"));
    let ids = bench.put(&[bench.call("old", Some("a"), Duration::ZERO), bench.call("next", Some("a"), AGE)]);
    bench.forward_until(&["next"]);
    let item = bench.waiting(ids[0]);
    assert_eq!(item.state, State::Dead);
    let error = item.error.unwrap();
    assert!(error.contains("too old") && error.contains("the store does not want it"), "{error}");
    let counts = bench.spool().counts().unwrap();
    assert_eq!(counts.iter().map(|count| (count.state, count.calls)).collect::<Vec<_>>(), [(State::Dead, 1)]);
    // Whoever asks for it has it tried again.
    bench.refuse(None);
    assert_eq!(bench.spool().file().retry(vec![-ids[0]]).wait().unwrap(), 1);
    bench.forward_until(&["next", "old"]);
}

#[test]
fn what_waits_grows_no_older_when_the_clock_jumps_before_its_file_has_followed() {
    const HOUR: i64 = 3_600_000_000_000;
    let bench = Bench::new();
    bench.refuse(Some("*"));
    let call = bench.call("call", None, Duration::from_secs(1_800));
    let id = bench.put(&[Arc::clone(&call)])[0];
    // As everything here stands right after the clock was set forward: all of it is of an hour ago.
    let jump = move |db: &rusqlite::Transaction<'_>| {
        let sql = "UPDATE clock SET ahead = ahead - ?1";
        assert_eq!(db.execute(sql, [HOUR])?, 1);
        let sql =
            "UPDATE item SET put_at = put_at - ?1, next_at = next_at - ?1, expires_at = expires_at - ?1";
        db.execute(sql, [HOUR])
    };
    assert_eq!(bench.spool().file().write(0, jump).wait().unwrap(), 1);
    let read = forward::read(bench.spool(), &[-id]).unwrap();
    let moments = |new: &New| {
        [new.put_at, new.next_at, new.expires_at].map(|moment| new.clock.moved(moment, Ahead::wall()))
    };
    // As close as two readings of two clocks.
    let near = |(a, b): (i64, i64)| (a - b).abs() < HOUR / 4;
    assert!(moments(&read[0].1).into_iter().zip(moments(&call)).all(near), "{:?}", moments(&read[0].1));
    bench.spool().forward(&*bench.store).unwrap();
    assert_eq!(bench.waiting(id).state, State::Pending);
    bench.refuse(None);
    bench.forward_until(&["call"]);
}

#[test]
fn a_call_that_goes_on_meanwhile_is_seen_in_the_spool_or_in_the_store() {
    let bench = Bench::new();
    bench.refuse(Some("*"));
    let calls: Vec<_> = (0..60).map(|number| bench.call(&format!("call {number}"), Some("a"), AGE)).collect();
    bench.put(&calls);
    bench.refuse(None);
    let names: Vec<Vec<u8>> = calls.iter().map(|new| name_of(&new.request).to_vec()).collect();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // They go on one after the other, for they are of one key.
        let looks = scope.spawn(|| {
            let mut looks = 0;
            while !over.load(Ordering::Acquire) {
                assert_eq!(bench.links.states(names.clone()).unwrap().len(), names.len());
                looks += 1;
            }
            looks
        });
        let begun = Instant::now();
        while bench.names_in(&*bench.store).len() < names.len() {
            assert!(begun.elapsed() < PATIENCE);
            bench.spool().forward(&*bench.store).unwrap();
        }
        over.store(true, Ordering::Release);
        assert!(looks.join().unwrap() > 0);
    });
}

#[test]
fn what_another_host_may_have_in_its_spool_is_not_cleared_from_a_copy() {
    const HOUR: i64 = 3_600_000_000_000;
    let bench = Bench::new();
    let mut settings = OutboxStore::default();
    settings.copies = vec![OutboxPlace::File(bench.directory.path().join("copy.db"))];
    let copies = Copies::new(bench.directory.path(), &settings, None);
    copies.look(&*bench.store, &bench.links.file, true, None).unwrap();
    let nobody = |_| Ok(States::new());
    let left = |age: i64, elsewhere: bool| {
        let mut call = bench.call("call", None, AGE);
        Arc::get_mut(&mut call).unwrap().put_at -= age;
        assert_eq!(copies.complete(&[call]), [true]);
        let looked = rusqlite::Connection::open(bench.directory.path().join("copy.db")).unwrap();
        let count = || -> i64 {
            copies.compare(0, 0, elsewhere, &nobody).unwrap();
            looked.query_row("SELECT count(*) FROM item", [], |row| row.get(0)).unwrap()
        };
        let restoring = restore::begin(bench.directory.path()).unwrap();
        assert_eq!(count(), 1, "what is put back is on its way to the store, however old it is");
        drop(restoring);
        let left = count();
        looked.execute("DELETE FROM item", []).unwrap();
        left
    };
    assert_eq!((left(HOUR / 2, false), left(2 * HOUR, false)), (1, 0), "it was never acknowledged");
    assert_eq!((left(2 * HOUR, true), left(29 * 24 * HOUR, true), left(31 * 24 * HOUR, true)), (1, 1, 0));
}

#[test]
fn what_went_on_is_told_by_its_old_number_until_that_is_forgotten() {
    let bench = Bench::new();
    let id = -bench.spool().add(&bench.call("one", None, AGE), None).unwrap().id;
    // Reached, and yet of no use: as a server whose disk is full, or that is a standby now.
    let place = bench.directory.path().join("later");
    let store = FileStore::new(Place::at(&place.join("outbox.db")), Arc::default());
    bench.spool().forward(&store).unwrap();
    assert_eq!(bench.waiting(-id).state, State::Pending);
    std::fs::create_dir(&place).unwrap();
    let begun = Instant::now();
    let there = loop {
        assert!(begun.elapsed() < PATIENCE);
        bench.spool().forward(&store).unwrap();
        if let Found::Went(there) = bench.spool().get(id).unwrap() {
            break there;
        }
    };
    assert!(store.get(there).wait().unwrap().is_some());
    while !matches!(bench.spool().get(id).unwrap(), Found::Nowhere) {
        assert!(begun.elapsed() < PATIENCE);
        bench.spool().tidy(Duration::ZERO);
    }
}
