//! What happened to a call besides being sent and answered, for `farcall explain`.

use crate::cache::Status;
use crate::call::{Changes, Refusal};
use crate::cost::Cost;
use crate::fault::{Effect, Fault};
use crate::units::Timestamp;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

/// The most events of one call; further ones are counted.
const MAX_EVENTS: usize = 24;

/// One step of a call, with its reason.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Event {
    at: Timestamp,
    what: What,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum What {
    /// A rule of the policy warns of the call, cannot tell its condition, or would have acted were it not in report mode.
    Warned { rule: Arc<str>, would: &'static str },
    /// The call takes a variant of a rollout.
    Variant { rule: Arc<str> },
    /// An attempt met a fault.
    Fault { rule: Arc<str>, attempt: u32, fault: Fault },
    /// What became of that attempt instead.
    FaultOver { attempt: u32, how: &'static str },
    /// A budget has reached a share of its limit.
    Budget { rule: Arc<str>, says: &'static str },
    /// The call waits.
    Wait { rule: Arc<str>, why: &'static str, lasts: Duration },
    /// An attempt ended, and another one follows.
    Retry { after: String, why: &'static str, lasts: Duration },
    /// An attempt failed, and no other follows.
    NoRetry { after: String, why: &'static str },
    /// An attempt of an SDK ended, and the SDK itself made another one.
    SdkRetry { after: String, sdk: &'static str, lasts: Duration },
    /// The call goes to a backup; after an attempt that ended so, or before any was made.
    Failover { after: Option<String>, to: Arc<Changes>, why: &'static str },
    /// A second attempt was sent beside a slow first one.
    Hedge,
    /// One of two attempts under way is no more, and the other one goes on.
    Lost { which: &'static str, how: String },
    /// What an attempt cost that the call's answer does not come from.
    LostCost(Cost),
    /// The breaker went into another phase.
    Breaker { phase: &'static str },
    /// The call was refused.
    Refused(Refusal),
    /// An idempotency key was added.
    Key,
    /// The call failed so, and a rule had it parked.
    Park { rule: Arc<str>, after: String },
    /// The outbox took it.
    Parked { id: i64 },
    /// A rule would have it parked.
    NotParked { rule: Arc<str>, why: String },
    /// Somebody is told that a critical call failed.
    Alarm { rule: Arc<str> },
    /// The call waits for an equal one that is under way.
    Joined { rule: Arc<str> },
    /// What the cache did.
    Cache { rule: Arc<str>, status: Status },
}

/// The events of one call. Empty, and without memory, for a call that was just sent and answered.
#[derive(Clone, Debug, Default)]
pub(super) struct Events {
    list: Vec<Event>,
    more: u32,
}

impl Events {
    pub(super) fn add(&mut self, at: Timestamp, what: What) {
        match self.list.len() < MAX_EVENTS {
            true => self.list.push(Event { at, what }),
            false => self.more += 1,
        }
    }

    /// The call waits for `lasts` from now. One that asks again and waits on is still in the same wait.
    pub(super) fn wait(&mut self, at: Timestamp, rule: &Arc<str>, why: &'static str, lasts: Duration) {
        if let Some(Event { at: since, what: What::Wait { rule: before, why: told, lasts: so_far } }) =
            self.list.last_mut()
            && self.more == 0
            && (&**before, *told) == (&**rule, why)
        {
            *so_far = at.plus(lasts).since(*since);
            return;
        }
        self.add(at, What::Wait { rule: Arc::clone(rule), why, lasts });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.list.clear();
        self.more = 0;
    }

    /// A line for each, and one for why a call was refused, as `+12.3 ms  waits 40.0 ms for `openai`: nothing is left`.
    pub(super) fn text(&self, begun: Timestamp) -> String {
        let mut text = String::new();
        for Event { at, what } in &self.list {
            let after = at.since(begun).as_secs_f64() * 1e3;
            let _ = writeln!(text, "+{after:.1} ms  {what}");
            if let What::Refused(refusal) = what {
                let _ = writeln!(text, "+{after:.1} ms  {}", refusal.because());
            }
        }
        if self.more > 0 {
            let _ = writeln!(text, "and {} more", self.more);
        }
        text
    }
}

impl std::fmt::Display for What {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ms = |duration: &Duration| duration.as_secs_f64() * 1e3;
        match self {
            Self::Warned { rule, would } => write!(f, "policy `{rule}` {would}"),
            Self::Variant { rule } => write!(f, "rollout `{rule}`: takes the new variant"),
            Self::FaultOver { attempt, how } => write!(f, "attempt {attempt}: {how}"),
            Self::Fault { rule, attempt, fault } => {
                write!(f, "attempt {attempt}: fault `{rule}` injected: ")?;
                if !fault.delay.is_zero() {
                    write!(f, "holds it back for {:.1} ms, then ", ms(&fault.delay))?;
                }
                match fault.effect {
                    Effect::Send => write!(f, "lets it be sent"),
                    Effect::Fail(error) => write!(f, "fails it ({}) in place of sending it", error.as_str()),
                    Effect::Respond { status, retry_after } => {
                        write!(f, "answers {status} ")?;
                        if let Some(after) = retry_after {
                            write!(f, "with Retry-After {} s ", after.as_secs_f64().ceil())?;
                        }
                        write!(f, "in the vendor's place")
                    }
                    Effect::Truncate { bytes } => {
                        write!(f, "lets it be sent, and breaks off the answer's body after {bytes} bytes")
                    }
                }
            }
            Self::Budget { rule, says } => write!(f, "budget `{rule}`: {says}"),
            Self::Wait { rule, why, lasts } => write!(f, "waits {:.1} ms for `{rule}`: {why}", ms(lasts)),
            Self::Retry { after, why, lasts } => {
                write!(f, "{after}: tries again in {:.1} ms, {why}", ms(lasts))
            }
            Self::NoRetry { after, why } => write!(f, "{after}: no further attempt, {why}"),
            Self::SdkRetry { after, sdk, lasts } => {
                write!(f, "{after}: the SDK above ({sdk}) tries again after {:.1} ms", ms(lasts))
            }
            Self::Failover { after: Some(after), to, why } => {
                write!(f, "{after}: goes to the backup{}, {why}", backup(to))
            }
            Self::Failover { after: None, to, why } => write!(f, "goes to the backup{}: {why}", backup(to)),
            Self::Hedge => write!(f, "no answer yet: a second attempt beside the first"),
            Self::Lost { which, how } => write!(f, "of the two the {which} {how}: the other one counts"),
            Self::LostCost(Cost { nanos: 0, unknown: Some(why), .. }) => {
                write!(f, "what that attempt cost is unknown ({})", why.as_str())
            }
            Self::LostCost(cost) => {
                let more = if cost.unknown.is_some() { " and more" } else { "" };
                write!(f, "that attempt cost {}{more}", cost.part())
            }
            Self::Breaker { phase } => write!(f, "the breaker is {phase} now"),
            Self::Refused(refusal) => write!(f, "refused by {} `{}`", refusal.by.as_str(), refusal.rule),
            Self::Key => write!(f, "an idempotency key was added"),
            Self::Park { rule, after } => write!(f, "{after}: `{rule}` has it parked in the outbox"),
            Self::Parked { id } => write!(f, "parked: call {id} of the outbox, to be delivered from there"),
            Self::NotParked { rule, why } => write!(f, "`{rule}` would have it parked, but {why}"),
            Self::Alarm { rule } => write!(f, "critical by `{rule}`: the alarm is told"),
            Self::Joined { rule } => {
                write!(f, "cache `{rule}`: an equal call is under way; waits for its answer")
            }
            Self::Cache { rule, status } => write!(f, "cache `{rule}`: {status}"),
        }
    }
}

/// Which backup it is: what is sent to another host, below another path or to another model.
fn backup(to: &Changes) -> String {
    let part = |before: &str, name: &Option<String>| {
        name.as_ref().map_or_else(String::new, |name| format!("{before} `{name}`"))
    };
    let Changes { host, path_prefix, model, .. } = to;
    [part("", host), part(" below", path_prefix), part(" with the model", model)].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_that_is_asked_about_again_and_again_is_one_event() {
        let at = |millis| Timestamp::from_nanos(0).plus_millis(millis);
        let (rule, lasts): (Arc<str>, _) = ("few".into(), Duration::from_millis(5));
        let mut events = Events::default();
        (0..100).for_each(|times| events.wait(at(times * 5), &rule, "all places are taken", lasts));
        let refused = |reason: &str| What::NoRetry { after: reason.into(), why: "it has had its attempts" };
        events.add(at(500), refused("503"));
        events.wait(at(600), &rule, "all places are taken", lasts);
        assert_eq!(
            events.text(at(0)),
            "+0.0 ms  waits 500.0 ms for `few`: all places are taken\n\
             +500.0 ms  503: no further attempt, it has had its attempts\n\
             +600.0 ms  waits 5.0 ms for `few`: all places are taken\n"
        );
    }
}
