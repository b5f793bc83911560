//! Calls that the engine is told of when they are over: the account is that of calls that it saw as they happened.
#![allow(clippy::unwrap_used)]

use farcall::ledger::Batch;
use farcall::{Call, Caller, Config, ConnectTimes, Engine, ErrorType, Head, Step, Timestamp};
use proptest::prelude::*;
use std::collections::HashMap;
use std::time::Duration;

const T0: Timestamp = Timestamp::from_nanos(1_763_700_000_000_000_000);

fn engine(text: &str) -> Engine {
    let config = Config::parse("farcall.toml", text).unwrap_or_else(|errors| panic!("{errors:?}"));
    Engine::new(config, Caller::new("checkout"), 1, 42)
}

/// What happens to one call, in milliseconds after the first one began.
#[derive(Clone, Debug)]
struct Story {
    method: &'static str,
    url: String,
    customer: Option<&'static str>,
    tags: Vec<(&'static str, &'static str)>,
    begun: u64,
    answered: u64,
    ended: u64,
    status: u16,
    sent: u64,
    received: u64,
    dialled: bool,
    how: usize,
}

impl Story {
    fn head(&self) -> Head<'_> {
        Head::new(self.method, &self.url).customer(self.customer).tags(&self.tags)
    }

    /// All of it but the beginning and the end.
    fn happen(&self, call: &mut Call) {
        if self.dialled {
            call.connected(ConnectTimes { dns: Some(Duration::from_millis(3)), ..ConnectTimes::default() });
        }
        call.sent(self.sent);
        if self.status != 0 {
            assert!(!call.wants_headers(self.status));
            call.head(self.status, T0.plus_millis(self.answered));
            call.body(self.received);
        }
    }

    fn end(&self, call: &mut Call, engine: &Engine) {
        let ended = T0.plus_millis(self.ended);
        match self.how {
            0 => call.abandon(engine, ended),
            1 => {
                call.failed(ErrorType::Reset);
                call.end(engine, ended);
            }
            _ => call.end(engine, ended),
        }
    }
}

fn story() -> impl Strategy<Value = Story> {
    let whom = (
        prop::sample::select(vec!["GET", "POST"]),
        prop::sample::select(vec![
            "api.stripe.com",
            "Hooks.Slack.com",
            "10.0.0.7:8080",
            "one.example",
            "two.example",
        ]),
        0_u64..40,
        prop::sample::select(vec![None, Some("acme"), Some("globex"), Some("other")]),
        prop::bool::ANY,
    );
    let course =
        (0_u64..130_000, 0_u64..500, 0_u64..500, prop::sample::select(vec![0_u16, 200, 204, 404, 500]));
    let sizes = (0_u64..5_000, 0_u64..5_000, prop::bool::ANY, 0_usize..8);
    (whom, course, sizes).prop_map(|(whom, course, sizes)| {
        let ((method, host, id, customer, tagged), (begun, until, lasts, status)) = (whom, course);
        let (sent, received, dialled, how) = sizes;
        Story {
            method,
            url: format!("https://{host}/v1/things/{id}"),
            customer,
            tags: if tagged { vec![("region", "eu")] } else { Vec::new() },
            begun,
            answered: begun + until,
            ended: begun + until + lasts,
            status,
            sent,
            received,
            dialled,
            how,
        }
    })
}

/// In no order of its own where it has none.
fn sorted(mut batch: Batch) -> String {
    batch.rows.sort_by_key(|row| format!("{row:?}"));
    batch.exemplars.sort_by_key(|exemplar| format!("{exemplar:?}"));
    batch.advice.sort_by_key(|observed| format!("{observed:?}"));
    batch.sightings.sort_by_key(|sighting| format!("{sighting:?}"));
    format!("{batch:#?}")
}

