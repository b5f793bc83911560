//! What an alarm says.

use super::MissingCopy;
use crate::say::plain;
use farcall::outbox::Failed;
use serde::Serialize;
use std::time::{SystemTime, UNIX_EPOCH};

/// Kinds of alarms.
pub(super) const CRITICAL: &str = "critical";
pub(super) const MISSING_COPIES: &str = "copies";
pub(super) const TEST: &str = "test";

/// The rule of alarms about missing copies: the section that asks for them, as no rule is called.
const COPIES: &str = "[outbox_store]";

/// One alarm, as webhook, command, log and collector get it. Never a secret: no URL, header or body of the call is in it.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Message {
    /// All of it in words, on one line; the field that chats show.
    pub(super) text: String,
    pub(super) farcall: Fields,
    /// All of `text` but how many were held back.
    #[serde(skip)]
    said: String,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct Fields {
    /// `critical`, `copies`, or `test`.
    pub(super) alarm: &'static str,
    pub(super) rule: String,
    pub(super) service: String,
    pub(super) pid: u32,
    pub(super) vendor: String,
    pub(super) endpoint: String,
    pub(super) customer: Option<String>,
    pub(super) failure: String,
    /// The call, for `farcall explain call`; empty where none was made.
    pub(super) call: String,
    /// Whether the outbox goes on trying.
    pub(super) delivery: bool,
    /// Failures of this rule since its last alarm, of which none was sent.
    pub(super) held_back: u64,
    /// Milliseconds since the Unix epoch.
    pub(super) at_ms: u64,
}

impl Message {
    fn new(said: String, farcall: Fields) -> Self {
        let said = plain(&said).into_owned();
        Self { text: said.clone(), farcall, said }
    }

    /// The same, with so many failures since the last alarm.
    pub(super) fn after(mut self, held_back: u64) -> Self {
        self.farcall.held_back = held_back;
        self.text = match held_back {
            0 => self.said.clone(),
            count => format!("{}; {count} more since the last alarm", self.said),
        };
        self
    }

    pub(super) fn of(failed: &Failed<'_>, service: &str, pid: u32) -> Self {
        let Failed { rule, vendor, endpoint, customer, failure, call, delivery, at, .. } = failed;
        let whose = customer.map_or(String::new(), |customer| format!(" for {customer}"));
        let what = if *delivery { "a delivery from the outbox" } else { "a call" };
        let text = format!(
            "farcall: critical `{rule}`: {what} of {service}{whose}, {endpoint} of {vendor}, {failure}"
        );
        let farcall = Fields {
            alarm: CRITICAL,
            rule: rule.to_string(),
            service: service.to_owned(),
            pid,
            vendor: (*vendor).to_owned(),
            endpoint: (*endpoint).to_owned(),
            customer: customer.map(str::to_owned),
            failure: (*failure).to_owned(),
            call: if *call == 0 { String::new() } else { format!("{call:016x}") },
            delivery: *delivery,
            held_back: 0,
            at_ms: at.as_nanos() / 1_000_000,
        };
        Self::new(text, farcall)
    }

    /// A call that was taken into too few copies of the outbox.
    pub(super) fn of_copies(missing: &MissingCopy<'_>, service: &str, pid: u32) -> Self {
        let MissingCopy { vendor, endpoint, customer, has, needed, why } = missing;
        let copies = if *has == 1 { "copy" } else { "copies" };
        let failure = format!("it is in {has} {copies} instead of {needed}: {why}");
        let whose = customer.map_or(String::new(), |customer| format!(" for {customer}"));
        let text = format!("farcall: the outbox of {service} took a call to {vendor}{whose}, but {failure}");
        let farcall = Fields {
            alarm: MISSING_COPIES,
            rule: COPIES.to_owned(),
            service: service.to_owned(),
            pid,
            vendor: (*vendor).to_owned(),
            endpoint: (*endpoint).to_owned(),
            customer: customer.map(str::to_owned),
            failure,
            call: String::new(),
            delivery: false,
            held_back: 0,
            at_ms: now_ms(),
        };
        Self::new(text, farcall)
    }

    /// The alarm of `farcall alarm test`.
    pub(super) fn test(service: &str) -> Self {
        let farcall = Fields {
            alarm: TEST,
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
            at_ms: now_ms(),
        };
        let text = "farcall: a test of the alarm; nothing failed".to_owned();
        Self::new(text, farcall)
    }

    pub(super) fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

pub(super) fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}
