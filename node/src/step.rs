//! What the engine says is to be done next, as JavaScript is told.

use farcall::{Attempt, Refusal, Stored, Timestamp};
use napi::bindgen_prelude::Buffer;
use napi_derive::napi;

/// What to do next: `kind`, and of the rest what belongs to it. Times are milliseconds from now.
#[napi(object, object_from_js = false)]
#[derive(Default)]
pub struct NextStep {
    /// `send`, `wait`, `refuse`, `respond`, `fail`, `park` or `settled`.
    pub kind: &'static str,
    /// How long to wait; for `send`, when to give up.
    pub ms: Option<f64>,
    /// For `send`, headers to set; for `respond`, the response's. Names and values in turn.
    pub headers: Option<Vec<String>>,
    /// Where to send it instead.
    pub host: Option<String>,
    /// Put before the path.
    pub path_prefix: Option<String>,
    /// What the body's field `model` becomes.
    pub model: Option<String>,
    /// After how many bytes the response breaks off.
    pub truncate: Option<f64>,
    /// Which attempt it is.
    pub number: Option<u32>,
    /// Whether the headers ask whether what the cache has is still good.
    pub conditional: Option<bool>,
    /// When to ask for a second attempt beside it.
    pub hedge_ms: Option<f64>,
    /// Whether to ask for a copy to send beside it.
    pub shadow: Option<bool>,
    /// The concept that refused.
    pub by: Option<&'static str>,
    /// The rule that refused.
    pub rule: Option<String>,
    /// What its owner says.
    pub reason: Option<String>,
    /// All of it in words.
    pub message: Option<String>,
    /// When the same call would pass, in milliseconds since 1970.
    pub until: Option<f64>,
    /// The response's status.
    pub status: Option<u32>,
    /// The response's body.
    pub body: Option<Buffer>,
    /// The number of the error's type.
    pub error: Option<u32>,
}

/// An attempt is to be sent, so.
pub(crate) fn send(attempt: &Attempt, now: Timestamp) -> NextStep {
    let mut headers = Vec::new();
    if let Some((name, value)) = attempt.idempotency_header() {
        headers.extend([name.to_owned(), value]);
    }
    for (name, value) in &attempt.condition {
        headers.extend([(*name).to_owned(), value.clone()]);
    }
    let changes = attempt.changes.as_deref();
    for (name, value) in changes.into_iter().flat_map(|changes| &changes.headers) {
        headers.extend([name.clone(), value.clone()]);
    }
    NextStep {
        kind: "send",
        ms: attempt.give_up_at.map(|at| ms(now, at)),
        headers: (!headers.is_empty()).then_some(headers),
        host: changes.and_then(|changes| changes.host.clone()),
        path_prefix: changes.and_then(|changes| changes.path_prefix.clone()),
        model: attempt.model.as_deref().map(str::to_owned),
        truncate: attempt.truncate.map(float),
        number: Some(attempt.number),
        conditional: (!attempt.condition.is_empty()).then_some(true),
        hedge_ms: attempt.hedge_at.map(|at| ms(now, at)),
        shadow: attempt.shadow.then_some(true),
        ..NextStep::default()
    }
}

/// Nothing is to be sent.
pub(crate) fn refuse(refusal: &Refusal) -> NextStep {
    NextStep {
        kind: "refuse",
        by: Some(refusal.by.as_str()),
        rule: Some(refusal.rule.to_string()),
        reason: Some(refusal.reason.to_string()),
        message: Some(refusal.to_string()),
        until: refusal.until.map(|until| float(until.as_nanos() / 1_000_000)),
        ..NextStep::default()
    }
}

/// The application is to get this.
pub(crate) fn respond(stored: &Stored) -> NextStep {
    NextStep {
        kind: "respond",
        status: Some(stored.status.into()),
        headers: Some(stored.pairs().into_iter().flat_map(|(name, value)| [name, value]).collect()),
        body: Some(stored.body.to_vec().into()),
        ..NextStep::default()
    }
}

/// Rounded up, so that a wait is not over before its time.
pub(crate) fn ms(now: Timestamp, until: Timestamp) -> f64 {
    float(until.since(now).as_micros().try_into().unwrap_or(u64::MAX)) / 1_000.0
}

#[expect(clippy::cast_precision_loss, reason = "a count, exact up to 2^53")]
pub(crate) fn float(count: u64) -> f64 {
    count as f64
}
