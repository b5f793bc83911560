#![allow(clippy::unwrap_used)]
use super::*;
use crate::{
    coverage::Completeness,
    identity::{executable::Tls, process::CAPACITY},
    wire::{
        exchange::{End, Outcome},
        record::{Direction, Execution, Piece, Protocol},
    },
};

fn socket(cookie: u64, opened: u64, protocol: Protocol) -> Socket {
    let mut bytes = vec![0; Socket::SIZE];
    bytes[140..142].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
    let decoded = Socket::decode(&bytes).unwrap();
    Socket { cookie, opened, established: opened + 1, tgid: u32::MAX, protocol, ..decoded }
}

fn piece(cookie: u64, stream: u64, bytes: &[u8]) -> Piece<'_> {
    Piece {
        cookie,
        stream,
        tgid: u32::MAX,
        offset: 0,
        begun: 10,
        at: 20,
        total: bytes.len() as u32,
        lost: 0,
        first: true,
        direction: Direction::Out,
        library: 0,
        bytes,
    }
}

fn told(observer: &mut Observer) -> (Vec<Progress>, Vec<Exchange>) {
    let (mut progress, mut exchanges) = (Vec::new(), Vec::new());
    for observation in observer.observations() {
        match observation {
            Observation::Connection(news) => progress.push(news),
            Observation::Exchange(exchange) => exchanges.push(exchange),
        }
    }
    (progress, exchanges)
}

const REQUEST: &[u8] = b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n";

fn executed(tgid: u32, started: u64) -> Execution {
    Execution { tgid, parent: 1, uid: 0, started, cgroup: 5, comm: "web".into(), path: "/usr/bin/web".into() }
}

#[test]
fn calls_under_way_when_nobody_looks_any_more_are_told_with_an_unknown_outcome() {
    let mut observer = Observer::default();
    observer.processes.executed(&executed(u32::MAX, 0));
    observer.seen(&Socket { bytes_out: 9, ..socket(1, 5, Protocol::Http1) });
    observer.seen(&Socket { bytes_out: 9, ..socket(2, 5, Protocol::Tls) });
    observer.plain(&piece(1, 1, REQUEST));
    observer.tls(&piece(2, 70, REQUEST));
    observer.tls(&piece(0, 71, REQUEST));
    observer.finish(99);
    let (progress, exchanges) = told(&mut observer);
    let said: Vec<_> = exchanges
        .iter()
        .map(|call| (call.connection, call.tls, call.http.outcome, call.http.begun, call.http.ended))
        .collect();
    assert_eq!(
        said,
        [
            (Some(1), false, Outcome::Unknown, 10, 99),
            (Some(2), true, Outcome::Unknown, 10, 99),
            (None, true, Outcome::Unknown, 10, 99),
        ]
    );
    assert!(progress.iter().all(|news| !news.last && news.connection.exchanges == 1));
    assert_eq!(progress.len(), 2);
    // The process is gone, and its plaintext crossed the library all the same.
    assert_eq!(progress[1].connection.tls, Some(Tls::OpenSsl));
}

#[test]
fn a_plain_connection_that_broke_before_its_answer_is_named_by_its_request() {
    for closes in [true, false] {
        let mut observer = Observer::default();
        let socket = Socket { bytes_out: REQUEST.len() as u64, ..socket(1, 5, Protocol::Http1) };
        observer.seen(&socket);
        observer.plain(&piece(1, 1, REQUEST));
        match closes {
            true => observer.closed(&Socket { closed: 30, ..socket }),
            false => observer.finish(30),
        }
        let (progress, exchanges) = told(&mut observer);
        assert_eq!((progress.len(), exchanges.len()), (1, 1));
        assert_eq!(progress[0].connection.name, Some(("h".into(), NameSource::Host)), "closes: {closes}");
    }
}

