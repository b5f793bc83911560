//! Calls of which an adapter tells when they are over, where nobody has a say in them while they are under way: the
//! account is the same, and is made when it suits.

use super::{Call, Engine};
use crate::call::{ConnectTimes, ErrorType, Head, Target};
use crate::ledger::Text;
use crate::units::Timestamp;

/// Whose calls those to a host are, as far as [`Engine::only_counts`] asks. Of use to the engine that it is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Whose(u32);

/// What came of a call that is over.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Past {
    /// When it began.
    pub begun: Timestamp,
    /// When it was over.
    pub ended: Timestamp,
    /// The status of its response and when the head of that arrived; `None` where none did.
    pub head: Option<(u16, Timestamp)>,
    /// How long making a connection took.
    pub times: ConnectTimes,
    /// Bytes of the request's body that went out.
    pub sent: u64,
    /// Bytes of the response's body that arrived.
    pub received: u64,
    /// What it failed with; `None` where it did not.
    pub error: Option<ErrorType>,
    /// Whether the application let go of the response before its end.
    pub abandoned: bool,
}

impl Past {
    /// That of a call of which nothing is known yet but when it began.
    #[must_use]
    pub const fn new(begun: Timestamp) -> Self {
        Self {
            begun,
            ended: begun,
            head: None,
            times: ConnectTimes { dns: None, connect: None, tls: None },
            sent: 0,
            received: 0,
            error: None,
            abandoned: false,
        }
    }
}

/// Whether the headers of an answer with this status matter, whoever it is from: a refusal may state a quota.
pub(super) const fn speaks(status: u16) -> bool {
    status == 429
}

impl Engine {
    /// Whose calls those to this host are.
    #[must_use]
    pub fn whose(&self, host: &str) -> Whose {
        let host = Text::<256>::lower(Target::new(false, host, 0, "/").host);
        Whose(self.catalogue.find(host.as_str()).map_or(u32::MAX, |vendor| vendor.0))
    }

    /// Whether calls of this kind that begin now are only counted: no rule decides, their vendor states no quotas, and
    /// nothing is known of what they cost. Then they may be told with [`account_for`](Engine::account_for), but for
    /// those that are answered with a status whose headers [matter](Engine::reads_answer).
    #[must_use]
    pub fn only_counts(&self, whose: Whose) -> bool {
        !self.decides() && self.attended.is_nobody(whose.0)
    }

    /// Whether the headers of an answer with this status matter even where calls are only counted.
    #[must_use]
    pub const fn reads_answer(status: u16) -> bool {
        speaks(status)
    }

    /// Counts a call that is over, and was [only counted](Engine::only_counts) when it began; rules that came into force
    /// since are not about it. `seed` is as of [`begin`](Engine::begin).
    pub fn account_for(&self, head: &Head<'_>, past: &Past, seed: u64) {
        let mut call = self.take_over(head, past, seed);
        match past.abandoned {
            true => call.abandon(self, past.ended),
            false => call.end(self, past.ended),
        }
    }

