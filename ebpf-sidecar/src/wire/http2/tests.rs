#![allow(clippy::unwrap_used)]
use proptest::prelude::*;

use super::*;

use Direction::{In, Out};

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = payload.len();
    [&[(len >> 16) as u8, (len >> 8) as u8, len as u8, kind, flags][..], &stream.to_be_bytes(), payload]
        .concat()
}

/// A literal field that is added to the table.
fn literal(index: u8, value: &str) -> Vec<u8> {
    [&[0x40 | index, value.len() as u8][..], value.as_bytes()].concat()
}

/// `GET https://api.stripe.com{path}`, all literal.
fn get(path: &str) -> Vec<u8> {
    [&b"\x82\x87"[..], &literal(4, path), &literal(1, "api.stripe.com")].concat()
}

/// The same again by reference to what [`get`] put into the table.
const AGAIN: &[u8] = b"\x82\x87\xbf\xbe";

fn feed(conversation: &mut Conversation, direction: Direction, at: u64, bytes: &[u8]) {
    conversation.feed(direction, Chunk { bytes, begun: at, at, boundary: true });
}

fn begun() -> Conversation {
    let mut conversation = Conversation::default();
    feed(&mut conversation, Out, 1, &[PREFACE, &frame(4, 0, 0, &[])].concat());
    feed(&mut conversation, In, 1, &frame(4, 0, 0, &[0, 3, 0, 0, 0, 100]));
    conversation
}

fn summary(exchanges: &[Exchange]) -> Vec<(&str, &str, u16, u64, u64, Outcome)> {
    exchanges
        .iter()
        .map(|e| (e.method.as_str(), e.path.as_str(), e.status, e.body_out, e.body_in, e.outcome))
        .collect()
}

#[test]
fn exchanges_that_run_at_the_same_time_are_told_apart() {
    let mut conversation = begun();
    feed(&mut conversation, Out, 10, &frame(HEADERS, END_HEADERS | END_STREAM, 1, &get("/a?secret")));
    feed(&mut conversation, Out, 11, &frame(HEADERS, END_HEADERS, 3, AGAIN));
    feed(&mut conversation, Out, 12, &frame(DATA, END_STREAM, 3, b"12345"));
    feed(&mut conversation, In, 20, &frame(HEADERS, END_HEADERS, 3, b"\x8d"));
    feed(&mut conversation, In, 21, &frame(HEADERS, END_HEADERS, 1, b"\x88"));
    feed(&mut conversation, In, 22, &frame(DATA, 0, 3, b"no"));
    feed(&mut conversation, In, 23, &frame(DATA, END_STREAM, 1, b"hello"));
    feed(&mut conversation, In, 24, &frame(HEADERS, END_HEADERS | END_STREAM, 3, b"\x00\x01a\x01b"));
    let exchanges = conversation.exchanges();
    assert_eq!(
        summary(&exchanges),
        [("GET", "/a", 200, 0, 5, Outcome::Complete), ("GET", "/a", 404, 5, 2, Outcome::Complete)]
    );
    assert_eq!((exchanges[0].begun, exchanges[0].head, exchanges[0].ended), (10, 21, 23));
    assert_eq!(exchanges[0].host, "api.stripe.com");
    assert_eq!(conversation.understanding(), Understanding::Whole);
}

#[test]
fn what_an_answer_says_of_quotas_is_kept_also_where_it_only_refers_to_an_earlier_one() {
    let mut conversation = begun();
    let named = |name: &str, value: &str| {
        [&[0x40, name.len() as u8][..], name.as_bytes(), &[value.len() as u8], value.as_bytes()].concat()
    };
    let limit = named("x-ratelimit-limit", "60");
    let first = [&b"\x88"[..], &limit, &named("x-ratelimit-remaining", "59"), &named("set-cookie", "secret")]
        .concat();
    // The limit is what it was, the remainder another one of the same name.
    let second = b"\x88\xc0\x7f\x00\x0258";
    feed(&mut conversation, Out, 1, &frame(HEADERS, END_HEADERS | END_STREAM, 1, &get("/a")));
    feed(&mut conversation, In, 2, &frame(HEADERS, END_HEADERS | END_STREAM, 1, &first));
    feed(&mut conversation, Out, 3, &frame(HEADERS, END_HEADERS | END_STREAM, 3, AGAIN));
    feed(&mut conversation, In, 4, &frame(HEADERS, END_HEADERS | END_STREAM, 3, second));
    let exchanges = conversation.exchanges();
    let stated =
        |left: &str| [("x-ratelimit-limit", "60".to_owned()), ("x-ratelimit-remaining", left.to_owned())];
    assert_eq!([&exchanges[0].stated[..], &exchanges[1].stated], [stated("59"), stated("58")]);
    assert_eq!(conversation.understanding(), Understanding::Whole);
}

