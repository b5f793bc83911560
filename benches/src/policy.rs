//! A decision by 10,000 rules of policy, nothing cached; beside the same rules as one set of regular expressions,
//! in which a call is one line of text. That set does less than ours (no case folding, no order of verdicts), and
//! finds the same rules: the run stops if it does not.

use crate::harness::{Row, in_turns, timed};
use farcall::Caller;
use farcall::config::Rule;
use farcall::matcher::{Matcher, Subject};
use farcall::policy::{Policy, PolicySet, Verdict};
use regex::bytes::{RegexSet, RegexSetBuilder};
use std::fmt::Write as _;
use std::hint::black_box;

const PEER: &str = "regex 1: one RegexSet of the same rules";
const RULES: usize = 10_000;
const CALLS: u32 = 2_000;
const VENDORS: [&str; 8] =
    ["stripe", "openai", "github", "slack", "example.com", "example.net", "twilio", "datadog"];

/// What the n-th rule asks for; no two ask the same.
fn conditions(n: usize) -> Vec<(&'static str, String)> {
    let vendor = ("vendor", VENDORS[n % VENDORS.len()].to_owned());
    match n % 4 {
        0 => vec![vendor, ("customer", format!("customer-{n}"))],
        1 => vec![vendor, ("endpoint", format!("GET /v1/teams/{n:05}/*"))],
        2 => vec![("customer", format!("customer-{n}")), ("caller.service", format!("worker-{}", n % 16))],
        _ => vec![vendor, ("endpoint", format!("POST /v2/items/{n:05}")), ("caller.service", "web*".into())],
    }
}

fn policy(rules: usize) -> PolicySet {
    let rules = (0..rules).map(|n| {
        let conditions = conditions(n);
        let matcher = Matcher::new(conditions.iter().map(|(key, text)| (*key, text.as_str()))).unwrap();
        let verdict = if n.is_multiple_of(2) { Verdict::Deny } else { Verdict::Allow };
        Rule::new(&format!("rule-{n}"), matcher, Policy::new(verdict))
    });
    PolicySet::new(rules.collect())
}

/// The order of the parts in a line.
const PARTS: [&str; 4] = ["vendor", "customer", "caller.service", "endpoint"];

fn expressions(rules: usize) -> RegexSet {
    let lines = (0..rules).map(|n| {
        let conditions = conditions(n);
        let part =
            |key| conditions.iter().find(|(this, _)| *this == key).map_or("*", |(_, text)| text.as_str());
        let parts = PARTS.map(|key| regex::escape(part(key)).replace("\\*", "[^\u{1f}]*"));
        format!("^{}$", parts.join("\u{1f}"))
    });
    RegexSetBuilder::new(lines).unicode(false).size_limit(1 << 28).dfa_size_limit(1 << 26).build().unwrap()
}

fn calls(callers: &[Caller]) -> Vec<(Subject<'_>, [&str; 4])> {
    (0..64_usize)
        .map(|n| {
            let place = n * 151;
            // Every other call is one that some rule is about.
            let vendor = VENDORS[place % VENDORS.len()];
            let customer: &str = format!("customer-{}", if n.is_multiple_of(2) { place } else { 1 }).leak();
            let endpoint: &str = match n % 3 {
                0 => format!("GET /v1/teams/{place:05}/members").leak(),
                1 => format!("POST /v2/items/{place:05}").leak(),
                _ => "GET /v1/chat/completions",
            };
            let caller = &callers[place % callers.len()];
            let mut subject = Subject::default();
            subject.vendor = vendor;
            subject.customer = customer;
            subject.endpoint = endpoint;
            subject.method = "GET";
            subject.caller = caller;
            (subject, [vendor, customer, caller.service.as_str(), endpoint])
        })
        .collect()
}

fn write_line(line: &mut String, parts: &[&str; 4]) {
    line.clear();
    let [vendor, customer, service, endpoint] = parts;
    write!(line, "{vendor}\u{1f}{customer}\u{1f}{service}\u{1f}{endpoint}").unwrap();
}

pub(crate) fn measure() -> Vec<Row> {
    let callers: Vec<Caller> =
        (0..16).map(|n| Caller::new(format!("worker-{n}"))).chain([Caller::new("web-1")]).collect();
    let calls = calls(&callers);
    let (many, few, set) = (policy(RULES), policy(100), expressions(RULES));

    let mut line = String::new();
    let mut hits = 0;
    for (subject, parts) in &calls {
        write_line(&mut line, parts);
        let found: Vec<usize> = set.matches(line.as_bytes()).into_iter().collect();
        let ours: Vec<usize> = (0..RULES).filter(|n| many.rules()[*n].matcher.matches(subject)).collect();
        assert_eq!(ours, found, "{line}");
        hits += usize::from(!ours.is_empty());
    }
    assert!(hits >= 20, "the calls are about too few rules: {hits}");

    let decide = |set: &PolicySet, count: u32| {
        timed(|| {
            for n in 0..count {
                black_box(set.decide(black_box(&calls[n as usize % calls.len()].0)));
            }
        })
    };
    let mut peer = |count: u32| {
        timed(|| {
            for n in 0..count {
                write_line(&mut line, black_box(&calls[n as usize % calls.len()].1));
                black_box(set.matches(line.as_bytes()).into_iter().next());
            }
        })
    };
    let (ours, theirs) = in_turns(CALLS, |count| decide(&many, count), &mut peer);
    let (with_many, with_few) = in_turns(CALLS, |count| decide(&many, count), |count| decide(&few, count));
    eprintln!("bench: policy: {with_many:.0} ns with {RULES} rules, {with_few:.0} ns with 100");
    vec![Row::less("policy/10000_rules", "ns/call", ours, theirs, PEER)]
}
