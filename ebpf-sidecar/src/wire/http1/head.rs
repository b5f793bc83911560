//! Heads of requests and responses (RFC 9112 sections 2 to 6): what frames the message and what names the call.

use super::{super::stated, body::Body};

/// Longest head that is kept while it is incomplete. Beyond, the stream is unknown.
pub(super) const MAX_HEAD: usize = 64 * 1024;
/// Header fields that a head has at most as a rule, and those for which room is made where it has more.
const FEW_FIELDS: usize = 256;
const MAX_FIELDS: usize = 1_024;
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
    /// Whether it bends the rules of HTTP so that some clients read it and some give up.
    pub(super) bent: bool,
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
    strictly_then_as_clients_do(bytes, read_request)
}

/// The head of a response, read as clients do: a line that breaks the rules is left out, unless it frames the message.
pub(super) fn response(bytes: &[u8]) -> Result<Response, NoHead> {
    strictly_then_as_clients_do(bytes, read_response)
}

/// Status that the first line says, of a head that cannot be read for the rest; 0 where it says none.
pub(super) fn status(bytes: &[u8]) -> u16 {
    let status = || {
        let (version, rest) = bytes.trim_ascii_start().strip_prefix(b"HTTP/")?.split_first_chunk::<1>()?;
        let rest = if rest.starts_with(b".") { rest.get(2..)? } else { rest };
        let (digits, end) = rest.strip_prefix(b" ")?.split_first_chunk::<3>()?;
        let is_whole = version[0].is_ascii_digit() && matches!(end.first(), Some(b' ' | b'\r' | b'\n'));
        std::str::from_utf8(digits).ok().filter(|_| is_whole)?.parse().ok()
    };
    status().filter(|status| (100..=999).contains(status)).unwrap_or(0)
}

type Fields<'a> = [httparse::Header<'a>];

/// Reads a head by the rules; where that cannot be, as clients read it, and with room for more fields.
fn strictly_then_as_clients_do<T>(
    bytes: &[u8],
    read: for<'a> fn(&'a [u8], &mut Fields<'a>, Rules) -> Result<T, NoHead>,
) -> Result<T, NoHead> {
    let mut head = read(bytes, &mut [httparse::EMPTY_HEADER; FEW_FIELDS], Rules::Strict);
    if matches!(head, Err(NoHead::Malformed)) {
        head = read(bytes, &mut [httparse::EMPTY_HEADER; FEW_FIELDS], Rules::AsClientsDo);
    }
    if matches!(head, Err(NoHead::TooLong)) {
        head = read(bytes, &mut vec![httparse::EMPTY_HEADER; MAX_FIELDS], Rules::AsClientsDo);
    }
    head
}

/// How strictly a head is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rules {
    /// By the specification.
    Strict,
    /// Folded fields are read, others that break it left out. No two clients agree on all of them.
    AsClientsDo,
}

impl Rules {
    fn config(self) -> httparse::ParserConfig {
        let mut config = httparse::ParserConfig::default();
        if self == Self::AsClientsDo {
            config
                .ignore_invalid_headers_in_requests(true)
                .ignore_invalid_headers_in_responses(true)
                .allow_obsolete_multiline_headers_in_responses(true)
                .allow_spaces_after_header_name_in_responses(true);
        }
        config
    }
}

fn read_request<'a>(bytes: &'a [u8], fields: &mut Fields<'a>, rules: Rules) -> Result<Request, NoHead> {
    let mut head = httparse::Request::new(fields);
    let len = match rules.config().parse_request(&mut head, bytes) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) => return Err(NoHead::Partial),
        // The preface in pieces: its version is no HTTP/1 version.
        Err(httparse::Error::Version) if HTTP2_PREFACE.starts_with(bytes) => return Err(NoHead::Partial),
        Err(httparse::Error::TooManyHeaders) => return Err(NoHead::TooLong),
        Err(_) => return Err(NoHead::Malformed),
    };
    let (Some(method), Some(target)) = (head.method, head.path) else { return Err(NoHead::Malformed) };
    let body = framing(head.headers, &bytes[..len], rules)?.unwrap_or(Body::Length(0));
    let (authority, path) = split_target(method, target);
    let authority = match authority {
        Some(authority) => authority,
        None => field(head.headers, "host").unwrap_or(""),
    };
    let (host, port) = split_authority(authority);
    Ok(Request { method: method.to_owned(), host, port, path: cut(path).to_owned(), body, len })
}