#[test]
fn a_plain_connection_is_named_by_its_request_before_anything_is_told_of_it() {
    let second = 1_000_000_000;
    let mut observer = Observer::default();
    let open = Socket { bytes_out: 12, ..socket(1, 5, Protocol::Http1) };
    observer.seen(&open);
    observer.plain(&piece(1, 1, &REQUEST[..12]));
    // Half a head names nobody: its bytes wait for the rest, but not for ever.
    observer.counted(&open, second);
    assert_eq!(told(&mut observer).0.len(), 0);
    observer.plain(&Piece { offset: 12, ..piece(1, 1, &REQUEST[12..]) });
    let mut sums = (0, 0);
    for (number, bytes_in) in [100, 300, 700].into_iter().enumerate() {
        let grown = Socket { bytes_out: REQUEST.len() as u64, bytes_in, ..open.clone() };
        observer.counted(&grown, (number as u64 + 2) * second);
        let (progress, exchanges) = told(&mut observer);
        assert_eq!((progress.len(), exchanges.len()), (1, 0), "its exchange is under way");
        assert_eq!(progress[0].connection.name, Some(("h".into(), NameSource::Host)));
        sums = (sums.0 + progress[0].new_out, sums.1 + progress[0].new_in);
    }
    assert_eq!(sums, (REQUEST.len() as u64, 700));

    // A request without a host: its address is all there is.
    let open = Socket { bytes_out: 18, ..socket(2, 5, Protocol::Http1) };
    observer.seen(&open);
    observer.plain(&piece(2, 2, b"GET /a HTTP/1.0\r\n\r\n"));
    observer.counted(&open, 2 * second);
    assert_eq!(told(&mut observer).0.len(), 0);
    observer.counted(&open, 6 * second);
    let (progress, _) = told(&mut observer);
    assert_eq!((progress[0].connection.name.clone(), progress[0].new_out), (None, 18));
}

#[test]
fn a_vendor_that_is_an_address_has_one_name_in_calls_and_connections() {
    let mut observer = Observer::default();
    let request: &[u8] = b"GET /a HTTP/1.1\r\nHost: [fd00:9::2]:8080\r\n\r\n";
    let open = Socket { bytes_out: request.len() as u64, ..socket(1, 5, Protocol::Http1) };
    observer.seen(&open);
    observer.plain(&piece(1, 1, request));
    observer.closed(&Socket { closed: 30, ..open });
    let (progress, exchanges) = told(&mut observer);
    assert_eq!((exchanges[0].host.as_str(), exchanges[0].port), ("fd00:9::2", 8080));
    assert_eq!(progress[0].connection.name, Some(("fd00:9::2".into(), NameSource::Host)));
}

#[test]
fn a_tunnel_is_not_named_by_whom_it_leads_to() {
    let mut observer = Observer::default();
    let open = Socket { bytes_out: 60, ..socket(1, 5, Protocol::Http1) };
    observer.seen(&open);
    observer.plain(&piece(1, 1, b"CONNECT api.stripe.com:443 HTTP/1.1\r\nHost: api.stripe.com\r\n\r\n"));
    observer.closed(&Socket { closed: 30, ..open });
    assert_eq!(told(&mut observer).0[0].connection.name, None);
}

#[test]
fn a_connection_is_what_tls_on_it_said_however_it_began_and_after_the_library_let_go_of_it() {
    let connect: &[u8] = b"CONNECT api.stripe.com:443 HTTP/1.1\r\nHost: api.stripe.com\r\n\r\n";
    for (protocol, reason) in
        [(Protocol::Http1, "a tunnel (CONNECT)"), (Protocol::Other, "the protocol is unknown")]
    {
        for (has_tls, is_freed) in [(true, true), (true, false), (false, false)] {
            let mut observer = Observer::default();
            let open = Socket { bytes_out: 60, bytes_in: 40, ..socket(1, 5, protocol) };
            observer.seen(&open);
            if protocol == Protocol::Http1 {
                observer.plain(&piece(1, 1, connect));
                let answer = Piece { direction: Direction::In, ..piece(1, 1, b"HTTP/1.1 200 OK\r\n\r\n") };
                observer.plain(&answer);
            }
            observer.counted(&open, 1_000);
            assert_eq!(told(&mut observer).0.len(), 0, "what is inside may be about to come");
            if has_tls {
                observer.tls(&piece(1, 70, REQUEST));
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
                observer.tls(&Piece { direction: Direction::In, ..piece(1, 70, answer) });
            }
            if is_freed {
                observer.tls_ended(70, 30);
            }
            observer.closed(&Socket { closed: 40, ..open });
            observer.expire(u64::MAX);
            let (progress, exchanges) = told(&mut observer);
            let connection = &progress.last().unwrap().connection;
            let expected = match has_tls {
                true => Completeness::Complete,
                false => Completeness::Opaque { reason: reason.into() },
            };
            assert_eq!(connection.verdict, expected, "{protocol:?}, TLS: {has_tls}, freed: {is_freed}");
            assert_eq!((exchanges.len(), connection.exchanges), (has_tls.into(), has_tls.into()));
            let tunnel = (protocol == Protocol::Http1).then_some("api.stripe.com");
            assert_eq!(connection.tunnel.as_deref(), tunnel);
        }
    }
}

