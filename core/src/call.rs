//! The words that describe a call: where it goes, on whose behalf, and how it came out.

mod changes;
mod headers;
mod refusal;
mod stored;
mod target;

pub use changes::Changes;
pub use headers::{HeaderNames, Headers, NoHeaders};
pub use refusal::{Refusal, RefusedBy};
pub use stored::Stored;
pub use target::Target;

use std::time::Duration;

use crate::advise::Marks;
use crate::attribution::CallerId;
use crate::units::Timestamp;
use std::fmt;

/// All that the engine wants to know of a request before it is sent.
///
/// Borrowed: building one allocates nothing.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct Head<'a> {
    /// The request method, as on the wire (RFC 9110, section 9).
    pub method: &'a str,
    /// Where the request goes.
    pub target: Target<'a>,
    /// On whose behalf the call is made, where the application said so.
    pub customer: Option<&'a str>,
    /// Free-form tags, `(key, value)`. At most [`MAX_TAGS`](crate::attribution::MAX_TAGS) are kept.
    pub tags: &'a [(&'a str, &'a str)],
    /// The program that calls; [`CallerId::SELF`] unless one engine serves many programs (the sidecar).
    pub caller: CallerId,
    /// Where the call was seen.
    pub tap: Tap,
    /// The request's headers; looked up only where a rule asks for one.
    pub headers: &'a (dyn Headers + 'a),
    /// The size of the request's body in bytes; `None` where it is not known yet.
    pub body: Option<u64>,
    /// The request's body, or how it begins, where the adapter has it at hand: for the model that it asks for.
    pub content: &'a [u8],
    /// Whether the adapter can send the request again, its body included.
    pub replayable: bool,
    /// When the caller stops waiting; `None` where it never does.
    pub deadline: Option<Timestamp>,
    /// How long its client would wait for an answer: it waits no longer for an equal call, but asks for itself. `None`
    /// where that is not known, or for ever.
    pub patience: Option<Duration>,
    /// Who goes first where there is not enough for all.
    pub priority: Priority,
    /// Whether the adapter can give an answer from the cache, and put one there: its target has its query, it shows
    /// every header of request and answer ([`Headers::each`]), every byte of the body that the application reads
    /// ([`Call::read`](crate::Call::read)), and sends [`Attempt::condition`](crate::Attempt).
    pub caches: bool,
    /// Stands for the kind of client that adds headers of its own below the adapter, such as what it can decode: no
    /// answer to one kind is handed to another, whatever rules share.
    pub client: u32,
    /// Stands for the very client, where it adds what the adapter does not see, such as a credential: no answer to one is
    /// handed to another, unless a rule shares between credentials. Empty where nothing is added.
    pub client_key: &'a [u8],
    /// Whether the target has its query, and `headers` are all that matter: then the answer can be compared with
    /// earlier ones. So where it [`caches`](Self::caches), or there are [`marks`](Self::marks).
    pub exact: bool,
    /// What the headers said, where they are not at hand any more.
    pub marks: Option<Marks>,
    /// Whether the adapter can hand the request over to the outbox ([`Step::Park`](crate::Step)).
    pub parks: bool,
    /// Whether it can do so although the request is not [`replayable`](Self::replayable): it keeps the body for that.
    pub keeps: bool,
    /// Whether it is delivered from the outbox.
    pub delivers: bool,
    /// Whether the adapter can send another request beside the call, for nobody to wait for ([`Call::refresh`]).
    ///
    /// [`Call::refresh`]: crate::Call::refresh
    pub refreshes: bool,
    /// Whether the adapter can have a second attempt under way beside a slow one ([`Call::hedge`]).
    ///
    /// [`Call::hedge`]: crate::Call::hedge
    pub hedges: bool,
}

/// Who goes first where there is not enough for all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Priority {
    /// Nobody waits for the answer: it may come later.
    Batch = 0,
    /// Somebody does.
    #[default]
    Interactive = 1,
}

impl fmt::Debug for Head<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Headers may hold secrets: they are not shown.
        f.debug_struct("Head")
            .field("method", &self.method)
            .field("target", &self.target)
            .finish_non_exhaustive()
    }
}