fn read_response<'a>(bytes: &'a [u8], fields: &mut Fields<'a>, rules: Rules) -> Result<Response, NoHead> {
    let mut head = httparse::Response::new(fields);
    let len = match rules.config().parse_response(&mut head, bytes) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) => return Err(NoHead::Partial),
        Err(httparse::Error::TooManyHeaders) => return Err(NoHead::TooLong),
        Err(httparse::Error::Version) if rules == Rules::AsClientsDo => {
            return response_of_later_version(bytes);
        }
        Err(_) => return Err(NoHead::Malformed),
    };
    let Some(status @ 100..=999) = head.code else { return Err(NoHead::Malformed) };
    let body = framing(head.headers, &bytes[..len], rules)?.unwrap_or(Body::UntilClose);
    let stated = head.headers.iter().filter_map(|field| {
        let place = stated::Place::of(field.name.as_bytes())?;
        Some((place.name(), stated::value(field.value).to_owned()))
    });
    let bent = rules != Rules::Strict || head.headers.iter().any(is_no_coding);
    Ok(Response { status, body, stated: stated.collect(), bent, len })
}

/// A response of HTTP/1 with a minor version that does not exist: it is one of the highest that does (RFC 9110 section 2.5).
fn response_of_later_version(bytes: &[u8]) -> Result<Response, NoHead> {
    const VERSION: &[u8] = b"HTTP/1.";
    let blank = bytes.len() - bytes.trim_ascii_start().len();
    let minor = blank + VERSION.len();
    if !bytes[blank..].starts_with(VERSION) || !matches!(bytes.get(minor), Some(b'2'..=b'9')) {
        return Err(NoHead::Malformed);
    }
    let mut known = bytes.to_vec();
    known[minor] = b'1';
    read_response(&known, &mut [httparse::EMPTY_HEADER; FEW_FIELDS], Rules::AsClientsDo)
}

/// The fields that frame a message.
fn frames(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"transfer-encoding") || name.eq_ignore_ascii_case(b"content-length")
}

/// `Transfer-Encoding: identity` was struck from the specification (RFC 7230 appendix A.2). Clients that do not give up take
/// it for none, as a rule.
fn is_no_coding(field: &httparse::Header<'_>) -> bool {
    field.name.eq_ignore_ascii_case("transfer-encoding")
        && field.value.trim_ascii().eq_ignore_ascii_case(b"identity")
}

