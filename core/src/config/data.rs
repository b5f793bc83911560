//! `[[data]]`: the kinds of data that requests carry.

use super::section::Section;
use crate::inspect::Carried;
use toml::de::DeValue;

/// The most kinds that one rule declares.
const MOST: usize = 32;

/// Reads what follows from the match of one rule; `None` where something is wrong with it, which was reported.
pub(super) fn read(section: &mut Section<'_, '_>) -> Option<Carried> {
    let kinds = section.list("kinds", |kind| {
        let good = !kind.is_empty()
            && kind.len() <= 64
            && kind
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'.'));
        good.then(|| kind.to_owned())
            .ok_or("a kind of data; use lower case letters, digits, `-`, `_` and `.`".into())
    });
    if !section.has("kinds") {
        section.missing("kinds", "say what the requests carry, as in kinds = [\"card\", \"email\"]");
        return None;
    }
    let about_itself = section
        .value("match")
        .is_some_and(|value| matches!(value.get_ref(), DeValue::Table(table) if table.contains_key("data")));
    if about_itself {
        section.wrong("`match` looks at `data`, which these rules are to tell; leave it out");
        return None;
    }
    if kinds.len() > MOST {
        section.wrong("these are more than 32 kinds of data; no rule could tell them apart");
        return None;
    }
    (!kinds.is_empty()).then_some(Carried { kinds })
}

#[cfg(test)]
mod tests {
    use crate::Config;

    #[test]
    fn kinds_are_read_with_their_match() {
        let text = "[[data]]\nmatch = { vendor = \"stripe\", endpoint = \"POST /v1/tokens\" }\nkinds = [\"card\", \"name\"]\n";
        let config = Config::parse("f", text).unwrap();
        assert_eq!(config.data[0].then.kinds, ["card", "name"]);
    }

    #[test]
    fn what_says_nothing_or_goes_round_in_circles_is_an_error() {
        for (text, part) in [
            ("match = {}", "`kinds` is missing"),
            ("match = {}\nkinds = [\"E Mail\"]", "is not a kind of data"),
            ("match = { data = \"card\" }\nkinds = [\"pan\"]", "which these rules are to tell"),
            ("kinds = [\"card\"]", "`match` is missing"),
        ] {
            let errors = Config::parse("f", &format!("[[data]]\n{text}\n")).unwrap_err();
            assert!(errors.iter().any(|error| error.to_string().contains(part)), "{text}: {errors:?}");
        }
    }
}
