//! Durations as people write them.

use std::time::Duration;

/// Reads `"30s"`, `"250ms"`, `"5m"`, `"1h"`, `"7d"` or `"2w"`, also joined as in `"1h30m"`. `None` for
/// anything else, for zero and for more than a hundred years.
#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u32 = rest[..digits].parse().ok()?;
        rest = rest[digits..].trim_start();
        let letters = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
        let unit = match &rest[..letters] {
            "ms" => Duration::from_millis(1),
            "s" => Duration::from_secs(1),
            "m" | "min" => Duration::from_secs(60),
            "h" => Duration::from_secs(3_600),
            "d" => Duration::from_secs(86_400),
            "w" => Duration::from_secs(604_800),
            _ => return None,
        };
        total = total.checked_add(unit.checked_mul(number)?)?;
        rest = rest[letters..].trim_start();
    }
    (total > Duration::ZERO && total <= Duration::from_secs(100 * 365 * 86_400)).then_some(total)
}

/// Whether it is a duration of zero, such as `"0s"`, which is none.
pub(super) fn is_zero(text: &str) -> bool {
    let digits = || text.chars().filter(char::is_ascii_digit);
    digits().all(|digit| digit == '0') && parse_duration(&text.replacen('0', "1", 1)).is_some()
}

/// Whether it is a duration that is longer than any.
pub(super) fn is_too_long(text: &str) -> bool {
    let mut ones = String::new();
    for letter in text.chars() {
        // One of each unit: what is left is its form.
        match letter.is_ascii_digit() {
            true if ones.ends_with('1') => {}
            true => ones.push('1'),
            false => ones.push(letter),
        }
    }
    parse_duration(text).is_none() && !is_zero(text) && parse_duration(&ones).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_write_durations_in_these_ways() {
        assert_eq!(parse_duration("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(parse_duration("1h30m"), Some(Duration::from_secs(5_400)));
        assert_eq!(parse_duration(" 7 d "), Some(Duration::from_secs(604_800)));
        for text in ["", "0s", "5", "h", "-1s", "1.5h", "1y", "99999999999s", "4294967295w"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
        assert!(is_zero("0s") && is_zero("0h0m") && is_zero(" 000 ms"));
        assert!(is_too_long("99999999999s") && is_too_long("40000d") && is_too_long("1h 99999999 w"));
        assert!(
            !is_too_long("0s") && !is_too_long("7d") && !is_too_long("99999") && !is_too_long("9 apples")
        );
        assert!(!is_zero("") && !is_zero("0") && !is_zero("1s") && !is_zero("10s") && !is_zero("0 apples"));
    }
}
