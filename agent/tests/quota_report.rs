//! What `farcall report quotas` says: what vendors stated, what the processes of a home used of it, and what
//! somebody else did.
#![allow(clippy::unwrap_used, missing_docs)]

use farcall::{Caller, Head, Step, Tap};
use farcall_agent::report::{self, Filter, Query, QuotaRow, Quotas, Render, Style, quotas};
use farcall_agent::{Farcall, Options};
use rusqlite::{Connection, params};
use std::path::Path;
use std::time::Duration;

const URL: &str = "https://api.example.com/v1/things";

/// A vendor of which it is known what it states.
const VENDOR: &str = r#"
[[vendor]]
name = "example"
label = "Example"
hosts = ["api.example.com"]
limit = [
    { policy = "per-minute", limit = "x-limit", remaining = "x-left", reset = "x-reset", reset_as = "delta-s", window = "1m" },
]
"#;

fn start(home: &Path, service: &str, rules: &str) -> Farcall {
    let config = home.join("farcall.toml");
    std::fs::write(&config, format!("{VENDOR}{rules}")).unwrap();
    Farcall::start(Options {
        home: Some(home.into()),
        config: Some(config),
        service: Some(service.into()),
        flush_every: None,
        ..Options::default()
    })
}

/// Makes a call, which is answered so.
fn call(farcall: &Farcall, url: &str, status: u16, headers: &[(&str, &str)]) {
    let credential: &[(&str, &str)] = &[("authorization", "Bearer one")];
    let head = Head::new("GET", url).headers(&credential).body(Some(0), true);
    let mut call = farcall.guard(farcall.begin(&head));
    assert!(matches!(call.step(), Step::Send(_)));
    call.answer(status, &headers);
    assert!(matches!(call.step(), Step::Settled));
    call.end();
}

/// The vendor says that so many of a hundred a minute are left, for the next half minute.
fn left(farcall: &Farcall, remaining: u32) {
    let remaining = remaining.to_string();
    call(farcall, URL, 200, &[("x-limit", "100"), ("x-left", &remaining), ("x-reset", "30")]);
}

/// The first two calls of each: 99 down.
fn begin(all: &[&Farcall]) {
    let mut remaining = (0..100).rev();
    for farcall in all {
        remaining.by_ref().take(2).for_each(|remaining| left(farcall, remaining));
    }
}

fn report(home: &Path) -> Quotas {
    quotas(&Query::at(home)).unwrap()
}

/// The quota that the vendor calls so.
fn row(report: &Quotas, policy: &str) -> QuotaRow {
    report.rows.iter().find(|row| row.policy == policy).unwrap_or_else(|| panic!("{report:?}")).clone()
}

fn used(row: &QuotaRow) -> (Option<u64>, Option<u64>, Option<u64>) {
    (row.left, row.own, row.foreign)
}

#[test]
fn what_the_vendor_states_and_what_we_counted_stand_beside_what_somebody_else_used() {
    let home = tempfile::tempdir().unwrap();
    let farcall = start(home.path(), "checkout", "");
    begin(&[&farcall]);
    for remaining in [97, 96, 95] {
        left(&farcall, remaining);
    }
    farcall.flush();
    let row = row(&report(home.path()), "per-minute");
    assert_eq!(used(&row), (Some(95), Some(5), Some(0)));
    assert_eq!((row.vendor.as_str(), row.unit.as_str(), row.limit), ("example", "requests", Some(100)));
    assert_eq!((row.window_seconds, row.remaining, row.now), (Some(60.0), Some(95), "open"));
    assert_eq!((row.service.as_str(), row.pid, row.processes), ("checkout", std::process::id(), 1));
    assert_eq!(row.credential.len(), 12, "its fingerprint: {}", row.credential);
    assert!(row.resets_at.unwrap() > row.seen && row.rules.is_empty() && row.blocked_until.is_none());

    // Forty of the next forty-one are not ours.
    left(&farcall, 54);
    farcall.flush();
    let report = report(home.path());
    assert_eq!(used(&self::row(&report, "per-minute")), (Some(54), Some(6), Some(40)));
    assert!(report.notes[0].starts_with("Somebody else asks Example"), "{:?}", report.notes);
    farcall.shutdown();
}

