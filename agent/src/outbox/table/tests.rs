use super::deliver::{DUE, PUT_OFF, TIDY, select_due};
use super::standing::STANDING;
use super::*;
use crate::outbox::file::{Open, Place};
use crate::outbox::{fixture, lease};
use rusqlite::{Connection, StatementStatus};
use std::sync::atomic::AtomicBool;

fn open() -> (tempfile::TempDir, Open, i64) {
    let home = tempfile::tempdir().unwrap();
    let open = Place::new(home.path()).open().unwrap();
    let token = lease::take(&open.connection, home.path(), "q", "me").unwrap().unwrap().0.token;
    (home, open, token)
}

fn put(connection: &Connection, key: Option<&str>) -> i64 {
    add(connection, &new(key), Ahead::default()).unwrap()
}

fn new(key: Option<&str>) -> New {
    New {
        clock: Ahead::default(),
        order_key: key.map(str::to_owned),
        put_at: 0,
        next_at: 0,
        expires_at: 100,
        ..fixture::call("k")
    }
}

fn due_ids(connection: &Connection) -> Vec<i64> {
    due(connection, "q", 0, i64::MAX, 9).unwrap().iter().map(|item| item.id).collect()
}

fn delivered() -> Settlement {
    Settlement::Delivered { status: 200, response: Vec::new() }
}

fn dead() -> Settlement {
    Settlement::Dead { counts: true, status: None, error: "x".into() }
}

fn later(at: i64) -> Settlement {
    Settlement::Later { at, now: 0, counts: true, status: Some(503), error: "no".into() }
}

#[test]
fn of_one_key_only_the_oldest_is_due_whatever_becomes_of_it() {
    let (_home, open, token) = open();
    let db = &open.connection;
    let [a1, b1, a2, free, a3, a4] =
        [Some("a"), Some("b"), Some("a"), None, Some("a"), Some("a")].map(|key| put(db, key));
    assert_eq!(due_ids(db), [a1, b1, free]);
    assert!(settle(db, ("q", token), (a1, "k"), &later(50), 0).unwrap());
    assert_eq!(due_ids(db), [b1, free], "a call that waits holds back its key");
    assert!(settle(db, ("q", token), (a1, "k"), &delivered(), 0).unwrap());
    assert_eq!(due_ids(db), [b1, a2, free]);
    assert!(settle(db, ("q", token), (a2, "k"), &dead(), 0).unwrap());
    assert_eq!(due_ids(db), [b1, free, a3], "a dead letter lets the next one go");
    assert!(remove(db, a3).unwrap() && !remove(db, a3).unwrap());
    assert_eq!(due_ids(db), [b1, free, a4]);
    assert!(retry(db, a2, 0).unwrap());
    assert_eq!(due_ids(db), [b1, free, a4], "one of the key at a time");
    assert!(settle(db, ("q", token), (a4, "k"), &delivered(), 0).unwrap());
    assert_eq!(due_ids(db), [b1, a2, free]);
}

#[test]
fn calls_that_are_added_together_have_numbers_that_follow_and_each_its_own_row() {
    let (_home, open, _) = open();
    let db = &open.connection;
    let before = put(db, Some("a"));
    for (many, first) in
        [(2, before + 1), (4, before + 3), (8, before + 7), (16, before + 15), (32, before + 31)]
    {
        assert_eq!([together(many), together(many + 1)], [many; 2]);
        let news: Vec<New> =
            (first..).take(many).map(|id| New { host: id.to_string(), ..new(None) }).collect();
        assert_eq!(add_together(db, &news.iter().collect::<Vec<_>>(), Ahead::default()).unwrap(), first);
    }
    let last = before + 62;
    assert_eq!(put(db, None), last + 1);
    for item in due(db, "q", 0, i64::MAX, 99).unwrap() {
        let own = if (before + 1..=last).contains(&item.id) { item.id.to_string() } else { "h".into() };
        assert_eq!((item.host, item.state, item.blocked), (own, State::Pending, false));
    }
    assert_eq!(due_ids(db).len(), 9);
    assert_eq!(due(db, "q", 0, i64::MAX, 99).unwrap().len(), 64);
    let three = [(); 3].map(|()| new(None));
    let three: Vec<&New> = three.iter().collect();
    assert!(add_together(db, &three, Ahead::default()).is_err(), "no statement takes three");
}

#[test]
fn what_is_reported_under_a_lease_that_passed_on_is_refused() {
    let (home, open, token) = open();
    let db = &open.connection;
    let id = put(db, None);
    lease::release(db, "q", token).unwrap();
    let next = lease::take(db, home.path(), "q", "other").unwrap().unwrap().0.token;
    assert!(!settle(db, ("q", token), (id, "k"), &delivered(), 0).unwrap());
    assert_eq!(get(db, id).unwrap().unwrap().0.state, State::Pending);
    assert!(settle(db, ("q", next), (id, "k"), &delivered(), 0).unwrap());
    assert_eq!(get(db, id).unwrap().unwrap().0.state, State::Delivered);
    assert!(!retry(db, id, 0).unwrap(), "what was delivered is not delivered again");
}

#[test]
fn a_call_that_was_put_off_before_the_clock_was_set_back_is_due() {
    let (_home, open, token) = open();
    let db = &open.connection;
    let id = put(db, None);
    settle(db, ("q", token), (id, "k"), &later(5_000), 0).unwrap();
    assert_eq!(due_ids(db), [0_i64; 0]);
    assert_eq!(next_due(db, "q", 0).unwrap(), Some(5_000));
    assert_eq!(due(db, "q", 0, 4_000, 9).unwrap().len(), 1);
}

