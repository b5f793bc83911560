//! Conditions of a `match` that no call can meet, for want of such a vendor, method, endpoint, country or kind of data.

use crate::catalogue::{Catalogue, Vendor, builtin};
use crate::config::Config;
use crate::config::matcher::bare_host;
use crate::config::nearest_name;
use crate::matcher::Text;
use std::cell::OnceCell;
use std::collections::BTreeSet;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The methods of IANA's registry, and some that are in wide use all the same.
const METHODS: &str = "GET POST PUT PATCH DELETE HEAD OPTIONS TRACE CONNECT ACL BASELINE-CONTROL BIND CHECKIN \
    CHECKOUT COPY LABEL LINK LOCK MERGE MKACTIVITY MKCALENDAR MKCOL MKREDIRECTREF MKWORKSPACE MOVE ORDERPATCH PRI \
    PROPFIND PROPPATCH QUERY REBIND REPORT SEARCH UNBIND UNCHECKOUT UNLINK UNLOCK UPDATE UPDATEREDIRECTREF \
    VERSION-CONTROL LIST PURGE NOTIFY SUBSCRIBE UNSUBSCRIBE";

/// The two-letter codes of ISO 3166-1.
const COUNTRIES: &str = "AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ \
    BR BS BT BV BW BY BZ CA CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE EG EH ER \
    ES ET FI FJ FK FM FO FR GA GB GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM HN HR HT HU ID IE IL IM \
    IN IO IQ IR IS IT JE JM JO JP KE KG KH KI KM KN KP KR KW KY KZ LA LB LC LI LK LR LS LT LU LV LY MA MC MD ME MF \
    MG MH MK ML MM MN MO MP MQ MR MS MT MU MV MW MX MY MZ NA NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK \
    PL PM PN PR PS PT PW PY QA RE RO RS RU RW SA SB SC SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV SX SY SZ TC TD \
    TF TG TH TJ TK TL TM TN TO TR TT TV TW TZ UA UG UM US UY UZ VA VC VE VG VI VN VU WF WS YE YT ZA ZM ZW";

/// Each text of a match, with its key and its place. `vendor.tag = ".."` and `vendor = { tag = ".." }` are the same.
pub(super) fn each_text(prefix: &str, table: &DeTable<'_>, each: &mut impl FnMut(&str, &str, usize)) {
    for (name, value) in table {
        let key = format!("{prefix}{}", name.get_ref());
        let mut text = |value: &Spanned<DeValue<'_>>| {
            if let Some(text) = value.get_ref().as_str() {
                each(&key, text, value.span().start);
            }
        };
        match value.get_ref() {
            DeValue::Table(inner) => each_text(&format!("{key}."), inner, each),
            DeValue::Array(items) => items.iter().for_each(text),
            _ => text(value),
        }
    }
}

/// What calls can have.
pub(super) struct Known<'c> {
    config: &'c Config,
    /// Made when the first endpoint is looked for in it.
    catalogue: OnceCell<Catalogue>,
    vendors: Vec<&'c Vendor>,
    kinds: Vec<&'c str>,
    methods: Vec<&'c str>,
}

impl<'c> Known<'c> {
    pub(super) fn new(config: &'c Config) -> Self {
        let replaced = |vendor: &Vendor| config.vendors.iter().any(|own| own.name == vendor.name);
        let vendors: Vec<_> =
            builtin().iter().filter(|vendor| !replaced(vendor)).chain(&config.vendors).collect();
        let endpoints = vendors.iter().flat_map(|vendor| &vendor.endpoints);
        let of_vendors = endpoints.filter_map(|endpoint| Some(endpoint.as_str().split_once(' ')?.0));
        let methods = METHODS.split_whitespace().chain(of_vendors.filter(|method| *method != "*"));
        let methods: Vec<_> = methods.collect::<BTreeSet<_>>().into_iter().collect();
        let kinds = config.data.iter().flat_map(|rule| &rule.then.kinds).map(String::as_str).collect();
        Self { config, catalogue: OnceCell::new(), vendors, kinds, methods }
    }

    /// How the engine finds vendors and endpoints.
    pub(super) fn catalogue(&self) -> &Catalogue {
        self.catalogue.get_or_init(|| Catalogue::new(self.config.vendors.clone()))
    }

