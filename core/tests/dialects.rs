//! What vendors send, as they document it, and what is understood of it: `catalogue/fixtures/*.toml`.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)] // A test reads its fixtures from disk.

use farcall::Timestamp;
use farcall::catalogue::{Catalogue, Vendor};
use farcall::config::parse_duration;
use farcall::quota::dialect::{Answer, Dialect, Reading, Refusal};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;
use toml::{Table, Value};

/// The moment at which the answers of all fixtures arrive: 2026-11-21T10:00:00Z.
const NOW: Timestamp = Timestamp::from_nanos(1_795_255_200_000_000_000);

fn fixtures() -> BTreeMap<String, Table> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("catalogue/fixtures");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files
        .map(|path| {
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            let table: Table =
                std::fs::read_to_string(&path).unwrap().parse().unwrap_or_else(|e| panic!("{name}: {e}"));
            (name, table)
        })
        .collect()
}

fn answers(fixture: &Table) -> Vec<&Table> {
    fixture["answer"].as_array().unwrap().iter().map(|answer| answer.as_table().unwrap()).collect()
}

fn headers(answer: &Table) -> Vec<(&str, &str)> {
    let headers = answer.get("headers").and_then(Value::as_table);
    headers.into_iter().flatten().map(|(name, value)| (name.as_str(), value.as_str().unwrap())).collect()
}

fn read(dialect: &Dialect, answer: &Table) -> Reading {
    let headers = headers(answer);
    let status = u16::try_from(answer["status"].as_integer().unwrap()).unwrap();
    let body = answer.get("body").map_or("", |body| body.as_str().unwrap());
    // Adapters hand over the body only where it is wanted, and only the wanted headers.
    let body = if dialect.wants_body(status) { body } else { "" };
    let wanted: Vec<(&str, &str)> = headers
        .into_iter()
        .filter(|(name, _)| dialect.headers().iter().any(|wanted| wanted.eq_ignore_ascii_case(name)))
        .collect();
    dialect.read(&Answer::new(status, &wanted).body_prefix(body.as_bytes()), NOW)
}

/// A reading in the words of a fixture.
fn written(dialect: &Dialect, reading: &Reading) -> Table {
    let seconds = |time: Duration| Value::String(format!("{}ms", time.as_millis()));
    let mut table = Table::new();
    let statements: Vec<Value> = reading
        .statements()
        .iter()
        .map(|statement| {
            let mut row = Table::new();
            let policy = dialect.policy(statement.policy);
            match (policy, statement.name.as_str()) {
                (Some(policy), _) => row.insert("policy".into(), policy.into()),
                (None, name) => row.insert("name".into(), name.into()),
            };
            row.insert("unit".into(), statement.unit.as_str().into());
            let numbers = [("limit", statement.limit), ("remaining", statement.remaining)];
            for (key, number) in numbers {
                number.map(|number| row.insert(key.into(), (number as i64).into()));
            }
            statement.resets_at.map(|at| row.insert("resets_in".into(), seconds(at.since(NOW))));
            statement.window.map(|window| row.insert("window".into(), seconds(window)));
            row.into()
        })
        .collect();
    if !statements.is_empty() {
        table.insert("statements".into(), statements.into());
    }
    let refusal = reading.refusal.map(|refusal| match refusal {
        Refusal::Rate => "rate",
        Refusal::Exhausted => "exhausted",
    });
    refusal.map(|word| table.insert("refusal".into(), word.into()));
    reading.retry_at.map(|at| table.insert("retry_in".into(), seconds(at.since(NOW))));
    if reading.ignored > 0 {
        table.insert("ignored".into(), i64::from(reading.ignored).into());
    }
    table
}

/// What a fixture expects, with durations in one spelling and the defaults filled in.
fn expected(answer: &Table) -> Table {
    let mut table = answer.clone();
    for key in ["what", "status", "headers", "body"] {
        table.remove(key);
    }
    let spell = |value: &mut Value| {
        let text = value.as_str().unwrap();
        let time = if text == "0s" { Duration::ZERO } else { parse_duration(text).unwrap() };
        *value = format!("{}ms", time.as_millis()).into();
    };
    table.get_mut("retry_in").map(spell);
    for row in table.get_mut("statements").and_then(Value::as_array_mut).into_iter().flatten() {
        let row = row.as_table_mut().unwrap();
        row.get_mut("resets_in").map(spell);
        row.get_mut("window").map(spell);
        row.entry("unit").or_insert("requests".into());
    }
    table
}

