//! Prices of endpoints that no call has, and of what nobody named of a vendor's domain.

use super::Found;
use super::conditions::{Known, each_text};
use crate::catalogue::Pattern;
use crate::cost;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Looks at `[[price]]`, and at the prices within each `[[vendor]]`.
pub(super) fn prices(root: &DeTable<'_>, known: &Known<'_>, found: &mut Found) {
    for price in tables(root, "price") {
        let Some((vendor, place)) = text(price, "vendor") else { continue };
        found.said.extend(known.beside_price(vendor).map(|objection| (place, objection)));
        endpoints(price, vendor, known, found);
    }
    for vendor in tables(root, "vendor") {
        let Some((name, _)) = text(vendor, "name") else { continue };
        tables(vendor, "price").for_each(|price| endpoints(price, name, known, found));
    }
}

fn tables<'t, 'd>(table: &'t DeTable<'d>, key: &str) -> impl Iterator<Item = &'t DeTable<'d>> {
    let items = match table.get(key).map(Spanned::get_ref) {
        Some(DeValue::Array(items)) => items.iter().collect(),
        _ => Vec::new(),
    };
    items.into_iter().filter_map(|item| match item.get_ref() {
        DeValue::Table(table) => Some(table),
        _ => None,
    })
}

fn text<'t>(table: &'t DeTable<'_>, key: &str) -> Option<(&'t str, usize)> {
    let value = table.get(key)?;
    Some((value.get_ref().as_str()?, value.span().start))
}

fn endpoints(price: &DeTable<'_>, vendor: &str, known: &Known<'_>, found: &mut Found) {
    each_text("", price, &mut |key, text, place| {
        if matches!(key, "endpoint" | "endpoints") {
            found.said.extend(known.no_priced(vendor, text).map(|objection| (place, objection)));
        }
    });
}

impl Known<'_> {
    /// Why no call to a vendor has the endpoint of a price, and what to write instead. Prices know endpoints by their
    /// names alone: neither another method nor another case of letters is meant by them.
    fn no_priced(&self, vendor: &str, wanted: &str) -> Option<String> {
        let is_meant = |endpoint: &str| cost::is_for(wanted, endpoint);
        if wanted.starts_with('/') {
            return Some(format!(
                "an endpoint begins with its method, which `{wanted}` has not; write `POST {wanted}`"
            ));
        }
        if !wanted.starts_with("* ")
            && let Some(objection) = self.objection("endpoint", wanted)
        {
            return Some(objection);
        }
        let patterns = self.vendor(vendor).map_or(&[][..], |vendor| &vendor.endpoints);
        if patterns.iter().map(Pattern::as_str).any(is_meant) {
            return None;
        }
        let nearest = self.nearest(&[vendor], wanted).map(|(_, said)| said);
        let of_its_path =
            || self.instead(&self.whose(&[vendor], &[]), wanted, &|endpoint, _| is_meant(endpoint));
        nearest.or_else(of_its_path)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::warnings;

    fn of(vendor: &str, endpoint: &str) -> Vec<String> {
        let call = "call = \"1 USD / 1k calls\"\n";
        warnings(&format!("[[price]]\nvendor = \"{vendor}\"\nendpoint = \"{endpoint}\"\n{call}"))
    }

    #[test]
    fn a_price_of_an_endpoint_that_no_call_has_is_told_with_the_one_that_they_have() {
        let or_own = "write that, or name this path under `endpoints` of a [[vendor]]";
        let stripe = |wanted: &str, meant: &str| {
            format!("Stripe has no endpoint `{wanted}` in the catalogue; did you mean `{meant}`?")
        };
        for (vendor, endpoint, says) in [
            ("stripe", "POST /v1/chargez", stripe("POST /v1/chargez", "POST /v1/charges")),
            ("stripe", "POST /v1/Charges", stripe("POST /v1/Charges", "POST /v1/charges")),
            ("Stripe", "* /v1/charges", stripe("* /v1/charges", "POST /v1/charges")),
            (
                "stripe",
                "GET /v1/customers/cus_123",
                format!(
                    "no call has the endpoint `GET /v1/customers/cus_123`: Stripe has `GET /v1/customers/{{customer}}` for it \
                     in the catalogue; {or_own}"
                ),
            ),
            (
                "slack",
                "POST /api/{method}",
                "Slack has no endpoint `POST /api/{method}` in the catalogue; did you mean `* /api/{method}`?"
                    .to_owned(),
            ),
            (
                "slack",
                "POST /api/chat.postMessage",
                format!(
                    "no call has the endpoint `POST /api/chat.postMessage`: Slack has `* /api/{{method}}` for it in the \
                     catalogue; {or_own}"
                ),
            ),
            (
                "sim.example",
                "GET /users/12345",
                format!("no call has the endpoint `GET /users/12345`, but `GET /users/{{id}}`; {or_own}"),
            ),
            (
                "stripe",
                "/v1/charges",
                "an endpoint begins with its method, which `/v1/charges` has not; write `POST /v1/charges`".to_owned(),
            ),
            ("stripe", "PSOT /v1/charges", "`PSOT` is no method of HTTP; did you mean `POST`?".to_owned()),
        ] {
            assert_eq!(of(vendor, endpoint), [format!("f:3:12: warning: {says}")], "{vendor} {endpoint}");
        }
    }

    #[test]
    fn each_endpoint_of_a_list_and_of_a_vendors_own_prices_is_looked_at() {
        let said = warnings(
            "[[vendor]]\nname = \"maps\"\nhosts = [\"maps.example.com\"]\nendpoints = [\"GET /v1/route/{profile}\"]\n\
             [[vendor.price]]\nendpoints = [\"GET /v1/route/*\", \"GET /v1/ruote/{profile}\"]\n\
             call = \"5 USD / 1k calls\"\n",
        );
        assert!(said.len() == 1 && said[0].starts_with("f:6:33: warning: maps has no endpoint"), "{said:?}");
        assert!(said[0].ends_with("did you mean `GET /v1/route/{profile}`?"), "{said:?}");
    }

    #[test]
    fn a_price_of_an_endpoint_that_calls_can_have_is_no_warning() {
        for (vendor, endpoint) in [
            ("stripe", "POST /v1/charges"),
            ("stripe", "GET /v1/customers/{id}"),
            ("stripe", "POST /v1/*"),
            ("stripe", "*"),
            ("stripe", "POST /v2/charges"),
            ("slack", "* /api/{method}"),
            ("slack", "* /api/*"),
            ("sim.example", "GET /users/{id}"),
            ("sim.example", "POST /v1/score"),
            ("sim.example", "GET /v1/{rest*}"),
        ] {
            assert_eq!(of(vendor, endpoint), [""; 0], "{vendor} {endpoint}");
        }
    }
}
