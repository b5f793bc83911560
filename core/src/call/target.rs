//! Where a call goes: the parts of a URL that the engine reads.

use std::fmt;

/// The longest host name that can exist (RFC 1035, section 2.3.4).
const MAX_HOST: usize = 253;

/// Where a call goes: scheme, host, port, path and query. Fragment and user information are dropped here; the query
/// is shown to the cache alone, which hashes it, so that no secret in it can reach the ledger.
#[derive(Clone, Copy, PartialEq, Eq)]
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
    /// The query, without its question mark; empty where there is none.
    pub(crate) query: &'a str,
    /// Whether the host has capital letters.
    pub(crate) mixed_case: bool,
}

impl<'a> Target<'a> {
    /// What an unreadable URL becomes: counted under the vendor `unreadable`.
    pub const UNREADABLE: Self =
        Self { tls: false, host: "", port: 0, path: "/", query: "", mixed_case: false };

    /// A target from its parts, as a transport knows them. A query may follow in `path`; a trailing dot or
    /// brackets of `host` are dropped.
    #[must_use]
    pub fn new(tls: bool, host: &'a str, port: u16, path: &'a str) -> Self {
        let host = match host.as_bytes() {
            [b'[', .., b']'] => &host[1..host.len() - 1],
            [.., b'.'] => &host[..host.len() - 1],
            _ => host,
        };
        let Some(mixed_case) = check_host(host) else { return Self::UNREADABLE };
        let (path, query) = split_query(path);
        Self { tls, host, port, path, query, mixed_case }
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
        let tls = uri.scheme().is_some_and(|scheme| {
            *scheme == http::uri::Scheme::HTTPS || scheme.as_str().eq_ignore_ascii_case("wss")
        });
        let authority = uri.authority()?;
        if let Some(mixed_case) = check_name(authority.as_str())
            && let path = uri.path()
            && path.starts_with('/')
        {
            // The usual authority is a name and nothing else, and the URI knows where its query begins.
            let query = uri.query().unwrap_or_default();
            return Some(Self {
                tls,
                host: authority.as_str(),
                port: default_port(tls),
                path,
                query,
                mixed_case,
            });
        }
        let path = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        let port = authority.port_u16().unwrap_or(default_port(tls));
        Some(Self::new(tls, authority.host(), port, path)).filter(|target| !target.host.is_empty())
    }
}

impl fmt::Debug for Target<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The query may hold secrets: it is not shown.
        let Self { tls, host, port, path, .. } = self;
        let mut shown = f.debug_struct("Target");
        shown.field("tls", tls).field("host", host).field("port", port).field("path", path);
        shown.finish_non_exhaustive()
    }
}

/// The path and the query of a request's target; `/` where the path is none.
fn split_query(target: &str) -> (&str, &str) {
    let (path, query) = match target.bytes().position(|byte| matches!(byte, b'?' | b'#')) {
        Some(end) if target.as_bytes()[end] == b'?' => {
            let query = &target[end + 1..];
            (&target[..end], query.split('#').next().unwrap_or_default())
        }
        Some(end) => (&target[..end], ""),
        None => (target, ""),
    };
    (if path.starts_with('/') { path } else { "/" }, query)
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
const COLON: u8 = 4;

/// What each byte means in a host: letters, digits, `-`, `_`, dots and colons may be there, and so may an
/// internationalised name as the application wrote it.
static HOST_BYTES: [u8; 256] = {
    let mut table = [FORBIDDEN; 256];
    let mut byte = 0;
    while byte < 256 {
        #[allow(clippy::cast_possible_truncation)]
        let b = byte as u8;
        if b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_' | b'%') || b >= 0x80
        {
            table[byte] = 0;
        } else if b.is_ascii_uppercase() {
            table[byte] = CAPITAL;
        } else if b == b':' {
            table[byte] = COLON;
        }
        byte += 1;
    }
    table
};

/// Whether the host has capital letters; `None` where it can be no host.
fn check_host(host: &str) -> Option<bool> {
    let seen = kinds(host)?;
    (seen & FORBIDDEN == 0).then_some(seen & CAPITAL != 0)
}

/// Whether the name has capital letters; `None` for anything but a name without port and final dot.
fn check_name(authority: &str) -> Option<bool> {
    let seen = kinds(authority)?;
    (seen & (FORBIDDEN | COLON) == 0 && !authority.ends_with('.')).then_some(seen & CAPITAL != 0)
}

/// All kinds of bytes in a host; `None` where it is too short or too long for one.
fn kinds(host: &str) -> Option<u8> {
    (1..=MAX_HOST)
        .contains(&host.len())
        .then(|| host.bytes().fold(0, |seen, byte| seen | HOST_BYTES[usize::from(byte)]))
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
            Target {
                tls: true,
                host: "API.stripe.com",
                port: 8443,
                path: "/v1/customers",
                query: "email=a@b.c",
                mixed_case: true
            }
        );
    }

    #[test]
    fn a_parsed_uri_gives_the_same_as_its_text() {
        for url in [
            "https://api.stripe.com/v1/customers?email=a@b.c",
            "https://user:pass@api.stripe.com/v1",
            "http://example.com:8080",
            "https://user@[2001:db8::1]:8443/x",
            "https://API.Example.com./x",
            "https://example.com?q=/a",
            "wss://example.com",
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
