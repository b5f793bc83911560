//! Where it goes: what the file says, else the environment (OpenTelemetry, "OpenTelemetry Protocol Exporter" and
//! "Environment Variable Specification").

use farcall::config::OtlpConfig;
use http::{HeaderName, HeaderValue, Uri};
use std::collections::HashMap;
use std::ffi::OsString;
use std::sync::OnceLock;
use std::time::Duration;

/// OpenTelemetry's default.
const TIMEOUT: Duration = Duration::from_secs(10);
const MAX_HEADERS: usize = 32;

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    Logs,
    Metrics,
}

impl Signal {
    fn path(self) -> &'static str {
        match self {
            Self::Logs => "v1/logs",
            Self::Metrics => "v1/metrics",
        }
    }

    /// As it is called within names of environment variables.
    fn word(self) -> &'static str {
        match self {
            Self::Logs => "LOGS",
            Self::Metrics => "METRICS",
        }
    }

    /// Where an answer says how many were refused.
    pub(super) fn rejected(self) -> &'static str {
        match self {
            Self::Logs => "rejectedLogRecords",
            Self::Metrics => "rejectedDataPoints",
        }
    }
}

/// A collector that takes a signal.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Destination {
    pub(crate) url: Uri,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    pub(crate) timeout: Duration,
}

/// Where a signal goes.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Whither {
    /// Nobody asked for it.
    Nowhere,
    /// The environment names a collector, by a protocol that is not ours: nobody asked us.
    Otherwise(String),
    /// It was asked for, and cannot be.
    Wrong(String),
    To(Destination),
}

/// The environment of this process, as it was when this was first asked, while the application started: it may change
/// the environment later, and no thread of ours must look then. What is blank counts as not set.
pub(crate) fn process_environment(name: &str) -> Option<String> {
    static ENVIRONMENT: OnceLock<HashMap<String, String>> = OnceLock::new();
    let environment = ENVIRONMENT.get_or_init(|| {
        let text =
            |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value.into_string().ok()?));
        std::env::vars_os().filter_map(text).collect()
    });
    environment.get(name).filter(|value| !value.trim().is_empty()).cloned()
}

impl Whither {
    /// Where `signal` goes by this configuration, in this environment.
    pub(crate) fn of(config: &OtlpConfig, signal: Signal, env: &dyn Fn(&str) -> Option<String>) -> Self {
        let wanted = match signal {
            Signal::Logs => config.events,
            Signal::Metrics => config.metrics,
        };
        let disabled = env("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"));
        if !wanted || disabled || !(config.asked || config.endpoint.is_some()) {
            return Self::Nowhere;
        }
        let found = match &config.endpoint {
            Some(endpoint) => of_file(config, endpoint, signal, env),
            None => match of_environment(signal, env) {
                Some(found) => found,
                None => return Self::Nowhere,
            },
        };
        match found {
            Ok((url, headers)) => {
                Self::To(Destination { url, headers, timeout: timeout(config, signal, env) })
            }
            Err(Unfit::Wrong(why)) => Self::Wrong(why),
            Err(Unfit::Otherwise(why)) => Self::Otherwise(why),
        }
    }
}

enum Unfit {
    Wrong(String),
    Otherwise(String),
}

type Found = Result<(Uri, Vec<(HeaderName, HeaderValue)>), Unfit>;

fn of_file(
    config: &OtlpConfig,
    endpoint: &str,
    signal: Signal,
    env: &dyn Fn(&str) -> Option<String>,
) -> Found {
    let said = |text: &str| match text.strip_prefix('$') {
        Some(name) => env(name).ok_or_else(|| {
            Unfit::Wrong(format!("the environment variable {name} is not set in this process"))
        }),
        None => Ok(text.to_owned()),
    };
    let url = below(&said(endpoint)?, signal)?;
    let mut headers = Vec::new();
    for (name, value) in &config.headers {
        let header = header(name, said(value)?.trim());
        headers.push(header.ok_or_else(|| {
            Unfit::Wrong(format!("what the header field `{name}` is to hold cannot be sent"))
        })?);
    }
    Ok((url, headers))
}

