//! One message to one place, by a client that nothing else has ever used: what the agent tells about calls shares no
//! connection, quota, breaker or policy with them.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER, USER_AGENT};
use http::{HeaderName, HeaderValue, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_rustls::{ConfigBuilderExt, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::crypto::ring;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How often a message is tried, and how long is waited before each try.
const TRIES: [Duration; 3] = [Duration::ZERO, Duration::from_millis(500), Duration::from_secs(2)];
/// Of an answer no more is read.
const MAX_ANSWER: usize = 64 << 10;

/// Whom the system trusts: read for the first message that needs it, and again after one that failed.
static TRUSTED: Trusted = Trusted(Mutex::new(None));

/// A message on its way.
pub(crate) struct Post<'a> {
    pub(crate) url: &'a Uri,
    pub(crate) headers: &'a [(HeaderName, HeaderValue)],
    pub(crate) json: &'a str,
    /// For all tries together.
    pub(crate) timeout: Duration,
    /// Whether an answer that is no success may be another one soon.
    pub(crate) passes: fn(StatusCode) -> bool,
    /// Whether somebody wants to read the answer.
    pub(crate) answered: bool,
}

/// Why a try failed.
struct Failed {
    why: String,
    again: bool,
    /// What the other side asked to wait at least.
    wait: Duration,
}

impl Failed {
    fn again(why: String) -> Self {
        Self { why, again: true, wait: Duration::ZERO }
    }
}

/// TLS that trusts the system's certificates, as they were read last: there are some hundred of them.
#[derive(Debug)]
struct Trusted(Mutex<Option<ClientConfig>>);

impl Trusted {
    /// Those that are known; else as `read` finds them, which nobody else waits for.
    fn get(&self, read: impl FnOnce() -> io::Result<ClientConfig>) -> io::Result<ClientConfig> {
        let known = self.lock().clone();
        if let Some(known) = known {
            return Ok(known);
        }
        let found = read()?;
        *self.lock() = Some(found.clone());
        Ok(found)
    }

    fn forget(&self) {
        *self.lock() = None;
    }

    fn lock(&self) -> MutexGuard<'_, Option<ClientConfig>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Has the system's certificates read again for the next message: they may have been replaced.
pub(crate) fn forget_certificates() {
    TRUSTED.forget();
}

/// Posts it; what was answered, as far as that was to be read.
///
/// # Errors
/// Why nobody took it; without the address, which may hold a secret.
pub(crate) fn post(post: &Post<'_>) -> Result<Bytes, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let until = Instant::now() + post.timeout;
    let mut last = Failed::again("no time was left".to_owned());
    for wait in TRIES {
        let (wait, left) = (wait.max(last.wait), until.saturating_duration_since(Instant::now()));
        if left <= wait {
            break;
        }
        thread::sleep(wait);
        match runtime.block_on(async { tokio::time::timeout(left - wait, once(post)).await }) {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(failed)) => last = failed,
            Err(_) => last = Failed::again("no answer came in time".to_owned()),
        }
        if !last.again {
            break;
        }
    }
    if post.url.scheme_str() == Some("https") {
        forget_certificates();
    }
    // A name that is being looked up must not hold up whoever waits for this.
    runtime.shutdown_background();
    Err(format!("{}: {}", post.url.host().unwrap_or_default(), last.why))
}

async fn once(post: &Post<'_>) -> Result<Bytes, Failed> {
    let response = send(post).await.map_err(Failed::again)?;
    let status = response.status();
    if !status.is_success() {
        let why = format!("it answered {}", status.as_u16());
        let seconds = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let wait = seconds.map_or(Duration::ZERO, Duration::from_secs);
        return Err(Failed { why, again: (post.passes)(status), wait });
    }
    if !post.answered {
        return Ok(Bytes::new());
    }
    // It was taken, whatever becomes of what is said about it.
    let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
    Ok(body.map(|body| body.to_bytes()).unwrap_or_default())
}

async fn send(post: &Post<'_>) -> Result<Response<Incoming>, String> {
    let mut request: Request<Full<Bytes>> = Request::post(post.url)
        .header(CONTENT_TYPE, "application/json")
        .header(USER_AGENT, concat!("farcall/", env!("CARGO_PKG_VERSION")))
        .body(Full::from(post.json.to_owned()))
        .map_err(|error| error.to_string())?;
    request.headers_mut().extend(post.headers.iter().cloned());
    let answer = match post.url.scheme_str() {
        Some("https") => {
            let tls = TRUSTED.get(tls).map_err(|error| error.to_string())?;
            let mut connector = HttpConnector::new();
            connector.enforce_http(false);
            let https = HttpsConnectorBuilder::new()
                .with_tls_config(tls)
                .https_only()
                .enable_http1()
                .wrap_connector(connector);
            Client::builder(TokioExecutor::new()).build(https).request(request).await
        }
        // Without TLS no certificates are needed.
        _ => Client::builder(TokioExecutor::new()).build_http().request(request).await,
    };
    answer.map_err(|error| reasons(&error))
}

fn tls() -> io::Result<ClientConfig> {
    let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?;
    let mut tls = tls.with_native_roots()?.with_no_client_auth();
    // Messages have nothing in common, also not a session.
    tls.resumption = Resumption::disabled();
    Ok(tls)
}

/// What lies beneath an error, down to what the system said.
fn reasons(error: &dyn std::error::Error) -> String {
    let mut reasons: Vec<String> = Vec::new();
    let mut next = error.source();
    while let Some(reason) = next {
        let text = reason.to_string();
        // Some say again what lies beneath.
        if !reasons.iter().any(|known| known.contains(&text)) {
            reasons.push(text);
        }
        next = reason.source();
    }
    if reasons.is_empty() { error.to_string() } else { reasons.join(": ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::RootCertStore;
    use std::cell::Cell;
    use std::net::TcpListener;

    #[test]
    fn certificates_are_read_once_and_again_after_a_failure() {
        let (trusted, reads) = (Trusted(Mutex::new(None)), Cell::new(0));
        let get = |found: bool| {
            trusted.get(|| {
                reads.set(reads.get() + 1);
                let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
                let tls = tls.with_safe_default_protocol_versions().map_err(io::Error::other)?;
                let tls = tls.with_root_certificates(RootCertStore::empty()).with_no_client_auth();
                found.then_some(tls).ok_or_else(|| io::Error::other("there are none"))
            })
        };
        assert!(get(false).is_err() && get(true).is_ok() && get(true).is_ok());
        assert_eq!(reads.get(), 2, "what was not found is looked for again");
        trusted.forget();
        assert!(get(true).is_ok());
        assert_eq!(reads.get(), 3);
    }

    #[test]
    fn a_message_that_failed_has_the_certificates_read_again() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = Uri::try_from(format!("https://{}/", listener.local_addr().unwrap())).unwrap();
        // Whoever it is hangs up before TLS begins.
        thread::spawn(move || listener.incoming().take(3).for_each(drop));
        if TRUSTED.get(tls).is_err() {
            return;
        }
        let timeout = Duration::from_millis(300);
        let failed =
            post(&Post { url: &url, headers: &[], json: "{}", timeout, passes: |_| true, answered: false });
        assert!(failed.is_err());
        assert!(TRUSTED.lock().is_none());
    }
}