fn vendor<'a>(catalogue: &'a Catalogue, name: &str) -> &'a Vendor {
    let found = catalogue.vendors().iter().find(|vendor| vendor.name == name);
    found.unwrap_or_else(|| panic!("the fixture {name} has no vendor"))
}

#[test]
fn what_vendors_document_is_understood_to_the_last_number() {
    let catalogue = Catalogue::builtin();
    let mut wrong = Vec::new();
    for (name, fixture) in fixtures() {
        let dialect = Dialect::new(&vendor(&catalogue, &name).dialect);
        for answer in answers(&fixture) {
            let (found, expected) = (written(&dialect, &read(&dialect, answer)), expected(answer));
            if found != expected {
                let what = answer["what"].as_str().unwrap();
                wrong.push(format!("{name}: {what}\n  expected {expected}\n  found    {found}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_vendor_has_a_fixture_that_speaks_of_each_of_its_limits_and_refusals() {
    let catalogue = Catalogue::builtin();
    let fixtures = fixtures();
    assert!(catalogue.vendors().len() >= 60, "{} vendors", catalogue.vendors().len());
    for vendor in catalogue.vendors() {
        let name = &vendor.name;
        let fixture = fixtures.get(name).unwrap_or_else(|| panic!("{name} has no fixture"));
        let dialect = Dialect::new(&vendor.dialect);
        let readings: Vec<Reading> =
            answers(fixture).into_iter().map(|answer| read(&dialect, answer)).collect();
        assert!(readings.iter().any(|reading| reading.refusal.is_some()), "{name}: no answer is a refusal");
        let seen: BTreeSet<usize> = vendor
            .dialect
            .limits
            .iter()
            .enumerate()
            .filter(|(_, limit)| {
                // The headers of this limit occur in some answer.
                let inside = limit.header.as_deref();
                let sent = inside
                    .or(limit.remaining.as_deref())
                    .or(limit.used.as_deref())
                    .or(limit.limit.as_deref());
                let key =
                    inside.and(limit.key.as_deref().or(limit.used.as_deref()).or(limit.remaining.as_deref()));
                answers(fixture).into_iter().flat_map(headers).any(|(name, value)| {
                    sent.is_some_and(|sent| sent.eq_ignore_ascii_case(name))
                        && key.is_none_or(|key| value.contains(key))
                })
            })
            .map(|(place, _)| place)
            .collect();
        assert_eq!(
            seen.len(),
            vendor.dialect.limits.len(),
            "{name}: some limit is in no answer, only {seen:?}"
        );
    }
}

#[test]
fn any_bytes_in_any_header_of_any_vendor_are_survived() {
    let catalogue = Catalogue::builtin();
    let long = "9".repeat(1 << 20);
    let nasty = [
        "",
        " ",
        "-1",
        "0",
        "NaN",
        "inf",
        "-inf",
        "1e400",
        "1e-400",
        "18446744073709551616",
        "0x7f",
        "1/0",
        "/",
        "=",
        "\"",
        ";;;;",
        ",,,,",
        "\"a\";r=",
        "\u{fffd}",
        "9999-99-99T99:99:99Z",
        "GMT",
        "1.",
        ".5",
        "::::",
        "2026-11-21T10:00:00+99:99",
        "1/-1",
        "total=;remaining=;resets=",
        "{\"call_count\":}",
        long.as_str(),
    ];
    for vendor in catalogue.vendors() {
        let dialect = Dialect::new(&vendor.dialect);
        for value in nasty {
            for status in [200, 400, 429, 503] {
                let headers: Vec<(&str, &str)> =
                    dialect.headers().iter().map(|name| (&**name, value)).collect();
                let reading = dialect.read(&Answer::new(status, &headers).body_prefix(value.as_bytes()), NOW);
                for statement in reading.statements() {
                    assert!(statement.limit != Some(0), "{}: {value}", vendor.name);
                    assert!(
                        statement.remaining.zip(statement.limit).is_none_or(|(left, limit)| left <= limit)
                    );
                    assert!(statement.resets_at.is_none_or(|at| at >= NOW));
                }
            }
        }
    }
}

#[test]
fn reading_allocates_nothing() {
    let catalogue = Catalogue::builtin();
    for (name, fixture) in fixtures() {
        let dialect = Dialect::new(&vendor(&catalogue, &name).dialect);
        for answer in answers(&fixture) {
            let headers = headers(answer);
            let status = u16::try_from(answer["status"].as_integer().unwrap()).unwrap();
            let body = answer.get("body").map_or("", |body| body.as_str().unwrap());
            let info = allocation_counter::measure(|| {
                let answer = Answer::new(status, &headers).body_prefix(body.as_bytes());
                std::hint::black_box(dialect.read(std::hint::black_box(&answer), NOW));
            });
            assert_eq!(info.count_total, 0, "{name}");
        }
    }
}

#[test]
fn two_values_of_one_header_that_differ_are_no_statement_and_equal_ones_are() {
    let limit = ("ratelimit-limit", "10");
    let generic = |headers: &[(&str, &str)]| Dialect::generic().read(&Answer::new(200, &headers), NOW);
    let numbers_of = |headers: &[(&str, &str)]| {
        let reading = generic(headers);
        let stated = reading.statements().first();
        let row = stated.map(|s| (s.limit, s.remaining, s.resets_at.map(|at| at.since(NOW).as_secs())));
        (row, reading.ignored)
    };
    let stated = (Some((Some(10), Some(0), Some(40))), 0);
    for (left, reset) in [
        (["0", "5"].as_slice(), ["40"].as_slice()),
        (&["0, 5"], &["40"]),
        (&["0"], &["40", "50"]),
        (&["0"], &["40, 50"]),
    ] {
        let left = left.iter().map(|left| ("ratelimit-remaining", *left));
        let reset = reset.iter().map(|reset| ("ratelimit-reset", *reset));
        let headers: Vec<_> = [limit].into_iter().chain(left).chain(reset).collect();
        assert_eq!(numbers_of(&headers), (None, 1), "{headers:?}");
    }
    for left in [["0"].as_slice(), &["0", "0"], &["0, 0"], &["0", " 0 "]] {
        let left = left.iter().map(|left| ("ratelimit-remaining", *left));
        for reset in ["40", "40, 40"] {
            let headers: Vec<_> =
                [limit, ("ratelimit-reset", reset)].into_iter().chain(left.clone()).collect();
            assert_eq!(numbers_of(&headers), stated, "{headers:?}");
        }
    }
    // A list is one where the header is one, however many lines it has.
    let draft = [("ratelimit-limit", "10, 10;w=60, 100;w=3600"), ("ratelimit-remaining", "3")];
    assert_eq!(numbers_of(&draft), (Some((Some(10), Some(3), None)), 0));
    let twice = [("ratelimit", "\"a\";r=0;t=40, \"a\";r=5;t=40")];
    assert_eq!((generic(&twice).statements().len(), generic(&twice).ignored), (0, 2));
    let catalogue = Catalogue::builtin();
    let bucket = Dialect::new(&catalogue.vendor_of("acme.myshopify.com").unwrap().dialect);
    let shopify = |value| {
        let headers = [("x-shopify-shop-api-call-limit", value)];
        let reading = bucket.read(&Answer::new(200, &headers), NOW);
        (reading.statements().first().and_then(|stated| stated.remaining), reading.ignored)
    };
    assert_eq!(
        [shopify("32/40"), shopify("32/40, 32/40"), shopify("32/40, 39/40")],
        [(Some(8), 0), (Some(8), 0), (None, 1)]
    );
    // Nor is a wait one that is stated twice and differs.
    let wait = |headers: &[(&str, &str)]| {
        let reading = Dialect::generic().read(&Answer::new(429, &headers), NOW);
        (reading.retry_at.map(|at| at.since(NOW).as_secs()), reading.ignored)
    };
    assert_eq!(wait(&[("retry-after", "5"), ("retry-after", "60")]), (None, 1));
    let date = "Sat, 21 Nov 2026 10:00:09 GMT";
    assert_eq!(wait(&[("retry-after", &format!("{date}, {date}"))]), (Some(9), 0));
}

#[test]
fn the_lines_of_a_list_are_one_list() {
    let read = |headers: &[(&str, &str)]| {
        let reading = Dialect::generic().read(&Answer::new(200, &headers), NOW);
        let row = |s: &farcall::quota::dialect::Statement| {
            (s.name.as_str().to_owned(), s.limit, s.remaining, s.resets_at.map(|at| at.since(NOW).as_secs()))
        };
        (reading.statements().iter().map(row).collect::<Vec<_>>(), reading.ignored)
    };
    let named = |name: &str, limit, left, reset| (name.to_owned(), limit, Some(left), Some(reset));
    let both = vec![named("burst", Some(10), 5, 30), named("daily", Some(900), 0, 3_600)];
    // RFC 9110, section 5.3.
    for headers in [
        vec![
            ("ratelimit-policy", "\"burst\";q=10;w=60, \"daily\";q=900;w=86400"),
            ("ratelimit", "\"burst\";r=5;t=30, \"daily\";r=0;t=3600"),
        ],
        vec![
            ("ratelimit-policy", "\"burst\";q=10;w=60"),
            ("RateLimit", "\"burst\";r=5;t=30"),
            ("RateLimit-Policy", "\"daily\";q=900;w=86400"),
            ("ratelimit", " \"daily\";r=0;t=3600 "),
        ],
        vec![
            ("ratelimit", "\"burst\";r=5;t=30"),
            ("ratelimit", ""),
            ("ratelimit", "\"daily\";r=0;t=3600"),
            ("ratelimit-policy", "\"burst\";q=10;w=60, \"daily\";q=900;w=86400"),
        ],
    ] {
        assert_eq!(read(&headers), (both.clone(), 0), "{headers:?}");
    }
    // What a gateway and a vendor say of one policy is no statement where it differs, and counted for each.
    let a_line = "\"a\";r=0;t=40";
    assert_eq!(read(&[("ratelimit", a_line), ("ratelimit", "\"a\";r=5;t=40")]), (vec![], 2));
    assert_eq!(read(&[("ratelimit", a_line), ("ratelimit", "a;r=")]), (vec![], 1), "one list, and none");
    let limits =
        [("ratelimit-policy", "\"a\";q=10"), ("ratelimit-policy", "\"a\";q=20"), ("ratelimit", a_line)];
    assert_eq!(read(&limits), (vec![named("a", None, 0, 40)], 2));
    let long = format!("\"{}\";r=1;t=1", "x".repeat(700));
    let other = format!("\"{}\";r=1;t=1", "y".repeat(700));
    assert_eq!(
        read(&[("ratelimit", &long), ("ratelimit", &other)]),
        (vec![], 1),
        "more than any vendor says"
    );
}

#[test]
fn two_copies_of_the_drafts_old_dictionary_that_differ_are_no_statement() {
    let read = |lines: &[&str]| {
        let headers: Vec<_> = lines.iter().map(|line| ("ratelimit", *line)).collect();
        let reading = Dialect::generic().read(&Answer::new(200, &headers), NOW);
        let stated = reading.statements().first();
        (
            stated.map(|s| (s.limit, s.remaining, s.resets_at.map(|at| at.since(NOW).as_secs()))),
            reading.ignored,
        )
    };
    let stated = (Some((Some(10), Some(0), Some(40))), 0);
    let one = "limit=10, remaining=0, reset=40";
    assert_eq!(read(&[one]), stated);
    assert_eq!(read(&[one, one]), stated);
    assert_eq!(read(&[&format!("{one}, {one}")]), stated);
    assert_eq!(read(&["limit=10, remaining=0", "reset=40"]), stated, "one dictionary in two lines");
    for other in [
        "limit=10, remaining=5, reset=40",
        "limit=20, remaining=0, reset=40",
        "limit=10, remaining=0, reset=50",
    ] {
        assert_eq!(read(&[one, other]), (None, 1), "{other}");
        assert_eq!(read(&[&format!("{one}, {other}")]), (None, 1), "{other}");
    }
}
