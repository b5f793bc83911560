//! A request's body, as often as it can be sent.

use super::RequestBody;
use super::replay::{Reader, Replay};
use crate::watched::Sent;
use http_body::Body;

/// What the request's body is good for.
pub(super) enum Sendable<B> {
    /// Nobody has read it. Most calls that a rule answers need no more of it.
    Unread {
        body: B,
        /// How many bytes it has at most, where it says so.
        most: Option<u64>,
        /// Whether it is to be kept.
        again: bool,
    },
    /// As often as it takes.
    Again(Replay<B>),
    Gone,
}

impl<B: Body> Sendable<B> {
    /// It from its start, where that can be had more than once.
    pub(super) fn reader(&mut self) -> Option<Reader<B>> {
        if let Self::Unread { again: true, .. } = self
            && let Self::Unread { body, .. } = std::mem::replace(self, Self::Gone)
        {
            *self = Self::Again(Replay::new(body));
        }
        match self {
            Self::Again(replay) => Some(replay.reader()),
            Self::Unread { .. } | Self::Gone => None,
        }
    }

    /// It with another model in its JSON; `None` where it names none, or nobody read it.
    pub(super) fn with_model(&self, model: &str) -> Option<(Reader<B>, usize)> {
        let Self::Again(replay) = self else { return None };
        let changed = farcall::cost::replace_model(&replay.content()?, model)?;
        let length = changed.len();
        Some((replay.with(changed.into()), length))
    }

    /// It for one more attempt; `None` where it is gone.
    pub(super) fn next(&mut self, sent: Sent) -> Option<RequestBody<B>> {
        if let Some(reader) = self.reader() {
            return Some(RequestBody::kept(reader, sent));
        }
        match std::mem::replace(self, Self::Gone) {
            Self::Unread { body, .. } => Some(RequestBody::counted(body, sent)),
            Self::Again(_) | Self::Gone => None,
        }
    }
}
