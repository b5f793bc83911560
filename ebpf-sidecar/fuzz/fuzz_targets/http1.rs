//! Both directions of a conversation in any pieces and with any gaps: no panic, bounded work, and the account adds up.
#![no_main]

use arbitrary::Arbitrary;
use farcall_sidecar::wire::{
    exchange::{Chunk, End},
    http1::Conversation,
    record::Direction,
};
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
enum Event<'a> {
    Bytes { out: bool, bytes: &'a [u8], boundary: bool },
    Gap { out: bool, missing: u32 },
    Close,
}

fuzz_target!(|events: Vec<Event<'_>>| {
    let mut conversation = Conversation::default();
    let (mut sent, mut received, mut heads) = (0u64, 0u64, 0usize);
    let (mut exchanges, mut out, mut inn) = (0usize, 0u64, 0u64);
    for (at, event) in events.iter().enumerate() {
        let at = at as u64;
        match *event {
            Event::Bytes { out, bytes, boundary } => {
                let direction = if out { Direction::Out } else { Direction::In };
                *(if out { &mut sent } else { &mut received }) += bytes.len() as u64;
                // Each request takes one line at least.
                heads += if out { bytes.iter().filter(|byte| **byte == b'\n').count() } else { 0 };
                conversation.feed(direction, Chunk { bytes, begun: at, at, boundary });
            }
            Event::Gap { out, missing } => {
                let direction = if out { Direction::Out } else { Direction::In };
                *(if out { &mut sent } else { &mut received }) += u64::from(missing);
                conversation.skip(direction, u64::from(missing), at);
            }
            Event::Close => {
                let by = [End::Unknown, End::Vendor, End::Broken, End::Program][at as usize % 4];
                conversation.close(at, by);
            }
        }
        for exchange in conversation.exchanges() {
            exchanges += 1;
            out += exchange.body_out;
            inn += exchange.body_in;
            assert!(exchange.begun <= exchange.ended);
            assert!(exchange.path.len() <= 64 * 1024 && exchange.host.len() <= 255);
            assert!(!exchange.host.contains(|c: char| c.is_control()));
        }
    }
    assert!(exchanges <= heads, "more exchanges than requests");
    assert!(out <= sent && inn <= received, "more content than bytes");
});
