//! One delivery: a call like any other, through the engine.

use super::super::content::Content;
use super::super::credential::Missing;
use super::super::lease::Permit;
use super::super::queue;
use super::super::seal::Purpose;
use super::super::table::Item;
use super::super::{Answer, Inner, header_of};
use super::client::{Client, explain};
use super::outcome::Outcome;
use crate::handle::{CallGuard, Farcall};
use bytes::Bytes;
use farcall::quota::{Answer as Limits, Dialect};
use farcall::{ErrorType, Head, Priority, Step};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use std::sync::Arc;
use std::time::Duration;

/// How much of an answer's body is kept, in bytes.
const KEPT: usize = 256 * 1024;
/// How long a call waits in here because a rule says so; for longer it goes back to the file.
const PATIENCE: Duration = Duration::from_secs(5);

/// Delivers a call, if it can be.
pub(super) async fn deliver(
    inner: &Inner,
    farcall: &Farcall,
    client: &Client,
    permit: &Arc<Permit>,
    (item, sealed): (&Item, &[u8]),
) -> Outcome {
    let opened = inner.keys().and_then(|keys| keys.open(Purpose::Request, &item.idempotency_key, sealed));
    let bytes = match opened {
        Ok(bytes) => bytes,
        // The right key may yet be put back.
        Err(error) => return Outcome::NotSent { why: error.to_string(), wait: None },
    };
    let parts = Content::from_bytes(&bytes)
        .and_then(|content| Some((Uri::try_from(&content.url).ok()?, content)))
        .and_then(|(uri, content)| Some((Method::from_bytes(item.method.as_bytes()).ok()?, uri, content)));
    let Some((method, uri, content)) = parts else {
        return Outcome::Hopeless("what is kept of it is no request".into());
    };
    // What a callback says about its failure may be anything: the alarm has its name alone.
    let alarm = |failure: &str| farcall.engine().undelivered(&head(item, &content), failure, farcall.now());
    let given = match content.credential() {
        Some(name) => match inner.credentials.ask(name).await {
            Ok(value) => Some((name, value)),
            Err(Missing::Unknown) => return Outcome::NotSent { why: queue::waits_for(name), wait: None },
            Err(Missing::Failed(why)) => {
                alarm(&format!("got no credential: the callback `{name}` failed"));
                return Outcome::failed(why);
            }
        },
        None => None,
    };
    let mut headers = match (content.headers(given.as_ref().map(|(_, value)| value.as_str())), &given) {
        (Ok(headers), _) => headers,
        // What a callback gives is what it is: asked again, it may give something else.
        (Err(why), Some((name, _))) => {
            alarm(&format!("got no headers that can be sent with what the callback `{name}` gave"));
            return Outcome::failed(why);
        }
        (Err(why), None) => return Outcome::NotSent { why, wait: None },
    };
    if let Some(name) = header_of(farcall.engine(), &content)
        && let (Ok(name), Ok(value)) =
            (HeaderName::try_from(name), HeaderValue::try_from(&item.idempotency_key))
    {
        headers.insert(name, value);
    }
    let request = Prepared { method, uri, headers, body: content.body.clone().into() };
    let (now, timeout) = (farcall.now(), content.timeout());
    let mut call = {
        let deadline = Some(now.plus(timeout).plus(PATIENCE));
        let head = head(item, &content).headers(&request.headers).deadline(deadline);
        farcall.guard(farcall.begin_at(&head, now))
    };
    request.send(&mut call, client, permit, timeout).await
}

/// The call as rules see it, but for its headers and its deadline.
fn head<'c>(item: &'c Item, content: &'c Content) -> Head<'c> {
    Head::new(&item.method, &content.url)
        .body(Some(content.body.len() as u64), true)
        .content(&content.body)
        .customer(item.customer.as_deref())
        .tags(&[("via", "outbox")])
        .priority(Priority::Batch)
        .delivers(true)
}

/// A request, to be sent as often as it takes.
struct Prepared {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
}

