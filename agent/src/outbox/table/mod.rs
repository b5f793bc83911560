//! What is asked of the tables.
//!
//! Of the pending calls of one order key all but one are `blocked`: whoever settles or drops a call unblocks the
//! oldest that is left, in the same transaction. So a delivery finds what is due without looking at the rest.

mod deliver;
mod operate;
mod put;
mod read;
mod standing;

pub(super) use deliver::{due, has_pending, next_due, request, settle, tidy, unblock_behind};
pub(super) use operate::{counts, get, lines_of_callbacks, list, newest_sealed, remove, retry, sealed};
pub(super) use put::{MOST_TOGETHER, add, add_together, together};
pub(super) use read::{bytes, maybe_number, maybe_text, number, text};
pub(super) use standing::standings;

use super::clock::Ahead;
use super::queue;
use crate::report::time::rfc3339;
use read::unsigned;
use serde::{Serialize, Serializer};

/// Where a call stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum State {
    /// It will be delivered.
    Pending,
    /// The vendor took it.
    Delivered,
    /// It was given up: a dead letter.
    Dead,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Pending, Self::Delivered, Self::Dead];

    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Delivered => "delivered",
            Self::Dead => "dead",
        }
    }

    pub(super) const fn number(self) -> i64 {
        match self {
            Self::Pending => 0,
            Self::Delivered => 1,
            Self::Dead => 2,
        }
    }

    pub(super) const fn of(number: i64) -> Self {
        match number {
            0 => Self::Pending,
            1 => Self::Delivered,
            _ => Self::Dead,
        }
    }
}

/// A call in the outbox, without what it carries. Moments are nanoseconds since the Unix epoch; in JSON, RFC 3339.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Item {
    /// Its number in this outbox; later calls have higher ones.
    pub id: i64,
    /// The service whose processes deliver it.
    pub service: String,
    /// The callback that has its credential, where one has: processes that know it deliver the call.
    pub credential: Option<String>,
    /// Where it stands.
    pub state: State,
    /// The request method.
    pub method: String,
    /// The vendor's name.
    pub vendor: String,
    /// Method and URL template, where the catalogue knows it; else empty.
    pub endpoint: String,
    /// The host.
    pub host: String,
    /// On whose behalf it is made, where somebody said so.
    pub customer: Option<String>,
    /// What orders it among others, where somebody said so.
    pub order_key: Option<String>,
    /// Whether an earlier call of its key has to be delivered first.
    pub blocked: bool,
    /// Its idempotency key.
    pub idempotency_key: String,
    /// How often delivery was tried.
    pub attempts: u32,
    /// When it was put.
    #[serde(serialize_with = "moment")]
    pub put_at: i64,
    /// When delivery is tried next, where it is pending.
    #[serde(serialize_with = "moment")]
    pub next_at: i64,
    /// When it becomes a dead letter.
    #[serde(serialize_with = "moment")]
    pub expires_at: i64,
    /// When it was delivered or given up.
    #[serde(serialize_with = "maybe_moment")]
    pub settled_at: Option<i64>,
    /// The status of the last answer.
    pub status: Option<u16>,
    /// Why the last attempt came to nothing.
    pub error: Option<String>,
    /// How many bytes its body has.
    pub bytes: u64,
    #[serde(skip)]
    pub(super) max_attempts: Option<u32>,
}

impl Item {
    /// The queue that it is in.
    pub(super) fn queue(&self) -> String {
        queue::name(&self.service, self.credential.as_deref())
    }

    /// Has the moments that follow the clock shown by another one.
    pub(super) fn show(&mut self, by: &dyn Fn(i64) -> i64) {
        for moment in [&mut self.put_at, &mut self.next_at, &mut self.expires_at] {
            *moment = by(*moment);
        }
        self.settled_at = self.settled_at.map(by);
    }
}

pub(super) fn moment<S: Serializer>(nanos: &i64, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&rfc3339(unsigned(*nanos)))
}

fn maybe_moment<S: Serializer>(nanos: &Option<i64>, to: S) -> Result<S::Ok, S::Error> {
    match nanos {
        Some(nanos) => moment(nanos, to),
        None => to.serialize_none(),
    }
}

const COLUMNS: &str = "id, queue, state, method, vendor, endpoint, host, customer, order_key, blocked, \
    idempotency_key, attempts, put_at, next_at, expires_at, settled_at, status, error, bytes, max_attempts";

/// A call to be added.
pub(super) struct New {
    /// By which its moments are.
    pub(super) clock: Ahead,
    pub(super) queue: String,
    pub(super) order_key: Option<String>,
    pub(super) put_at: i64,
    pub(super) next_at: i64,
    pub(super) expires_at: i64,
    pub(super) max_attempts: Option<u32>,
    pub(super) method: String,
    pub(super) vendor: String,
    pub(super) endpoint: String,
    pub(super) host: String,
    pub(super) customer: Option<String>,
    pub(super) idempotency_key: String,
    pub(super) bytes: usize,
    pub(super) request: Vec<u8>,
}

/// How an attempt came out.
pub(super) enum Settlement {
    Delivered {
        status: u16,
        response: Vec<u8>,
    },
    /// To be tried again at a moment; `counts` where it was an attempt at all, here and below.
    Later {
        at: i64,
        /// When that was said.
        now: i64,
        counts: bool,
        status: Option<u16>,
        error: String,
    },
    Dead {
        counts: bool,
        status: Option<u16>,
        error: String,
    },
}

/// Which calls to list.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Filter {
    /// Only those that stand so.
    pub state: Option<State>,
    /// Only those of this service.
    pub service: Option<String>,
    /// Only those to this vendor.
    pub vendor: Option<String>,
    /// At most so many; 0 for all.
    pub limit: usize,
}

/// The pending calls of a queue.
pub(super) struct Line {
    pub(super) queue: String,
    pub(super) calls: u64,
    /// When the first of those is due that may be delivered.
    pub(super) due: Option<i64>,
    /// When the oldest was put.
    pub(super) oldest: i64,
}

/// A call and what is sealed of it: its request, and its response where there is one.
pub(super) type Whole = (Item, Vec<u8>, Option<Vec<u8>>);

/// The outbox in numbers, for one service and state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Count {
    /// The service.
    pub service: String,
    /// Where these calls stand.
    pub state: State,
    /// How many there are.
    pub calls: u64,
    /// How many bytes their bodies have.
    pub bytes: u64,
    /// When the oldest was put, in nanoseconds since the Unix epoch.
    #[serde(serialize_with = "moment")]
    pub oldest: i64,
}

impl Count {
    /// Adds those of a queue, whose name stands for the service, to the others of its service.
    pub(super) fn add_to(mut self, counts: &mut Vec<Self>) {
        let (service, credential) = queue::parts(&self.service);
        // A service alone comes once for each state.
        if credential.is_some() {
            self.service = service.to_owned();
            self.merge_into(counts);
        } else {
            counts.push(self);
        }
    }

    pub(super) fn merge_into(self, counts: &mut Vec<Self>) {
        let same = |known: &&mut Self| (&known.service, known.state) == (&self.service, self.state);
        match counts.iter_mut().find(same) {
            Some(known) => {
                known.calls += self.calls;
                known.bytes += self.bytes;
                known.oldest = known.oldest.min(self.oldest);
            }
            None => counts.push(self),
        }
    }
}

#[cfg(test)]
mod tests;
