//! An alarm as an event of OpenTelemetry: a log record with a name (Logs Data Model, "EventName").

use super::message::{CRITICAL, Message, TEST};
use crate::export::otlp::{Attributes, Resource, nanos, scope};
use serde_json::{Value, json};

const NAME: &str = "farcall.alarm";
/// Severity numbers of the Logs Data Model.
const INFO: (u8, &str) = (9, "INFO");
const WARN: (u8, &str) = (13, "WARN");
const ERROR: (u8, &str) = (17, "ERROR");

/// The request to a collector that tells this alarm.
pub(super) fn of(message: &Message, resource: &Resource, observed_ms: u64) -> Value {
    let fields = &message.farcall;
    let (number, severity) = match fields.alarm {
        TEST => INFO,
        CRITICAL => ERROR,
        _ => WARN,
    };
    let attributes = Attributes::default()
        .text("farcall.alarm.kind", fields.alarm)
        .text("farcall.rule", &fields.rule)
        .text("farcall.vendor", &fields.vendor)
        .text("farcall.endpoint", &fields.endpoint)
        .text("farcall.customer", fields.customer.as_deref().unwrap_or_default())
        .text("farcall.alarm.failure", &fields.failure)
        .text("farcall.call.id", &fields.call)
        .truth("farcall.alarm.delivery", fields.delivery)
        .number("farcall.alarm.held_back", fields.held_back);
    let at = |millis: u64| nanos(millis.saturating_mul(1_000_000));
    json!({
        "resourceLogs": [{
            "resource": resource.to_json(),
            "scopeLogs": [{
                "scope": scope(),
                "logRecords": [{
                    "timeUnixNano": at(fields.at_ms),
                    "observedTimeUnixNano": at(observed_ms),
                    "severityNumber": number,
                    "severityText": severity,
                    "eventName": NAME,
                    "body": { "stringValue": message.text },
                    "attributes": attributes.into_json(),
                }],
            }],
        }],
    })
}
