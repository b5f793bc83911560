//! `[[fault]]`: what is broken on purpose.

use super::parse_duration;
use super::resilience::range;
use super::section::Section;
use crate::call::ErrorType;
use crate::fault::{Effect, Rule};
use crate::matcher::parse_bytes;
use crate::units::Share;
use crate::units::moment::rfc_3339;
use std::time::Duration;

const ERRORS: [(&str, ErrorType); 6] = [
    ("dns", ErrorType::Dns),
    ("connect", ErrorType::Connect),
    ("tls", ErrorType::Tls),
    ("timeout", ErrorType::Timeout),
    ("reset", ErrorType::Reset),
    ("protocol", ErrorType::Protocol),
];

/// Reads what a rule says beside its match; `None` where something is wrong with it, which was reported.
/// `allowed` is the file's `allow_faults`.
pub(super) fn read(section: &mut Section<'_, '_>, allowed: bool) -> Option<Rule> {
    let name = section.string("name").unwrap_or_else(|| format!("fault@{}", section.line()));
    let share = section.share("share");
    let latency = section.checked_string("latency", |text| {
        let range = range(text).or_else(|| parse_duration(text).map(|latency| (latency, latency)));
        let range = range.filter(|(_, most)| *most <= Duration::from_secs(3_600));
        range.ok_or(r#"a latency up to an hour; write "200ms", or "100ms..2s" for a range"#.into())
    });
    let error = section.choice("error", &ERRORS);
    let status = section.number("status", 400..=599);
    let retry_after = section.duration("retry_after");
    let truncate = section.checked_string("truncate", |text| {
        parse_bytes(text).ok_or(r#"a size; write it as in "1KiB""#.into())
    });
    let expires = section.checked_string("expires", |text| {
        rfc_3339(text.as_bytes()).ok_or_else(|| match is_too_late(text) {
            true => "a moment before the year 2554; it is too far away".into(),
            false => r#"a moment; write it as in "2026-12-01T00:00:00Z" (RFC 3339)"#.into(),
        })
    });

    let keys = [
        ("share", share.is_some()),
        ("latency", latency.is_some()),
        ("error", error.is_some()),
        ("status", status.is_some()),
        ("retry_after", retry_after.is_some()),
        ("truncate", truncate.is_some()),
        ("expires", expires.is_some()),
    ];
    let mut good = keys.iter().all(|(key, read)| *read || !section.has(key));
    if !allowed {
        section.wrong(
            "faults are not allowed in this file; write `allow_faults = true` at its top, or leave them out",
        );
        good = false;
    }
    if !section.has("expires") {
        section
            .missing("expires", "a fault must end by itself; write a moment as in \"2026-12-01T00:00:00Z\"");
    }
    if !section.has("share") {
        section.missing("share", "say how many calls meet the fault, as in \"5%\"");
    }
    let effects = ["error", "status", "truncate"].into_iter().filter(|key| section.has(key)).count();
    if effects > 1 {
        section.wrong("a call ends in one way only; keep one of `error`, `status` and `truncate`");
        good = false;
    }
    if effects == 0 && !section.has("latency") {
        section.says_nothing("the fault does nothing; write `latency`, `error`, `status` or `truncate`");
        good = false;
    }
    if section.has("retry_after") && !section.has("status") {
        section.wrong("`retry_after` is part of an answer; write `status = 429` or 503 as well");
        good = false;
    }
    let effect = match (error, status, truncate) {
        (Some(error), _, _) => Effect::Fail(error),
        (_, Some(status), _) => Effect::Respond { status: u16::try_from(status).ok()?, retry_after },
        (_, _, Some(bytes)) => Effect::Truncate { bytes },
        _ => Effect::Send,
    };
    let rule = Rule { share: Share::from_ratio(share?)?, latency, effect, ..Rule::new(&name, expires?) };
    good.then_some(rule)
}

/// Whether a text that is no moment would be one in an earlier year.
fn is_too_late(text: &str) -> bool {
    let year: Option<u32> = text.get(..4).and_then(|year| year.parse().ok());
    // A leap year, which has all days.
    let earlier = text.get(4..).and_then(|rest| rfc_3339(format!("2000{rest}").as_bytes()));
    year.is_some_and(|year| year >= 2554) && earlier.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::section;

    fn read(text: &str) -> Result<Rule, Vec<String>> {
        let mut rule = None;
        let errors = section::read("f", text, |root| rule = super::read(root, true));
        let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert!(rule.is_some() || !errors.is_empty(), "a rule is not left out in silence");
        if errors.is_empty() { rule.ok_or(errors) } else { Err(errors) }
    }

    #[test]
    fn a_whole_rule_is_read() {
        let rule = read(
            "name = \"slow\"\nshare = \"5%\"\nlatency = \"100ms..2s\"\nstatus = 429\nretry_after = \"2s\"\nexpires = \"2026-12-01T00:00:00Z\"",
        )
        .unwrap();
        assert_eq!(rule.latency, Some((Duration::from_millis(100), Duration::from_secs(2))));
        assert_eq!(rule.effect, Effect::Respond { status: 429, retry_after: Some(Duration::from_secs(2)) });
        assert_eq!(rule.expires.as_secs(), 1_796_083_200);
        let cut = read("share = 1\ntruncate = \"1KiB\"\nexpires = \"2026-12-01T00:00:00Z\"").unwrap();
        assert_eq!(
            (cut.effect, cut.share, cut.name.as_ref()),
            (Effect::Truncate { bytes: 1_024 }, Share::ALL, "fault@1")
        );
    }

    #[test]
    fn faults_exist_only_where_the_file_allows_them() {
        let text = "share = 1\nerror = \"reset\"\nexpires = \"2026-12-01T00:00:00Z\"";
        let mut rule = None;
        let errors = section::read("f", text, |root| rule = super::read(root, false));
        assert!(rule.is_none());
        assert!(errors[0].message.contains("allow_faults = true"), "{errors:?}");
        assert_eq!(read(text).unwrap().effect, Effect::Fail(ErrorType::Reset));
    }

    #[test]
    fn what_contradicts_itself_says_what_to_write() {
        let end = "expires = \"2026-12-01T00:00:00Z\"";
        for (text, says) in [
            ("share = 1\nstatus = 503".to_owned(), "must end by itself"),
            (format!("status = 503\n{end}"), "`share` is missing"),
            (format!("share = 1\nstatus = 503\nerror = \"reset\"\n{end}"), "one way only"),
            (format!("share = 1\n{end}"), "does nothing"),
            (format!("share = 1\nerror = \"reset\"\nretry_after = \"1s\"\n{end}"), "part of an answer"),
            (format!("share = 1\nlatency = \"2s..1s\"\n{end}"), "a latency"),
            (
                format!("share = 1\ntruncate = 10\n{end}"),
                "`truncate` is a whole number, not a string; write it in quotes: \"10\"",
            ),
            (format!("share = 1\nlatency = \"2h\"\n{end}"), "up to an hour"),
            (format!("share = 1\nstatus = 200\n{end}"), "between 400 and 599"),
            (format!("share = nan\nstatus = 500\n{end}"), "`share` is not a share"),
            ("share = 1\nstatus = 500\nexpires = \"tomorrow\"".to_owned(), "RFC 3339"),
            ("share = 1\nstatus = 500\nexpires = \"3099-01-01T00:00:00Z\"".to_owned(), "it is too far away"),
            ("share = 1\nstatus = 500\nexpires = \"3099-13-01T00:00:00Z\"".to_owned(), "RFC 3339"),
        ] {
            let errors = read(&text).unwrap_err();
            assert!(errors.iter().any(|error| error.contains(says)), "{text}: {errors:?}");
        }
    }
}
