//! Calls of which the engine is told when they are over, in bundles.
//!
//! Between two calls the application's own work empties the caches, and then the account of a call costs several times
//! what it does right after another one. Where the engine has no say in a call, and only counts it, what came of it is
//! written down and accounted for with others: when there are [`FULL`] of them, and before anybody asks.

use super::process::{Process, caught};
use super::{CallGuard, Farcall};
use farcall::{ConnectTimes, Engine, ErrorType, Head, Past, Target, Timestamp, Whose};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Calls in a bundle.
const FULL: usize = 32;
/// The text that a bundle holds, in bytes, about; a call that has more of it is accounted for at once.
const TEXT: usize = 16 << 10;
/// Hosts that are known at a time, and how long a name is that can be.
const HOSTS: usize = 16;
const NAME: usize = 48;

/// A request, as an adapter shows it again when its call is over.
#[derive(Clone, Copy, Debug)]
pub struct LateRequest<'a> {
    /// The request method.
    pub method: &'a str,
    /// Whether the call is protected by TLS.
    pub tls: bool,
    /// The host, in whatever case.
    pub host: &'a str,
    /// The port.
    pub port: u16,
    /// The path, perhaps with a query.
    pub path: &'a str,
    /// On whose behalf the call is made, where the application said so.
    pub customer: Option<&'a str>,
    /// Free-form tags.
    pub tags: &'a [(String, String)],
}

/// A call under way of which the engine knows nothing yet. Told with [`Farcall::tell`]; one that is dropped before is not
/// counted.
#[derive(Debug)]
#[must_use = "a call that is never told is never counted"]
pub struct LateCall {
    /// In which process the call began, counted in forks.
    generation: usize,
    past: Past,
}

impl LateCall {
    /// Making the connection took so long.
    pub fn connected(&mut self, times: ConnectTimes) {
        self.past.times = times;
    }

    /// So many more bytes of the request's body went out.
    pub fn sent(&mut self, bytes: u64) {
        self.past.sent = self.past.sent.saturating_add(bytes);
    }

    /// The head of a response arrived at `now`. `false` where its headers matter: then
    /// [`as_it_goes`](Farcall::as_it_goes) must follow, to which they are told.
    #[must_use]
    pub fn head_at(&mut self, status: u16, now: Timestamp) -> bool {
        if Engine::reads_answer(status) {
            return false;
        }
        self.past.head = Some((status, now));
        true
    }

    /// So many more bytes of the response's body arrived.
    pub fn body(&mut self, bytes: u64) {
        self.past.received = self.past.received.saturating_add(bytes);
    }

    /// The attempt failed.
    pub fn failed(&mut self, error: ErrorType) {
        self.past.error = Some(error);
    }
}

impl Farcall {
    /// Begins a call, where that is only to be counted; `None` where the engine wants to see it as it goes.
    ///
    /// For adapters that have the request at hand when the call is over, too.
    #[must_use]
    pub fn begin_late(&self, host: &str) -> Option<LateCall> {
        let process = self.process();
        if !process.engine.only_counts(process.late.whose(&process.engine, host)) {
            return None;
        }
        let now = process.clock.now();
        if process.is_untended(now) {
            // Whatever that finds out is seen by the usual way.
            return None;
        }
        Some(LateCall { generation: self.generation(), past: Past::new(now) })
    }

    /// This moment, by the clock that the call began by.
    #[must_use]
    pub fn now_of(&self, call: &LateCall) -> Timestamp {
        self.nth(call.generation).clock.now()
    }

    /// The call is over now: it is counted within a second, and before a [`flush`](Farcall::flush) is. One that began
    /// before a fork is the parent's, and counted there alone.
    pub fn tell(&self, call: LateCall, request: &LateRequest<'_>, abandoned: bool) {
        let process = self.nth(call.generation);
        if process.next.get().is_some() {
            return;
        }
        let mut past = call.past;
        (past.ended, past.abandoned) = (process.clock.now(), abandoned);
        let late = &mut *process.late.bundle();
        late.add(request, past);
        if late.calls.len() >= FULL || late.text.len() >= TEXT {
            settle(late, process);
        }
    }

    /// The engine is to see the call as it goes after all. `None` in a fork of the process that it began in, which does
    /// not count it.
    #[must_use]
    #[cold]
    pub fn as_it_goes(&self, call: LateCall, request: &LateRequest<'_>) -> Option<CallGuard> {
        let process = self.nth(call.generation);
        if process.next.get().is_some() {
            return None;
        }
        let LateCall { generation, past } = call;
        let mut tags = [("", ""); TAGS];
        let head = head(request, request.tags.iter().map(|(key, value)| (&**key, &**value)), &mut tags);
        let call = process.engine.take_over(&head, &past, process.seed());
        Some(CallGuard::of(self.clone(), generation, call))
    }
}