#[test]
fn the_processes_of_a_home_are_nobody_else_to_each_other() {
    let home = tempfile::tempdir().unwrap();
    let (one, other) = (start(home.path(), "checkout", ""), start(home.path(), "billing", ""));
    begin(&[&one, &other]);
    (86..96).rev().for_each(|remaining| left(&one, remaining));
    (81..86).rev().for_each(|remaining| left(&other, remaining));
    one.flush();
    other.flush();
    let all = row(&report(home.path()), "per-minute");
    assert_eq!((used(&all), all.processes), ((Some(81), Some(19), Some(0)), 1));
    // Twenty more than the two of them know of.
    left(&one, 60);
    one.flush();
    let all = row(&report(home.path()), "per-minute");
    assert_eq!(used(&all), (Some(60), Some(20), Some(20)));
    assert_eq!(all.service, "checkout", "it heard last");
    // Filters find it by whoever uses it.
    let of = |filter: &str| {
        quotas(&Query::at(home.path()).filter(filter.parse::<Filter>().unwrap())).unwrap().rows.len()
    };
    assert_eq!([of("caller=billing"), of("caller=search"), of("vendor=example")], [1, 0, 1]);
    one.shutdown();
    other.shutdown();
}

/// A call of a program without the library, as the sidecar tells of it.
fn overheard(sidecar: &Farcall, remaining: u32) {
    overheard_at(sidecar, URL, remaining);
}

fn overheard_at(sidecar: &Farcall, url: &str, remaining: u32) {
    let engine = sidecar.engine();
    let caller = engine.add_caller(Caller::new("curl"));
    let head = Head::new("GET", url).seen(caller, Tap::Kernel);
    let mut call = engine.begin(&head, sidecar.now(), sidecar.seed());
    assert!(matches!(call.step(engine, sidecar.now()), Step::Send(_)));
    let remaining = remaining.to_string();
    let said = [("x-limit", "100"), ("x-left", remaining.as_str()), ("x-reset", "30")];
    call.answer(engine, 200, &said.as_slice(), sidecar.now());
    call.end(engine, sidecar.now());
}

/// A call of a program with the library, of which no rule wants to know the credential.
fn unnamed(farcall: &Farcall, remaining: u32) {
    let mut call = farcall.guard(farcall.begin(&Head::new("GET", URL)));
    assert!(matches!(call.step(), Step::Send(_)));
    let remaining = remaining.to_string();
    call.answer(200, &[("x-limit", "100"), ("x-left", remaining.as_str()), ("x-reset", "30")].as_slice());
    call.end();
}

#[test]
fn calls_that_only_the_kernel_saw_are_nobody_elses() {
    let home = tempfile::tempdir().unwrap();
    let (shop, sidecar) = (start(home.path(), "checkout", ""), start(home.path(), "farcall-sidecar", ""));
    // One of each in turn: 100 down to 80, of which the sidecar tells a moment later.
    for pair in 0..10 {
        unnamed(&shop, 99 - 2 * pair);
    }
    for pair in 0..10 {
        overheard(&sidecar, 98 - 2 * pair);
    }
    shop.flush();
    sidecar.flush();
    let all = row(&report(home.path()), "per-minute");
    assert_eq!((used(&all), all.credential.as_str()), ((Some(80), Some(20), Some(0)), ""));
    // What neither of them knows of is somebody's: 25, and told is what none of our calls can be. The last one here may
    // have been among what the other one did not explain.
    unnamed(&shop, 54);
    overheard(&sidecar, 53);
    shop.flush();
    sidecar.flush();
    let report = report(home.path());
    assert_eq!(used(&row(&report, "per-minute")), (Some(53), Some(22), Some(24)));
    shop.shutdown();
    sidecar.shutdown();
}

#[test]
fn where_credentials_are_kept_apart_it_is_told_how_many_calls_of_others_may_be_the_kernels() {
    let home = tempfile::tempdir().unwrap();
    let rules = "[[quota]]\nname = \"keep\"\nmatch = { vendor = \"example\" }\nmax_wait = \"2s\"\n";
    let (shop, sidecar) =
        (start(home.path(), "checkout", rules), start(home.path(), "farcall-sidecar", rules));
    begin(&[&shop]);
    (0..15).for_each(|_| overheard(&sidecar, 50));
    overheard_at(&sidecar, "https://api.stripe.com/v1/balance", 50);
    // Forty of the next forty-one are not the shop's.
    left(&shop, 57);
    shop.flush();
    sidecar.flush();
    let all = report(home.path());
    let told = row(&all, "per-minute");
    assert_eq!((used(&told), told.kernel_calls), ((Some(57), Some(3), Some(40)), Some(15)));
    let note = &all.notes[0];
    assert!(note.contains("saw 15 calls to Example of programs without"), "{note}");
    assert!(note.ends_with("so up to 15 of the 40 may be theirs. The rest is somebody else's."), "{note}");
    // They are not the shop's, and are told of beside its quota all the same.
    let of_shop = Query::at(home.path()).filter("caller=checkout".parse::<Filter>().unwrap());
    assert_eq!(row(&quotas(&of_shop).unwrap(), "per-minute").kernel_calls, Some(15));
    (0..40).for_each(|_| overheard(&sidecar, 50));
    sidecar.flush();
    let note = &report(home.path()).notes[0];
    assert!(note.ends_with("so up to 40 of the 40 may be theirs."), "{note}");
    shop.shutdown();
    sidecar.shutdown();
}

