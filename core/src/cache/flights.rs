//! One call asks, and those that are equal wait for its answer.
//!
//! A waiting call asks again and again whether the answer is there; nobody has to wake it. So it hangs on nothing:
//! where the one that asks fails, is cancelled or forgotten, the next one that looks takes its place.

use super::Key;
use crate::units::Timestamp;
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Independent parts of the table, so that calls seldom wait for each other.
const PARTS: usize = 16;
/// Keys of one part; beyond these every call asks for itself.
const MAX_KEYS: usize = 4_096;
/// After this time a call that asks is taken for lost, and another one asks.
const LOST: Duration = Duration::from_secs(60);
/// For so long after an answer that cannot be shared, calls do not wait for each other.
const ALONE: Duration = Duration::from_secs(5);

/// The calls under way whose answers others wait for.
#[derive(Debug)]
pub(crate) struct Flights {
    parts: [Mutex<HashMap<Key, Flight, FixedState>>; PARTS],
}

#[derive(Clone, Copy, Debug)]
struct Flight {
    /// The call that asks; `None`: nobody is to wait.
    leader: Option<u64>,
    until: Timestamp,
}

/// What a call is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Ask, and tell in the end.
    Lead,
    /// Ask for itself.
    Alone,
    /// Look again a little later.
    Wait,
}

/// How the call that asked came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Landing {
    /// The answer is kept, or another call is to ask: whoever looks next will see.
    Over,
    /// The answer is of no use to others: each asks for itself.
    Unshared,
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
            Some(flight) if now < flight.until => {
                return match flight.leader {
                    None => Place::Alone,
                    Some(leader) if leader == call => Place::Lead,
                    Some(_) => Place::Wait,
                };
            }
            None if part.len() >= MAX_KEYS => {
                part.retain(|_, flight| now < flight.until);
                if part.len() >= MAX_KEYS {
                    return Place::Alone;
                }
            }
            _ => {}
        }
        part.insert(key, Flight { leader: Some(call), until: now.plus(LOST) });
        Place::Lead
    }

    /// The call that leads has come to an end. Does nothing where another has taken its place.
    pub(crate) fn land(&self, key: Key, call: u64, landing: Landing, now: Timestamp) {
        let mut part = self.part(key);
        let leads = |flight: &Flight| flight.leader == Some(call);
        match landing {
            Landing::Over if part.get(&key).is_some_and(leads) => {
                part.remove(&key);
            }
            Landing::Unshared => {
                if let Some(flight) = part.get_mut(&key).filter(|flight| leads(flight)) {
                    *flight = Flight { leader: None, until: now.plus(ALONE) };
                }
            }
            Landing::Over => {}
        }
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
