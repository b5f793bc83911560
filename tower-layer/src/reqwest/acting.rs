//! A request for which rules decide: the loop over [`Step`] around the rest of the chain.

use super::exchange::hand_out;
use crate::egress::EgressError;
use crate::error::classify;
use crate::scope::Scope;
use crate::timer::Timer;
use crate::watched::Watched;
use ::reqwest::{Request, Response, ResponseBuilderExt, Url};
use ::reqwest_middleware::{Error, Next, Result};
use farcall::{Attempt, ErrorType, Head, Step, Stored, Target};
use farcall_agent::Farcall;
use http::{Extensions, HeaderName, HeaderValue};

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
        .caches(true)
        .content(content)
        .priority(extensions.get().copied().unwrap_or_default())
        .deadline(extensions.get().map(|deadline: &crate::Deadline| now.plus(deadline.0)));
    let Some(mut watched) = Watched::begin(farcall, head, customer.as_ref(), Some(&tags), now) else {
        return next.run(request, extensions).await;
    };
    let mut last: Option<Result<Response>> = None;
    let mut original = Some(request);
    loop {
        match watched.step(watched.now()) {
            Step::Send(attempt) => {
                // Where it cannot be sent again, the engine was told so, and this is the only attempt.
                let copy = original.as_ref().and_then(Request::try_clone).or_else(|| original.take());
                let Some(mut request) = copy else { break };
                change(&mut request, &attempt);
                let sending = next.clone().run(request, extensions);
                let answer = match attempt.give_up_at.and_then(|at| Timer::new(watched.now(), at)) {
                    None => sending.await,
                    Some(timer) => tokio::select! {
                        answer = sending => answer,
                        () = timer => {
                            watched.failed(ErrorType::Timeout);
                            last = Some(Err(Error::middleware(EgressError::TimedOut)));
                            continue;
                        }
                    },
                };
                match &answer {
                    Ok(response) => {
                        watched.sent(bytes.unwrap_or_default());
                        let now = watched.now();
                        if *response.url() != url {
                            // reqwest followed a redirect: what came is not the answer to what was asked.
                            watched.uncacheable();
                        }
                        watched.answered(response.status().as_u16(), response.headers(), now);
                    }
                    Err(error) => watched.failed(classify(error)),
                }
                last = Some(answer);
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
        Some(Ok(response)) => Ok(hand_out(response, watched, &method)),
        Some(Err(error)) => {
            watched.end();
            Err(error)
        }
        None => {
            Err(Error::middleware(EgressError::Service("farcall settled a call that was not sent".into())))
        }
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
fn respond(stored: Stored, url: Url) -> Response {
    let mut builder = http::Response::builder().status(stored.status).url(url);
    if let Some(headers) = builder.headers_mut() {
        *headers = stored.headers;
    }
    // What a rule may not say is no status: an empty response then.
    builder.body(stored.body).unwrap_or_default().into()
}
