//! What would the rules say of this call?

use super::mode;
use crate::report::ReportError;
use farcall::catalogue::Catalogue;
use farcall::inspect::carried;
use farcall::matcher::{Field, Subject};
use farcall::policy::{PolicySet, RuleIndex, Verdict};
use farcall::{Caller, Config, Engine, Head, Step, Target, Timestamp};
use serde::Serialize;

/// A call that was not made.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// The method.
    pub method: String,
    /// The absolute URL.
    pub url: String,
    /// On whose behalf.
    pub customer: Option<String>,
    /// The tags.
    pub tags: Vec<(String, String)>,
    /// The program that would make it; what is empty is not known.
    pub caller: Caller,
    /// The length of the request's body.
    pub bytes: Option<u64>,
    /// The kinds of data in it (`card`, `email`).
    pub data: Vec<String>,
    /// The fingerprint of its credential.
    pub credential: String,
    /// The environment variable that holds its credential.
    pub origin: String,
    /// The country of the vendor's seat, where it is not to be the catalogue's.
    pub country: String,
}

/// What the rules say of a call.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct PolicyTest {
    /// Which report this is: `policy-test`.
    pub report: &'static str,
    /// The method.
    pub method: String,
    /// The host.
    pub host: String,
    /// The vendor's name.
    pub vendor: String,
    /// What the catalogue tags it with.
    pub vendor_tags: Vec<String>,
    /// Method and URL template.
    pub endpoint: String,
    /// On whose behalf.
    pub customer: String,
    /// The tags, `key=value,key=value`.
    pub tags: String,
    /// The service that would call; empty where that was not said.
    pub service: String,
    /// `allow`, `warn`, `throttle` or `deny`.
    pub verdict: &'static str,
    /// The rule that decided; null where none is about the call.
    pub rule: Option<String>,
    /// What becomes of the call, and why, in a sentence.
    pub sentence: String,
    /// The rules that are about the call, in the order in which they are asked.
    pub rows: Vec<TestedRule>,
    /// The others, in the order of the file, with the keys of their match that do not hold.
    pub others: Vec<UnmetRule>,
}

/// A rule that is about the call.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct TestedRule {
    /// Its name.
    pub rule: String,
    /// Its line in the file.
    pub line: usize,
    /// What it says of this call.
    pub verdict: &'static str,
    /// `enforce` or `report`.
    pub mode: &'static str,
    /// Whether it is a denial that speaks last.
    pub r#final: bool,
    /// Whether it decided.
    pub decided: bool,
    /// Whether its condition cannot be told for this call.
    pub untold: bool,
    /// Its match, as written.
    pub r#match: String,
    /// Its reason; null where it states none.
    pub reason: Option<String>,
}

/// A rule that is not about the call.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct UnmetRule {
    /// Its name.
    pub rule: String,
    /// Its line in the file.
    pub line: usize,
    /// The keys of its match that do not hold, or `when`.
    pub unmet: Vec<&'static str>,
}

