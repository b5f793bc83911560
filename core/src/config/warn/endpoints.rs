//! Endpoints that the catalogue of the vendor does not have, where it has one that is like it.

use super::conditions::Known;
use crate::catalogue::Vendor;

/// The most that two segments of a path differ by where one is the other misspelt; in short ones, one letter.
const MOST: usize = 2;
const SHORT: usize = 6;

impl Known<'_> {
    /// What is meant by an endpoint that none of these vendors has; `None` where one of them has it, or none has one that
    /// is like it: calls that no pattern names are learned.
    pub(super) fn no_endpoint(&self, vendors: &[&str], wanted: &str) -> Option<String> {
        let (method, path) = wanted.split_once(' ').filter(|(_, path)| path.starts_with('/'))?;
        if path.contains('*') || vendors.is_empty() {
            return None;
        }
        let of: Option<Vec<&Vendor>> = vendors.iter().map(|name| self.vendor(name)).collect();
        let mut nearest: Option<(usize, &str, &str)> = None;
        for vendor in of? {
            for known in vendor.endpoints.iter().map(crate::catalogue::Pattern::as_str) {
                let Some((by, of)) = known.split_once(' ') else { continue };
                if by != "*" && method != "*" && !by.eq_ignore_ascii_case(method) {
                    continue;
                }
                match distance(path, of) {
                    Some(0) => return None,
                    Some(far) if nearest.is_none_or(|(least, ..)| far < least) => {
                        nearest = Some((far, &vendor.label, known));
                    }
                    _ => {}
                }
            }
        }
        let (_, label, known) = nearest?;
        Some(format!("{label} has no endpoint `{wanted}` in the catalogue; did you mean `{known}`?"))
    }
}

/// How far two paths are from each other that differ in the spelling of one segment; `None` where they do otherwise.
fn distance(wanted: &str, known: &str) -> Option<usize> {
    let (wanted, known) = (wanted.to_lowercase(), known.to_lowercase());
    let (wanted, known): (Vec<&str>, Vec<&str>) = (wanted.split('/').collect(), known.split('/').collect());
    if wanted.len() != known.len() {
        return None;
    }
    let mut far = 0;
    for (wanted, known) in wanted.into_iter().zip(known) {
        // What stands for any text is written in many ways.
        if wanted == known || wanted.contains('{') && known.contains('{') {
            continue;
        }
        let letters = |text: &str| text.chars().filter(|one| !one.is_ascii_digit()).collect::<String>();
        let apart = strsim::osa_distance(wanted, known);
        let most = if known.len() < SHORT { 1 } else { MOST };
        // Another version is another endpoint.
        let misspelt = !known.contains('{') && apart <= most && letters(wanted) != letters(known);
        if far > 0 || known.len() < 4 || !misspelt {
            return None;
        }
        far = apart;
    }
    Some(far)
}

#[cfg(test)]
mod tests {
    use super::super::tests::warnings;

    fn of(conditions: &str) -> Vec<String> {
        warnings(&format!("[[policy]]\nmatch = {{ {conditions} }}\nverdict = \"warn\"\n"))
    }

    #[test]
    fn an_endpoint_that_is_like_one_of_the_catalogue_is_told() {
        assert_eq!(
            of("vendor = \"stripe\", endpoint = \"POST /v1/chargez\""),
            ["f:2:41: warning: Stripe has no endpoint `POST /v1/chargez` in the catalogue; did you mean \
                 `POST /v1/charges`?"]
        );
        for conditions in [
            "vendor = \"stripe\", endpoint = \"!POST /v1/chargez\"",
            "vendor = \"stripe\", endpoint = \"* /v1/chargez\"",
            "vendor = [\"github\", \"stripe\"], endpoint = [\"GET /v1/charges\", \"POST /v1/chrages\"]",
            "vendor = \"stripe\", endpoint = \"GET /v1/chargez/{id}\"",
        ] {
            let said = of(conditions);
            assert!(said.len() == 1 && said[0].contains("did you mean `"), "{conditions}: {said:?}");
        }
    }

    #[test]
    fn an_endpoint_that_the_catalogue_has_or_that_may_be_learned_is_no_warning() {
        for fine in [
            "vendor = \"stripe\", endpoint = \"POST /v1/charges\"",
            "vendor = \"stripe\", endpoint = \"POST /v1/Charges\"",
            "vendor = \"stripe\", endpoint = \"GET /v1/charges/{charge}\"",
            "vendor = \"stripe\", endpoint = \"POST /v1/charg*\"",
            "vendor = \"stripe\", endpoint = \"POST /v2/charges\"",
            "vendor = \"stripe\", endpoint = \"POST /v1/something_else\"",
            "vendor = \"*\", endpoint = \"POST /v1/chargez\"",
            "vendor = \"!stripe\", endpoint = \"POST /v1/chargez\"",
            "endpoint = \"POST /v1/chargez\"",
        ] {
            assert_eq!(of(fine), [""; 0], "{fine}");
        }
    }
}
