//! What a rule breaks on purpose: an attempt whose place a fault takes. It stands last, behind all that would have let
//! the attempt go, and what it comes to is judged like the vendor's own failure: nothing that follows an attempt can
//! tell the two apart, and nothing of it goes out.

use super::call::State;
use super::decide::{self, Begun, Halt};
use super::events::What;
use super::flow::{Flow, Until};
use super::parking::Instead;
use super::plan::{Plan, Standing};
use super::{Call, Engine, Step};
use crate::call::{ErrorType, Outcome, RefusedBy, Stored};
use crate::fault::{Effect, Fault};
use crate::resilience::Ending;
use crate::units::Timestamp;
use bytes::Bytes;
use http::header::{HeaderMap, HeaderValue, RETRY_AFTER};
use std::sync::Arc;
use std::time::Duration;

/// The fault that the attempt which is due has met.
#[derive(Clone, Copy, Debug)]
pub(super) struct Met {
    /// The rule's.
    place: usize,
    fault: Fault,
    /// The attempt: all that it takes counts from its beginning.
    pub(super) begun: Begun,
}

impl Met {
    /// Tells of it.
    pub(super) fn tell(&self, plan: &Plan, flow: &mut Flow, now: Timestamp) {
        let Self { place, fault, begun } = *self;
        let rule = Arc::clone(&plan.rules.faults[place].name);
        flow.events.add(now, What::Fault { rule, attempt: begun.number, fault });
    }

    /// When the attempt is let go of that is held back; and whether it is given up then, as one is that the vendor takes
    /// so long for.
    pub(super) fn ends(&self, plan: &Plan, flow: &Flow) -> (Timestamp, bool) {
        let since = self.begun.since;
        let over = since.plus(self.fault.delay).min(plan.rules.faults[self.place].then.expires);
        let patience = flow.deadline.of_attempt(since, plan.resilience.attempt_timeout);
        match patience.filter(|at| *at < over) {
            Some(given_up) => (given_up, true),
            None => (over, false),
        }
    }

    /// What the attempt comes to now that it is let go of; `Ok` where it goes out.
    pub(super) fn over(&self, plan: &Plan, flow: &mut Flow, now: Timestamp) -> Result<(), StoodIn> {
        let rule = &plan.rules.faults[self.place];
        let attempt = self.begun.number;
        let came = match self.fault.effect {
            _ if self.ends(plan, flow).1 => {
                flow.events.add(now, What::FaultOver { attempt, how: "given up while it was held back" });
                Came::Error(ErrorType::Timeout)
            }
            _ if now >= rule.then.expires => {
                flow.events.add(now, What::FaultOver { attempt, how: "sent, as the fault has expired" });
                return Ok(());
            }
            Effect::Send | Effect::Truncate { .. } => return Ok(()),
            Effect::Fail(error) => Came::Error(error),
            Effect::Respond { status, retry_after } => {
                Came::Answer(Arc::new(answer(&rule.name, status, retry_after)))
            }
        };
        Err(StoodIn { place: self.place, came })
    }

    /// After how many bytes the answer breaks off, and that to an attempt beside it.
    fn truncates(&self) -> Option<u64> {
        match self.fault.effect {
            Effect::Truncate { bytes } => Some(bytes),
            _ => None,
        }
    }
}

/// What an attempt came to that no vendor saw.
#[derive(Clone, Debug)]
pub(super) struct StoodIn {
    /// The rule's.
    pub(super) place: usize,
    came: Came,
}

#[derive(Clone, Debug)]
enum Came {
    Answer(Arc<Stored>),
    Error(ErrorType),
}

/// The attempt of this number may meet a fault: it is held back, or does not go out at all.
#[inline]
pub(super) fn before(plan: &Plan, flow: &mut Flow, number: u32, now: Timestamp) -> Result<(), Halt> {
    match plan.faults.is_empty() {
        true => Ok(()),
        false => meet(plan, flow, number, now),
    }
}

#[inline(never)]
fn meet(plan: &Plan, flow: &mut Flow, number: u32, now: Timestamp) -> Result<(), Halt> {
    flow.truncate = None;
    if flow.met.is_none() {
        let Some((place, fault)) = first(plan, flow, number, now) else { return Ok(()) };
        let begun = decide::begin_attempt(plan, flow, number, now);
        let met = Met { place, fault, begun };
        met.tell(plan, flow, now);
        flow.met = Some(met);
    }
    let Some(met) = flow.met else { return Ok(()) };
    if let Some(until) = Until::new(met.begun.since, met.ends(plan, flow).0).ahead(now) {
        return Err(match met.begun.hedge_at.filter(|_| flow.beside) {
            Some(due) if due <= now => Halt::Hedge,
            Some(due) => Halt::Wait(until.min(due)),
            None => Halt::Wait(until),
        });
    }
    met.over(plan, flow, now).map_err(Halt::Fault)?;
    flow.truncate = met.truncates();
    Ok(())
}

