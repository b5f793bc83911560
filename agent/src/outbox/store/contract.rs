//! What every store promises those who deliver, on each of them.

use super::super::file::Place;
use super::super::seal::Keys;
use super::super::table::{Item, New, Settlement, State};
use super::super::{fixture, nanos, queue, wall};
use super::{Due, FileStore, Store, Wanted};
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

/// Long enough for any machine; nothing here waits so long.
const PATIENCE: Duration = Duration::from_secs(60);

/// A store, and what goes when it goes.
struct Bench {
    store: Box<dyn Store>,
    keys: Keys,
    _home: tempfile::TempDir,
    #[cfg(feature = "postgres")]
    _server: Option<Arc<server::Server>>,
}

#[cfg(feature = "postgres")]
#[path = "../../../tests/outbox_support/postgres.rs"]
pub(super) mod server;

impl Bench {
    fn file() -> Self {
        let home = tempfile::tempdir().unwrap();
        Self {
            store: Box::new(FileStore::new(Place::new(home.path()), Arc::default())),
            keys: Keys::of(home.path(), None).unwrap(),
            _home: home,
            #[cfg(feature = "postgres")]
            _server: None,
        }
    }

    #[cfg(feature = "postgres")]
    fn postgres() -> Option<Self> {
        let (server, home) = (server::Server::shared()?, tempfile::tempdir().unwrap());
        let store = super::postgres::PostgresStore::new(&server.database(), PATIENCE, Arc::default());
        Some(Self {
            store: Box::new(store.unwrap()),
            keys: Keys::of(home.path(), None).unwrap(),
            _home: home,
            _server: Some(server),
        })
    }

    fn call(&self, key: Option<&str>) -> New {
        New { order_key: key.map(str::to_owned), ..fixture::sealed(&self.keys, "k") }
    }

    fn put(&self, key: Option<&str>) -> i64 {
        self.store.add(Arc::new(self.call(key))).wait().unwrap().id
    }

    fn take(&self) -> Worker<'_> {
        let grant = self.store.take("q").wait().unwrap().unwrap();
        Worker { bench: self, token: grant.lease.token, has: HashSet::new(), _alive: grant.alive }
    }

    fn item(&self, id: i64) -> Item {
        self.store.get(id).wait().unwrap().unwrap().0
    }
}

/// Who delivers.
struct Worker<'a> {
    bench: &'a Bench,
    token: i64,
    /// What it has on its way.
    has: HashSet<i64>,
    _alive: Option<super::Alive>,
}

impl Worker<'_> {
    fn look(&self) -> Option<Due> {
        let wanted = Wanted {
            queue: "q".into(),
            token: self.token,
            under_way: self.has.clone(),
            room: 9,
            keys: self.bench.keys.ids(),
        };
        self.bench.store.due(wanted).wait().unwrap()
    }

    /// Numbers of the calls that are due beside those on their way, in order.
    fn due(&mut self) -> Vec<i64> {
        let due = self.look().expect("the lease is good");
        let mut ids: Vec<i64> = due.calls.iter().map(|(item, _)| item.id).collect();
        self.has.extend(&ids);
        ids.sort_unstable();
        ids
    }

    fn settle(&mut self, id: i64, settlement: Settlement) -> bool {
        self.has.remove(&id);
        let (store, item) = (&self.bench.store, self.bench.item(id));
        store.settle(self.token, &item, Arc::new(settlement)).wait().unwrap()
    }
}

fn delivered() -> Settlement {
    Settlement::Delivered { status: 200, response: b"yes".to_vec() }
}

fn later(wait: Duration) -> Settlement {
    let at = wall().saturating_add(nanos(wait));
    Settlement::Later { at, now: wall(), counts: true, status: Some(503), error: "no".into() }
}

fn dead() -> Settlement {
    Settlement::Dead { counts: true, status: None, error: "x".into() }
}

const HOUR: Duration = Duration::from_secs(3_600);

