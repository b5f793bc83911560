//! What kind of failure an error is.
//!
//! Clients wrap errors in errors: `hyper_util` around `hyper` around `io`, `reqwest` around all of them. The
//! cause decides, not the wrapper, so the chain of sources is walked from the outside in and the most telling
//! link wins. Types decide where a public type exists, and words where it does not.

use farcall::ErrorType;
use std::error::Error;
use std::io;

type BoxError = Box<dyn Error + Send + Sync>;

/// An error whose chain of causes can be read. Implemented for every [`Error`], and for the boxed error of
/// tower's own layers, which is none; `M` only tells the two apart and is always inferred.
pub trait Cause<M> {
    /// The error as the standard library's trait.
    fn cause(&self) -> &(dyn Error + 'static);

    /// The error in a box, as tower's own layers hand errors on.
    fn into_boxed(self) -> Box<dyn Error + Send + Sync>;
}

/// Marks an error that implements [`Error`].
#[derive(Clone, Copy, Debug)]
pub enum Plain {}

/// Marks a `Box<dyn Error + Send + Sync>`.
#[derive(Clone, Copy, Debug)]
pub enum Boxed {}

impl<E: Error + Send + Sync + 'static> Cause<Plain> for E {
    fn cause(&self) -> &(dyn Error + 'static) {
        self
    }

    fn into_boxed(self) -> BoxError {
        Box::new(self)
    }
}

impl Cause<Boxed> for BoxError {
    fn cause(&self) -> &(dyn Error + 'static) {
        self.as_ref()
    }

    fn into_boxed(self) -> BoxError {
        self
    }
}

/// What kind of failure `error` is, by its chain of causes.
///
/// ```
/// use farcall::ErrorType;
/// use std::io::{Error, ErrorKind};
///
/// let refused = Error::from(ErrorKind::ConnectionRefused);
/// assert_eq!(farcall_tower::classify(&refused), ErrorType::Connect);
/// ```
#[must_use]
pub fn classify(error: &(dyn Error + 'static)) -> ErrorType {
    let mut found = Findings::default();
    let mut link = Some(error);
    // A chain that never ends would be somebody's bug; ours not to hang on it.
    for _ in 0..32 {
        let Some(current) = link else { break };
        found.look_at(current);
        link = next(current);
    }
    found.verdict()
}

/// The next link of a chain. `io::Error` names the source of what it holds, skipping what it holds.
fn next<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(held) => Some(held),
        None => error.source(),
    }
}

/// What the links of a chain say, together.
#[derive(Default)]
struct Findings {
    /// The failure happened while a connection was being made.
    connecting: bool,
    /// The TCP connector itself failed, so that TLS was not reached.
    below_tls: bool,
    timed_out: bool,
    dns: bool,
    tls: bool,
    cancelled: bool,
    io: Option<io::ErrorKind>,
    exchange: Option<ErrorType>,
}

impl Findings {
    fn look_at(&mut self, error: &(dyn Error + 'static)) {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            // The innermost kind tells: wrappers are `Other`.
            if error.kind() != io::ErrorKind::Other {
                self.io = Some(error.kind());
            }
            if error.get_ref().is_some() {
                return; // what it holds is the next link
            }
        }
        #[cfg(feature = "hyper")]
        if self.look_at_hyper(error) {
            return;
        }
        #[cfg(feature = "reqwest")]
        if let Some(error) = error.downcast_ref::<::reqwest::Error>() {
            self.connecting |= error.is_connect();
            self.timed_out |= error.is_timeout();
            return; // its words repeat the URL, which may say anything
        }
        self.read(&error.to_string());
    }

