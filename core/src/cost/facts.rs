//! What prices want to know of a call, before and after it.

use super::prompt::BYTES_A_TOKEN;
use super::usage::{ServiceTier, Usage};
use crate::units::Timestamp;

/// What is known of a call before it is made.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct Ahead {
    /// The length of the request's body in bytes.
    pub bytes: u64,
    /// About how many tokens the prompt has, where somebody looked; else a token for every four bytes.
    pub prompt: Option<u64>,
    /// The most tokens that the request allows for the answer.
    pub max_output: Option<u64>,
    /// The tier that the request asks for.
    pub tier: ServiceTier,
    /// When.
    pub at: Timestamp,
    /// The month's volume so far, where a tier asks for it.
    pub volume: u64,
}

/// What is known of a call after it.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Facts<'a> {
    /// What it used.
    pub usage: &'a Usage,
    /// How the vendor answered.
    pub answer: Answer,
    /// Bytes of the request's body.
    pub sent: u64,
    /// Bytes of the response's body.
    pub received: u64,
    /// When it began.
    pub at: Timestamp,
    /// The month's volume before it, where a tier asks for it.
    pub volume: u64,
}

/// How a vendor answered a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Nothing was sent: refused, or no connection.
    NotSent,
    /// No answer came. The vendor may charge, and nobody can tell.
    None,
    /// A response with this status.
    Status(u16),
}

impl<'a> Facts<'a> {
    /// The facts of a call that was answered.
    #[must_use]
    pub const fn new(usage: &'a Usage, answer: Answer, at: Timestamp) -> Self {
        Self { usage, answer, sent: 0, received: 0, at, volume: 0 }
    }

    /// Sets the bytes of both bodies.
    #[must_use]
    pub const fn bytes(mut self, sent: u64, received: u64) -> Self {
        self.sent = sent;
        self.received = received;
        self
    }

    /// Sets the month's volume before the call.
    #[must_use]
    pub const fn volume(mut self, volume: u64) -> Self {
        self.volume = volume;
        self
    }
}

impl Ahead {
    /// What is known of a call with a request body of so many bytes.
    #[must_use]
    pub const fn new(bytes: u64, at: Timestamp) -> Self {
        Self { bytes, prompt: None, max_output: None, tier: ServiceTier::Standard, at, volume: 0 }
    }

    /// Sets about how many tokens the prompt has: [`prompt_tokens`](super::prompt_tokens).
    #[must_use]
    pub const fn prompt(mut self, tokens: u64) -> Self {
        self.prompt = Some(tokens);
        self
    }

    /// Sets the most tokens that the request allows for the answer, and the tier that it asks for.
    #[must_use]
    pub const fn asks(mut self, max_output: Option<u64>, tier: ServiceTier) -> Self {
        self.max_output = max_output;
        self.tier = tier;
        self
    }

    /// Sets the month's volume so far.
    #[must_use]
    pub const fn volume(mut self, volume: u64) -> Self {
        self.volume = volume;
        self
    }

    /// About how many tokens the prompt has, and how many the answer may have; `typical` where the request
    /// sets no limit.
    #[must_use]
    pub fn tokens(&self, typical: u64) -> (u64, u64) {
        (self.prompt.unwrap_or(self.bytes.div_ceil(BYTES_A_TOKEN)), self.max_output.unwrap_or(typical))
    }
}
