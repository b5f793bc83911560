//! What follows from the match of a `[[policy]]`.

use super::Condition;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// What a rule says of the calls that it matches.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Policy {
    /// `verdict`.
    pub verdict: Verdict,
    /// `final`: a denial that holds only where no rule allows the call.
    pub is_final: bool,
    /// `mode`; where the rule says none, the file's `policy_mode`.
    pub mode: Mode,
    /// `reason`: told to whoever is refused.
    pub reason: Option<Arc<str>>,
    /// `throttle`: the rate of a rule whose verdict is to throttle.
    pub throttle: Option<Rate>,
    /// `when`: a condition beyond the match.
    pub when: Option<Condition>,
    /// `on_error`: what happens to a call for which `when` cannot be told.
    pub on_error: OnError,
}

impl Policy {
    /// A rule that is enforced, without any of the rest.
    #[must_use]
    pub fn new(verdict: Verdict) -> Self {
        Self {
            verdict,
            is_final: false,
            mode: Mode::Enforce,
            reason: None,
            throttle: None,
            when: None,
            on_error: OnError::Allow,
        }
    }

    /// A denial of all that no rule allows.
    #[must_use]
    pub fn final_deny() -> Self {
        Self { is_final: true, ..Self::new(Verdict::Deny) }
    }
}

/// What becomes of a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Verdict {
    /// It passes.
    #[default]
    Allow = 0,
    /// It passes, and is shown as one that somebody should look at.
    Warn = 1,
    /// It passes at the rule's rate.
    Throttle = 2,
    /// It is refused.
    Deny = 3,
}

impl Verdict {
    /// The words of `verdict`.
    pub const WORDS: [(&str, Self); 4] =
        [("allow", Self::Allow), ("warn", Self::Warn), ("deny", Self::Deny), ("throttle", Self::Throttle)];

    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Warn => "warn",
            Self::Throttle => "throttle",
            Self::Deny => "deny",
        }
    }
}

/// Whether a rule acts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// It acts.
    #[default]
    Enforce,
    /// It is counted what it would have done.
    Report,
}

/// What happens to a call for which a rule's `when` cannot be told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OnError {
    /// The call passes, as far as this rule is concerned.
    #[default]
    Allow,
    /// The call is refused.
    Refuse,
}

/// So many calls in so much time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Rate {
    /// How many calls; at least one.
    pub calls: u32,
    /// In which time.
    pub per: Duration,
}

impl Rate {
    /// `calls` in `per`; `None` for no calls or no time.
    #[must_use]
    pub fn new(calls: u32, per: Duration) -> Option<Self> {
        (calls > 0 && !per.is_zero()).then_some(Self { calls, per })
    }

    /// Reads `"10 requests / 1s"`, `"100 / minute"` or `"5 calls/h"`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (amount, window) = text.split_once('/')?;
        let mut words = amount.split_whitespace();
        let calls: u32 = words.next()?.parse().ok()?;
        match words.next() {
            None | Some("request" | "requests" | "call" | "calls") => {}
            Some(_) => return None,
        }
        if words.next().is_some() {
            return None;
        }
        let window = window.trim();
        let per = match window {
            "ms" | "s" | "m" | "min" | "h" | "d" | "w" => {
                crate::config::parse_duration(&format!("1{window}"))
            }
            "second" => Some(Duration::from_secs(1)),
            "minute" => Some(Duration::from_secs(60)),
            "hour" => Some(Duration::from_secs(3_600)),
            "day" => Some(Duration::from_secs(86_400)),
            "week" => Some(Duration::from_secs(604_800)),
            window => crate::config::parse_duration(window),
        };
        Self::new(calls, per?)
    }
}

/// As `throttle` is written.
impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.per.as_millis();
        let (number, unit) = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s"), (1, "ms")]
            .into_iter()
            .find(|(unit, _)| millis.is_multiple_of(*unit))
            .map_or((millis, "ms"), |(unit, name)| (millis / unit, name));
        let noun = if self.calls == 1 { "request" } else { "requests" };
        write!(f, "{} {noun} / {number}{unit}", self.calls)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_read_and_written() {
        let rate = |calls, secs| Rate::new(calls, Duration::from_secs(secs));
        assert_eq!(Rate::parse("10 requests / 1s"), rate(10, 1));
        assert_eq!(Rate::parse("1 call/minute"), rate(1, 60));
        assert_eq!(Rate::parse("5 / h"), rate(5, 3_600));
        assert_eq!(Rate::parse("5 / 1h30m"), rate(5, 5_400));
        for text in ["", "10", "0 / 1s", "-1 / s", "10 tokens / 1s", "10 / 0s", "1 2 / 1s", "x/s", "1e3 / s"]
        {
            assert_eq!(Rate::parse(text), None, "{text}");
        }
        for text in ["10 requests / 1s", "1 request / 90m", "7 requests / 250ms", "2 requests / 1d"] {
            assert_eq!(Rate::parse(text).unwrap().to_string(), text);
        }
    }
}
