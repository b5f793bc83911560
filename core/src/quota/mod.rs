//! What vendors allow us: their rate limits, as they state them and as we keep to them.

pub mod dialect;

pub use dialect::{Answer, Dialect, PolicyIndex, Reading, Refusal, Statement, Unit};
