//! Where a key would be right that is unknown where it stands: a line above or below a header too far lands in
//! another table than was meant.

use super::section::{Section, known};
use crate::matcher::Field;

/// More places than these tell nobody where a key belongs.
const MAX_PLACES: usize = 3;

/// The keys of the whole file.
pub(super) struct Elsewhere {
    /// Those before the first header.
    top: Vec<&'static str>,
    /// Those of each table, beside its header.
    tables: Vec<(String, Vec<&'static str>)>,
}

impl Elsewhere {
    /// Learns the keys from those who read them: `read` is shown each table without anything in it.
    pub(super) fn learn(read: &dyn Fn(&mut Section<'_, '_>)) -> Self {
        let (mut top, mut tables) = (Vec::new(), Vec::new());
        for key in known("", None, read) {
            let headers = [format!("[{key}]"), format!("[[{key}]]")];
            match headers.map(|header| (known(&header, Some(key), read), header)) {
                [(keys, header), _] | [_, (keys, header)] if !keys.is_empty() => tables.push((header, keys)),
                _ => top.push(key),
            }
        }
        Self { top, tables }
    }

    /// Where `key` belongs, to complete the sentence "it belongs ..."; `known` are the keys of where it stands.
    pub(super) fn place_of(&self, key: &str, known: &[&str]) -> Option<String> {
        if known.contains(&"match") && Field::ALL.iter().any(|field| is_part(key, field.as_str())) {
            return Some("in `match`, as in `match = { vendor = \"...\" }`".to_owned());
        }
        if self.top.contains(&key) {
            return Some("at the top of the file, before the first [table]".to_owned());
        }
        let tables = self.tables.iter().filter(|(_, keys)| keys.contains(&key));
        let headers: Vec<&str> = tables.map(|(header, _)| header.as_str()).collect();
        let few = (1..=MAX_PLACES).contains(&headers.len());
        few.then(|| format!("in {}", headers.join(" or ")))
    }
}

/// Whether `key` is `whole`, or the `caller` of `caller.service`.
fn is_part(key: &str, whole: &str) -> bool {
    whole.strip_prefix(key).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

#[cfg(test)]
mod tests {
    use crate::Config;

    /// What is said of the only error of a file.
    fn hint(text: &str) -> String {
        let (_, errors) = Config::read("f", text);
        let unknown: Vec<&str> =
            errors.iter().map(|error| &*error.message).filter(|error| error.contains("unknown")).collect();
        assert_eq!(unknown.len(), 1, "{errors:?}");
        unknown[0].split_once("; ").unwrap().1.to_owned()
    }

    #[test]
    fn a_key_of_another_table_is_sent_there() {
        let top = "it belongs at the top of the file, before the first [table]";
        let cases = [
            ("retention = \"30d\"", "it belongs in [ledger]"),
            ("max_series = 100", "it belongs in [ledger]"),
            ("webhook = \"https://a.example\"", "it belongs in [alarm]"),
            ("verdict = \"deny\"", "it belongs in [[policy]]"),
            ("[ledger]\nservice = \"x\"", top),
            ("[[cache]]\nmatch = {}\npolicy_mode = \"report\"", top),
            ("[advise]\nretention = \"30d\"", "it belongs in [ledger]"),
            ("[[cache]]\nretention = \"30d\"", "it belongs in [ledger]"),
        ];
        for (text, expected) in cases {
            assert_eq!(hint(text), expected, "{text}");
        }
    }

    #[test]
    fn a_condition_beside_a_match_is_sent_into_it() {
        let expected = "it belongs in `match`, as in `match = { vendor = \"...\" }`";
        for key in ["vendor", "customer", "caller.service"] {
            assert_eq!(hint(&format!("[[budget]]\n{key} = \"x\"")), expected, "{key}");
        }
    }

    #[test]
    fn a_typing_mistake_or_a_key_of_everywhere_is_no_matter_of_place() {
        assert_eq!(hint("[ledger]\nretentoin = \"30d\""), "did you mean `retention`?");
        assert!(hint("name = \"x\"").starts_with("the keys here are `service`"));
        assert!(hint("0 = 1").starts_with("the keys here are `service`"));
    }
}
