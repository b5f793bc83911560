//! Lines of `farcall.toml`.

use farcall::catalogue::UNREADABLE;
use farcall::ledger::OTHER;
use std::fmt::Write;
use std::time::Duration;

/// A rule of this kind about a vendor, or one of its endpoints. `None` where no rule can be about it: what stands for
/// many, or for what could not be read.
pub(super) fn rule(kind: &str, vendor: &str, endpoint: Option<&str>, lines: &[String]) -> Option<String> {
    if [OTHER, UNREADABLE].contains(&vendor) || endpoint == Some(OTHER) {
        return None;
    }
    let mut text = format!("[[{kind}]]\nmatch = {{ vendor = {}", quoted(vendor));
    if let Some(endpoint) = endpoint {
        let _ = write!(text, ", endpoint = {}", quoted(endpoint));
    }
    text += " }\n";
    for line in lines {
        text += line;
        text += "\n";
    }
    Some(text)
}

/// A text of TOML.
pub(super) fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' | '\\' => quoted.extend(['\\', letter]),
            letter if letter.is_control() => _ = write!(quoted, "\\u{:04X}", u32::from(letter)),
            letter => quoted.push(letter),
        }
    }
    quoted + "\""
}

/// A whole number of seconds as a duration: `90s`, `10m`, `1h`, `1d`.
pub(super) fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    for (unit, length) in [("d", 86_400), ("h", 3_600), ("m", 60)] {
        if seconds >= length && seconds.is_multiple_of(length) {
            return format!("{}{unit}", seconds / length);
        }
    }
    format!("{seconds}s")
}

#[cfg(test)]
mod tests {
    use super::*;
    use farcall::Config;

    #[test]
    fn whatever_a_name_holds_the_lines_can_be_pasted() {
        for endpoint in ["GET /v1/{id}", "GET /a\"b\\c", "GET /a\nb", "GET /é/*"] {
            let text = rule("cache", "example.com", Some(endpoint), &["ttl = \"10s\"".into()]).unwrap();
            let config = Config::parse("f", &text).unwrap();
            assert_eq!(config.caches.len(), 1, "{text}");
        }
        assert_eq!(rule("cache", "other", None, &[]), None);
    }

    #[test]
    fn durations_are_written_in_the_largest_unit_that_fits() {
        let written = [1, 10, 60, 90, 600, 3_600, 86_400].map(|s| duration(Duration::from_secs(s)));
        assert_eq!(written, ["1s", "10s", "1m", "90s", "10m", "1h", "1d"]);
    }
}