#[test]
fn what_is_parked_costs_nothing_when_looking_for_what_is_due_or_may_be_forgotten() {
    let (_home, open, token) = open();
    let db = &open.connection;
    let steps = |parked: usize| {
        for _ in 0..parked {
            let id = put(db, None);
            settle(db, ("q", token), (id, "k"), &later(5_000), 0).unwrap();
        }
        let statements = [select_due(DUE), select_due(PUT_OFF), TIDY.to_owned()];
        let status = |sql: &String| db.prepare_cached(sql).unwrap().reset_status(StatementStatus::VmStep);
        for sql in &statements {
            status(sql);
        }
        assert_eq!(due(db, "q", 10, 9_000, 9).unwrap().len(), 1);
        tidy(db, 9_000, 9_000).unwrap();
        statements.iter().map(status).sum::<i32>()
    };
    put(db, None);
    let few = steps(10);
    assert!(few > 0);
    assert_eq!(steps(1_000), few);
}

#[test]
fn what_was_delivered_costs_nothing_when_counting_what_is_not() {
    let (_home, open, token) = open();
    let db = &open.connection;
    let never = AtomicBool::new(false);
    let [first, second, third] = [(); 3].map(|()| put(db, Some("a")));
    put(db, None);
    assert!(settle(db, ("q", token), (first, "k"), &dead(), 0).unwrap());
    for _ in 0..200 {
        let id = put(db, None);
        settle(db, ("q", token), (id, "k"), &delivered(), 0).unwrap();
    }
    let counted = |stop: &AtomicBool| format!("{:?}", standings(db, "q", stop).unwrap());
    assert!(
        counted(&never).contains("Standing { pending: 3, dead: 1, since: Some(0) }"),
        "{}",
        counted(&never)
    );
    assert!(!counted(&AtomicBool::new(true)).contains("pending"), "stopped before the first row");
    // Of all rows those that are read are the four that are not delivered.
    let steps: i32 = STANDING
        .iter()
        .map(|sql| {
            let mut statement = db.prepare(sql).unwrap();
            let mut rows = statement.query(["q"]).unwrap();
            while rows.next().unwrap().is_some() {}
            drop(rows);
            statement.get_status(StatementStatus::VmStep)
        })
        .sum();
    assert!(steps < 200, "{steps}");
    assert!(settle(db, ("q", token), (second, "k"), &delivered(), 0).unwrap());
    assert!(settle(db, ("q", token), (third, "k"), &delivered(), 0).unwrap());
    assert!(counted(&never).contains("pending: 1, dead: 1"));
}

#[test]
fn dropping_a_call_that_waits_for_its_key_lets_no_second_one_go() {
    let (_home, open, token) = open();
    let db = &open.connection;
    let gave_up = dead();
    let [dead, under_way, waits] = [(); 3].map(|()| put(db, Some("a")));
    assert!(settle(db, ("q", token), (dead, "k"), &gave_up, 0).unwrap());
    assert!(retry(db, dead, 0).unwrap());
    assert_eq!(due_ids(db), [under_way]);
    assert!(remove(db, waits).unwrap());
    assert_eq!(due_ids(db), [under_way], "one of the key at a time");
    assert!(remove(db, under_way).unwrap());
    assert_eq!(due_ids(db), [dead]);
}

#[test]
fn a_call_that_never_grows_too_old_can_be_retried() {
    let (_home, open, token) = open();
    let db = &open.connection;
    let id = put(db, None);
    db.execute("UPDATE item SET put_at = 5, expires_at = ?1", [i64::MAX]).unwrap();
    settle(db, ("q", token), (id, "k"), &dead(), 0).unwrap();
    assert!(retry(db, id, 1_000).unwrap());
    assert_eq!(get(db, id).unwrap().unwrap().0.expires_at, i64::MAX);
}

#[test]
fn a_row_that_a_failing_disk_has_changed_holds_up_no_other() {
    let (_home, open, token) = open();
    let db = &open.connection;
    let [free, first, second, third] = [None, Some("a"), Some("a"), Some("a")].map(|key| put(db, key));
    let text = "CAST(x'ff41' AS TEXT)";
    db.execute_batch(&format!(
        "UPDATE item SET method = {text}, vendor = {text}, customer = {text}, idempotency_key = {text},
            attempts = -5, max_attempts = 1 << 40, status = 1 << 40, bytes = 1 << 62 WHERE id <> {third};
        UPDATE item SET order_key = {text} WHERE order_key IS NOT NULL"
    ))
    .unwrap();
    let there = due(db, "q", 0, i64::MAX, 9).unwrap();
    assert_eq!(there.iter().map(|item| item.id).collect::<Vec<_>>(), [free, first]);
    for item in &there {
        let dead = dead();
        assert!(settle(db, ("q", token), (item.id, &item.idempotency_key), &dead, 0).unwrap());
    }
    assert_eq!(due_ids(db), [second]);
    assert!(remove(db, second).unwrap());
    assert_eq!(due_ids(db), [third]);
    assert_eq!(list(db, &Filter::default()).unwrap().len(), 3);
    assert_eq!(counts(db).unwrap().iter().map(|count| count.calls).sum::<u64>(), 3);
    assert!(get(db, free).unwrap().is_some());
}

#[test]
fn what_came_of_a_call_is_not_written_to_another_that_has_its_number() {
    let (_home, open, token) = open();
    let db = &open.connection;
    let id = put(db, None);
    // As in a file that was copied back while the other call was on its way.
    settle(db, ("q", token), (id, "another"), &delivered(), 0).unwrap();
    assert_eq!(due_ids(db), [id]);
    settle(db, ("q", token), (id, "k"), &delivered(), 0).unwrap();
    assert!(due_ids(db).is_empty());
}
