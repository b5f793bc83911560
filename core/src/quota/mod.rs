//! Quotas: what a vendor allows us, what we allow ourselves, and how to keep within it.
//!
//! One [`State`] holds one quota: of one vendor and credential, under one policy name. It answers
//! [`State::before`] each attempt whether it may go now, later or not at all, and takes from [`State::state`] and
//! [`State::limited`] what the vendor said about it. Its parts:
//!
//! * a [`Cell`]: 128 bytes of atomics, which the processes of a host may share;
//! * a fair share by customer, where the rule asks for one, which costs nothing while the quota is not scarce;
//! * an account of who used the present window, from which a 429 makes an [`Incident`];
//! * where a fleet shares the quota, a [`Lease`], which says what to ask of the shared store, and works without.

mod cell;
pub mod dialect;
mod fair;
mod incident;
mod lease;
mod rule;
mod standing;
mod state;
mod stated;
mod tick;

pub use crate::call::Priority;
pub use cell::{Ask, Cell, Claim, Standing};
pub use dialect::{Answer, Dialect, PolicyIndex, Refusal, Statement};
pub use fair::{Shares, TRACKED};
pub use incident::{
    Answers, Incident, Kind, Mix, NamedIncident, NamedMix, NamedShare, Names, Share, Tally, User, explain,
};
pub use lease::{Grant, Lease, Wanted};
pub(crate) use rule::Rate;
pub use rule::{Limit, OnError, Pace, Reserve, Rule, Shared, Unit, Weight};
pub use standing::{Configured, NamedStanding};
pub use state::{CellHome, SharesHome, State};
pub use stated::{Reading, Stated};

use crate::units::Timestamp;

/// Whether a call may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// Now.
    Pass,
    /// At a moment within its deadline and the rule's `max_wait`; ask again then, with the same claim. Most
    /// waits are booked slots: asked again at that moment, the call passes.
    Wait {
        /// The moment.
        until: Timestamp,
        /// What it waits for.
        why: Why,
    },
    /// Not within the time that it has.
    Refuse {
        /// When it would pass, as far as can be known now; when to look again, where [`Why::can_be_foreseen`] says that
        /// nobody can tell.
        until: Timestamp,
        /// What it would wait for.
        why: Why,
    },
}

/// Why a call waits or is refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Why {
    /// The limit that the rule states.
    #[default]
    OwnLimit,
    /// Nothing is left of the vendor's window.
    Exhausted,
    /// A 429 said to stay away for a while.
    RateLimited,
    /// What is left is kept for calls of higher priority.
    Reserved,
    /// What is left is spread until the reset.
    Paced,
    /// A limit that was learned from 429s.
    Learned,
    /// The customer has had its share.
    FairShare,
    /// As many calls as allowed are under way.
    Concurrency,
    /// What the fleet granted to this host is used, and more is under way.
    Lease,
    /// What others share of the quota cannot be had, and the rule says that nothing goes without it.
    Unshared,
}

impl Why {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::OwnLimit,
        Self::Exhausted,
        Self::RateLimited,
        Self::Reserved,
        Self::Paced,
        Self::Learned,
        Self::FairShare,
        Self::Concurrency,
        Self::Lease,
        Self::Unshared,
    ];

    /// Whether anybody can tell when it is over: when a place comes free, or what is shared can be had again, nobody can.
    #[must_use]
    pub const fn can_be_foreseen(self) -> bool {
        !matches!(self, Self::Concurrency | Self::Unshared)
    }

    /// The word for it, as in the ledger.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OwnLimit => "own_limit",
            Self::Exhausted => "exhausted",
            Self::RateLimited => "rate_limited",
            Self::Reserved => "reserved",
            Self::Paced => "paced",
            Self::Learned => "learned",
            Self::FairShare => "fair_share",
            Self::Concurrency => "concurrency",
            Self::Lease => "lease",
            Self::Unshared => "unshared",
        }
    }

    /// The same for people, after `because`.
    #[must_use]
    pub const fn in_words(self) -> &'static str {
        match self {
            Self::OwnLimit => "the limit that the rule states is used up",
            Self::Exhausted => "nothing is left of the vendor's quota",
            Self::RateLimited => "the vendor said that calls come too fast, and to stay away for a while",
            Self::Reserved => "what is left is kept for calls of higher priority",
            Self::Paced => "what is left is spread until the reset",
            Self::Learned => "it would be faster than what 429s of a vendor that states no limit taught",
            Self::FairShare => "its customer has had its fair share of the quota",
            Self::Concurrency => "as many calls as allowed were under way",
            Self::Lease => "what the fleet granted to this host was used up",
            Self::Unshared => "what others share of the quota could not be had, and nothing goes without it",
        }
    }
}

/// What a vendor's refusal means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Limited {
    /// Too fast: come back in a moment.
    #[default]
    Rate,
    /// Used up: come back after the reset, which may be days away.
    Exhausted,
}
