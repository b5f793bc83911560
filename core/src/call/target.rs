//! Where a call goes: the parts of a URL that the engine reads.

/// The longest host name that can exist (RFC 1035, section 2.3.4).
const MAX_HOST: usize = 253;

/// Where a call goes: scheme, host, port and path. Query, fragment and user information are dropped here, so
/// that no secret in them can reach the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Target<'a> {
    /// Whether the call is protected by TLS.
    pub tls: bool,
    /// The host, without brackets and port, in whatever case the application wrote it.
    pub host: &'a str,
    /// The port; the scheme's default where none is given.
    pub port: u16,
    /// The path, from its first slash, without query and fragment.
    pub path: &'a str,
    /// Whether the host has capital letters.
    pub(crate) mixed_case: bool,
}

impl<'a> Target<'a> {
    /// What an unreadable URL becomes: counted under the vendor `unreadable`.
    pub const UNREADABLE: Self = Self { tls: false, host: "", port: 0, path: "/", mixed_case: false };

    /// A target from its parts, as a transport knows them. A query in `path` is cut off; a trailing dot or
    /// brackets of `host` are dropped.
    #[must_use]
    pub fn new(tls: bool, host: &'a str, port: u16, path: &'a str) -> Self {
        let host = match host.as_bytes() {
            [b'[', .., b']'] => &host[1..host.len() - 1],
            [.., b'.'] => &host[..host.len() - 1],
            _ => host,
        };
        let Some(mixed_case) = check_host(host) else { return Self::UNREADABLE };
        let path = match path.bytes().position(|byte| matches!(byte, b'?' | b'#')) {
            Some(end) => &path[..end],
            None => path,
        };
        Self { tls, host, port, path: if path.starts_with('/') { path } else { "/" }, mixed_case }
    }

    /// A target from an absolute URL (RFC 3986, section 4.3) with the scheme `http` or `https` (also `ws` and
    /// `wss`); `None` for anything else.
    #[must_use]
    pub fn parse(url: &'a str) -> Option<Self> {
        let (scheme, rest) = url.split_once("://")?;
        let tls = match scheme {
            _ if scheme.eq_ignore_ascii_case("https") || scheme.eq_ignore_ascii_case("wss") => true,
            _ if scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("ws") => false,
            _ => return None,
        };
        let end = rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        let (host, port) = split_port(authority)?;
        let port = match port {
            "" => default_port(tls),
            digits => digits.parse().ok()?,
        };
        Some(Self::new(tls, host, port, path)).filter(|target| !target.host.is_empty())
    }

    /// A target from an absolute [`http::Uri`]; `None` where it has no host.
    #[must_use]
    pub fn from_uri(uri: &'a http::Uri) -> Option<Self> {
        let tls = uri.scheme().is_some_and(|scheme| *scheme == http::uri::Scheme::HTTPS);
        let authority = uri.authority()?;
        let host = authority.host();
        // The usual authority is a host and nothing else: then there is no port to be looked for.
        let port = if authority.as_str().len() == host.len() { None } else { authority.port_u16() };
        Some(Self::new(tls, host, port.unwrap_or(default_port(tls)), uri.path()))
            .filter(|target| !target.host.is_empty())
    }
}

const fn default_port(tls: bool) -> u16 {
    if tls { 443 } else { 80 }
}

/// Splits `host:port`, minding the brackets of an IPv6 literal (RFC 3986, section 3.2.2).
fn split_port(authority: &str) -> Option<(&str, &str)> {
    if authority.starts_with('[') {
        let end = authority.find(']')?;
        let (host, rest) = authority.split_at(end + 1);
        return match rest.strip_prefix(':') {
            Some(port) => Some((host, port)),
            None if rest.is_empty() => Some((host, "")),
            None => None,
        };
    }
    Some(authority.split_once(':').unwrap_or((authority, "")))
}

const FORBIDDEN: u8 = 1;
const CAPITAL: u8 = 2;

/// What each byte means in a host: letters, digits, `-`, `_`, dots and colons may be there, and so may an
/// internationalised name as the application wrote it.
static HOST_BYTES: [u8; 256] = {
    let mut table = [FORBIDDEN; 256];
    let mut byte = 0;
    while byte < 256 {
        #[allow(clippy::cast_possible_truncation)]
        let b = byte as u8;
        if b.is_ascii_lowercase()
            || b.is_ascii_digit()
            || matches!(b, b'.' | b'-' | b'_' | b':' | b'%')
            || b >= 0x80
        {
            table[byte] = 0;
        } else if b.is_ascii_uppercase() {
            table[byte] = CAPITAL;
        }
        byte += 1;
    }
    table
};

/// Whether the host has capital letters; `None` where it can be no host.
fn check_host(host: &str) -> Option<bool> {
    if host.is_empty() || host.len() > MAX_HOST {
        return None;
    }
    let seen = host.bytes().fold(0, |seen, byte| seen | HOST_BYTES[usize::from(byte)]);
    (seen & FORBIDDEN == 0).then_some(seen & CAPITAL != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ordinary_url_gives_its_parts() {
        let target =
            Target::parse("https://user:pass@API.stripe.com:8443/v1/customers?email=a@b.c#x").unwrap();
        assert_eq!(
            target,
            Target { tls: true, host: "API.stripe.com", port: 8443, path: "/v1/customers", mixed_case: true }
        );
    }

    #[test]
    fn a_parsed_uri_gives_the_same_as_its_text() {
        for url in [
            "https://api.stripe.com/v1/customers?email=a@b.c",
            "https://user:pass@api.stripe.com/v1",
            "http://example.com:8080",
            "https://user@[2001:db8::1]:8443/x",
            "http://[2001:db8::1]/x",
        ] {
            let uri: http::Uri = url.parse().unwrap();
            assert_eq!(Target::from_uri(&uri), Target::parse(url), "{url}");
        }
        assert_eq!(Target::from_uri(&"/v1".parse().unwrap()), None);
    }

    #[test]
    fn a_port_and_a_path_have_defaults() {
        let target = Target::parse("http://example.com?q=/a").unwrap();
        assert_eq!((target.port, target.path), (80, "/"));
        assert_eq!(Target::parse("wss://example.com.").unwrap().host, "example.com");
    }

    #[test]
    fn an_address_in_brackets_keeps_its_colons() {
        let target = Target::parse("http://[2001:db8::1]:8080/x").unwrap();
        assert_eq!((target.host, target.port), ("2001:db8::1", 8080));
    }

    #[test]
    fn absurd_urls_are_refused_not_guessed() {
        for url in [
            "",
            "/v1",
            "https://",
            "https:///x",
            "ftp://a/b",
            "http://a b/",
            "http://a:99999/",
            "http://[::1/",
            "http://[::1]x/",
        ] {
            assert_eq!(Target::parse(url), None, "{url:?}");
        }
        assert_eq!(Target::parse(&format!("https://{}/", "a".repeat(300))), None);
    }
}
