//! Promises of the whole engine, kept over simulated hours: many engines, scripted vendors, a virtual clock.
#![allow(clippy::unwrap_used)]

use farcall::simulate::{Report, Scenario, Sums, render, simulate};
use farcall::{Config, RefusedBy};

fn scenario(text: &str) -> Scenario {
    Scenario::parse("scenario.toml", text).unwrap_or_else(|errors| panic!("{errors:?}"))
}

fn config(text: &str) -> Config {
    Config::parse("farcall.toml", text).unwrap_or_else(|errors| panic!("{errors:?}"))
}

fn run(text: &str, rules: &str) -> Report {
    let scenario = scenario(text);
    let report = simulate(&scenario, &config(rules), scenario.seed, &mut |_| ());
    adds_up(&report);
    report
}

/// Before and after `[what_if]`.
fn both(text: &str, rules: &str) -> (Report, Report) {
    let before = scenario(text);
    let (after, changed) = before.what_if.as_ref().unwrap().apply(&before, &config(rules)).unwrap();
    let after = simulate(&after, &changed, before.seed, &mut |_| ());
    adds_up(&after);
    (run(text, rules), after)
}

/// Every call came to exactly one end, and the ledger knows each.
fn adds_up(report: &Report) {
    for (name, sums) in &report.customers {
        let ends = sums.answered + sums.limited + sums.failed + sums.refused();
        assert_eq!(ends, sums.calls, "{name}: {sums:?}");
        assert!(sums.in_ledger >= sums.calls - sums.cached, "{name}: {sums:?}");
        assert!(sums.in_ledger <= sums.calls - sums.cached + sums.sdk_retries, "{name}: {sums:?}");
    }
    let seen: u64 = report.vendors.iter().map(|vendor| vendor.seen.exchanges).sum();
    assert_eq!(seen, report.all.attempts);
}

fn sums<'r>(report: &'r Report, customer: &str) -> &'r Sums {
    &report.customers.iter().find(|(name, _)| name == customer).unwrap().1
}

const GITHUB: &str = "calls = [{ vendor = \"github\", endpoint = \"GET /user\" }]";

#[test]
fn the_same_seed_gives_the_same_report_to_the_byte_and_another_seed_another() {
    let text = format!(
        r#"
        duration = "2h"
        engines = 3
        [[vendor]]
        name = "github"
        limit = "900 requests / 10m"
        errors = "2%"
        outages = [{{ from = "20m", for = "5m" }}]
        [[customer]]
        name = "acme"
        rate = "2 / s"
        swing = "50%"
        {GITHUB}
        [[customer]]
        name = "globex"
        rate = "30 / m"
        sdk_retries = 2
        {GITHUB}
        [what_if]
        customer.acme.rate = "x3"
        "#
    );
    let rules = "[[quota]]\nmatch = { vendor = \"github\" }\nfair = \"customer\"\n\
                 [[resilience]]\nmatch = { vendor = \"github\" }\nattempts = 3\nbreaker = { consecutive = 5 }\n";
    let shown = || {
        let (before, after) = both(&text, rules);
        render(&before, Some(&after))
    };
    let first = shown();
    assert_eq!(first, shown());
    let other = simulate(&scenario(&text), &config(rules), 99, &mut |_| ());
    assert_ne!(render(&run(&text, rules), None), render(&other, None));
    assert!(first.contains("before") && first.contains("customer globex"), "{first}");
}

