#![allow(clippy::unwrap_used)]
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::{
    coverage::Completeness,
    identity::Process as Identity,
    tap::{Connection, NameSource},
    wire::record::Protocol,
};

mod without_library;

const S: u64 = 1_000_000_000;
const PID: u32 = 42;

fn process() -> Arc<Identity> {
    Arc::new(Identity {
        tgid: PID,
        parent: 1,
        started: 1,
        own_pid: 1,
        pid_namespace: 1,
        uid: 0,
        executable: "/usr/bin/app".into(),
        service: "app".into(),
        user: "root".into(),
        comm: "app".into(),
        cgroup: "/".into(),
        cgroup_id: 1,
        container: String::new(),
    })
}

fn exchange(path: &str, begun: u64, ended: u64, status: u16) -> Exchange {
    Exchange {
        process: process(),
        connection: Some(7),
        tls: true,
        host: "api.stripe.com".into(),
        port: 443,
        http: exchange::Exchange {
            method: "GET".into(),
            host: "api.stripe.com".into(),
            port: None,
            path: path.into(),
            status,
            begun,
            head: ended,
            ended,
            body_out: 0,
            body_in: 0,
            outcome: Outcome::Complete,
            stated: Vec::new(),
            bent: false,
        },
    }
}

fn sighting(path: &str, begun: u64, ended: u64, status: u16, attempts: u16) -> Sighting {
    let key = Wire::key("GET", "API.stripe.com", path);
    let host = Wire::host_key("API.stripe.com");
    Sighting { begun, ended, key, host, status, attempts, single: attempts <= 1 }
}

fn hello(matcher: &mut Matcher) {
    matcher.came(PID);
    matcher.hello(PID, Hello { since: 0, sightings_from: 0, at: 0 });
}

fn progress(verdict: Completeness, exchanges: u64) -> Progress {
    Progress {
        connection: Connection {
            id: 7,
            process: process(),
            local: ([127, 0, 0, 1].into(), 1),
            remote: ([127, 0, 0, 2].into(), 443),
            name: Some(("api.stripe.com".into(), NameSource::Sni)),
            tunnel: None,
            bytes_out: 10,
            bytes_in: 10,
            opened: S,
            established: S,
            closed: 2 * S,
            rtt_us: 1,
            retransmits: 0,
            protocol: Protocol::Tls,
            tls: None,
            offered: Vec::new(),
            exchanges,
            verdict,
        },
        first: true,
        last: true,
        new_out: 10,
        new_in: 10,
    }
}

/// Counted and confirmed exchanges, and who explains connections.
fn tally(decisions: Vec<Decision>) -> (usize, usize, Vec<ExplainedBy>) {
    let mut tally = (0, 0, Vec::new());
    for decision in decisions {
        match decision {
            Decision::Count(..) => tally.0 += 1,
            Decision::Confirm(_) => tally.1 += 1,
            Decision::Connection(_, explained, _) => tally.2.push(explained),
        }
    }
    tally
}

#[test]
fn a_call_that_both_taps_saw_is_confirmed_in_either_order() {
    let mut matcher = Matcher::default();
    hello(&mut matcher);
    matcher.exchange(exchange("/a", S, 2 * S, 200));
    matcher.sightings(PID, vec![sighting("/a", S, 2 * S, 200, 1)]);
    matcher.sightings(PID, vec![sighting("/b", 3 * S, 4 * S, 404, 1)]);
    matcher.exchange(exchange("/b", 3 * S + 1000, 4 * S - 1000, 404));
    assert_eq!(tally(matcher.due(4 * S)), (0, 2, vec![]));
    assert_eq!(tally(matcher.due(100 * S)), (0, 0, vec![]));
}

#[test]
fn a_call_that_bypassed_the_library_is_counted_when_its_time_is_over_and_not_before() {
    let mut matcher = Matcher::default();
    hello(&mut matcher);
    matcher.exchange(exchange("/a", S, 2 * S, 200));
    matcher.told(PID, 2 * S + LAG);
    assert_eq!(tally(matcher.due(2 * S + HOLD - 1)), (0, 0, vec![]));
    assert_eq!(tally(matcher.due(2 * S + HOLD)), (1, 0, vec![]));
}

