//! Any sequence of ring buffer records through the whole observer: no panic.
#![no_main]

use farcall_sidecar::tap::Observer;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|records: Vec<Vec<u8>>| {
    let mut observer = Observer::default();
    for record in &records {
        observer.record(record);
    }
    observer.expire(u64::MAX);
    observer.finish(u64::MAX);
    let _ = observer.observations();
});
