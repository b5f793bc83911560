//! Why a call was not made.

use crate::quota::Why;
use crate::units::Timestamp;
use crate::units::moment::in_words;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Which concept refused a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
#[repr(u8)]
pub enum RefusedBy {
    /// A rule of `[[policy]]`.
    Policy = 1,
    /// A kill switch of `[[rollout]]`.
    Rollout = 2,
    /// A budget that is spent.
    Budget = 3,
    /// A quota that leaves no room before the call's deadline.
    Quota = 4,
    /// A limit of calls at the same time.
    Concurrency = 5,
    /// An open breaker.
    Breaker = 6,
    /// The deadline passed before the call could be sent.
    Deadline = 7,
    /// An injected fault.
    Fault = 8,
    /// A request that wants only what the cache has (`only-if-cached`), and nothing is kept.
    Cache = 9,
}

impl RefusedBy {
    /// All of them, in the order of their numbers, which start at 1.
    pub const ALL: [Self; 9] = [
        Self::Policy,
        Self::Rollout,
        Self::Budget,
        Self::Quota,
        Self::Concurrency,
        Self::Breaker,
        Self::Deadline,
        Self::Fault,
        Self::Cache,
    ];

    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Policy => "policy",
            Self::Rollout => "rollout",
            Self::Budget => "budget",
            Self::Quota => "quota",
            Self::Concurrency => "concurrency",
            Self::Breaker => "breaker",
            Self::Deadline => "deadline",
            Self::Fault => "fault",
            Self::Cache => "cache",
        }
    }

    /// How a refused call's outcome is written: `refused-budget`.
    #[must_use]
    pub const fn outcome(self) -> &'static str {
        match self {
            Self::Policy => "refused-policy",
            Self::Rollout => "refused-rollout",
            Self::Budget => "refused-budget",
            Self::Quota => "refused-quota",
            Self::Concurrency => "refused-concurrency",
            Self::Breaker => "refused-breaker",
            Self::Deadline => "refused-deadline",
            Self::Fault => "refused-fault",
            Self::Cache => "refused-cache",
        }
    }

    pub(crate) const fn from_number(number: u8) -> Self {
        match number {
            1 => Self::Policy,
            2 => Self::Rollout,
            3 => Self::Budget,
            4 => Self::Quota,
            5 => Self::Concurrency,
            6 => Self::Breaker,
            7 => Self::Deadline,
            8 => Self::Fault,
            _ => Self::Cache,
        }
    }
}

/// A call that is not to be made: which rule says so, why, and when it would pass.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Refusal {
    /// The concept.
    pub by: RefusedBy,
    /// The rule's name: its own, or its kind and line (`budget@12`).
    pub rule: Arc<str>,
    /// What the rule's owner wants the reader to know; empty where he said nothing.
    pub reason: Arc<str>,
    /// When the same call would pass; `None` where waiting does not help or nobody can tell.
    pub until: Option<Timestamp>,
    /// When it was refused.
    pub at: Timestamp,
}

impl Refusal {
    /// Why, and when the same call would pass, as one line.
    pub(crate) fn because(&self) -> String {
        let said = (!self.reason.is_empty()).then_some(&*self.reason);
        let why = match self.by {
            RefusedBy::Policy => said.unwrap_or("the rule denies such calls"),
            RefusedBy::Rollout => "its kill switch is on",
            RefusedBy::Budget => "it would cost more than the limit leaves",
            RefusedBy::Quota => self.quota_says().map_or("it leaves no room", Why::in_words),
            RefusedBy::Concurrency => "as many calls as allowed were under way",
            RefusedBy::Breaker => "the vendor has been failing, and the breaker is open",
            RefusedBy::Deadline => "the time that the call had was over",
            RefusedBy::Fault => "the rule injects it",
            RefusedBy::Cache => "it wanted only what is kept, and nothing is",
        };
        let why = why.replace(char::is_control, " ");
        let Some(until) = self.until else { return format!("because {why}") };
        // A whole second, and not before it would.
        let at = in_words(until.plus(Duration::from_nanos(999_999_999)));
        let mut text = format!("because {why}; the same call would pass at {at}, in ");
        let _ = write_span(&mut text, until.since(self.at));
        text
    }

