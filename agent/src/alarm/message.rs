//! What an alarm says.

use farcall::outbox::Failed;
use serde::Serialize;
use std::time::{SystemTime, UNIX_EPOCH};

/// One alarm, as webhook, command and log get it. Never a secret: no URL, header or body of the call is in it.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Message {
    /// All of it in words; the field that chats show.
    pub(super) text: String,
    pub(super) farcall: Fields,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct Fields {
    /// `critical`, or `test`.
    pub(super) alarm: &'static str,
    pub(super) rule: String,
    pub(super) service: String,
    pub(super) pid: u32,
    pub(super) vendor: String,
    pub(super) endpoint: String,
    pub(super) customer: Option<String>,
    pub(super) failure: String,
    /// The call, for `farcall explain call`.
    pub(super) call: String,
    /// Whether the outbox goes on trying.
    pub(super) delivery: bool,
    /// Failures of this rule since its last alarm, of which none was sent.
    pub(super) held_back: u64,
    /// Milliseconds since the Unix epoch.
    pub(super) at_ms: u64,
}

impl Message {
    pub(super) fn of(failed: &Failed<'_>, service: &str, pid: u32, held_back: u64) -> Self {
        let Failed { rule, vendor, endpoint, customer, failure, call, delivery, at, .. } = failed;
        let whose = customer.map_or(String::new(), |customer| format!(" for {customer}"));
        let what = if *delivery { "a delivery from the outbox" } else { "a call" };
        let more = match held_back {
            0 => String::new(),
            count => format!("; {count} more since the last alarm"),
        };
        let text = format!(
            "farcall: critical `{rule}`: {what} of {service}{whose}, {endpoint} of {vendor}, {failure}{more}"
        );
        let farcall = Fields {
            alarm: "critical",
            rule: rule.to_string(),
            service: service.to_owned(),
            pid,
            vendor: (*vendor).to_owned(),
            endpoint: (*endpoint).to_owned(),
            customer: customer.map(str::to_owned),
            failure: (*failure).to_owned(),
            call: format!("{call:016x}"),
            delivery: *delivery,
            held_back,
            at_ms: at.as_nanos() / 1_000_000,
        };
        Self { text, farcall }
    }

    /// The alarm of `farcall alarm test`.
    pub(super) fn test(service: &str) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let farcall = Fields {
            alarm: "test",
            rule: "test".to_owned(),
            service: service.to_owned(),
            pid: std::process::id(),
            vendor: String::new(),
            endpoint: String::new(),
            customer: None,
            failure: "nothing failed".to_owned(),
            call: String::new(),
            delivery: false,
            held_back: 0,
            at_ms: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
        };
        let text = "farcall: a test of the alarm; nothing failed".to_owned();
        Self { text, farcall }
    }

    pub(super) fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}
