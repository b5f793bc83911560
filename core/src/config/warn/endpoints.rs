//! Endpoints that no call has: the catalogue of the vendor has one that is like it, or names its calls otherwise.

use super::conditions::Known;
use crate::catalogue::{Vendor, VendorIndex, normalise};
use crate::matcher::{Matcher, Subject};

/// The most that two segments of a path differ by where one is the other misspelt; in short ones, one letter.
const MOST: usize = 2;
const SHORT: usize = 6;

impl Known<'_> {
    /// What is meant by an endpoint that none of these vendors has; `None` where one of them has it, or none has one that
    /// is like it: calls that no pattern names are learned.
    pub(super) fn no_endpoint(&self, vendors: &[&str], wanted: &str) -> Option<String> {
        let (far, said) = self.nearest(vendors, wanted)?;
        (far > 0).then_some(said)
    }

    /// The endpoint of these vendors that is most like this one: how many letters are others, and a sentence that asks for it.
    pub(super) fn nearest(&self, vendors: &[&str], wanted: &str) -> Option<(usize, String)> {
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
                let far = distance(path, of);
                if let Some(far) = far.filter(|far| nearest.is_none_or(|(least, ..)| *far < least)) {
                    nearest = Some((far, &vendor.label, known));
                }
            }
        }
        let (far, label, known) = nearest?;
        Some((far, format!("{label} has no endpoint `{wanted}` in the catalogue; did you mean `{known}`?")))
    }
}

/// Whose calls a match is about; nobody's: anybody's.
pub(super) type Whose = Vec<Option<VendorIndex>>;

/// What a `*` in front of a path is tried with.
const COMMON: [&str; 6] = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD"];

