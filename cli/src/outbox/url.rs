//! URLs for people to see.

/// A URL with the names in its query, and without what may be secret: their values, and the user's name and password.
pub(super) fn without_values(url: &str) -> String {
    const HIDDEN: &str = "(hidden)";
    let (place, query) = url.split_once('?').map_or((url, None), |(place, query)| (place, Some(query)));
    let place = match place
        .split_once("://")
        .map(|(scheme, rest)| (scheme, rest.split_once('/').unwrap_or((rest, ""))))
    {
        Some((scheme, (authority, path))) if authority.contains('@') => {
            let host = authority.rsplit('@').next().unwrap_or_default();
            format!("{scheme}://{HIDDEN}@{host}/{path}")
        }
        _ => place.to_owned(),
    };
    let Some(query) = query else { return place };
    let part = |part: &str| match part.split_once('=') {
        Some((name, _)) => format!("{name}={HIDDEN}"),
        None if part.is_empty() => String::new(),
        // A value alone, as some take a token.
        None => HIDDEN.into(),
    };
    format!("{place}?{}", query.split('&').map(part).collect::<Vec<_>>().join("&"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_shown_without_what_may_be_secret() {
        for (url, shown) in [
            (
                "https://a.example/v1?x=1&key=s3cret&&y",
                "https://a.example/v1?x=(hidden)&key=(hidden)&&(hidden)",
            ),
            ("https://me:s3cret@a.example/v1?k=a=b", "https://(hidden)@a.example/v1?k=(hidden)"),
            ("https://a.example/v1/@me", "https://a.example/v1/@me"),
            ("https://a.example/?", "https://a.example/?"),
        ] {
            assert_eq!(without_values(url), shown);
        }
    }
}