/// One more than the engine keeps, so that it notices and counts that there were too many.
const TAGS: usize = farcall::attribution::MAX_TAGS + 1;

fn head<'a>(
    request: &LateRequest<'a>,
    given: impl Iterator<Item = (&'a str, &'a str)>,
    tags: &'a mut [(&'a str, &'a str); TAGS],
) -> Head<'a> {
    let count = tags.iter_mut().zip(given).map(|(slot, tag)| *slot = tag).count();
    let LateRequest { method, tls, host, port, path, customer, .. } = *request;
    Head::to(method, Target::new(tls, host, port, path)).customer(customer).tags(&tags[..count])
}

/// What a process has of them.
#[derive(Debug, Default)]
pub(super) struct Late {
    hosts: Mutex<[Host; HOSTS]>,
    bundle: Mutex<Bundle>,
}

/// A host that was asked about.
#[derive(Clone, Copy, Debug, Default)]
struct Host {
    /// None where the place is free.
    whose: Option<Whose>,
    len: u8,
    name: Name,
}

#[derive(Clone, Copy, Debug)]
struct Name([u8; NAME]);

impl Default for Name {
    fn default() -> Self {
        Self([0; NAME])
    }
}

impl Late {
    fn whose(&self, engine: &Engine, host: &str) -> Whose {
        let text = host.as_bytes();
        let place =
            text.iter().fold(0_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(usize::from(*byte)));
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        let known = &mut hosts[place % HOSTS];
        if let Some(whose) = known.whose
            && usize::from(known.len) == text.len()
            && known.name.0.iter().zip(text).all(|(known, byte)| known == byte)
        {
            return whose;
        }
        known.learn(engine, host)
    }

    fn bundle(&self) -> MutexGuard<'_, Bundle> {
        self.bundle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Accounts for all that was told.
    pub(super) fn settle(&self, process: &Process) {
        settle(&mut self.bundle(), process);
    }
}

impl Host {
    #[cold]
    fn learn(&mut self, engine: &Engine, host: &str) -> Whose {
        let whose = engine.whose(host);
        if let (Some(name), Ok(len)) = (self.name.0.get_mut(..host.len()), u8::try_from(host.len())) {
            name.copy_from_slice(host.as_bytes());
            (self.whose, self.len) = (Some(whose), len);
        }
        whose
    }
}

/// Calls that are over, one after the other, and their text.
#[derive(Debug, Default)]
struct Bundle {
    calls: Vec<Told>,
    text: String,
    /// How long the parts of a tag are, for all tags of all calls.
    tags: Vec<[usize; 2]>,
}

#[derive(Debug)]
struct Told {
    past: Past,
    tls: bool,
    port: u16,
    /// How long they are: method, host, path and customer.
    lengths: [usize; 4],
    tags: usize,
}

impl Bundle {
    fn add(&mut self, request: &LateRequest<'_>, past: Past) {
        let LateRequest { method, tls, host, port, path, customer, tags } = *request;
        let words = [method, host, path, customer.unwrap_or_default()];
        if self.calls.capacity() == 0 {
            self.calls.reserve_exact(FULL);
        }
        words.iter().for_each(|word| self.text.push_str(word));
        let tags = &tags[..tags.len().min(TAGS)];
        for (key, value) in tags {
            self.text.push_str(key);
            self.text.push_str(value);
            self.tags.push([key.len(), value.len()]);
        }
        let told = Told { past, tls, port, lengths: words.map(str::len), tags: tags.len() };
        self.calls.push(told);
    }
}

