//! What a call holds while rules decide about it: claims, reservations, places, and how far it has come.

use super::account::{MAX_ASKED, Place, Tokens};
use super::cached::Cached;
use super::decide::Halt;
use super::events::{Events, What};
use super::faults::{Met, StoodIn};
use super::hedging::Pair;
use super::parking::Parking;
use super::plan::{MAX_BUDGETS, MAX_QUOTAS, Plan, Priced, Standing};
use super::request::Request;
use super::unfinished::Unfinished;
use crate::budget::Reservation;
use crate::call::{Head, Priority, Refusal, Target};
use crate::coding::Decoder;
use crate::cost::{Cost, ModelName, RequestReader, ServiceTier, UsageReader, model_in_path, prompt_tokens};
use crate::quota::Claim;
use crate::quota::dialect::{self, BODY_PREFIX};
use crate::resilience::{Deadline, Ending, Pass, SdkAttempt, is_idempotent, is_safe};
use crate::rollout::Side;
use crate::units::Timestamp;
use std::sync::Arc;

/// One call's standing with the rules. Large, so that it lies in a box; boxes are used again.
#[derive(Debug)]
pub(super) struct Flow {
    pub(super) seed: u64,
    pub(super) method: &'static str,
    pub(super) body: u64,
    /// Whether it can be sent again within `replay_bytes`.
    pub(super) replayable: bool,
    /// Whether the adapter has the whole body, so that the outbox can take it.
    pub(super) whole: bool,
    pub(super) priority: Priority,
    pub(super) deadline: Deadline,
    /// Whether the application put an idempotency key on the wire.
    pub(super) key_on_wire: bool,
    pub(super) sdk: Option<SdkAttempt>,
    /// What the request's body says.
    pub(super) model: ModelName,
    pub(super) max_output: Option<u64>,
    /// About how many tokens its prompt has.
    pub(super) prompt: u64,
    /// Whether it was read, and asks no model for anything.
    pub(super) asks_none: bool,
    /// Whether it ought to be read, and is not at hand.
    pub(super) unseen: bool,
    /// Whether its body names the model, and not only its path.
    pub(super) names_model: bool,
    pub(super) tier: ServiceTier,

    pub(super) began: bool,
    /// How the attempt under way had ended when it was decided what follows.
    pub(super) judged: Option<Ending>,
    /// Whether its body was not given to anybody, so that its first attempt can go wherever there is reason to.
    pub(super) unsent: bool,
    pub(super) side: Option<(usize, Side)>,
    /// The rollout whose variant gets a copy of the call.
    pub(super) shadow: Option<usize>,
    /// Whether the call is such a copy.
    pub(super) is_copy: bool,
    /// Whether the adapter can have two attempts under way.
    pub(super) beside: bool,
    /// The fault that the attempt which is due has met.
    pub(super) met: Option<Met>,
    /// How many of the attempts so far were a fault's.
    pub(super) faulted: u32,
    /// What the last attempt came to, where it was a fault's.
    pub(super) stood_in: Option<StoodIn>,
    /// What status the last attempt had that went out, of those that others followed.
    pub(super) seen: u16,
    pub(super) reserved: [Option<Reservation>; MAX_BUDGETS],
    pub(super) cheaper: Option<Arc<str>>,
    /// Which of the vendor's quotas it is about.
    pub(super) place: Place,
    pub(super) claims: [Claim; MAX_QUOTAS],
    /// Of the vendor's own quotas: those of the credential, then those of a part of its calls.
    pub(super) stated: [Claim; 2 * MAX_ASKED],
    /// How many of either may hold anything; those behind are as new.
    pub(super) claimed: (usize, usize),
    pub(super) asked_for_place: Option<Timestamp>,
    pub(super) placed: bool,
    pub(super) pass: Option<Pass>,
    pub(super) failed_over: bool,
    pub(super) truncate: Option<u64>,