impl Known<'_> {
    /// The vendors that a match names, by themselves or by their hosts; `None` for one that the catalogue has not.
    pub(super) fn whose(&self, vendors: &[&str], hosts: &[String]) -> Whose {
        let one = |text: &&str| !text.contains('*') && !text.starts_with('!');
        if !vendors.is_empty() {
            return if vendors.iter().all(one) {
                vendors.iter().map(|name| self.catalogue().named(name)).collect()
            } else {
                Whose::new()
            };
        }
        let hosts: Vec<&str> = hosts.iter().map(String::as_str).collect();
        if !hosts.iter().all(one) {
            return Whose::new();
        }
        hosts.iter().map(|host| self.catalogue().find(&host.to_lowercase())).collect()
    }

    /// What calls of this path have in its place: a template of the vendor's, or of what looks like an id. `None` where
    /// calls can have this.
    pub(super) fn named_otherwise(&self, whose: &Whose, wanted: &str) -> Option<String> {
        let matcher = Matcher::new([("endpoint", wanted)]).ok()?;
        self.instead(whose, wanted, &|endpoint, method| {
            matcher.matches(&Subject { endpoint, method, ..Subject::default() })
        })
    }

    /// The same where `is_meant` tells whether `wanted` stands for an endpoint, asked for by a method.
    pub(super) fn instead(
        &self,
        whose: &Whose,
        wanted: &str,
        is_meant: &dyn Fn(&str, &str) -> bool,
    ) -> Option<String> {
        let (method, path) = wanted.split_once(' ').filter(|(_, path)| path.starts_with('/'))?;
        let method = method.to_uppercase();
        // A learned one that was cut ends in `…`.
        let is_open = whose.is_empty() && path.contains('*') || path.contains('…');
        if is_open || self.no_method(&method).is_some() {
            return None;
        }
        let methods = if method == "*" { &COMMON[..] } else { &[method.as_str()] };
        let asked = path.split('?').next().unwrap_or(path).replace('*', "x");
        let catalogue = self.catalogue();
        let mut instead = None;
        for vendor in if whose.is_empty() { &[None][..] } else { whose } {
            let patterns = vendor.map_or(&[][..], |vendor| &catalogue.vendor(vendor).endpoints);
            for method in methods {
                if patterns.iter().any(|pattern| is_meant(pattern.as_str(), method)) {
                    return None;
                }
                let number = vendor.and_then(|vendor| catalogue.find_endpoint(vendor, method, &asked));
                let by = number.and(*vendor).map(|vendor| catalogue.vendor(vendor).label.as_str());
                let endpoint = match number {
                    Some(number) => catalogue.endpoint(number).to_string(),
                    // What a `*` stands for may be named in many ways.
                    None if path.contains('*') => return None,
                    None => normalise(method, &asked).as_str().to_owned(),
                };
                if is_meant(&endpoint, method) {
                    return None;
                }
                instead = instead.or(Some((endpoint, by)));
            }
        }
        let of_some = |vendor: &Vendor| {
            let mut patterns = vendor.endpoints.iter().map(crate::catalogue::Pattern::as_str);
            patterns.any(|pattern| methods.iter().any(|method| is_meant(pattern, method)))
        };
        if whose.is_empty() && catalogue.vendors().iter().any(of_some) {
            return None;
        }
        let (endpoint, by) = instead?;
        Some(match by {
            Some(label) => format!(
                "no call has the endpoint `{wanted}`: {label} has `{endpoint}` for it in the catalogue; write that, or \
                 name this path under `endpoints` of a [[vendor]]"
            ),
            None => format!(
                "no call has the endpoint `{wanted}`, but `{endpoint}`; write that, or name this path under \
                 `endpoints` of a [[vendor]]"
            ),
        })
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
    fn an_endpoint_that_calls_of_its_path_do_not_have_is_told_with_the_one_that_they_have() {
        let or_own = "write that, or name this path under `endpoints` of a [[vendor]]";
        let stripe = |wanted: &str| {
            format!(
                "no call has the endpoint `{wanted}`: Stripe has `GET /v1/customers/{{customer}}` for it in the \
                 catalogue; {or_own}"
            )
        };
        for (conditions, column, says) in [
            (
                "vendor = \"stripe\", endpoint = \"GET /v1/customers/cus_123\"",
                41,
                stripe("GET /v1/customers/cus_123"),
            ),
            (
                "vendor.name = \"stripe\", endpoint = \"!GET /v1/customers/cus_*\"",
                46,
                stripe("GET /v1/customers/cus_*"),
            ),
            (
                "host = \"api.stripe.com\", endpoint = \"get /v1/customers/cus_123/\"",
                47,
                stripe("get /v1/customers/cus_123/"),
            ),
            (
                "vendor = \"slack\", endpoint = [\"POST /api/chat.postMessage\"]",
                41,
                format!(
                    "no call has the endpoint `POST /api/chat.postMessage`: Slack has `* /api/{{method}}` for it in the \
                     catalogue; {or_own}"
                ),
            ),
            (
                "vendor = \"example.com\", endpoint = \"GET /users/12345?all=1\"",
                46,
                format!(
                    "no call has the endpoint `GET /users/12345?all=1`, but `GET /users/{{id}}`; {or_own}"
                ),
            ),
            (
                "endpoint = \"* /users/3f2a9c01\"",
                22,
                format!("no call has the endpoint `* /users/3f2a9c01`, but `GET /users/{{id}}`; {or_own}"),
            ),
        ] {
            assert_eq!(of(conditions), [format!("f:2:{column}: warning: {says}")], "{conditions}");
        }
    }

    #[test]
    fn an_endpoint_that_the_catalogue_has_or_that_may_be_learned_is_no_warning() {
        for fine in [
            "vendor = \"stripe\", endpoint = \"POST /v1/charges\"",
            "vendor = \"stripe\", endpoint = \"POST /v1/Charges\"",
            "vendor = \"stripe\", endpoint = \"GET /v1/charges/{id}\"",
            "vendor = \"stripe\", endpoint = \"* /v1/charges/{id}\"",
            "vendor = \"stripe\", endpoint = \"GET /v1/charges/*\"",
            "vendor = \"stripe\", endpoint = \"GET /v1/something/{else}\"",
            "vendor = \"slack\", endpoint = [\"POST /api/{name}\", \"POST /api/*\", \"* /api/{method}\"]",
            "vendor = \"example.com\", endpoint = \"GET /users/{name}\"",
            "vendor = [\"stripe\", \"example.com\"], endpoint = \"GET /v1/customers/me\"",
            "endpoint = \"GET /2010-04-01/Accounts/{id}/Messages.json\"",
            "endpoint = \"GET /v1/charges/{id}\"",
            "endpoint = \"GET /a/b/…\"",
            "host = \"*.stripe.com\", endpoint = \"GET /v1/customers/cus_123\"",
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
