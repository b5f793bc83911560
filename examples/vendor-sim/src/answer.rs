//! What a vendor answers, before anybody decides how it goes over the wire.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde_json::Value;

/// An answer: status, headers, body, and how the exchange ends.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Content,
    /// Announce the body's length; otherwise chunked (HTTP/1.1) or without length (HTTP/2).
    pub(crate) sized: bool,
    pub(crate) ending: Ending,
    /// HTTP/1.1: headers go out exactly as listed, no framing header is added, no body is framed.
    pub(crate) verbatim: bool,
    /// HTTP/1.1: these bytes replace the whole answer on the wire.
    pub(crate) raw: Option<Bytes>,
}

/// The body, as pieces that are written one by one.
#[derive(Debug, Clone)]
pub(crate) enum Content {
    Whole(Bytes),
    /// Each piece in a frame of its own, `every` apart.
    Pieces {
        pieces: Vec<Bytes>,
        every: Duration,
    },
    /// The same piece again and again: `total` bytes, or for ever.
    Repeat {
        piece: Bytes,
        total: Option<u64>,
        every: Duration,
    },
}

/// How the exchange ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// As announced.
    Complete,
    /// RST before the first byte of the head.
    ResetBeforeHead,
    /// RST after so many bytes of body.
    Reset(u64),
    /// An orderly close after so many bytes of body, whatever length was announced.
    Close(u64),
    /// Head and body stop after so many bytes of body; the connection stays open and silent.
    Stall(u64),
}

impl Answer {
    /// An answer with a body of known length and no content type.
    pub(crate) fn new(status: StatusCode, body: impl Into<Bytes>) -> Self {
        Self {
            status,
            headers: HeaderMap::new(),
            body: Content::Whole(body.into()),
            sized: true,
            ending: Ending::Complete,
            verbatim: false,
            raw: None,
        }
    }

    pub(crate) fn json(status: StatusCode, value: &Value) -> Self {
        Self::new(status, value.to_string()).with(header::CONTENT_TYPE, "application/json")
    }

    pub(crate) fn text(status: StatusCode, body: impl Into<Bytes>) -> Self {
        Self::new(status, body).with(header::CONTENT_TYPE, "text/plain; charset=utf-8")
    }

    /// A stream of server-sent events, one frame each.
    pub(crate) fn events(pieces: Vec<Bytes>) -> Self {
        let mut answer = Self::new(StatusCode::OK, "")
            .with(header::CONTENT_TYPE, "text/event-stream; charset=utf-8")
            .with(header::CACHE_CONTROL, "no-cache");
        answer.body = Content::Pieces { pieces, every: Duration::ZERO };
        answer.sized = false;
        answer
    }

    pub(crate) fn with(mut self, name: HeaderName, value: &'static str) -> Self {
        self.headers.insert(name, HeaderValue::from_static(value));
        self
    }

    /// Sets a header from text; a value that HTTP forbids is left out.
    pub(crate) fn set(&mut self, name: &'static str, value: &str) {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(HeaderName::from_static(name), value);
        }
    }
}

impl Content {
    /// Length in bytes, where it has one.
    pub(crate) fn len(&self) -> Option<u64> {
        match self {
            Self::Whole(bytes) => Some(bytes.len() as u64),
            Self::Pieces { pieces, .. } => Some(pieces.iter().map(|p| p.len() as u64).sum()),
            Self::Repeat { total, .. } => *total,
        }
    }

    pub(crate) fn every(&self) -> Duration {
        match self {
            Self::Whole(_) => Duration::ZERO,
            Self::Pieces { every, .. } | Self::Repeat { every, .. } => *every,
        }
    }

    pub(crate) fn into_pieces(self) -> Pieces {
        match self {
            Self::Whole(bytes) => Pieces::List(vec![bytes].into_iter()),
            Self::Pieces { pieces, .. } => Pieces::List(pieces.into_iter()),
            Self::Repeat { piece, total, .. } => Pieces::Repeat { piece, left: total },
        }
    }
}

/// The pieces of a [`Content`], in order; never an empty one.
#[derive(Debug)]
pub(crate) enum Pieces {
    List(std::vec::IntoIter<Bytes>),
    Repeat { piece: Bytes, left: Option<u64> },
}

impl Iterator for Pieces {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        match self {
            Self::List(pieces) => pieces.find(|p| !p.is_empty()),
            Self::Repeat { piece, .. } if piece.is_empty() => None,
            Self::Repeat { piece, left: None } => Some(piece.clone()),
            Self::Repeat { left: Some(0), .. } => None,
            Self::Repeat { piece, left: Some(left) } => {
                let n = (piece.len() as u64).min(*left);
                *left -= n;
                Some(piece.slice(..n as usize))
            }
        }
    }
}