fn of_one_key_only_the_oldest_is_due_whatever_becomes_of_it(bench: &Bench) {
    let [a1, b1, a2, free, a3, a4] =
        [Some("a"), Some("b"), Some("a"), None, Some("a"), Some("a")].map(|key| bench.put(key));
    let mut me = bench.take();
    assert_eq!(me.due(), [a1, b1, free]);
    assert!(me.due().is_empty(), "each of them once");
    assert!(me.settle(a1, later(Duration::ZERO)));
    assert_eq!(me.due(), [a1], "a call that waits holds back its key");
    assert!(me.settle(a1, delivered()));
    assert_eq!(me.due(), [a2]);
    assert!(me.settle(a2, dead()));
    assert_eq!(me.due(), [a3], "a dead letter lets the next one go");
    assert_eq!([a3, a3].map(|id| bench.store.remove(vec![id]).wait().unwrap()), [1, 0]);
    assert_eq!(me.due(), [a4]);
    assert_eq!(bench.store.retry(vec![a2, b1]).wait().unwrap(), 2);
    assert!(me.due().is_empty(), "one of the key at a time");
    assert!(me.settle(a4, delivered()));
    assert_eq!(me.due(), [a2]);
}

fn what_is_reported_under_a_lease_that_passed_on_is_refused(bench: &Bench) {
    let id = bench.put(None);
    let mut me = bench.take();
    assert_eq!(me.due(), [id]);
    bench.store.release("q", me.token).wait().unwrap();
    let mut other = bench.take();
    assert!(other.token > me.token);
    assert_eq!(other.due(), [id]);
    assert_eq!(bench.store.renew("q", me.token).wait().unwrap(), None);
    assert!(!me.settle(id, delivered()));
    assert_eq!(bench.item(id).state, State::Pending);
    assert!(other.settle(id, delivered()));
    let (item, _, response) = bench.store.get(id).wait().unwrap().unwrap();
    assert_eq!((item.state, item.status, item.attempts), (State::Delivered, Some(200), 1));
    assert_eq!(response.as_deref(), Some(&b"yes"[..]));
    assert_eq!(bench.store.retry(vec![id]).wait().unwrap(), 0, "what was delivered is not delivered again");
    assert!(bench.store.renew("q", other.token).wait().unwrap().is_some());
}

fn a_call_that_waits_is_due_in_time_and_one_from_before_the_clock_was_set_back_at_once(bench: &Bench) {
    let (soon, far) = (bench.put(None), bench.put(None));
    let mut me = bench.take();
    assert_eq!(me.due(), [soon, far]);
    assert!(me.settle(soon, later(HOUR)) && me.settle(far, later(1_000 * HOUR)));
    assert_eq!(me.due(), [far]);
    let next = me.look().unwrap().next.unwrap();
    assert!(next <= HOUR && next > HOUR / 2, "{next:?}");
    assert_eq!(bench.item(soon).attempts, 1);
    assert_eq!(bench.store.retry(vec![soon]).wait().unwrap(), 1);
    assert_eq!(me.due(), [soon], "whoever asks for it has it at once");
    assert_eq!(bench.item(soon).attempts, 0);
}

fn dropping_a_call_that_waits_for_its_key_lets_no_second_one_go(bench: &Bench) {
    let [gave_up, under_way, waits] = [(); 3].map(|()| bench.put(Some("a")));
    let mut me = bench.take();
    assert_eq!(me.due(), [gave_up]);
    assert!(me.settle(gave_up, dead()));
    assert_eq!(bench.store.retry(vec![gave_up]).wait().unwrap(), 1);
    assert_eq!(me.due(), [under_way]);
    assert_eq!(bench.store.remove(vec![waits]).wait().unwrap(), 1);
    assert!(me.due().is_empty(), "one of the key at a time");
    assert_eq!(bench.store.remove(vec![under_way]).wait().unwrap(), 1);
    assert_eq!(me.due(), [gave_up]);
}