/// The first rule that an attempt meets, and what it does. It stands in this vendor's place, and not in a backup's.
fn first(plan: &Plan, flow: &Flow, number: u32, now: Timestamp) -> Option<(usize, Fault)> {
    let backup = plan.resilience.failover.as_ref().filter(|_| flow.failed_over);
    if backup.is_some_and(|(_, changes)| changes.host.is_some()) {
        return None;
    }
    plan.faults
        .iter()
        .find_map(|place| Some((*place, plan.rules.faults[*place].then.before(flow.seed, number, now)?)))
}

/// How long a fault holds back the second attempt of a call, which is then due so much later: nothing waits for it but
/// the first.
#[inline]
pub(super) fn delay_of_second(plan: &Plan, flow: &Flow, now: Timestamp) -> Duration {
    match plan.faults.is_empty() {
        true => Duration::ZERO,
        false => first(plan, flow, 2, now).map_or(Duration::ZERO, |(_, fault)| fault.delay),
    }
}

/// The fault that takes the place of a second attempt, which is due beside another one; its latency is over by then.
/// One that goes out breaks off where the other one does: of two answers the application gets one.
pub(super) fn beside(plan: &Plan, flow: &mut Flow, number: u32, now: Timestamp) -> Option<Met> {
    if let Some(met) = &flow.met {
        flow.truncate = met.truncates();
    }
    let (place, fault) = first(plan, flow, number, now)?;
    let goes_out = matches!(fault.effect, Effect::Send | Effect::Truncate { .. });
    let begun = Begun { number, since: now, hedge_at: None };
    (!goes_out).then_some(Met { place, fault: Fault { delay: Duration::ZERO, ..fault }, begun })
}

fn answer(rule: &str, status: u16, retry_after: Option<Duration>) -> Stored {
    let mut headers = HeaderMap::new();
    if let Some(after) = retry_after {
        headers.insert(RETRY_AFTER, whole_seconds(after).into());
    }
    if let Ok(name) = HeaderValue::try_from(rule) {
        headers.insert("x-farcall-fault", name);
    }
    Stored { status, headers, body: Bytes::new() }
}

/// As Retry-After says it.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Saturates.
fn whole_seconds(duration: Duration) -> u64 {
    duration.as_secs_f64().ceil() as u64
}

impl StoodIn {
    pub(super) fn ending(&self) -> Ending {
        match &self.came {
            Came::Answer(stored) => Ending::Status(stored.status),
            Came::Error(error) => Ending::Error(*error),
        }
    }

    /// Whether it is an answer, and no error.
    pub(super) fn answers(&self) -> bool {
        matches!(self.came, Came::Answer(_))
    }
}

impl Engine {
    /// The attempt is a fault's: it is made, comes to what the fault says, and what follows is asked.
    #[cold]
    #[inline(never)]
    pub(super) fn stand_in(&self, call: &mut Call, stood_in: StoodIn, now: Timestamp) -> Step {
        match &stood_in.came {
            Came::Answer(stored) => call.head(stored.status, now),
            Came::Error(error) => call.failed(*error),
        }
        if let Some(Standing { plan, flow }) = &mut call.flow {
            // It began when it was drawn.
            flow.met = None;
            flow.faulted += 1;
            if let Came::Answer(_) = stood_in.came
                && let Effect::Respond { retry_after, .. } = plan.rules.faults[stood_in.place].then.effect
            {
                flow.retry_at = retry_after.map(|after| now.plus(Duration::from_secs(whole_seconds(after))));
            }
            flow.stood_in = Some(stood_in);
        }
        call.step(self, now)
    }

    /// What the application gets of a call whose last attempt was a fault's.
    #[inline]
    pub(super) fn stood_in(call: &Call) -> Option<Instead> {
        let stood_in = call.flow.as_ref()?.flow.stood_in.as_ref()?;
        Some(match &stood_in.came {
            Came::Answer(stored) => Instead::Respond(Arc::clone(stored)),
            Came::Error(error) => Instead::Fail(*error),
        })
    }

    /// The status of the last attempt that went out, as others may have seen it on the wire.
    pub(super) fn seen(call: &Call) -> u16 {
        match &call.flow {
            Some(Standing { flow, .. }) if call.state == State::Begun || flow.stood_in.is_some() => flow.seen,
            _ => call.status,
        }
    }

    /// How a call came out that its adapter ends as it would one whose last attempt was made.
    pub(super) fn by_fault(call: &Call, outcome: Outcome) -> Outcome {
        match outcome {
            Outcome::Complete | Outcome::Abandoned | Outcome::Failed(_)
                if call.flow.as_ref().is_some_and(|standing| standing.flow.stood_in.is_some()) =>
            {
                Outcome::Refused(RefusedBy::Fault)
            }
            outcome => outcome,
        }
    }
}
