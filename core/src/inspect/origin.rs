//! Where a credential's value came from: the environment variable that holds it.

use super::{FIELDS, Fingerprinter};
use crate::call::Headers;
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use std::fmt;

/// Shorter values are words, not credentials, and stand in many places.
const SHORTEST: usize = 12;
const LONGEST: usize = 8 * 1024;
/// Variables beyond this many are not looked at.
const MOST: usize = 4_096;

/// The names of environment variables, by the fingerprints of their values. The values are not kept.
pub(crate) struct Origins {
    fingerprinter: Fingerprinter,
    names: HashMap<u64, Box<str>, FixedState>,
}

impl Origins {
    /// Of these variables; where two have one value, the first by name holds it.
    pub(crate) fn new<'a>(
        fingerprinter: Fingerprinter,
        variables: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Self {
        let mut names: HashMap<u64, Box<str>, FixedState> = HashMap::default();
        for (name, value) in variables.into_iter().take(MOST) {
            if !(SHORTEST..=LONGEST).contains(&value.len()) {
                continue;
            }
            let entry =
                names.entry(fingerprinter.of_value(Some(value.as_bytes()))).or_insert_with(|| name.into());
            if name < &**entry {
                *entry = name.into();
            }
        }
        Self { fingerprinter, names }
    }

    /// The variable that holds the credential in these headers: as it stands there, after a scheme (`Bearer`), or as
    /// name or password of `Basic` (RFC 7617). Empty where none does.
    pub(crate) fn of(&self, headers: &dyn Headers) -> &str {
        if self.names.is_empty() {
            return "";
        }
        let Some(value) = FIELDS.iter().find_map(|name| headers.get(name)) else { return "" };
        let value = value.trim_ascii();
        let bare = value.iter().position(|byte| *byte == b' ').map(|at| value[at..].trim_ascii());
        let basic = bare
            .filter(|_| value.get(..6).is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"basic ")))
            .and_then(decoded);
        let (user, password) = match &basic {
            Some(pair) => match pair.iter().position(|byte| *byte == b':') {
                Some(at) => (Some(&pair[..at]), Some(&pair[at + 1..])),
                None => (None, None),
            },
            None => (None, None),
        };
        // The password is the secret one of the two.
        let candidates = [Some(value), bare, password, user];
        candidates.into_iter().flatten().find_map(|value| self.holder(value)).unwrap_or("")
    }

    fn holder(&self, value: &[u8]) -> Option<&str> {
        self.names.get(&self.fingerprinter.of_value(Some(value))).map(|name| &**name)
    }
}

impl fmt::Debug for Origins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Origins").field("names", &self.names.len()).finish_non_exhaustive()
    }
}

/// What base64 (RFC 4648, section 4) stands for; `None` where it is none.
fn decoded(text: &[u8]) -> Option<Vec<u8>> {
    let text = &text[..text.iter().rposition(|byte| *byte != b'=').map_or(0, |last| last + 1)];
    if text.len() > LONGEST {
        return None;
    }
    let mut bytes = Vec::with_capacity(text.len() * 3 / 4);
    let (mut held, mut bits) = (0_u32, 0);
    for byte in text {
        let six = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        held = (held << 6 | u32::from(six)) & 0xFFFF;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push((held >> bits) as u8);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(field: &str, value: &str) -> String {
        let variables = [
            ("OPENAI_API_KEY", "sk-proj-0123456789"),
            ("A_COPY", "sk-proj-0123456789"),
            ("MODE", "production"),
            ("TWILIO_SID", "AC0123456789abcdef"),
            ("TWILIO_TOKEN", "fedcba9876543210"),
            ("STRIPE_KEY", "sk_test_0123456789"),
        ];
        let origins = Origins::new(Fingerprinter::new([7; 16]), variables);
        assert!(!format!("{origins:?}").contains("sk-"));
        origins.of(&[(field, value)].as_slice()).to_owned()
    }

    #[test]
    fn a_credential_is_found_in_the_environment_however_it_is_sent() {
        for (field, value, name) in [
            ("authorization", "Bearer sk-proj-0123456789", "A_COPY"),
            ("Authorization", "bearer   sk-proj-0123456789 ", "A_COPY"),
            ("x-api-key", "sk-proj-0123456789", "A_COPY"),
            ("authorization", "Basic QUMwMTIzNDU2Nzg5YWJjZGVmOmZlZGNiYTk4NzY1NDMyMTA=", "TWILIO_TOKEN"),
            ("authorization", "basic c2tfdGVzdF8wMTIzNDU2Nzg5Og==", "STRIPE_KEY"),
        ] {
            assert_eq!(origin(field, value), name, "{value}");
        }
    }

    #[test]
    fn what_is_not_in_the_environment_has_no_origin() {
        for (field, value) in [
            ("authorization", "Bearer sk-proj-another"),
            ("authorization", "Basic !!!!"),
            ("authorization", "Basic"),
            ("authorization", ""),
            ("authorization", "Bearer production"),
            ("accept", "sk-proj-0123456789"),
        ] {
            assert_eq!(origin(field, value), "", "{value}");
        }
    }
}
