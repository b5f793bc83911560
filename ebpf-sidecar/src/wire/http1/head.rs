//! Heads of requests and responses (RFC 9112 sections 2 to 6): what frames the message and what names the call.

use super::{super::stated, body::Body};

/// Longest head that is kept while it is incomplete. Beyond, the stream is unknown.
pub(super) const MAX_HEAD: usize = 64 * 1024;
/// Most header fields of one head.
const MAX_FIELDS: usize = 256;
/// Longest path that is kept; the rest is cut.
const MAX_PATH: usize = 16 * 1024;

/// The head of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) method: String,
    pub(super) host: String,
    pub(super) port: Option<u16>,
    pub(super) path: String,
    pub(super) body: Body,
    pub(super) len: usize,
}

/// The head of a response. `framing` is as the fields say; the request's method may overrule it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Response {
    pub(super) status: u16,
    pub(super) body: Body,
    pub(super) stated: Vec<(&'static str, String)>,
    pub(super) len: usize,
}

/// Why there is no head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoHead {
    /// It goes on behind these bytes.
    Partial,
    /// The connection preface of HTTP/2.
    Http2,
    /// These bytes are no head.
    Malformed,
    /// It goes beyond our bounds.
    TooLong,
}

const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n";

pub(super) fn request(bytes: &[u8]) -> Result<Request, NoHead> {
    if bytes.starts_with(HTTP2_PREFACE) {
        return Err(NoHead::Http2);
    }
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut head = httparse::Request::new(&mut fields);
    let len = match head.parse(bytes) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) => return Err(NoHead::Partial),
        // The preface in pieces: its version is no HTTP/1 version.
        Err(httparse::Error::Version) if HTTP2_PREFACE.starts_with(bytes) => return Err(NoHead::Partial),
        Err(httparse::Error::TooManyHeaders) => return Err(NoHead::TooLong),
        Err(_) => return Err(NoHead::Malformed),
    };
    let (Some(method), Some(target)) = (head.method, head.path) else { return Err(NoHead::Malformed) };
    let body = framing(head.headers)?.unwrap_or(Body::Length(0));
    let (authority, path) = split_target(method, target);
    let authority = match authority {
        Some(authority) => authority,
        None => field(head.headers, "host").unwrap_or(""),
    };
    let (host, port) = split_authority(authority);
    Ok(Request { method: method.to_owned(), host, port, path: cut(path).to_owned(), body, len })
}

pub(super) fn response(bytes: &[u8]) -> Result<Response, NoHead> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut head = httparse::Response::new(&mut fields);
    let len = match head.parse(bytes) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) => return Err(NoHead::Partial),
        Err(httparse::Error::TooManyHeaders) => return Err(NoHead::TooLong),
        Err(_) => return Err(NoHead::Malformed),
    };
    let Some(status @ 100..=999) = head.code else { return Err(NoHead::Malformed) };
    let body = framing(head.headers)?.unwrap_or(Body::UntilClose);
    let stated = head.headers.iter().filter_map(|field| {
        let place = stated::Place::of(field.name.as_bytes())?;
        Some((place.name(), stated::value(field.value).to_owned()))
    });
    Ok(Response { status, body, stated: stated.collect(), len })
}

/// The body as the fields announce it; `None` without an announcement (RFC 9112 section 6.3).
fn framing(fields: &[httparse::Header<'_>]) -> Result<Option<Body>, NoHead> {
    let mut length = None;
    let mut coding: Option<&[u8]> = None;
    for field in fields {
        if field.name.eq_ignore_ascii_case("transfer-encoding") {
            coding = Some(field.value);
        } else if field.name.eq_ignore_ascii_case("content-length") {
            // A list of equal values is allowed; anything else would let two readers disagree about the message.
            for value in field.value.split(|byte| *byte == b',') {
                let text = std::str::from_utf8(value).map_err(|_| NoHead::Malformed)?.trim();
                if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
                    return Err(NoHead::Malformed);
                }
                let value: u64 = text.parse().map_err(|_| NoHead::Malformed)?;
                if length.is_some_and(|known| known != value) {
                    return Err(NoHead::Malformed);
                }
                length = Some(value);
            }
        }
    }
    Ok(match coding {
        Some(coding) => {
            let last = coding.rsplit(|byte| *byte == b',').next().unwrap_or_default().trim_ascii();
            // Any other final coding leaves only the end of the connection as the end of the message.
            Some(if last.eq_ignore_ascii_case(b"chunked") { Body::chunked() } else { Body::UntilClose })
        }
        None => length.map(Body::Length),
    })
}

