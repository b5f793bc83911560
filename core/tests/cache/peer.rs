//! The cache beside http-cache-semantics: whether a second, equal request is answered from the cache, of random headers.
//! Where the two differ, a section of RFC 9111 (or what docs/cache.md says of ours) tells who is right.

use crate::support::{Ask, START, World, date, say};
use http_cache_semantics::{CacheOptions, CachePolicy};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Both requests, the answer, and when the second request is made.
#[derive(Clone, Debug)]
struct Story {
    asked: Vec<(&'static str, String)>,
    status: u16,
    said: Vec<(&'static str, String)>,
    after: u64,
}

impl Story {
    fn has(&self, name: &str, what: &str) -> bool {
        self.said.iter().any(|(known, value)| *known == name && value.contains(what))
    }

    fn asks(&self, name: &str, what: &str) -> bool {
        self.asked.iter().any(|(known, value)| *known == name && value.contains(what))
    }

    /// The second request is made half a second after `after`, so that nothing hangs on how seconds are rounded.
    fn seconds(&self) -> f64 {
        self.after as f64 + 0.5
    }

    fn ours(&self) -> bool {
        let mut world = World::with("");
        let asked: Vec<_> = self.asked.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let said: Vec<_> = self.said.iter().map(|(name, value)| (*name, value.as_str())).collect();
        world.call(Ask::get(&asked), say(self.status, &said, "first"), 0.0);
        world.call(Ask::get(&asked), say(200, &[], "second"), self.seconds()).is_hit()
    }

    /// Of the peer, with the request.
    fn policy(&self) -> (http::Request<()>, CachePolicy) {
        let mut request = http::Request::get("https://api.example.com/v1/rates?base=EUR");
        for (name, value) in &self.asked {
            request = request.header(*name, value);
        }
        let mut answer = http::Response::builder().status(self.status);
        for (name, value) in &self.said {
            answer = answer.header(*name, value);
        }
        let (request, answer) = (request.body(()).unwrap(), answer.body(()).unwrap());
        let options = CacheOptions { shared: false, ..CacheOptions::default() };
        let policy = CachePolicy::new_options(&request, &answer, begun(), options);
        (request, policy)
    }

    fn peers(&self) -> bool {
        let (request, policy) = self.policy();
        let now = begun() + Duration::from_secs_f64(self.seconds());
        policy.is_storable() && policy.before_request(&request, now).satisfies_without_revalidation()
    }

    /// Why ours is the one that hits, where only ours does.
    fn hits_by(&self) -> Option<&'static str> {
        let explicit = self.has("cache-control", "max-age") || self.has("expires", "GMT");
        // The peer knows a list of statuses; explicit freshness is for every final one.
        let unlisted = !matches!(
            self.status,
            200 | 203 | 204 | 300 | 301 | 302 | 303 | 307 | 308 | 404 | 405 | 410 | 414 | 501
        );
        if unlisted && (explicit || self.has("cache-control", "public")) {
            return Some("3: any final status with explicit freshness");
        }
        // The peer takes it whether Cache-Control is there or not.
        if self.asks("pragma", "no-cache") && self.asked.iter().any(|(name, _)| *name == "cache-control") {
            return Some("5.4: Cache-Control goes before Pragma");
        }
        None
    }

    /// Why ours is the one that does not, where only the peer's does.
    fn misses_by(&self) -> Option<&'static str> {
        // The peer takes it for a lifetime of nothing, and max-stale is content with that.
        if self.has("cache-control", "no-cache") && self.asks("cache-control", "max-stale") {
            return Some("5.2.2.4: not without asking, whatever the request is content with");
        }
        if self.asks("cache-control", "max-stale") && self.policy().1.is_stale(begun()) {
            return Some("3: what never was fresh is kept to be asked about alone (docs/cache.md)");
        }
        if self.has("date", "GMT") && !self.has("date", &date(0)) {
            return Some("4.2.3: the apparent age counts, too");
        }
        if self.has("last-modified", "GMT") && !self.has("cache-control", "max-age") && self.after >= 86_400 {
            return Some("4.2.2: what is guessed is at most a day (docs/cache.md)");
        }
        if self.has("cache-control", "immutable") && !self.has("cache-control", "max-age") {
            return Some("RFC 8246 2: immutable says nothing of how long");
        }
        None
    }
}

