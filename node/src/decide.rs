//! Calls for which rules decide: JavaScript performs what the engine says, one step after the other.

use crate::handle::farcall;
use crate::parking::{Came, ParkTask};
use crate::step::{NextStep, float, ms, refuse, respond, send};
use farcall::attribution::MAX_TAGS;
use farcall::outbox::Terms;
use farcall::resilience::Ending;
use farcall::{ConnectTimes, ErrorType, Head, Priority, Step, Target};
use farcall_agent::CallGuard;
use farcall_agent::outbox::{Detour, Parcel};
use napi::bindgen_prelude::{AsyncTask, Buffer, Result, Uint8Array};
use napi_derive::napi;
use std::time::Duration;

/// Why a call is not handed over to the outbox although it could be.
const FULL: &str = "this thread of Node keeps so much of other requests that there is no room for its body";

/// What JavaScript knows of a request before it is sent.
#[napi(object, object_to_js = false)]
pub(crate) struct Request {
    /// The method.
    pub method: String,
    /// The absolute URL.
    pub url: String,
    /// Names and values in turn.
    pub headers: Vec<String>,
    /// Bytes of the body, where known.
    pub body: Option<f64>,
    /// The body, where it is at hand.
    pub content: Option<Uint8Array>,
    /// Whether it can be sent again.
    pub replayable: bool,
    /// On whose behalf.
    pub customer: Option<String>,
    /// Keys and values in turn.
    pub tags: Vec<String>,
    /// Whether nobody waits for the answer.
    pub batch: bool,
    /// Whether it can be handed over to the outbox.
    pub parks: Option<bool>,
    /// Whether it can be although it cannot be sent again.
    pub keeps: Option<bool>,
    /// Whether a second attempt can be made beside a slow one.
    pub hedges: Option<bool>,
    /// The number of its detour; 0 for none.
    pub detour: Option<u32>,
}

/// A call for which rules decide. Where JavaScript forgets it, it is abandoned.
#[napi]
pub struct Decision {
    call: CallGuard,
    /// The first step, where it was asked for already.
    first: Option<Step>,
    /// On which the outbox is to take it.
    terms: Option<Box<Terms>>,
    /// What came of that.
    came: Came,
}

impl Decision {
    fn of(call: CallGuard) -> Self {
        Self { call, first: None, terms: None, came: Came::default() }
    }
}

/// Whether any rule decides anything.
#[napi(catch_unwind)]
pub(crate) fn decides() -> bool {
    farcall().is_ok_and(|farcall| farcall.engine().decides())
}

/// Whether rules park calls.
#[napi(catch_unwind)]
pub(crate) fn parks() -> bool {
    farcall().is_ok_and(|farcall| farcall.engine().has_parking())
}

/// How many bytes of a request's body are worth keeping before anybody is asked about it; 0 for none.
#[napi(catch_unwind)]
pub(crate) fn replay_bytes() -> f64 {
    farcall().map_or(0.0, |farcall| float(farcall.engine().replay_bytes()))
}

/// Whether answers from this host say more than what can be told of them when they are over.
#[napi(catch_unwind)]
pub(crate) fn reads_answers(host: String) -> bool {
    farcall().is_ok_and(|farcall| farcall.engine().reads_answers(&host))
}

/// Begins a call for which rules decide, or whose answer the engine reads.
#[napi(catch_unwind)]
pub(crate) fn begin(request: Request) -> Result<Decision> {
    let farcall = farcall()?;
    let headers: Vec<(&str, &str)> = pairs(&request.headers).collect();
    let mut tags = [("", ""); MAX_TAGS];
    let count = pairs(&request.tags).zip(&mut tags).map(|(tag, slot)| *slot = tag).count();
    let target = Target::parse(&request.url).unwrap_or(Target::UNREADABLE);
    let head = Head::to(&request.method, target)
        .headers(&headers)
        .exact(!request.headers.is_empty())
        .body(request.body.map(whole), request.replayable)
        .content(request.content.as_deref().unwrap_or_default())
        .priority(if request.batch { Priority::Batch } else { Priority::Interactive })
        .parks(request.parks.unwrap_or_default())
        .keeps(request.keeps.unwrap_or_default())
        .hedges(request.hedges.unwrap_or_default())
        .customer(request.customer.as_deref())
        .tags(&tags[..count]);
    let mut call = farcall.guard(farcall.begin(&head));
    if let Some(detour) = request.detour.and_then(Detour::from_number) {
        call.unparkable(detour.as_str());
    }
    Ok(Decision::of(call))
}

