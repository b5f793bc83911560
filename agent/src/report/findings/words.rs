//! Numbers in sentences.

/// A whole number with commas.
pub(in crate::report) fn number(value: u64) -> String {
    crate::report::render::grouped(value)
}

/// A share in percent, with one digit below ten.
pub(in crate::report) fn percent(part: u64, whole: u64) -> String {
    crate::report::render::percent(crate::report::numbers::share(part, whole))
}

/// `3 calls`, `1 call`.
pub(in crate::report) fn count(value: u64, thing: &str) -> String {
    format!("{} {thing}{}", number(value), if value == 1 { "" } else { "s" })
}

/// A time in the unit that fits, with a space: `95 s`.
pub(in crate::report) fn seconds(time: std::time::Duration) -> String {
    let millis = crate::report::numbers::millis(time);
    match millis {
        ..1_000.0 => format!("{millis:.0} ms"),
        ..100_000.0 => format!("{:.1} s", millis / 1e3),
        _ => format!("{} s", number(time.as_secs())),
    }
}

/// How long one call took.
pub(in crate::report) fn time(time: std::time::Duration) -> String {
    crate::report::render::millis(Some(crate::report::numbers::millis(time)))
}

/// Up to three names: `a, b and 4 more`.
pub(in crate::report) fn list(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [one] => (*one).into(),
        [first @ .., last] if names.len() <= 3 => format!("{} and {last}", first.join(", ")),
        _ => format!("{} and {} more", names[..2].join(", "), names.len() - 2),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_read_as_people_write_them() {
        assert_eq!(count(1, "call"), "1 call");
        assert_eq!(count(1_204, "byte"), "1,204 bytes");
        assert_eq!(list(&["a"]), "a");
        assert_eq!(list(&["a", "b", "c"]), "a, b and c");
        assert_eq!(list(&["a", "b", "c", "d", "e"]), "a, b and 3 more");
        assert_eq!(percent(1, 8), "12.5%");
    }
}