    /// When the present attempt was sent.
    pub(super) sent_at: Timestamp,
    /// Whether any attempt may have been acted upon.
    pub(super) reached: bool,
    /// Stands for the idempotency key that is added.
    pub(super) key: u64,
    /// How far it has come with the outbox.
    pub(super) parking: Parking,
    /// Whether the adapter can hand it over.
    pub(super) parks: bool,
    /// Why it cannot, where it said.
    pub(super) unparkable: Option<&'static str>,
    /// Whether it keeps the body for that.
    pub(super) keeps: bool,
    /// Whether it is delivered from the outbox.
    pub(super) delivers: bool,
    /// The attempts that the SDK above made of this call before.
    pub(super) earlier: Option<Box<Unfinished>>,
    /// What the vendor said about another attempt.
    pub(super) told: Option<bool>,
    /// When the vendor wants to be asked again.
    pub(super) retry_at: Option<Timestamp>,
    /// The next attempt is due then.
    pub(super) resume: Option<Until>,
    /// Two attempts under way, one beside the other.
    pub(super) pair: Option<Pair>,
    /// How many of the attempts so far were sent beside another one.
    pub(super) hedges: u32,
    /// What the attempts cost that the call's answer did not come from; `None` where none cost anything.
    pub(super) lost: Option<Cost>,
    /// Whether the present attempt's latency is still to be counted.
    pub(super) timed: bool,
    pub(super) usage: Option<Box<UsageReader>>,
    /// What the body passes through first, where it is compressed and anybody looks at it.
    pub(super) coding: Option<Box<Decoder>>,
    /// How the body of an answer began whose meaning stands in it, and its headers.
    pub(super) prefix: Option<Prefix>,
    pub(super) cached: Cached,
    pub(super) events: Events,
}

/// A wait that a call is in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Until {
    since: Timestamp,
    until: Timestamp,
}

impl Until {
    pub(super) const fn new(since: Timestamp, until: Timestamp) -> Self {
        Self { since, until }
    }

    /// When it ends, while that is ahead. A clock that was set back to before it began ends it: by that clock it would
    /// last as much longer.
    pub(super) fn ahead(self, now: Timestamp) -> Option<Timestamp> {
        (self.since <= now && now < self.until).then_some(self.until)
    }
}

/// An answer whose meaning stands in its body.
#[derive(Debug)]
pub(super) struct Prefix {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, Vec<u8>)>,
    /// What the head alone seemed to mean.
    pub(super) refusal: Option<dialect::Refusal>,
    pub(super) body: Vec<u8>,
}

impl Prefix {
    /// How many bytes more are looked at.
    pub(super) fn room(&self) -> usize {
        BODY_PREFIX.saturating_sub(self.body.len())
    }
}

impl Flow {
    /// Whether anybody looks at the next bytes of the body.
    pub(super) fn wants_body(&self) -> bool {
        self.prefix.as_ref().is_some_and(|prefix| prefix.room() > 0)
            || self.usage.as_ref().is_some_and(|reader| reader.reads())
            || self.cached.wants_body()
    }

    fn new() -> Self {
        Self {
            seed: 0,
            method: "",
            body: 0,
            replayable: false,
            whole: false,
            priority: Priority::default(),
            deadline: Deadline::NONE,
            key_on_wire: false,
            sdk: None,
            model: ModelName::NONE,
            max_output: None,
            prompt: 0,
            asks_none: false,
            unseen: false,
            names_model: false,
            tier: ServiceTier::Standard,
            began: false,
            judged: None,
            unsent: true,
            side: None,
            shadow: None,
            is_copy: false,
            beside: false,
            met: None,
            faulted: 0,
            stood_in: None,
            seen: 0,
            reserved: [None; MAX_BUDGETS],
            cheaper: None,
            place: Place::default(),
            claims: [Claim::new(); MAX_QUOTAS],
            stated: [Claim::new(); 2 * MAX_ASKED],
            claimed: (0, 0),
            asked_for_place: None,
            placed: false,
            pass: None,
            failed_over: false,
            truncate: None,
            sent_at: Timestamp::EPOCH,
            reached: false,
            key: 0,
            parking: Parking::Not,
            parks: false,
            unparkable: None,
            keeps: false,
            delivers: false,
            earlier: None,
            told: None,
            retry_at: None,
            resume: None,
            pair: None,
            hedges: 0,
            lost: None,
            timed: false,
            usage: None,
            coding: None,
            prefix: None,
            cached: Cached::default(),
            events: Events::default(),
        }
    }

