//! A request for which rules decide: the loop over [`Step`] around the rest of the chain.

use super::detour::detour_of;
use super::exchange::{count_streaming, hand_out};
use super::hops::{Chain, Hop, Leg, note_unseen, was_sent};
use crate::client::Client;
use crate::egress::{EgressError, is_of_use};
use crate::scope::Scope;
use crate::shadows::Beside;
use crate::watched::Watched;
use ::reqwest::{Body, Request, Response, ResponseBuilderExt, Url};
use ::reqwest_middleware::{Error, Next, Result};
use farcall::resilience::Ending;
use farcall::{Attempt, Head, Priority, Step, Stored, Target, Timestamp};
use farcall_agent::Farcall;
use farcall_agent::outbox::Parcel;
use http::header::CONTENT_LENGTH;
use http::{Extensions, HeaderName, HeaderValue};
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};

/// Makes a call as the rules say. Where reqwest follows a redirect, the call ends with that, and others follow.
pub(super) async fn act(
    farcall: &Farcall,
    beside: &Beside,
    client: &Client,
    mut request: Request,
    extensions: &mut Extensions,
    next: Next<'_>,
) -> Result<Response> {
    let scope = Scope::of(extensions);
    let priority: Priority = extensions.get().copied().unwrap_or_default();
    let url = request.url().clone();
    let method = request.method().clone();
    let (content, replayable) = match request.body() {
        None => (&[][..], true),
        Some(body) => (body.as_bytes().unwrap_or_default(), body.as_bytes().is_some()),
    };
    let bytes = replayable.then_some(content.len() as u64);
    let now = farcall.now();
    let deadline: Option<Timestamp> = extensions.get().map(|deadline: &crate::Deadline| now.plus(deadline.0));
    let head = Head::to(method.as_str(), Target::parse(url.as_str()).unwrap_or(Target::UNREADABLE))
        .headers(request.headers())
        .client_key(client.bytes())
        .body(bytes, replayable)
        .caches(true)
        .marks(farcall.engine().marks(request.headers()).map(|marks| marks.of_client(client.bytes())))
        .parks(true)
        .refreshes(beside.refreshes.is_some())
        .hedges(true)
        .content(content)
        .priority(priority)
        .deadline(deadline)
        .patience(request.timeout().copied());
    let Scope { customer, tags } = &scope;
    let Some(mut watched) = Watched::begin(farcall, head, customer.as_ref(), Some(tags), now) else {
        return next.run(request, extensions).await;
    };
    if !replayable && let Some(body) = request.body_mut() {
        count_streaming(body, &mut watched);
    }
    // Of a request that goes out only once.
    let kept = (!replayable).then(|| request.headers().clone());
    let mut last: Option<Result<Response>> = None;
    let mut original = Some(request);
    let mut truncate = None;
    loop {
        match watched.step(watched.now()) {
            Step::Send(attempt) => {
                // Where it cannot be sent again, the engine was told so, and this is the only attempt.
                let copy = original.as_ref().and_then(Request::try_clone).or_else(|| original.take());
                let Some(mut request) = copy else { break };
                if attempt.shadow
                    && let Some(shadows) = &beside.shadows
                    && let Ok(uri) = url.as_str().parse()
                {
                    shadows.send(&mut watched, &method, uri, request.headers());
                }
                change(&mut request, &attempt);
                truncate = attempt.truncate;
                let changed = attempt.changes.is_some().then(|| request.url().clone());
                let again = || original.as_ref().and_then(Request::try_clone);
                let mut beside = None;
                let (hop, leg, second_won) =
                    perform(&mut watched, request, again, attempt, extensions, &mut beside, &next).await;
                let sent = bytes.unwrap_or_default();
                let answer = match hop {
                    Hop::Answered(response) => {
                        note_unseen(farcall, changed.as_ref().unwrap_or(&url), &response);
                        watched.sent(sent);
                        let now = watched.now();
                        if *response.url() != url {
                            // reqwest followed a redirect: what came is not the answer to what was asked.
                            watched.uncacheable();
                        }
                        watched.answered(response.status().as_u16(), response.headers(), now);
                        Ok(response)
                    }
                    Hop::Failed(kind, error) => {
                        if was_sent(kind) {
                            watched.sent(sent);
                        }
                        watched.failed(kind);
                        Err(error)
                    }
                    Hop::Stopped(status, error) => {
                        watched.uncacheable();
                        watched.sent(sent);
                        watched.stopped(status.as_u16());
                        return Err(error);
                    }
                    Hop::Followed(redirect) => {
                        watched.uncacheable();
                        watched.sent(sent);
                        let whole = original.as_ref();
                        let content = whole.and_then(Request::body).and_then(Body::as_bytes);
                        let headers = kept.or_else(|| whole.map(|request| request.headers().clone()));
                        let chain = Chain {
                            farcall,
                            scope: &scope,
                            headers: headers.unwrap_or_default(),
                            priority,
                            deadline,
                            method,
                            content: content.unwrap_or_default(),
                        };
                        let answer = chain.follow(leg, redirect, watched).await;
                        if second_won && let Some(beside) = beside {
                            *extensions = beside;
                        }
                        return answer;
                    }
                };
                drop(leg);
                if second_won && let Some(beside) = beside {
                    *extensions = beside;
                }
                last = Some(answer);
            }
            Step::Wait(until) => {
                last = None;
                let mut pause = None;
                poll_fn(|cx| {
                    let pause = pause.get_or_insert_with(|| watched.pause(until, cx.waker()));
                    Pin::new(pause).poll(cx)
                })
                .await;
            }
            Step::Refuse(refusal) => return Err(Error::middleware(EgressError::Refused(refusal))),
            Step::Fail(error) => return Err(Error::middleware(EgressError::Injected(error))),
            Step::Respond(stored) => {
                if let Some(refreshes) = &beside.refreshes
                    && let Some(request) = &original
                    && let Ok(uri) = url.as_str().parse()
                {
                    refreshes.refresh(&mut watched, &method, uri, request.headers());
                }
                return Ok(respond(&stored, url));
            }
            Step::Park(terms) => match &original {
                Some(request) => match detour_of(request.url()) {
                    Some(detour) => watched.not_parked(detour.as_str()),
                    None => {
                        let taken = watched.park(&terms, parcel_of(request)).await;
                        watched.parked(&taken);
                    }
                },
                None => watched.not_parked("its body cannot be sent again"),
            },
            _ => break,
        }
    }
    match last {
        Some(Ok(response)) => Ok(hand_out(response, watched, &method, truncate)),
        Some(Err(error)) => {
            watched.end();
            Err(error)
        }
        None => {
            Err(Error::middleware(EgressError::Service("farcall settled a call that was not sent".into())))
        }
    }
}

