//! The dates that vendors write into headers and bodies, without a calendar library.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Time since the Unix epoch; zero when the machine's clock stands before it.
pub(crate) fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// RFC 3339 in UTC, whole seconds: `2026-11-21T06:00:00Z`.
pub(crate) fn rfc3339(at: Duration) -> String {
    let (year, month, day) = civil(at.as_secs() / 86_400);
    let (h, m, s) = time_of_day(at.as_secs());
    format!("{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}Z")
}

/// IMF-fixdate (RFC 9110 section 5.6.7): `Sat, 21 Nov 2026 06:00:00 GMT`.
pub(crate) fn http_date(at: Duration) -> String {
    let days = at.as_secs() / 86_400;
    let (year, month, day) = civil(days);
    let (h, m, s) = time_of_day(at.as_secs());
    let weekday = DAYS[(days % 7) as usize];
    let month = MONTHS[(month - 1) as usize];
    format!("{weekday}, {day:02} {month} {year:04} {h:02}:{m:02}:{s:02} GMT")
}

/// Go's duration notation as OpenAI writes it: `12ms`, `7.66s`, `6m0s`, `1h0m3s`.
pub(crate) fn go_duration(d: Duration) -> String {
    let ms = d.as_millis();
    if ms < 1_000 {
        return format!("{ms}ms");
    }
    let (whole, part) = (ms / 1_000, ms % 1_000);
    let fraction =
        if part == 0 { String::new() } else { format!(".{part:03}").trim_end_matches('0').to_owned() };
    match (whole / 3_600, whole / 60 % 60, whole % 60) {
        (0, 0, s) => format!("{s}{fraction}s"),
        (0, m, s) => format!("{m}m{s}{fraction}s"),
        (h, m, s) => format!("{h}h{m}m{s}{fraction}s"),
    }
}

fn time_of_day(secs: u64) -> (u64, u64, u64) {
    (secs / 3_600 % 24, secs / 60 % 60, secs % 60)
}

/// Days since the epoch to year, month, day: Hinnant's `civil_from_days`, for days after 1970.
fn civil(days: u64) -> (u64, u64, u64) {
    let z = days + 719_468;
    let era = z / 146_097;
    let doe = z % 146_097;
    let yoe = (doe - doe / 1_460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    (yoe + era * 400 + u64::from(month <= 2), month, doy - (153 * mp + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_match_the_calendar() {
        for (secs, iso, imf) in [
            (0, "1970-01-01T00:00:00Z", "Thu, 01 Jan 1970 00:00:00 GMT"),
            (951_782_400, "2000-02-29T00:00:00Z", "Tue, 29 Feb 2000 00:00:00 GMT"),
            (1_795_240_799, "2026-11-21T05:59:59Z", "Sat, 21 Nov 2026 05:59:59 GMT"),
        ] {
            assert_eq!(rfc3339(Duration::from_secs(secs)), iso);
            assert_eq!(http_date(Duration::from_secs(secs)), imf);
        }
    }

    #[test]
    fn durations_read_as_openai_writes_them() {
        for (ms, text) in [(12, "12ms"), (7_660, "7.66s"), (360_000, "6m0s"), (3_603_000, "1h0m3s")] {
            assert_eq!(go_duration(Duration::from_millis(ms)), text);
        }
    }
}
