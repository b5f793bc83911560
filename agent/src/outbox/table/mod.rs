//! What is asked of the tables.
//!
//! Of the pending calls of one order key all but one are `blocked`: whoever settles or drops a call unblocks the
//! oldest that is left, in the same transaction. So a delivery finds what is due without looking at the rest.

mod deliver;
mod operate;
mod put;
mod read;
mod standing;

pub(super) use deliver::{due, has_pending, next_due, request, settle, tidy, unblock_behind};
pub(super) use operate::{counts, get, lines_of_callbacks, list, newest_sealed, remove, retry, sealed};
pub(super) use put::{MOST_TOGETHER, add, add_together, together};
pub(super) use read::{bytes, maybe_number, maybe_text, number, text};
pub(super) use standing::standings;

use super::clock::Ahead;
use super::queue;
use crate::report::time::rfc3339;
use read::unsigned;
use serde::{Serialize, Serializer};

/// Where a call stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum State {
    /// It will be delivered.
    Pending,
    /// The vendor took it.
    Delivered,
    /// It was given up: a dead letter.
    Dead,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Pending, Self::Delivered, Self::Dead];

    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Delivered => "delivered",
            Self::Dead => "dead",
        }
    }

    pub(super) const fn number(self) -> i64 {
        match self {
            Self::Pending => 0,
            Self::Delivered => 1,
            Self::Dead => 2,
        }
    }

    pub(super) const fn of(number: i64) -> Self {
        match number {
            0 => Self::Pending,
            1 => Self::Delivered,
            _ => Self::Dead,
        }
    }
}

/// A call in the outbox, without what it carries. Moments are nanoseconds since the Unix epoch; in JSON, RFC 3339.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Item {
    /// Its number in this outbox; later calls have higher ones.
    pub id: i64,
    /// The service whose processes deliver it.
    pub service: String,
    /// The callback that has its credential, where one has: processes that know it deliver the call.
    pub credential: Option<String>,
    /// Where it stands.
    pub state: State,
    /// The request method.
    pub method: String,
    /// The vendor's name.
    pub vendor: String,
    /// Method and URL template, where the catalogue knows it; else empty.
    pub endpoint: String,
    /// The host.
    pub host: String,
    /// On whose behalf it is made, where somebody said so.
    pub customer: Option<String>,
    /// What orders it among others, where somebody said so.
    pub order_key: Option<String>,
    /// Whether an earlier call of its key has to be delivered first.
    pub blocked: bool,
    /// Its idempotency key.
    pub idempotency_key: String,
    /// How often delivery was tried.
    pub attempts: u32,
    /// When it was put.
    #[serde(serialize_with = "moment")]
    pub put_at: i64,
    /// When delivery is tried next, where it is pending.
    #[serde(serialize_with = "moment")]
    pub next_at: i64,
    /// When it becomes a dead letter.
    #[serde(serialize_with = "moment")]
    pub expires_at: i64,
    /// When it was delivered or given up.
    #[serde(serialize_with = "maybe_moment")]
    pub settled_at: Option<i64>,
    /// The status of the last answer.
    pub status: Option<u16>,
    /// Why the last attempt came to nothing.
    pub error: Option<String>,
    /// How many bytes its body has.
    pub bytes: u64,
    #[serde(skip)]
    pub(super) max_attempts: Option<u32>,
}

impl Item {
    /// The queue that it is in.
    pub(super) fn queue(&self) -> String {
        queue::name(&self.service, self.credential.as_deref())
    }

    /// Has the moments that follow the clock shown by another one.
    pub(super) fn show(&mut self, by: &dyn Fn(i64) -> i64) {
        for moment in [&mut self.put_at, &mut self.next_at, &mut self.expires_at] {
            *moment = by(*moment);
        }
        self.settled_at = self.settled_at.map(by);
    }
}

pub(super) fn moment<S: Serializer>(nanos: &i64, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&rfc3339(unsigned(*nanos)))
}

fn maybe_moment<S: Serializer>(nanos: &Option<i64>, to: S) -> Result<S::Ok, S::Error> {
    match nanos {
        Some(nanos) => moment(nanos, to),
        None => to.serialize_none(),
    }
}

const COLUMNS: &str = "id, queue, state, method, vendor, endpoint, host, customer, order_key, blocked, \
    idempotency_key, attempts, put_at, next_at, expires_at, settled_at, status, error, bytes, max_attempts";

/// A call to be added.
pub(super) struct New {
    /// By which its moments are.
    pub(super) clock: Ahead,
    pub(super) queue: String,
    pub(super) order_key: Option<String>,
    pub(super) put_at: i64,
    pub(super) next_at: i64,
    pub(super) expires_at: i64,
    pub(super) max_attempts: Option<u32>,
    pub(super) method: String,
    pub(super) vendor: String,
    pub(super) endpoint: String,
    pub(super) host: String,
    pub(super) customer: Option<String>,
    pub(super) idempotency_key: String,
    pub(super) bytes: usize,
    pub(super) request: Vec<u8>,
}

/// How an attempt came out.
pub(super) enum Settlement {
    Delivered {
        status: u16,
        response: Vec<u8>,
    },
    /// To be tried again at a moment; `counts` where it was an attempt at all, here and below.
    Later {
        at: i64,
        /// When that was said.
        now: i64,
        counts: bool,
        status: Option<u16>,
        error: String,
    },
    Dead {
        counts: bool,
        status: Option<u16>,
        error: String,
    },
}

/// Which calls to list.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Filter {
    /// Only those that stand so.
    pub state: Option<State>,
    /// Only those of this service.
    pub service: Option<String>,
    /// Only those to this vendor.
    pub vendor: Option<String>,
    /// At most so many; 0 for all.
    pub limit: usize,
}

/// The pending calls of a queue.
pub(super) struct Line {
    pub(super) queue: String,
    pub(super) calls: u64,
    /// When the first of those is due that may be delivered.
    pub(super) due: Option<i64>,
    /// When the oldest was put.
    pub(super) oldest: i64,
}

/// A call and what is sealed of it: its request, and its response where there is one.
pub(super) type Whole = (Item, Vec<u8>, Option<Vec<u8>>);

/// The outbox in numbers, for one service and state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Count {
    /// The service.
    pub service: String,
    /// Where these calls stand.
    pub state: State,
    /// How many there are.
    pub calls: u64,
    /// How many bytes their bodies have.
    pub bytes: u64,
    /// When the oldest was put, in nanoseconds since the Unix epoch.
    #[serde(serialize_with = "moment")]
    pub oldest: i64,
}

impl Count {
    /// Adds those of a queue, whose name stands for the service, to the others of its service.
    pub(super) fn add_to(mut self, counts: &mut Vec<Self>) {
        let (service, credential) = queue::parts(&self.service);
        // A service alone comes once for each state.
        if credential.is_some() {
            self.service = service.to_owned();
            self.merge_into(counts);
        } else {
            counts.push(self);
        }
    }

    pub(super) fn merge_into(self, counts: &mut Vec<Self>) {
        let same = |known: &&mut Self| (&known.service, known.state) == (&self.service, self.state);
        match counts.iter_mut().find(same) {
            Some(known) => {
                known.calls += self.calls;
                known.bytes += self.bytes;
                known.oldest = known.oldest.min(self.oldest);
            }
            None => counts.push(self),
        }
    }
}

#[cfg(test)]
mod tests {
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
}