    /// The vendors that calls can have, those of the file last.
    pub(super) fn vendors(&self) -> impl Iterator<Item = &'c Vendor> {
        self.vendors.iter().copied()
    }

    /// The vendor of this name; `None` for a text that stands for several.
    pub(super) fn vendor(&self, name: &str) -> Option<&'c Vendor> {
        self.vendors.iter().copied().find(|vendor| vendor.name.eq_ignore_ascii_case(name))
    }

    /// Why no call has what a condition asks for, and what to write instead.
    pub(super) fn objection(&self, key: &str, text: &str) -> Option<String> {
        let text = text.trim();
        let wanted = text.strip_prefix('!').unwrap_or(text).trim();
        match key {
            "vendor.tag" => {
                let tags = self.vendors.iter().flat_map(|vendor| &vendor.tags).map(String::as_str);
                let hint = hint(wanted, tags)?;
                let hint = hint.unwrap_or_else(|| "write it under `tags` of a [[vendor]]".into());
                Some(format!("no vendor has the tag `{wanted}`; {hint}"))
            }
            "data" => {
                let hint = hint(wanted, self.kinds.iter().copied())?;
                let hint = hint.unwrap_or_else(|| "write a [[data]] with it among its `kinds`".into());
                Some(format!("no [[data]] declares `{wanted}`; {hint}"))
            }
            "country" => {
                let seats = self.vendors.iter().filter_map(|vendor| vendor.country.as_deref());
                let _ = hint(wanted, COUNTRIES.split_whitespace().chain(seats))?;
                let remedy = match wanted.eq_ignore_ascii_case("UK") {
                    true => "did you mean `GB`?",
                    false => "write them as in \"DE\"",
                };
                Some(format!("`{wanted}` is not the two letters of a country (ISO 3166-1); {remedy}"))
            }
            "method" => self.no_method(wanted),
            "host" => no_host(wanted),
            "endpoint" => match wanted.split_once(' ') {
                // A `*` in front stands for methods, too.
                _ if wanted.starts_with('*') => None,
                None if wanted.starts_with('/') => Some(format!(
                    "an endpoint begins with its method, which `{wanted}` has not; write `POST {wanted}`, or \
                     `* {wanted}` for any method"
                )),
                Some((method, path)) if path.starts_with('/') => self.no_method(method),
                Some((method, url)) => {
                    let (_, rest) = url.split_once("://")?;
                    let path = rest.find('/').map_or("/", |slash| &rest[slash..]);
                    Some(format!(
                        "an endpoint has no host; write `{method} {path}`, and the host under `host`"
                    ))
                }
                None => None,
            },
            _ => None,
        }
    }

    pub(super) fn no_method(&self, wanted: &str) -> Option<String> {
        let hint = hint(&wanted.to_uppercase(), self.methods.iter().copied())?;
        let hint = hint.unwrap_or_else(|| "write one such as `GET` or `POST`".into());
        Some(format!("`{wanted}` is no method of HTTP; {hint}"))
    }
}

/// Why this is no host as calls have one, and how to write it.
fn no_host(wanted: &str) -> Option<String> {
    let bare = bare_host(wanted);
    let bare = bare.strip_prefix('.').map_or_else(|| bare.to_owned(), |domain| format!("*.{domain}"));
    if bare == wanted {
        return None;
    }
    let hint = if bare.is_empty() { "api.example.com" } else { &bare };
    Some(format!("`{wanted}` is no host, which has no scheme, port or path; write `{hint}`"))
}

/// `None` where one of these is wanted; else the one that it is most like, if any.
#[allow(clippy::option_option)] // Whether there is anything to say, and whether a name helps.
pub(super) fn hint<'k>(wanted: &str, known: impl Iterator<Item = &'k str> + Clone) -> Option<Option<String>> {
    let pattern = Text::new(wanted);
    if known.clone().any(|known| pattern.matches(known)) {
        return None;
    }
    Some(nearest_name(wanted, known).map(|nearest| format!("did you mean `{nearest}`?")))
}

#[cfg(test)]
mod tests {
    use super::super::tests::warnings;

    /// What is said of a match, at the place of its only text.
    fn of_match(condition: &str, rest: &str) -> Vec<String> {
        warnings(&format!("[[policy]]\nmatch = {{ {condition} }}\nverdict = \"deny\"\n{rest}"))
    }