    /// Makes it that of a call that begins. What a call gives back at its end (reservations, places, passes) it
    /// has given back.
    fn begin(&mut self, plan: &Plan, head: &Head<'_>, request: &Request<'_>, now: Timestamp, seed: u64) {
        if self.holds_memory() {
            self.let_go();
        }
        self.seed = seed;
        self.method = static_method(head.method);
        self.body = head.body.unwrap_or(head.content.len() as u64);
        (self.replayable, self.whole) = (head.replayable && plan.replays(head.body), head.replayable);
        self.priority = head.priority;
        self.deadline = Deadline::new(now, plan.resilience.deadline, head.deadline);
        // A key in a field that the vendor does not look at is none; one in the field that it does is never replaced.
        self.key_on_wire = plan.idempotency_header.as_deref().is_some_and(|name| {
            (plan.park.is_some() || plan.resilience.retry.is_some() && !is_idempotent(self.method))
                && head.headers.get(name).is_some()
        });
        // An SDK that tries again by itself is not to be helped with that, and its attempts are one call.
        self.sdk = request.sdk();
        self.ask_for(plan, head);
        self.find_place(plan);
        (self.began, self.placed, self.failed_over) = (false, false, false);
        (self.met, self.faulted, self.seen) = (None, 0, 0);
        self.judged = None;
        self.unsent = true;
        self.timed = false;
        (self.side, self.pass) = (None, None);
        (self.shadow, self.is_copy) = (None, false);
        (self.reached, self.key, self.parks) = (false, seed, head.parks);
        (self.delivers, self.keeps, self.unparkable) = (head.delivers, head.keeps, None);
        self.beside = head.hedges;
        self.told = None;
        (self.asked_for_place, self.retry_at, self.resume) = (None, None, None);
        self.reserved = [None; MAX_BUDGETS];
        (self.truncate, self.pair, self.hedges, self.lost) = (None, None, 0, None);
        let (own, stated) = std::mem::take(&mut self.claimed);
        self.claims[..own].fill(Claim::new());
        self.stated[..stated].fill(Claim::new());
        self.sent_at = now;
    }

    /// Whether the call before left anything here that is not plain data, as few do.
    fn holds_memory(&self) -> bool {
        self.cheaper.is_some()
            || self.earlier.is_some()
            || self.usage.is_some()
            || self.coding.is_some()
            || self.prefix.is_some()
            || self.stood_in.is_some()
            || !matches!(self.parking, Parking::Not)
    }

    #[cold]
    #[inline(never)]
    fn let_go(&mut self) {
        (self.cheaper, self.earlier, self.parking) = (None, None, Parking::Not);
        (self.usage, self.coding, self.prefix) = (None, None, None);
        self.stood_in = None;
    }

    /// Notes the model, the most tokens and the tier that a request asks for; read only where prices or budgets want it.
    pub(super) fn ask_for(&mut self, plan: &Plan, head: &Head<'_>) {
        self.model.forget();
        (self.max_output, self.tier) = (None, ServiceTier::Standard);
        (self.prompt, self.asks_none, self.names_model) = (self.body.div_ceil(4), false, false);
        self.unseen = false;
        if plan.asks_model {
            self.look_into(head);
        }
    }

    /// The same of a request whose body is worth a look.
    #[inline(never)]
    fn look_into(&mut self, head: &Head<'_>) {
        // Nobody here reads a request that is coded.
        let coding = head.headers.get("content-encoding");
        let coded = coding.is_some_and(|coding| !coding.eq_ignore_ascii_case(b"identity"));
        let head = &Head { content: if coded { &[] } else { head.content }, ..*head };
        let is_json = is_json(head);
        self.unseen = is_json && head.content.is_empty() && head.body != Some(0) && !is_safe(self.method);
        self.prompt = if is_json { prompt_tokens(head.content, self.body) } else { 0 };
        self.read_request(head);
        // As far as its reader reads.
        let whole = head.content.len() as u64 == self.body && head.content.len() <= RequestReader::PREFIX;
        let was_seen = whole || !is_json;
        self.asks_none = was_seen && self.model.as_str().is_empty();
    }

    fn read_request(&mut self, head: &Head<'_>) {
        let path = || model_in_path(head.target.path).map_or(ModelName::NONE, ModelName::new);
        if head.content.iter().find(|byte| !byte.is_ascii_whitespace()).is_none_or(|first| *first != b'{') {
            self.model = path();
            return;
        }
        let mut reader = RequestReader::new();
        reader.push(head.content);
        self.names_model = !reader.model().is_empty();
        self.model = match reader.model() {
            "" => path(),
            model => ModelName::new(model),
        };
        (self.max_output, self.tier) = (reader.max_output(), reader.tier());
    }

    /// The model that is asked: what a budget puts in the place of the application's, or that.
    pub(super) fn asked_model(&self) -> &str {
        self.cheaper.as_deref().unwrap_or(self.model.as_str())
    }

    /// Notes which of the vendor's quotas this call is about; to be told again when the model changes.
    pub(super) fn find_place(&mut self, plan: &Plan) {
        self.place = match plan.scoped {
            false => Place::default(),
            true => self.place_of(plan),
        };
    }

    #[inline(never)]
    fn place_of(&self, plan: &Plan) -> Place {
        Place {
            model: Place::number(self.asked_model()),
            endpoint: plan.endpoint_number,
            named: plan.account.named_at(plan.endpoint_number),
        }
    }

