#![allow(clippy::unwrap_used)]
use proptest::prelude::*;

use super::*;

use Direction::{In, Out};

/// Feeds whole operations; the time is the operation's number.
fn talk(conversation: &mut Conversation, operations: &[(Direction, &[u8])]) -> Vec<Exchange> {
    for (at, (direction, bytes)) in operations.iter().enumerate() {
        let at = at as u64 + 1;
        conversation.feed(*direction, Chunk { bytes, begun: at * 10, at: at * 10 + 5, boundary: true });
    }
    conversation.exchanges()
}

fn summary(exchanges: &[Exchange]) -> Vec<(&str, &str, u16, u64, u64, Outcome)> {
    exchanges
        .iter()
        .map(|e| (e.method.as_str(), e.path.as_str(), e.status, e.body_out, e.body_in, e.outcome))
        .collect()
}

#[test]
fn keep_alive_exchanges_are_told_apart_with_exact_bodies_and_times() {
    let mut conversation = Conversation::default();
    let exchanges = talk(
        &mut conversation,
        &[
            (Out, b"POST /v1/charges?x=1 HTTP/1.1\r\nHost: api.stripe.com\r\nContent-Length: 5\r\n\r\n"),
            (Out, b"a=b&c"),
            (In, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n"),
            (In, b"abc\r\n0\r\n\r\n"),
            (Out, b"GET /v1/me HTTP/1.1\r\nHost: api.stripe.com\r\n\r\n"),
            (In, b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno"),
        ],
    );
    assert_eq!(
        summary(&exchanges),
        [
            ("POST", "/v1/charges", 200, 5, 3, Outcome::Complete),
            ("GET", "/v1/me", 404, 0, 2, Outcome::Complete),
        ]
    );
    assert_eq!((exchanges[0].begun, exchanges[0].head, exchanges[0].ended), (10, 35, 45));
    assert_eq!(exchanges[0].host, "api.stripe.com");
    assert_eq!(conversation.understanding(), Understanding::Whole);
}

#[test]
fn what_an_answer_says_of_quotas_is_kept_and_no_other_field() {
    let exchanges = talk(
        &mut Conversation::default(),
        &[
            (Out, b"GET /a HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer secret\r\n\r\n"),
            (In, b"HTTP/1.1 103 Early Hints\r\nX-RateLimit-Limit: 1\r\n\r\n"),
            (In, b"HTTP/1.1 200 OK\r\nX-RateLimit-Limit: 60\r\nSet-Cookie: secret\r\nX-Ratelimit-Remaining: 59 \r\nContent-Length: 0\r\n\r\n"),
        ],
    );
    let stated = [("x-ratelimit-limit", "60".to_owned()), ("x-ratelimit-remaining", "59".to_owned())];
    assert_eq!(exchanges[0].stated, stated);
}

#[test]
fn responses_without_a_body_leave_the_next_response_alone() {
    let mut conversation = Conversation::default();
    let exchanges = talk(
        &mut conversation,
        &[
            (Out, b"HEAD /a HTTP/1.1\r\nHost: h\r\n\r\nGET /b HTTP/1.1\r\nHost: h\r\n\r\nGET /c HTTP/1.1\r\nHost: h\r\n\r\n"),
            (In, b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nHTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n"),
            (In, b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n"),
        ],
    );
    assert_eq!(
        summary(&exchanges),
        [
            ("HEAD", "/a", 200, 0, 0, Outcome::Complete),
            ("GET", "/b", 304, 0, 0, Outcome::Complete),
            ("GET", "/c", 204, 0, 0, Outcome::Complete),
        ]
    );
}

#[test]
fn a_full_answer_before_the_request_was_sent_is_complete_when_the_server_closes() {
    let mut conversation = Conversation::default();
    let operations: &[(Direction, &[u8])] = &[
        (Out, b"POST /up HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\nabc"),
        (In, b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig"),
        (Out, b"defg"),
    ];
    assert!(talk(&mut conversation, operations).is_empty());
    conversation.close(99, End::Vendor);
    let exchanges = conversation.exchanges();
    assert_eq!(summary(&exchanges), [("POST", "/up", 413, 7, 3, Outcome::Complete)]);
    assert_eq!(exchanges[0].ended, 25, "it ended with its answer, not with the connection");
}

#[test]
fn a_body_without_length_ends_with_the_connection() {
    let mut conversation = Conversation::default();
    let operations: &[(Direction, &[u8])] =
        &[(Out, b"GET / HTTP/1.0\r\n\r\n"), (In, b"HTTP/1.0 200 OK\r\n\r\nhello"), (In, b" world")];
    assert!(talk(&mut conversation, operations).is_empty());
    conversation.close(99, End::Vendor);
    let exchanges = conversation.exchanges();
    assert_eq!(summary(&exchanges), [("GET", "/", 200, 0, 11, Outcome::Complete)]);
    assert_eq!(exchanges[0].ended, 99);
}

#[test]
fn a_connection_that_ends_too_early_says_how_far_it_came() {
    let mut conversation = Conversation::default();
    talk(
        &mut conversation,
        &[
            (Out, b"GET /a HTTP/1.1\r\nHost: h\r\n\r\nGET /b HTTP/1.1\r\nHost: h\r\n\r\n"),
            (In, b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"),
        ],
    );
    conversation.close(7, End::Vendor);
    assert_eq!(
        summary(&conversation.exchanges()),
        [("GET", "/a", 200, 0, 4, Outcome::Aborted), ("GET", "/b", 0, 0, 0, Outcome::NoResponse)]
    );
}

#[test]
fn who_ends_a_connection_first_decides_how_what_was_under_way_came_out() {
    use Outcome::{Abandoned, Aborted, Cancelled, Complete, NoResponse, Unknown};
    let length: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf";
    let chunked: &[u8] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf";
    let until_close: &[u8] = b"HTTP/1.1 200 OK\r\n\r\nhalf";
    let whole: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nhalf";
    for (answer, by_vendor, broken, by_program, by_whom_is_unknown) in [
        (&b""[..], NoResponse, NoResponse, Cancelled, NoResponse),
        (length, Aborted, Aborted, Abandoned, Unknown),
        (chunked, Aborted, Aborted, Abandoned, Unknown),
        (until_close, Complete, Aborted, Abandoned, Complete),
        (whole, Complete, Complete, Complete, Complete),
    ] {
        for (by, outcome) in [
            (End::Vendor, by_vendor),
            (End::Broken, broken),
            (End::Program, by_program),
            (End::Unknown, by_whom_is_unknown),
        ] {
            let mut conversation = Conversation::default();
            // The last of its request was not sent.
            let request: &[u8] = b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\na";
            talk(&mut conversation, &[(Out, request), (In, answer)]);
            assert!(conversation.is_under_way());
            conversation.close(7, by);
            let outcomes: Vec<_> = conversation.exchanges().iter().map(|exchange| exchange.outcome).collect();
            assert_eq!(outcomes, [outcome], "{by:?} after {}", String::from_utf8_lossy(answer));
            assert!(!conversation.is_under_way());
        }
    }
}

#[test]
fn bytes_behind_the_end_are_survived() {
    // Found by fuzzing: the rest of a body whose exchange had ended was read for ever.
    let mut conversation = Conversation::default();
    talk(&mut conversation, &[(Out, b"PUT /a HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nab")]);
    conversation.close(1, End::Vendor);
    let operations: &[(Direction, &[u8])] = &[(Out, b"cd"), (Out, b"more"), (In, b"HTTP/1.1 200 OK\r\n\r\n")];
    assert_eq!(talk(&mut conversation, operations).len(), 1);
}

#[test]
fn an_answer_before_the_request_is_sent_ends_with_the_later_of_both() {
    let mut conversation = Conversation::default();
    let exchanges = talk(
        &mut conversation,
        &[
            (Out, b"PUT /a HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nab"),
            (In, b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n"),
            (Out, b"cd"),
        ],
    );
    assert_eq!(summary(&exchanges), [("PUT", "/a", 413, 4, 0, Outcome::Complete)]);
    assert_eq!(exchanges[0].ended, 35);
}

#[test]
fn expect_continue_is_one_exchange() {
    let mut conversation = Conversation::default();
    let exchanges = talk(
        &mut conversation,
        &[
            (Out, b"PUT /a HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"),
            (In, b"HTTP/1.1 100 Continue\r\n\r\n"),
            (Out, b"ab"),
            (In, b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n"),
        ],
    );
    assert_eq!(summary(&exchanges), [("PUT", "/a", 201, 2, 0, Outcome::Complete)]);
}

#[test]
fn a_tunnel_and_an_upgrade_make_the_rest_opaque() {
    let mut tunnel = Conversation::default();
    let exchanges = talk(
        &mut tunnel,
        &[
            (Out, b"CONNECT api.example:443 HTTP/1.1\r\nHost: api.example:443\r\n\r\n"),
            (In, b"HTTP/1.1 200 Connection established\r\n\r\n"),
            (Out, b"\x16\x03\x01"),
            (Out, b"GET /forged HTTP/1.1\r\nHost: h\r\n\r\n"),
        ],
    );
    assert_eq!(summary(&exchanges), [("CONNECT", "", 200, 0, 0, Outcome::Switched)]);
    assert_eq!(tunnel.understanding(), Understanding::Opaque("a tunnel (CONNECT)"));

    let mut socket = Conversation::default();
    let exchanges = talk(
        &mut socket,
        &[
            (Out, b"GET /ws HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\n\r\n"),
            (In, b"HTTP/1.1 101 Switching Protocols\r\n\r\n\x81\x02hi"),
        ],
    );
    assert_eq!(summary(&exchanges), [("GET", "/ws", 101, 0, 0, Outcome::Switched)]);
    assert!(matches!(socket.understanding(), Understanding::Opaque(_)));
}

#[test]
fn a_refused_tunnel_leaves_the_connection_as_it_was() {
    let mut conversation = Conversation::default();
    let exchanges = talk(
        &mut conversation,
        &[
            (Out, b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n"),
            (In, b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n"),
            (Out, b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"),
            (In, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
        ],
    );
    assert_eq!(exchanges.len(), 2);
    assert_eq!(conversation.understanding(), Understanding::Whole);
}

#[test]
fn http2_is_opaque_from_its_preface() {
    let mut conversation = Conversation::default();
    assert!(
        talk(&mut conversation, &[(Out, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04"), (In, b"\0\0\0\x04")])
            .is_empty()
    );
    assert_eq!(conversation.understanding(), Understanding::Opaque("HTTP/2 whose beginning was not seen"));
}

#[test]
fn missing_content_is_counted_and_missing_framing_is_a_break() {
    let mut conversation = Conversation::default();
    talk(
        &mut conversation,
        &[
            (Out, b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n"),
            (In, b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nabc"),
        ],
    );
    conversation.skip(In, 997, 50);
    assert_eq!(summary(&conversation.exchanges()), [("GET", "/a", 200, 0, 1000, Outcome::Complete)]);
    assert_eq!(conversation.understanding(), Understanding::Whole);

    talk(&mut conversation, &[(Out, b"GET /b HTTP/1.1\r\nHost: h\r\n\r\n")]);
    conversation.skip(In, 10, 60);
    assert_eq!(summary(&conversation.exchanges()), [("GET", "/b", 0, 0, 0, Outcome::Unknown)]);
    assert_eq!(conversation.understanding(), Understanding::Broken { at: 1041 });
}

#[test]
fn what_the_vendor_broke_is_malformed_and_what_was_lost_is_unknown() {
    const GET: (Direction, &[u8]) =
        (Out, b"GET /a HTTP/1.1\r\nHost: h\r\n\r\nGET /b HTTP/1.1\r\nHost: h\r\n\r\n");
    let chunked: &[u8] =
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nZZ\r\nhello\r\n";
    for (answer, status, body) in [
        (chunked, 200, 5),
        (b"hello from 1991", 0, 0),
        // How long it is no two clients agree on, but on its status all do.
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 7\r\n\r\nhello", 200, 0),
        (b"HTTP/1.1 503 No\r\nX: \0\r\nContent-Length: 5\r\n\r\nhello", 503, 0),
        (b"ICY 200 OK\r\nContent-Length: 5\r\n\r\nhello", 0, 0),
    ] {
        let mut conversation = Conversation::default();
        let exchanges = talk(&mut conversation, &[GET, (In, answer)]);
        let expected =
            [("GET", "/a", status, 0, body, Outcome::Malformed), ("GET", "/b", 0, 0, 0, Outcome::Unknown)];
        assert_eq!(summary(&exchanges), expected, "only the answered one was broken");
        assert!(matches!(conversation.understanding(), Understanding::Broken { .. }));
    }

    // Beyond our bounds.
    let long = [b"HTTP/1.1 200 OK\r\nX: ".to_vec(), vec![b'a'; MAX_HEAD]].concat();
    let many = [b"HTTP/1.1 200 OK\r\n".to_vec(), b"X: a\r\n".repeat(2000), b"\r\n".to_vec()].concat();
    for answer in [long, many] {
        let exchanges = talk(&mut Conversation::default(), &[GET, (In, &answer)]);
        let expected = [("GET", "/a", 200, 0, 0, Outcome::Unknown), ("GET", "/b", 0, 0, 0, Outcome::Unknown)];
        assert_eq!(summary(&exchanges), expected, "its status is known even so");
    }

    // Where bytes were missing before, what makes no sense may be our own fault.
    let mut conversation = Conversation::default();
    conversation.skip(In, 10, 1);
    assert_eq!(
        summary(&talk(
            &mut conversation,
            &[
                (Out, b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n"),
                (In, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nZZ"),
            ]
        )),
        [("GET", "/a", 200, 0, 0, Outcome::Unknown)]
    );
}

#[test]
fn an_answer_that_clients_read_though_it_bends_the_rules_is_complete_and_leaves_the_next_alone() {
    for line in ["X-A: one\r\n  two", "X-A : one", "X A: one", "X(A): one", "X-A: a\x01", "nonsense", ": v"] {
        let answer = format!("HTTP/1.1 200 OK\r\n{line}\r\nContent-Length: 2\r\n\r\nok");
        let mut conversation = Conversation::default();
        let exchanges = talk(
            &mut conversation,
            &[
                (Out, b"GET /a HTTP/1.1\r\nHost: h\r\nX(A): b\r\n\r\n"),
                (In, answer.as_bytes()),
                (Out, b"GET /b HTTP/1.1\r\nHost: h\r\n\r\n"),
                (In, b"HTTP/1.1 404 None\r\nContent-Length: 0\r\n\r\n"),
            ],
        );
        let expected =
            [("GET", "/a", 200, 0, 2, Outcome::Complete), ("GET", "/b", 404, 0, 0, Outcome::Complete)];
        assert_eq!(summary(&exchanges), expected, "{line}");
        assert_eq!((exchanges[0].bent, exchanges[1].bent), (true, false));
        assert_eq!(conversation.understanding(), Understanding::Whole);
    }
}

#[test]
fn a_broken_conversation_resumes_with_a_whole_request_and_never_inside_an_operation() {
    let mut conversation = Conversation::default();
    talk(&mut conversation, &[(In, b"the rest of a response that began before we looked")]);
    conversation.feed(
        Out,
        Chunk { bytes: b"GET /inside HTTP/1.1\r\nHost: h\r\n\r\n", begun: 1, at: 1, boundary: false },
    );
    assert!(!matches!(conversation.understanding(), Understanding::Whole));
    let exchanges = talk(
        &mut conversation,
        &[
            (Out, b"GET /part"),
            (Out, b"ial HTTP/1.1\r\nHost: h\r\n\r\n"),
            (In, b"still nothing that we know"),
            (Out, b"GET /whole HTTP/1.1\r\nHost: h\r\n\r\n"),
            (In, b"tail of an older response"),
            (In, b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx"),
        ],
    );
    assert_eq!(summary(&exchanges), [("GET", "/whole", 200, 0, 1, Outcome::Complete)]);
}

#[test]
fn a_response_that_nobody_asked_for_is_not_matched_to_a_later_request() {
    let mut conversation = Conversation::default();
    let exchanges = talk(
        &mut conversation,
        &[
            (In, b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n"),
            (Out, b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n"),
            (In, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
        ],
    );
    assert_eq!(summary(&exchanges), [("GET", "/a", 200, 0, 0, Outcome::Complete)]);
}

#[test]
fn heads_and_pipelines_are_bounded() {
    let mut conversation = Conversation::default();
    let flood = vec![b'a'; 3 * MAX_HEAD];
    for piece in flood.chunks(1000) {
        conversation.feed(Out, Chunk { bytes: piece, begun: 0, at: 0, boundary: false });
    }
    assert_eq!(conversation.understanding(), Understanding::Broken { at: (MAX_HEAD as u64 / 1000) * 1000 });

    let mut conversation = Conversation::default();
    let requests = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n".repeat(MAX_PENDING + 1);
    conversation.feed(Out, Chunk { bytes: &requests, begun: 0, at: 0, boundary: true });
    assert_eq!(conversation.exchanges().len(), MAX_PENDING);
    assert!(matches!(conversation.understanding(), Understanding::Broken { .. }));
}

/// A request and its response, and the exchange that they are.
fn any_exchange() -> impl Strategy<Value = (Vec<u8>, Vec<u8>, Exchange)> {
    let methods = prop_oneof![Just("GET"), Just("POST"), Just("PUT"), Just("HEAD"), Just("DELETE")];
    let body = || proptest::collection::vec(any::<u8>(), 0..200);
    (methods, "[a-z0-9/]{0,20}", 200u16..600, body(), body(), any::<bool>(), any::<bool>()).prop_map(
        |(method, path, status, out, inn, chunked_out, chunked_in)| {
            let mut request = format!("{method} /{path} HTTP/1.1\r\nHost: example.com\r\n").into_bytes();
            append(&mut request, &out, chunked_out);
            let mut response = format!("HTTP/1.1 {status} Reason\r\n").into_bytes();
            let bodiless = method == "HEAD" || status == 204 || status == 304;
            if bodiless {
                response.extend(b"Content-Length: 77\r\n\r\n");
            } else {
                append(&mut response, &inn, chunked_in);
            }
            let exchange = Exchange {
                method: method.into(),
                host: "example.com".into(),
                port: None,
                path: format!("/{path}"),
                status,
                begun: 0,
                head: 0,
                ended: 0,
                body_out: out.len() as u64,
                body_in: if bodiless { 0 } else { inn.len() as u64 },
                outcome: Outcome::Complete,
                stated: Vec::new(),
                bent: false,
            };
            (request, response, exchange)
        },
    )
}

fn append(message: &mut Vec<u8>, body: &[u8], chunked: bool) {
    if chunked {
        message.extend(b"Transfer-Encoding: chunked\r\n\r\n");
        for part in body.chunks(17) {
            message.extend(format!("{:x}\r\n", part.len()).bytes());
            message.extend(part);
            message.extend(b"\r\n");
        }
        message.extend(b"0\r\n\r\n");
    } else {
        message.extend(format!("Content-Length: {}\r\n\r\n", body.len()).bytes());
        message.extend(body);
    }
}

fn feed_in_pieces(
    conversation: &mut Conversation,
    direction: Direction,
    bytes: &[u8],
    sizes: &mut impl Iterator<Item = usize>,
) {
    let mut rest = bytes;
    while !rest.is_empty() {
        let (piece, tail) = rest.split_at(sizes.next().unwrap_or(1).clamp(1, rest.len()));
        conversation.feed(direction, Chunk { bytes: piece, begun: 0, at: 0, boundary: false });
        rest = tail;
    }
}

proptest! {
    #[test]
    fn however_the_bytes_are_split_the_exchanges_are_the_same(
        exchanges in proptest::collection::vec(any_exchange(), 1..6),
        sizes in proptest::collection::vec(1usize..40, 1..50),
        pipelined: bool,
    ) {
        let mut conversation = Conversation::default();
        let mut sizes = sizes.into_iter().cycle();
        if pipelined {
            for (request, _, _) in &exchanges {
                feed_in_pieces(&mut conversation, Out, request, &mut sizes);
            }
        }
        for (request, response, _) in &exchanges {
            if !pipelined {
                feed_in_pieces(&mut conversation, Out, request, &mut sizes);
            }
            feed_in_pieces(&mut conversation, In, response, &mut sizes);
        }
        let expected: Vec<Exchange> = exchanges.into_iter().map(|(_, _, exchange)| exchange).collect();
        prop_assert_eq!(conversation.exchanges(), expected);
        prop_assert_eq!(conversation.understanding(), Understanding::Whole);
    }

    #[test]
    fn any_bytes_and_gaps_are_survived_within_bounds(
        operations in proptest::collection::vec(
            (any::<bool>(), prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..100),
                Just(b"GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec()),
                Just(b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n".to_vec()),
                Just(b"5\r\nhello\r\n0\r\n\r\n".to_vec()),
            ], any::<bool>(), 0u64..40),
            0..60,
        )
    ) {
        let mut conversation = Conversation::default();
        let mut begun = 0;
        for (out, bytes, boundary, missing) in operations {
            let direction = if out { Out } else { In };
            conversation.feed(direction, Chunk { bytes: &bytes, begun: 0, at: 0, boundary });
            if missing > 30 {
                conversation.skip(direction, missing, 0);
            }
            begun += conversation.exchanges().len();
        }
        conversation.close(0, End::Vendor);
        begun += conversation.exchanges().len();
        prop_assert!(begun <= 60 + 1);
    }

    #[test]
    fn a_corrupt_byte_never_makes_more_exchanges_than_requests(at in 0usize..300, byte: u8) {
        let mut request = b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n".to_vec();
        let at = at % request.len();
        request[at] = byte;
        let mut conversation = Conversation::default();
        conversation.feed(Out, Chunk { bytes: &request, begun: 0, at: 0, boundary: true });
        conversation.close(0, End::Vendor);
        prop_assert!(conversation.exchanges().len() <= 1);
    }
}
