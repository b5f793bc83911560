//! One URL: what a cache would have had of it at each lifetime.

use super::TTLS;

/// What came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Got {
    /// An answer that can be kept.
    Answer(u64),
    /// The vendor says that it is the one that the application has.
    Same,
    /// An answer that cannot, such as an error of the application's.
    Other,
    /// None that says anything: the vendor failed, or did not want to be asked.
    Nothing,
}

/// What a cache would have done about a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Replayed {
    /// Asked.
    Miss,
    /// Answered; `stale`: with something that had changed by then.
    Hit { stale: bool },
}

#[derive(Clone, Copy, Debug, Default)]
struct Kept {
    /// When its answer came, in nanoseconds since the epoch.
    since: u64,
    /// 0 where there is none.
    digest: u64,
}

/// All that is remembered of a URL.
#[derive(Clone, Copy, Debug)]
pub(super) struct Url {
    pub(super) key: u64,
    /// Stands for the request alone, whatever the answer varies by.
    pub(super) url: u64,
    /// When it was asked for last.
    pub(super) last: u64,
    /// Stands for the headers that it was asked for with, beside those that an answer varies by.
    others: u64,
    latest: u64,
    kept: [Kept; TTLS.len()],
}

impl Url {
    pub(super) fn new(key: u64, url: u64) -> Self {
        Self { key, url, last: 0, others: 0, latest: 0, kept: [Kept::default(); TTLS.len()] }
    }

    /// It is asked for with other headers: what is remembered is no answer to that.
    pub(super) fn with(&mut self, others: u64) -> &mut Self {
        if self.others != others {
            *self = Self { others, last: self.last, ..Self::new(self.key, self.url) };
        }
        self
    }

    /// A call that began at `begun` got an answer at `answered`. One that overlaps with another is a hit: the cache has
    /// one of the two wait for the other.
    pub(super) fn replay(&mut self, begun: u64, answered: u64, got: Got) -> [Replayed; TTLS.len()] {
        self.last = self.last.max(answered);
        let mut replayed = [Replayed::Miss; TTLS.len()];
        for ((kept, ttl), replayed) in self.kept.iter_mut().zip(TTLS).zip(&mut replayed) {
            let age = u128::from(begun.saturating_sub(kept.since));
            if kept.digest != 0 && age < ttl.as_nanos() {
                let stale = match got {
                    Got::Answer(digest) => digest != kept.digest,
                    Got::Same => self.latest != kept.digest,
                    Got::Other => true,
                    Got::Nothing => false,
                };
                *replayed = Replayed::Hit { stale };
                continue;
            }
            match got {
                Got::Answer(digest) => *kept = Kept { since: answered, digest },
                Got::Same if self.latest != 0 => *kept = Kept { since: answered, digest: self.latest },
                _ => {}
            }
        }
        if let Got::Answer(digest) = got {
            self.latest = digest;
        }
        replayed
    }
}
