//! `[[rollout]]`: who takes which variant.

use super::changes;
use super::resilience::words;
use super::section::Section;
use crate::call::Changes;
use crate::rollout::{By, CanaryRule, Kill, Rule};
use crate::units::Share;

/// Reads what a rule says beside its match; `None` where something is wrong with it, which was reported.
pub(super) fn read(section: &mut Section<'_, '_>) -> Option<Rule> {
    let name = section.string("name").filter(|name| !name.trim().is_empty());
    if name.is_none() {
        section.missing("name", "a rollout's name decides who belongs to its share; write one and keep it");
    }
    let by = section.choice("by", &[("customer", By::Customer), ("call", By::Call)]);
    let share = section.share("share");
    let shadow = section.share("shadow");
    let kill = section.boolean("kill");
    let variant = section.has("variant").then(|| changes::read(section.table("variant")?, "variant"));
    let canary = section.has("canary").then(|| canary(section.table("canary")?));

    let keys = [
        ("by", by.is_some()),
        ("share", share.is_some()),
        ("shadow", shadow.is_some()),
        ("kill", kill.is_some()),
        ("variant", variant.as_ref().is_none_or(Option::is_some)),
        ("canary", canary.as_ref().is_none_or(Option::is_some)),
    ];
    if keys.iter().any(|(key, read)| section.has(key) && !read) {
        return None;
    }
    let (variant, canary) = (variant.flatten(), canary.flatten());
    let dealt = [("share", share.is_some()), ("canary", canary.is_some()), ("shadow", shadow.is_some())];
    if canary.is_some() && share.is_some() {
        section.wrong("`canary` moves the share by its own steps; leave `share` out, or `canary`");
        return None;
    }
    match (&variant, dealt.into_iter().find(|(_, there)| *there)) {
        (None, Some((key, _))) => {
            section.missing(
                "variant",
                &format!("say what `{key}` leads to, as in `variant = {{ path_prefix = \"/v2\" }}`"),
            );
            return None;
        }
        (Some(_), None) if kill.is_none() => {
            section.wrong("nobody takes the `variant`; write `share`, `canary` or `shadow`");
            return None;
        }
        (None, None) if kill.is_none() => {
            section.says_nothing("the rule says nothing; write `variant` and `share`, or `kill = true`");
            return None;
        }
        _ => {}
    }
    let kill = kill.unwrap_or(false).then_some(if variant.is_some() { Kill::Variant } else { Kill::Calls });
    let share = match &canary {
        Some(canary) => canary.steps.first().copied(),
        None => share.and_then(Share::from_ratio),
    };
    Some(Rule {
        by: by.unwrap_or(By::Customer),
        share: share.unwrap_or_default(),
        variant: variant.unwrap_or_else(Changes::default),
        canary,
        shadow: shadow.and_then(Share::from_ratio).unwrap_or_default(),
        kill,
        ..Rule::new(&name?, By::Customer)
    })
}