#[test]
fn one_customer_at_a_hundred_times_its_share_costs_the_others_at_most_five_percent() {
    let customers: String = (0..9)
        .map(|n| format!("[[customer]]\nname = \"small{n}\"\nrate = \"9.5 / s\"\n{GITHUB}\n"))
        .collect();
    let text = format!(
        r#"
        duration = "3m"
        [[vendor]]
        name = "github"
        latency = {{ p50 = "50ms", p99 = "200ms" }}
        {customers}
        [[customer]]
        name = "acme"
        rate = "9.5 / s"
        {GITHUB}
        [what_if]
        customer.acme.rate = "1000 / s"
        "#
    );
    let rules = "[[quota]]\nmatch = { vendor = \"github\" }\nlimit = \"100 requests / 1s\"\nfair = \"customer\"\nmax_wait = \"2s\"\n";
    let (before, after) = both(&text, rules);
    for n in 0..9 {
        let name = format!("small{n}");
        let (before, after) = (sums(&before, &name), sums(&after, &name));
        let kept = after.answered as f64 / before.answered as f64;
        assert!(kept >= 0.95, "{name} keeps {kept}: {} of {}", after.answered, before.answered);
    }
    let used = after.vendors[0].seen.exchanges;
    assert!((17_100..=18_200).contains(&used), "nothing is wasted, nothing exceeded: {used} of 18000");
    // The large one gets what is left, and no more.
    let acme = sums(&after, "acme");
    assert!(acme.answered > 900 && acme.refused() > 150_000, "{acme:?}");
}

