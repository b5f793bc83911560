//! An engine with a cache in a map, and a vendor that answers as it is told.

use farcall::cache::{Answer, Kept, Key, Store};
use farcall::ledger::Batch;
use farcall::{Call, Caller, Config, Engine, Head, Step, Timestamp};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Answers in a map without bounds.
#[derive(Debug, Default)]
pub(crate) struct Map(Mutex<HashMap<Key, Kept>>);

impl Store for Map {
    fn get(&self, key: Key) -> Option<Kept> {
        self.0.lock().unwrap().get(&key).cloned()
    }

    fn put(&self, key: Key, kept: Kept) {
        self.0.lock().unwrap().insert(key, kept);
    }

    fn remove(&self, key: Key) {
        self.0.lock().unwrap().remove(&key);
    }

    fn purge(&self, which: &dyn Fn(&Answer) -> bool) -> u64 {
        let mut kept = self.0.lock().unwrap();
        let before = kept.len();
        kept.retain(|_, kept| !matches!(kept, Kept::Answer(answer) if which(answer)));
        (before - kept.len()) as u64
    }
}

pub(crate) type Pairs<'a> = &'a [(&'a str, &'a str)];

/// `Sat, 21 Nov 2026 10:00:00 GMT`; all stories begin then.
pub(crate) const START: u64 = 1_795_255_200;
pub(crate) const DATE: (&str, &str) = ("date", "Sat, 21 Nov 2026 10:00:00 GMT");

pub(crate) fn at(seconds: f64) -> Timestamp {
    Timestamp::from_nanos(START * 1_000_000_000).plus(Duration::from_secs_f64(seconds))
}

/// The moment so many seconds after the start, as HTTP writes it.
pub(crate) fn date(seconds: i64) -> String {
    let moment = std::time::UNIX_EPOCH + Duration::from_secs(START.checked_add_signed(seconds).unwrap());
    httpdate::fmt_http_date(moment)
}

pub(crate) struct World {
    pub(crate) engine: Engine,
    seed: u64,
}

/// What came of a call.
#[derive(Debug, PartialEq)]
pub(crate) enum Came {
    /// The cache answered: `Cache-Status`, `Age`, the body.
    Kept {
        status: u16,
        why: String,
        age: Option<String>,
        body: String,
    },
    /// The vendor did; with the conditional headers that it was sent.
    Sent {
        status: u16,
        condition: Vec<(&'static str, String)>,
    },
    Refused(String),
    Failed,
}

impl Came {
    pub(crate) fn is_hit(&self) -> bool {
        matches!(self, Self::Kept { .. })
    }

    pub(crate) fn body(&self) -> &str {
        match self {
            Self::Kept { body, .. } => body,
            other => panic!("{other:?} has no body from the cache"),
        }
    }

    pub(crate) fn why(&self) -> &str {
        match self {
            Self::Kept { why, .. } => why,
            other => panic!("{other:?} is not from the cache"),
        }
    }
}

/// A request.
#[derive(Clone, Copy)]
pub(crate) struct Ask<'a> {
    pub(crate) method: &'a str,
    pub(crate) url: &'a str,
    pub(crate) headers: Pairs<'a>,
    pub(crate) customer: Option<&'a str>,
    pub(crate) content: &'a [u8],
    pub(crate) client: u32,
    pub(crate) client_key: &'a [u8],
    /// When its caller stops waiting.
    pub(crate) deadline: Option<f64>,
    /// How long its client would wait, in seconds.
    pub(crate) patience: Option<f64>,
}

impl<'a> Ask<'a> {
    fn head(&'a self) -> Head<'a> {
        Head::new(self.method, self.url)
            .headers(&self.headers)
            .customer(self.customer)
            .body(Some(self.content.len() as u64), true)
            .content(self.content)
            .caches(true)
            .client(self.client)
            .client_key(self.client_key)
            .deadline(self.deadline.map(at))
            .patience(self.patience.map(Duration::from_secs_f64))
    }

    pub(crate) fn get(headers: Pairs<'a>) -> Self {
        Self {
            method: "GET",
            url: "https://api.example.com/v1/rates?base=EUR",
            headers,
            customer: None,
            content: b"",
            client: 0,
            client_key: b"",
            deadline: None,
            patience: None,
        }
    }

    pub(crate) fn url(mut self, url: &'a str) -> Self {
        self.url = url;
        self
    }

    pub(crate) fn method(mut self, method: &'a str) -> Self {
        self.method = method;
        self
    }

    pub(crate) fn customer(mut self, customer: &'a str) -> Self {
        self.customer = Some(customer);
        self
    }

    pub(crate) fn client(mut self, client: u32) -> Self {
        self.client = client;
        self
    }

    pub(crate) fn client_key(mut self, key: &'a [u8]) -> Self {
        self.client_key = key;
        self
    }

    pub(crate) fn content(mut self, content: &'a [u8]) -> Self {
        self.content = content;
        self
    }
}

/// An answer of the vendor's.
#[derive(Clone, Copy)]
pub(crate) struct Say<'a> {
    pub(crate) status: u16,
    pub(crate) headers: Pairs<'a>,
    pub(crate) body: &'a str,
}

