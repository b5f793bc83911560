//! Writes what was decided to the ledger, through the agent's engine.

use std::{collections::HashMap, time::Duration};

use farcall::{Caller, CallerId, ErrorType, Head, Step, Tap, Target, Timestamp, catalogue::name_of_unknown};
use farcall_agent::{Confirmation, ConnectionRollup, ExplainedBy, Farcall, Verdict};

use crate::{
    clock,
    coverage::Completeness,
    identity::Process,
    tap::{Exchange, Progress},
    wire::{exchange::Outcome, record::Protocol},
};

/// How long a caller that makes no calls stays known to the engine; several flushes.
const IDLE: u64 = 30_000_000_000;

/// The ledger's side of the hub.
#[derive(Debug)]
pub(super) struct Account {
    farcall: Farcall,
    callers: HashMap<Caller, Known>,
    swept: u64,
}

/// A program that the engine knows.
#[derive(Clone, Copy, Debug)]
struct Known {
    id: CallerId,
    /// When it last made a call, `CLOCK_MONOTONIC` nanoseconds.
    used: u64,
    /// How often the engine had been drained then.
    drains: u64,
}

impl Known {
    /// Whether it has been quiet for long, and nothing of it is in the engine: its number is given to another then.
    fn is_forgettable(&self, now: u64, drains: u64) -> bool {
        now.saturating_sub(self.used) > IDLE && drains >= self.drains.saturating_add(2)
    }
}

impl Account {
    pub(super) fn new(farcall: Farcall) -> Self {
        Self { farcall, callers: HashMap::new(), swept: 0 }
    }

    /// Counts a call that the kernel alone saw.
    pub(super) fn count(&mut self, exchange: &Exchange, instrumented: bool) {
        let caller = self.caller(&exchange.process, instrumented);
        let anchor = self.anchor();
        let at = |monotonic: u64| Timestamp::from_nanos(monotonic.wrapping_add(anchor));
        let http = &exchange.http;
        let target = Target::new(exchange.tls, &exchange.host, exchange.port, &http.path);
        let head = Head::to(&http.method, target).seen(caller, Tap::Kernel);
        let engine = self.farcall.engine();
        let mut call = engine.begin(&head, at(http.begun), self.farcall.seed());
        if let Step::Send(_) = call.step(engine, at(http.begun)) {
            call.sent(http.body_out);
            if http.status != 0 {
                // What the vendor stated is kept account of, so that its quota is known to be used by nobody else.
                call.answer(engine, http.status, &http.stated.as_slice(), at(http.head));
            }
            call.body(http.body_in);
            match http.outcome {
                Outcome::Complete | Outcome::Switched => {}
                // That we lost track says nothing about the call itself, once it was answered.
                Outcome::Unknown if http.status != 0 => {}
                // Nor where we lost the answer itself: it has no status then, and is no error.
                Outcome::Unknown => call.head(0, at(http.ended)),
                Outcome::Malformed => call.failed(ErrorType::Protocol),
                Outcome::NoResponse | Outcome::Aborted => call.failed(ErrorType::Reset),
                Outcome::Cancelled | Outcome::Abandoned => return call.abandon(engine, at(http.ended)),
            }
        }
        if let Step::Send(_) = call.step(engine, at(http.ended)) {
            // The engine would try again; what was seen has ended all the same.
            call.failed(ErrorType::Other);
        }
        call.end(engine, at(http.ended));
    }

    /// Notes a call that the library counted and the kernel saw too.
    pub(super) fn confirm(&mut self, exchange: &Exchange) {
        let host = exchange.host.to_ascii_lowercase();
        let endpoint =
            self.farcall.engine().catalogue().endpoint_of(&host, &exchange.http.method, &exchange.http.path);
        let confirmation = Confirmation {
            minute: Timestamp::from_nanos(exchange.http.ended.wrapping_add(self.anchor())).minute(),
            caller: caller_of(&exchange.process, true),
            vendor: self.vendor(&host),
            endpoint: endpoint.unwrap_or_default().to_owned(),
            calls: 1,
        };
        self.farcall.record_confirmed(vec![confirmation]);
    }