#[test]
fn padding_priority_and_continuations_are_framing() {
    let mut conversation = begun();
    let block = get("/padded");
    let (head, tail) = block.split_at(7);
    let padded = [&[3][..], &[0, 0, 0, 0, 16], head, &[0, 0, 0]].concat();
    feed(&mut conversation, Out, 1, &frame(HEADERS, PADDED | PRIORITY | END_STREAM, 1, &padded));
    feed(&mut conversation, Out, 2, &frame(CONTINUATION, END_HEADERS, 1, tail));
    feed(&mut conversation, In, 3, &frame(HEADERS, END_HEADERS, 1, b"\x88"));
    feed(&mut conversation, In, 4, &frame(DATA, PADDED | END_STREAM, 1, b"\x04body\0\0\0\0"));
    assert_eq!(summary(&conversation.exchanges()), [("GET", "/padded", 200, 0, 4, Outcome::Complete)]);
}

#[test]
fn interim_answers_pushes_and_resets_are_told_from_answers() {
    let mut conversation = begun();
    feed(&mut conversation, Out, 1, &frame(HEADERS, END_HEADERS | END_STREAM, 1, &get("/a")));
    feed(&mut conversation, In, 2, &frame(HEADERS, END_HEADERS, 1, &literal(8, "103")));
    feed(
        &mut conversation,
        In,
        3,
        &frame(PUSH_PROMISE, END_HEADERS, 1, &[&[0, 0, 0, 2][..], &get("/pushed")].concat()),
    );
    feed(&mut conversation, In, 4, &frame(HEADERS, END_HEADERS, 1, b"\x88"));
    feed(&mut conversation, In, 5, &frame(RST_STREAM, 0, 1, &[0, 0, 0, 8]));
    feed(&mut conversation, Out, 6, &frame(HEADERS, END_HEADERS, 3, AGAIN));
    feed(&mut conversation, Out, 7, &frame(RST_STREAM, 0, 3, &[0, 0, 0, 8]));
    feed(&mut conversation, Out, 8, &frame(HEADERS, END_HEADERS | END_STREAM, 5, AGAIN));
    conversation.close(9, End::Vendor);
    assert_eq!(
        summary(&conversation.exchanges()),
        [
            ("GET", "/a", 200, 0, 0, Outcome::Aborted),
            ("GET", "/a", 0, 0, 0, Outcome::Cancelled),
            ("GET", "/a", 0, 0, 0, Outcome::NoResponse)
        ]
    );
}

#[test]
fn who_resets_a_stream_and_why_decides_how_it_came_out() {
    const CANCEL: u8 = 8;
    const PROTOCOL_ERROR: u8 = 1;
    for (direction, code, begun_or_not) in [
        (In, CANCEL, [Outcome::NoResponse, Outcome::Aborted]),
        (In, PROTOCOL_ERROR, [Outcome::NoResponse, Outcome::Aborted]),
        (Out, CANCEL, [Outcome::Cancelled, Outcome::Abandoned]),
        (Out, PROTOCOL_ERROR, [Outcome::Malformed, Outcome::Malformed]),
    ] {
        for (is_answered, outcome) in [false, true].into_iter().zip(begun_or_not) {
            let mut conversation = begun();
            feed(&mut conversation, Out, 1, &frame(HEADERS, END_HEADERS | END_STREAM, 1, &get("/a")));
            if is_answered {
                feed(&mut conversation, In, 2, &frame(HEADERS, END_HEADERS, 1, b"\x88"));
            }
            assert!(conversation.is_under_way());
            feed(&mut conversation, direction, 3, &frame(RST_STREAM, 0, 1, &[0, 0, 0, code]));
            assert!(!conversation.is_under_way());
            let outcomes: Vec<_> = conversation.exchanges().iter().map(|exchange| exchange.outcome).collect();
            assert_eq!(outcomes, [outcome], "{direction:?} {code}, answered: {is_answered}");
        }
    }
}

