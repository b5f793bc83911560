//! The ways by which an alarm goes out. Each is tried whatever became of the others.

use super::message::Message;
use crate::say;
use bytes::Bytes;
use farcall::catalogue::{Catalogue, name_of_unknown};
use farcall::config::{AlarmConfig, Rule};
use farcall::matcher::{Field, Fields, Subject};
use farcall::{Config, outbox};
use http::header::{CONTENT_TYPE, USER_AGENT};
use http::{Request, Uri};
use http_body_util::Full;
use hyper_rustls::{ConfigBuilderExt, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::ClientConfig;
use rustls::crypto::ring;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// What became of an alarm on one way.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Told {
    /// `webhook`, `command` or `log`.
    pub way: &'static str,
    /// Why it did not go out; `None` where it did.
    pub failure: Option<String>,
}

/// How often a webhook is tried, and how long between.
const TRIES: [Duration; 3] = [Duration::ZERO, Duration::from_millis(500), Duration::from_secs(2)];
const LOOK: Duration = Duration::from_millis(10);

/// Sends an alarm that is none by each of these ways, now: for `farcall alarm test`.
#[must_use]
pub fn test(config: &AlarmConfig, service: &str) -> Vec<Told> {
    tell(config, &Message::test(service))
}

/// The vendor at which the webhook is, where a rule says that calls to it are critical: when it fails, so does the alarm.
/// Of a webhook in an environment variable, that of this process.
#[must_use]
pub fn at_critical_vendor(config: &Config) -> Option<String> {
    let url = url_of(config.alarm.webhook.as_deref()?).ok()?;
    let host = url.host()?.to_ascii_lowercase();
    let catalogue = Catalogue::new(config.vendors.clone());
    let vendor = catalogue.vendor_of(&host);
    let name = vendor.map_or_else(|| name_of_unknown(&host), |vendor| &vendor.name);
    let tags = vendor.map(|vendor| vendor.tags.clone()).unwrap_or_default();
    let mut subject = Subject::default();
    (subject.vendor, subject.vendor_tags, subject.host) = (name, &tags, &host);
    let told_of = |rule: &&Rule<outbox::Rule>| {
        let (asks, unmet) = (rule.matcher.depends(), rule.matcher.unmet(&subject));
        // What else a rule asks (endpoint, customer) only narrows it.
        rule.then.critical == Some(true)
            && [Fields::VENDOR, Fields::VENDOR_TAG, Fields::HOST]
                .into_iter()
                .any(|field| asks.contains(field))
            && !unmet.iter().any(|field| matches!(field, Field::Vendor | Field::VendorTag | Field::Host))
    };
    config.outbox.iter().find(told_of).map(|_| name.to_owned())
}

pub(super) fn tell(config: &AlarmConfig, message: &Message) -> Vec<Told> {
    let json = message.to_json();
    let mut told = Vec::new();
    let mut add = |way, result: Result<(), String>| told.push(Told { way, failure: result.err() });
    // The quickest first: nobody knows how long the process lives.
    if let Some(file) = &config.log {
        let line = || {
            OpenOptions::new().create(true).append(true).open(file)?.write_all(format!("{json}\n").as_bytes())
        };
        add("log", line().map_err(|error| format!("{}: {error}", file.display())));
    }
    if let Some((program, arguments)) = config.command.split_first() {
        add("command", run(program, arguments, message, &json, config.timeout));
    }
    if let Some(webhook) = &config.webhook {
        add("webhook", url_of(webhook).and_then(|url| post(&url, &json, config.timeout)));
    }
    told
}

/// Where a webhook is: what the file says, or the environment variable that it names.
fn url_of(webhook: &str) -> Result<Uri, String> {
    let text = match webhook.strip_prefix('$') {
        Some(name) => std::env::var(name)
            .map_err(|_| format!("the environment variable {name} is not set in this process"))?,
        None => webhook.to_owned(),
    };
    Uri::try_from(text)
        .ok()
        .filter(|uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some())
        .ok_or_else(|| "what it holds is no URL".to_owned())
}

/// Posts with a client of its own, which nothing else has ever used.
fn post(url: &Uri, json: &str, timeout: Duration) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let until = Instant::now() + timeout;
    let mut last = "no time was left".to_owned();
    for wait in TRIES {
        let left = until.saturating_duration_since(Instant::now());
        if left <= wait {
            break;
        }
        thread::sleep(wait);
        match runtime.block_on(async { tokio::time::timeout(left - wait, once(url, json)).await }) {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => last = error,
            Err(_) => last = "no answer came in time".to_owned(),
        }
    }
    // The address may hold a secret; its host does not.
    Err(format!("{}: {last}", url.host().unwrap_or_default()))
}

async fn once(url: &Uri, json: &str) -> Result<(), String> {
    let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let tls = match tls.with_native_roots() {
        Ok(tls) => tls.with_no_client_auth(),
        // Without TLS none are needed.
        Err(error) if url.scheme_str() == Some("https") => return Err(error.to_string()),
        Err(_) => return plain(url, json).await,
    };
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    let https = HttpsConnectorBuilder::new()
        .with_tls_config(tls)
        .https_or_http()
        .enable_http1()
        .wrap_connector(connector);
    answered(Client::builder(TokioExecutor::new()).build(https).request(request(url, json)?).await)
}

async fn plain(url: &Uri, json: &str) -> Result<(), String> {
    answered(Client::builder(TokioExecutor::new()).build_http().request(request(url, json)?).await)
}

fn request(url: &Uri, json: &str) -> Result<Request<Full<Bytes>>, String> {
    Request::post(url)
        .header(CONTENT_TYPE, "application/json")
        .header(USER_AGENT, concat!("farcall/", env!("CARGO_PKG_VERSION")))
        .body(Full::from(json.to_owned()))
        .map_err(|error| error.to_string())
}

fn answered<B>(answer: Result<http::Response<B>, hyper_util::client::legacy::Error>) -> Result<(), String> {
    match answer {
        Ok(response) if response.status().is_success() => Ok(()),
        Ok(response) => Err(format!("it answered {}", response.status().as_u16())),
        Err(error) => Err(reasons(&error)),
    }
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

/// Runs a program with the message on its stdin, and ends it when its time is up.
fn run(
    program: &str,
    arguments: &[String],
    message: &Message,
    json: &str,
    timeout: Duration,
) -> Result<(), String> {
    let named = |error: io::Error| format!("{program}: {error}");
    let mut child = Command::new(program)
        .args(arguments)
        .env("FARCALL_ALARM_RULE", &*say::plain(&message.farcall.rule))
        .env("FARCALL_ALARM_TEXT", &message.text)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(named)?;
    if let Some(mut stdin) = child.stdin.take() {
        // It fits into any pipe; a program that does not read has what it needs in its environment.
        let _ = stdin.write_all(format!("{json}\n").as_bytes());
    }
    let until = Instant::now() + timeout;
    loop {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => return Ok(()),
            Ok(Some(status)) => return Err(format!("{program}: it ended with {status}")),
            Ok(None) if Instant::now() < until => thread::sleep(LOOK),
            Ok(None) => return Err(end(&mut child, program)),
            // The application reaps all children: how this one ended, nobody here can know.
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::CHILD.raw_os_error()) => {
                return Ok(());
            }
            Err(error) => return Err(named(error)),
        }
    }
}

fn end(child: &mut Child, program: &str) -> String {
    let _ = child.kill();
    let _ = child.wait();
    format!("{program}: it did not end in time")
}