/// The body with another top-level field `model`; `None` where it has none to change.
#[napi(catch_unwind)]
pub(crate) fn replace_model(body: Uint8Array, model: String) -> Option<Buffer> {
    farcall::cost::replace_model(&body, &model).map(Buffer::from)
}

impl Decision {
    /// Of a call that has taken its first step.
    pub(crate) fn after(call: CallGuard, first: Step) -> Self {
        Self { first: Some(first), ..Self::of(call) }
    }
}

#[napi]
impl Decision {
    /// What to do next.
    #[napi(catch_unwind)]
    pub fn step(&mut self) -> NextStep {
        if let Some(taken) = self.came.take() {
            self.call.parked(&taken);
        }
        let now = self.call.now();
        match self.first.take().unwrap_or_else(|| self.call.step_at(now)) {
            Step::Send(attempt) => send(&attempt, now),
            Step::Wait(until) => NextStep { kind: "wait", ms: Some(ms(now, until)), ..NextStep::default() },
            Step::Refuse(refusal) => refuse(&refusal),
            Step::Park(terms) => {
                self.terms = Some(terms);
                NextStep { kind: "park", ..NextStep::default() }
            }
            Step::Respond(stored) => respond(&stored),
            Step::Fail(error) => NextStep { kind: "fail", error: Some(error as u32), ..NextStep::default() },
            // What a later version asks for, JavaScript cannot do: it hands out what it has.
            _ => NextStep { kind: "settled", ..NextStep::default() },
        }
    }

    /// A second attempt beside a slow one, as `step` tells of one; `undefined` where nothing has room for it.
    #[napi(catch_unwind)]
    pub fn hedge(&mut self) -> Option<NextStep> {
        let attempt = self.call.hedge()?;
        Some(send(&attempt, self.call.now()))
    }

    /// Of two attempts that of this number ended with this status, or else with an error of this type; both are 0 where
    /// it was given up, since the other one answered.
    #[napi(catch_unwind)]
    pub fn lost(&mut self, number: u32, status: u32, error: u32) {
        let ending = match (status_of(status), u8::try_from(error).unwrap_or(u8::MAX)) {
            (0, 0) => None,
            (0, error) => Some(Ending::Error(ErrorType::from_number(error))),
            (status, _) => Some(Ending::Status(status)),
        };
        self.call.lost(number, ending);
    }

    /// A copy to send beside the call; `null` where there is no room for one.
    #[napi(catch_unwind)]
    pub fn shadow(&mut self) -> Option<Copy> {
        let (call, attempt) = self.call.shadow()?;
        let step = send(&attempt, call.now());
        Some(Copy { decision: Some(Decision::of(call)), step: Some(step) })
    }

    /// Hands the request over to the outbox, as `step` asked; resolves once it is on the disk or cannot be. `step`
    /// follows. `headers` are names and values in turn.
    #[napi(catch_unwind)]
    pub fn park(
        &mut self,
        method: String,
        url: String,
        headers: Vec<String>,
        body: Uint8Array,
    ) -> AsyncTask<ParkTask> {
        let parking = self.terms.take().map(|terms| {
            let mut parcel = Parcel::new(method, url).body(body.to_vec());
            for (name, value) in pairs(&headers) {
                let value: Vec<u8> = value.chars().map(byte).collect();
                parcel = parcel.header(name, value);
            }
            self.call.park(&terms, parcel)
        });
        AsyncTask::new(ParkTask::new(parking, self.came.clone()))
    }

    /// Whether a rule may have the call parked, so that what would be handed over is worth keeping.
    #[napi(catch_unwind)]
    pub fn may_be_parked(&self) -> bool {
        self.call.call().may_be_parked()
    }

    /// Whether the whole body is there to be handed over.
    #[napi(catch_unwind)]
    pub fn keeps(&mut self, keeps: bool) {
        self.call.keeps(keeps);
    }

    /// How many bytes of the body are worth keeping for another attempt; 0 for none.
    #[napi(catch_unwind)]
    pub fn replay_bytes(&self) -> f64 {
        float(self.call.call().replay_bytes())
    }

    /// Of how many bytes the body is, once all of it is there to be sent again; nothing before.
    #[napi(catch_unwind)]
    pub fn replays(&mut self, bytes: Option<f64>) {
        self.call.replays(bytes.map(whole));
    }

    /// There was no room to keep the body, which could be handed over otherwise.
    #[napi(catch_unwind)]
    pub fn full(&mut self) {
        self.call.keeps(true);
        self.call.unparkable(FULL);
    }