#[test]
fn an_answer_that_breaks_the_rules_is_the_librarys_call_whatever_status_each_read() {
    let cases = [
        (Outcome::Malformed, 0, 200, (0, 1)),
        (Outcome::Malformed, 200, 0, (0, 1)),
        (Outcome::Unknown, 0, 200, (0, 1)),
        (Outcome::Unknown, 200, 404, (1, 0)),
        (Outcome::Complete, 200, 404, (1, 0)),
    ];
    for (outcome, seen, read, (counted, confirmed)) in cases {
        let mut matcher = Matcher::default();
        hello(&mut matcher);
        let mut broken = exchange("/a", S, 2 * S, seen);
        broken.http.outcome = outcome;
        matcher.exchange(broken);
        matcher.sightings(PID, vec![sighting("/a", S, 2 * S, read, 1)]);
        matcher.told(PID, 2 * S + LAG);
        assert_eq!(tally(matcher.due(100 * S)), (counted, confirmed, vec![]), "{outcome:?} {seen} {read}");
    }
    // One client gives up where another reads on.
    let mut matcher = Matcher::default();
    hello(&mut matcher);
    let mut bent = exchange("/a", S, 2 * S, 200);
    bent.http.bent = true;
    matcher.exchange(bent);
    matcher.sightings(PID, vec![sighting("/a", S, 2 * S, 0, 1)]);
    assert_eq!(tally(matcher.due(100 * S)), (0, 1, vec![]));
}

#[test]
fn equal_calls_that_overlap_in_a_chain_all_find_their_own() {
    let spans = [(0, 5), (4, 9), (8, 12)].map(|(begun, ended)| (S + begun * S / 10, S + ended * S / 10));
    for kernel_first in [true, false] {
        let mut matcher = Matcher::default();
        hello(&mut matcher);
        let exchanges = |matcher: &mut Matcher| {
            spans.iter().for_each(|(begun, ended)| matcher.exchange(exchange("/a", *begun, *ended, 200)));
        };
        if kernel_first {
            exchanges(&mut matcher);
        }
        // Shards tell in an order of their own.
        let told = spans.iter().rev().map(|(begun, ended)| sighting("/a", *begun, *ended, 200, 1));
        matcher.sightings(PID, told.collect());
        if !kernel_first {
            exchanges(&mut matcher);
        }
        assert_eq!(tally(matcher.due(100 * S)), (0, 3, vec![]));
    }
}

proptest! {
    /// Threads that make equal calls one after another, each of which the library sees from a little before to a little
    /// after the kernel; told once a second, shard by shard.
    #[test]
    fn equal_calls_of_many_threads_all_find_one(
        threads in prop::collection::vec(
            prop::collection::vec((0u64..8, 1u64..130, 0u64..60, 0u64..40), 1..30), 1..9),
    ) {
        const MS: u64 = S / 1_000;
        let (mut exchanges, mut shards) = (Vec::new(), Vec::new());
        for (shard, calls) in threads.iter().enumerate() {
            let mut now = 10 * S + shard as u64 * MS;
            for (before, took, after, idle) in calls {
                let kernel = (now + before * MS, now + (before + took) * MS);
                exchanges.push(kernel);
                shards.push((kernel.1 / S + 1, shard, now, kernel.1 + after * MS));
                now = kernel.1 + (after + idle) * MS;
            }
        }
        exchanges.sort_by_key(|(_, ended)| *ended);
        // A call is in the frame of the second after its end.
        for told in &mut shards {
            told.0 = told.3 / S + 1;
        }
        shards.sort_unstable();
        let mut matcher = Matcher::default();
        hello(&mut matcher);
        let (mut counted, mut confirmed) = (0, 0);
        let last = shards.last().map_or(0, |(second, ..)| second + 5);
        for second in 10..=last {
            for (begun, ended) in exchanges.iter().filter(|(_, ended)| ended / S + 1 == second) {
                matcher.exchange(exchange("/a", *begun, *ended, 200));
            }
            let told = shards.iter().filter(|(of, ..)| *of == second);
            matcher.sightings(PID, told.map(|(_, _, begun, ended)| sighting("/a", *begun, *ended, 200, 1)).collect());
            matcher.told(PID, second * S);
            let (count, confirm, _) = tally(matcher.due(second * S));
            (counted, confirmed) = (counted + count, confirmed + confirm);
        }
        prop_assert_eq!((counted, confirmed), (0, exchanges.len()));
    }
}

