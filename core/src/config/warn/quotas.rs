//! Quotas of one and the same match, of which one is always the narrower.

use super::{Found, MAX_SUSPECTS, name};
use crate::config::{Config, Rule};
use crate::quota::{self, OnError, Pace, Unit};

/// Quotas behind one that is asked first and lets nothing through that they would stop.
pub(super) fn quotas(config: &Config, found: &mut Found) {
    for (place, rule) in config.quotas.iter().enumerate() {
        let mut before = config.quotas[..place].iter().rev().take(MAX_SUSPECTS);
        if let Some(other) =
            before.find(|other| same_match(other, rule) && is_within(&other.then, &rule.then))
        {
            let message = format!(
                "{} never decides: {} has the same match, and is the narrower one at any time; remove one of them, or \
                 narrow this match",
                name(rule),
                name(other)
            );
            found.say("quota", rule, message);
        }
    }
}

fn same_match(one: &Rule<quota::Rule>, other: &Rule<quota::Rule>) -> bool {
    let (one, other) = (&one.matcher, &other.matcher);
    one.covers(other) && other.covers(one) && one.partition() == other.partition()
}

/// Whether whatever passes `narrow` passes `wide`, too. `false` where that cannot be told.
fn is_within(narrow: &quota::Rule, wide: &quota::Rule) -> bool {
    let limits = |rule: &quota::Rule| rule.limit.is_some() || rule.concurrency.is_some();
    let says_more = wide.pace != Pace::Off || wide.fair || wide.reserve.is_some();
    let refuses_more = wide.on_error == OnError::Refuse && narrow.on_error != OnError::Refuse;
    if !limits(wide) || says_more || refuses_more || narrow.shared != wide.shared {
        return false;
    }
    let places = match (narrow.concurrency, wide.concurrency) {
        (_, None) => true,
        (Some(narrow), Some(wide)) => narrow <= wide,
        (None, Some(_)) => false,
    };
    let rate = match (&narrow.limit, &wide.limit) {
        (_, None) => true,
        (Some(ours), Some(theirs)) => {
            // A call of more units than a limit has takes a period of it: only equal ones can be compared.
            let comparable = ours.unit == Unit::Requests || ours.period == theirs.period;
            let slower = u128::from(ours.units) * theirs.period.as_nanos()
                <= u128::from(theirs.units) * ours.period.as_nanos();
            ours.unit == theirs.unit && comparable && slower && narrow.burst_of(ours) <= wide.burst_of(theirs)
        }
        (None, Some(_)) => false,
    };
    places && rate
}

#[cfg(test)]
mod tests {
    use super::super::tests::warnings;

    #[test]
    fn a_quota_behind_a_narrower_one_of_the_same_match_is_told_with_both_lines() {
        let quota = |conditions: &str, then: &str| format!("[[quota]]\nmatch = {{ {conditions} }}\n{then}\n");
        let by = "vendor = \"stripe\", endpoint = \"POST /v1/charges\", customer = \"*\"";
        let same = "customer = \"*\", endpoint = \"POST /v1/charges\", vendor = \"Stripe\"";
        let (ten, twenty) = ("limit = \"10 requests / 1s\"", "limit = \"20 requests / 1s\"");
        let message = "f:4:1: warning: the rule `quota@4` in line 4 never decides: the rule `quota@1` in line 1 has the same \
                       match, and is the narrower one at any time; remove one of them, or narrow this match";
        for (first, second) in [
            (ten, twenty),
            (ten, ten),
            ("limit = \"10 requests / 1s\"\nburst = 2", "limit = \"36000 requests / 1h\"\nburst = 10"),
            ("concurrency = 5", "concurrency = 9"),
            ("limit = \"500 tokens / 1m\"\nconcurrency = 5", "limit = \"900 tokens / 1m\"\nconcurrency = 5"),
        ] {
            let file = quota(by, first) + &quota(same, second);
            let said: Vec<_> = warnings(&file);
            let line = first.lines().count() + 3;
            let expected =
                message.replace("f:4:1", &format!("f:{line}:1")).replace("@4", &format!("@{line}"));
            let expected = expected.replace("in line 4", &format!("in line {line}"));
            assert_eq!(said, [expected], "{file}");
        }
    }

    #[test]
    fn a_quota_that_may_decide_is_no_warning() {
        let quota = |conditions: &str, then: &str| format!("[[quota]]\nmatch = {{ {conditions} }}\n{then}\n");
        let (stripe, ten) = ("vendor = \"stripe\"", "limit = \"10 requests / 1s\"");
        for (conditions, first, second) in [
            (stripe, ten, "limit = \"100 requests / 1h\""),
            (stripe, ten, "limit = \"9 requests / 1s\""),
            (stripe, "limit = \"10 requests / 1s\"\nburst = 9", "limit = \"20 requests / 1s\"\nburst = 1"),
            (stripe, ten, "limit = \"900 tokens / 1s\""),
            (stripe, ten, "concurrency = 900"),
            (stripe, ten, "limit = \"20 requests / 1s\"\nfair = \"customer\""),
            (stripe, ten, "max_wait = \"5s\""),
            (stripe, "limit = \"10 requests / 1s\"\nshared = \"process\"", "limit = \"20 requests / 1s\""),
            (stripe, "limit = \"600 tokens / 1m\"", "limit = \"36000 tokens / 1h\""),
            ("vendor = \"stripe\", customer = \"*\"", ten, "limit = \"20 requests / 1s\""),
            ("vendor = \"stripe\", customer = \"acme\"", ten, "limit = \"20 requests / 1s\""),
        ] {
            let file = quota(conditions, first) + &quota(stripe, second);
            assert_eq!(warnings(&file), [""; 0], "{file}");
        }
    }
}
