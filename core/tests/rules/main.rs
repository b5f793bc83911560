//! What rules make of calls, through the engine alone: time is a number, nothing is sent.
#![allow(clippy::unwrap_used)]

mod attempts;
mod budgets;
mod counted;
mod decisions;
mod failed_attempts;
mod faults;
mod quotas;
mod support;