#[test]
fn matching_is_one_to_one() {
    let mut matcher = Matcher::default();
    hello(&mut matcher);
    for n in 0..5 {
        matcher.exchange(exchange("/a", n * S / 100, n * S / 100 + 1, 200));
    }
    for n in 0..3 {
        matcher.sightings(PID, vec![sighting("/a", n * S / 100, n * S / 100 + 1, 200, 1)]);
    }
    assert_eq!(tally(matcher.due(100 * S)), (2, 3, vec![]));
}

#[test]
fn another_path_status_time_or_process_does_not_match() {
    for (pid, other) in [
        (PID, sighting("/b", S, 2 * S, 200, 1)),
        (PID, sighting("/a", S, 2 * S, 500, 1)),
        (PID, sighting("/a", 2 * S + SLACK + 1, 3 * S, 200, 1)),
        (PID + 1, sighting("/a", S, 2 * S, 200, 1)),
    ] {
        let mut matcher = Matcher::default();
        hello(&mut matcher);
        matcher.exchange(exchange("/a", S, 2 * S, 200));
        matcher.sighting(pid, other);
        assert_eq!(tally(matcher.due(100 * S)), (1, 0, vec![]), "{other:?}");
    }
}

#[test]
fn a_call_with_retries_takes_as_many_exchanges_whatever_their_status() {
    let mut matcher = Matcher::default();
    hello(&mut matcher);
    matcher.exchange(exchange("/a", S, 2 * S, 503));
    matcher.exchange(exchange("/a", 2 * S, 3 * S, 200));
    matcher.exchange(exchange("/a", 3 * S, 4 * S, 200));
    matcher.sightings(PID, vec![sighting("/a", S, 3 * S, 200, 2)]);
    assert_eq!(tally(matcher.due(100 * S)), (1, 2, vec![]));
}

#[test]
fn what_ended_before_the_library_began_to_tell_is_the_librarys() {
    let mut matcher = Matcher::default();
    matcher.exchange(exchange("/before-install", S, 2 * S, 200));
    matcher.exchange(exchange("/counted-untold", 3 * S, 4 * S, 200));
    matcher.hello(PID, Hello { since: 3 * S, sightings_from: 5 * S, at: 5 * S });
    matcher.exchange(exchange("/told", 5 * S, 6 * S, 200));
    matcher.sightings(PID, vec![sighting("/told", 5 * S, 6 * S, 200, 1)]);
    assert_eq!(tally(matcher.due(100 * S)), (1, 2, vec![]));
}

#[test]
fn at_the_end_only_what_the_library_could_have_told_counts_as_bypassing_it() {
    let mut matcher = Matcher::default();
    hello(&mut matcher);
    matcher.told(PID, 5 * S);
    matcher.exchange(exchange("/bypassed", 3 * S, 5 * S - LAG, 200));
    // The library spoke a moment after this one ended, of what it had gathered a moment before.
    matcher.exchange(exchange("/just-missed", 3 * S, 5 * S - LAG + 1, 200));
    matcher.exchange(exchange("/not-yet-told", 5 * S, 6 * S, 200));
    assert_eq!(tally(matcher.finish()), (1, 2, vec![]));
}

#[test]
fn at_the_end_a_library_that_left_has_told_all() {
    let mut matcher = Matcher::default();
    hello(&mut matcher);
    matcher.told(PID, 5 * S);
    matcher.exchange(exchange("/bypassed", 3 * S, 5 * S, 200));
    matcher.left(PID, 5 * S, true);
    assert_eq!(tally(matcher.finish()), (1, 0, vec![]));
}

/// Whether each counted exchange was of a process with a library.
fn instrumented(decisions: Vec<Decision>) -> Vec<bool> {
    let counted = decisions.into_iter().filter_map(|decision| match decision {
        Decision::Count(_, instrumented) => Some(instrumented),
        _ => None,
    });
    counted.collect()
}

#[test]
fn a_library_is_known_for_as_long_as_it_is_connected_however_silent_it_is() {
    let mut matcher = Matcher::default();
    hello(&mut matcher);
    for hour in 1..24 {
        matcher.due(hour * 3_600 * S);
    }
    let begun = 24 * 3_600 * S;
    matcher.exchange(exchange("/a", begun, begun + S, 200));
    assert_eq!(instrumented(matcher.due(begun + S + SILENCE)), [true]);
}

