//! `policy`: rules of the policy that warned of calls, or that would have refused or throttled them, were they not in
//! report mode.

use super::{Finding, Scene, evidence, words};
use crate::report::ReportError;
use crate::report::row::count;
use farcall::policy::Verdict;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

/// Rules and vendors that are told of, those with the most calls.
const MOST: usize = 20;
/// Endpoints and services that the evidence of one has.
const MOST_NAMED: usize = 10;

/// By rule, what it says, and the vendor.
type Told = BTreeMap<(String, String, Rc<str>), Calls>;

#[derive(Default)]
struct Calls {
    all: u64,
    by_endpoint: HashMap<Rc<str>, u64>,
    by_service: HashMap<String, u64>,
}

pub(super) fn find(scene: &Scene<'_>, findings: &mut Vec<Finding>) -> Result<(), ReportError> {
    let mut told = Told::new();
    scene.source.of_endpoints("warned", |row, vendor, endpoint, caller| {
        let Some(rule) = scene.source.name(row.get("rule")?) else { return Ok(()) };
        let key = (rule.to_string(), row.get("verdict")?, Rc::clone(vendor));
        let (calls, told) = (count(row, "calls")?, told.entry(key).or_default());
        told.all += calls;
        *told.by_endpoint.entry(Rc::clone(endpoint)).or_default() += calls;
        *told.by_service.entry(caller.service.clone()).or_default() += calls;
        Ok(())
    })?;
    let mut told: Vec<_> = told.into_iter().collect();
    // What was merely warned of comes after what would have been stopped.
    told.sort_by_key(|((_, verdict, _), calls)| {
        (verdict == Verdict::Warn.as_str(), std::cmp::Reverse(calls.all))
    });
    told.truncate(MOST);
    findings.extend(told.into_iter().map(|(key, calls)| finding(scene, key, &calls)));
    Ok(())
}

fn finding(scene: &Scene<'_>, (rule, verdict, vendor): (String, String, Rc<str>), calls: &Calls) -> Finding {
    let (label, count) = (scene.source.label(&vendor), words::count(calls.all, "call"));
    let does = match verdict.as_str() {
        "deny" => format!("would have refused {count} to {label} (mode = report)"),
        "throttle" => format!("would have throttled {count} to {label} (mode = report)"),
        _ => format!("warned of {count} to {label}"),
    };
    let (endpoints, services) = (largest(&calls.by_endpoint), largest(&calls.by_service));
    let from: Vec<&str> = services.iter().map(|(name, _)| *name).collect();
    let endpoint = match endpoints.as_slice() {
        [(endpoint, _)] => Some((*endpoint).to_owned()),
        _ => None,
    };
    let most = match endpoints.as_slice() {
        [(one, _)] => format!(", all of them {one}"),
        [(most, of), ..] => format!(", {} of them {most}", words::percent(*of, calls.all)),
        [] => String::new(),
    };
    Finding {
        rule: "policy",
        sentence: format!("Policy rule {rule} {does}, made by {}{most}.", words::list(&from)),
        vendor: Some(vendor.to_string()),
        endpoint,
        callers: from.iter().map(|name| (*name).to_owned()).collect(),
        evidence: evidence([
            ("name", json!(rule)),
            ("verdict", json!(verdict)),
            ("calls", json!(calls.all)),
            ("by_endpoint", named(&endpoints)),
            ("by_caller", named(&services)),
        ]),
    }
}

/// The largest first.
fn largest<K: AsRef<str>>(counts: &HashMap<K, u64>) -> Vec<(&str, u64)> {
    let mut counts: Vec<_> = counts.iter().map(|(name, calls)| (name.as_ref(), *calls)).collect();
    counts.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(b.0)));
    counts
}

fn named(counts: &[(&str, u64)]) -> Value {
    let named = counts.iter().take(MOST_NAMED).map(|(name, calls)| json!({ "name": name, "calls": calls }));
    named.collect()
}