#[test]
fn programs_without_the_library_have_an_account_where_nobody_else_asks() {
    let home = tempfile::tempdir().unwrap();
    let sidecar = start(home.path(), "farcall-sidecar", "");
    [99, 98, 97, 90].iter().for_each(|remaining| overheard(&sidecar, *remaining));
    sidecar.flush();
    let row = row(&report(home.path()), "per-minute");
    assert_eq!((used(&row), row.service.as_str()), ((Some(90), Some(4), Some(6)), "farcall-sidecar"));
    sidecar.shutdown();
}

#[test]
fn what_processes_count_together_is_not_added_up() {
    let home = tempfile::tempdir().unwrap();
    let rules = "[[quota]]\nname = \"keep\"\nmatch = { vendor = \"example\" }\nmax_wait = \"2s\"\n";
    let (one, other) = (start(home.path(), "checkout", rules), start(home.path(), "billing", rules));
    begin(&[&one, &other]);
    (86..96).rev().for_each(|remaining| left(&one, remaining));
    (81..86).rev().for_each(|remaining| left(&other, remaining));
    one.flush();
    other.flush();
    let row = row(&report(home.path()), "per-minute");
    assert_eq!(used(&row), (Some(81), Some(19), Some(0)));
    assert_eq!(row.rules, ["keep"]);
    one.shutdown();
    other.shutdown();
}

#[test]
fn a_429_is_shown_with_its_end_and_the_limit_that_it_taught() {
    let home = tempfile::tempdir().unwrap();
    let farcall = start(home.path(), "checkout", "");
    // The first one begins the count that the second teaches from.
    call(&farcall, URL, 429, &[("retry-after", "1")]);
    for _ in 0..30 {
        call(&farcall, URL, 200, &[]);
    }
    call(&farcall, URL, 429, &[("retry-after", "60")]);
    farcall.flush();
    let report = report(home.path());
    let row = row(&report, "unstated");
    assert_eq!((row.now, row.blocked_why, row.limit), ("blocked", Some("rate"), None));
    assert!(row.blocked_until.unwrap() > row.seen);
    assert!(row.learned_per_second.unwrap() > 1.0, "{:?}", row.learned_per_second);
    assert_eq!((row.own, row.foreign), (None, None), "no window is known");
    let table = report.render(&Style::default());
    assert!(table.contains("blocked: too fast") && table.contains(" requests/s"), "{table}");
    assert!(table.lines().all(|line| line.chars().count() <= 80), "{table}");
    farcall.shutdown();
}

#[test]
fn only_what_changed_is_written_and_what_is_over_goes_when_somebody_speaks_again() {
    let home = tempfile::tempdir().unwrap();
    let farcall = start(home.path(), "checkout", "");
    begin(&[&farcall]);
    farcall.flush();
    let ledger = Connection::open(home.path().join("ledger.db")).unwrap();
    let count = |sql: &str| ledger.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    ledger.execute("UPDATE quotas SET at = at - 1", []).unwrap();
    let marked = count("SELECT at FROM quotas");
    farcall.flush();
    assert_eq!(count("SELECT at FROM quotas"), marked, "nothing happened to it");

    // What processes before this one left: of a window that is over, and of one that lasts.
    ledger
        .execute(
            "INSERT INTO quotas SELECT vendor, credential, policy, rule, caller + 1000, at, at - 1, standing
             FROM quotas UNION ALL SELECT vendor, credential, policy, rule, caller + 2000, at, ends, standing
             FROM quotas",
            [],
        )
        .unwrap();
    left(&farcall, 97);
    farcall.flush();
    assert!(count("SELECT max(at) FROM quotas") > marked);
    assert_eq!(count("SELECT count(*) FROM quotas WHERE caller > 2000"), 1);
    assert_eq!(count("SELECT count(*) FROM quotas"), 2);

    // However many there are, the newest stay.
    for n in 0..300 {
        ledger
            .execute(
                "INSERT INTO quotas SELECT vendor, credential, policy, rule, ?1, at + ?1, ends, standing
                 FROM quotas WHERE caller > 2000 AND caller < 3000",
                params![4_000 + n],
            )
            .unwrap();
    }
    left(&farcall, 96);
    farcall.flush();
    assert_eq!(count("SELECT count(*) FROM quotas"), 256);
    let row = row(&report(home.path()), "per-minute");
    assert_eq!(row.left, Some(96));
    farcall.shutdown();
}