proptest! {
    #[test]
    fn the_account_is_that_of_calls_that_were_seen_as_they_happened(stories in prop::collection::vec(story(), 1..60)) {
        let (live, told) = (engine(""), engine(""));
        live.record_sightings(true);
        told.record_sightings(true);
        let mut stories = stories;
        // In the order in which they are over.
        stories.sort_by_key(|story| story.ended);
        let begins = stories.iter().enumerate().map(|(n, story)| (story.begun, n, false));
        let mut moments: Vec<_> =
            begins.chain(stories.iter().enumerate().map(|(n, story)| (story.ended, n, true))).collect();
        moments.sort_by_key(|(at, n, ends)| (*at, *ends, *n));
        let mut under_way = HashMap::new();
        for (at, n, ends) in moments {
            if !ends {
                let mut call = live.begin(&stories[n].head(), T0.plus_millis(at), n as u64 + 1);
                prop_assert!(matches!(call.step(&live, T0.plus_millis(at)), Step::Send(_)));
                under_way.insert(n, call);
            } else if let Some(mut call) = under_way.remove(&n) {
                stories[n].happen(&mut call);
                stories[n].end(&mut call, &live);
            }
        }
        for (n, story) in stories.iter().enumerate() {
            let mut call = told.went_out(&story.head(), T0.plus_millis(story.begun), n as u64 + 1);
            story.happen(&mut call);
            story.end(&mut call, &told);
        }
        let later = T0.plus_millis(140_000);
        prop_assert_eq!(sorted(live.drain(later)), sorted(told.drain(later)));
        prop_assert_eq!(live.counters(), told.counters());
    }
}

#[test]
fn a_call_counts_in_the_minute_in_which_it_ended_however_late_it_is_told_of() {
    let engine = engine("");
    let head = Head::new("GET", "https://one.example/");
    let minute = 60_000_000_000;
    let ended = Timestamp::from_nanos((T0.as_nanos() / minute + 1) * minute - 1);
    for ended in [ended, ended.plus_millis(1), ended] {
        let mut call = engine.went_out(&head, T0, 7);
        call.head(200, T0);
        call.end(&engine, ended);
    }
    let rows = engine.drain(ended.plus_millis(900)).rows;
    let calls =
        |minute| rows.iter().filter(|row| row.minute == minute).map(|row| row.sums.calls).sum::<u64>();
    assert_eq!((calls(ended.minute()), calls(ended.minute() + 1)), (2, 1));
}

#[test]
fn rules_that_came_into_force_since_are_not_about_it() {
    let engine = engine("");
    assert!(engine.only_counts("one.example"));
    let attention = engine.attention();
    let rules = "[[policy]]\nmatch = { vendor = \"one.example\" }\nverdict = \"deny\"\n\
                 [[price]]\nvendor = \"one.example\"\ncall = \"1 USD / call\"\n\
                 [[budget]]\nname = \"little\"\nmatch = {}\nlimit = \"1 requests / day\"\nover = \"refuse\"\n";
    engine.reload(&Config::parse("farcall.toml", rules).unwrap());
    assert!(!engine.only_counts("one.example"));
    assert_ne!(engine.attention(), attention);
    let mut call = engine.went_out(&Head::new("GET", "https://one.example/"), T0, 7);
    call.head(200, T0);
    call.end(&engine, T0);
    let batch = engine.drain(T0);
    assert_eq!(
        (batch.rows[0].sums.calls, batch.rows[0].sums.cost, batch.rows[0].sums.cost_unknown),
        (1, 0, 1)
    );
    assert!(batch.budgets.is_empty());
    assert_eq!(engine.counters().overlooked_calls, 0);
}

#[test]
fn calls_that_are_more_than_counted_are_to_begin_when_they_do() {
    let engine = engine("[[price]]\nvendor = \"unlisted.example\"\ncall = \"1 USD / 1k calls\"\n");
    for host in ["api.openai.com", "api.github.com", "api.unlisted.example"] {
        assert!(!engine.only_counts(host), "{host}");
    }
    // Also where the catalogue's word did not hold so far: each of its answers is looked at.
    for _ in 0..40 {
        let mut call = engine.begin(&Head::new("GET", "https://api.github.com/user"), T0, 7);
        assert!(matches!(call.step(&engine, T0), Step::Send(_)));
        call.answer(&engine, 200, &http::HeaderMap::new(), T0);
        call.end(&engine, T0);
    }
    assert!(!engine.only_counts("api.github.com"));
    for host in ["api.stripe.com", "one.example", "127.0.0.1"] {
        assert!(engine.only_counts(host), "{host}");
    }
    // Who refuses one call is looked at from there on.
    let attention = engine.attention();
    let mut call = engine.went_out(&Head::new("GET", "https://api.stripe.com/v1/balance"), T0, 7);
    assert!(call.wants_headers(429));
    call.answer(&engine, 429, &http::HeaderMap::new(), T0);
    call.end(&engine, T0);
    assert!(!engine.only_counts("api.stripe.com") && engine.only_counts("one.example"));
    assert_ne!(engine.attention(), attention);
}