#[test]
fn what_was_under_way_when_its_library_freed_it_ends_as_its_connection_does() {
    let part: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc";
    for (ended, unread, outcome) in [
        (End::Vendor, false, Outcome::Aborted),
        (End::Vendor, true, Outcome::Abandoned),
        (End::Program, false, Outcome::Abandoned),
        (End::Unknown, false, Outcome::Unknown),
    ] {
        let mut observer = Observer::default();
        let open = Socket { bytes_out: 9, ..socket(1, 5, Protocol::Tls) };
        observer.seen(&open);
        observer.tls(&piece(1, 70, REQUEST));
        observer.tls(&Piece { direction: Direction::In, ..piece(1, 70, part) });
        observer.tls_freed(70, 30);
        assert_eq!(told(&mut observer).1.len(), 0, "nobody knows yet who ended it");
        observer.closed(&Socket { closed: 40, ended, unread, ..open });
        let (progress, exchanges) = told(&mut observer);
        let said: Vec<_> = exchanges.iter().map(|call| (call.http.outcome, call.http.ended)).collect();
        assert_eq!(said, [(outcome, 30)], "{ended:?} {unread}");
        assert!(progress[0].last && progress[0].connection.exchanges == 1);
    }
}

#[test]
fn a_connection_that_its_program_keeps_without_its_library_is_not_waited_for_for_ever() {
    for (ended, outcome) in [(End::Unknown, Outcome::Cancelled), (End::Vendor, Outcome::NoResponse)] {
        let mut observer = Observer::default();
        let open = Socket { bytes_out: 9, ..socket(1, 5, Protocol::Tls) };
        observer.seen(&open);
        observer.tls(&piece(1, 70, REQUEST));
        observer.tls_freed(70, 30);
        observer.counted(&Socket { ended, ..open }, 40);
        observer.expire(4_000_000_000);
        assert_eq!(told(&mut observer).1.len(), 0);
        observer.expire(6_000_000_000);
        let (_, exchanges) = told(&mut observer);
        let said: Vec<_> = exchanges.iter().map(|call| (call.http.outcome, call.http.ended)).collect();
        assert_eq!(said, [(outcome, 30)]);
        assert_eq!(observer.open_connections(), 1);
    }
}

#[test]
fn a_call_keeps_its_process_however_many_came_since_and_one_without_is_counted() {
    let mut observer = Observer::default();
    observer.processes.executed(&executed(u32::MAX, 3));
    observer.tls(&piece(0, 70, REQUEST));
    for n in 0..=CAPACITY as u32 {
        observer.processes.executed(&executed(u32::MAX - 1, u64::from(n)));
    }
    assert_eq!(observer.processes.latest(u32::MAX), None);
    observer.tls(&piece(0, 71, REQUEST));
    observer.tls_ended(70, 30);
    observer.tls_ended(71, 30);
    let (_, exchanges) = told(&mut observer);
    assert_eq!(exchanges.len(), 1);
    assert_eq!(exchanges[0].process.executable, "/usr/bin/web");
    assert_eq!(observer.unowned(), 1);
}

#[test]
fn a_socket_that_connects_again_is_another_connection_even_if_the_end_of_the_first_was_lost() {
    let mut observer = Observer::default();
    observer.seen(&Socket { bytes_out: 3, ..socket(1, 5, Protocol::Other) });
    observer.counted(&Socket { bytes_out: 4, ..socket(1, 50, Protocol::Other) }, 60);
    // Late news of the first changes nothing.
    observer.closed(&Socket { closed: 70, ..socket(1, 5, Protocol::Other) });
    observer.closed(&Socket { bytes_out: 4, closed: 80, ..socket(1, 50, Protocol::Other) });
    observer.closed(&Socket { bytes_out: 4, closed: 80, ..socket(1, 50, Protocol::Other) });
    let (progress, _) = told(&mut observer);
    let ends = progress.iter().filter(|news| news.last);
    let said: Vec<_> = ends.map(|news| (news.connection.opened, news.connection.closed)).collect();
    assert_eq!(said, [(5, 50), (50, 80)]);
    assert_eq!(progress.iter().map(|news| news.new_out).sum::<u64>(), 7);
    assert_eq!(observer.open_connections(), 0);
}

