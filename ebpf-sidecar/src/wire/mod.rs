//! What travels: records from the kernel, and the protocols inside them.
//!
//! Everything in this module is deterministic, performs no I/O, holds a bounded amount of memory and accepts any
//! input without panicking. What cannot be understood is called unknown; nothing is guessed.

pub mod client_hello;
pub mod dns;
pub mod exchange;
pub mod http1;
pub mod http2;
pub mod record;
mod stated;
