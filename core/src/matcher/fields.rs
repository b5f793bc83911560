//! What a matcher can look at, and how narrow it is.

use super::Subject;
use std::fmt;
use std::hash::Hasher;
use std::ops::BitOr;

macro_rules! fields {
    ($($(#[$doc:meta])* $name:ident $constant:ident $key:literal,)*) => {
        /// Something that a matcher can look at.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        #[repr(u8)]
        pub enum Field {
            $($(#[$doc])* $name,)*
        }

        impl Field {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The key under which a rule writes it.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $key,)*
                }
            }
        }

        impl Fields {
            $($(#[$doc])* pub const $constant: Self = Self(1 << Field::$name as u8);)*
        }
    };
}

/// A set of [`Field`]s.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Fields(u32);

fields! {
    /// The vendor's name.
    Vendor VENDOR "vendor",
    /// What kind of vendor it is.
    VendorTag VENDOR_TAG "vendor.tag",
    /// Method and URL template.
    Endpoint ENDPOINT "endpoint",
    /// The request method.
    Method METHOD "method",
    /// The host.
    Host HOST "host",
    /// The customer.
    Customer CUSTOMER "customer",
    /// The caller's service name.
    Service SERVICE "caller.service",
    /// The caller's executable.
    Executable EXECUTABLE "caller.executable",
    /// The caller's user.
    User USER "caller.user",
    /// The caller's container.
    Container CONTAINER "caller.container",
    /// The credential's fingerprint.
    Credential CREDENTIAL "credential",
    /// Where the credential came from.
    Origin ORIGIN "credential.origin",
    /// The country that the call goes to.
    Country COUNTRY "country",
    /// Any of the tags.
    Tag TAG "tag",
    /// The kinds of data in the request.
    Data DATA "data",
    /// The length of the request's body.
    Bytes BYTES "bytes",
}

impl Fields {
    /// None.
    pub const NONE: Self = Self(0);

    /// All that is known of the caller.
    pub const CALLER: Self = Self(Self::SERVICE.0 | Self::EXECUTABLE.0 | Self::USER.0 | Self::CONTAINER.0);

    /// What does not change between calls of the same vendor, endpoint, method, customer, tags, caller and
    /// credential: an answer that [depends](super::Matcher::depends) on no other may be kept under those. The
    /// endpoint tells the method, but for endpoints that take any (`* /v1/items`).
    pub const STEADY: Self = Self(
        Self::VENDOR.0
            | Self::VENDOR_TAG.0
            | Self::ENDPOINT.0
            | Self::METHOD.0
            | Self::CUSTOMER.0
            | Self::SERVICE.0
            | Self::EXECUTABLE.0
            | Self::USER.0
            | Self::CONTAINER.0
            | Self::CREDENTIAL.0
            | Self::ORIGIN.0
            | Self::TAG.0,
    );

    /// A set of one.
    #[must_use]
    pub const fn of(field: Field) -> Self {
        Self(1 << field as u8)
    }

    /// Whether all of `other` are in it.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether there is none in it.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// What is in it and not in `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Each of them.
    pub fn iter(self) -> impl Iterator<Item = Field> {
        Field::ALL.iter().copied().filter(move |field| self.contains(Self::of(*field)))
    }
}

impl BitOr for Fields {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl fmt::Debug for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter().map(Field::as_str)).finish()
    }
}

/// What a rule's state is kept apart by: what its `match` says a bare `*` for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Partition {
    pub(super) fields: Fields,
    /// The keys of tags that have a state for each value.
    pub(super) tags: Box<[Box<str>]>,
}

impl Partition {
    /// One state for all calls.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// What the state is kept apart by; [`Fields::TAG`] stands for [`Partition::tags`].
    #[must_use]
    pub fn fields(&self) -> Fields {
        self.fields
    }

    /// The keys of the tags that the state is kept apart by.
    pub fn tags(&self) -> impl Iterator<Item = &str> {
        self.tags.iter().map(AsRef::as_ref)
    }

    /// What the state of this call is kept under: its values of these, in a fixed order. Allocates nothing.
    pub fn values<'s>(&'s self, subject: &'s Subject<'_>) -> impl Iterator<Item = &'s str> {
        let fields = self.fields.without(Fields::TAG);
        let texts = fields.iter().map(|field| subject.text(field));
        texts.chain(self.tags.iter().map(|key| subject.tag(key).unwrap_or_default()))
    }

    /// Hashes what the state of this call is kept under.
    pub fn hash(&self, subject: &Subject<'_>, state: &mut impl Hasher) {
        if self.is_empty() {
            return;
        }
        for value in self.values(subject) {
            state.write(value.as_bytes());
            state.write_u8(0xff); // In no UTF-8 text: "a", "bc" is not "ab", "c".
        }
    }
}

/// How narrow a match is: first by the number of keys that are given exactly, then by the number of other
/// conditions, then by the characters in these that are not `*`. The greater one is the narrower.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Specificity {
    pub(super) exact: u16,
    pub(super) patterns: u16,
    pub(super) letters: u32,
}