/// `None` where it names none.
fn of_environment(signal: Signal, env: &dyn Fn(&str) -> Option<String>) -> Option<Found> {
    // What holds for one signal goes before what holds for all.
    let of = |what: &str| {
        env(&format!("OTEL_EXPORTER_OTLP_{}_{what}", signal.word()))
            .map(|value| (value, true))
            .or_else(|| env(&format!("OTEL_EXPORTER_OTLP_{what}")).map(|value| (value, false)))
    };
    let (endpoint, own) = of("ENDPOINT")?;
    let exporters = env(&format!("OTEL_{}_EXPORTER", signal.word()));
    if exporters.is_some_and(|names| !names.split(',').any(|name| name.trim() == "otlp")) {
        return None;
    }
    let protocol = of("PROTOCOL").map(|(protocol, _)| protocol.trim().to_ascii_lowercase());
    match protocol.as_deref() {
        // A port that takes one of them takes the other (OTLP, "OTLP/HTTP").
        None | Some("http/protobuf" | "http/json") => {}
        Some("grpc") => {
            let why = "the environment names a collector that is spoken to by grpc, and farcall does by HTTP alone: name its HTTP port as `endpoint` in [otlp]";
            return Some(Err(Unfit::Otherwise(why.to_owned())));
        }
        Some(other) => {
            let why = format!(
                "OTEL_EXPORTER_OTLP_PROTOCOL, or {} of its own, is `{}`, which is no protocol; set it to http/protobuf, http/json or grpc",
                signal.word(),
                crate::say::plain(other)
            );
            return Some(Err(Unfit::Wrong(why)));
        }
    }
    let endpoint = endpoint.trim();
    let url = if own { whole(endpoint) } else { below(endpoint, signal) };
    Some(url.map(|url| {
        let given = of("HEADERS").map(|(text, _)| pairs(&text)).unwrap_or_default();
        let headers = given.iter().filter_map(|(name, value)| header(name, value)).take(MAX_HEADERS);
        (url, headers.collect())
    }))
}

fn timeout(config: &OtlpConfig, signal: Signal, env: &dyn Fn(&str) -> Option<String>) -> Duration {
    let millis = |name: String| env(&name)?.trim().parse().ok().filter(|millis| *millis > 0);
    let said = || {
        millis(format!("OTEL_EXPORTER_OTLP_{}_TIMEOUT", signal.word()))
            .or_else(|| millis("OTEL_EXPORTER_OTLP_TIMEOUT".to_owned()))
    };
    config.timeout.or_else(|| said().map(Duration::from_millis)).unwrap_or(TIMEOUT)
}

/// The signal's own place below a base.
fn below(base: &str, signal: Signal) -> Result<Uri, Unfit> {
    whole(&format!("{}/{}", base.trim_end_matches('/'), signal.path()))
}

fn whole(text: &str) -> Result<Uri, Unfit> {
    Uri::try_from(text)
        .ok()
        .filter(|uri| matches!(uri.scheme_str(), Some("http" | "https")))
        .filter(|uri| uri.authority().is_some_and(|authority| !authority.as_str().contains('@')))
        .ok_or_else(|| Unfit::Wrong("what should name the collector is no URL of HTTP".to_owned()))
}

/// A field that may be sent beside ours.
fn header(name: &str, value: &str) -> Option<(HeaderName, HeaderValue)> {
    let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
    let ours = [
        "host",
        "content-length",
        "content-type",
        "transfer-encoding",
        "connection",
        "content-encoding",
        "user-agent",
    ];
    let mut value = HeaderValue::from_str(value).ok().filter(|_| !ours.contains(&name.as_str()))?;
    value.set_sensitive(true);
    Some((name, value))
}

/// `a=b,c=d`, as the W3C's Baggage has it: with spaces around, and escapes by `%` in the values.
pub(super) fn pairs(text: &str) -> Vec<(String, String)> {
    let pair = |pair: &str| {
        let (key, value) = pair.split_once('=')?;
        // What follows a semicolon are properties, which nothing here has.
        let value = value.split(';').next().unwrap_or_default();
        let key = key.trim();
        (!key.is_empty()).then(|| (key.to_owned(), unescaped(value.trim())))
    };
    text.split(',').filter_map(pair).collect()
}