/// What the rules of a configuration say of a call. Vendor and endpoint are those that the engine would find.
///
/// # Errors
/// When there is no method, or the URL cannot be read.
pub fn policy_test(config: &Config, asked: &Asked) -> Result<PolicyTest, ReportError> {
    let target = Target::parse(&asked.url).ok_or_else(|| {
        ReportError::NotFound(format!(
            "`{}` is no absolute URL; write one such as https://api.stripe.com/v1/balance",
            asked.url
        ))
    })?;
    if asked.method.trim().is_empty() {
        return Err(ReportError::NotFound("a call has a method; write one such as GET or POST".to_owned()));
    }
    let host = target.host.to_ascii_lowercase();
    let (vendor, endpoint, customer, tags) = names(config, asked, target);
    let catalogue = Catalogue::new(config.vendors.clone());
    let known = catalogue.vendors().iter().find(|known| known.name == vendor);
    let vendor_tags = known.map_or_else(Vec::new, |vendor| vendor.tags.clone());
    let mut subject = Subject::default();
    subject.vendor = &vendor;
    subject.vendor_tags = &vendor_tags;
    subject.endpoint = &endpoint;
    subject.method = &asked.method;
    subject.host = &host;
    subject.customer = &customer;
    subject.tags = &tags;
    subject.caller = &asked.caller;
    subject.credential = &asked.credential;
    subject.country = match asked.country.as_str() {
        "" => known.and_then(|vendor| vendor.country.as_deref()).unwrap_or(""),
        asked => asked,
    };
    subject.origin = &asked.origin;
    subject.bytes = asked.bytes;
    let mut data = carried(&config.data, &subject);
    data.extend(asked.data.iter().map(String::as_str));
    subject.data = &data;

    let policy = PolicySet::new(config.policies.clone());
    let (decision, explained) = policy.explain(&subject);
    let rows: Vec<TestedRule> = explained
        .iter()
        .map(|known| {
            let rule = policy.rule(known.rule);
            TestedRule {
                rule: rule.name.to_string(),
                line: rule.line,
                verdict: known.verdict.as_str(),
                mode: mode(rule.then.mode),
                r#final: rule.then.is_final,
                decided: known.decided,
                untold: known.untold,
                r#match: rule.matcher.to_string(),
                reason: rule.then.reason.as_deref().map(str::to_owned),
            }
        })
        .collect();
    let others = policy
        .rules()
        .iter()
        .filter(|rule| !rows.iter().any(|row| row.line == rule.line && *row.rule == *rule.name))
        .map(|rule| {
            let mut unmet: Vec<&str> = rule.matcher.unmet(&subject).into_iter().map(Field::as_str).collect();
            if unmet.is_empty() {
                unmet.push("when");
            }
            UnmetRule { rule: rule.name.to_string(), line: rule.line, unmet }
        })
        .collect();
    let named = |index: RuleIndex| {
        let rule = policy.rule(index);
        let reason = rule.then.reason.as_deref().map_or(String::new(), |reason| format!(": {reason}"));
        (format!("`{}` in line {}", rule.name, rule.line), reason)
    };
    let mut sentence = match (decision.verdict, decision.rule.map(named)) {
        (Verdict::Deny, Some((name, reason))) => format!("The call is refused by {name}{reason}."),
        (Verdict::Throttle, Some((name, reason))) => {
            let rate = decision.rule.and_then(|index| policy.rule(index).then.throttle);
            let rate = rate.map_or(String::new(), |rate| format!(" at {rate}"));
            format!("The call passes{rate}, as {name} says{reason}.")
        }
        (Verdict::Warn, Some((name, reason))) => {
            format!("The call passes with a warning by {name}{reason}.")
        }
        (_, Some((name, reason))) => format!("The call passes: {name} allows it{reason}."),
        (_, None) if policy.is_empty() => "The call passes: the file has no [[policy]].".to_owned(),
        (_, None) => "The call passes: no rule that is enforced is about it.".to_owned(),
    };
    if let Some((name, _)) = decision.warned.filter(|rule| decision.rule != Some(*rule)).map(named) {
        sentence += &format!(" It is warned of by {name}.");
    }
    if let Some((name, _)) = decision.would.map(named) {
        let would = decision.would_be.as_str();
        sentence += &format!(" In report mode, {name} would {would} it.");
    }
    Ok(PolicyTest {
        report: "policy-test",
        method: asked.method.clone(),
        verdict: decision.verdict.as_str(),
        rule: decision.rule.map(|index| policy.rule(index).name.to_string()),
        service: asked.caller.service.clone(),
        host,
        vendor,
        vendor_tags,
        endpoint,
        customer,
        tags,
        sentence,
        rows,
        others,
    })
}

/// Vendor, endpoint, customer and tags, as an engine that has seen no other call names them.
fn names(config: &Config, asked: &Asked, target: Target<'_>) -> (String, String, String, String) {
    let mut naming = Config::default();
    naming.vendors.clone_from(&config.vendors);
    let engine = Engine::new(naming, Caller::default(), 1, 0);
    let tags: Vec<(&str, &str)> =
        asked.tags.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    let head = Head::to(&asked.method, target).customer(asked.customer.as_deref()).tags(&tags);
    let now = Timestamp::EPOCH;
    let mut call = engine.begin(&head, now, 0);
    if matches!(call.step(&engine, now), Step::Send(_)) {
        call.head(200, now);
    }
    call.end(&engine, now);
    let batch = engine.drain(now);
    let row = batch.rows.first();
    row.map(|row| {
        (row.vendor.to_string(), row.endpoint.to_string(), row.customer.to_string(), row.tags.to_string())
    })
    .unwrap_or_default()
}
