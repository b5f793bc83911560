//! How each vendor says "you have n left", as a table: one row a dialect.
//!
//! A template may hold `{limit}`, `{remaining}`, `{used}`, `{window}` (seconds), `{retry}` (whole
//! seconds, rounded up), `{retry_ms}`, and the moment of the reset as `{epoch_s}`, `{epoch_ms}`,
//! `{delta_s}` (decimal), `{delta_ms}`, `{duration}`, `{rfc3339}`, `{http_date}`.

use std::borrow::Cow;
use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};

use crate::answer::{Answer, Content};
use crate::clock;

/// One dialect.
#[derive(Debug)]
pub(crate) struct Dialect {
    pub(crate) name: &'static str,
    /// The status of a refusal; some vendors do not use 429.
    pub(crate) status: u16,
    /// Sent with every answer.
    always: &'static [(&'static str, &'static str)],
    /// Sent only with a refusal.
    refusal: &'static [(&'static str, &'static str)],
    body: &'static str,
}

const PLAIN: &str = r#"{"error":"rate limit exceeded"}"#;
const RETRY: (&str, &str) = ("retry-after", "{retry}");

/// One row a dialect.
pub(crate) const DIALECTS: &[Dialect] = &[
    Dialect {
        name: "ietf",
        status: 429,
        always: &[
            ("ratelimit-policy", r#""default";q={limit};w={window}"#),
            ("ratelimit", r#""default";r={remaining};t={retry}"#),
        ],
        refusal: &[RETRY],
        body: PLAIN,
    },
    Dialect {
        name: "ietf-units",
        status: 429,
        always: &[
            (
                "ratelimit-policy",
                r#""burst";q={limit};w={window}, "daily";q=1000000;qu="content-bytes";w=86400;pk=:c2lt:"#,
            ),
            ("ratelimit", r#""burst";r={remaining};t={retry};pk=:c2lt:, "daily";r=999000;t=3600"#),
        ],
        refusal: &[RETRY],
        body: PLAIN,
    },
    Dialect {
        name: "ietf-06",
        status: 429,
        always: &[
            ("ratelimit-limit", "{limit}"),
            ("ratelimit-remaining", "{remaining}"),
            ("ratelimit-reset", "{retry}"),
        ],
        refusal: &[RETRY],
        body: PLAIN,
    },
    Dialect {
        name: "github",
        status: 403,
        always: &[
            ("x-ratelimit-limit", "{limit}"),
            ("x-ratelimit-remaining", "{remaining}"),
            ("x-ratelimit-reset", "{epoch_s}"),
            ("x-ratelimit-used", "{used}"),
            ("x-ratelimit-resource", "core"),
        ],
        refusal: &[],
        body: r#"{"message":"API rate limit exceeded for user ID 1.","documentation_url":"https://docs.github.com/rest/overview/rate-limits-for-the-rest-api"}"#,
    },
    Dialect {
        name: "github-secondary",
        status: 403,
        always: &[
            ("x-ratelimit-limit", "{limit}"),
            ("x-ratelimit-remaining", "{limit}"),
            ("x-ratelimit-reset", "{epoch_s}"),
            ("x-ratelimit-resource", "core"),
        ],
        refusal: &[RETRY],
        body: r#"{"message":"You have exceeded a secondary rate limit. Please wait a few minutes before you try again.","documentation_url":"https://docs.github.com/rest/overview/rate-limits-for-the-rest-api#about-secondary-rate-limits"}"#,
    },
    Dialect {
        name: "openai",
        status: 429,
        always: &[
            ("x-ratelimit-limit-requests", "{limit}"),
            ("x-ratelimit-limit-tokens", "2000000"),
            ("x-ratelimit-remaining-requests", "{remaining}"),
            ("x-ratelimit-remaining-tokens", "1999000"),
            ("x-ratelimit-reset-requests", "{duration}"),
            ("x-ratelimit-reset-tokens", "30ms"),
        ],
        refusal: &[RETRY, ("retry-after-ms", "{retry_ms}")],
        body: r#"{"error":{"message":"Rate limit reached for gpt-4o-mini on requests per min (RPM).","type":"requests","param":null,"code":"rate_limit_exceeded"}}"#,
    },
    Dialect {
        name: "openai-quota",
        status: 429,
        always: &[],
        refusal: &[],
        body: r#"{"error":{"message":"You exceeded your current quota, please check your plan and billing details.","type":"insufficient_quota","param":null,"code":"insufficient_quota"}}"#,
    },
    Dialect {
        name: "groq",
        status: 429,
        always: &[
            ("x-ratelimit-limit-requests", "{limit}"),
            ("x-ratelimit-limit-tokens", "18000"),
            ("x-ratelimit-remaining-requests", "{remaining}"),
            ("x-ratelimit-remaining-tokens", "17997"),
            ("x-ratelimit-reset-requests", "{duration}"),
            ("x-ratelimit-reset-tokens", "7.66s"),
        ],
        refusal: &[RETRY],
        body: r#"{"error":{"message":"Rate limit reached for model on requests per minute.","type":"requests","code":"rate_limit_exceeded"}}"#,
    },
    Dialect {
        name: "azure-openai",
        status: 429,
        always: &[
            ("x-ratelimit-limit-requests", "-1"),
            ("x-ratelimit-remaining-requests", "-1"),
            ("x-ratelimit-limit-tokens", "0"),
            ("x-ratelimit-remaining-tokens", "0"),
        ],
        refusal: &[RETRY, ("retry-after-ms", "{retry_ms}")],
        body: r#"{"error":{"code":"429","message":"Requests to the ChatCompletions_Create Operation have exceeded call rate limit of your current pricing tier."}}"#,
    },
    Dialect {
        name: "anthropic",
        status: 429,
        always: &[
            ("anthropic-ratelimit-requests-limit", "{limit}"),
            ("anthropic-ratelimit-requests-remaining", "{remaining}"),
            ("anthropic-ratelimit-requests-reset", "{rfc3339}"),
            ("anthropic-ratelimit-tokens-limit", "480000"),
            ("anthropic-ratelimit-tokens-remaining", "479000"),
            ("anthropic-ratelimit-tokens-reset", "{rfc3339}"),
            ("anthropic-ratelimit-input-tokens-limit", "400000"),
            ("anthropic-ratelimit-input-tokens-remaining", "399000"),
            ("anthropic-ratelimit-input-tokens-reset", "{rfc3339}"),
            ("anthropic-ratelimit-output-tokens-limit", "80000"),
            ("anthropic-ratelimit-output-tokens-remaining", "80000"),
            ("anthropic-ratelimit-output-tokens-reset", "{rfc3339}"),
        ],
        refusal: &[RETRY],
        body: r#"{"type":"error","error":{"type":"rate_limit_error","message":"This request would exceed your organization's rate limit of requests per minute."}}"#,
    },
    Dialect {
        name: "anthropic-unified",
        status: 429,
        always: &[
            ("anthropic-ratelimit-unified-status", "rejected"),
            ("anthropic-ratelimit-unified-reset", "{epoch_s}"),
        ],
        refusal: &[RETRY],
        body: r#"{"type":"error","error":{"type":"rate_limit_error","message":"This request would exceed your account's rate limit."}}"#,
    },
    Dialect {
        name: "salesforce",
        status: 403,
        always: &[("sforce-limit-info", "api-usage={used}/{limit}; per-app-api-usage=17/250(appName=sim)")],
        refusal: &[],
        body: r#"[{"message":"TotalRequests Limit exceeded.","errorCode":"REQUEST_LIMIT_EXCEEDED"}]"#,
    },
    Dialect {
        name: "shopify",
        status: 429,
        always: &[("x-shopify-shop-api-call-limit", "{used}/{limit}")],
        refusal: &[("retry-after", "2.0")],
        body: r#"{"errors":"Exceeded 2 calls per second for api client. Reduce request rates to resume uninterrupted service."}"#,
    },
    Dialect {
        name: "hubspot",
        status: 429,
        always: &[
            ("x-hubspot-ratelimit-max", "{limit}"),
            ("x-hubspot-ratelimit-remaining", "{remaining}"),
            ("x-hubspot-ratelimit-interval-milliseconds", "10000"),
            ("x-hubspot-ratelimit-daily", "500000"),
            ("x-hubspot-ratelimit-daily-remaining", "499800"),
        ],
        refusal: &[],
        body: r#"{"status":"error","message":"You have reached your ten_secondly_rolling limit.","errorType":"RATE_LIMIT","correlationId":"00000000-0000-4000-8000-000000000000","policyName":"TEN_SECONDLY_ROLLING","groupName":"publicapi:private-app"}"#,
    },
    Dialect {
        name: "hubspot-oauth",
        status: 429,
        always: &[
            ("x-hubspot-ratelimit-max", "{limit}"),
            ("x-hubspot-ratelimit-remaining", "{remaining}"),
            ("x-hubspot-ratelimit-interval-milliseconds", "10000"),
        ],
        refusal: &[],
        body: r#"{"status":"error","message":"You have reached your daily limit.","errorType":"RATE_LIMIT","policyName":"DAILY"}"#,
    },
    Dialect {
        name: "zendesk",
        status: 429,
        always: &[
            ("x-rate-limit", "{limit}"),
            ("x-rate-limit-remaining", "{remaining}"),
            ("ratelimit-limit", "{limit}"),
            ("ratelimit-remaining", "{remaining}"),
            ("ratelimit-reset", "{retry}"),
            ("zendesk-ratelimit-tickets-index", "total={limit}; remaining={remaining}; resets={retry}"),
        ],
        refusal: &[RETRY],
        body: r#"{"error":"APIRateLimitExceeded","description":"Number of allowed API requests per minute exceeded"}"#,
    },
    Dialect {
        name: "linear",
        status: 400,
        always: &[
            ("x-ratelimit-requests-limit", "{limit}"),
            ("x-ratelimit-requests-remaining", "{remaining}"),
            ("x-ratelimit-requests-reset", "{epoch_ms}"),
            ("x-complexity", "12"),
            ("x-ratelimit-complexity-limit", "250000"),
            ("x-ratelimit-complexity-remaining", "249988"),
            ("x-ratelimit-complexity-reset", "{epoch_ms}"),
        ],
        refusal: &[],
        body: r#"{"errors":[{"message":"Rate limit exceeded. Only {limit} requests are allowed per 1 hour.","extensions":{"type":"ratelimited","code":"RATELIMITED","statusCode":429}}]}"#,
    },
    Dialect {
        name: "slack",
        status: 429,
        always: &[],
        refusal: &[RETRY],
        body: r#"{"ok":false,"error":"ratelimited"}"#,
    },
    Dialect {
        name: "notion",
        status: 429,
        always: &[],
        refusal: &[RETRY],
        body: r#"{"object":"error","status":429,"code":"rate_limited","message":"You have been rate limited. Please try again in a few minutes."}"#,
    },
    Dialect {
        name: "discord",
        status: 429,
        always: &[
            ("x-ratelimit-bucket", "abcd1234"),
            ("x-ratelimit-limit", "{limit}"),
            ("x-ratelimit-remaining", "{remaining}"),
            ("x-ratelimit-reset", "{epoch_s}.250"),
            ("x-ratelimit-reset-after", "{delta_s}"),
        ],
        refusal: &[RETRY, ("x-ratelimit-scope", "user")],
        body: r#"{"message":"You are being rate limited.","retry_after":{delta_s},"global":false}"#,
    },
    Dialect {
        name: "discord-global",
        status: 429,
        always: &[],
        refusal: &[RETRY, ("x-ratelimit-global", "true"), ("x-ratelimit-scope", "global")],
        body: r#"{"message":"You are being rate limited.","retry_after":{delta_s},"global":true}"#,
    },
    Dialect {
        name: "brevo",
        status: 429,
        always: &[
            ("x-sib-ratelimit-limit", "{limit}"),
            ("x-sib-ratelimit-remaining", "{remaining}"),
            ("x-sib-ratelimit-reset", "{retry}"),
        ],
        refusal: &[],
        body: r#"{"code":"too_many_requests","message":"Rate limit exceeded"}"#,
    },
    Dialect {
        name: "exact-online",
        status: 429,
        always: &[
            ("x-ratelimit-limit", "5000"),
            ("x-ratelimit-remaining", "4900"),
            ("x-ratelimit-reset", "{epoch_ms}"),
            ("x-ratelimit-minutely-limit", "{limit}"),
            ("x-ratelimit-minutely-remaining", "{remaining}"),
            ("x-ratelimit-minutely-reset", "{epoch_ms}"),
        ],
        refusal: &[],
        body: PLAIN,
    },
    Dialect {
        name: "stripe",
        status: 429,
        always: &[],
        refusal: &[("stripe-rate-limited-reason", "global-rate")],
        body: r#"{"error":{"message":"Request rate limit exceeded. Learn more about rate limits here https://stripe.com/docs/rate-limits.","type":"invalid_request_error","code":"rate_limit"}}"#,
    },
    Dialect {
        name: "twilio",
        status: 429,
        always: &[],
        refusal: &[RETRY],
        body: r#"{"code":20429,"message":"Too Many Requests","more_info":"https://www.twilio.com/docs/errors/20429","status":429}"#,
    },
    Dialect {
        name: "okta",
        status: 429,
        always: &[
            ("x-rate-limit-limit", "{limit}"),
            ("x-rate-limit-remaining", "{remaining}"),
            ("x-rate-limit-reset", "{epoch_s}"),
        ],
        refusal: &[],
        body: r#"{"errorCode":"E0000047","errorSummary":"API call exceeded rate limit due to too many requests.","errorLink":"E0000047","errorId":"sim","errorCauses":[]}"#,
    },
    Dialect {
        name: "x",
        status: 429,
        always: &[
            ("x-rate-limit-limit", "{limit}"),
            ("x-rate-limit-remaining", "{remaining}"),
            ("x-rate-limit-reset", "{epoch_s}"),
        ],
        refusal: &[],
        body: r#"{"title":"Too Many Requests","detail":"Too Many Requests","type":"about:blank","status":429}"#,
    },
    Dialect {
        name: "atlassian",
        status: 429,
        always: &[
            ("x-ratelimit-limit", "{limit}"),
            ("x-ratelimit-remaining", "{remaining}"),
            ("x-ratelimit-reset", "{rfc3339}"),
        ],
        refusal: &[RETRY, ("ratelimit-reason", "jira-burst-based")],
        body: r#"{"errorMessages":["Rate limit exceeded."],"errors":{}}"#,
    },
    Dialect {
        name: "google",
        status: 429,
        always: &[],
        refusal: &[],
        body: r#"{"error":{"code":429,"message":"Resource has been exhausted (e.g. check quota).","status":"RESOURCE_EXHAUSTED","details":[{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"{delta_s}s"}]}}"#,
    },
    Dialect {
        name: "aws",
        status: 400,
        always: &[],
        refusal: &[("x-amzn-errortype", "ThrottlingException")],
        body: r#"{"__type":"ThrottlingException","message":"Rate exceeded"}"#,
    },
    Dialect {
        name: "azure-arm",
        status: 429,
        always: &[("x-ms-ratelimit-remaining-subscription-reads", "{remaining}")],
        refusal: &[RETRY],
        body: r#"{"error":{"code":"TooManyRequests","message":"The request is being throttled as the limit has been reached."}}"#,
    },
    Dialect { name: "retry-after", status: 429, always: &[], refusal: &[RETRY], body: PLAIN },
    Dialect {
        name: "retry-after-date",
        status: 429,
        always: &[],
        refusal: &[("retry-after", "{http_date}")],
        body: PLAIN,
    },
    Dialect {
        name: "retry-after-ms",
        status: 429,
        always: &[],
        refusal: &[("retry-after-ms", "{retry_ms}")],
        body: PLAIN,
    },
    Dialect { name: "silent", status: 429, always: &[], refusal: &[], body: PLAIN },
];

/// The numbers behind a dialect. A text replaces the computed value as it stands, so that negative,
/// absurd and non-numbers can be sent.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Numbers {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) limit: Option<Word>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) remaining: Option<Word>,
    /// Stands for every form of the reset and of `Retry-After`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reset: Option<Word>,
    /// Milliseconds until the reset; 1,000 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reset_after_ms: Option<u64>,
    /// Seconds of the window; 60 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) window_s: Option<u64>,
}

/// A number, or any text in its place.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Word {
    Number(i64),
    Text(String),
}

impl Word {
    fn text(&self) -> Cow<'_, str> {
        match self {
            Self::Number(n) => Cow::Owned(n.to_string()),
            Self::Text(t) => Cow::Borrowed(t),
        }
    }

    fn number(&self) -> Option<i64> {
        match self {
            Self::Number(n) => Some(*n),
            Self::Text(_) => None,
        }
    }
}