/// The request as the outbox takes it. What the client adds by itself (`default_headers`) is not in it.
fn parcel_of(request: &Request) -> Parcel {
    let mut parcel = Parcel::new(request.method().as_str(), request.url().as_str());
    for (name, value) in request.headers() {
        parcel = parcel.header(name.as_str(), value.as_bytes());
    }
    let body = request.body().and_then(Body::as_bytes).unwrap_or_default();
    parcel.body(body)
}

/// Makes an attempt, and a second one beside it where the first is slow: what comes of them, the leg that is on, and
/// whether that is the second's. One that fails while the other is under way is let go of.
async fn perform<'a>(
    watched: &mut Watched,
    request: Request,
    again: impl Fn() -> Option<Request>,
    attempt: Attempt,
    extensions: &'a mut Extensions,
    beside: &'a mut Option<Extensions>,
    next: &Next<'a>,
) -> (Hop, Leg<'a>, bool) {
    let due = attempt.hedge_at.and_then(|at| watched.timer(at));
    let patience = attempt.give_up_at.and_then(|at| watched.timer(at));
    let beside = due.is_some().then(|| beside.insert(extensions.clone()));
    let mut first = Leg::new(next.clone().run(request, extensions));
    let (Some(due), Some(beside)) = (due, beside) else {
        let hop = first.hop(patience).await;
        return (hop, first, false);
    };
    let mut second = None;
    let (hop, second_won) = {
        let mut one = pin!(first.hop(patience));
        let early = tokio::select! {
            biased;
            hop = &mut one => Some(hop),
            () = due => None,
        };
        let hedge = if early.is_none() { watched.hedge() } else { None };
        match (early, hedge) {
            (Some(hop), _) => (hop, false),
            (None, None) => (one.await, false),
            (None, Some(hedge)) => match again() {
                None => {
                    watched.lost(hedge.number, None);
                    (one.await, false)
                }
                Some(mut request) => {
                    change(&mut request, &hedge);
                    let patience = hedge.give_up_at.and_then(|at| watched.timer(at));
                    let second = second.insert(Leg::new(next.clone().run(request, beside)));
                    let other = pin!(second.hop(patience));
                    race(watched, (attempt.number, one), (hedge.number, other)).await
                }
            },
        }
    };
    match second {
        Some(second) if second_won => (hop, second, true),
        _ => (hop, first, false),
    }
}