impl<'a> Head<'a> {
    /// A head from a method and an absolute URL. A URL that cannot be read gives [`Target::UNREADABLE`]:
    /// the call is still counted, under the vendor `unreadable`.
    #[must_use]
    pub fn new(method: &'a str, url: &'a str) -> Self {
        Self::to(method, Target::parse(url).unwrap_or(Target::UNREADABLE))
    }

    /// A head from a method and a target.
    #[must_use]
    pub const fn to(method: &'a str, target: Target<'a>) -> Self {
        Self {
            method,
            target,
            customer: None,
            tags: &[],
            caller: CallerId::SELF,
            tap: Tap::Library,
            headers: &NoHeaders,
            body: None,
            content: &[],
            replayable: false,
            deadline: None,
            patience: None,
            priority: Priority::Interactive,
            caches: false,
            client: 0,
            client_key: &[],
            exact: false,
            marks: None,
            parks: false,
            keeps: false,
            delivers: false,
            refreshes: false,
            hedges: false,
        }
    }

    /// Says that the adapter can give an answer from the cache, and put one there.
    #[must_use]
    pub const fn caches(mut self, caches: bool) -> Self {
        self.caches = caches;
        self
    }

    /// Says that answers are for this kind of client alone.
    #[must_use]
    pub const fn client(mut self, client: u32) -> Self {
        self.client = client;
        self
    }

    /// Says that answers are for this very client alone.
    #[must_use]
    pub const fn client_key(mut self, key: &'a [u8]) -> Self {
        self.client_key = key;
        self
    }

    /// Says that the target has its query, and that the headers are all that matter.
    #[must_use]
    pub const fn exact(mut self, exact: bool) -> Self {
        self.exact = exact;
        self
    }

    /// Sets what the headers said, where they are not at hand any more.
    #[must_use]
    pub const fn marks(mut self, marks: Option<Marks>) -> Self {
        self.marks = marks;
        self
    }

    /// Says that the adapter can hand the request over to the outbox.
    #[must_use]
    pub const fn parks(mut self, parks: bool) -> Self {
        self.parks = parks;
        self
    }

    /// Says that the adapter can do so although it cannot send the request again.
    #[must_use]
    pub const fn keeps(mut self, keeps: bool) -> Self {
        self.keeps = keeps;
        self
    }

    /// Says that it is delivered from the outbox.
    #[must_use]
    pub const fn delivers(mut self, delivers: bool) -> Self {
        self.delivers = delivers;
        self
    }

    /// The call, by an adapter that can send another request beside it: it asks [`Call::refresh`] for one whenever the
    /// step is [`Step::Respond`].
    ///
    /// [`Call::refresh`]: crate::Call::refresh
    /// [`Step::Respond`]: crate::Step::Respond
    #[must_use]
    pub const fn refreshes(mut self, refreshes: bool) -> Self {
        self.refreshes = refreshes;
        self
    }

    /// Says that the adapter can have a second attempt under way beside a slow one.
    #[must_use]
    pub const fn hedges(mut self, hedges: bool) -> Self {
        self.hedges = hedges;
        self
    }

    /// Sets where the request's headers can be looked up.
    #[must_use]
    pub const fn headers(mut self, headers: &'a (dyn Headers + 'a)) -> Self {
        self.headers = headers;
        self
    }

    /// Sets the size of the request's body, and whether it can be sent again.
    #[must_use]
    pub const fn body(mut self, bytes: Option<u64>, replayable: bool) -> Self {
        self.body = bytes;
        self.replayable = replayable;
        self
    }

    /// Sets the request's body, or how it begins.
    #[must_use]
    pub const fn content(mut self, content: &'a [u8]) -> Self {
        self.content = content;
        self
    }

    /// Sets when the caller stops waiting.
    #[must_use]
    pub const fn deadline(mut self, deadline: Option<Timestamp>) -> Self {
        self.deadline = deadline;
        self
    }

    /// Sets how long the client would wait for an answer, and so for that of an equal call.
    #[must_use]
    pub const fn patience(mut self, patience: Option<Duration>) -> Self {
        self.patience = patience;
        self
    }

    /// Sets who goes first where there is not enough for all.
    #[must_use]
    pub const fn priority(mut self, priority: Priority) -> Self {
        self.priority = priority;
        self
    }

    /// Sets on whose behalf the call is made.
    #[must_use]
    pub const fn customer(mut self, customer: Option<&'a str>) -> Self {
        self.customer = customer;
        self
    }

    /// Sets the tags.
    #[must_use]
    pub const fn tags(mut self, tags: &'a [(&'a str, &'a str)]) -> Self {
        self.tags = tags;
        self
    }

    /// Sets the program that calls and where the call was seen.
    #[must_use]
    pub const fn seen(mut self, caller: CallerId, tap: Tap) -> Self {
        self.caller = caller;
        self.tap = tap;
        self
    }
}

