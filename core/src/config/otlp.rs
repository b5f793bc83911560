//! `[otlp]`: the collector that gets what Farcall tells by OpenTelemetry.

use super::section::Section;
use http::{HeaderName, HeaderValue};
use std::fmt;
use std::time::Duration;

/// An OpenTelemetry collector, and what it gets. What is not said here, the environment may say
/// (`OTEL_EXPORTER_OTLP_ENDPOINT` and others), but only where there is an `[otlp]`: the variables may be meant for an SDK
/// that speaks another protocol. Where neither names an endpoint, nothing is sent.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct OtlpConfig {
    /// Whether there is an `[otlp]`, and so the environment is asked for what it does not say.
    pub asked: bool,
    /// `endpoint`: the URL below which the collector takes `v1/logs` and `v1/metrics`, or `$NAME` for what the
    /// environment variable holds. May hold a secret: not shown by `Debug`.
    pub endpoint: Option<String>,
    /// `headers`: header fields of each request, by name; a value may be `$NAME`. They go to `endpoint` alone, and are
    /// not shown by `Debug`.
    pub headers: Vec<(String, String)>,
    /// `events`: whether it gets alarms, as events.
    pub events: bool,
    /// `metrics`: whether it gets the state of the outbox, as metrics.
    pub metrics: bool,
    /// `interval`: how often it gets metrics; `None` where it does not say.
    pub interval: Option<Duration>,
    /// `timeout`: how long it may take for one message, with all tries; `None` where it does not say.
    pub timeout: Option<Duration>,
}

impl Default for OtlpConfig {
    fn default() -> Self {
        Self {
            asked: false,
            endpoint: None,
            headers: Vec::new(),
            events: true,
            metrics: true,
            interval: None,
            timeout: None,
        }
    }
}

impl fmt::Debug for OtlpConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OtlpConfig")
            .field("endpoint", &self.endpoint.as_ref().map(|_| ".."))
            .field("headers", &self.headers.iter().map(|(name, _)| name).collect::<Vec<_>>())
            .field("events", &self.events)
            .field("metrics", &self.metrics)
            .finish_non_exhaustive()
    }
}

/// What frames a message, and what it is, is not the file's to say.
const OURS: [&str; 7] = [
    "host",
    "user-agent",
    "content-length",
    "content-type",
    "transfer-encoding",
    "connection",
    "content-encoding",
];
/// More are a mistake.
const MAX_HEADERS: usize = 32;
const LEAST_INTERVAL: Duration = Duration::from_secs(1);

pub(super) fn read(section: &mut Section<'_, '_>) -> OtlpConfig {
    let default = OtlpConfig::default();
    let endpoint = section.checked_string("endpoint", |text| {
        let url = http::Uri::try_from(text).is_ok_and(|uri| {
            matches!(uri.scheme_str(), Some("http" | "https"))
                && uri.query().is_none()
                && uri.authority().is_some_and(|authority| !authority.as_str().contains('@'))
        });
        (is_variable(text) || url).then(|| text.to_owned()).ok_or_else(|| {
            r#"a collector; write the URL below which it takes OTLP over HTTP, as in "http://localhost:4318", or the environment variable that holds it, as in "$COLLECTOR""#.into()
        })
    });
    let headers =
        section.strings("headers", r#"write `headers = { api-key = "$COLLECTOR_KEY" }`"#, |name, value| {
            let name = HeaderName::from_bytes(name.as_bytes())
                .ok()
                .filter(|name| !OURS.contains(&name.as_str()))
                .ok_or_else(|| format!("`{name}` is no header field that can be set here; leave it out"))?;
            HeaderValue::from_str(value).map_err(|_| {
                format!(
                    "the value of `{name}` cannot be sent; write one line of text without control characters"
                )
            })?;
            Ok((name.as_str().to_owned(), value.to_owned()))
        });
    if headers.len() > MAX_HEADERS {
        section.wrong(format!("`headers` of [otlp] are at most {MAX_HEADERS}"));
    }
    if !headers.is_empty() && !section.has("endpoint") {
        // They may hold a secret that is meant for one place.
        section.wrong("`headers` belong to an `endpoint`; write that too, or OTEL_EXPORTER_OTLP_HEADERS");
    }
    let events = section.boolean("events");
    let metrics = section.boolean("metrics");
    let interval = section.duration("interval");
    if interval.is_some_and(|interval| interval < LEAST_INTERVAL) {
        section.wrong("`interval` of [otlp] is too short; write \"1s\" or more, or `metrics = false`");
    }
    let timeout = section.duration("timeout");
    OtlpConfig {
        asked: true,
        endpoint,
        headers,
        events: events.unwrap_or(default.events),
        metrics: metrics.unwrap_or(default.metrics),
        interval: interval.filter(|interval| *interval >= LEAST_INTERVAL),
        timeout,
    }
}