fn canary(section: &mut Section<'_, '_>) -> Option<CanaryRule> {
    let default = CanaryRule::default();
    let steps = words(section, "steps", |text| {
        let percent = text.trim().strip_suffix('%').and_then(|number| number.trim().parse::<f64>().ok());
        let share = percent.and_then(|percent| Share::from_ratio(percent / 100.0));
        share
            .filter(|share| *share != Share::NONE)
            .ok_or(r#"a share above nothing; write it as in "5%""#.into())
    });
    let min_calls = section.number("min_calls", 1..=1_000_000_000);
    let max_calls = section.number("max_calls", 1..=1_000_000_000_000);
    let hold = section.duration("hold");
    let increase = share_of(section, "max_error_rate_increase", 0.001);
    let p99 = share_of(section, "max_p99_increase", 0.01);
    let keys = [
        ("steps", steps.is_some()),
        ("min_calls", min_calls.is_some()),
        ("max_calls", max_calls.is_some()),
        ("hold", hold.is_some()),
        ("max_error_rate_increase", increase.is_some()),
        ("max_p99_increase", p99.is_some()),
    ];
    if keys.iter().any(|(key, read)| section.has(key) && !read) {
        return None;
    }
    let steps = steps.unwrap_or(default.steps);
    let rising = steps.windows(2).all(|pair| pair[0] < pair[1]);
    if !rising
        || steps.is_empty()
        || steps.len() > CanaryRule::MAX_STEPS
        || steps.first() == Some(&Share::ALL)
    {
        section.wrong(format!(
            "`steps` are no canary's; write up to {} shares, each larger than the one before, the first below 100%",
            CanaryRule::MAX_STEPS
        ));
        return None;
    }
    let min_calls = min_calls.map_or(default.min_calls, |calls| calls as u64);
    let max_calls = max_calls.map_or(min_calls * 100, |calls| calls as u64);
    if max_calls < min_calls {
        section.wrong(format!("`max_calls` is less than `min_calls`; write {min_calls} or more"));
        return None;
    }
    Some(CanaryRule {
        steps,
        min_calls,
        max_calls,
        hold: hold.unwrap_or(default.hold),
        max_error_rate_increase: increase.unwrap_or(default.max_error_rate_increase),
        max_p99_increase: p99.unwrap_or(default.max_p99_increase),
    })
}

/// A share that is large enough to be proven.
fn share_of(section: &mut Section<'_, '_>, key: &'static str, least: f64) -> Option<Share> {
    let share = section.share(key)?;
    if share < least {
        section.wrong(format!(
            "`{key}` is too small to be proven by any number of calls; write {}% or more",
            least * 100.0
        ));
        return None;
    }
    Share::from_ratio(share)
}

#[cfg(test)]
mod tests {
    use crate::config::section;
    use crate::rollout::{By, Kill, Rule};
    use crate::units::Share;

    fn read(text: &str) -> Result<Rule, Vec<String>> {
        let mut rule = None;
        let errors = section::read("f", text, |root| rule = super::read(root));
        let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert!(rule.is_some() || !errors.is_empty(), "a rule is not left out in silence");
        if errors.is_empty() { rule.ok_or(errors) } else { Err(errors) }
    }

    #[test]
    fn a_whole_rule_is_read() {
        let rule = read(
            r#"
            name = "eu-host"
            by = "call"
            shadow = "10%"
            variant = { host = "eu.api.example.com:8443", path_prefix = "/v2", headers = { "X-Region" = "eu" }, keep_credentials = true }
            canary = { steps = ["1%", "5%", "25%", "100%"], min_calls = 800, max_calls = 9000, hold = "10m", max_error_rate_increase = "0.5%", max_p99_increase = "50%" }
            "#,
        )
        .unwrap();
        assert_eq!((rule.name.as_ref(), rule.by), ("eu-host", By::Call));
        assert_eq!(rule.variant.host.as_deref(), Some("eu.api.example.com:8443"));
        assert_eq!(rule.variant.headers, [("x-region".to_owned(), "eu".to_owned())]);
        let canary = rule.canary.unwrap();
        assert_eq!(canary.steps.last(), Some(&Share::ALL));
        assert_eq!((canary.min_calls, canary.max_calls), (800, 9_000));
        assert_eq!((canary.steps.len(), canary.steps[0]), (4, rule.share));
    }

    #[test]
    fn a_kill_switch_needs_no_variant() {
        assert_eq!(read("name = \"x\"\nkill = true").unwrap().kill, Some(Kill::Calls));
        let variant = "name = \"x\"\nkill = true\nshare = 0.5\nvariant = { path_prefix = \"/v2\" }";
        assert_eq!(read(variant).unwrap().kill, Some(Kill::Variant));
        assert_eq!(read(&variant.replace("true", "false")).unwrap().kill, None);
    }

    #[test]
    fn what_contradicts_itself_says_what_to_write() {
        let variant = "variant = { path_prefix = \"/v2\" }";
        for (text, says) in [
            ("share = 0.5".to_owned(), "`name` is missing"),
            ("name = \"x\"\nshare = 0.5".to_owned(), "`variant` is missing"),
            (format!("name = \"x\"\n{variant}"), "nobody takes the `variant`"),
            ("name = \"x\"".to_owned(), "the rule says nothing"),
            (format!("name = \"x\"\nshare = 0.5\ncanary = {{}}\n{variant}"), "leave `share` out"),
            (format!("name = \"x\"\ncanary = {{ steps = [\"5%\", \"1%\"] }}\n{variant}"), "each larger"),
            (format!("name = \"x\"\ncanary = {{ steps = [\"0%\"] }}\n{variant}"), "a share above nothing"),
            (
                format!("name = \"x\"\ncanary = {{ max_error_rate_increase = \"0%\" }}\n{variant}"),
                "too small to be proven",
            ),
            (format!("name = \"x\"\ncanary = {{ max_calls = 499 }}\n{variant}"), "less than `min_calls`"),
            (format!("name = \"x\"\nshare = \"120%\"\n{variant}"), "between 0 and 1"),
            (
                "name = \"x\"\nshare = 0.1\nvariant = { host = \"b.example\" }".to_owned(),
                "keep_credentials = true",
            ),
            (
                "name = \"x\"\nshare = 0.1\nvariant = { headers = { host = \"b\" } }".to_owned(),
                "no header field that a rule can set",
            ),
            (
                "name = \"x\"\nshare = 0.1\nvariant = { headers = { a = \"x\\n\" } }".to_owned(),
                "cannot be sent",
            ),
            ("name = \"x\"\nshare = 0.1\nvariant = { path_prefix = \"/../v2\" }".to_owned(), "a path prefix"),
            (
                "name = \"x\"\nshare = 0.1\nvariant = { host = \"https://b.example\" }".to_owned(),
                "without scheme",
            ),
            ("name = \"x\"\nshare = 0.1\nvariant = {}".to_owned(), "changes nothing"),
        ] {
            let errors = read(&text).unwrap_err();
            assert!(errors.iter().any(|error| error.contains(says)), "{text}: {errors:?}");
        }
    }
}