fn field<'a>(fields: &[httparse::Header<'a>], name: &str) -> Option<&'a str> {
    let field = fields.iter().find(|field| field.name.eq_ignore_ascii_case(name))?;
    std::str::from_utf8(field.value).ok().map(str::trim)
}

/// Authority, where the target carries one, and path without query (RFC 9112 section 3.2).
fn split_target<'a>(method: &str, target: &'a str) -> (Option<&'a str>, &'a str) {
    let (authority, path) = if method == "CONNECT" {
        (Some(target), "")
    } else if let Some((_, rest)) = target.split_once("://").filter(|_| !target.starts_with('/')) {
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        (Some(&rest[..end]), &rest[end..])
    } else {
        (None, target)
    };
    let path = &path[..path.find(['?', '#']).unwrap_or(path.len())];
    (authority, if path.is_empty() && method != "CONNECT" { "/" } else { path })
}

/// Host in lower case without user information, and port.
pub(super) fn split_authority(authority: &str) -> (String, Option<u16>) {
    let authority = authority.rsplit('@').next().unwrap_or(authority);
    let (host, port) = match authority.rsplit_once(':') {
        // The colons of a bare IPv6 address are inside its brackets.
        Some((host, port)) if !port.contains(']') => (host, port.parse().ok()),
        _ => (authority, None),
    };
    let plausible = host.len() <= 255 && host.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/');
    (if plausible { host.to_ascii_lowercase() } else { String::new() }, port)
}

fn cut(path: &str) -> &str {
    let mut end = path.len().min(MAX_PATH);
    while !path.is_char_boundary(end) {
        end -= 1;
    }
    &path[..end]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn host_and_path_come_without_port_query_and_user() {
        let parsed = request(b"GET /v1/a?key=secret HTTP/1.1\r\nHost: API.Example.com:8443\r\n\r\n").unwrap();
        assert_eq!(
            (parsed.host.as_str(), parsed.port, parsed.path.as_str()),
            ("api.example.com", Some(8443), "/v1/a")
        );
        let parsed = request(b"GET http://u:p@h.example?x HTTP/1.1\r\nHost: other\r\n\r\n").unwrap();
        assert_eq!((parsed.host.as_str(), parsed.port, parsed.path.as_str()), ("h.example", None, "/"));
        let parsed = request(b"CONNECT [::1]:443 HTTP/1.1\r\nHost: [::1]:443\r\n\r\n").unwrap();
        assert_eq!((parsed.host.as_str(), parsed.port, parsed.path.as_str()), ("[::1]", Some(443), ""));
        let parsed = request(b"GET / HTTP/1.1\r\nHost: [2001:db8::1]\r\n\r\n").unwrap();
        assert_eq!((parsed.host.as_str(), parsed.port), ("[2001:db8::1]", None));
    }

    #[test]
    fn chunked_overrules_length_and_unequal_lengths_are_malformed() {
        let parsed =
            request(b"POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: gzip, Chunked\r\n\r\n")
                .unwrap();
        assert_eq!(parsed.body, Body::chunked());
        assert_eq!(
            response(b"HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\n").unwrap().body,
            Body::Length(5)
        );
        for bad in ["5\r\nContent-Length: 6", "5, 6", "-5", "+5", "", "99999999999999999999999"] {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {bad}\r\n\r\n");
            assert_eq!(response(head.as_bytes()), Err(NoHead::Malformed), "{bad}");
        }
    }

    #[test]
    fn the_preface_of_http2_is_recognised_in_pieces() {
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        for end in 1..16 {
            assert_eq!(request(&preface[..end]), Err(NoHead::Partial), "at {end}");
        }
        assert_eq!(request(preface), Err(NoHead::Http2));
    }

    #[test]
    fn a_path_is_cut_not_refused() {
        let head = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(30_000));
        assert_eq!(request(head.as_bytes()).unwrap().path.len(), MAX_PATH);
    }
}