    /// Notes a connection, or the part of it since the last time.
    pub(super) fn connection(&mut self, progress: &Progress, explained_by: ExplainedBy, instrumented: bool) {
        let connection = &progress.connection;
        let seen = if connection.closed == 0 { clock::monotonic() } else { connection.closed };
        let address = connection.remote.0.to_string();
        let name = connection.name.as_ref().map(|(name, _)| name.to_string()).unwrap_or_default();
        let (verdict, mut reason) = verdict(&connection.verdict);
        // Many hosts may be at one address: which of them a call of the library went to, it does not say.
        if verdict == Verdict::Opaque
            && explained_by == ExplainedBy::Nobody
            && instrumented
            && name.is_empty()
        {
            reason += "; no name is known of its host, by which calls of the library would explain it";
        }
        let measured = progress.last && connection.rtt_us > 0;
        let lasted = if progress.last { connection.closed.saturating_sub(connection.opened) } else { 0 };
        let rollup = ConnectionRollup {
            minute: Timestamp::from_nanos(seen.wrapping_add(self.anchor())).minute(),
            caller: caller_of(&connection.process, instrumented),
            vendor: self.vendor(if name.is_empty() { &address } else { &name }),
            name,
            address,
            port: connection.remote.1,
            library: library(progress),
            verdict,
            reason,
            explained_by,
            connections: u64::from(progress.last),
            bytes_out: progress.new_out,
            bytes_in: progress.new_in,
            rtt: if measured { Duration::from_micros(connection.rtt_us.into()) } else { Duration::ZERO },
            rtt_samples: u64::from(measured),
            retransmits: if progress.last { connection.retransmits.into() } else { 0 },
            duration: Duration::from_nanos(lasted),
        };
        self.farcall.record_connections(vec![rollup]);
    }

    /// Counts what went wrong, for `farcall doctor`.
    pub(super) fn count_failures(&self, name: &str, count: u64) {
        if count > 0 {
            self.farcall.count_failures(name, count);
        }
    }

    /// Lets the engine forget programs that have been quiet.
    pub(super) fn forget_idle(&mut self, now: u64) {
        if now.saturating_sub(self.swept) < IDLE {
            return;
        }
        self.swept = now;
        let (engine, drains) = (self.farcall.engine(), self.farcall.drains());
        self.callers.retain(|_, known| {
            let forgettable = known.is_forgettable(now, drains);
            if forgettable {
                engine.remove_caller(known.id);
            }
            !forgettable
        });
    }

    /// Writes what is left.
    pub(super) fn close(&self) {
        self.farcall.shutdown();
    }

    fn caller(&mut self, process: &Process, instrumented: bool) -> CallerId {
        let caller = caller_of(process, instrumented);
        let (used, drains) = (clock::monotonic(), self.farcall.drains());
        let engine = self.farcall.engine();
        let known = self.callers.entry(caller).or_insert_with_key(|caller| {
            let id = engine.add_caller(caller.clone());
            Known { id, used, drains }
        });
        (known.used, known.drains) = (used, drains);
        known.id
    }

    /// The vendor's name, as the engine gives it.
    fn vendor(&self, host: &str) -> String {
        let host = host.to_ascii_lowercase();
        match self.farcall.engine().catalogue().vendor_of(&host) {
            Some(vendor) => vendor.name.clone(),
            None => name_of_unknown(&host).to_owned(),
        }
    }

    /// Unix nanoseconds less `CLOCK_MONOTONIC` nanoseconds, wrapping.
    fn anchor(&self) -> u64 {
        self.farcall.now().as_nanos().wrapping_sub(clock::monotonic())
    }
}

/// The program, as the ledger names it. Of programs without the library each run is the same caller: a script that runs
/// curl a thousand times must not make a thousand of them.
fn caller_of(process: &Process, instrumented: bool) -> Caller {
    Caller {
        service: process.service.clone(),
        executable: process.executable.clone(),
        pid: if instrumented { process.own_pid } else { 0 },
        pid_namespace: if instrumented { process.pid_namespace } else { 0 },
        started: if instrumented { process.started_ticks() } else { 0 },
        container: process.container.clone(),
        user: process.user.clone(),
    }
}

/// The verdict as the ledger keeps it, and its reason.
fn verdict(of: &Completeness) -> (Verdict, String) {
    match of {
        Completeness::Complete => (Verdict::Complete, String::new()),
        Completeness::Truncated { .. } => {
            (Verdict::Truncated, "what it carried could not be followed to its end".to_owned())
        }
        Completeness::Lost { .. } => {
            (Verdict::Lost, "events were lost on the way out of the kernel".to_owned())
        }
        Completeness::Opaque { reason } => (Verdict::Opaque, reason.clone()),
    }
}

