/// How a call reaches its vendor in another way than a delivery would, which goes straight to its URL, trusts what the
/// system trusts, and has no certificate of its own. Made in the plain way it would reach somebody else, or nobody: such
/// calls are not parked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Detour {
    /// It shows a client certificate.
    Certificate,
    /// Through a proxy.
    Proxy,
    /// Through a socket of this machine.
    UnixSocket,
    /// Certificate authorities of the client's own.
    Authorities,
    /// The vendor's certificate is not verified.
    Unverified,
    /// Another name than the URL's is looked for in the vendor's certificate.
    Name,
    /// To another host than its `Host` header names.
    Host,
    /// A way that nothing is known of.
    Own,
}

impl Detour {
    const ALL: [Self; 8] = [
        Self::Certificate,
        Self::Proxy,
        Self::UnixSocket,
        Self::Authorities,
        Self::Unverified,
        Self::Name,
        Self::Host,
        Self::Own,
    ];

    /// By its number, as the adapters of other languages have it: from 1, in the order above. What they do not know is a
    /// way of its own.
    #[must_use]
    pub fn from_number(number: u32) -> Option<Self> {
        let place = number.checked_sub(1)?;
        Some(usize::try_from(place).ok().and_then(|place| Self::ALL.get(place)).copied().unwrap_or(Self::Own))
    }

    /// Why a call is not parked, for whoever reads its events.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Certificate => "its connection has a client certificate, which a delivery would not have",
            Self::Proxy => "its client goes through a proxy, which a delivery would not",
            Self::UnixSocket => "its client goes through a Unix socket, which a delivery would not",
            Self::Authorities => {
                "its client trusts certificate authorities of its own, which a delivery would not"
            }
            Self::Unverified => "its client takes any certificate, and a delivery would not",
            Self::Name => {
                "its client looks for another name in the certificate than its URL has, and a delivery would not"
            }
            Self::Host => "it went to another host than its `Host` header names, and a delivery would not",
            Self::Own => "its client connects in a way of its own, which a delivery would not know",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Detour;

    #[test]
    fn each_has_its_number_and_none_is_no_detour() {
        assert_eq!(Detour::from_number(0), None);
        for (number, detour) in (1..).zip(Detour::ALL) {
            assert_eq!(Detour::from_number(number), Some(detour));
        }
        assert_eq!(Detour::from_number(9), Some(Detour::Own));
    }
}