impl Prepared {
    async fn send(
        &self,
        call: &mut CallGuard,
        client: &Client,
        permit: &Permit,
        timeout: Duration,
    ) -> Outcome {
        let (mut last, mut said) = (None, None);
        loop {
            match call.step() {
                Step::Send(attempt) => {
                    let mut request = Request::new(Full::new(self.body.clone()));
                    *request.method_mut() = self.method.clone();
                    *request.uri_mut() = self.uri.clone();
                    *request.headers_mut() = self.headers.clone();
                    attempt.apply(&mut request);
                    if !permit.is_good() {
                        call.failed(ErrorType::Cancelled);
                        return put_off(said, "another process delivers now".into(), None);
                    }
                    let left = attempt.give_up_at.map_or(timeout, |at| at.since(call.now()).min(timeout));
                    let came = match tokio::time::timeout(left, client.request(request)).await {
                        Ok(Ok(response)) => {
                            call.sent(self.body.len() as u64);
                            let now = call.now();
                            call.answer_at(response.status().as_u16(), response.headers(), now);
                            Ok(response)
                        }
                        Ok(Err(error)) => {
                            let (kind, why) = explain(&error);
                            call.failed(kind);
                            Err(why)
                        }
                        Err(_) => {
                            call.failed(ErrorType::Timeout);
                            Err("no answer came in time".to_owned())
                        }
                    };
                    said = Some(said_of(&came));
                    last = Some(came);
                }
                Step::Wait(until) => {
                    last = None;
                    let wait = until.since(call.now());
                    if wait > PATIENCE {
                        return put_off(said, "a rule has it wait".into(), Some(wait));
                    }
                    tokio::time::sleep(wait).await;
                }
                Step::Refuse(refusal) => {
                    let wait = refusal.until.map(|until| until.since(call.now()));
                    return put_off(said, refusal.to_string(), wait);
                }
                // What no vendor said is no delivery.
                Step::Respond(_) => {
                    return put_off(said, "a rule answered in the vendor's place".into(), None);
                }
                Step::Fail(error) => {
                    return put_off(said, format!("a rule had it fail: {}", error.as_str()), None);
                }
                _ => break,
            }
        }
        match last {
            Some(Ok(response)) => read(call, response, timeout).await,
            Some(Err(why)) => {
                call.end();
                Outcome::failed(why)
            }
            None => put_off(said, "the engine did not have it sent".into(), None),
        }
    }
}

/// What came of the last attempt that was sent: its status, where it got one, and in words.
type Said = (Option<u16>, String);

fn said_of<B>(came: &Result<Response<B>, String>) -> Said {
    match came.as_ref().map(|response| response.status().as_u16()) {
        Ok(status) => (Some(status), format!("the vendor answered {status}")),
        Err(why) => (None, why.clone()),
    }
}

/// No more is sent. Where nothing was, that is no attempt.
fn put_off(said: Option<Said>, why: String, wait: Option<Duration>) -> Outcome {
    match said {
        Some((status, why)) => Outcome::Failed { status, why, wait },
        None => Outcome::NotSent { why, wait },
    }
}

/// Reads an answer to its end. One that breaks off, or does not end in time, has its status all the same: the vendor
/// has decided.
async fn read(call: &mut CallGuard, response: Response<Incoming>, timeout: Duration) -> Outcome {
    let (parts, mut body) = response.into_parts();
    let now = call.now();
    let limits = Dialect::generic().read(&Limits::new(parts.status.as_u16(), &parts.headers), now);
    let (mut kept, mut cut) = (Vec::new(), false);
    let over = tokio::time::sleep(timeout);
    tokio::pin!(over);
    loop {
        let frame = tokio::select! {
            frame = body.frame() => frame.map(|frame| frame.map_err(|_| ErrorType::Reset)),
            () = &mut over => Some(Err(ErrorType::Timeout)),
        };
        let frame = match frame {
            None => break,
            Some(Ok(frame)) => frame,
            Some(Err(why)) => {
                call.failed(why);
                cut = true;
                break;
            }
        };
        let Some(data) = frame.data_ref() else { continue };
        call.read(data);
        let room = KEPT - kept.len();
        cut |= data.len() > room;
        kept.extend_from_slice(&data[..data.len().min(room)]);
    }
    call.end();
    let answer = Answer::new(parts.status.as_u16(), &parts.headers, kept, cut);
    Outcome::Answered { answer, retry_after: limits.wait_until(now).map(|until| until.since(now)) }
}
