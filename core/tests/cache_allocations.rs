//! A call that no rule of the cache is about allocates nothing for it.
#![allow(clippy::unwrap_used)]

use farcall::cache::{Answer, Kept, Key, Store};
use farcall::{Caller, Config, Engine, Head, Step, Timestamp};
use std::sync::Arc;

/// Keeps nothing.
#[derive(Debug)]
struct Nowhere;

impl Store for Nowhere {
    fn get(&self, _: Key) -> Option<Kept> {
        None
    }

    fn put(&self, _: Key, _: Kept) {}

    fn remove(&self, _: Key) {}

    fn purge(&self, _: &dyn Fn(&Answer) -> bool) -> u64 {
        0
    }
}

#[test]
fn a_call_that_no_rule_is_about_allocates_nothing() {
    let rules = "[[cache]]\nmatch = { vendor = \"stripe\" }\nttl = \"1h\"\n";
    let engine = Engine::new(Config::parse("farcall.toml", rules).unwrap(), Caller::new("x"), 1, 1);
    engine.set_cache_store(Arc::new(Nowhere));
    let now = Timestamp::from_nanos(1_795_255_200_000_000_000);
    let headers = [("authorization", "Bearer a"), ("accept", "*/*")];
    let mut seed = 0;
    let mut call = |url: &str, method: &str| {
        seed += 1;
        let head = Head::new(method, url).headers(&headers).body(Some(0), true).caches(true);
        let mut call = engine.begin(&head, now, seed);
        assert!(matches!(call.step(&engine, now), Step::Send(_)));
        call.answer(&engine, 200, &[("cache-control", "max-age=60")], now);
        assert!(matches!(call.step(&engine, now), Step::Settled));
        call.body(100);
        call.end(&engine, now);
    };
    for (url, method) in
        [("https://api.example.com/v1/models", "GET"), ("https://api.example.com/v1/files", "POST")]
    {
        call(url, method);
        call(url, method);
        let used = allocation_counter::measure(|| (0..100).for_each(|_| call(url, method)));
        assert_eq!(used.count_total, 0, "{method} {url}");
    }
}