/// The body as the fields announce it; `None` without an announcement (RFC 9112 section 6.3). Of a field that was left
/// out of the head, or a length that clients do not agree on, nothing is guessed.
fn framing(fields: &Fields<'_>, head: &[u8], rules: Rules) -> Result<Option<Body>, NoHead> {
    if rules == Rules::AsClientsDo {
        let names =
            head.split(|byte| *byte == b'\n').filter_map(|line| line.split(|byte| *byte == b':').next());
        let written = names.filter(|name| frames(name.trim_ascii())).count();
        if written != fields.iter().filter(|field| frames(field.name.as_bytes())).count() {
            return Err(NoHead::Malformed);
        }
    }
    let mut length = None;
    let mut coding: Option<&[u8]> = None;
    for field in fields {
        if is_no_coding(field) {
            continue;
        } else if field.name.eq_ignore_ascii_case("transfer-encoding") {
            coding = Some(field.value);
        } else if field.name.eq_ignore_ascii_case("content-length") {
            // A list of equal values is allowed; anything else would let two readers disagree about the message.
            for value in field.value.split(|byte| *byte == b',') {
                let text = std::str::from_utf8(value).map_err(|_| NoHead::Malformed)?.trim();
                // Who does not give up takes the sign for what it says.
                let text = text.strip_prefix('+').filter(|_| rules == Rules::AsClientsDo).unwrap_or(text);
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
        for bad in
            ["5\r\nContent-Length: 6", "5, 6", "-5", "++5", "", "5\x01", "5\r\n 5", "99999999999999999999999"]
        {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {bad}\r\n\r\n");
            assert_eq!(response(head.as_bytes()), Err(NoHead::Malformed), "{bad}");
            assert_eq!(status(head.as_bytes()), 200, "{bad}");
        }
    }

    #[test]
    fn what_clients_read_of_an_answer_is_read_and_said_to_be_bent() {
        let lines = "X-Many: a\r\n".repeat(1_000);
        for line in [
            "X-A: one\r\n  two",
            "X-A : one",
            "X A: one",
            "X(A): one",
            "X-\u{c4}: one",
            "X-A: a\x01b\x7f",
            "nonsense",
            ": v",
            lines.trim_end(),
        ] {
            let head = format!("HTTP/1.1 200 OK\r\n{line}\r\nContent-Length : 2\r\nRetry-After: 3\r\n\r\n");
            let read = response(head.as_bytes()).unwrap();
            assert_eq!((read.status, &read.body, read.len), (200, &Body::Length(2), head.len()), "{line}");
            assert_eq!(read.stated, [("retry-after", "3".to_owned())], "{line}");
            assert!(read.bent);
            for end in 1..head.len().min(200) {
                assert_eq!(response(&head.as_bytes()[..end]), Err(NoHead::Partial), "{line} up to {end}");
            }
        }
        let plus = response(b"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\n").unwrap();
        assert_eq!((plus.body, plus.bent), (Body::Length(2), true));
        let identity = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Identity\r\nContent-Length: 2\r\n\r\n";
        assert_eq!(response(identity).map(|read| (read.body, read.bent)), Ok((Body::Length(2), true)));
        let later = response(b"\r\nHTTP/1.2 404 None\r\nContent-Length: 2\r\n\r\n").unwrap();
        assert_eq!((later.status, later.body, later.bent), (404, Body::Length(2), true));
        assert!(!response(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n").unwrap().bent);
    }

    #[test]
    fn a_request_that_bends_the_rules_is_read_unless_it_is_framed_so() {
        for line in ["X(A): b\r\nX B: c", "X-A: a\r\n b", "X-\u{c4}: b", "nonsense"] {
            let head = format!("POST /a HTTP/1.1\r\nHost: h\r\n{line}\r\nContent-Length: 2\r\n\r\n");
            let read = request(head.as_bytes()).unwrap();
            assert_eq!((read.host.as_str(), read.body), ("h", Body::Length(2)), "{line}");
        }
        for line in ["Content-Length : 2", "Transfer-Encoding : chunked", "Content-Length: 2\x01"] {
            let head = format!("POST /a HTTP/1.1\r\nHost: h\r\n{line}\r\n\r\n");
            assert_eq!(request(head.as_bytes()), Err(NoHead::Malformed), "{line}");
        }
    }

    #[test]
    fn the_status_is_that_of_a_status_line_of_http_and_of_nothing_else() {
        for (head, expected) in [
            ("HTTP/1.1 200 OK\r\n\0", 200),
            ("\r\nHTTP/1.0 404\r\n", 404),
            ("HTTP/2 200\r\n", 200),
            ("HTTP/1.1 200", 0),
            ("HTTP/1.1 20 OK", 0),
            ("HTTP/1.1 +20 OK", 0),
            ("HTTP/1.1 099 OK", 0),
            ("HTTP/ 200 OK", 0),
            ("ICY 200 OK\r\n", 0),
            ("<html>200 ", 0),
            ("", 0),
        ] {
            assert_eq!(status(head.as_bytes()), expected, "{head}");
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