    /// A call that was [only counted](Engine::only_counts) when it began, and is told as it goes from now on.
    pub fn take_over(&self, head: &Head<'_>, past: &Past, seed: u64) -> Call {
        let head = Head { under_way: true, ..*head };
        let mut call = self.begin(&head, past.begun, seed);
        call.send_regardless(self, past.begun);
        call.connected(past.times);
        call.sent(past.sent);
        if let Some((status, at)) = past.head {
            call.head(status, at);
        }
        call.body(past.received);
        if let Some(error) = past.error {
            call.failed(error);
        }
        call
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Batch;
    use crate::{Caller, Config};
    use proptest::prelude::*;

    const T0: Timestamp = Timestamp::from_nanos(1_790_000_000_000_000_000);

    fn engine(config: &str) -> Engine {
        let (config, errors) = Config::read("farcall.toml", config);
        assert!(errors.is_empty(), "{errors:?}");
        Engine::new(config, Caller::new("test"), 1, 5)
    }

    /// The same call, told as it goes.
    fn tell(engine: &Engine, head: &Head<'_>, past: &Past, seed: u64) {
        let mut call = engine.begin(head, past.begun, seed);
        let _ = call.step(engine, past.begun);
        call.connected(past.times);
        call.sent(past.sent);
        if let Some((status, at)) = past.head {
            assert!(!call.wants_headers(status), "{head:?}");
            call.head(status, at);
            assert!(!call.wants_body(), "{head:?}");
        }
        call.body(past.received);
        if let Some(error) = past.error {
            call.failed(error);
        }
        match past.abandoned {
            true => call.abandon(engine, past.ended),
            false => call.end(engine, past.ended),
        }
    }

    fn shown(batch: &Batch) -> String {
        format!("{:?} {:?} {:?} {:?}", batch.rows, batch.exemplars, batch.sightings, batch.advice)
    }

    fn call() -> impl Strategy<Value = (&'static str, &'static str, Option<&'static str>, Past)> {
        let host = prop_oneof![
            Just("API.example.com"),
            Just("files.example.org."),
            Just("[::1]"),
            Just("hooks.slack.com"),
            Just("not a host")
        ];
        let path = prop_oneof![Just("/v1/items"), Just("/v1/items/7?x=1"), Just("/")];
        let customer = prop_oneof![Just(None), Just(Some("acme")), Just(Some("umbra"))];
        let status = prop_oneof![Just(None), Just(Some(200)), Just(Some(204)), Just(Some(503))];
        let error = prop_oneof![Just(None), Just(Some(ErrorType::Reset)), Just(Some(ErrorType::Timeout))];
        let times = prop_oneof![Just(None), (0..9_u64).prop_map(Some)];
        (host, path, customer, status, error, times, any::<bool>(), 0..90_000_u64, 0..9_000_u64).prop_map(
            |(host, path, customer, status, error, times, abandoned, begun, bytes)| {
                let begun = T0.plus_millis(begun);
                let past = Past {
                    ended: begun.plus_millis(bytes),
                    head: status.map(|status| (status, begun.plus_millis(bytes / 2))),
                    times: ConnectTimes {
                        connect: times.map(std::time::Duration::from_millis),
                        ..ConnectTimes::default()
                    },
                    sent: bytes / 3,
                    received: if status.is_some() { bytes } else { 0 },
                    error,
                    abandoned,
                    ..Past::new(begun)
                };
                (host, path, customer, past)
            },
        )
    }

    proptest! {
        #[test]
        fn a_call_that_is_told_when_it_is_over_leaves_the_account_that_it_leaves_as_it_goes(
            calls in proptest::collection::vec(call(), 1..60),
            listens in any::<bool>(),
        ) {
            let (late, live) = (engine(""), engine(""));
            for (seed, (host, path, customer, past)) in calls.iter().enumerate() {
                for engine in [&late, &live] {
                    engine.record_sightings(listens);
                }
                prop_assert!(late.only_counts(late.whose(host)));
                let head = Head::to("GET", Target::new(true, host, 443, path)).customer(*customer);
                late.account_for(&head, past, seed as u64);
                tell(&live, &head, past, seed as u64);
            }
            let now = T0.plus_millis(200_000);
            prop_assert_eq!(shown(&late.drain(now)), shown(&live.drain(now)));
            prop_assert_eq!(late.counters(), live.counters());
        }
    }

    #[test]
    fn calls_are_not_only_counted_where_a_rule_decides_or_the_vendor_states_quotas_or_asks_for_money() {
        let plain = engine("");
        assert!(plain.only_counts(plain.whose("hooks.slack.com")));
        for host in ["api.openai.com", "API.OpenAI.com.", "api.github.com"] {
            assert!(!plain.only_counts(plain.whose(host)), "{host}");
        }
        let limited =
            engine("[[quota]]\nmatch = { vendor = \"example.com\" }\nlimit = \"5 requests / 1s\"\n");
        assert!(!limited.only_counts(limited.whose("hooks.slack.com")));
        let priced = engine("[[price]]\nvendor = \"example.com\"\ncall = \"0.01 USD / call\"\n");
        assert!(!priced.only_counts(priced.whose("api.example.com")));
    }

    #[test]
    fn a_rule_that_came_into_force_since_says_nothing_of_a_call_that_is_over() {
        let engine = engine("");
        let head = Head::new("GET", "https://api.example.com/v1/items");
        let (denies, _) = Config::read(
            "farcall.toml",
            "[[policy]]\nmatch = { vendor = \"example.com\" }\nverdict = \"deny\"\n",
        );
        engine.reload(&denies);
        assert!(!engine.only_counts(engine.whose("api.example.com")));
        engine.account_for(&head, &Past { head: Some((200, T0)), ..Past::new(T0) }, 7);
        let batch = engine.drain(T0);
        assert_eq!((batch.rows[0].status, batch.rows[0].sums.calls), (200, 1));
        assert_eq!(engine.counters().overlooked_calls, 0);
    }
}