#[test]
fn a_library_is_forgotten_soon_after_it_left_and_the_next_process_of_its_number_has_none() {
    let mut matcher = Matcher::default();
    hello(&mut matcher);
    matcher.told(PID, 10 * S);
    matcher.exchange(exchange("/last", 9 * S, 10 * S, 200));
    matcher.left(PID, 10 * S, true);
    assert_eq!(instrumented(matcher.due(10 * S + HOLD)), [true]);
    matcher.due(10 * S + FAREWELL + S);
    matcher.exchange(exchange("/a", 17 * S, 18 * S, 200));
    assert_eq!(instrumented(matcher.due(18 * S + HOLD)), [false]);
}

#[test]
fn of_two_connections_of_a_process_the_one_that_stays_keeps_it_known() {
    let mut matcher = Matcher::default();
    hello(&mut matcher);
    hello(&mut matcher);
    matcher.left(PID, S, true);
    matcher.due(100 * S);
    matcher.exchange(exchange("/a", 100 * S, 101 * S, 200));
    assert_eq!(instrumented(matcher.due(101 * S + SILENCE)), [true]);
}

#[test]
fn a_call_waits_for_a_library_that_is_connected_and_late() {
    let mut matcher = Matcher::default();
    hello(&mut matcher);
    matcher.told(PID, 2 * S);
    matcher.exchange(exchange("/a", S, 2 * S, 200));
    matcher.exchange(exchange("/bypassed", S, 2 * S, 200));
    // Its disk is slow: the next flush comes after 20 s.
    assert_eq!(tally(matcher.due(20 * S)), (0, 0, vec![]));
    matcher.sightings(PID, vec![sighting("/a", S, 2 * S, 200, 1)]);
    matcher.told(PID, 22 * S);
    assert_eq!(tally(matcher.due(23 * S)), (1, 1, vec![]));
}

#[test]
fn connections_are_explained_by_whoever_knows_their_calls() {
    let opaque = || Completeness::Opaque { reason: "Go".into() };
    let explained = |verdict, exchanges, told: Option<Sighting>, seen: bool| {
        let mut matcher = Matcher::default();
        hello(&mut matcher);
        if seen {
            matcher.exchange(exchange("/a", S, 2 * S, 200));
        }
        if let Some(sighting) = told {
            matcher.sighting(PID, sighting);
        }
        matcher.connection(progress(verdict, exchanges), 2 * S);
        tally(matcher.due(100 * S)).2
    };
    let call = || Some(sighting("/a", S, 2 * S, 200, 1));
    assert_eq!(explained(Completeness::Complete, 1, None, true), [ExplainedBy::Kernel]);
    assert_eq!(explained(Completeness::Complete, 1, call(), true), [ExplainedBy::Library]);
    assert_eq!(explained(opaque(), 0, call(), false), [ExplainedBy::Library]);
    assert_eq!(explained(opaque(), 0, None, false), [ExplainedBy::Nobody]);
    let later = sighting("/a", 9 * S, 10 * S, 200, 1);
    assert_eq!(explained(opaque(), 0, Some(later), false), [ExplainedBy::Nobody]);
    let elsewhere = Sighting { host: Wire::host_key("api.github.com"), ..sighting("/a", S, 2 * S, 200, 1) };
    assert_eq!(explained(opaque(), 0, Some(elsewhere), false), [ExplainedBy::Nobody]);
}

#[test]
fn a_tunnel_is_explained_by_calls_to_whom_it_leads_and_a_connection_to_a_proxy_alone_is_not() {
    let explained = |tunnel: Option<&str>, sees: bool| {
        let mut matcher = Matcher::default();
        if sees {
            let mut loose = exchange("/a", S, 2 * S, 200);
            loose.connection = None;
            matcher.exchange(loose);
        } else {
            hello(&mut matcher);
            matcher.sighting(PID, sighting("/a", S, 2 * S, 200, 1));
        }
        let mut news = progress(Completeness::Opaque { reason: "a tunnel (CONNECT)".into() }, 0);
        news.connection.name = Some(("proxy.internal".into(), NameSource::Dns));
        news.connection.tunnel = tunnel.map(Into::into);
        matcher.connection(news, 2 * S);
        tally(matcher.due(100 * S)).2
    };
    assert_eq!(explained(Some("api.stripe.com"), false), [ExplainedBy::Library]);
    assert_eq!(explained(Some("api.stripe.com"), true), [ExplainedBy::Kernel]);
    for sees in [true, false] {
        assert_eq!(explained(Some("api.github.com"), sees), [ExplainedBy::Nobody]);
        assert_eq!(explained(None, sees), [ExplainedBy::Nobody]);
    }
}

