//! Rules that tests write over HTTP: which requests, how often, and what happens to them.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub(crate) mod dialect;
mod effect;
mod wrong;

pub(crate) use effect::{Effect, gzip};

/// Rules that may stand at once.
const MAX_RULES: usize = 1_000;

/// A rule was refused; the text says which part and why.
#[derive(Debug)]
pub struct ScriptError(String);

impl ScriptError {
    pub(crate) fn new(why: impl Into<String>) -> Self {
        Self(why.into())
    }
}

impl fmt::Display for ScriptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ScriptError {}

/// Which requests a rule is about; what is left out matches all.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Match {
    /// Exact, or `*.example.com` for every host below it.
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    method: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_prefix: Option<String>,
}

impl Match {
    fn covers(&self, host: &str, method: &str, path: &str) -> bool {
        self.host.as_ref().is_none_or(|h| host_matches(h, host))
            && self.method.as_ref().is_none_or(|m| m.eq_ignore_ascii_case(method))
            && self.path.as_ref().is_none_or(|p| p == path)
            && self.path_prefix.as_ref().is_none_or(|p| path.starts_with(p.as_str()))
    }
}

/// Exact, or any depth below `*.`; `*` is every host.
pub(crate) fn host_matches(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix('*') {
        Some(suffix) => host.len() > suffix.len() && host.ends_with(suffix),
        None => pattern.eq_ignore_ascii_case(host),
    }
}

/// The first `n` of every `of` matching requests.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Burst {
    n: u64,
    of: u64,
}

/// A rule as written.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    #[serde(default, rename = "match")]
    matching: Match,
    /// How often the effect strikes; for ever when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    count: Option<u64>,
    /// Matching requests to let pass first.
    #[serde(default)]
    skip: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    burst: Option<Burst>,
    effect: Effect,
}

#[derive(Debug)]
struct Standing {
    id: u64,
    rule: Rule,
    effect: Arc<Effect>,
    seen: AtomicU64,
    struck: AtomicU64,
}

impl Standing {
    /// Whether the rule strikes this matching request; counts it either way.
    fn strikes(&self) -> bool {
        let seen = self.seen.fetch_add(1, Ordering::Relaxed);
        let Some(turn) = seen.checked_sub(self.rule.skip) else { return false };
        if self.rule.burst.is_some_and(|b| turn % b.of >= b.n) {
            return false;
        }
        let limit = self.rule.count.unwrap_or(u64::MAX);
        self.struck
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |s| (s < limit).then_some(s + 1))
            .is_ok()
    }
}

/// The rules in force, first match first.
#[derive(Debug, Default)]
pub(crate) struct Script {
    any: AtomicBool,
    next: AtomicU64,
    rules: RwLock<Vec<Arc<Standing>>>,
}

impl Script {
    /// Adds one rule, a list of rules, or `{"rules": [...]}`; all or none. Returns their ids.
    pub(crate) fn add(&self, script: Value) -> Result<Vec<u64>, ScriptError> {
        let rules = match script {
            Value::Array(rules) => rules,
            Value::Object(mut object) if object.contains_key("rules") => match object.remove("rules") {
                Some(Value::Array(rules)) if object.is_empty() => rules,
                _ => return Err(ScriptError::new("`rules` must be a list, and alone in its object")),
            },
            one => vec![one],
        };
        let mut standing = Vec::with_capacity(rules.len());
        for (i, rule) in rules.into_iter().enumerate() {
            let place = |e: &dyn fmt::Display| ScriptError::new(format!("rule {}: {e}", i + 1));
            let rule: Rule = serde_json::from_value(rule).map_err(|e| place(&e))?;
            rule.effect.check().map_err(|e| place(&e))?;
            if rule.burst.is_some_and(|b| b.of == 0) {
                return Err(place(&"`burst.of` must be at least 1"));
            }
            standing.push(Standing {
                id: self.next.fetch_add(1, Ordering::Relaxed) + 1,
                effect: Arc::new(rule.effect.clone()),
                rule,
                seen: AtomicU64::new(0),
                struck: AtomicU64::new(0),
            });
        }
        let ids = standing.iter().map(|s| s.id).collect();
        let mut rules = self.rules.write().unwrap_or_else(PoisonError::into_inner);
        if rules.len() + standing.len() > MAX_RULES {
            return Err(ScriptError::new(format!("more than {MAX_RULES} rules; DELETE /_sim/script first")));
        }
        rules.extend(standing.into_iter().map(Arc::new));
        self.any.store(!rules.is_empty(), Ordering::Release);
        Ok(ids)
    }