/// Where a call was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Tap {
    /// In the process, by an adapter.
    Library = 0,
    /// From below, by the sidecar.
    Kernel = 1,
}

impl Tap {
    /// The word for it, as in the ledger.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Library => "library",
            Self::Kernel => "kernel",
        }
    }
}

/// How a call came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Outcome {
    /// A response arrived to its last byte, whatever its status.
    Complete,
    /// A response began, and the application let go of it before its last byte.
    Abandoned,
    /// No response, or only a part of one.
    Failed(ErrorType),
    /// It was not made, because a rule said so.
    Refused(RefusedBy),
    /// It was not made: the cache had the answer.
    Cached,
    /// The vendor failed, or was not to be asked: the cache had an answer, though a stale one.
    Stale,
    /// The vendor failed, or was not to be asked: the outbox took it for delivery.
    Parked,
}

impl Outcome {
    /// The word for it, as in the ledger: `complete`, `abandoned`, `cached`, `stale`, `parked`, the error's type, or
    /// `refused-` and the concept that refused.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Abandoned => "abandoned",
            Self::Failed(error) => error.as_str(),
            Self::Refused(by) => by.outcome(),
            Self::Cached => "cached",
            Self::Stale => "stale",
            Self::Parked => "parked",
        }
    }
}

/// Why there was no (whole) response; the low-cardinality values of OpenTelemetry's `error.type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
#[repr(u8)]
pub enum ErrorType {
    /// The name did not resolve.
    Dns = 1,
    /// No connection: refused, unreachable, or closed before the request was out.
    Connect = 2,
    /// The TLS handshake failed.
    Tls = 3,
    /// A timeout of the client passed.
    Timeout = 4,
    /// The connection broke while the exchange was under way.
    Reset = 5,
    /// What came back was not HTTP, or not whole.
    Protocol = 6,
    /// The application cancelled before a response began.
    Cancelled = 7,
    /// Anything else.
    Other = 8,
}

impl ErrorType {
    /// All of them, in the order of their numbers, which start at 1.
    pub const ALL: [Self; 8] = [
        Self::Dns,
        Self::Connect,
        Self::Tls,
        Self::Timeout,
        Self::Reset,
        Self::Protocol,
        Self::Cancelled,
        Self::Other,
    ];

    /// The word for it, as in the ledger.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Timeout => "timeout",
            Self::Reset => "reset",
            Self::Protocol => "protocol",
            Self::Cancelled => "cancelled",
            Self::Other => "other",
        }
    }

    /// The error of this number, as the bindings pass it; [`ErrorType::Other`] for an unknown one.
    #[must_use]
    pub const fn from_number(number: u8) -> Self {
        match number {
            1 => Self::Dns,
            2 => Self::Connect,
            3 => Self::Tls,
            4 => Self::Timeout,
            5 => Self::Reset,
            6 => Self::Protocol,
            7 => Self::Cancelled,
            _ => Self::Other,
        }
    }
}

/// What making the connection took, where the adapter can see it. A part that did not happen (no TLS, a
/// literal address) or could not be seen is `None`; a reused connection reports nothing at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectTimes {
    /// Resolving the name.
    pub dns: Option<Duration>,
    /// The TCP handshake.
    pub connect: Option<Duration>,
    /// The TLS handshake.
    pub tls: Option<Duration>,
}
