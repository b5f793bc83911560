//! Requests that are signed instead of carrying a secret: their `Authorization` is another one each time, and only a
//! part of it says who signed.

/// Schemes of such requests, and the parameters that say who signed. Of a scheme whose parameter is empty the name of
/// the account stands before the first colon.
const SCHEMES: [(&[u8], &[&[u8]]); 13] = [
    // AWS Signature Version 4 and 4A, and those that are like it.
    (b"AWS4-*", &[b"Credential"]),
    (b"GOOG4-*", &[b"Credential"]),
    (b"TC3-*", &[b"Credential"]),
    (b"ACS3-*", &[b"Credential"]),
    (b"HMAC-SHA256", &[b"Credential"]),
    (b"EG1-*", &[b"client_token", b"access_token"]),
    // RFC 5849, RFC 7616, draft-cavage-http-signatures.
    (b"OAuth", &[b"oauth_consumer_key", b"oauth_token"]),
    (b"Digest", &[b"username", b"realm"]),
    (b"Signature", &[b"keyId"]),
    (b"Hawk", &[b"id"]),
    // Azure Storage, and AWS before version 4.
    (b"SharedKey", &[]),
    (b"SharedKeyLite", &[]),
    (b"AWS", &[]),
];

/// The parts of a signed request's `Authorization` that are the same in the next one; `None` where it is not signed, or
/// does not say by whom.
pub(super) fn signer(value: &[u8]) -> Option<[&[u8]; 2]> {
    let space = value.iter().position(|byte| *byte == b' ')?;
    let (scheme, rest) = (&value[..space], value[space..].trim_ascii());
    let (_, keys) = SCHEMES.iter().find(|(known, _)| match known.strip_suffix(b"*") {
        Some(prefix) => scheme.get(..prefix.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(prefix)),
        None => scheme.eq_ignore_ascii_case(known),
    })?;
    let first = match keys.first() {
        Some(key) => parameter(rest, key)?,
        None => &rest[..rest.iter().position(|byte| *byte == b':')?],
    };
    let second = keys.get(1).and_then(|key| parameter(rest, key)).unwrap_or_default();
    (!first.is_empty()).then_some([first, second])
}

/// The value of a parameter, quoted or not; of a `Credential` the key, without the scope behind it.
fn parameter<'v>(rest: &'v [u8], key: &[u8]) -> Option<&'v [u8]> {
    let between = |byte: &u8| matches!(byte, b' ' | b',' | b';' | b'&' | b'\t');
    let mut from = 0;
    loop {
        let at =
            from + rest.get(from..)?.windows(key.len()).position(|part| part.eq_ignore_ascii_case(key))?;
        from = at + key.len();
        if at > 0 && !between(&rest[at - 1]) {
            continue;
        }
        let Some(value) = rest[from..].trim_ascii_start().strip_prefix(b"=").map(<[u8]>::trim_ascii_start)
        else {
            continue;
        };
        let scoped = key.eq_ignore_ascii_case(b"Credential");
        let end = match value.strip_prefix(b"\"") {
            Some(quoted) => return Some(&quoted[..quoted.iter().position(|byte| *byte == b'"')?]),
            None => value.iter().position(|byte| between(byte) || (scoped && *byte == b'/')),
        };
        return Some(&value[..end.unwrap_or(value.len())]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn who_signed_is_found_in_every_scheme() {
        for (value, who) in [
            (
                "AWS4-HMAC-SHA256 Credential=AKIA1/20261122/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=ab",
                ("AKIA1", ""),
            ),
            ("AWS4-ECDSA-P256-SHA256 Credential=AKIA2/20261122/s3/aws4_request,Signature=cd", ("AKIA2", "")),
            ("OAuth realm=\"1\", oauth_token=\"t\", oauth_consumer_key=\"k\", oauth_nonce=\"n\"", ("k", "t")),
            ("oauth oauth_consumer_key=k,oauth_signature=oauth_token", ("k", "")),
            ("Digest username=\"Mu, fasa\", realm=\"a@b\", nonce=\"x\", cnonce=\"y\"", ("Mu, fasa", "a@b")),
            ("Signature keyId=\"https://a.example/k\",signature=\"z\"", ("https://a.example/k", "")),
            ("SharedKey account:ctzMq410TV3wS7upTBcunJTDLEJwMAZuFPfr0mrrA08=", ("account", "")),
            ("AWS AKIA3:frJIUN8DYpKDtOLCwo//yllqDzg=", ("AKIA3", "")),
            ("HMAC-SHA256 Credential=id&SignedHeaders=x&Signature=y", ("id", "")),
            ("EG1-HMAC-SHA256 client_token=c;access_token=a;timestamp=t", ("c", "a")),
        ] {
            assert_eq!(signer(value.as_bytes()), Some([who.0.as_bytes(), who.1.as_bytes()]), "{value}");
        }
        for value in [
            "",
            "sk-1",
            "Bearer Credential=1",
            "Basic QTpi",
            "OAuth ya29.a0",
            "AWS4-HMAC-SHA256 xCredential=1",
            "Signature ",
            "AWS nothing",
            "Digest username=\"",
            "AWS4-HMAC-SHA256 Credential=/x",
            "AWS4-HMAC-SHA256 Credential",
        ] {
            assert_eq!(signer(value.as_bytes()), None, "{value}");
        }
    }

    proptest! {
        #[test]
        fn no_value_makes_it_panic(
            scheme in 0..SCHEMES.len(),
            parts in proptest::collection::vec(prop::sample::select(vec!["Credential", "=", "\"", ",", "/", "a", " ", ":", "keyId", "oauth_token"]), 0..20),
        ) {
            let value = [SCHEMES[scheme].0, b" ", parts.concat().as_bytes()].concat();
            let _ = signer(&value);
        }
    }
}