    /// Removes one rule, or all.
    pub(crate) fn remove(&self, id: Option<u64>) -> usize {
        let mut rules = self.rules.write().unwrap_or_else(PoisonError::into_inner);
        let before = rules.len();
        rules.retain(|r| id.is_some_and(|id| r.id != id));
        self.any.store(!rules.is_empty(), Ordering::Release);
        before - rules.len()
    }

    /// The effect that strikes this request, if any. A rule that matches but does not strike lets
    /// the ones behind it have their turn.
    pub(crate) fn strike(&self, host: &str, method: &str, path: &str) -> Option<Arc<Effect>> {
        if !self.any.load(Ordering::Acquire) {
            return None;
        }
        let rules = self.rules.read().unwrap_or_else(PoisonError::into_inner);
        let mut matching = rules.iter().filter(|r| r.rule.matching.covers(host, method, path));
        matching.find(|r| r.strikes()).map(|r| Arc::clone(&r.effect))
    }

    /// The rules with how often each was seen and struck.
    pub(crate) fn list(&self) -> Value {
        let rules = self.rules.read().unwrap_or_else(PoisonError::into_inner);
        let list = rules.iter().map(|r| {
            serde_json::json!({
                "id": r.id,
                "rule": r.rule,
                "seen": r.seen.load(Ordering::Relaxed),
                "struck": r.struck.load(Ordering::Relaxed),
            })
        });
        Value::Array(list.collect())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn strikes(script: &Script, n: usize) -> Vec<bool> {
        (0..n).map(|_| script.strike("a.test", "GET", "/x").is_some()).collect()
    }

    #[test]
    fn a_rule_strikes_as_often_as_it_says_after_what_it_skips() {
        let script = Script::default();
        script.add(json!({"skip": 1, "count": 2, "effect": {"status": 500}})).unwrap();
        assert_eq!(strikes(&script, 5), [false, true, true, false, false]);
    }

    #[test]
    fn a_burst_strikes_n_of_m() {
        let script = Script::default();
        script.add(json!({"burst": {"n": 2, "of": 3}, "effect": {"status": 503}})).unwrap();
        assert_eq!(strikes(&script, 6), [true, true, false, true, true, false]);
    }

    #[test]
    fn rules_match_by_host_wildcard_method_and_path() {
        let script = Script::default();
        let matching = json!({"host": "*.test", "method": "POST", "path_prefix": "/v1/"});
        script.add(json!({"match": matching, "effect": {"hang": true}})).unwrap();
        assert!(script.strike("a.b.test", "POST", "/v1/x").is_some());
        assert!(script.strike("a.b.test", "GET", "/v1/x").is_none());
        assert!(script.strike("test", "POST", "/v1/x").is_none());
        assert!(script.strike("a.test", "POST", "/v2/x").is_none());
    }

    #[test]
    fn a_wrong_rule_is_refused_with_its_place_and_nothing_is_added() {
        let script = Script::default();
        let good = json!({"effect": {"hang": true}});
        for (bad, says) in [
            (json!({"effect": {"latency": 5}}), "latency_ms"),
            (json!({"effect": {"status": 42}}), "status"),
            (json!({"effect": {"dialect": "gitbug"}}), "github"),
            (json!({"effect": {"headers": {"a b": "c"}}}), "a b"),
            (json!({"effect": {"wrong": "all"}}), "huge-header"),
            (json!({"burst": {"n": 1, "of": 0}, "effect": {}}), "burst.of"),
        ] {
            let e = script.add(json!([good, bad])).unwrap_err().to_string();
            assert!(e.starts_with("rule 2: ") && e.contains(says), "{e}");
        }
        assert_eq!(script.list(), json!([]));
    }
}