fn library(progress: &Progress) -> String {
    match (progress.connection.protocol, progress.connection.tls) {
        (_, Some(tls)) => tls.word().to_owned(),
        (Protocol::Http1 | Protocol::Http2, None) => "plaintext".to_owned(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use farcall_agent::{
        Options,
        report::{self, Query},
    };

    use super::*;
    use crate::tap::{Connection, NameSource};

    fn account(home: &std::path::Path) -> Account {
        Account::new(Farcall::start(Options {
            home: Some(home.to_path_buf()),
            config: Some("/dev/null".into()),
            flush_every: None,
            hub: false,
            enabled: true,
            ..Options::default()
        }))
    }

    fn process(service: &str) -> Process {
        Process {
            tgid: 42,
            own_pid: 42,
            pid_namespace: 1,
            parent: 1,
            started: 1,
            uid: 0,
            executable: format!("/usr/bin/{service}"),
            service: service.into(),
            user: "root".into(),
            comm: service.into(),
            cgroup: "/".into(),
            cgroup_id: 1,
            container: String::new(),
        }
    }

    /// A call that was answered with 200, and how it ended.
    fn answered(outcome: Outcome) -> Exchange {
        Exchange {
            process: process("curl").into(),
            connection: Some(1),
            tls: true,
            host: "api.github.com".into(),
            port: 443,
            http: crate::wire::exchange::Exchange {
                method: "GET".into(),
                host: "api.github.com".into(),
                port: None,
                path: "/user".into(),
                status: 200,
                begun: 1,
                head: 2,
                ended: 3,
                body_out: 0,
                body_in: 0,
                outcome,
                stated: Vec::new(),
                bent: false,
            },
        }
    }

    #[test]
    fn a_program_is_forgotten_only_when_its_calls_have_left_the_engine() {
        let home = tempfile::tempdir().unwrap();
        let mut account = account(home.path());
        let id = account.caller(&process("curl"), false);
        let late = clock::monotonic() + 10 * IDLE;
        // Nothing can be written for long: its calls are still in the engine, under its number.
        for drains in 0..2 {
            assert_eq!(account.farcall.drains(), drains);
            account.swept = 0;
            account.forget_idle(late);
            assert!(account.farcall.engine().caller(id).is_some(), "after {drains} drains");
            account.farcall.flush();
        }
        account.swept = 0;
        account.forget_idle(late);
        assert!(account.farcall.engine().caller(id).is_none());
        assert!(account.callers.is_empty());
    }

    #[test]
    fn what_the_vendor_broke_is_an_error_of_the_call_and_what_we_lost_or_the_program_let_go_is_none() {
        let home = tempfile::tempdir().unwrap();
        let mut account = account(home.path());
        for (outcome, counted) in [
            (Outcome::Complete, "complete"),
            (Outcome::Unknown, "complete"),
            (Outcome::Malformed, "protocol"),
            (Outcome::Aborted, "reset"),
            (Outcome::Abandoned, "abandoned"),
        ] {
            account.count(&answered(outcome), false);
            let batch = account.farcall.engine().drain(account.farcall.now());
            let rows: Vec<_> = batch.rows.iter().map(|row| (row.status, row.outcome.as_str())).collect();
            assert_eq!(rows, [(200, counted)], "{outcome:?}");
        }
        for (outcome, counted) in [
            (Outcome::Unknown, "complete"),
            (Outcome::NoResponse, "reset"),
            (Outcome::Cancelled, "cancelled"),
        ] {
            let mut unanswered = answered(outcome);
            unanswered.http.status = 0;
            account.count(&unanswered, false);
            let batch = account.farcall.engine().drain(account.farcall.now());
            let rows: Vec<_> = batch.rows.iter().map(|row| (row.status, row.outcome.as_str())).collect();
            assert_eq!(rows, [(0, counted)], "{outcome:?}");
        }
    }

    #[test]
    fn a_connection_that_calls_of_the_library_might_explain_says_why_they_do_not() {
        let opaque = || Completeness::Opaque { reason: "it was open before we looked".into() };
        let why = "no name is known of its host, by which calls of the library would explain it";
        for (name, instrumented, by, is_said) in [
            (None, true, ExplainedBy::Nobody, true),
            (Some(("api.github.com".into(), NameSource::Dns)), true, ExplainedBy::Nobody, false),
            (None, true, ExplainedBy::Library, false),
            (None, false, ExplainedBy::Nobody, false),
        ] {
            let home = tempfile::tempdir().unwrap();
            let mut account = account(home.path());
            let connection = Connection {
                id: 1,
                process: process("shop").into(),
                local: ([10, 9, 0, 1].into(), 1),
                remote: ([10, 9, 0, 2].into(), 443),
                name,
                tunnel: None,
                bytes_out: 10,
                bytes_in: 10,
                opened: 1,
                established: 1,
                closed: clock::monotonic(),
                rtt_us: 1,
                retransmits: 0,
                protocol: Protocol::Unseen,
                tls: None,
                offered: Vec::new(),
                exchanges: 0,
                verdict: opaque(),
            };
            let progress = Progress { connection, first: true, last: true, new_out: 10, new_in: 10 };
            account.connection(&progress, by, instrumented);
            account.close();
            let coverage = report::coverage(&Query::at(home.path())).unwrap();
            let said = serde_json::to_string(&coverage).unwrap();
            assert_eq!(said.contains(why), is_said, "{said}");
        }
    }

    #[test]
    fn a_connection_has_the_vendor_that_its_calls_have() {
        let home = tempfile::tempdir().unwrap();
        let account = account(home.path());
        for host in ["API.Stripe.com", "api.eu.Acme.co.uk", "localhost", "10.1.2.3", "2001:db8::1"] {
            let engine = account.farcall.engine();
            let head = Head::to("GET", Target::new(true, host, 443, "/"));
            let mut call = engine.begin(&head, account.farcall.now(), 1);
            call.end(engine, account.farcall.now());
            let batch = engine.drain(account.farcall.now());
            assert_eq!(account.vendor(host), *batch.rows[0].vendor, "{host}");
        }
    }
}