    #[cfg(feature = "hyper")]
    fn look_at_hyper(&mut self, error: &(dyn Error + 'static)) -> bool {
        if let Some(error) = error.downcast_ref::<hyper_util::client::legacy::Error>() {
            self.connecting |= error.is_connect();
            return true;
        }
        let Some(error) = error.downcast_ref::<hyper::Error>() else { return false };
        if error.is_timeout() {
            self.timed_out = true;
        } else if error.is_parse() {
            self.exchange = Some(ErrorType::Protocol);
        } else if error.is_incomplete_message() || error.is_closed() || error.is_body_write_aborted() {
            self.exchange = Some(ErrorType::Reset);
        } else if error.is_canceled() {
            self.cancelled = true;
        }
        true
    }

    /// Reads the words of errors whose types are private or another crate's: tower's, tokio's and tonic's
    /// timeouts, hyper-util's connector, h2, rustls, the native TLS libraries.
    fn read(&mut self, words: &str) {
        match words {
            "request timed out" | "deadline has elapsed" | "operation timed out" | "Timeout expired" => {
                self.timed_out = true;
            }
            "dns error" => (self.dns, self.connecting) = (true, true),
            "tcp connect error" => (self.below_tls, self.connecting) = (true, true),
            _ => {}
        }
        // h2 keeps its cause to itself. It says who noticed: what the peer sent us is its doing, what we detected
        // is garbage; and an error of the socket only by the words of its kind.
        const RESET: [&str; 8] = [
            "stream error received",
            "connection error received",
            "stream closed because of a broken pipe",
            "connection closed because of a broken pipe",
            "connection reset",
            "connection aborted",
            "broken pipe",
            "unexpected end of file",
        ];
        const PROTOCOL: [&str; 3] = ["stream error detected", "connection error detected", "protocol error"];
        let lower = words.to_ascii_lowercase();
        if RESET.iter().any(|start| lower.starts_with(start)) {
            self.exchange = Some(ErrorType::Reset);
        } else if PROTOCOL.iter().any(|start| lower.starts_with(start)) {
            self.exchange = Some(ErrorType::Protocol);
        }
        const TLS: [&str; 5] = ["certificate", "handshake", "fatal alert", "TLS", "SSL"];
        self.tls |= TLS.iter().any(|word| words.contains(word));
    }

    fn verdict(self) -> ErrorType {
        use io::ErrorKind as Io;
        if self.timed_out || self.io == Some(Io::TimedOut) {
            return ErrorType::Timeout;
        }
        if self.dns {
            return ErrorType::Dns;
        }
        // Connected, and yet no connection: the handshake met garbage, or a peer that hung up on it.
        let broken = matches!(
            self.io,
            Some(
                Io::InvalidData
                    | Io::UnexpectedEof
                    | Io::ConnectionReset
                    | Io::ConnectionAborted
                    | Io::BrokenPipe
            )
        );
        if self.tls || (self.connecting && !self.below_tls && broken) {
            return ErrorType::Tls;
        }
        match self.io {
            _ if self.connecting => return ErrorType::Connect,
            Some(
                Io::ConnectionRefused
                | Io::HostUnreachable
                | Io::NetworkUnreachable
                | Io::NetworkDown
                | Io::AddrNotAvailable
                | Io::NotConnected,
            ) => return ErrorType::Connect,
            Some(Io::ConnectionReset | Io::ConnectionAborted | Io::BrokenPipe) => return ErrorType::Reset,
            Some(Io::UnexpectedEof) => return ErrorType::Reset,
            // hyper's decoder of chunks says `InvalidInput`.
            Some(Io::InvalidData | Io::InvalidInput) => return ErrorType::Protocol,
            _ => {}
        }
        match self.exchange {
            Some(error) => error,
            None if self.cancelled => ErrorType::Cancelled,
            None => ErrorType::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt;

    /// An error with a cause, as libraries wrap them.
    #[derive(Debug)]
    struct Wrapper(&'static str, Option<BoxError>);

    impl fmt::Display for Wrapper {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
    }

    impl Error for Wrapper {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            self.1.as_ref().map(|cause| cause.as_ref() as _)
        }
    }

    fn io(kind: io::ErrorKind) -> BoxError {
        Box::new(io::Error::from(kind))
    }

    fn of(error: impl Error + 'static) -> ErrorType {
        classify(&error)
    }

    #[test]
    fn the_cause_decides_however_deep_it_is() {
        let deep = Wrapper("client error", Some(Box::new(Wrapper("x", Some(io(io::ErrorKind::TimedOut))))));
        assert_eq!(of(deep), ErrorType::Timeout);
        assert_eq!(of(io::Error::other(io::Error::other(Wrapper("dns error", None)))), ErrorType::Dns);
    }

    #[test]
    fn a_failed_connector_is_told_from_a_failed_handshake() {
        let refused = Wrapper("tcp connect error", Some(io(io::ErrorKind::ConnectionRefused)));
        assert_eq!(of(refused), ErrorType::Connect);
        let reset = Wrapper("tcp connect error", Some(io(io::ErrorKind::ConnectionReset)));
        assert_eq!(of(reset), ErrorType::Connect);
        let untrusted = io::Error::new(
            io::ErrorKind::InvalidData,
            Wrapper("invalid peer certificate: UnknownIssuer", None),
        );
        assert_eq!(of(io::Error::other(untrusted)), ErrorType::Tls);
        assert_eq!(of(io::Error::new(io::ErrorKind::UnexpectedEof, "tls handshake eof")), ErrorType::Tls);
    }

    #[test]
    fn timeouts_of_tower_and_tokio_are_timeouts() {
        assert_eq!(of(tower::timeout::error::Elapsed::new()), ErrorType::Timeout);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let elapsed = runtime.block_on(async {
            let never = std::future::pending::<()>();
            tokio::time::timeout(std::time::Duration::ZERO, never).await.unwrap_err()
        });
        assert_eq!(of(elapsed), ErrorType::Timeout);
    }

    #[test]
    fn a_broken_exchange_is_a_reset_and_an_unknown_error_is_other() {
        assert_eq!(of(io::Error::from(io::ErrorKind::ConnectionReset)), ErrorType::Reset);
        assert_eq!(of(io::Error::from(io::ErrorKind::BrokenPipe)), ErrorType::Reset);
        assert_eq!(of(io::Error::from(io::ErrorKind::InvalidData)), ErrorType::Protocol);
        assert_eq!(of(io::Error::new(io::ErrorKind::InvalidInput, "chunk size")), ErrorType::Protocol);
        let within_h2 = Wrapper("stream closed because of a broken pipe", None);
        assert_eq!(of(Wrapper("error reading a body", Some(Box::new(within_h2)))), ErrorType::Reset);
        assert_eq!(of(Wrapper("the cat sat on the cable", None)), ErrorType::Other);
    }

    #[test]
    fn a_boxed_error_is_looked_into_as_well() {
        let boxed: BoxError = io(io::ErrorKind::ConnectionRefused);
        assert_eq!(classify(Cause::<Boxed>::cause(&boxed)), ErrorType::Connect);
    }
}
