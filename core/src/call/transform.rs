//! What a rule may change in a request: where it goes, and what it carries.

use super::Target;

/// A change to a request, declared in `farcall.toml`: another host, a path prefix, header fields.
///
/// Used by failover (the backup) and by rollouts (the variant). What it does not name stays as it was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Transform {
    /// `host`: the host to go to instead, in lower case and without brackets.
    pub host: Option<Box<str>>,
    /// The port that was written after the host; without one, the port stays, or becomes the scheme's default
    /// where the host changes.
    pub port: Option<u16>,
    /// `path_prefix`: what goes before the path; starts with a slash and does not end with one.
    pub path_prefix: Option<Box<str>>,
    /// `strip_prefix`: what is taken off the path first, where it begins with it.
    pub strip_prefix: Option<Box<str>>,
    /// `headers`: the fields to set, instead of those of the same name. Names are in lower case.
    pub headers: Vec<(Box<str>, Box<str>)>,
    /// `keep_credentials`: whether the request keeps its credentials when it goes to another host. Without it
    /// they are taken off ([`Transform::drops`]) before `headers` are set, so that one vendor's key is not
    /// shown to another.
    pub keep_credentials: bool,
}

/// The header fields that carry credentials, beside those the catalogue names for the vendor.
const CREDENTIALS: [&str; 7] = [
    "authorization",
    "proxy-authorization",
    "cookie",
    "x-api-key",
    "api-key",
    "x-goog-api-key",
    "x-amz-security-token",
];

impl Transform {
    /// Where a request for `target` goes instead. The new path is written into `path`, which the caller lends.
    /// The query is not part of a target: the adapter keeps it.
    #[must_use]
    pub fn target<'a>(&'a self, target: Target<'a>, path: &'a mut String) -> Target<'a> {
        path.clear();
        path.push_str(self.path_prefix.as_deref().unwrap_or_default());
        path.push_str(self.stripped(target.path));
        let default = if target.tls { 443 } else { 80 };
        let (host, port) = match self.host.as_deref() {
            Some(host) => (host, self.port.unwrap_or(default)),
            None => (target.host, self.port.unwrap_or(target.port)),
        };
        Target::new(target.tls, host, port, path)
    }

    /// Whether the field `name` (in lower case) must be taken off a request that was meant for `host`.
    #[must_use]
    pub fn drops(&self, name: &str, host: &str) -> bool {
        let moved = self.host.as_deref().is_some_and(|new| !new.eq_ignore_ascii_case(host));
        moved && !self.keep_credentials && CREDENTIALS.contains(&name)
    }

    fn stripped<'a>(&self, path: &'a str) -> &'a str {
        let Some(prefix) = self.strip_prefix.as_deref() else { return path };
        match path.strip_prefix(prefix) {
            Some("") => "/",
            // Whole segments only: `/v1` is no prefix of `/v10/items`.
            Some(rest) if rest.starts_with('/') => rest,
            _ => path,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moved(transform: &Transform, url: &str) -> String {
        let mut path = String::new();
        let target = transform.target(Target::parse(url).unwrap(), &mut path);
        format!("{}:{}{}", target.host, target.port, target.path)
    }

    #[test]
    fn only_what_is_named_changes() {
        let same = Transform::default();
        assert_eq!(moved(&same, "http://a.example:81/v1/x?q=1"), "a.example:81/v1/x");
        let host = Transform { host: Some("b.example".into()), ..Transform::default() };
        assert_eq!(moved(&host, "https://a.example:8443/v1/x"), "b.example:443/v1/x");
        let host = Transform { port: Some(9), ..host };
        assert_eq!(moved(&host, "https://a.example/v1/x"), "b.example:9/v1/x");
    }

    #[test]
    fn prefixes_change_by_whole_segments() {
        let transform = Transform {
            path_prefix: Some("/eu".into()),
            strip_prefix: Some("/v1".into()),
            ..Transform::default()
        };
        assert_eq!(moved(&transform, "https://a.example/v1/x"), "a.example:443/eu/x");
        assert_eq!(moved(&transform, "https://a.example/v1"), "a.example:443/eu/");
        assert_eq!(moved(&transform, "https://a.example/v10/x"), "a.example:443/eu/v10/x");
    }

    #[test]
    fn another_host_does_not_see_the_credentials_of_the_first() {
        let mut transform = Transform { host: Some("b.example".into()), ..Transform::default() };
        assert!(transform.drops("authorization", "a.example"));
        assert!(transform.drops("x-api-key", "a.example"));
        assert!(!transform.drops("accept", "a.example"));
        assert!(!transform.drops("authorization", "B.example"), "it was meant for this host");
        transform.keep_credentials = true;
        assert!(!transform.drops("authorization", "a.example"));
        assert!(!Transform::default().drops("authorization", "a.example"), "it stays where it was");
    }
}