fn is_variable(text: &str) -> bool {
    text.strip_prefix('$').is_some_and(|name| {
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    })
}

#[cfg(test)]
mod tests {
    use crate::config::Config;
    use std::time::Duration;

    #[test]
    fn a_collector_is_read_and_its_secrets_are_not_shown() {
        let text = "[otlp]\nendpoint = \"https://otlp.example.com/secret\"\ninterval = \"15s\"\ntimeout = \"3s\"\n\
                    metrics = false\nheaders = { Api-Key = \"hidden\", x-team = \"$TEAM\" }\n";
        let otlp = Config::parse("f", text).unwrap().otlp;
        assert_eq!(otlp.endpoint.as_deref(), Some("https://otlp.example.com/secret"));
        let headers = [("api-key", "hidden"), ("x-team", "$TEAM")];
        assert_eq!(otlp.headers, headers.map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert_eq!((otlp.events, otlp.metrics), (true, false));
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!((otlp.interval, otlp.timeout), (seconds(15), seconds(3)));
        let shown = format!("{otlp:?}");
        assert!(
            shown.contains("x-team") && !shown.contains("secret") && !shown.contains("hidden"),
            "{shown}"
        );
        assert!(Config::parse("f", "[otlp]\nendpoint = \"$COLLECTOR\"\n").is_ok());
    }

    #[test]
    fn the_examples_of_documentation_and_example_file_are_right() {
        let text = include_str!("../../../docs/otlp.md");
        let example = text.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
        let otlp = Config::parse("docs/otlp.md", example).unwrap().otlp;
        assert_eq!((otlp.endpoint.as_deref(), otlp.headers.len()), (Some("http://localhost:4318"), 1));
        let text = include_str!("../../../farcall.example.toml");
        let lines =
            text.lines().skip_while(|line| *line != "# [otlp]").take_while(|line| line.starts_with("# "));
        let commented: Vec<&str> = lines.map(|line| &line[2..]).collect();
        let otlp = Config::parse("farcall.example.toml", &commented.join("\n")).unwrap().otlp;
        assert_eq!(otlp.interval, Some(Duration::from_secs(60)));
    }

    #[test]
    fn what_is_wrong_says_where_and_what_would_be_right() {
        let why = |text: &str| {
            let errors = Config::parse("f", &format!("[otlp]\n{text}\n")).unwrap_err();
            errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
        };
        for (text, said) in [
            ("endpiont = \"$A\"", "f:2:1: unknown key `endpiont`; did you mean `endpoint`?"),
            ("endpoint = \"localhost:4317\"", "f:2:12: `endpoint` is not a collector"),
            ("endpoint = \"https://user:pw@otlp.example.com\"", "f:2:12: `endpoint` is not a collector"),
            ("endpoint = \"http://a.example?token=1\"", "f:2:12: `endpoint` is not a collector"),
            ("endpoint = \"$A\"\nheaders = { host = \"b\" }", "f:3:13: `host` is no header field"),
            ("endpoint = \"$A\"\nheaders = { a = 7 }", "f:3:17: `a` is a whole number, not a string"),
            ("endpoint = \"$A\"\nheaders = [\"a=b\"]", "f:3:11: `headers` is a list, not a table"),
            ("headers = { a = \"b\" }", "belong to an `endpoint`"),
            ("interval = \"20ms\"", "write \"1s\" or more"),
            ("timeout = \"0s\"", "f:2:11: `timeout` is not a duration"),
            ("events = \"no\"", "f:2:10: `events` is a string, not true or false"),
        ] {
            assert!(why(text).contains(said), "{text}: {}", why(text));
        }
    }
}