fn unescaped(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let escaped = after.split_at_checked(2).filter(|_| *first == b'%').and_then(|(digits, after)| {
            let digits = std::str::from_utf8(digits).ok().filter(|digits| !digits.starts_with('+'))?;
            Some((u8::from_str_radix(digits, 16).ok()?, after))
        });
        let (byte, after) = escaped.unwrap_or((*first, after));
        bytes.push(byte);
        rest = after;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use farcall::Config;

    type Set = [(&'static str, &'static str)];

    fn of(file: &str, signal: Signal, set: &Set) -> Whither {
        let file = if file.is_empty() { "[otlp]" } else { file };
        let config = Config::parse("f", file).unwrap().otlp;
        let env = |name: &str| {
            let found = set.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
            found.filter(|value| !value.trim().is_empty())
        };
        Whither::of(&config, signal, &env)
    }

    fn to(file: &str, signal: Signal, set: &Set) -> Destination {
        match of(file, signal, set) {
            Whither::To(to) => to,
            Whither::Nowhere => panic!("nowhere"),
            Whither::Otherwise(why) | Whither::Wrong(why) => panic!("{why}"),
        }
    }

    fn headers(to: &Destination) -> Vec<(&str, &str)> {
        to.headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect()
    }

    #[test]
    fn without_a_collector_nothing_goes_anywhere() {
        assert!(of("", Signal::Logs, &[]) == Whither::Nowhere);
        assert!(of("", Signal::Logs, &[("OTEL_EXPORTER_OTLP_ENDPOINT", " ")]) == Whither::Nowhere);
        let file = "[otlp]\nendpoint = \"http://c:4318\"\nevents = false\n";
        assert!(of(file, Signal::Logs, &[]) == Whither::Nowhere);
        assert_eq!(to(file, Signal::Metrics, &[]).url, "http://c:4318/v1/metrics");
        let off: &Set = &[("OTEL_SDK_DISABLED", "True"), ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318")];
        assert!(of("", Signal::Logs, off) == Whither::Nowhere);
        let unasked: &Set = &[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318")];
        assert!(
            of("service = \"shop\"\n", Signal::Logs, unasked) == Whither::Nowhere,
            "it may be meant for others"
        );
        assert!(of(file, Signal::Metrics, off) == Whither::Nowhere);
    }

    #[test]
    fn the_environment_is_read_as_opentelemetry_says() {
        let all: &Set = &[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://c.example/otlp/"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=a%3Db, x-team = shop ,content-type=text/plain"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "2500"),
        ];
        let found = to("", Signal::Logs, all);
        assert_eq!(found.url, "https://c.example/otlp/v1/logs", "below the base");
        assert_eq!(headers(&found), [("api-key", "a=b"), ("x-team", "shop")]);
        assert_eq!(found.timeout, Duration::from_millis(2_500));
        let own: &Set = &[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://c.example/"),
            ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "http://logs.example/in"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "a=1"),
            ("OTEL_EXPORTER_OTLP_LOGS_HEADERS", "b=2"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_LOGS_PROTOCOL", "http/protobuf"),
        ];
        let found = to("", Signal::Logs, own);
        assert_eq!(
            (found.url.to_string().as_str(), headers(&found)),
            ("http://logs.example/in", vec![("b", "2")])
        );
        assert_eq!(found.timeout, TIMEOUT);
        assert!(matches!(of("", Signal::Metrics, own), Whither::Otherwise(why) if why.contains("grpc")));
        let said = |protocol: &'static str| {
            let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4317");
            of("", Signal::Logs, &[endpoint, ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)])
        };
        assert!(matches!(said("GRPC"), Whither::Otherwise(why) if why.contains("grpc")));
        assert!(
            [" Http/Protobuf ", "HTTP/JSON"].into_iter().all(|http| matches!(said(http), Whither::To(_)))
        );
        assert!(
            matches!(said("grpcs"), Whither::Wrong(why) if why.contains("`grpcs`") && why.contains("http/json"))
        );
        let root: &Set = &[("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http://metrics.example")];
        assert_eq!(to("", Signal::Metrics, root).url, "http://metrics.example/", "as it is, at its root");
        let none: &Set =
            &[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318"), ("OTEL_METRICS_EXPORTER", "none")];
        assert!(of("", Signal::Metrics, none) == Whither::Nowhere);
        assert_eq!(to("", Signal::Logs, none).url, "http://c:4318/v1/logs");
        let wrong: &Set = &[("OTEL_EXPORTER_OTLP_ENDPOINT", "c:4318")];
        assert!(matches!(of("", Signal::Logs, wrong), Whither::Wrong(_)));
    }

    #[test]
    fn the_file_goes_before_the_environment_whose_secrets_are_for_its_own_collector() {
        let set: &Set = &[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://elsewhere.example"),
            ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "https://elsewhere.example/logs"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=theirs"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("COLLECTOR", "http://c:4318/"),
            ("TEAM", "shop"),
        ];
        let file = "[otlp]\nendpoint = \"$COLLECTOR\"\nheaders = { x-team = \"$TEAM\" }\ntimeout = \"1s\"\n";
        let found = to(file, Signal::Logs, set);
        assert_eq!(
            (found.url.to_string().as_str(), headers(&found)),
            ("http://c:4318/v1/logs", vec![("x-team", "shop")])
        );
        assert_eq!(found.timeout, Duration::from_secs(1));
        assert!(
            matches!(of(file, Signal::Logs, &[]), Whither::Wrong(why) if why.contains("COLLECTOR is not set"))
        );
    }

    #[test]
    fn escapes_that_are_none_stay_as_they_are() {
        assert_eq!(unescaped("100%25 %zz %2"), "100% %zz %2");
        assert_eq!(unescaped("%+1%C3%A9"), "%+1é");
    }
}