    #[test]
    fn a_match_that_no_call_can_meet_is_told_with_place_and_remedy() {
        for (condition, column, says) in [
            ("vendor.tag = \"paymnets\"", 24, "no vendor has the tag `paymnets`; did you mean `payments`?"),
            (
                "vendor = { tag = \"zzz\" }",
                28,
                "no vendor has the tag `zzz`; write it under `tags` of a [[vendor]]",
            ),
            (
                "vendor.tag = [\"llm\", \"zzz*\"]",
                32,
                "no vendor has the tag `zzz*`; write it under `tags` of a [[vendor]]",
            ),
            ("vendor.tag = \"!paymnets\"", 24, "no vendor has the tag `paymnets`; did you mean `payments`?"),
            ("method = \"GTE\"", 20, "`GTE` is no method of HTTP; did you mean `GET`?"),
            ("method = \"xyz\"", 20, "`xyz` is no method of HTTP; write one such as `GET` or `POST`"),
            (
                "endpoint = \"/v1/charges\"",
                22,
                "an endpoint begins with its method, which `/v1/charges` has not; write `POST /v1/charges`, or \
                 `* /v1/charges` for any method",
            ),
            (
                "endpoint = \"GET https://api.stripe.com/v1/charges\"",
                22,
                "an endpoint has no host; write `GET /v1/charges`, and the host under `host`",
            ),
            (
                "host = \"api.stripe.com:443\"",
                18,
                "`api.stripe.com:443` is no host, which has no scheme, port or path; write `api.stripe.com`",
            ),
            (
                "host = \"!https://api.stripe.com/v1\"",
                18,
                "`https://api.stripe.com/v1` is no host, which has no scheme, port or path; write `api.stripe.com`",
            ),
            (
                "host = \"[::1]:8080\"",
                18,
                "`[::1]:8080` is no host, which has no scheme, port or path; write `::1`",
            ),
            (
                "host = [\"10.0.0.1\", \".stripe.com\"]",
                31,
                "`.stripe.com` is no host, which has no scheme, port or path; write `*.stripe.com`",
            ),
            ("endpoint = \"PSOT /v1/charges\"", 22, "`PSOT` is no method of HTTP; did you mean `POST`?"),
            ("data = \"crad\"", 18, "no [[data]] declares `crad`; did you mean `card`?"),
            ("data = \"pan\"", 18, "no [[data]] declares `pan`; write a [[data]] with it among its `kinds`"),
            (
                "country = \"Germany\"",
                21,
                "`Germany` is not the two letters of a country (ISO 3166-1); write them as in \"DE\"",
            ),
            (
                "country = \"!UK\"",
                21,
                "`UK` is not the two letters of a country (ISO 3166-1); did you mean `GB`?",
            ),
        ] {
            let said = of_match(condition, "[[data]]\nmatch = {}\nkinds = [\"card\"]\n");
            assert_eq!(said, [format!("f:2:{column}: warning: {says}")], "{condition}");
        }
    }

    #[test]
    fn what_calls_can_have_is_not_warned_of() {
        let own = "[[vendor]]\nname = \"in-house\"\nhosts = [\"search\"]\ntags = [\"ours\"]\ncountry = \"XK\"\n\
                   endpoints = [\"BREW /pot\"]\n[[data]]\nmatch = {}\nkinds = [\"card\"]\n";
        for condition in [
            "vendor.tag = \"Payments\"",
            "vendor.tag = [\"!llm\", \"ours\"]",
            "vendor.tag = \"pay*\"",
            "method = [\"get\", \"!P*\", \"PROPFIND\", \"BREW\"]",
            "tag.method = \"GTE\"",
            "customer = \"/v1\"",
            "endpoint = [\"* /v1/charges\", \"*/charges\", \"P* /v1\", \"GET *\", \"GET*\", \"brew /pot\"]",
            "data = \"card\"",
            "host = [\"*.Stripe.com\", \"::1\", \"fe80::*\", \"localhost\", \"my_host\", \"*\"]",
            "data = \"*\"",
            "country = [\"de\", \"!US\", \"XK\", \"D*\"]",
        ] {
            assert_eq!(of_match(condition, own), [""; 0], "{condition}");
        }
    }

    #[test]
    fn every_country_and_method_of_the_catalogue_is_known() {
        for vendor in crate::catalogue::builtin() {
            if let Some(country) = &vendor.country {
                assert!(super::COUNTRIES.split_whitespace().any(|known| known == country), "{country}");
            }
        }
        let codes: Vec<&str> = super::COUNTRIES.split_whitespace().collect();
        assert!(codes.len() == 249 && codes.is_sorted_by(|a, b| a < b));
    }
}