    /// Waits until the next attempt is due.
    pub(super) fn back_off(&mut self, now: Timestamp) -> Result<(), Halt> {
        match self.resume.and_then(|resume| resume.ahead(now)) {
            Some(at) => Err(Halt::Wait(at)),
            None => {
                self.resume = None;
                Ok(())
            }
        }
    }

    pub(super) fn refused(&mut self, refusal: &Refusal, now: Timestamp) {
        self.events.add(now, What::Refused(refusal.clone()));
    }

    /// The most tokens that the answer may have: what the request says, and none where it asks no model.
    pub(super) fn most_output(&self) -> Option<u64> {
        self.max_output.or(self.asks_none.then_some(0))
    }

    /// About how many tokens the call will use.
    pub(super) fn tokens_ahead(&self, plan: &Plan) -> Tokens {
        let typical = if matches!(plan.price, Priced::ByModel) { 1_000 } else { 0 };
        Tokens::ahead(self.prompt, self.most_output().unwrap_or(typical))
    }
}

/// Whether a request's body is JSON, as models are asked in; an upload's bytes are no tokens. By how it begins; where
/// that is not at hand, by what its header says, and it is if that says nothing.
fn is_json(head: &Head<'_>) -> bool {
    match head.content.iter().find(|byte| !byte.is_ascii_whitespace()) {
        Some(first) => matches!(first, b'{' | b'['),
        None => {
            head.headers.get("content-type").is_none_or(|kind| kind.windows(4).any(|part| part == b"json"))
        }
    }
}

/// Boxes that a thread keeps for its next calls.
const SPARE: usize = 64;

#[allow(clippy::vec_box)] // A box is what is kept: moving what is in it would cost what keeping it saves.
mod spares {
    use super::Flow;
    use std::cell::RefCell;

    thread_local! {
        pub(super) static SPARES: RefCell<Vec<Box<Flow>>> = const { RefCell::new(Vec::new()) };
    }
}
use spares::SPARES;

/// The standing of a call that begins, in this box, which knows what the cache is asked.
pub(super) fn take(
    mut flow: Box<Flow>,
    plan: Arc<Plan>,
    head: &Head<'_>,
    request: &Request<'_>,
    now: Timestamp,
    seed: u64,
) -> Standing {
    flow.begin(&plan, head, request, now, seed);
    Standing { plan, flow }
}

/// A box for a call that begins: one that was used before where there is one.
pub(super) fn spare() -> Box<Flow> {
    let spare = SPARES.try_with(|spares| spares.try_borrow_mut().ok().and_then(|mut spares| spares.pop()));
    spare.ok().flatten().unwrap_or_else(new)
}

#[cold]
#[inline(never)]
fn new() -> Box<Flow> {
    Box::new(Flow::new())
}

/// The standing of a copy of a call, to which `plan` applies.
pub(super) fn copy(plan: Arc<Plan>, of: &Flow, now: Timestamp, seed: u64) -> Standing {
    let head = Head::to(of.method, Target::UNREADABLE).body(Some(of.body), true).priority(Priority::Batch);
    let mut standing = take(spare(), plan, &head, &Request::new(), now, seed);
    standing.flow.is_copy = true;
    standing.flow.cached.forget();
    (standing.flow.model, standing.flow.max_output, standing.flow.tier) = (of.model, of.max_output, of.tier);
    (standing.flow.prompt, standing.flow.asks_none, standing.flow.names_model) =
        (of.prompt, of.asks_none, of.names_model);
    standing
}

/// Keeps the box for another call, and gives what happened to this one, if anything did.
pub(super) fn give_back(mut flow: Box<Flow>, begun: Timestamp) -> Option<String> {
    let story = if flow.events.is_empty() { None } else { Some(tell(&mut flow.events, begun)) };
    put_back(flow);
    story
}

/// Keeps the box, in which nothing happened since, for another call.
pub(super) fn put_back(flow: Box<Flow>) {
    let _ = SPARES.try_with(|spares| {
        if let Ok(mut spares) = spares.try_borrow_mut()
            && spares.len() < SPARE
        {
            spares.push(flow);
        }
    });
}

#[cold]
#[inline(never)]
fn tell(events: &mut Events, begun: Timestamp) -> String {
    let story = events.text(begun);
    events.clear();
    story
}

/// A method as a word that lives as long as the program; one that nobody knows is as unsafe as any.
fn static_method(method: &str) -> &'static str {
    match method {
        "GET" => "GET",
        "POST" => "POST",
        other => other_method(other),
    }
}

#[inline(never)]
fn other_method(method: &str) -> &'static str {
    const METHODS: [&str; 9] =
        ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "CONNECT"];
    METHODS.into_iter().find(|known| known.eq_ignore_ascii_case(method)).unwrap_or("POST")
}
