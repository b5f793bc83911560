use super::store::{Answers, Question};
use super::worker::BEAT;
use super::*;
use crate::redis_server::Server;
use crate::share::memory::Memory;
use farcall::quota::{Ask, Claim, Grant, Unit, Verdict, Wanted};
use redis::{Client, Commands, Connection};

const T0: Timestamp = Timestamp::from_nanos(1_700_000_000_000_000_000);

/// Ten calls a second, of the host and of the fleet.
fn rules() -> [Rule; 2] {
    let alone = Rule::limit(10, Unit::Requests, Duration::from_secs(1));
    let mut rule = alone.clone();
    rule.shared = Shared::Fleet;
    [alone, rule]
}

/// A process whose thread does what the test says, at the times that it says.
struct Process {
    fleet: Fleet,
    worker: Worker,
    millis: Arc<AtomicU64>,
    /// Later than anything is due.
    late: Instant,
}

impl Process {
    fn new(number: u64, cell: FleetCell, millis: &Arc<AtomicU64>) -> Self {
        let fleet = Fleet::new(&ShareConfig::default(), 1, number);
        fleet.register(7, &rules()[1], &cell);
        let clock = Arc::clone(millis);
        let worker = fleet.worker(move || T0.plus_millis(clock.load(Ordering::Relaxed)));
        Self { fleet, worker, millis: Arc::clone(millis), late: Instant::now() + Duration::from_secs(3_600) }
    }

    fn asks(&mut self) -> Vec<Question> {
        self.late += BEAT * 3_600;
        self.worker.questions(&mut lock(&self.fleet.state.0), self.late)
    }

    fn hears(&mut self, questions: &[Question], units: Option<u64>) {
        let answers = match units {
            Some(units) => {
                let grants = questions.iter().map(|_| Some(Grant { units, hosts: 1, spilled: 0 })).collect();
                Ok(Answers { grants, hosts: Some(1) })
            }
            None => Err(std::io::Error::other("the store is away").into()),
        };
        self.worker.take(&mut lock(&self.fleet.state.0), questions, answers);
    }

    /// Whether it asked, after so long.
    fn asked(&mut self, after: u64, units: Option<u64>) -> bool {
        self.millis.fetch_add(after, Ordering::Relaxed);
        let questions = self.asks();
        self.hears(&questions, units);
        !questions.is_empty()
    }
}

#[test]
fn what_a_reload_takes_from_the_fleet_is_not_fetched_until_it_is_given_back() {
    let [alone, rule] = rules();
    let mut process = Process::new(1, FleetCell::Own(Arc::new(Cell::new())), &Arc::default());
    assert_eq!(process.asks().len(), 1);
    process.fleet.keeps(7, &alone);
    assert_eq!(process.asks().len(), 0);
    process.fleet.keeps(7, &rule);
    assert_eq!(process.asks().len(), 1);
}

#[test]
fn a_quota_that_reloads_took_from_the_fleet_and_gave_back_owes_it_nothing() {
    let [alone, rule] = rules();
    let cell = Arc::new(Cell::new());
    let millis = Arc::default();
    let mut process = Process::new(1, FleetCell::Own(Arc::clone(&cell) as CellHome), &millis);
    assert!(process.asked(0, Some(5)));
    process.fleet.keeps(7, &alone);
    for _ in 0..50 {
        let now = T0.plus_millis(millis.fetch_add(100, Ordering::Relaxed));
        assert_eq!(cell.before(&alone, &mut Claim::new(), &Ask::one(), now), Verdict::Pass);
    }
    process.fleet.keeps(7, &rule);
    let questions = process.asks();
    assert_eq!(questions[0].wanted.owed, 0, "{questions:?}");
    process.hears(&questions, Some(5));
    // What is owed stays owed under another limit.
    for _ in 0..50 {
        let now = T0.plus_millis(millis.fetch_add(100, Ordering::Relaxed));
        let _ = cell.before(&rule, &mut Claim::new(), &Ask::one(), now);
    }
    let owed = process.asks()[0].wanted.owed;
    assert!(owed > 20, "{owed}");
    let mut larger = rule;
    larger.limit = Rule::limit(20, Unit::Requests, Duration::from_secs(1)).limit;
    process.fleet.keeps(7, &larger);
    assert_eq!(process.asks()[0].wanted.owed, owed);
}

