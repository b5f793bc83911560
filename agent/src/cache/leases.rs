//! What the processes of a host know together about their cache: who asks the vendor for what, what was changed when,
//! and how much lies on the disk. A file of words that all of them map.
//!
//! Every transition is one compare-exchange or one store, so a process may die or be stopped at any instruction and
//! leave it valid. Who asks holds a lease, and says again each second that it does. It goes to the next one as soon as
//! somebody who waits sees that its process is gone or was stopped. Where that cannot be seen, because the process is in
//! another namespace, it does when the lease was not renewed for a while; in any case, when it was not for long: a
//! machine may be so busy that a process that is well comes to nothing for seconds.

use crate::share::memory::Words;
use farcall::Timestamp;
use farcall::cache::{Key, Landing, Place};
use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

const MAGIC: u64 = u64::from_le_bytes(*b"farcallc");
/// Of the layout below and of what a word means; to be raised with any change of it.
const VERSION: u64 = 1;

/// Calls that are asked for at the same time; keys that share a place do not wait for each other.
const LEASES: usize = 16_384;
/// Moments of changes: URIs that share one lose an answer now and then.
const CHANGES: usize = 8_192;
/// The parts that the disk is divided in, of each of which the bytes are counted.
pub(super) const PARTS: usize = 256;

const CHANGES_AT: usize = LEASES;
const SIZES_AT: usize = CHANGES_AT + CHANGES;
const CURSOR_AT: usize = SIZES_AT + PARTS;
const WORDS: usize = CURSOR_AT + 1;

/// A lease lasts so long, in seconds, without being renewed.
const LASTS: u64 = 60;
/// By so much may who looks be behind who renewed it: the moment of a call is read before, and on a busy machine it may be
/// seconds until the call comes to look. Beyond that, it is from a clock that was ahead.
const BEHIND: u64 = 60;
/// That of a process of which nothing is seen.
const UNSEEN: u64 = 10;
/// For so many seconds after an answer that cannot be shared, processes do not wait for each other.
const ALONE: u64 = 5;
/// How often at most a process looks whether another one is still there, in nanoseconds; whoever waits looks again as
/// often.
const LOOK: u64 = 10_000_000;
/// Processes of which is remembered what was seen. There are seldom more that hold leases; where there are, it is looked
/// more often.
const MOST_SEEN: usize = 256;

/// The file, and the leases that this process holds.
#[derive(Debug)]
pub(super) struct Leases {
    words: Words,
    /// Who this process is, in a word.
    me: u64,
    /// Namespace of the numbers of processes.
    space: u64,
    held: Mutex<HashMap<usize, Held>>,
    /// Whether the processes that others wait for were there, and when that was looked at, by their numbers: one look
    /// does for all that wait for the same one, whatever they wait for.
    seen: Mutex<HashMap<u64, (u64, bool)>>,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    word: u64,
    /// The call is over; what it left is still being written.
    lands: bool,
}

/// `[tag: 16][until, in seconds: 16][namespace: 10][process: 22]`; 0 where nobody asks. Without a process, nobody is to
/// wait until then.
#[derive(Clone, Copy)]
struct Lease(u64);

impl Lease {
    const PROCESS: u64 = (1 << 22) - 1;
    const OWNER: u64 = (1 << 32) - 1;

    fn new(key: Key, until: u64, owner: u64) -> Self {
        let tag = (key.number() >> 64) as u64 & 0xFFFF;
        Self(tag << 48 | (until & 0xFFFF) << 32 | owner)
    }

    fn is_of(self, key: Key) -> bool {
        self.0 >> 48 == (key.number() >> 64) as u64 & 0xFFFF
    }

    const fn owner(self) -> u64 {
        self.0 & Self::OWNER
    }

    const fn process(self) -> u64 {
        self.0 & Self::PROCESS
    }

    /// Whether it holds yet; one from a clock that was ahead does not.
    const fn holds(self, now: u64) -> bool {
        self.0 != 0 && self.left(now) != 0 && self.left(now) <= LASTS + BEHIND
    }

    /// For how many seconds yet.
    const fn left(self, now: u64) -> u64 {
        ((self.0 >> 32) as u16).wrapping_sub(now as u16) as u64
    }
}