#[test]
fn missing_content_is_counted_and_a_missing_header_ends_understanding_for_good() {
    let mut conversation = begun();
    feed(&mut conversation, Out, 1, &frame(HEADERS, END_HEADERS | END_STREAM, 1, &get("/a")));
    feed(&mut conversation, In, 2, &frame(HEADERS, END_HEADERS, 1, b"\x88"));
    let data = frame(DATA, END_STREAM, 1, &[b'x'; 5000]);
    feed(&mut conversation, In, 3, &data[..100]);
    conversation.skip(In, 4909, 4);
    assert_eq!(summary(&conversation.exchanges()), [("GET", "/a", 200, 0, 5000, Outcome::Complete)]);
    assert_eq!(conversation.understanding(), Understanding::Whole);

    feed(&mut conversation, Out, 5, &frame(HEADERS, END_HEADERS | END_STREAM, 3, AGAIN));
    conversation.skip(Out, 20, 6);
    feed(&mut conversation, Out, 7, &frame(HEADERS, END_HEADERS | END_STREAM, 5, AGAIN));
    feed(&mut conversation, In, 8, &frame(HEADERS, END_HEADERS | END_STREAM, 3, b"\x88"));
    conversation.close(9, End::Vendor);
    assert_eq!(summary(&conversation.exchanges()), [("GET", "/a", 0, 0, 0, Outcome::Unknown)]);
    assert!(matches!(conversation.understanding(), Understanding::Broken { .. }));
}

#[test]
fn broken_frames_end_understanding() {
    for bytes in [
        frame(CONTINUATION, END_HEADERS, 1, b"\x88"),
        [frame(HEADERS, 0, 1, b"\x82"), frame(DATA, 0, 1, b"")].concat(),
        frame(HEADERS, END_HEADERS, 1, b"\xff"),
        frame(HEADERS, END_HEADERS | PADDED, 1, b"\x09\x82"),
        frame(DATA, PADDED, 1, b"\x09\x82"),
    ] {
        let mut conversation = begun();
        feed(&mut conversation, Out, 1, &bytes);
        assert!(matches!(conversation.understanding(), Understanding::Broken { .. }), "{bytes:?}");
    }
    let mut conversation = Conversation::default();
    feed(&mut conversation, Out, 1, b"PRI * HTTP/2.1");
    assert_eq!(conversation.understanding(), Understanding::Broken { at: 0 });
}

proptest! {
    #[test]
    fn however_the_bytes_are_split_the_exchanges_are_the_same(
        sizes in proptest::collection::vec(1usize..30, 1..40),
        bodies in proptest::collection::vec((0usize..300, 0usize..300), 1..8),
    ) {
        let mut out = [PREFACE, &frame(4, 0, 0, &[])].concat();
        let mut inn = frame(4, 0, 0, &[]);
        for (n, (up, down)) in bodies.iter().enumerate() {
            let id = n as u32 * 2 + 1;
            out.extend(frame(HEADERS, END_HEADERS, id, if n == 0 { get("/a") } else { AGAIN.to_vec() }.as_slice()));
            out.extend(frame(DATA, END_STREAM, id, &vec![b'u'; *up]));
            inn.extend(frame(HEADERS, END_HEADERS, id, b"\x88"));
            inn.extend(frame(DATA, END_STREAM, id, &vec![b'd'; *down]));
        }
        let mut conversation = Conversation::default();
        let mut sizes = sizes.into_iter().cycle();
        for (direction, bytes) in [(Out, out), (In, inn)] {
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                let (piece, tail) = rest.split_at(sizes.next().unwrap().min(rest.len()));
                feed(&mut conversation, direction, 0, piece);
                rest = tail;
            }
        }
        let seen: Vec<_> =
            conversation.exchanges().iter().map(|e| (e.body_out as usize, e.body_in as usize, e.status)).collect();
        prop_assert_eq!(seen, bodies.iter().map(|(up, down)| (*up, *down, 200)).collect::<Vec<_>>());
        prop_assert_eq!(conversation.understanding(), Understanding::Whole);
    }

    #[test]
    fn any_bytes_and_gaps_are_survived(
        events in proptest::collection::vec(
            (any::<bool>(), proptest::collection::vec(any::<u8>(), 0..60), 0u64..50, 0u8..12, any::<u8>()), 0..60),
    ) {
        let mut conversation = begun();
        for (out, bytes, missing, kind, flags) in events {
            let direction = if out { Out } else { In };
            feed(&mut conversation, direction, 0, &frame(kind, flags, 1, &bytes));
            if missing > 40 {
                conversation.skip(direction, missing, 0);
            }
        }
        conversation.close(0, End::Vendor);
        let _ = conversation.exchanges();
    }
}
