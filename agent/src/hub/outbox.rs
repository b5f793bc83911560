//! What was not sent to the sidecar yet.

use farcall::Timestamp;
use farcall::ledger::Sighting;
use std::collections::VecDeque;
use std::io::{ErrorKind, Result, Write};

/// Some 30,000 sightings.
const MAX_BYTES: usize = 1 << 20;
/// Sightings in one frame; more go into several.
const MAX_FRAME: usize = 8_192;

/// Frames on their way, whole: what does not fit is left out, never cut.
#[derive(Debug)]
pub(super) struct Outbox {
    bytes: VecDeque<u8>,
}

impl Outbox {
    pub(super) const fn new() -> Self {
        Self { bytes: VecDeque::new() }
    }

    pub(super) fn hello(&mut self, anchor: u64, since: Timestamp, sightings_from: Timestamp) {
        self.bytes.extend(b"FARCALL1");
        for number in [anchor, since.as_nanos(), sightings_from.as_nanos()] {
            self.bytes.extend(number.to_le_bytes());
        }
    }

    /// Adds a frame, or several; how many sightings did not fit.
    pub(super) fn frame(&mut self, sightings: &[Sighting]) -> usize {
        if sightings.is_empty() {
            // The heartbeat; behind frames that still wait it would say nothing new.
            if self.bytes.is_empty() {
                self.bytes.extend(0_u32.to_le_bytes());
            }
            return 0;
        }
        let mut left_out = 0;
        for part in sightings.chunks(MAX_FRAME) {
            if self.bytes.len() + 4 + part.len() * Sighting::SIZE > MAX_BYTES {
                left_out += part.len();
                continue;
            }
            self.bytes.extend(u32::try_from(part.len()).unwrap_or(0).to_le_bytes());
            part.iter().for_each(|sighting| self.bytes.extend(sighting.to_bytes()));
        }
        left_out
    }

    /// Sends as much as goes without waiting.
    pub(super) fn send(&mut self, to: &mut impl Write) -> Result<()> {
        while !self.bytes.is_empty() {
            let (front, _) = self.bytes.as_slices();
            match to.write(front) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(sent) => {
                    self.bytes.drain(..sent);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        if self.bytes.is_empty() {
            self.bytes.shrink_to(64 * 1024);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes `room` bytes and no more.
    struct Slow {
        taken: Vec<u8>,
        room: usize,
    }

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> Result<usize> {
            let count = bytes.len().min(self.room);
            if count == 0 {
                return Err(ErrorKind::WouldBlock.into());
            }
            self.room -= count;
            self.taken.extend(&bytes[..count]);
            Ok(count)
        }

        fn flush(&mut self) -> Result<()> {
            Ok(())
        }
    }

    fn sighting() -> Sighting {
        Sighting::from_bytes(&[7; Sighting::SIZE])
    }

    #[test]
    fn what_a_slow_reader_does_not_take_is_left_out_whole() {
        let mut outbox = Outbox::new();
        let mut slow = Slow { taken: Vec::new(), room: 10 };
        outbox.hello(1, Timestamp::from_nanos(2), Timestamp::from_nanos(3));
        outbox.send(&mut slow).unwrap();
        assert_eq!(slow.taken.len(), 10);
        let mut left_out = 0;
        for _ in 0..6 {
            left_out += outbox.frame(&vec![sighting(); MAX_FRAME]);
        }
        let fit = MAX_BYTES / (4 + MAX_FRAME * Sighting::SIZE);
        assert!((1..6).contains(&fit));
        assert_eq!(left_out, (6 - fit) * MAX_FRAME);
        assert!(outbox.bytes.len() <= MAX_BYTES);

        slow.room = usize::MAX;
        outbox.send(&mut slow).unwrap();
        assert_eq!(slow.taken.len(), 32 + fit * (4 + MAX_FRAME * Sighting::SIZE));
        assert_eq!(&slow.taken[..8], b"FARCALL1");
        assert_eq!(slow.taken[32..36], u32::try_from(MAX_FRAME).unwrap().to_le_bytes());
    }

    #[test]
    fn silence_is_a_heartbeat() {
        let mut outbox = Outbox::new();
        let mut all = Slow { taken: Vec::new(), room: usize::MAX };
        assert_eq!(outbox.frame(&[]), 0);
        outbox.send(&mut all).unwrap();
        assert_eq!(all.taken, [0; 4]);
    }
}
