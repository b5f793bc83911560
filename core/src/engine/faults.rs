//! What a rule breaks on purpose: an attempt whose place a fault takes. It stands last, behind all that would have let
//! the attempt go, and what it comes to is judged like the vendor's own failure: nothing that follows an attempt can
//! tell the two apart, and nothing of it goes out.

use super::call::State;
use super::decide::{self, Halt};
use super::events::What;
use super::flow::{Flow, Until};
use super::parking::Instead;
use super::plan::{Plan, Standing};
use super::{Call, Engine, Step};
use crate::call::{ErrorType, Outcome, RefusedBy, Stored};
use crate::fault::{Effect, Fault};
use crate::units::Timestamp;
use bytes::Bytes;
use http::header::{HeaderMap, HeaderValue, RETRY_AFTER};
use std::sync::Arc;
use std::time::Duration;

/// The fault that the attempt which is due has met.
#[derive(Clone, Copy, Debug)]
pub(super) struct Met {
    /// The rule's.
    pub(super) place: usize,
    fault: Fault,
    /// When the attempt began: what it takes counts from here.
    pub(super) since: Timestamp,
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
    let Some(met) = flow.met.or_else(|| draw(plan, flow, number, now)) else { return Ok(()) };
    let Met { place, fault, since } = *flow.met.insert(met);
    let rule = &plan.rules.faults[place];
    let over = since.plus(fault.delay).min(rule.then.expires);
    // Who gives up a vendor that is so slow does so here as well.
    let patience = flow.deadline.of_attempt(since, plan.resilience.attempt_timeout).filter(|at| *at < over);
    if let Some(until) = Until::new(since, patience.unwrap_or(over)).ahead(now) {
        return Err(Halt::Wait(until));
    }
    let came = match (patience, fault.effect) {
        (Some(_), _) => {
            flow.events.add(now, What::FaultOver { attempt: number, how: "given up while it was held back" });
            Came::Error(ErrorType::Timeout)
        }
        _ if now >= rule.then.expires => {
            flow.events.add(now, What::FaultOver { attempt: number, how: "sent, as the fault has expired" });
            return Ok(());
        }
        (None, Effect::Send) => return Ok(()),
        (None, Effect::Truncate { bytes }) => {
            flow.truncate = Some(bytes);
            return Ok(());
        }
        (None, Effect::Fail(error)) => Came::Error(error),
        (None, Effect::Respond { status, retry_after }) => {
            Came::Answer(Arc::new(answer(&rule.name, status, retry_after)))
        }
    };
    Err(Halt::Fault(StoodIn { place, came }))
}

/// The first rule that this attempt meets. It stands in this vendor's place, and not in a backup's.
fn draw(plan: &Plan, flow: &mut Flow, number: u32, now: Timestamp) -> Option<Met> {
    let backup = plan.resilience.failover.as_ref().filter(|_| flow.failed_over);
    if backup.is_some_and(|(_, changes)| changes.host.is_some()) {
        return None;
    }
    plan.faults.iter().find_map(|place| {
        let rule = &plan.rules.faults[*place];
        let fault = rule.then.before(flow.seed, number, now)?;
        flow.events.add(now, What::Fault { rule: Arc::clone(&rule.name), attempt: number, fault });
        Some(Met { place: *place, fault, since: now })
    })
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
    /// Whether it is an answer, and no error.
    pub(super) fn answers(&self) -> bool {
        matches!(self.came, Came::Answer(_))
    }
}

impl Call {
    /// How many attempts were made, with those that a fault took the place of.
    pub(super) fn number(&self) -> u32 {
        self.attempts + self.flow.as_ref().map_or(0, |standing| standing.flow.faulted)
    }
}

impl Engine {
    /// The attempt is a fault's: it is made, comes to what the fault says, and what follows is asked.
    #[cold]
    #[inline(never)]
    pub(super) fn stand_in(&self, call: &mut Call, stood_in: StoodIn, now: Timestamp) -> Step {
        let number = call.number() + 1;
        match &stood_in.came {
            Came::Answer(stored) => call.head(stored.status, now),
            Came::Error(error) => call.failed(*error),
        }
        if let Some(Standing { plan, flow }) = &mut call.flow {
            let since = decide::begin_attempt(flow, now);
            let _no_hedge = decide::count_in(plan, flow, number, since);
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
