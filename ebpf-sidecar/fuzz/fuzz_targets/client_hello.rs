//! Any beginning of a TLS stream: no panic, and once the message is read, later bytes do not matter.
#![no_main]

use farcall_sidecar::wire::client_hello::{Hello, parse};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|stream: &[u8]| {
    let whole = parse(stream);
    if let Hello::Read(hello) = &whole {
        if let Some(name) = &hello.server_name {
            assert!(name.len() <= 253 && !name.contains(|c: char| c.is_control()));
        }
        let longer = [stream, b"\x17\x03\x03\x00\x01x"].concat();
        assert_eq!(parse(&longer), whole);
    }
    // A prefix never reads a different message.
    for end in [stream.len() / 2, stream.len().saturating_sub(1)] {
        if let Hello::Read(early) = parse(&stream[..end]) {
            assert_eq!(whole, Hello::Read(early));
        }
    }
});