#[test]
fn what_began_before_we_looked_is_not_said_to_be_no_http() {
    for (foreign, offered, expected) in [
        (Some(false), vec![], "it was open before we looked"),
        (Some(true), vec![], "it was open before its process was moved into the cgroup"),
        (None, vec!["h2".to_owned(), "http/1.1".to_owned()], "HTTP/2 whose beginning was not seen"),
        (None, vec!["http/1.1".to_owned()], "what it carries is not HTTP"),
    ] {
        let mut observer = Observer::default();
        let open = Socket { bytes_out: 9, ..socket(2, 5, Protocol::Tls) };
        match foreign {
            Some(foreign) => observer.adopt(&Socket { foreign, ..open.clone() }),
            None => _ = observer.seen(&open),
        }
        observer.live.get_mut(&2).unwrap().connection.offered = offered;
        // A frame of HTTP/2: HEADERS with a reference to a table that was filled before.
        observer.tls(&piece(2, 70, b"\x00\x00\x03\x01\x05\x00\x00\x00\x07\xbe\xbf\xc0"));
        observer.closed(&Socket { bytes_out: 20, closed: 70, ..open });
        observer.expire(u64::MAX);
        let (progress, _) = told(&mut observer);
        let Completeness::Opaque { reason } = &progress.last().unwrap().connection.verdict else {
            panic!("{progress:#?}")
        };
        assert!(reason.starts_with(expected), "{reason}");
    }
}

#[test]
fn what_streams_keep_for_later_is_counted_and_given_back() {
    let mut observer = Observer::default();
    for cookie in [1, 2] {
        observer.seen(&socket(cookie, 5, Protocol::Http1));
        observer.plain(&Piece { offset: 100, ..piece(cookie, cookie, REQUEST) });
    }
    assert_eq!(observer.stashed, 2 * REQUEST.len());
    observer.closed(&Socket { closed: 9, ..socket(1, 5, Protocol::Http1) });
    assert_eq!(observer.stashed, REQUEST.len());
    observer.finish(10);
    assert_eq!(observer.stashed, 0);
}

#[test]
fn final_counters_are_not_undone_by_a_look_from_before_them() {
    let mut observer = Observer::default();
    let open = Socket { bytes_out: 9, ..socket(2, 5, Protocol::Tls) };
    observer.seen(&open);
    observer.tls(&piece(2, 70, REQUEST));
    observer.closed(&Socket { bytes_out: 20, closed: 70, ..open.clone() });
    // Read before the end, applied after it, while the stream may still be read from.
    observer.counted(&open, 80);
    observer.expire(u64::MAX);
    let (progress, _) = told(&mut observer);
    let last = progress.last().unwrap();
    assert!(last.last);
    assert_eq!((last.connection.closed, last.connection.bytes_out), (70, 20));
    assert_eq!(observer.open_connections(), 0);
}

#[test]
fn streams_beyond_those_followed_are_counted_and_the_others_go_on() {
    let mut observer = Observer::default();
    observer.processes.executed(&executed(u32::MAX, 0));
    let followed = pieces::MAX_STREAMS as u64;
    for stream in 1..=followed + 3 {
        observer.tls(&piece(0, stream, b"GET "));
    }
    assert_eq!(observer.unfollowed(), 3);
    observer.tls(&Piece { offset: 4, ..piece(0, 1, &REQUEST[4..]) });
    assert_eq!(observer.unfollowed(), 3);
    observer.tls_ended(1, 30);
    assert_eq!(told(&mut observer).1.len(), 1);
    observer.tls(&piece(0, followed + 4, b"GET "));
    assert_eq!(observer.unfollowed(), 3, "there is room again");
}

#[test]
fn of_tls_over_a_socket_that_was_left_out_calls_to_this_machine_are_left_out_too() {
    for (host, cookie, told_of) in [
        ("localhost:8443", 9, false),
        ("127.0.0.1", 9, false),
        ("[::1]:8443", 9, false),
        ("api.stripe.com", 9, true),
        ("localhost", 0, true), // its socket is unknown, not left out
    ] {
        let mut observer = Observer::default();
        observer.processes.executed(&executed(u32::MAX, 0));
        let request = format!("GET /a HTTP/1.1\r\nHost: {host}\r\n\r\n");
        observer.tls(&piece(cookie, 70, request.as_bytes()));
        observer.tls_ended(70, 30);
        assert_eq!(told(&mut observer).1.len(), usize::from(told_of), "{host}");
        assert_eq!(observer.unowned(), 0);
    }
}
