//! What the engine answers an adapter.

use crate::call::{Changes, ErrorType, Refusal, Stored};
use crate::outbox::Terms;
use crate::units::Timestamp;
use http::header::{HOST, HeaderName, HeaderValue};
use http::uri::{Authority, PathAndQuery};
use http::{Request, Uri};
use std::sync::Arc;

/// What to do next.
///
/// The loop is the same in every adapter:
///
/// ```
/// # use farcall::{Caller, Config, Engine, Head, Refusal, Step, Timestamp};
/// # fn now() -> Timestamp { Timestamp::from_nanos(1_763_700_000_000_000_000) }
/// # fn sleep_until(_: Timestamp) {}
/// # fn perform(_: u32) -> Result<(u16, http::HeaderMap), farcall::ErrorType> { Ok((200, http::HeaderMap::new())) }
/// # fn call(engine: &Engine, head: &Head<'_>) -> Result<u16, Refusal> {
/// let mut call = engine.begin(head, now(), 7);
/// let mut answer = Ok(0);
/// loop {
///     match call.step(engine, now()) {
///         Step::Send(attempt) => match perform(attempt.number) {
///             Ok((status, headers)) => {
///                 call.answer(engine, status, &headers, now());
///                 answer = Ok(status);
///             }
///             Err(error) => {
///                 call.failed(error);
///                 answer = Ok(0);
///             }
///         },
///         Step::Wait(until) => sleep_until(until),
///         Step::Refuse(refusal) => return Err(refusal),
///         Step::Settled => break,
///         _ => break, // What a later version asks for, this adapter cannot do: it hands out what it has.
///     }
/// }
/// // The body is read, and then:
/// call.end(engine, now());
/// answer
/// # }
/// # let engine = Engine::new(Config::default(), Caller::new("x"), 1, 1);
/// # assert_eq!(call(&engine, &Head::new("GET", "https://api.example.com/")).unwrap(), 200);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
#[non_exhaustive]
pub enum Step {
    /// Perform one exchange on the wire. Where a response was answered before (the step is a retry), let go of
    /// it first. Stale after [`Call::answer`](super::Call::answer) or [`Call::failed`](super::Call::failed).
    Send(Attempt),
    /// Wait until this moment, then ask again. A rule said so: pacing, fair share, back-off.
    Wait(Timestamp),
    /// Do not make the call; hand the application this as an error. The call is settled.
    Refuse(Refusal),
    /// Hand the application this response, which others may get as well, and let go of one that was answered before. The
    /// call is settled, and not sent (again).
    Respond(Arc<Stored>),
    /// Hand the request over to the outbox on these terms, and report with [`Call::parked`](super::Call::parked) what
    /// came of it; then ask again. What the last attempt came to is kept until then: the next step is
    /// [`Step::Respond`] where it was taken, else what would have followed without. Only for adapters that said that
    /// they can ([`Head::parks`](crate::Head)).
    Park(Box<Terms>),
    /// It fails so, as if the wire had: let go of a response that was answered before. The call is settled, and not sent
    /// (again).
    Fail(ErrorType),
    /// Hand the application what there is, the response or the error; its body is still reported by
    /// [`Call::body`](super::Call::body) and [`Call::end`](super::Call::end). Final.
    Settled,
}

/// One exchange on the wire that is to be performed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Attempt {
    /// Which attempt of the call this is, from 1.
    pub number: u32,
    /// When the attempt is to be given up; `None` where no rule says so. Then: cancel it, and report
    /// [`ErrorType::Timeout`](crate::ErrorType::Timeout).
    pub give_up_at: Option<Timestamp>,
    /// What to change in the request; `None` to send it as it is. Each attempt starts from the application's own.
    pub changes: Option<Arc<Changes>>,
    /// What the top-level field `model` of the request's JSON body becomes; `None` to leave it.
    pub model: Option<Arc<str>>,
    /// After how many bytes of its body the response breaks off, with [`ErrorType::Reset`]; an injected fault.
    pub truncate: Option<u64>,
    /// Whether to ask [`Call::shadow`](super::Call::shadow) for a copy to send beside this attempt, whose answer
    /// nobody gets. An adapter that cannot leaves it.
    pub shadow: bool,
    /// When to ask [`Call::hedge`](super::Call::hedge) for another attempt beside this one, if no answer has come
    /// by then. An adapter that cannot make two at a time leaves it.
    pub hedge_at: Option<Timestamp>,
    /// A header to add, such as an idempotency key, with its value.
    pub idempotency_key: Option<(Arc<str>, [u8; 16])>,
    /// Headers to add, so that the vendor says 304 where what the cache has is still good: names in lower case, and
    /// values. The answer is reported as it is; the next step is [`Step::Respond`] then.
    pub condition: Box<[(&'static str, String)]>,
}

// What is larger is moved by a call, once more for each call that is made.
const _: () = assert!(size_of::<Attempt>() <= 128);

/// The first attempt, as the application made it.
impl Default for Attempt {
    fn default() -> Self {
        Self::plain(1)
    }
}

impl Attempt {
    /// Name and value of the idempotency header to add, if one is.
    #[must_use]
    pub fn idempotency_header(&self) -> Option<(&str, String)> {
        let (name, key) = self.idempotency_key.as_ref()?;
        Some((name.as_ref(), format!("{:032x}", u128::from_be_bytes(*key))))
    }

    /// Changes a request as this attempt asks for, all but its body ([`model`](Attempt::model)). What cannot be
    /// applied (a header that is none) is left out: rules were checked when they were read.
    pub fn apply<B>(&self, request: &mut Request<B>) {
        if let Some((name, value)) = self.idempotency_header()
            && let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value))
        {
            request.headers_mut().insert(name, value);
        }
        for (name, value) in &self.condition {
            if let Ok(value) = HeaderValue::try_from(value) {
                request.headers_mut().insert(HeaderName::from_static(name), value);
            }
        }
        let Some(changes) = &self.changes else { return };
        for (name, value) in &changes.headers {
            if let (Ok(name), Ok(value)) =
                (HeaderName::try_from(name.as_str()), HeaderValue::try_from(value.as_str()))
            {
                request.headers_mut().insert(name, value);
            }
        }
        let mut parts = request.uri().clone().into_parts();
        if let Some(host) = &changes.host
            && let Ok(authority) = Authority::try_from(host.as_str())
        {
            if request.headers().contains_key(HOST)
                && let Ok(value) = HeaderValue::try_from(authority.as_str())
            {
                request.headers_mut().insert(HOST, value);
            }
            parts.authority = Some(authority);
        }
        if let Some(prefix) = &changes.path_prefix {
            let path = parts.path_and_query.as_ref().map_or("/", PathAndQuery::as_str);
            parts.path_and_query =
                PathAndQuery::try_from(format!("{prefix}{path}")).ok().or(parts.path_and_query);
        }
        if let Ok(uri) = Uri::from_parts(parts) {
            *request.uri_mut() = uri;
        }
    }

    #[inline]
    pub(super) fn plain(number: u32) -> Self {
        Self {
            number,
            give_up_at: None,
            changes: None,
            model: None,
            truncate: None,
            shadow: false,
            hedge_at: None,
            idempotency_key: None,
            condition: Box::default(),
        }
    }
}