/// When the first request was answered.
fn begun() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(START)
}

fn directives(all: &'static [&'static str], most: usize) -> impl Strategy<Value = Option<String>> {
    subsequence(all, 0..=most).prop_map(|chosen| (!chosen.is_empty()).then(|| chosen.join(", ")))
}

/// Of each directive that has a number there is one at most: what two say is each cache's own to read.
fn numbered(name: &'static str) -> impl Strategy<Value = Option<String>> {
    prop_oneof![
        2 => Just(None),
        3 => select(&[0u64, 5, 60, 3_600, 100_000][..]).prop_map(move |number| Some(format!("{name}={number}"))),
    ]
}

fn together(parts: Vec<Option<String>>) -> Option<String> {
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

fn maybe(value: impl Strategy<Value = String>) -> impl Strategy<Value = Option<String>> {
    prop_oneof![2 => Just(None), 1 => value.prop_map(Some)]
}

prop_compose! {
    fn story()(
        status in prop_oneof![6 => Just(200u16), 4 => select(&[203u16, 204, 301, 302, 307, 308, 404, 410, 414, 418, 429, 500, 501, 503][..])],
        words in directives(&["public", "private", "no-store", "no-cache", "must-revalidate", "immutable", "no-transform"], 2),
        max_age in numbered("max-age"),
        s_maxage in numbered("s-maxage"),
        expires in maybe(prop_oneof![select(&[-60i64, 5, 60, 3_600][..]).prop_map(date), Just("0".to_owned())]),
        dated in prop_oneof![3 => Just(Some(date(0))), 1 => Just(None), 1 => select(&[-10i64, -500][..]).prop_map(|by| Some(date(by)))],
        modified in maybe(select(&[-50i64, -86_400, -8_640_000][..]).prop_map(date)),
        age in maybe(select(&[1u64, 30, 4_000][..]).prop_map(|age| age.to_string())),
        etag in maybe(Just("\"a\"".to_owned())),
        vary in maybe(select(&["accept", "*", "x-none, accept"][..]).prop_map(str::to_owned)),
        asked_words in directives(&["no-cache", "no-store", "max-stale"], 1),
        asked_age in numbered("max-age"),
        min_fresh in maybe(select(&["min-fresh=3", "min-fresh=100"][..]).prop_map(str::to_owned)),
        pragma in prop_oneof![6 => Just(None), 1 => Just(Some("no-cache".to_owned()))],
        after in select(&[0u64, 3, 40, 600, 5_000, 90_000][..]),
    ) -> Story {
        let filled = |all: Vec<(&'static str, Option<String>)>| {
            all.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
        };
        Story {
            asked: filled(vec![
                ("accept", Some("application/json".to_owned())),
                ("cache-control", together(vec![asked_words, asked_age.filter(|_| after % 2 == 0), min_fresh])),
                ("pragma", pragma),
            ]),
            status,
            said: filled(vec![
                ("cache-control", together(vec![words, max_age, s_maxage])),
                ("expires", expires),
                ("date", dated),
                ("last-modified", modified),
                ("age", age),
                ("etag", etag),
                ("vary", vary),
            ]),
            after,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn a_second_request_is_answered_as_http_cache_semantics_says_or_a_section_says_why_not(story in story()) {
        let (ours, peers) = (story.ours(), story.peers());
        if ours != peers {
            let why = if ours { story.hits_by() } else { story.misses_by() };
            prop_assert!(why.is_some(), "ours {ours}, http-cache-semantics {peers}: {story:?}");
        }
    }
}
