//! One call asks, and those that are equal wait for its answer.
//!
//! A waiting call asks again and again whether the answer is there; it is woken for that where its adapter can be,
//! but nobody has to. So it hangs on nothing: where the one that asks fails, is cancelled or forgotten, the next one
//! that looks takes its place.

use super::Key;
use crate::units::Timestamp;
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

/// Independent parts of the table, so that calls seldom wait for each other.
const PARTS: usize = 16;
/// Keys of one part; beyond these every call asks for itself.
const MAX_KEYS: usize = 4_096;
/// After this time a call that asks is taken for lost, and another one asks.
const LOST: Duration = Duration::from_secs(60);
/// Calls of one key that are woken; those beyond look by themselves.
const MAX_WAKERS: usize = 65_536;
/// For so long after an answer that cannot be shared, calls do not wait for each other.
const ALONE: Duration = Duration::from_secs(5);

/// The calls under way whose answers others wait for.
#[derive(Debug)]
pub(crate) struct Flights {
    parts: [Mutex<HashMap<Key, Flight, FixedState>>; PARTS],
}

#[derive(Debug)]
struct Flight {
    /// The call that asks; `None`: nobody is to wait.
    leader: Option<u64>,
    until: Timestamp,
    /// Of those that wait.
    wakers: Vec<Waker>,
}

/// What a call is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Ask, and tell in the end.
    Lead,
    /// Ask for itself.
    Alone,
    /// Look again a little later.
    Wait,
}

/// How the call that asked came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Landing {
    /// The answer is kept: all can have it.
    Kept,
    /// It came to nothing: another call is to ask.
    Over,
    /// The answer is of no use to others: each asks for itself.
    Unshared,
}

impl Flight {
    /// Whether it has a leader yet, or nobody is to wait.
    fn stands(&self, now: Timestamp) -> bool {
        now < self.until
    }
}

impl Default for Flights {
    fn default() -> Self {
        Self { parts: std::array::from_fn(|_| Mutex::default()) }
    }
}

impl Flights {
    /// A call of this number wants the answer of `key`.
    pub(crate) fn join(&self, key: Key, call: u64, now: Timestamp) -> Place {
        let mut part = self.part(key);
        match part.get(&key) {
            Some(flight) if flight.stands(now) => {
                return match flight.leader {
                    None => Place::Alone,
                    Some(leader) if leader == call => Place::Lead,
                    Some(_) => Place::Wait,
                };
            }
            None if part.len() >= MAX_KEYS => {
                part.retain(|_, flight| flight.stands(now));
                if part.len() >= MAX_KEYS {
                    return Place::Alone;
                }
            }
            _ => {}
        }
        let flight = Flight { leader: Some(call), until: now.plus(LOST), wakers: Vec::new() };
        // Who waits for a leader that was lost waits for the next one.
        let wakers = part.remove(&key).map(|lost| lost.wakers).unwrap_or_default();
        part.insert(key, Flight { wakers, ..flight });
        Place::Lead
    }

    /// Has this woken when whoever leads has come to an end, or at once where nobody does; `false` where it is to look
    /// by itself.
    pub(crate) fn wake(&self, key: Key, waker: &Waker) -> bool {
        let mut part = self.part(key);
        match part.get_mut(&key).filter(|flight| flight.leader.is_some()) {
            Some(flight) if flight.wakers.len() < MAX_WAKERS => flight.wakers.push(waker.clone()),
            Some(_) => return false,
            None => {
                drop(part);
                waker.wake_by_ref();
            }
        }
        true
    }

    /// The call that leads has come to an end. Does nothing where another has taken its place.
    pub(crate) fn land(&self, key: Key, call: u64, landing: Landing, now: Timestamp) {
        let mut part = self.part(key);
        let Some(flight) = part.get_mut(&key).filter(|flight| flight.leader == Some(call)) else { return };
        let mut wakers = std::mem::take(&mut flight.wakers);
        match landing {
            Landing::Unshared => (flight.leader, flight.until) = (None, now.plus(ALONE)),
            Landing::Over if wakers.len() > 1 => {
                // One of them is to ask, and the others wait for that one: they need not be woken to see it.
                flight.wakers = wakers.split_off(1);
                flight.until = now;
            }
            Landing::Kept | Landing::Over => drop(part.remove(&key)),
        }
        drop(part);
        wakers.into_iter().for_each(Waker::wake);
    }

    fn part(&self, key: Key) -> MutexGuard<'_, HashMap<Key, Flight, FixedState>> {
        // The key is a hash already.
        let part = &self.parts[key.low() as usize % PARTS];
        part.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: Key = Key(7);

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_nanos(1_700_000_000_000_000_000).plus(Duration::from_secs(seconds))
    }

    #[test]
    fn one_leads_and_the_others_wait_until_it_is_over() {
        let flights = Flights::default();
        assert_eq!(flights.join(KEY, 1, at(0)), Place::Lead);
        assert_eq!(flights.join(KEY, 2, at(0)), Place::Wait);
        assert_eq!(flights.join(Key(8), 2, at(0)), Place::Lead, "another key is another flight");
        flights.land(KEY, 2, Landing::Over, at(1));
        assert_eq!(flights.join(KEY, 3, at(1)), Place::Wait, "only who leads can end it");
        flights.land(KEY, 1, Landing::Over, at(1));
        assert_eq!(flights.join(KEY, 3, at(1)), Place::Lead);
    }

    #[test]
    fn a_leader_that_is_never_heard_of_again_is_replaced() {
        let flights = Flights::default();
        assert_eq!(flights.join(KEY, 1, at(0)), Place::Lead);
        assert_eq!(flights.join(KEY, 2, at(59)), Place::Wait);
        assert_eq!(flights.join(KEY, 2, at(60)), Place::Lead);
        flights.land(KEY, 1, Landing::Over, at(61));
        assert_eq!(flights.join(KEY, 3, at(61)), Place::Wait, "the late one no longer leads");
    }

    #[test]
    fn an_answer_that_cannot_be_shared_makes_nobody_wait_for_the_next() {
        let flights = Flights::default();
        assert_eq!(flights.join(KEY, 1, at(0)), Place::Lead);
        flights.land(KEY, 1, Landing::Unshared, at(1));
        assert_eq!(flights.join(KEY, 2, at(2)), Place::Alone);
        assert_eq!(flights.join(KEY, 2, at(6)), Place::Lead);
    }

    #[test]
    fn a_full_table_makes_calls_ask_for_themselves() {
        let flights = Flights::default();
        let keys = (0..=MAX_KEYS as u128).map(|number| Key(number * PARTS as u128));
        let places: Vec<Place> = keys.map(|key| flights.join(key, 1, at(0))).collect();
        assert_eq!(places.iter().filter(|place| **place == Place::Lead).count(), MAX_KEYS);
        assert_eq!(places.last(), Some(&Place::Alone));
        assert_eq!(
            flights.join(Key(u128::from(u64::MAX) << 8), 1, at(61)),
            Place::Lead,
            "and room comes back"
        );
    }
}