#[test]
fn a_process_that_alone_gets_no_answer_leaves_it_to_others_of_its_host_to_ask() {
    let home = tempfile::tempdir().unwrap();
    let millis = Arc::default();
    let [mut deaf, mut other] = [1, 2].map(|number| {
        let cell = Memory::open(home.path()).unwrap().cell(7).unwrap();
        Process::new(number, FleetCell::Shared(cell), &millis)
    });
    assert!(deaf.asked(0, None) && !other.asked(1, Some(1)));
    for pause in [100, 200, 400] {
        assert!(deaf.asked(pause, None), "it may be nothing");
        assert!(pause == 400 || !other.asked(1, Some(1)));
    }
    assert!(other.asked(1, Some(1)), "four times are enough");
    for _ in 0..10 {
        assert!(!deaf.asked(100, None) && other.asked(1, Some(1)));
    }
    // The other one dies, and this one is answered again.
    assert!(!deaf.asked(5_000, None) && !deaf.asked(2_000, Some(1)));
    assert!(deaf.asked(1, Some(1)));
}

#[test]
fn a_process_that_is_alone_asks_again_as_soon_as_the_store_answers() {
    let mut process = Process::new(1, FleetCell::Own(Arc::new(Cell::new())), &Arc::default());
    for _ in 0..4 {
        assert!(process.asked(100, None));
    }
    assert!(!process.asked(2_000, None) && !process.asked(2_000, Some(1)));
    let now = Instant::now();
    assert!(lock(&process.fleet.state.0).quotas.values().all(|leased| leased.due <= now));
    assert!(process.asked(1, Some(1)));
}

/// A bucket of a thousand, which refills by less than a unit while a test runs.
const SLOW: Rate = Rate { per_second: 1e-6, most: 1_000.0, first: 100.0, debt: 3_000.0 };

fn wanted(units: u64, owed: u64, debt: u64, spilled: Option<u64>) -> Wanted {
    let limit = rules()[1].limit.unwrap();
    let mut wanted = Lease::new(limit).wanted(&Cell::new(), T0);
    (wanted.units, wanted.owed, wanted.debt, wanted.spilled) = (units, owed, debt, spilled);
    wanted
}

/// A host and its store, and what is beneath.
struct Asked {
    server: Server,
    store: Store,
    beneath: Connection,
}

impl Asked {
    fn new() -> Self {
        let server = Server::start();
        let mut share = ShareConfig::default();
        share.redis = Some(server.url.clone());
        let beneath = Client::open(server.url.as_str()).unwrap().get_connection().unwrap();
        Self { store: Store::new(&share, 1), beneath, server }
    }

    fn grant(&mut self, wanted: Wanted) -> Grant {
        self.grants(&[(7, wanted)]).grants[0].unwrap()
    }

    fn grants(&mut self, wanted: &[(u64, Wanted)]) -> Answers {
        let question = |(key, wanted)| Question { key, wanted, rate: SLOW, asked: T0 };
        self.store.ask(&wanted.iter().copied().map(question).collect::<Vec<_>>()).unwrap()
    }

    fn level(&mut self) -> i64 {
        let level: String = self.beneath.hget("farcall:{0000000000000007}:level", "level").unwrap();
        level.parse::<f64>().unwrap().round() as i64
    }
}

#[test]
fn the_store_takes_a_debt_once_and_no_further_than_its_bound() {
    let mut asked = Asked::new();
    assert_eq!(asked.grant(wanted(30, 0, 0, None)).units, 30);
    assert_eq!(asked.grant(wanted(10, 500, 1, Some(0))).units, 0);
    assert_eq!(asked.level(), -430);
    assert_eq!(asked.grant(wanted(10, 500, 1, Some(0))).units, 0);
    assert_eq!(asked.level(), -430, "told again");
    asked.grant(wanted(10, 500, 2, Some(0)));
    assert_eq!(asked.level(), -930);
    asked.grant(wanted(10, 1_000_000_000, 3, Some(0)));
    assert_eq!(asked.level(), -3_000);
    assert!(asked.server.child.try_wait().unwrap().is_none());
}

