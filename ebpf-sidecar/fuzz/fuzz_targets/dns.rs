//! Any DNS message: no panic, bounded answers, and names that are safe to print.
#![no_main]

use farcall_sidecar::wire::dns::{MAX_ADDRESSES, parse_response};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|message: &[u8]| {
    if let Some(answer) = parse_response(message) {
        assert!(!answer.addresses.is_empty() && answer.addresses.len() <= MAX_ADDRESSES);
        assert!(answer.name.len() <= 253 && !answer.name.contains(|c: char| c.is_control()));
    }
});