#[test]
fn a_connection_that_the_hosts_file_names_is_explained_by_a_call_to_the_name_and_to_the_address() {
    let explained = |host: &str, source| {
        let mut matcher = Matcher::default();
        hello(&mut matcher);
        let told = Sighting { host: Wire::host_key(host), ..sighting("/a", S, 2 * S, 200, 1) };
        matcher.sighting(PID, told);
        let mut news = progress(Completeness::Opaque { reason: "Go".into() }, 0);
        news.connection.name = Some(("db.internal".into(), source));
        matcher.connection(news, 2 * S);
        tally(matcher.due(100 * S)).2
    };
    assert_eq!(explained("db.internal", NameSource::Hosts), [ExplainedBy::Library]);
    assert_eq!(explained("127.0.0.2", NameSource::Hosts), [ExplainedBy::Library]);
    assert_eq!(explained("127.0.0.3", NameSource::Hosts), [ExplainedBy::Nobody]);
    // What a ClientHello says is whom the program calls.
    assert_eq!(explained("127.0.0.2", NameSource::Sni), [ExplainedBy::Nobody]);
}

/// A report of a connection that is open, with bytes in and exchanges.
fn open(verdict: Completeness, new_in: u64, exchanges: u64) -> Progress {
    let mut progress = progress(verdict, exchanges);
    progress.connection.closed = 0;
    (progress.last, progress.new_out, progress.new_in) = (false, 1, new_in);
    progress
}

/// Bytes out and in of connections, and who explains them.
fn bytes(decisions: Vec<Decision>) -> Vec<(u64, u64, ExplainedBy)> {
    let bytes = decisions.into_iter().filter_map(|decision| match decision {
        Decision::Connection(progress, by, _) => Some((progress.new_out, progress.new_in, by)),
        _ => None,
    });
    bytes.collect()
}

#[test]
fn bytes_of_a_librarys_call_under_way_wait_until_it_is_decided() {
    let opaque = Completeness::Opaque { reason: "Go".into() };
    for (verdict, seen) in [(Completeness::Complete, true), (opaque, false)] {
        let mut matcher = Matcher::default();
        hello(&mut matcher);
        // A stream of ten seconds, and a library that speaks each second.
        for second in 1..=10 {
            matcher.connection(open(verdict.clone(), 100, 0), second * S);
            matcher.told(PID, second * S);
            assert_eq!(bytes(matcher.due(second * S)), [], "at {second} s");
        }
        if seen {
            matcher.exchange(exchange("/stream", S, 11 * S, 200));
        }
        matcher.sightings(PID, vec![sighting("/stream", S, 11 * S, 200, 1)]);
        matcher.connection(open(verdict, 5, u64::from(seen)), 11 * S);
        matcher.told(PID, 12 * S);
        let booked = bytes(matcher.due(20 * S));
        assert!(booked.iter().all(|(.., by)| *by == ExplainedBy::Library), "{booked:?}");
        let sums = booked.iter().fold((0, 0), |sums, (out, inn, _)| (sums.0 + out, sums.1 + inn));
        assert_eq!(sums, (11, 1005));
    }
    // The call ends, and nothing moves on its connection any more.
    let mut matcher = Matcher::default();
    hello(&mut matcher);
    matcher.connection(open(Completeness::Complete, 100, 0), S);
    matcher.told(PID, 9 * S);
    assert_eq!(bytes(matcher.due(9 * S)), []);
    matcher.exchange(exchange("/stream", S, 10 * S, 200));
    matcher.sightings(PID, vec![sighting("/stream", S, 10 * S, 200, 1)]);
    assert_eq!(bytes(matcher.due(11 * S)), [(1, 100, ExplainedBy::Library)]);
}