/// Accounts for what is in a bundle, and empties it. The lock is held meanwhile, so that whoever asks finds every call
/// that was told before.
#[cold]
#[inline(never)]
fn settle(bundle: &mut Bundle, process: &Process) {
    let Bundle { calls, text, tags } = bundle;
    let (mut rest, mut tags_left) = (text.as_str(), tags.as_slice());
    for Told { past, tls, port, lengths, tags } in calls.drain(..) {
        let mut next = |length: usize| {
            let (word, after) = rest.split_at_checked(length).unwrap_or_default();
            rest = after;
            word
        };
        let [method, host, path, customer] = lengths.map(&mut next);
        let (own, after) = tags_left.split_at_checked(tags).unwrap_or_default();
        tags_left = after;
        let request = LateRequest { method, tls, host, port, path, customer: Some(customer), tags: &[] };
        let mut slots = [("", ""); TAGS];
        let tags = own.iter().map(|[key, value]| (next(*key), next(*value)));
        let head = head(&request, tags, &mut slots);
        // What a panic may leave half done is the engine's, whose locks recover from poison.
        let account = || process.engine.account_for(&head, &past, process.seed());
        if catch_unwind(AssertUnwindSafe(account)).is_err() {
            caught(process);
        }
    }
    tags.clear();
    text.clear();
    // A long path, or many, leave no memory behind.
    text.shrink_to(TEXT);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Options;
    use crate::report::{Query, customers, endpoints};
    use farcall::Config;

    fn start(home: &std::path::Path) -> Farcall {
        Farcall::start(Options {
            home: Some(home.into()),
            hub: false,
            flush_every: None,
            ..Options::default()
        })
    }

    fn request<'a>(host: &'a str, path: &'a str, tags: &'a [(String, String)]) -> LateRequest<'a> {
        LateRequest { method: "GET", tls: true, host, port: 443, path, customer: Some("acme"), tags }
    }

    #[test]
    fn every_call_is_in_the_report_that_follows_it() {
        let home = tempfile::tempdir().unwrap();
        let farcall = start(home.path());
        let tags = [("team".to_owned(), "mobile".to_owned()), ("a".to_owned(), String::new())];
        for told in 1..=3 * FULL + 5 {
            let request = request("api.example.com", "/v1/items/5?x=y", &tags[..told % 3]);
            let mut call = farcall.begin_late(request.host).unwrap();
            call.sent(1);
            let now = farcall.now_of(&call);
            assert!(call.head_at(200, now));
            call.body(10);
            farcall.tell(call, &request, false);
            if told % 7 == 0 {
                farcall.flush();
                let report = customers(&Query::at(home.path())).unwrap();
                assert_eq!(report.rows.iter().map(|row| row.numbers.calls).sum::<u64>(), told as u64);
            }
        }
        farcall.shutdown();
        let report = endpoints(&Query::at(home.path())).unwrap();
        let rows: Vec<_> = report
            .rows
            .iter()
            .map(|row| (row.label.as_str(), row.numbers.calls, row.numbers.bytes_in))
            .collect();
        assert_eq!(rows, [("GET /v1/items/{id}", 3 * FULL as u64 + 5, 10 * (3 * FULL as u64 + 5))]);
    }

    #[test]
    fn text_without_end_is_not_kept_in_memory() {
        let home = tempfile::tempdir().unwrap();
        let farcall = start(home.path());
        let long = format!("/{}", "x".repeat(4 * TEXT));
        for _ in 0..FULL {
            let request = request("api.example.com", &long, &[]);
            farcall.tell(farcall.begin_late(request.host).unwrap(), &request, false);
            assert!(farcall.process().late.bundle().text.capacity() <= TEXT);
        }
        assert_eq!(farcall.engine().drain(farcall.now()).rows[0].sums.calls, FULL as u64);
    }

    #[test]
    fn a_call_whose_answer_matters_goes_on_as_any_other() {
        let home = tempfile::tempdir().unwrap();
        let farcall = start(home.path());
        let request = request("api.example.com", "/v1/items", &[]);
        let mut call = farcall.begin_late(request.host).unwrap();
        call.sent(7);
        assert!(!call.head_at(429, farcall.now()));
        let mut guard = farcall.as_it_goes(call, &request).unwrap();
        guard.answer(429, &farcall::call::NoHeaders);
        guard.end();
        let batch = farcall.engine().drain(farcall.now());
        assert_eq!((batch.rows[0].status, batch.rows[0].sums.bytes_out), (429, 7));
    }

    #[test]
    fn many_hosts_are_told_apart_and_a_rule_that_comes_ends_it() {
        let home = tempfile::tempdir().unwrap();
        let farcall = start(home.path());
        for _ in 0..2 {
            for host in 0..100 {
                let long = format!("{}.example.com", "x".repeat(host % 60 + 1));
                assert!(farcall.begin_late(&format!("host-{host}.example.com")).is_some());
                assert!(farcall.begin_late(&long).is_some());
                assert!(farcall.begin_late("api.openai.com").is_none());
            }
        }
        let (config, _) =
            Config::read("", "[[quota]]\nmatch = { vendor = \"x\" }\nlimit = \"5 requests / 1s\"\n");
        farcall.engine().reload(&config);
        assert!(farcall.begin_late("host-1.example.com").is_none());
    }
}