fn a_call_that_never_grows_too_old_can_be_retried(bench: &Bench) {
    let mut new = bench.call(None);
    new.expires_at = i64::MAX;
    let id = bench.store.add(Arc::new(new)).wait().unwrap().id;
    let mut me = bench.take();
    assert_eq!(me.due(), [id]);
    assert!(me.settle(id, dead()));
    assert_eq!(bench.store.retry(vec![id]).wait().unwrap(), 1);
    assert_eq!(bench.item(id).expires_at, i64::MAX);
}

fn what_was_settled_is_counted_listed_and_forgotten_in_time(bench: &Bench) {
    let ids = [(); 3].map(|()| bench.put(None));
    let mut me = bench.take();
    assert_eq!(me.due(), ids);
    assert!(me.settle(ids[0], delivered()) && me.settle(ids[1], dead()));
    let counts = bench.store.counts().wait().unwrap();
    let counts: Vec<_> = counts.iter().map(|count| (count.state, count.calls, count.bytes)).collect();
    assert_eq!(counts, [(State::Pending, 1, 3), (State::Delivered, 1, 3), (State::Dead, 1, 3)]);
    let listed = |filter: &super::Filter| -> Vec<i64> {
        bench.store.list(filter).wait().unwrap().iter().map(|item| item.id).collect()
    };
    let mut filter = super::Filter::default();
    assert_eq!(listed(&filter), ids);
    filter.limit = 2;
    assert_eq!(listed(&filter), ids[..2]);
    filter.state = Some(State::Dead);
    (filter.service, filter.vendor) = (Some("q".into()), Some("v".into()));
    assert_eq!(listed(&filter), [ids[1]]);
    filter.service = Some("other".into());
    assert!(listed(&filter).is_empty());
    assert!(!bench.store.tidy(HOUR, HOUR).wait().unwrap());
    assert!(bench.store.get(ids[0]).wait().unwrap().is_some());
    let begun = Instant::now();
    while bench.store.get(ids[0]).wait().unwrap().is_some() {
        assert!(begun.elapsed() < PATIENCE);
        bench.store.tidy(Duration::ZERO, HOUR).wait().unwrap();
    }
    assert_eq!(bench.item(ids[1]).state, State::Dead);
}

fn only_what_was_sent_counts_as_an_attempt(bench: &Bench) {
    let [late, refused] = [(); 2].map(|()| bench.put(None));
    let mut me = bench.take();
    assert_eq!(me.due(), [late, refused]);
    assert!(me.settle(late, later(Duration::ZERO)) && me.settle(refused, dead()));
    assert_eq!(me.due(), [late]);
    let too_old = Settlement::Dead { counts: false, status: Some(503), error: "too old".into() };
    assert!(me.settle(late, too_old));
    for id in [late, refused] {
        let item = bench.item(id);
        assert_eq!((item.state, item.attempts), (State::Dead, 1));
    }
}

