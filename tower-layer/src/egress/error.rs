use farcall::{ErrorType, Refusal};
use std::error::Error;
use std::fmt;

type BoxError = Box<dyn Error + Send + Sync>;

/// Why a call came to nothing, or its response broke off.
#[derive(Debug)]
#[non_exhaustive]
pub enum EgressError {
    /// A rule said that it is not to be made; nothing was sent.
    Refused(Refusal),
    /// A rule's deadline passed before an answer came; the attempt was dropped.
    TimedOut,
    /// A fault that a rule of `[[fault]]` injected: nothing was sent, or the response's body is cut short.
    Injected(ErrorType),
    /// The service below failed, or its response's body. [`downcast_ref`](EgressError::downcast_ref) finds its own error.
    Service(BoxError),
}

impl EgressError {
    /// The error of the service below, where it is a `T`.
    #[must_use]
    pub fn downcast_ref<T: Error + 'static>(&self) -> Option<&T> {
        match self {
            Self::Service(error) => error.downcast_ref(),
            _ => None,
        }
    }

    /// Why the call was refused, where it was.
    #[must_use]
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused(refusal) => Some(refusal),
            _ => None,
        }
    }
}

impl fmt::Display for EgressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(refusal) => refusal.fmt(f),
            Self::TimedOut => f.write_str("farcall gave up the call at its rule's deadline"),
            Self::Injected(error) => write!(f, "farcall injected a fault: {}", error.as_str()),
            Self::Service(error) => error.fmt(f),
        }
    }
}

impl Error for EgressError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Refused(refusal) => Some(refusal),
            Self::TimedOut | Self::Injected(_) => None,
            Self::Service(error) => Some(error.as_ref()),
        }
    }
}
