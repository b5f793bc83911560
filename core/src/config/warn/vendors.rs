//! Domains in a vendor's place of which the catalogue names hosts: calls to these are a named vendor's, and no rule of the
//! domain's.

use super::conditions::Known;
use crate::matcher::Text;

/// More hosts than these tell nobody whom to write.
const MAX_SHOWN: usize = 3;

impl Known<'_> {
    /// Whose the calls to a domain are of which a rule names no more than what nobody named; `texts` are all of its
    /// condition. `None` where the rule names one of these vendors, too.
    pub(super) fn beside(&self, text: &str, texts: &[&str]) -> Option<String> {
        let named = self.below(text);
        let sign = |text: &str| text.trim_start().starts_with('!');
        let meant = |vendor: &str| {
            let of_same_sign = texts.iter().filter(|other| sign(other) == sign(text));
            of_same_sign
                .map(|other| other.trim().trim_start_matches('!'))
                .any(|other| Text::new(other).matches(vendor))
        };
        if named.is_empty() || named.iter().any(|(_, vendor)| meant(vendor)) {
            return None;
        }
        let remedy = if named.len() == 1 { "write that, or both" } else { "write these, or them beside it" };
        Some(format!("{}: {remedy}", whose(text, &named)))
    }

    /// The same of a price, which has one vendor.
    pub(super) fn beside_price(&self, vendor: &str) -> Option<String> {
        let named = self.below(vendor);
        let remedy = if named.len() == 1 { "write that" } else { "write one of these" };
        (!named.is_empty()).then(|| format!("{}: {remedy}", whose(vendor, &named)))
    }

    /// Of each vendor that has a host below a domain the first such, and its name. None of what is itself a vendor's name.
    pub(super) fn below(&self, text: &str) -> Vec<(&str, &str)> {
        let domain = bare(text).to_lowercase();
        let mut found: Vec<(&str, &str)> = Vec::new();
        if !domain.contains('.') || domain.contains('*') || self.vendor(&domain).is_some() {
            return found;
        }
        for vendor in self.vendors() {
            let below = vendor.hosts.iter().find(|host| {
                let rest = host.strip_suffix(&*domain);
                rest.is_some_and(|rest| rest.ends_with('.'))
            });
            found.extend(below.map(|host| (host.as_str(), vendor.name.as_str())));
        }
        found.truncate(MAX_SHOWN);
        found
    }
}

fn bare(text: &str) -> &str {
    let text = text.trim();
    text.strip_prefix('!').unwrap_or(text).trim()
}

fn whose(text: &str, named: &[(&str, &str)]) -> String {
    let mut said = format!("`{}` is only what nobody named of that domain; ", bare(text));
    for (place, (host, vendor)) in named.iter().enumerate() {
        let begin = if place == 0 { "calls to" } else { ", to" };
        let are = if place == 0 { " are those of" } else { " those of" };
        said += &format!("{begin} `{host}`{are} `{vendor}`");
    }
    said
}

#[cfg(test)]
mod tests {
    use super::super::tests::warnings;

    const OWN: &str =
        "[[vendor]]\nname = \"search\"\nhosts = [\"search.acme.example\", \"*.acme.example\"]\n";

    fn of(vendor: &str) -> Vec<String> {
        warnings(&format!("[[policy]]\nmatch = {{ vendor = {vendor} }}\nverdict = \"deny\"\n{OWN}"))
    }

    #[test]
    fn a_domain_of_which_the_catalogue_names_the_hosts_is_told_with_their_vendor() {
        let stripe = "`stripe.com` is only what nobody named of that domain; calls to `api.stripe.com` are those of \
                      `stripe`: write that, or both";
        for (vendor, column, says) in [
            ("\"stripe.com\"", 20, stripe),
            ("\"!stripe.com\"", 20, stripe),
            ("[\"openai\", \"!stripe\", \"stripe.com\"]", 42, stripe),
            (
                "\" Acme.example\"",
                20,
                "`Acme.example` is only what nobody named of that domain; calls to `search.acme.example` are those of \
                 `search`: write that, or both",
            ),
        ] {
            assert_eq!(of(vendor), [format!("f:2:{column}: warning: {says}")], "{vendor}");
        }
        let several = of("\"azure.com\"");
        assert!(
            several.len() == 1 && several[0].ends_with(": write these, or them beside it"),
            "{several:?}"
        );
        assert!(several[0].contains("`azure`") && several[0].contains("`azure-openai`"), "{several:?}");
    }

    #[test]
    fn a_price_of_such_a_domain_is_told() {
        let price = |vendor: &str| {
            warnings(&format!("[[price]]\nvendor = \"{vendor}\"\ncall = \"1 USD / 1k calls\"\n"))
        };
        assert_eq!(
            price("stripe.com"),
            [
                "f:2:10: warning: `stripe.com` is only what nobody named of that domain; calls to `api.stripe.com` are those \
              of `stripe`: write that"
            ]
        );
        for fine in ["stripe", "sim.example"] {
            assert_eq!(price(fine), [""; 0], "{fine}");
        }
    }

    #[test]
    fn a_domain_that_nobody_named_is_a_vendor() {
        for fine in [
            "\"sim.example\"",
            "\"!example.com\"",
            "[\"stripe\", \"stripe.com\"]",
            "[\"!Stripe\", \"!stripe.com\"]",
            "[\"str*\", \"stripe.com\"]",
            "\"stripe*\"",
            "\"10.0.0.1\"",
            "\"my_host\"",
        ] {
            assert_eq!(of(fine), [""; 0], "{fine}");
        }
    }
}