#[test]
fn a_window_that_is_over_says_so_and_leaves_with_the_reports_window() {
    let home = tempfile::tempdir().unwrap();
    let farcall = start(home.path(), "checkout", "");
    begin(&[&farcall]);
    left(&farcall, 40);
    farcall.flush();
    let mut later = Query::at(home.path());
    later.now = later.now.plus(Duration::from_secs(120));
    let row = row(&quotas(&later).unwrap(), "per-minute");
    assert_eq!((row.now, row.left, row.remaining, row.limit), ("over", None, None, Some(100)));
    later.now = later.now.plus(Duration::from_secs(7_200));
    let report = quotas(&later).unwrap();
    assert_eq!(report.rows.len(), 0);
    assert!(report.notes[0].contains("--since 7d"), "{:?}", report.notes);
    farcall.shutdown();
}

#[test]
fn the_limits_of_rules_stand_beside_those_of_vendors() {
    let home = tempfile::tempdir().unwrap();
    let rules = r#"
[[quota]]
name = "contract"
match = { vendor = "example" }
limit = "10 requests / 1h"
burst = 5
max_wait = "0s"
"#;
    let (farcall, other) = (start(home.path(), "checkout", rules), start(home.path(), "billing", rules));
    (97..100).rev().for_each(|remaining| left(&farcall, remaining));
    other.flush();
    farcall.flush();
    let first = row(&report(home.path()), "contract");
    assert_eq!(
        (first.source, first.vendor.as_str(), first.rules.as_slice()),
        ("rule", "example", &["contract".to_owned()][..])
    );
    assert_eq!((first.limit, first.window_seconds, first.burst), (Some(10), Some(3_600.0), Some(5)));
    assert_eq!((first.left, first.now, first.free_at.as_deref()), (Some(2), "open", None));
    assert_eq!(row(&report(home.path()), "per-minute").source, "vendor");

    // The processes of the host share it: the other one's calls take what is left.
    left(&other, 96);
    left(&other, 95);
    other.flush();
    let report = report(home.path());
    let spent = row(&report, "contract");
    assert_eq!((spent.left, spent.now, spent.service.as_str()), (Some(0), "used_up", "billing"));
    assert!(spent.free_at.unwrap() > spent.seen);
    assert_eq!(report.rows[0].policy, "contract", "what holds calls up comes first");
    let table = report.render(&Style::default());
    assert!(table.contains("0 at once, 10 requests/h") && table.contains("used up"), "{table}");
    // A unit comes back every six minutes.
    let mut later = Query::at(home.path());
    later.now = later.now.plus(Duration::from_secs(730));
    assert_eq!(row(&quotas(&later).unwrap(), "contract").left, Some(2));
    farcall.shutdown();
    other.shutdown();
}

#[test]
fn a_quota_that_is_whole_again_at_once_is_open_and_has_no_account() {
    let home = tempfile::tempdir().unwrap();
    let farcall = start(home.path(), "checkout", "");
    // As OpenAI states it: a bucket of which a thousand are missing, and full in 30 ms.
    let headers = [
        ("x-ratelimit-limit-tokens", "2000000"),
        ("x-ratelimit-remaining-tokens", "1999000"),
        ("x-ratelimit-reset-tokens", "30ms"),
    ];
    for _ in 0..5 {
        call(&farcall, "https://api.openai.com/v1/models", 200, &headers);
    }
    farcall.flush();
    let mut later = Query::at(home.path());
    later.now = later.now.plus(Duration::from_secs(1));
    let row = row(&quotas(&later).unwrap(), "tokens");
    assert_eq!((row.now, row.limit, row.left), ("open", Some(2_000_000), None));
    assert_eq!((row.own, row.foreign), (None, None), "thirty milliseconds say nothing");
    farcall.shutdown();
}

#[test]
fn what_others_counted_long_ago_in_a_window_that_lasts_is_ours() {
    let home = tempfile::tempdir().unwrap();
    let (one, other) = (start(home.path(), "checkout", ""), start(home.path(), "billing", ""));
    let day = |farcall: &Farcall, remaining: u32| {
        let remaining = remaining.to_string();
        call(farcall, URL, 200, &[("x-limit", "100"), ("x-left", &remaining), ("x-reset", "80000")]);
    };
    (80..100).rev().for_each(|remaining| day(&one, remaining));
    one.flush();
    (70..80).rev().for_each(|remaining| day(&other, remaining));
    other.flush();
    // The first of them was last heard of two hours ago, and the report asks for one.
    let ledger = Connection::open(home.path().join("ledger.db")).unwrap();
    let aged = "UPDATE quotas SET at = at - 7200000000000 WHERE at = (SELECT min(at) FROM quotas)";
    assert_eq!(ledger.execute(aged, []).unwrap(), 1);
    assert_eq!(used(&row(&report(home.path()), "per-minute")), (Some(70), Some(30), Some(0)));
    one.shutdown();
    other.shutdown();
}