    /// What a quota refused it for.
    fn quota_says(&self) -> Option<Why> {
        Why::ALL.into_iter().find(|why| self.by == RefusedBy::Quota && why.as_str() == &*self.reason)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "farcall did not send this call: {} `{}`", self.by.as_str(), self.rule)?;
        match self.by {
            RefusedBy::Policy => write!(f, " denies it")?,
            RefusedBy::Rollout => write!(f, " has it switched off")?,
            RefusedBy::Budget => write!(f, " is spent")?,
            RefusedBy::Quota => write!(f, " leaves no room before its deadline")?,
            RefusedBy::Concurrency => write!(f, " has no free place before its deadline")?,
            RefusedBy::Breaker => write!(f, " is open: the vendor has been failing")?,
            RefusedBy::Deadline => write!(f, ": the deadline has passed")?,
            RefusedBy::Fault => write!(f, " is injected")?,
            RefusedBy::Cache => write!(f, " has nothing kept for it")?,
        }
        match self.quota_says() {
            Some(why) => write!(f, ": {}", why.in_words())?,
            None if !self.reason.is_empty() => write!(f, " ({})", self.reason)?,
            None => {}
        }
        match self.until {
            Some(until) => {
                f.write_str("; it would pass in ")?;
                write_span(f, until.since(self.at))
            }
            None => Ok(()),
        }
    }
}

/// As people say it: two hours and ten minutes are no 7,800 seconds.
fn write_span(f: &mut impl fmt::Write, span: Duration) -> fmt::Result {
    let minutes = span.as_secs() / 60;
    match minutes {
        0..2 => write!(f, "{:.1} s", span.as_secs_f64()),
        2..120 => write!(f, "{minutes} min"),
        120..2_880 => write!(f, "{} h {} min", minutes / 60, minutes % 60),
        _ => write!(f, "{} days", minutes / 1_440),
    }
}

impl std::error::Error for Refusal {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_why_and_when_the_same_call_would_pass() {
        let at = Timestamp::from_nanos(1_763_700_000_000_000_000);
        let refusal =
            |by, reason: &str, until| Refusal { by, rule: "r".into(), reason: reason.into(), until, at };
        for why in Why::ALL {
            let because = refusal(RefusedBy::Quota, why.as_str(), None).because();
            assert_eq!(because, format!("because {}", why.in_words()));
        }
        let budget = refusal(RefusedBy::Budget, "", Some(at.plus_millis(90_500))).because();
        let when = "the same call would pass at 2025-11-21 04:41:31 UTC, in 90.5 s";
        assert_eq!(budget, format!("because it would cost more than the limit leaves; {when}"));
        assert_eq!(refusal(RefusedBy::Policy, "not `us`", None).because(), "because not `us`");
    }

    #[test]
    fn what_a_quota_refused_a_call_for_is_told_in_words() {
        let at = Timestamp::from_nanos(0);
        for why in Why::ALL {
            let refusal = Refusal {
                by: RefusedBy::Quota,
                rule: "q".into(),
                reason: why.as_str().into(),
                until: why.can_be_foreseen().then(|| at.plus_millis(500)),
                at,
            };
            let when = if why.can_be_foreseen() { "; it would pass in 0.5 s" } else { "" };
            let says = why.in_words();
            assert_eq!(
                refusal.to_string(),
                format!(
                    "farcall did not send this call: quota `q` leaves no room before its deadline: {says}{when}"
                )
            );
        }
    }

    #[test]
    fn a_wait_is_told_in_the_units_that_people_use() {
        struct Span(u64);
        impl fmt::Display for Span {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_span(f, Duration::from_millis(self.0))
            }
        }
        let said = |millis| Span(millis).to_string();
        assert_eq!([said(40), said(119_900)], ["0.0 s", "119.9 s"]);
        assert_eq!([said(120_000), said(7_199_999)], ["2 min", "119 min"]);
        assert_eq!([said(7_800_000), said(172_800_000)], ["2 h 10 min", "2 days"]);
    }
}