#[test]
fn a_window_of_a_quota_is_one_incident_however_many_engines_share_it() {
    let text = format!(
        r#"
        duration = "10m"
        engines = 4
        [[vendor]]
        name = "github"
        [[customer]]
        name = "acme"
        rate = "2 / s"
        {GITHUB}
        "#
    );
    let rules =
        "[[quota]]\nmatch = { vendor = \"github\" }\nlimit = \"30 requests / 1m\"\nmax_wait = \"0s\"\n";
    let report = run(&text, rules);
    // Each minute has refusals, in all engines.
    assert!((10..=11).contains(&report.incidents), "{}", report.incidents);
    let [worst] = report.worst.as_slice() else { panic!("{:?}", report.worst) };
    let refused = sums(&report, "acme").refused();
    let told: u64 = worst.split("on ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    assert!(told * 10 >= refused, "{told} in the worst window, of {refused}: {worst}");
}

#[test]
fn a_vendor_that_is_down_sees_at_most_a_fifth_more_than_usual() {
    let text = format!(
        r#"
        duration = "3h"
        engines = 4
        [[vendor]]
        name = "github"
        latency = {{ p50 = "80ms", p99 = "400ms" }}
        outages = [{{ from = "1h", for = "1h" }}]
        [[customer]]
        name = "acme"
        rate = "10 / s"
        {GITHUB}
        "#
    );
    let retries = "[[resilience]]\nmatch = { vendor = \"github\" }\nattempts = 5\nbackoff = \"100ms..2s\"\n";
    let usual = 36_000.0;
    // The retry budget alone holds it down; with a breaker almost nothing gets through.
    let report = run(&text, retries);
    let load = report.vendors[0].seen.in_outages as f64 / usual;
    assert!((1.0..=1.2).contains(&load), "{load} of the usual load, by the retry budget");
    let breaker = format!("{retries}breaker = {{ consecutive = 5, open = \"10s\" }}\n");
    let report = run(&text, &breaker);
    let load = report.vendors[0].seen.in_outages as f64 / usual;
    assert!(load < 0.1, "{load} of the usual load, with a breaker");
    assert!(report.all.refused_by(RefusedBy::Breaker) > 30_000, "{:?}", report.all);
    assert!(report.all.answered > 70_000, "and it closes again: {:?}", report.all);
}

#[test]
fn a_budget_is_never_overspent_by_more_than_the_calls_under_way() {
    let text = r#"
        duration = "6h"
        [[vendor]]
        name = "openai"
        latency = { p50 = "800ms", p99 = "5s" }
        [[customer]]
        name = "acme"
        rate = "2 / s"
        calls = [{ vendor = "openai", endpoint = "POST /v1/chat/completions", model = "gpt-4o", tokens_in = 500, tokens_out = 300 }]
        [[customer]]
        name = "globex"
        rate = "20 / m"
        calls = [{ vendor = "openai", endpoint = "POST /v1/chat/completions", model = "gpt-4o", tokens_in = 500, tokens_out = 300 }]
    "#;
    let rules = "[[budget]]\nname = \"llm\"\nmatch = { vendor = \"openai\", customer = \"*\" }\nlimit = \"10 USD / hour\"\nover = \"refuse\"\n";
    let report = run(text, rules);
    // 500 tokens in at 2.50 USD, up to 600 out at 10 USD, for a million.
    let largest = 7_250_000;
    let acme = report.budgets.iter().find(|budget| budget.partition == "customer=acme").unwrap();
    assert!(acme.most <= acme.limit + report.under_way * largest, "{acme:?}");
    assert!(acme.most >= acme.limit - 2 * report.under_way * largest, "and it is used: {acme:?}");
    assert!(acme.periods >= 6, "each hour anew: {acme:?}");
    assert!(sums(&report, "acme").refused_by(RefusedBy::Budget) > 1_000);
    assert_eq!(sums(&report, "globex").refused(), 0, "who keeps to its own is left alone");
    assert_eq!(report.all.cost_unknown, 0);

    // Over eight processes that hear of each other once a second: what they spend in a second comes on top.
    let report = run(&format!("engines = 8\n{text}"), rules);
    let acme = report.budgets.iter().find(|budget| budget.partition == "customer=acme").unwrap();
    let in_two_seconds = 2 * 2 * 4; // Calls, and as many again by chance.
    assert!(acme.most <= acme.limit + (report.under_way + in_two_seconds) * largest, "{acme:?}");
}

#[test]
fn clocks_that_jump_both_ways_neither_deadlock_nor_burst_beyond_the_limit() {
    let text = |jumps: &str| {
        format!(
            r#"
            duration = "35m"
            [[vendor]]
            name = "github"
            limit = "100 requests / 1s"
            states = false
            latency = {{ p50 = "50ms", p99 = "200ms" }}
            [[customer]]
            name = "acme"
            rate = "200 / s"
            {GITHUB}
            {jumps}
            "#
        )
    };
    let rules = "[[quota]]\nmatch = { vendor = \"github\" }\nlimit = \"50 requests / 1s\"\nburst = 5\nmax_wait = \"2s\"\n\
                 [[resilience]]\nmatch = { vendor = \"github\" }\nattempts = 2\nbreaker = { consecutive = 20, open = \"5s\" }\nconcurrency = 50\n";
    let steady = run(&text(""), rules);
    let jumps = "[[clock_jump]]\nat = \"5min\"\nby = \"-1h\"\n[[clock_jump]]\nat = \"10min\"\nby = \"+2h\"\n\
                 [[clock_jump]]\nat = \"15min\"\nby = \"-365d\"\n[[clock_jump]]\nat = \"20min\"\nby = \"+3650d\"\n\
                 [[clock_jump]]\nat = \"25min\"\nby = \"-5s\"\n[[clock_jump]]\nat = \"30min\"\nby = \"+5s\"\n";
    let jumping = run(&text(jumps), rules);
    let (steady, jumping) = (&steady.vendors[0].seen, &jumping.vendors[0].seen);
    let share = jumping.exchanges as f64 / steady.exchanges as f64;
    assert!(
        (0.98..=1.02).contains(&share),
        "{share} of what passes with a steady clock: {jumping:?} {steady:?}"
    );
    // One burst a jump, of the burst's size; never two seconds' worth in one.
    assert!(jumping.busiest_window <= 2 * 55, "{jumping:?}");
    assert_eq!(steady.limited, 0);
}

#[test]
fn eight_engines_that_share_a_quota_use_it_and_keep_to_it() {
    let text = format!(
        r#"
        duration = "1m"
        engines = 8
        [[vendor]]
        name = "github"
        limit = "1000 requests / 1s"
        states = false
        latency = {{ p50 = "40ms", p99 = "300ms" }}
        [[customer]]
        name = "acme"
        rate = "2000 / s"
        {GITHUB}
        "#
    );
    let rules = "[[quota]]\nmatch = { vendor = \"github\" }\nlimit = \"1000 requests / 1s\"\nburst = 1\nmax_wait = \"500ms\"\nshared = \"host\"\n";
    let report = run(&text, rules);
    let vendor = &report.vendors[0];
    let use_of = vendor.seen.exchanges as f64 / vendor.allowed.unwrap() as f64;
    assert!(use_of >= 0.97, "{use_of} of what is allowed");
    assert!(vendor.seen.busiest_window <= 1_010, "{:?}", vendor.seen);
    assert!(vendor.seen.limited as f64 <= vendor.seen.exchanges as f64 * 0.01, "{:?}", vendor.seen);
    // Each on its own would go eight times over it.
    let apart = run(&text, &rules.replace("\"host\"", "\"process\""));
    assert!(apart.vendors[0].seen.busiest_window > 1_900, "{:?}", apart.vendors[0].seen);
}

#[test]
fn eight_engines_keep_to_what_a_vendor_states_in_its_own_words() {
    let text = format!(
        r#"
        duration = "20m"
        engines = 8
        [[vendor]]
        name = "github"
        limit = "5000 requests / 1m"
        latency = {{ p50 = "40ms", p99 = "300ms" }}
        [[customer]]
        name = "acme"
        rate = "150 / s"
        {GITHUB}
        "#
    );
    let rules = "[[quota]]\nmatch = { vendor = \"github\" }\nmax_wait = \"2s\"\n";
    let vendor = &run(&text, rules).vendors[0];
    let overshoot = vendor.seen.limited as f64 / vendor.seen.exchanges as f64;
    let use_of = vendor.used as f64 / vendor.allowed.unwrap() as f64;
    assert!(overshoot <= 0.01, "{overshoot}: {:?}", vendor.seen);
    assert!(use_of >= 0.97, "{use_of} of what is allowed: {:?}", vendor.seen);
    let unruled = &run(&text, "").vendors[0];
    assert!(unruled.seen.limited > unruled.seen.exchanges / 3, "{:?}", unruled.seen);
}

#[test]
fn the_examples_and_the_documentation_run() {
    let rules = config(include_str!("../../examples/scenarios/farcall.toml"));
    config(include_str!("../../examples/scenarios/a-year-farcall.toml"));
    for (name, text) in [
        ("acme-triples", include_str!("../../examples/scenarios/acme-triples.toml")),
        ("cache", include_str!("../../examples/scenarios/cache.toml")),
        ("llm-outage", include_str!("../../examples/scenarios/llm-outage.toml")),
        ("a-year", include_str!("../../examples/scenarios/a-year.toml")),
        (
            "docs",
            include_str!("../../docs/simulate.md")
                .split("```toml")
                .nth(1)
                .unwrap()
                .split("```")
                .next()
                .unwrap(),
        ),
    ] {
        let mut whole = scenario(text);
        whole.duration = std::time::Duration::from_secs(3_600);
        let report = simulate(&whole, &rules, whole.seed, &mut |_| ());
        adds_up(&report);
        assert!(report.all.answered > 0, "{name}");
        if let Some(what_if) = &whole.what_if {
            let (after, rules) = what_if.apply(&whole, &rules).unwrap();
            assert_ne!(simulate(&after, &rules, whole.seed, &mut |_| ()), report, "{name} changes something");
        }
    }
}

#[test]
fn a_cache_saves_the_vendor_its_share_and_a_sample_tells_the_same() {
    let text = format!(
        r#"
        duration = "6h"
        [[vendor]]
        name = "github"
        limit = "18000 requests / 1h"
        [[customer]]
        name = "acme"
        rate = "8 / s"
        {GITHUB}
        [what_if]
        cache = {{ endpoint = "GET /user", hit = "80%" }}
        "#
    );
    let (before, after) = both(&text, "");
    let share = after.vendors[0].seen.exchanges as f64 / before.vendors[0].seen.exchanges as f64;
    assert!((0.19..=0.21).contains(&share), "{share}");
    assert!(before.all.limited > 50_000 && after.all.limited == 0, "{:?}", after.all);

    let sampled = run(&format!("sample = \"10%\"\n{text}"), "");
    let whole = before.all.limited as f64;
    let told = sampled.all.limited as f64 * 10.0;
    assert!((told / whole - 1.0).abs() < 0.05, "{told} for {whole}");
}
