//! `[[policy]]`: what follows from its match.

use super::section::Section;
use crate::policy::{Condition, Mode, OnError, Policy, Rate, Verdict};
use std::sync::Arc;

/// The words of `mode` and `policy_mode`.
pub(super) const MODES: [(&str, Mode); 2] = [("report", Mode::Report), ("enforce", Mode::Enforce)];

/// Reads what a rule says; `None` where that is wrong, which was reported.
pub(super) fn read(section: &mut Section<'_, '_>, mode: Mode) -> Option<Policy> {
    let verdict = section.choice("verdict", &Verdict::WORDS);
    if !section.has("verdict") {
        section.missing("verdict", "write \"allow\", \"warn\", \"deny\" or \"throttle\"");
    }
    let is_final = section.boolean("final");
    let written_mode = section.choice("mode", &MODES);
    let reason = section.checked_string("reason", |text| {
        let good = !text.trim().is_empty() && text.len() <= 500;
        good.then(|| Arc::from(text.trim())).ok_or("a reason; write up to 500 characters".into())
    });
    let throttle = section.checked_string("throttle", |text| {
        Rate::parse(text).ok_or_else(|| {
            let digits = text.trim_start().split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
            match !digits.is_empty() && digits.parse::<u32>().is_err() {
                true => "a rate; its number is too large, the most is 4294967295".into(),
                false => "a rate; write a number and a time, such as \"10 requests / 1s\"".into(),
            }
        })
    });
    let when = section.checked_string("when", |text| {
        Condition::compile(text).map_err(|error| format!("a condition in CEL: {error}"))
    });
    let on_error = section.choice("on_error", &[("allow", OnError::Allow), ("refuse", OnError::Refuse)]);

    let verdict = verdict?;
    let mut good = true;
    if verdict == Verdict::Throttle && !section.has("throttle") {
        section.missing("throttle", "say to which rate, as in \"10 requests / 1s\"");
        good = false;
    }
    if verdict != Verdict::Throttle && section.has("throttle") {
        section
            .wrong("`throttle` goes with `verdict = \"throttle\"` only; change the verdict, or leave it out");
        good = false;
    }
    if verdict != Verdict::Deny && is_final == Some(true) {
        section.wrong("`final` goes with `verdict = \"deny\"` only; change the verdict, or leave it out");
        good = false;
    }
    if section.has("on_error") && !section.has("when") {
        section.wrong("`on_error` is about `when`, which is not here; leave it out");
        good = false;
    }
    // With a part of it left out, the rule would say something else than was meant.
    let whole = [
        ("final", is_final.is_some()),
        ("mode", written_mode.is_some()),
        ("throttle", throttle.is_some()),
        ("when", when.is_some()),
        ("on_error", on_error.is_some()),
    ];
    if !good || whole.into_iter().any(|(key, read)| section.has(key) && !read) {
        return None;
    }
    Some(Policy {
        is_final: is_final.unwrap_or(false),
        mode: written_mode.unwrap_or(mode),
        reason,
        throttle,
        when,
        on_error: on_error.unwrap_or_default(),
        ..Policy::new(verdict)
    })
}