#[test]
fn however_many_credentials_there_are_the_report_and_the_ledger_stay_small() {
    let home = tempfile::tempdir().unwrap();
    let farcall = start(home.path(), "checkout", "");
    left(&farcall, 97);
    farcall.flush();
    let ledger = Connection::open(home.path().join("ledger.db")).unwrap();
    ledger
        .execute(
            "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 20000)
             INSERT INTO quotas SELECT vendor, 'c' || n, policy, rule, caller, at - n, ends, standing FROM quotas, n",
            [],
        )
        .unwrap();
    let short = report(home.path());
    assert_eq!(short.rows.len(), 50);
    let note = short.notes.iter().find(|note| note.contains("more, which hold calls up less")).unwrap();
    assert!(note.contains("19951 more") && note.contains("--limit 20001"), "{note}");
    let mut all = Query::at(home.path());
    all.limit = 0;
    assert_eq!(quotas(&all).unwrap().rows.len(), 20_001);

    // The next upkeep keeps the newest.
    ledger.execute("UPDATE upkeep SET at = 0 WHERE task = 'exemplars'", []).unwrap();
    left(&farcall, 96);
    farcall.flush();
    let count = |sql: &str| ledger.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(count("SELECT count(*) FROM quotas"), 16_384);
    assert_eq!(count("SELECT count(*) FROM quotas WHERE credential IN ('c1', 'c16383')"), 2);
    farcall.shutdown();
}

#[test]
fn a_rule_whose_places_were_all_taken_has_an_incident_and_is_named() {
    let home = tempfile::tempdir().unwrap();
    let few =
        "[[quota]]\nname = \"few\"\nmatch = { vendor = \"other\" }\nconcurrency = 1\nmax_wait = \"0s\"\n";
    let other = "[[vendor]]\nname = \"other\"\nlabel = \"Other\"\nhosts = [\"other.example\"]\n";
    let farcall = start(home.path(), "checkout", &format!("{other}{few}"));
    let head = Head::new("GET", "https://other.example/v1");
    let begin = || farcall.guard(farcall.begin(&head));
    let mut first = begin();
    assert!(matches!(first.step(), Step::Send(_)));
    for _ in 0..3 {
        let Step::Refuse(refusal) = begin().step() else { panic!("the place is taken") };
        let said = refusal.to_string();
        assert!(
            said.ends_with(
                "`few` leaves no room before its deadline: as many calls as allowed were under way"
            ),
            "{said}"
        );
    }
    first.head(200);
    assert!(matches!(first.step(), Step::Settled));
    first.end();
    farcall.flush();
    farcall.shutdown();

    let query = |filter: Option<&str>| {
        let filters: Vec<Filter> = filter.into_iter().map(|filter| filter.parse().unwrap()).collect();
        Query { filters, ..Query::at(home.path()) }
    };
    let row = report::incidents(&query(None)).unwrap().rows.remove(0);
    assert_eq!((row.policy.as_str(), row.why.as_str(), row.count), ("few", "concurrency", 3));
    assert_eq!(row.retry_at, None, "nobody can tell when a place comes free");
    let page = report::incidents(&query(None)).unwrap().render(&Style::default());
    assert!(page.contains("refused here: no place"), "{page}");
    let named = format!(
        "[[quota]] few refused 3 calls to Other, because as many as its `concurrency` allows were under way: farcall \
         explain incident {}",
        row.id
    );
    for filter in [None, Some("vendor=other")] {
        assert_eq!(quotas(&query(filter)).unwrap().notes, [named.as_str()], "{filter:?}");
    }
    let elsewhere = quotas(&query(Some("vendor=example"))).unwrap().notes;
    assert!(elsewhere[0].contains("no rule limited calls"), "{elsewhere:?}");
    let explained = report::explain_call(
        &query(None),
        &report::calls(&query(Some("outcome=refused-quota"))).unwrap().rows[0].id,
    );
    let sentences = explained.unwrap().sentences.join("\n");
    assert!(
        sentences.contains("as many calls as allowed were under way")
            && !sentences.contains("would have passed"),
        "{sentences}"
    );
}