    /// As `step`, for a request that goes out now, as it is, unless this stops it. `limited`: somebody gives it up when
    /// its time has come.
    #[napi(catch_unwind)]
    pub fn step_at_once(&mut self, limited: bool) -> Result<NextStep> {
        let now = self.call.now();
        Ok(match self.call.step_at_once(now) {
            Step::Refuse(refusal) => refuse(&refusal),
            Step::Fail(error) => NextStep { kind: "fail", error: Some(error as u32), ..NextStep::default() },
            Step::Send(attempt) => {
                if attempt.changes.is_some()
                    || attempt.model.is_some()
                    || attempt.truncate.is_some()
                    || attempt.give_up_at.is_some() && !limited
                {
                    farcall()?.count_failure("node_unapplied_changes");
                }
                NextStep { kind: "send", ..NextStep::default() }
            }
            _ => NextStep { kind: "send", ..NextStep::default() },
        })
    }

    /// The answer that comes cannot be kept: it is not one to the request that the call began with, or the adapter does
    /// not see all of it. To be told before `answer`.
    #[napi(catch_unwind)]
    pub fn uncacheable(&mut self) {
        self.call.uncacheable();
    }

    /// Whether the engine looks at the headers of an answer with this status.
    #[napi(catch_unwind)]
    pub fn wants_headers(&self, status: u32) -> bool {
        self.call.call().wants_headers(status_of(status))
    }

    /// The head of a response arrived; `headers` are names and values in turn. Returns whether the engine looks
    /// at its body.
    #[napi(catch_unwind)]
    pub fn answer(&mut self, status: u32, headers: Vec<String>) -> bool {
        // Node gives the bytes of a value as the characters of the same numbers.
        let headers: Vec<(&str, Vec<u8>)> =
            pairs(&headers).map(|(name, value)| (name, value.chars().map(byte).collect())).collect();
        self.call.answer(status_of(status), &headers);
        self.call.call().wants_body()
    }

    /// More of the response's body arrived.
    #[napi(catch_unwind)]
    pub fn read(&mut self, chunk: Uint8Array) {
        self.call.read(&chunk);
    }

    /// So many bytes went out and came in with an attempt that is over, and connecting took so long (milliseconds,
    /// negative for what did not happen). `received` is without what was `read`.
    #[napi(catch_unwind)]
    pub fn count(&mut self, sent: f64, received: f64, dns: f64, connect: f64, tls: f64) {
        if dns >= 0.0 || connect >= 0.0 || tls >= 0.0 {
            self.call.connected(ConnectTimes {
                dns: duration(dns),
                connect: duration(connect),
                tls: duration(tls),
            });
        }
        self.call.sent(whole(sent));
        self.call.body(whole(received));
    }

    /// The attempt failed.
    #[napi(catch_unwind)]
    pub fn failed(&mut self, error: u32) {
        self.call.failed(ErrorType::from_number(u8::try_from(error).unwrap_or(u8::MAX)));
    }

    /// The last byte arrived, or the call failed: counts it.
    #[napi(catch_unwind)]
    pub fn end(&mut self) {
        if !self.call.is_settled() {
            self.call.end();
        }
    }

    /// The application let go of it: counts it.
    #[napi(catch_unwind)]
    pub fn abandon(&mut self) {
        self.call.abandon();
    }
}

/// A copy of a call: each part can be taken once.
#[napi]
pub struct Copy {
    decision: Option<Decision>,
    step: Option<NextStep>,
}

#[napi]
impl Copy {
    /// The copy as a call of its own.
    #[napi(catch_unwind)]
    pub fn decision(&mut self) -> Option<Decision> {
        self.decision.take()
    }

    /// What to send, as `step` tells of it.
    #[napi(catch_unwind)]
    pub fn step(&mut self) -> Option<NextStep> {
        self.step.take()
    }
}

pub(crate) fn pairs(words: &[String]) -> impl Iterator<Item = (&str, &str)> {
    words.chunks_exact(2).map(|pair| (pair[0].as_str(), pair[1].as_str()))
}

fn status_of(status: u32) -> u16 {
    u16::try_from(status).unwrap_or(0)
}

fn byte(character: char) -> u8 {
    u8::try_from(character).unwrap_or(b'?')
}

/// Milliseconds; `None` where they are negative, for what did not happen.
pub(crate) fn duration(ms: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(ms / 1_000.0).ok()
}

/// JavaScript counts in doubles, exact up to 2^53.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count, saturating")]
pub(crate) fn whole(count: f64) -> u64 {
    count as u64
}