/// Of two attempts under way, what the one that counts comes to, and whether it is the second.
async fn race(
    watched: &mut Watched,
    (first, mut one): (u32, Pin<&mut impl Future<Output = Hop>>),
    (second, mut other): (u32, Pin<&mut impl Future<Output = Hop>>),
) -> (Hop, bool) {
    let (hop, second_won) = tokio::select! {
        biased;
        hop = &mut one => (hop, false),
        hop = &mut other => (hop, true),
    };
    let (it, loser) = if second_won { (second, first) } else { (first, second) };
    match ending(&hop) {
        None => {
            watched.lost(loser, None);
            (hop, second_won)
        }
        Some(ending) => {
            watched.lost(it, Some(ending));
            match second_won {
                true => (one.await, false),
                false => (other.await, true),
            }
        }
    }
}

/// How an attempt ended that is of no use while another one is under way.
fn ending(hop: &Hop) -> Option<Ending> {
    match hop {
        Hop::Answered(response) if !is_of_use(response.status()) => {
            Some(Ending::Status(response.status().as_u16()))
        }
        Hop::Failed(error, _) => Some(Ending::Error(*error)),
        Hop::Answered(_) | Hop::Stopped(..) | Hop::Followed(_) => None,
    }
}

fn change(request: &mut Request, attempt: &Attempt) {
    if let Some((name, value)) = attempt.idempotency_header()
        && let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value))
    {
        request.headers_mut().insert(name, value);
    }
    if let Some(model) = &attempt.model
        && let Some(body) = request.body().and_then(|body| body.as_bytes())
        && let Some(body) = farcall::cost::replace_model(body, model)
    {
        if let Some(said) = request.headers_mut().get_mut(CONTENT_LENGTH) {
            *said = body.len().into();
        }
        *request.body_mut() = Some(body.into());
    }
    for (name, value) in &attempt.condition {
        if let Ok(value) = HeaderValue::try_from(value) {
            request.headers_mut().insert(HeaderName::from_static(name), value);
        }
    }
    let Some(changes) = &attempt.changes else { return };
    for (name, value) in &changes.headers {
        if let (Ok(name), Ok(value)) =
            (HeaderName::try_from(name.as_str()), HeaderValue::try_from(value.as_str()))
        {
            request.headers_mut().insert(name, value);
        }
    }
    let url = request.url_mut();
    if let Some(host) = &changes.host {
        let (name, port) = match host.rsplit_once(':') {
            Some((name, port)) if !port.contains(']') => (name, port.parse().ok()),
            _ => (host.as_str(), None),
        };
        let _ = url.set_host(Some(name));
        let _ = url.set_port(port);
    }
    if let Some(prefix) = &changes.path_prefix {
        let path = format!("{prefix}{}", url.path());
        url.set_path(&path);
    }
}

/// A response that no vendor sent now.
pub(super) fn respond(stored: &Stored, url: Url) -> Response {
    let mut builder = http::Response::builder().status(stored.status).url(url);
    if let Some(headers) = builder.headers_mut() {
        headers.clone_from(&stored.headers);
    }
    // What a rule may not say is no status: an empty response then.
    builder.body(stored.body.clone()).unwrap_or_default().into()
}
