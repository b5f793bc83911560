//! A call, as matchers see it.

use super::Field;
use crate::attribution::Caller;

/// A call, in the words that matchers know. Borrowed: building one allocates nothing. What is not known is an
/// empty text; [`Subject::default`] is a call of which nothing is known.
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
    /// Where the credential's value came from: the name of an environment variable, where it equals one.
    pub origin: &'a str,
    /// The country that the call goes to, as two letters (ISO 3166-1).
    pub country: &'a str,
    /// The kinds of data that were found in the request (`card`, `email`).
    pub data: &'a [&'a str],
    /// The length of the request's body in bytes, where it is known before it is sent.
    pub bytes: Option<u64>,
}

static NOBODY: Caller = Caller {
    service: String::new(),
    executable: String::new(),
    pid: 0,
    pid_namespace: 0,
    started: 0,
    container: String::new(),
    user: String::new(),
};

impl Default for Subject<'_> {
    fn default() -> Self {
        Self {
            vendor: "",
            vendor_tags: &[],
            endpoint: "",
            method: "",
            host: "",
            customer: "",
            tags: "",
            caller: &NOBODY,
            credential: "",
            origin: "",
            country: "",
            data: &[],
            bytes: None,
        }
    }
}

impl<'a> Subject<'a> {
    /// The value of a tag, if the call has that tag. Keys are compared without regard to case.
    #[must_use]
    pub fn tag(&self, key: &str) -> Option<&'a str> {
        self.tags.split(',').find_map(|tag| {
            let (this, value) = tag.split_once('=')?;
            super::text::same(this, key).then_some(value)
        })
    }

    /// A thing of which a call has one; empty for the others.
    #[must_use]
    pub fn text(&self, field: Field) -> &'a str {
        match field {
            Field::Vendor => self.vendor,
            Field::Endpoint => self.endpoint,
            Field::Method => self.method,
            Field::Host => self.host,
            Field::Customer => self.customer,
            Field::Service => &self.caller.service,
            Field::Executable => &self.caller.executable,
            Field::User => &self.caller.user,
            Field::Container => &self.caller.container,
            Field::Credential => self.credential,
            Field::Origin => self.origin,
            Field::Country => self.country,
            Field::VendorTag | Field::Tag | Field::Data | Field::Bytes => "",
        }
    }
}
