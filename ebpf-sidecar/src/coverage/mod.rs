//! How much of a connection was understood. Every connection ends with one verdict, and `opaque` carries its reason.

use std::fmt;

use serde::Serialize;

/// The verdict on a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "verdict")]
pub enum Completeness {
    /// Every exchange on it was seen from its first to its last byte, or it carried no payload.
    Complete,
    /// Exchanges are known up to this byte of one direction, not beyond.
    Truncated {
        /// Offset in the stream.
        at: u64,
    },
    /// This many records did not reach us; exchanges around them are unknown.
    Lost {
        /// How many.
        events: u64,
    },
    /// Only the connection is known, not the calls on it.
    Opaque {
        /// Why, for people.
        reason: String,
    },
}

impl fmt::Display for Completeness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Complete => f.write_str("complete"),
            Self::Truncated { at } => write!(f, "truncated at {at}"),
            Self::Lost { events } => write!(f, "lost {events} events"),
            Self::Opaque { reason } => write!(f, "opaque because {reason}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_reads_as_a_sentence() {
        let verdict = Completeness::Opaque { reason: "Go crypto/tls is not tapped yet".into() };
        assert_eq!(verdict.to_string(), "opaque because Go crypto/tls is not tapped yet");
        assert_eq!(Completeness::Lost { events: 3 }.to_string(), "lost 3 events");
    }
}