impl Leases {
    /// Those of a home directory. `anew` is called where there were none, or those of before the machine's last start.
    pub(super) fn open(home: &Path, file: &Path, anew: impl FnOnce() -> io::Result<()>) -> io::Result<Self> {
        let words = Words::open(home, file, (MAGIC, VERSION), WORDS, anew)?;
        let space = fs::read_link("/proc/self/ns/pid").unwrap_or_default();
        let space = space
            .as_os_str()
            .as_encoded_bytes()
            .iter()
            .fold(7_u64, |hash, byte| hash.wrapping_mul(0x0100_0000_01B3) ^ u64::from(*byte));
        let space = (space >> 20) & 0x3FF;
        let process = u64::from(std::process::id()) & Lease::PROCESS;
        Ok(Self { words, me: space << 22 | process, space, held: Mutex::default(), seen: Mutex::default() })
    }

    /// Whether this process is to ask for what is kept under a key.
    pub(super) fn join(&self, key: Key, now: Timestamp) -> Place {
        let place = place_of(key);
        let word = self.words.word(place);
        let mut held = self.held();
        let seconds = now.as_secs();
        let seen = Lease(word.load(Ordering::Acquire));
        if seen.holds(seconds) {
            if let Some(ours) = held.get(&place).filter(|ours| ours.word == seen.0) {
                return match (seen.is_of(key), ours.lands) {
                    (true, false) => Place::Lead,
                    (true, true) => Place::Wait,
                    (false, _) => Place::Alone,
                };
            }
            if !seen.is_of(key) || seen.process() == 0 {
                return Place::Alone;
            }
            if !self.is_gone(seen, now) {
                return Place::Wait;
            }
        }
        let mine = Lease::new(key, seconds + LASTS, self.me).0;
        match word.compare_exchange(seen.0, mine, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => {
                held.insert(place, Held { word: mine, lands: false });
                Place::Lead
            }
            // Another process was first.
            Err(_) => Place::Wait,
        }
    }

    /// The call that this process held the lease for is over; whether it held one. It gives it up with
    /// [`release`](Leases::release).
    pub(super) fn land(&self, key: Key) -> bool {
        // Calls that were under way at a fork stay the parent's.
        if self.me & Lease::PROCESS != u64::from(std::process::id()) & Lease::PROCESS {
            return false;
        }
        self.held().get_mut(&place_of(key)).is_some_and(|ours| {
            ours.lands = true;
            true
        })
    }

    /// Others may ask, or have what is kept by now.
    pub(super) fn release(&self, key: Key, landing: Landing, now: Timestamp) {
        let place = place_of(key);
        let Some(ours) = self.held().remove(&place) else { return };
        let next = match landing {
            Landing::Unshared => Lease::new(key, now.as_secs() + ALONE, 0).0,
            Landing::Kept | Landing::Over => 0,
        };
        // Another's by now, where it ran out.
        let _ = self.words.word(place).compare_exchange(ours.word, next, Ordering::AcqRel, Ordering::Relaxed);
    }

    /// Says again that this process is there: to be called each second.
    pub(super) fn renew(&self, now: Timestamp) {
        self.held().retain(|place, ours| {
            let next = ours.word & !(0xFFFF << 32) | ((now.as_secs() + LASTS) & 0xFFFF) << 32;
            let word = self.words.word(*place);
            let renewed = word.compare_exchange(ours.word, next, Ordering::AcqRel, Ordering::Relaxed).is_ok();
            ours.word = next;
            renewed
        });
    }

    /// Gives up all leases.
    pub(super) fn release_all(&self) {
        for (place, ours) in self.held().drain() {
            let _ =
                self.words.word(place).compare_exchange(ours.word, 0, Ordering::AcqRel, Ordering::Relaxed);
        }
    }