#[test]
fn what_ran_over_since_a_host_was_answered_pays_for_what_it_owes() {
    let mut asked = Asked::new();
    let returned = |units| {
        let mut wanted = wanted(0, 0, 0, None);
        wanted.returned = units;
        wanted
    };
    // 100 are there, and a thousand fit.
    assert_eq!(asked.grant(returned(900)).spilled, 0);
    assert_eq!(asked.grant(returned(300)).spilled, 300);
    assert_eq!(asked.grant(returned(200)).spilled, 500);
    // This host has heard of the first 300.
    assert_eq!(asked.grant(wanted(0, 150, 1, Some(300))).spilled, 350);
    assert_eq!(asked.level(), 1_000);
    assert_eq!(asked.grant(wanted(0, 150, 2, Some(300))).spilled, 300);
    assert_eq!(asked.level(), 900);
    // One that does not know since when pays all.
    assert_eq!(asked.grant(wanted(0, 100, 3, None)).spilled, 300);
    assert_eq!(asked.level(), 800);
}

#[test]
fn broken_numbers_in_the_store_stop_no_fleet() {
    let mut asked = Asked::new();
    let key = "farcall:{0000000000000007}:level";
    for field in ["level", "at", "spilled"] {
        for broken in ["nan", "inf", "-inf", "1e300", "-1e300", "", "x"] {
            asked.grant(wanted(1, 0, 0, None));
            let _: () = asked.beneath.hset(key, field, broken).unwrap();
            let grant = asked.grant(wanted(1, 50, 1, Some(0)));
            assert!(grant.units <= 1, "{field} {broken}: {grant:?}");
            let level = asked.level();
            assert!((-3_000..=1_000).contains(&level), "{field} {broken}: {level}");
            let stops = field == "level" && broken.starts_with('-');
            assert!(level >= 0 || stops, "{field} {broken}: {level}");
            let again = asked.grant(wanted(1, 0, 0, None));
            assert!(again.spilled < 1_000_000_000_000_000, "{field} {broken}: {again:?}");
            let _: () = asked.beneath.del(key).unwrap();
        }
    }
}

#[test]
fn what_is_not_ours_under_a_key_of_one_quota_keeps_no_other_from_its_grant() {
    let mut asked = Asked::new();
    let owes = wanted(1, 5, 1, Some(0));
    for name in ["level", "hosts", "told:0000000000000001"] {
        let key = format!("farcall:{{0000000000000007}}:{name}");
        let _: () = asked.beneath.del(&key).unwrap();
        let _: () = asked.beneath.rpush(&key, "of somebody else").unwrap();
        let answers = asked.grants(&[(7, owes), (8, owes)]);
        assert_eq!((answers.grants[0], answers.hosts), (None, Some(1)), "{key}");
        assert_eq!(answers.grants[1].map(|grant| grant.units), Some(1), "{key}");
        let _: () = asked.beneath.del(&key).unwrap();
        assert_eq!(asked.grant(wanted(1, 0, 0, None)).units, 1, "{key}");
    }
    let _: () = asked.beneath.del("farcall:hosts").unwrap();
    let _: () = asked.beneath.rpush("farcall:hosts", "of somebody else").unwrap();
    let answers = asked.grants(&[(7, owes), (8, owes)]);
    assert!(answers.hosts.is_none() && answers.grants.iter().all(Option::is_some), "{answers:?}");
    assert!(asked.grants(&[]).hosts.is_none(), "and the connection is as good as ever");
}

#[test]
fn a_host_goes_on_with_its_share_of_a_quota_that_the_store_cannot_grant() {
    let cell = Arc::new(Cell::new());
    let mut process = Process::new(1, FleetCell::Own(Arc::clone(&cell) as CellHome), &Arc::default());
    let rule = &rules()[1];
    let passes = || {
        let asks =
            (0..1_000).map(|_| cell.before(rule, &mut Claim::new(), &Ask::one(), T0.plus_millis(5_000)));
        asks.filter(|verdict| *verdict == Verdict::Pass).count()
    };
    for asked in 1..=3 {
        let questions = process.asks();
        let answers = Answers { grants: vec![None], hosts: Some(10) };
        process.worker.take(&mut lock(&process.fleet.state.0), &questions, Ok(answers));
        assert_eq!((process.fleet.broken(), process.fleet.failures()), (asked, 0));
    }
    assert!((1..=2).contains(&passes()), "a tenth");
}