fn many_who_put_at_once_get_different_numbers_in_the_order_of_each(bench: &Bench) {
    let ids = std::thread::scope(|scope| {
        let put = || (0..20).map(|_| bench.put(Some("a"))).collect::<Vec<i64>>();
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(put)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    assert!(ids.iter().all(|ids| ids.is_sorted()));
    let all: HashSet<i64> = ids.into_iter().flatten().collect();
    assert_eq!(all.len(), 80);
    let (mut me, mut before) = (bench.take(), 0);
    for _ in 0..80 {
        let [id] = me.due().try_into().expect("one of the key at a time");
        assert!(id > before && all.contains(&id));
        before = id;
        assert!(me.settle(id, delivered()));
    }
    assert!(me.due().is_empty());
}

macro_rules! promises {
    ($($promise:ident)*) => {
        mod in_a_file {
            $(#[test]
            fn $promise() {
                super::$promise(&super::Bench::file());
            })*
        }
        #[cfg(feature = "postgres")]
        mod in_postgres {
            $(#[test]
            fn $promise() {
                if let Some(bench) = super::Bench::postgres() {
                    super::$promise(&bench);
                }
            })*
        }
    };
}

fn what_is_not_delivered_is_counted_by_vendor_over_all_queues_of_a_service(bench: &Bench) {
    let put = |queue: &str, vendor: &str| {
        let mut new = bench.call(Some("a"));
        (new.queue, new.vendor) = (queue.into(), vendor.into());
        bench.store.add(Arc::new(new)).wait().unwrap().id
    };
    let ids = ["v", "v", "w"].map(|vendor| put("q", vendor));
    put(&queue::name("q", Some("stripe")), "v");
    put("q2", "v");
    put(&queue::name("q2", Some("stripe")), "v");
    let mut me = bench.take();
    assert_eq!(me.due(), [ids[0]]);
    assert!(me.settle(ids[0], dead()));
    assert_eq!(me.due(), [ids[1]]);
    let counted = || format!("{:?}", bench.store.standings("q", &AtomicBool::new(false)).unwrap());
    let of = |pending, dead| format!("Standing {{ pending: {pending}, dead: {dead}, since: Some(");
    let found = counted();
    assert!(found.contains(&format!("\"v\": {}", of(2, 1))), "{found}");
    assert!(found.contains(&format!("\"w\": {}", of(1, 0))), "{found}");
    assert!(me.settle(ids[1], delivered()));
    assert!(counted().contains(&format!("\"v\": {}", of(1, 1))));
    // Operators see one service.
    let counts = bench.store.counts().wait().unwrap();
    let of = |state| {
        counts.iter().filter(|count| count.service == "q" && count.state == state).collect::<Vec<_>>()
    };
    assert_eq!(of(State::Pending).iter().map(|count| count.calls).collect::<Vec<_>>(), [2]);
    let filter = super::Filter { service: Some("q".into()), ..super::Filter::default() };
    let listed = bench.store.list(&filter).wait().unwrap();
    let credentials: Vec<_> = listed.iter().map(|item| item.credential.as_deref()).collect();
    assert_eq!(credentials, [None, None, None, Some("stripe")]);
}

promises! {
    what_is_not_delivered_is_counted_by_vendor_over_all_queues_of_a_service
    of_one_key_only_the_oldest_is_due_whatever_becomes_of_it
    what_is_reported_under_a_lease_that_passed_on_is_refused
    a_call_that_waits_is_due_in_time_and_one_from_before_the_clock_was_set_back_at_once
    dropping_a_call_that_waits_for_its_key_lets_no_second_one_go
    a_call_that_never_grows_too_old_can_be_retried
    what_was_settled_is_counted_listed_and_forgotten_in_time
    only_what_was_sent_counts_as_an_attempt
    many_who_put_at_once_get_different_numbers_in_the_order_of_each
}

/// What only one that hosts share has to promise.
#[cfg(feature = "postgres")]
mod shared {
    use super::*;
    use crate::outbox::seal;
    use std::sync::atomic::Ordering;

    #[test]
    fn two_who_deliver_at_once_never_have_the_same_call() {
        let Some(bench) = Bench::postgres() else { return };
        let ids: HashSet<i64> = (0..60).map(|_| bench.put(None)).collect();
        let claimed = std::thread::scope(|scope| {
            let work = || {
                let (mut me, mut mine) = (bench.take(), Vec::new());
                while mine.len() < 60 {
                    let due = me.due();
                    if due.is_empty() {
                        break;
                    }
                    mine.extend(due);
                }
                mine
            };
            let threads: Vec<_> = (0..3).map(|_| scope.spawn(work)).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect::<Vec<i64>>()
        });
        assert_eq!(claimed.len(), 60, "no call twice");
        assert_eq!(claimed.into_iter().collect::<HashSet<i64>>(), ids);
    }

    #[test]
    fn whoever_counts_what_waits_holds_up_nobody_and_can_be_stopped() {
        let Some(bench) = Bench::postgres() else { return };
        bench.put(None);
        let server = bench._server.as_ref().unwrap();
        let database = bench.store.unavailable(&"").to_string();
        let database = database.rsplit_once('/').unwrap().1.trim_end_matches(": ").to_owned();
        let many = |sql: &str| server.ask(&database, sql).parse::<u32>().unwrap();
        let until = |sql: &str| {
            let begun = Instant::now();
            while many(sql) == 0 {
                assert!(begun.elapsed() < PATIENCE, "{sql}");
            }
        };
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let lock = "LOCK TABLE farcall_outbox.item; SELECT pg_sleep(3600)";
            let _ = scope.spawn(|| std::panic::catch_unwind(|| server.ask(&database, lock)));
            until("SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND granted");
            let counting = scope.spawn(|| bench.store.standings("q", &stop));
            until("SELECT count(*) FROM pg_locks WHERE NOT granted");
            assert!(bench.store.identity().wait().is_ok(), "it waits for nobody");
            stop.store(true, Ordering::Release);
            assert!(counting.join().unwrap().is_ok());
            until("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE query LIKE '%3600)'");
        });
        let counted = bench.store.standings("q", &AtomicBool::new(false)).unwrap();
        assert!(format!("{counted:?}").contains("pending: 1, dead: 0"), "{counted:?}");
    }

    #[test]
    fn a_lease_that_has_ended_gives_its_calls_to_the_next_and_can_do_nothing_more() {
        let Some(bench) = Bench::postgres() else { return };
        let id = bench.put(None);
        let mut me = bench.take();
        assert_eq!(me.due(), [id]);
        assert!(bench.take().due().is_empty(), "it is claimed");
        let server = bench._server.as_ref().unwrap();
        let database = bench.store.unavailable(&"").to_string();
        let database = database.rsplit_once('/').unwrap().1.trim_end_matches(": ");
        server
            .ask(database, &format!("UPDATE farcall_outbox.worker SET until = 0 WHERE token = {}", me.token));
        assert!(bench.store.waits("q", false).wait().unwrap().pending);
        assert!(me.look().is_none());
        let mut other = bench.take();
        assert_eq!(other.due(), [id]);
        assert_eq!(bench.store.renew("q", me.token).wait().unwrap(), None);
        assert!(!me.settle(id, delivered()) && other.settle(id, delivered()));
    }

    #[test]
    fn what_another_key_sealed_is_left_to_who_has_it_until_it_is_too_old() {
        let Some(bench) = Bench::postgres() else { return };
        let id = bench.put(None);
        let mut stranger = bench.take();
        let wanted = |token| Wanted {
            queue: "q".into(),
            token,
            under_way: HashSet::new(),
            room: 9,
            keys: vec![vec![0; 4]],
        };
        assert!(bench.store.due(wanted(stranger.token)).wait().unwrap().unwrap().calls.is_empty());
        assert_eq!(stranger.due(), [id]);
        bench.store.release("q", stranger.token).wait().unwrap();
        let mut old = bench.call(None);
        old.expires_at = old.put_at;
        let old = bench.store.add(Arc::new(old)).wait().unwrap().id;
        let stranger = bench.take();
        let due = bench.store.due(wanted(stranger.token)).wait().unwrap().unwrap();
        assert_eq!(due.calls.iter().map(|(item, _)| item.id).collect::<Vec<_>>(), [old]);
    }

    #[test]
    fn a_call_that_is_added_again_keeps_its_number() {
        let Some(bench) = Bench::postgres() else { return };
        let new = Arc::new(bench.call(Some("a")));
        assert!(!seal::name_of(&new.request).is_empty());
        let [first, second] = [(); 2].map(|()| bench.store.add(Arc::clone(&new)).wait().unwrap().id);
        assert_eq!(first, second);
        assert_eq!(bench.take().due(), [first]);
    }
}
