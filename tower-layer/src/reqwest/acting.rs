//! A request for which rules decide: the loop over [`Step`] around the rest of the chain.

use super::exchange::hand_out;
use crate::egress::{EgressError, is_of_use};
use crate::error::classify;
use crate::scope::Scope;
use crate::timer::Timer;
use crate::watched::Watched;
use ::reqwest::{Request, Response, ResponseBuilderExt, Url};
use ::reqwest_middleware::{Error, Next, Result};
use farcall::resilience::Ending;
use farcall::{Attempt, ErrorType, Head, Step, Stored, Target};
use farcall_agent::Farcall;
use http::{Extensions, HeaderName, HeaderValue};
use std::pin::pin;

/// Makes a call as the rules say. A chain of redirects is one call here.
pub(super) async fn act(
    farcall: &Farcall,
    request: Request,
    extensions: &mut Extensions,
    next: Next<'_>,
) -> Result<Response> {
    let Scope { customer, tags } = Scope::of(extensions);
    let url = request.url().clone();
    let method = request.method().clone();
    let (content, replayable) = match request.body() {
        None => (&[][..], true),
        Some(body) => (body.as_bytes().unwrap_or_default(), body.as_bytes().is_some()),
    };
    let bytes = replayable.then_some(content.len() as u64);
    let now = farcall.now();
    let head = Head::to(method.as_str(), Target::parse(url.as_str()).unwrap_or(Target::UNREADABLE))
        .headers(request.headers())
        .body(bytes, replayable)
        .content(content)
        .priority(extensions.get().copied().unwrap_or_default())
        .deadline(extensions.get().map(|deadline: &crate::Deadline| now.plus(deadline.0)));
    let Some(mut watched) = Watched::begin(farcall, head, customer.as_ref(), Some(&tags), now) else {
        return next.run(request, extensions).await;
    };
    let mut last: Option<Result<Response>> = None;
    let mut original = Some(request);
    let mut truncate = None;
    loop {
        match watched.step(watched.now()) {
            Step::Send(attempt) => {
                // Where it cannot be sent again, the engine was told so, and this is the only attempt.
                let copy = original.as_ref().and_then(Request::try_clone).or_else(|| original.take());
                let Some(mut request) = copy else { break };
                change(&mut request, &attempt);
                truncate = attempt.truncate;
                let again = || original.as_ref().and_then(Request::try_clone);
                let answer = perform(&mut watched, request, again, attempt, extensions, &next).await;
                match &answer {
                    Ok(response) => {
                        watched.sent(bytes.unwrap_or_default());
                        let now = watched.now();
                        watched.answered(response.status().as_u16(), response.headers(), now);
                    }
                    Err((kind, _)) => {
                        // A body that found no connection never left.
                        if !matches!(kind, ErrorType::Dns | ErrorType::Connect | ErrorType::Tls) {
                            watched.sent(bytes.unwrap_or_default());
                        }
                        watched.failed(*kind);
                    }
                }
                last = Some(answer.map_err(|(_, error)| error));
            }
            Step::Wait(until) => {
                last = None;
                if let Some(timer) = watched.timer(until) {
                    timer.await;
                }
            }
            Step::Refuse(refusal) => return Err(Error::middleware(EgressError::Refused(refusal))),
            Step::Fail(error) => return Err(Error::middleware(EgressError::Injected(error))),
            Step::Respond(stored) => return Ok(respond(stored, url)),
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

/// What an attempt came to.
type Came = std::result::Result<Response, (ErrorType, Error)>;

/// Makes an attempt, and a second one beside it where the first is slow: what comes of them. One that fails while
/// the other is under way is let go of.
async fn perform(
    watched: &mut Watched,
    request: Request,
    again: impl Fn() -> Option<Request>,
    attempt: Attempt,
    extensions: &mut Extensions,
    next: &Next<'_>,
) -> Came {
    let due = attempt.hedge_at.and_then(|at| watched.timer(at));
    let patience = attempt.give_up_at.and_then(|at| watched.timer(at));
    let Some(due) = due else { return once(request, extensions, next, patience).await };
    let mut beside = extensions.clone();
    let (came, second_won) = {
        let mut first = pin!(once(request, extensions, next, patience));
        tokio::select! {
            biased;
            came = &mut first => return came,
            () = due => {}
        }
        let Some(hedge) = watched.hedge() else { return first.await };
        let Some(mut request) = again() else {
            watched.lost(hedge.number, None);
            return first.await;
        };
        change(&mut request, &hedge);
        let patience = hedge.give_up_at.and_then(|at| watched.timer(at));
        let mut second = pin!(once(request, &mut beside, next, patience));
        let (came, second_won) = tokio::select! {
            biased;
            came = &mut first => (came, false),
            came = &mut second => (came, true),
        };
        let (it, other) = match second_won {
            true => (hedge.number, attempt.number),
            false => (attempt.number, hedge.number),
        };
        match ending(&came) {
            None => {
                watched.lost(other, None);
                (came, second_won)
            }
            Some(ending) => {
                watched.lost(it, Some(ending));
                match second_won {
                    true => (first.await, false),
                    false => (second.await, true),
                }
            }
        }
    };
    if second_won {
        *extensions = beside;
    }
    came
}

/// Makes one attempt, and gives it up when its time has come.
async fn once(
    request: Request,
    extensions: &mut Extensions,
    next: &Next<'_>,
    patience: Option<Timer>,
) -> Came {
    let sending = next.clone().run(request, extensions);
    let answer = match patience {
        None => sending.await,
        Some(timer) => tokio::select! {
            answer = sending => answer,
            () = timer => {
                return Err((ErrorType::Timeout, Error::middleware(EgressError::TimedOut)));
            }
        },
    };
    answer.map_err(|error| (classify(&error), error))
}

/// How an attempt ended that is of no use while another one is under way.
fn ending(came: &Came) -> Option<Ending> {
    match came {
        Ok(response) if is_of_use(response.status()) => None,
        Ok(response) => Some(Ending::Status(response.status().as_u16())),
        Err((error, _)) => Some(Ending::Error(*error)),
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
        *request.body_mut() = Some(body.into());
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

/// A response that no vendor sent.
fn respond(stored: Stored, url: Url) -> Response {
    let mut builder = http::Response::builder().status(stored.status).url(url);
    for (name, value) in &stored.headers {
        builder = builder.header(name, value);
    }
    // What a rule may not say is no header: the status alone then.
    builder.body(stored.body).unwrap_or_default().into()
}