impl Dialect {
    pub(crate) fn named(name: &str) -> Option<&'static Self> {
        DIALECTS.iter().find(|d| d.name == name)
    }

    /// Adds the headers that every answer of this vendor carries.
    pub(crate) fn annotate(&self, answer: &mut Answer, numbers: &Numbers) {
        write(self.always, answer, numbers);
    }

    /// Turns the answer into this vendor's refusal.
    pub(crate) fn refuse(&self, answer: &mut Answer, numbers: &Numbers) {
        answer.status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::TOO_MANY_REQUESTS);
        answer.headers.clear();
        answer.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        write(self.always, answer, numbers);
        write(self.refusal, answer, numbers);
        answer.body = Content::Whole(fill(self.body, numbers).into());
        answer.sized = true;
    }
}

fn write(rows: &'static [(&'static str, &'static str)], answer: &mut Answer, numbers: &Numbers) {
    for (name, template) in rows {
        if let Ok(value) = HeaderValue::from_str(&fill(template, numbers)) {
            answer.headers.insert(HeaderName::from_static(name), value);
        }
    }
}

fn fill(template: &str, numbers: &Numbers) -> String {
    let mut text = String::with_capacity(template.len() + 16);
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        text.push_str(before);
        // JSON bodies are full of braces that name nothing: these stay.
        match after.split_once('}').and_then(|(word, rest)| Some((value(word, numbers)?, rest))) {
            Some((value, after)) => {
                text.push_str(&value);
                rest = after;
            }
            None => {
                text.push('{');
                rest = after;
            }
        }
    }
    text.push_str(rest);
    text
}

