//! Numbers as people read them.

pub(in crate::report) use farcall::units::grouped;

/// A share (0 to 1) in percent: `0.4%`, `12.5%`, `50%`.
pub(in crate::report) fn percent(share: f64) -> String {
    let percent = share * 100.0;
    let text = format!("{percent:.1}");
    match text.strip_suffix(".0") {
        Some("0") if share > 0.0 => "<0.1%".into(),
        Some("100") if share < 1.0 => ">99.9%".into(),
        Some(whole) => format!("{whole}%"),
        None => format!("{text}%"),
    }
}

/// Milliseconds: `0.4ms`, `85ms`, `1.2s`, `3m05s`; `-` for none.
pub(in crate::report) fn millis(value: Option<f64>) -> String {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    match value {
        None => "-".into(),
        Some(ms) if ms < 0.05 => "<0.1ms".into(),
        Some(ms) if ms < 9.95 => format!("{ms:.1}ms"),
        Some(ms) if ms < 999.5 => format!("{ms:.0}ms"),
        Some(ms) if ms < 59_950.0 => format!("{:.1}s", ms / 1e3),
        Some(ms) => {
            let seconds = (ms / 1e3).round() as u64;
            format!("{}m{:02}s", seconds / 60, seconds % 60)
        }
    }
}

/// Bytes in decimal units: `0B`, `999B`, `1.2kB`, `3.4GB`.
pub(super) fn bytes(value: u64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if value < 1_000 {
        return format!("{value}B");
    }
    #[allow(clippy::cast_precision_loss)]
    let mut scaled = value as f64 / 1e3;
    let mut unit = 0;
    while scaled >= 999.5 && unit + 1 < UNITS.len() {
        scaled /= 1e3;
        unit += 1;
    }
    if scaled < 99.95 { format!("{scaled:.1}{}", UNITS[unit]) } else { format!("{scaled:.0}{}", UNITS[unit]) }
}

/// Money as a table shows it, from an exact decimal number: cents, or where there is less than one unit two
/// digits that say something: `12.30 USD`, `0.0042 USD`; `≥` where that is not all, `-` where nothing is known.
pub(super) fn money(amount: Option<&str>, currency: &str, partly: bool) -> String {
    let Some(amount) = amount else { return "-".into() };
    let rounded = round(amount);
    match partly {
        // At least nothing is no statement.
        true if rounded.bytes().all(|byte| matches!(byte, b'0' | b'.')) => "-".into(),
        true => format!("≥ {rounded} {currency}"),
        false => format!("{rounded} {currency}"),
    }
}

/// To cents, or to two digits below one; towards zero, so that "at least" stays true.
fn round(amount: &str) -> String {
    let (whole, rest) = amount.split_once('.').unwrap_or((amount, ""));
    if whole.trim_start_matches('-') != "0" {
        let digits = whole.trim_start_matches('-');
        let sign = if whole.starts_with('-') { "-" } else { "" };
        let grouped = digits.parse().map_or_else(|_| digits.to_owned(), grouped);
        return format!("{sign}{grouped}.{:0<2}", &rest[..rest.len().min(2)]);
    }
    let zeros = rest.bytes().take_while(|byte| *byte == b'0').count();
    let kept = rest[..rest.len().min((zeros + 2).max(2))].trim_end_matches('0');
    format!("{whole}.{kept:0<2}")
}

/// A count in decimal steps: `999`, `1.2k`, `3.4M`; `-` for none.
pub(super) fn short(value: u64) -> String {
    match value {
        0 => "-".into(),
        value => {
            let text = bytes(value);
            text.strip_suffix('B').unwrap_or(&text).to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_has_its_currency_and_says_when_it_is_not_all() {
        let whole = |amount| money(Some(amount), "USD", false);
        assert_eq!(whole("12.30"), "12.30 USD");
        assert_eq!(whole("1234567.891234567"), "1,234,567.89 USD");
        assert_eq!(whole("0.004219"), "0.0042 USD");
        assert_eq!(whole("0.000000015"), "0.000000015 USD");
        assert_eq!((whole("0.00"), whole("0.5")), ("0.00 USD".into(), "0.50 USD".into()));
        assert_eq!(money(Some("12.30"), "USD", true), "≥ 12.30 USD");
        assert_eq!(money(Some("0.00"), "USD", true), "-", "at least nothing says nothing");
        assert_eq!(money(None, "USD", true), "-");
    }

    #[test]
    fn counts_are_short() {
        for (value, text) in [(0, "-"), (7, "7"), (1_234, "1.2k"), (3_400_000, "3.4M")] {
            assert_eq!(short(value), text);
        }
    }

    #[test]
    fn numbers_are_grouped() {
        for (value, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(value), text);
        }
    }

    #[test]
    fn shares_never_round_to_nothing_or_all() {
        for (share, text) in [
            (0.0, "0%"),
            (0.000_1, "<0.1%"),
            (0.004, "0.4%"),
            (0.125, "12.5%"),
            (0.5, "50%"),
            (0.999_9, ">99.9%"),
            (1.0, "100%"),
        ] {
            assert_eq!(percent(share), text);
        }
    }

    #[test]
    fn times_and_sizes_have_the_unit_that_fits() {
        let times =
            [(0.42, "0.4ms"), (85.4, "85ms"), (999.6, "1.0s"), (12_340.0, "12.3s"), (185_000.0, "3m05s")];
        assert_eq!(millis(Some(0.012)), "<0.1ms");
        for (ms, text) in times {
            assert_eq!(millis(Some(ms)), text);
        }
        assert_eq!(millis(None), "-");
        let sizes = [(0, "0B"), (999, "999B"), (1_204, "1.2kB"), (999_600, "1.0MB"), (u64::MAX, "18.4EB")];
        for (size, text) in sizes {
            assert_eq!(bytes(size), text);
        }
    }
}