    /// Whether the process that holds a lease has ended or was stopped, as far as can be seen from here.
    fn is_gone(&self, lease: Lease, now: Timestamp) -> bool {
        if lease.owner() >> 22 != self.space {
            return lease.left(now.as_secs()) + UNSEEN <= LASTS;
        }
        if lease.owner() == self.me {
            return false;
        }
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, gone)) = seen.get(&lease.process())
            && now.as_nanos().abs_diff(*at) < LOOK
        {
            return *gone;
        }
        if seen.len() >= MOST_SEEN {
            seen.clear();
        }
        let gone = has_gone(lease.process());
        seen.insert(lease.process(), (now.as_nanos(), gone));
        gone
    }

    /// Something was changed at a URI.
    pub(super) fn changed(&self, uri: u64, now: Timestamp) {
        self.change(uri).fetch_max(now.as_nanos(), Ordering::AcqRel);
    }

    /// When it last was.
    pub(super) fn last_change(&self, uri: u64) -> Timestamp {
        Timestamp::from_nanos(self.change(uri).load(Ordering::Acquire))
    }

    fn change(&self, uri: u64) -> &AtomicU64 {
        self.words.word(CHANGES_AT + (uri % CHANGES as u64) as usize)
    }

    /// Bytes that lie in a part of the disk, about.
    pub(super) fn size(&self, part: usize) -> &AtomicU64 {
        self.words.word(SIZES_AT + part % PARTS)
    }

    /// Bytes that lie in all of them.
    pub(super) fn total(&self) -> u64 {
        (0..PARTS).map(|part| self.size(part).load(Ordering::Relaxed)).fold(0, u64::saturating_add)
    }

    /// The part whose turn it is to be gone through.
    pub(super) fn next_part(&self) -> usize {
        (self.words.word(CURSOR_AT).fetch_add(1, Ordering::Relaxed) % PARTS as u64) as usize
    }

    fn held(&self) -> MutexGuard<'_, HashMap<usize, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn place_of(key: Key) -> usize {
    (key.number() % LEASES as u128) as usize
}

/// Whether a process of this namespace has ended or was stopped.
fn has_gone(process: u64) -> bool {
    match fs::read_to_string(format!("/proc/{process}/stat")) {
        Ok(stat) => state(&stat).is_some_and(|state| matches!(state, 'T' | 'Z' | 'X' | 'x')),
        // Where /proc is not for us to see, it may be there all the same.
        Err(error) => error.kind() == io::ErrorKind::NotFound && Path::new("/proc/self/stat").exists(),
    }
}

