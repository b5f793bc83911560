//! The one matcher: what every rule of `farcall.toml` says after `match =`, and every filter of the command
//! line.

use crate::attribution::Caller;

/// A call, in the words that matchers know. Borrowed: building one allocates nothing.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Subject<'a> {
    /// The vendor's name.
    pub vendor: &'a str,
    /// What kind of vendor it is.
    pub vendor_tags: &'a [String],
    /// Method and URL template.
    pub endpoint: &'a str,
    /// The request method.
    pub method: &'a str,
    /// The host in lower case, without its port.
    pub host: &'a str,
    /// The customer; `unknown` where nobody said.
    pub customer: &'a str,
    /// The tags in their one written form, `key=value,key=value`.
    pub tags: &'a str,
    /// The program that calls.
    pub caller: &'a Caller,
    /// The credential's fingerprint; empty where the call carries none or it was not looked at.
    pub credential: &'a str,
}