pub(crate) fn ok<'a>(headers: Pairs<'a>) -> Say<'a> {
    Say { status: 200, headers, body: "first" }
}

pub(crate) fn say<'a>(status: u16, headers: Pairs<'a>, body: &'a str) -> Say<'a> {
    Say { status, headers, body }
}

impl World {
    /// With the keys of one `[[cache]]` rule for every call.
    pub(crate) fn with(keys: &str) -> Self {
        Self::of(&format!("[[cache]]\nname = \"all\"\nmatch = {{}}\n{keys}\n"))
    }

    pub(crate) fn of(text: &str) -> Self {
        let mut config = Config::parse("farcall.toml", text).unwrap();
        // Advice looks at bodies for reasons of its own.
        config.advise.enabled = false;
        let engine = Engine::new(config, Caller::new("test"), 1, 7);
        engine.set_cache_store(Arc::new(Map::default()));
        Self { engine, seed: 0 }
    }

    pub(crate) fn begin(&mut self, ask: &Ask<'_>, seconds: f64) -> Call {
        self.seed += 1;
        self.engine.begin(&ask.head(), at(seconds), self.seed)
    }

    /// As [`World::call`], of a call that is begun and asked about in one.
    pub(crate) fn open(&mut self, ask: Ask<'_>, answer: Say<'_>, seconds: f64) -> Came {
        self.seed += 1;
        let mut call = None;
        let step = self.engine.open(&ask.head(), at(seconds), self.seed, |begun| call = Some(begun));
        match (step, call) {
            (step, Some(mut call)) => self.take(step, &mut call, answer, seconds),
            (Step::Respond(stored), None) => kept(&stored),
            (Step::Refuse(refusal), None) => Came::Refused(refusal.to_string()),
            (Step::Fail(_), None) => Came::Failed,
            (step, None) => panic!("{step:?} and no call"),
        }
    }

    /// A call whose vendor answers at once, where it is asked.
    pub(crate) fn call(&mut self, ask: Ask<'_>, answer: Say<'_>, seconds: f64) -> Came {
        let mut call = self.begin(&ask, seconds);
        self.go_on(&mut call, answer, seconds)
    }

    pub(crate) fn go_on(&mut self, call: &mut Call, answer: Say<'_>, seconds: f64) -> Came {
        let step = call.step(&self.engine, at(seconds));
        self.take(step, call, answer, seconds)
    }

    /// Does what the call's first step says, and goes on.
    fn take(&mut self, mut step: Step, call: &mut Call, answer: Say<'_>, seconds: f64) -> Came {
        let now = at(seconds);
        let mut sent = None;
        loop {
            match step {
                Step::Send(attempt) => {
                    sent = Some(attempt.condition);
                    call.answer(&self.engine, answer.status, &answer.headers, now);
                }
                Step::Respond(stored) => return kept(&stored),
                Step::Refuse(refusal) => return Came::Refused(refusal.to_string()),
                Step::Fail(_) => return Came::Failed,
                Step::Settled => break,
                step => panic!("{step:?}"),
            }
            step = call.step(&self.engine, now);
        }
        call.read(answer.body.as_bytes());
        call.end(&self.engine, now);
        Came::Sent { status: answer.status, condition: sent.unwrap().into_vec() }
    }

    /// A call whose vendor does not answer.
    pub(crate) fn fails(&mut self, ask: Ask<'_>, seconds: f64) -> Came {
        let (mut call, now) = (self.begin(&ask, seconds), at(seconds));
        loop {
            match call.step(&self.engine, now) {
                Step::Send(_) => call.failed(farcall::ErrorType::Connect),
                Step::Respond(stored) => return kept(&stored),
                Step::Refuse(refusal) => return Came::Refused(refusal.to_string()),
                _ => break,
            }
        }
        call.end(&self.engine, now);
        Came::Failed
    }

    pub(crate) fn drain(&self) -> Batch {
        self.engine.drain(at(1_000_000.0))
    }
}

pub(crate) fn kept(stored: &farcall::Stored) -> Came {
    let header = |name: &str| Some(stored.headers.get(name)?.to_str().unwrap().to_owned());
    Came::Kept {
        status: stored.status,
        why: header("cache-status").unwrap(),
        age: header("age"),
        body: String::from_utf8(stored.body.to_vec()).unwrap(),
    }
}
