//! What `failover` and `variant` change in a request: `host`, `path_prefix`, `headers`.

use super::section::Section;
use crate::call::{Changes, Target};
use http::{HeaderName, HeaderValue};
use toml::de::DeValue;

/// Where the application's own credentials would be; beside these the vendor's names are not known here.
const CREDENTIALS: [&str; 5] = ["authorization", "x-api-key", "api-key", "x-goog-api-key", "cookie"];
/// What frames or routes a message is the transport's.
const FRAMING: [&str; 6] = ["host", "content-length", "transfer-encoding", "connection", "upgrade", "te"];

/// Reads the changes; `None` where something is wrong with them, which was reported. `what` is the table's key.
pub(super) fn read(section: &mut Section<'_, '_>, what: &str) -> Option<Changes> {
    let host = section.checked_string("host", host);
    let path_prefix = section.checked_string("path_prefix", path_prefix);
    let headers = headers(section);
    let keep_credentials = section.boolean("keep_credentials");

    let headers = headers?;
    let whole = [
        ("host", host.is_some()),
        ("path_prefix", path_prefix.is_some()),
        ("keep_credentials", keep_credentials.is_some()),
    ];
    if whole.into_iter().any(|(key, read)| section.has(key) && !read) {
        return None;
    }
    if host.is_none() && path_prefix.is_none() && headers.is_empty() {
        section.says_nothing(format!("`{what}` changes nothing; write `host`, `path_prefix` or `headers`"));
        return None;
    }
    let own = headers.iter().any(|(name, _)| CREDENTIALS.contains(&name.as_str()));
    if host.is_some() && !own && keep_credentials.is_none() {
        // Not a default: a key that was made for one vendor must not reach another by an oversight.
        section.wrong(format!(
            "`{what}` sends the request to another host with the credentials it has; set that host's own under `headers`, or write `keep_credentials = true` if they are meant for both"
        ));
        return None;
    }
    if keep_credentials == Some(false) && !own {
        section.wrong(format!("`{what}` has no credentials of its own; set them under `headers`"));
        return None;
    }
    Some(Changes { host, path_prefix, headers, ..Changes::default() })
}

fn host(text: &str) -> Result<String, String> {
    let lower = text.trim().to_ascii_lowercase();
    let plain = !lower.contains(['/', '?', '#', '@', '\\', ' ', '*']) && !lower.ends_with(':');
    (plain && Target::parse(&format!("https://{lower}/")).is_some())
        .then_some(lower)
        .ok_or("a host; write `api.example.com` or `api.example.com:8443`, without scheme and path".into())
}

fn path_prefix(text: &str) -> Result<String, String> {
    let good = text.len() > 1
        && text.starts_with('/')
        && !text.ends_with('/')
        && text.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#\\".contains(&byte))
        && !text.split('/').skip(1).any(|segment| matches!(segment, "" | "." | ".."));
    good.then(|| text.to_owned())
        .ok_or("a path prefix; write it as in \"/eu\", with a slash in front only".into())
}

fn headers(section: &mut Section<'_, '_>) -> Option<Vec<(String, String)>> {
    let Some(value) = section.value("headers") else { return Some(Vec::new()) };
    let DeValue::Table(table) = value.get_ref() else {
        section.wrong_type(value, "`headers`", "a table", r#"write `headers = { "x-region" = "eu" }`"#);
        return None;
    };
    let (mut headers, mut good) = (Vec::new(), true);
    for (key, value) in table {
        let name: &str = key.get_ref();
        let Some(name) =
            HeaderName::from_bytes(name.as_bytes()).ok().filter(|name| !FRAMING.contains(&name.as_str()))
        else {
            section.wrong_at(
                key.span().start,
                format!("`{name}` is no header field that a rule can set; leave it out"),
            );
            good = false;
            continue;
        };
        match value.get_ref().as_str() {
            Some(text) if HeaderValue::from_str(text).is_ok() => {
                headers.push((name.as_str().to_owned(), text.to_owned()));
            }
            Some(_) => {
                section.wrong_at(
                    value.span().start,
                    format!("the value of `{name}` cannot be sent; write one line of text without control characters"),
                );
                good = false;
            }
            None => {
                section.wrong_type(value, &format!("`{name}`"), "a string", "write it in quotes");
                good = false;
            }
        }
    }
    good.then_some(headers)
}