/// The state of a process (proc_pid_stat(5)): what follows its name, which may hold anything.
fn state(stat: &str) -> Option<char> {
    stat.rsplit_once(") ")?.1.chars().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: Key = Key::of(7 << 64 | 5);

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_nanos(seconds * 1_000_000_000)
    }

    /// As two processes of one host have it.
    fn two() -> (tempfile::TempDir, Leases, Leases) {
        let home = tempfile::tempdir().unwrap();
        let open = || Leases::open(home.path(), &home.path().join("map"), || Ok(())).unwrap();
        let (one, other) = (open(), open());
        (home, one, other)
    }

    #[test]
    fn one_process_leads_and_the_next_one_does_when_it_has_landed() {
        let (_home, one, other) = two();
        assert_eq!((one.join(KEY, at(100)), one.join(KEY, at(100))), (Place::Lead, Place::Lead));
        assert_eq!(other.join(KEY, at(101)), Place::Wait);
        assert!(one.land(KEY) && !other.land(KEY));
        assert_eq!(one.join(KEY, at(101)), Place::Wait, "what it left is still being written");
        other.release(KEY, Landing::Kept, at(101));
        assert_eq!(other.join(KEY, at(101)), Place::Wait, "only who holds it gives it up");
        one.release(KEY, Landing::Kept, at(101));
        assert_eq!((other.join(KEY, at(101)), one.join(KEY, at(101))), (Place::Lead, Place::Wait));
        other.release_all();
        assert_eq!(one.join(KEY, at(101)), Place::Lead);
    }

    #[test]
    fn a_lease_that_is_not_renewed_runs_out() {
        for begin in [100, 0xFFFF - 3, (1 << 16) * 7] {
            let (_home, one, other) = two();
            assert_eq!(one.join(KEY, at(begin)), Place::Lead);
            one.renew(at(begin + 9));
            assert_eq!(other.join(KEY, at(begin + 68)), Place::Wait);
            assert_eq!(other.join(KEY, at(begin + 69)), Place::Lead);
            one.renew(at(begin + 70));
            assert!(!one.land(KEY), "it is another's by now");
            one.release(KEY, Landing::Over, at(begin + 70));
            assert_eq!(one.join(KEY, at(begin + 70)), Place::Wait);
        }
    }

    #[test]
    fn a_call_that_was_held_up_on_its_way_here_takes_no_lease_that_is_held() {
        for begin in [1_000, 0xFFFF - 3, (1 << 16) * 7] {
            let (_home, one, other) = two();
            assert_eq!(one.join(KEY, at(begin)), Place::Lead);
            for late in [0, 1, 2, 30, BEHIND] {
                assert_eq!(other.join(KEY, at(begin - late)), Place::Wait, "it was asked for {late} s later");
            }
            one.renew(at(begin + 20));
            assert_eq!(other.join(KEY, at(begin)), Place::Wait, "it was renewed on the way");
            assert!(one.land(KEY), "it is its own yet");
        }
    }

    #[test]
    fn a_lease_from_a_clock_that_was_far_ahead_is_none() {
        let (_home, one, other) = two();
        assert_eq!(one.join(KEY, at(1_000)), Place::Lead);
        assert_eq!(other.join(KEY, at(1_000 - BEHIND - 1)), Place::Lead);
    }

    #[test]
    fn that_of_a_process_of_which_nothing_is_seen_runs_out_sooner() {
        let (_home, one, _) = two();
        let lease = Lease::new(KEY, 160, (one.space ^ 1) << 22 | 1);
        one.words.word(place_of(KEY)).store(lease.0, Ordering::Release);
        assert_eq!(one.join(KEY, at(109)), Place::Wait);
        assert_eq!(one.join(KEY, at(110)), Place::Lead);
    }

    #[test]
    fn what_cannot_be_shared_makes_nobody_wait_for_a_while_nor_do_keys_that_share_a_place() {
        let (_home, one, other) = two();
        let beside = Key::of(KEY.number() + (1 << 64));
        assert_eq!(one.join(KEY, at(100)), Place::Lead);
        assert_eq!((one.join(beside, at(100)), other.join(beside, at(100))), (Place::Alone, Place::Alone));
        one.release(KEY, Landing::Unshared, at(100));
        assert_eq!((one.join(KEY, at(104)), other.join(KEY, at(104))), (Place::Alone, Place::Alone));
        assert_eq!(other.join(KEY, at(105)), Place::Lead);
    }

    #[test]
    fn a_process_that_is_gone_or_stopped_has_no_lease() {
        let (_home, one, _) = two();
        let mut child = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        let pid = rustix::process::Pid::from_child(&child);
        let lease = Lease::new(KEY, 160, one.space << 22 | u64::from(child.id()));
        one.words.word(place_of(KEY)).store(lease.0, Ordering::Release);
        let state_of = || state(&fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap()).unwrap();
        assert_eq!(one.join(KEY, at(100)), Place::Wait);
        rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
        while state_of() != 'T' {
            std::thread::yield_now();
        }
        assert_eq!(one.join(KEY, at(101)), Place::Lead, "it was stopped");
        one.words.word(place_of(KEY)).store(lease.0, Ordering::Release);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(one.join(KEY, at(102)), Place::Lead, "it has ended");
    }

    #[test]
    fn all_that_a_process_left_behind_is_free_as_soon_as_it_is_seen_to_be_gone() {
        let (_home, one, other) = two();
        let mut child = std::process::Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        let keys: Vec<Key> = (0..100).map(Key::of).collect();
        for key in &keys {
            let lease = Lease::new(*key, 160, one.space << 22 | u64::from(child.id()));
            one.words.word(place_of(*key)).store(lease.0, Ordering::Release);
        }
        assert!(keys.iter().all(|key| one.join(*key, at(100)) == Place::Lead), "in one and the same moment");
        assert!(keys.iter().all(|key| other.join(*key, at(100)) == Place::Wait), "which is seen to be there");
    }

    #[test]
    fn changes_are_seen_by_all() {
        let (_home, one, other) = two();
        one.changed(9, at(100));
        one.changed(9, at(99));
        assert_eq!(other.last_change(9), at(100));
        assert_eq!(other.last_change(10), Timestamp::EPOCH);
    }
}