#[test]
fn reports_of_a_connection_stay_in_order_when_its_library_is_late() {
    let opaque = || Completeness::Opaque { reason: "Go".into() };
    let mut matcher = Matcher::default();
    hello(&mut matcher);
    matcher.connection(open(opaque(), 100, 0), S);
    matcher.connection(progress(opaque(), 0), 2 * S);
    assert_eq!(bytes(matcher.due(S + HOLD + SLACK)), [], "the first report must wait");
    matcher.sightings(PID, vec![sighting("/a", S, 2 * S, 200, 1)]);
    matcher.told(PID, 5 * S);
    assert_eq!(bytes(matcher.due(20 * S)), [(11, 110, ExplainedBy::Library)]);
    assert!(matcher.connections.carried().is_empty());
}

#[test]
fn bytes_of_a_connection_without_calls_are_booked_at_its_end_or_when_nobody_explains_them_for_long() {
    let opaque = || Completeness::Opaque { reason: "Go".into() };
    let mut matcher = Matcher::default();
    hello(&mut matcher);
    matcher.connection(open(opaque(), 100, 0), S);
    matcher.told(PID, 2 * S);
    assert_eq!(bytes(matcher.due(10 * S)), []);
    matcher.connection(progress(opaque(), 0), 11 * S);
    matcher.told(PID, 12 * S);
    assert_eq!(bytes(matcher.due(20 * S)), [(11, 110, ExplainedBy::Nobody)]);

    matcher.connection(open(opaque(), 7, 0), 21 * S);
    matcher.told(PID, 22 * S);
    assert_eq!(bytes(matcher.due(30 * S)), []);
    assert_eq!(bytes(matcher.due(30 * S + PATIENCE)), [(1, 7, ExplainedBy::Nobody)]);

    matcher.connection(open(opaque(), 8, 0), 1_000 * S);
    matcher.told(PID, 1_001 * S);
    assert_eq!(bytes(matcher.due(1_010 * S)), []);
    assert_eq!(bytes(matcher.finish()), [(1, 8, ExplainedBy::Nobody)], "nothing is lost at the stop");
}

#[test]
fn bytes_of_a_program_without_a_library_do_not_wait() {
    let mut matcher = Matcher::default();
    matcher.connection(open(Completeness::Complete, 100, 0), S);
    assert_eq!(bytes(matcher.due(S + HOLD + SLACK)), [(1, 100, ExplainedBy::Kernel)]);
}

#[test]
fn a_call_without_a_socket_explains_the_connection_to_its_host() {
    let explained = |host: &str, told: bool| {
        let mut matcher = Matcher::default();
        hello(&mut matcher);
        let mut call = exchange("/a", S, 2 * S, 200);
        call.connection = None;
        call.host = host.into();
        matcher.exchange(call);
        if told {
            matcher.sightings(PID, vec![sighting("/a", S, 2 * S, 200, 1)]);
        }
        matcher.connection(progress(Completeness::Opaque { reason: "memory BIOs".into() }, 0), 2 * S);
        tally(matcher.due(100 * S)).2
    };
    assert_eq!(explained("api.stripe.com", false), [ExplainedBy::Kernel]);
    assert_eq!(explained("api.stripe.com", true), [ExplainedBy::Library]);
    assert_eq!(explained("api.github.com", false), [ExplainedBy::Nobody]);
}

#[test]
fn a_process_that_the_kernel_cannot_read_does_not_crowd_out_others() {
    let mut matcher = Matcher::default();
    hello(&mut matcher);
    for n in 0..CAPACITY as u64 + 100 {
        matcher.sighting(PID + 1, sighting("/opaque", n, n + 1, 200, 1));
    }
    assert!(matcher.sightings <= CAPACITY);
    matcher.sightings(PID, vec![sighting("/a", S, 2 * S, 200, 1)]);
    matcher.exchange(exchange("/a", S, 2 * S, 200));
    assert_eq!(tally(matcher.due(100 * S)), (0, 1, vec![]));
    let kept: usize = matcher.processes.values().map(|process| process.sightings.len()).sum();
    assert_eq!(kept, matcher.sightings, "what is counted is what is there");
}

#[test]
fn memory_is_bounded_and_nothing_is_forgotten_uncounted() {
    let mut matcher = Matcher::default();
    let n = CAPACITY + 10;
    for _ in 0..n {
        matcher.exchange(exchange("/a", S, 2 * S, 200));
    }
    assert!(matcher.fresh.len() + matcher.due.len() <= CAPACITY);
    assert_eq!(tally(matcher.due(100 * S)).0, n);
    matcher.due(200 * S);
    assert!(matcher.processes.is_empty());
}
