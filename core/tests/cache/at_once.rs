//! A call that is begun and asked about in one comes out as one that is so step by step.

use crate::support::{Ask, Came, DATE, Pairs, World, at, ok, say};
use farcall::matcher::Matcher;
use proptest::prelude::*;

/// What else there is beside the rule of the cache: it has a word to say before it, or counts with it.
const BESIDE: &[&str] = &[
    "",
    "[[policy]]\nmatch = { customer = \"globex\" }\nverdict = \"deny\"\n",
    "[[policy]]\nmatch = { customer = \"acme\" }\nverdict = \"warn\"\n",
    "[[policy]]\nmode = \"report\"\nmatch = { customer = \"acme\" }\nverdict = \"deny\"\n",
    // No call has a tag: what it asks cannot be told, which is counted each time.
    #[cfg(feature = "cel")]
    "[[policy]]\nmatch = {}\nwhen = \"tags.team == 'x'\"\nverdict = \"deny\"\n",
    "[[rollout]]\nname = \"new\"\nby = \"call\"\nmatch = {}\nshare = \"40%\"\nvariant = { headers = { \"api-version\" = \"2\" } }\n",
    "[[fault]]\nmatch = {}\nshare = \"30%\"\nerror = \"connect\"\nexpires = \"2099-01-01T00:00:00Z\"\n",
    "[[budget]]\nmatch = { customer = \"*\" }\nlimit = \"6 requests / day\"\nover = \"refuse\"\n",
    "[[quota]]\nmatch = { customer = \"*\" }\nlimit = \"5 requests / 1h\"\nmax_wait = \"0s\"\n",
    "[[price]]\nvendor = \"example.com\"\ncall = \"0.01 USD / call\"\n",
    "[[resilience]]\nmatch = {}\nbreaker = { consecutive = 2, failure_rate = \"50%\", window = 10 }\n",
    "[[resilience]]\nmatch = {}\ndeadline = \"2s\"\n",
    "[[cache]]\nname = \"asked\"\nmatch = { method = \"POST\" }\nmethods = [\"GET\", \"POST\"]\nshare = [\"credentials\"]\n",
];
const KEYS: [&str; 4] = [
    "",
    "ttl = \"20s\"",
    "stale_while_revalidate = \"10s\"\nstale_if_error = \"1h\"",
    "share = [\"customers\"]",
];
const URLS: [&str; 3] = [
    "https://api.example.com/v1/rates?base=EUR",
    "https://API.example.com/v1/rates?base=EUR",
    "https://api.example.com/v1/rates",
];
const HEADERS: [Pairs<'_>; 8] = [
    &[],
    &[("authorization", "Bearer a"), ("accept", "*/*")],
    &[("accept", "*/*"), ("Authorization", "Bearer a")],
    &[("authorization", "Bearer b"), ("x-team", "core"), ("accept", "text/plain")],
    &[("x-team", "core"), ("authorization", "Bearer b"), ("accept", "text/plain")],
    &[("cache-control", "no-cache")],
    &[("cache-control", "max-stale=60, only-if-cached")],
    &[("range", "bytes=0-9"), ("x-stainless-retry-count", "1"), ("user-agent", "OpenAI/Python 2.1.0")],
];
const CUSTOMERS: [Option<&str>; 3] = [None, Some("acme"), Some("globex")];
const METHODS: [&str; 5] = ["GET", "GET", "GET", "POST", "DELETE"];
const ANSWERS: [(u16, Pairs<'_>); 6] = [
    (200, &[DATE, ("cache-control", "max-age=30")]),
    (200, &[DATE, ("cache-control", "max-age=5"), ("vary", "accept"), ("etag", "\"1\"")]),
    (200, &[("cache-control", "no-store")]),
    (404, &[DATE, ("cache-control", "max-age=10")]),
    (503, &[]),
    (304, &[DATE, ("etag", "\"1\"")]),
];

proptest! {
    #[test]
    fn a_call_opened_in_one_comes_out_and_is_counted_as_step_by_step(
        beside in 0..BESIDE.len(),
        keys in 0..KEYS.len(),
        calls in proptest::collection::vec(
            (0..URLS.len(), 0..HEADERS.len(), 0..CUSTOMERS.len(), 0..METHODS.len(), 0..ANSWERS.len(), 0..12_u32, 0..8_u32),
            1..60,
        ),
    ) {
        let rules = format!("allow_faults = true\n{}\n[[cache]]\nname = \"all\"\nmatch = {{}}\n{}\n", BESIDE[beside], KEYS[keys]);
        let (mut stepped, mut opened) = (World::of(&rules), World::of(&rules));
        let mut now = 1.0;
        for (url, headers, customer, method, answer, passed, more) in calls {
            now += f64::from(passed) / 2.0;
            let mut ask = Ask::get(HEADERS[headers]).url(URLS[url]).method(METHODS[method]);
            ask.customer = CUSTOMERS[customer];
            match more {
                0 => ask = ask.client_key(b"one"),
                1 => ask.deadline = Some(now - 1.0),
                2 => ask = ask.client(3),
                3 => {
                    let all = Matcher::new([("method", "GET")]).unwrap();
                    prop_assert_eq!(
                        stepped.engine.purge_cache(&all, at(now)),
                        opened.engine.purge_cache(&all, at(now))
                    );
                }
                _ => {}
            }
            let (status, lines) = ANSWERS[answer];
            let answer = say(status, lines, "body");
            prop_assert_eq!(stepped.call(ask, answer, now), opened.open(ask, answer, now));
        }
        let (stepped_counters, opened_counters) = (stepped.engine.counters(), opened.engine.counters());
        let (stepped, opened) = (stepped.drain(), opened.drain());
        prop_assert_eq!(format!("{:?}", stepped.rows), format!("{:?}", opened.rows));
        prop_assert_eq!(format!("{:?}", stepped.exemplars), format!("{:?}", opened.exemplars));
        prop_assert_eq!(stepped.budgets, opened.budgets);
        prop_assert_eq!(stepped_counters, opened_counters);
    }
}

#[test]
fn what_is_at_hand_answers_at_once_and_leaves_no_call_behind() {
    let mut world = World::with("");
    let fresh = ok(&[DATE, ("cache-control", "max-age=60")]);
    assert_eq!(world.open(Ask::get(&[]), fresh, 0.0), Came::Sent { status: 200, condition: vec![] });
    assert_eq!(world.open(Ask::get(&[]), fresh, 1.0).why(), "farcall; hit; ttl=59");
    let rows = world.drain().rows;
    let hit = rows.iter().find(|row| row.outcome.as_str() == "cached").unwrap();
    assert_eq!((hit.sums.calls, hit.sums.attempts, hit.sums.saved_requests), (1, 0, 1));
    assert_eq!(hit.sums.saved_bytes, 5);
}
