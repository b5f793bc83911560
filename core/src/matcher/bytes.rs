//! Numbers of bytes as people write them, and comparisons with them.

/// Reads `"512"`, `"10 KB"` (1,000 each), `"1MiB"` (1,024 each) or `"1.5 GiB"`. `None` for anything else, and
/// for more than 2^63.
#[must_use]
pub fn parse_bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let letters = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = (text[..letters].trim(), &text[letters..]);
    let unit: u64 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "tib" => 1 << 40,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) || fraction.len() > 6 || number.ends_with('.')
    {
        return None;
    }
    let mut total = u128::from(whole.parse::<u64>().ok()?) * u128::from(unit);
    if !fraction.is_empty() {
        let part = fraction.parse::<u64>().ok()?;
        let scale = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
        total += u128::from(part) * u128::from(unit) / scale;
    }
    u64::try_from(total).ok().filter(|total| *total <= 1 << 63)
}

/// `>1MiB` and its like, as the least and the greatest number that it holds for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Comparison {
    least: u64,
    most: u64,
}

impl Comparison {
    /// `None` for what is no comparison, and for one that holds for nothing (`<0`).
    pub(super) fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let all = Self { least: 0, most: u64::MAX };
        let number = |sign: &str| text.strip_prefix(sign).map(parse_bytes);
        if let Some(number) = number(">=") {
            return Some(Self { least: number?, ..all });
        }
        if let Some(number) = number("<=") {
            return Some(Self { most: number?, ..all });
        }
        if let Some(number) = number(">") {
            return Some(Self { least: number?.checked_add(1)?, ..all });
        }
        if let Some(number) = number("<") {
            return Some(Self { most: number?.checked_sub(1)?, ..all });
        }
        let number = number("=").unwrap_or_else(|| parse_bytes(text))?;
        Some(Self { least: number, most: number })
    }

    pub(super) fn holds(self, bytes: u64) -> bool {
        (self.least..=self.most).contains(&bytes)
    }

    /// Whether it holds wherever `other` does.
    pub(super) fn covers(self, other: Self) -> bool {
        self.least <= other.least && other.most <= self.most
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_write_bytes_in_these_ways() {
        assert_eq!(parse_bytes("512"), Some(512));
        assert_eq!(parse_bytes(" 10 KB "), Some(10_000));
        assert_eq!(parse_bytes("1MiB"), Some(1 << 20));
        assert_eq!(parse_bytes("1.5 GiB"), Some((1 << 30) + (1 << 29)));
        for text in
            ["", "MB", "-1", "1e9", "1.", ".5", "1 parsec", "99999999999999999999", "9999999TB", "1..2"]
        {
            assert_eq!(parse_bytes(text), None, "{text}");
        }
    }

    #[test]
    fn comparisons_hold_up_to_their_border() {
        let holds = |text: &str, bytes| Comparison::parse(text).unwrap().holds(bytes);
        assert!(holds(">1KiB", 1025) && !holds(">1KiB", 1024));
        assert!(holds(">=1KiB", 1024) && holds("<1KiB", 1023) && !holds("<1KiB", 1024));
        assert!(holds("<= 1KiB", 1024) && holds("=5", 5) && holds("5", 5) && !holds("5", 6));
        assert!(Comparison::parse("<0").is_none() && Comparison::parse("~1").is_none());
        let covers = |a, b| Comparison::parse(a).unwrap().covers(Comparison::parse(b).unwrap());
        assert!(covers(">1", ">5") && !covers(">5", ">1") && !covers(">1", "<5"));
    }
}