fn value<'a>(word: &str, numbers: &'a Numbers) -> Option<Cow<'a, str>> {
    let limit = || numbers.limit.as_ref().and_then(Word::number).unwrap_or(100);
    let remaining = || numbers.remaining.as_ref().and_then(Word::number).unwrap_or(0);
    let after = Duration::from_millis(numbers.reset_after_ms.unwrap_or(1_000));
    let whole_seconds = after.as_millis().div_ceil(1_000);
    let reset_at = || clock::now() + after;
    let computed = match word {
        "limit" => numbers.limit.as_ref().map_or_else(|| "100".into(), Word::text),
        "remaining" => numbers.remaining.as_ref().map_or_else(|| "0".into(), Word::text),
        "used" => match &numbers.remaining {
            Some(Word::Text(text)) => text.into(),
            _ => limit().saturating_sub(remaining()).to_string().into(),
        },
        "window" => numbers.window_s.unwrap_or(60).to_string().into(),
        "retry" | "retry_ms" | "epoch_s" | "epoch_ms" | "delta_s" | "delta_ms" | "duration" | "rfc3339"
        | "http_date"
            if numbers.reset.is_some() =>
        {
            numbers.reset.as_ref().map_or(Cow::Borrowed(""), Word::text)
        }
        "retry" => whole_seconds.to_string().into(),
        "retry_ms" | "delta_ms" => after.as_millis().to_string().into(),
        "epoch_s" => reset_at().as_millis().div_ceil(1_000).to_string().into(),
        "epoch_ms" => reset_at().as_millis().to_string().into(),
        "delta_s" => format!("{:.3}", after.as_secs_f64()).into(),
        "duration" => clock::go_duration(after).into(),
        "rfc3339" => clock::rfc3339(reset_at() + Duration::from_millis(999)).into(),
        "http_date" => clock::http_date(reset_at() + Duration::from_millis(999)).into(),
        _ => return None,
    };
    Some(computed)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_dialect_refuses_with_headers_and_a_json_body() {
        for dialect in DIALECTS {
            let mut answer = Answer::text(StatusCode::OK, "ignored");
            dialect.refuse(&mut answer, &Numbers::default());
            assert_eq!(answer.status.as_u16(), dialect.status, "{}", dialect.name);
            let Content::Whole(body) = &answer.body else { panic!("{}", dialect.name) };
            serde_json::from_slice::<serde_json::Value>(body).unwrap();
            for (name, _) in dialect.always.iter().chain(dialect.refusal) {
                let value = answer.headers[*name].to_str().unwrap();
                assert!(!value.contains('{') && !value.is_empty(), "{}: {name}: {value}", dialect.name);
            }
        }
    }

    #[test]
    fn numbers_may_be_nonsense() {
        let numbers = Numbers {
            limit: Some(Word::Number(-5)),
            remaining: Some(Word::Text("NaN".into())),
            reset: Some(Word::Text("1e400".into())),
            ..Numbers::default()
        };
        let mut answer = Answer::text(StatusCode::OK, "");
        Dialect::named("github").unwrap().refuse(&mut answer, &numbers);
        assert_eq!(answer.headers["x-ratelimit-limit"], "-5");
        assert_eq!(answer.headers["x-ratelimit-remaining"], "NaN");
        assert_eq!(answer.headers["x-ratelimit-reset"], "1e400");
    }
}
