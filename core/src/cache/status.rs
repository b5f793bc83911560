//! What the cache did about a call, in the words of `Cache-Status` (RFC 9211).

use std::fmt;

/// One member of `Cache-Status`: `farcall; hit; ttl=28`, `farcall; fwd=stale; fwd-status=304`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Why the call was sent on; `None` where it was not (RFC 9211, sections 2.1 and 2.2).
    pub forwarded: Option<Forwarded>,
    /// Whether there was no answer at all: the call was not sent on, and nothing was kept. Neither `hit` nor `fwd`.
    pub nothing: bool,
    /// What the vendor answered, where that is not what the application gets (section 2.3).
    pub forwarded_status: Option<u16>,
    /// Seconds for which the answer stays fresh; negative where it is stale (section 2.4).
    pub ttl: Option<i64>,
    /// Whether the answer was kept (section 2.5).
    pub stored: bool,
    /// Whether the call waited for an equal one, and took its answer (section 2.6).
    pub collapsed: bool,
    /// More, in a word (section 2.8).
    pub detail: Option<&'static str>,
}

/// Why a call was sent on (RFC 9211, section 2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forwarded {
    /// It was not to be looked up.
    Bypass,
    /// Its method is not one whose answers are kept.
    Method,
    /// Nothing is kept for this URI and whoever asks.
    UriMiss,
    /// Something is, but not for these headers (`Vary`).
    VaryMiss,
    /// What is kept is fresh, and the request wants another.
    Request,
    /// What is kept is stale.
    Stale,
}

impl Forwarded {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Bypass => "bypass",
            Self::Method => "method",
            Self::UriMiss => "uri-miss",
            Self::VaryMiss => "vary-miss",
            Self::Request => "request",
            Self::Stale => "stale",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("farcall")?;
        match self.forwarded {
            None if self.nothing => {}
            None => f.write_str("; hit")?,
            Some(why) => write!(f, "; fwd={}", why.as_str())?,
        }
        if let Some(status) = self.forwarded_status {
            write!(f, "; fwd-status={status}")?;
        }
        if let Some(ttl) = self.ttl {
            write!(f, "; ttl={ttl}")?;
        }
        if self.stored {
            f.write_str("; stored")?;
        }
        if self.collapsed {
            f.write_str("; collapsed")?;
        }
        match self.detail {
            Some(detail) => write!(f, "; detail={detail}"),
            None => Ok(()),
        }
    }
}
