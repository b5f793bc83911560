//! `[[vendor.limit]]`, `[[vendor.refusal]]` and `[[vendor.retry]]`: how a vendor says what is left.

use super::section::Section;
use crate::quota::dialect::{
    Encoding, Form, LimitSpec, MAX_LIMITS, Meaning, RefusalSpec, RetrySource, RetrySpec, Scope, Spec, Unit,
};

/// Reads the dialect of one vendor; what is wrong in it was reported and is left out.
pub(super) fn read(section: &mut Section<'_, '_>) -> Spec {
    let mut spec = Spec::default();
    for (place, section) in section.tables("limit").iter_mut().enumerate() {
        let limit = limit(section);
        if place == MAX_LIMITS {
            section
                .wrong(format!("a vendor has at most {MAX_LIMITS} limits; leave out those that bind last"));
        }
        if place < MAX_LIMITS {
            spec.limits.extend(limit);
        }
    }
    for section in section.tables("refusal") {
        spec.refusals.extend(refusal(section));
    }
    for section in section.tables("retry") {
        spec.retries.extend(retry(section));
    }
    spec
}

/// A header's name, in lower case.
pub(super) fn header(section: &mut Section<'_, '_>, key: &'static str) -> Option<String> {
    section.checked_string(key, |name| {
        let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        let good = !name.is_empty() && name.len() <= 100 && name.bytes().all(token);
        good.then(|| name.to_ascii_lowercase())
            .ok_or("a header's name; write it as in `x-ratelimit-limit`".into())
    })
}

fn text(section: &mut Section<'_, '_>, key: &'static str) -> Option<String> {
    section.checked_string(key, |text| {
        let good = !text.is_empty() && text.len() <= 100;
        good.then(|| text.to_owned()).ok_or("a text of 1 to 100 bytes; write what the vendor sends".into())
    })
}

fn limit(section: &mut Section<'_, '_>) -> Option<LimitSpec> {
    let form = section.choice("form", &Form::WORDS).unwrap_or_default();
    // Inside one header the numbers have keys; else each has a header of its own.
    let number = if form == Form::Pairs { text } else { header };
    let unit = section.choice("unit", &Unit::WORDS).unwrap_or_default();
    let limit = LimitSpec {
        policy: text(section, "policy").unwrap_or_else(|| unit.as_str().to_owned()),
        named_by: header(section, "named_by"),
        unit,
        scope: section.choice("scope", &Scope::WORDS).unwrap_or_default(),
        form,
        header: header(section, "header"),
        key: text(section, "key"),
        limit: number(section, "limit"),
        limit_is: section.number("limit_is", 1..=1_000_000_000).map(|limit| limit as u64),
        remaining: number(section, "remaining"),
        used: number(section, "used"),
        item: section.number("item", 0..=15),
        reset: number(section, "reset"),
        reset_as: section.choice("reset_as", &Encoding::WORDS).unwrap_or_default(),
        window: section.duration("window"),
        window_header: header(section, "window_header"),
        window_as: section.choice("window_as", &Encoding::WORDS).unwrap_or_default(),
        fallback: section.boolean("fallback").unwrap_or(false),
    };
    check(section, limit)
}

/// Whether the keys fit the form.
fn check(section: &Section<'_, '_>, mut limit: LimitSpec) -> Option<LimitSpec> {
    let mut good = true;
    let mut wrong = |message: &str| {
        section.wrong(message);
        good = false;
    };
    let one_header = matches!(limit.form, Form::Fraction | Form::Pairs);
    let numbers = section.has("limit") || section.has("remaining") || section.has("used");
    if one_header && !section.has("header") {
        wrong("`header` is missing; a fraction and pairs are in one header, name it");
    }
    if !one_header && section.has("header") {
        wrong("`header` is for the forms \"fraction\" and \"pairs\"; name `limit`, `remaining` and `reset`");
    }
    match limit.form {
        Form::Plain if !numbers => {
            wrong("a limit without numbers; name at least one of `limit`, `remaining` and `used`")
        }
        Form::Pairs if !(section.has("remaining") || section.has("used")) => {
            wrong("a limit without numbers; name the key of `remaining` or of `used`");
        }
        Form::Fraction if numbers || section.has("reset") => {
            wrong(
                "a fraction holds used/limit and no more; leave out `limit`, `remaining`, `used` and `reset`",
            );
        }
        Form::Ietf if !numbers => {
            limit.limit = Some("ratelimit-policy".to_owned());
            limit.remaining = Some("ratelimit".to_owned());
        }
        _ => {}
    }
    if section.has("key") && limit.form != Form::Fraction {
        wrong("`key` is for the form \"fraction\"; leave it out");
    }
    if section.has("item") && limit.form != Form::Plain {
        wrong("`item` is for the form \"plain\"; leave it out");
    }
    if section.has("remaining") && section.has("used") {
        wrong("`remaining` and `used` say the same; keep the one that the vendor sends");
    }
    if section.has("used") && !section.has("limit") && !section.has("limit_is") {
        wrong("`used` says nothing without a limit; name `limit`, or write `limit_is`");
    }
    if section.has("limit") && section.has("limit_is") {
        wrong("`limit` and `limit_is` are two limits; keep the header where there is one");
    }
    if limit.form != Form::Ietf && section.has("reset") != section.has("reset_as") {
        wrong("`reset` and `reset_as` belong together; write both, such as reset_as = \"epoch-s\"");
    }
    if section.has("window_header") != section.has("window_as") {
        wrong("`window_header` and `window_as` belong together; write both, such as window_as = \"delta-s\"");
    }
    if matches!(limit.window_as, Encoding::EpochSeconds | Encoding::EpochMillis | Encoding::Date) {
        wrong("`window_as` is a length of time; write \"delta-s\", \"delta-ms\" or \"duration\"");
    }
    good.then_some(limit)
}

fn refusal(section: &mut Section<'_, '_>) -> Option<RefusalSpec> {
    let before = section.has("status");
    let status = section.numbers("status", 200..=599);
    if !before {
        section.missing("status", "a refusal is told by its status first, as in status = [429]");
    }
    let means = section.choice(
        "means",
        &[("rate", Meaning::Rate), ("exhausted", Meaning::Exhausted), ("other", Meaning::Other)],
    );
    if !section.has("means") {
        section.missing("means", "write \"rate\", \"exhausted\" or \"other\"");
    }
    let header = header(section, "header");
    let value = text(section, "value");
    if value.is_some() && !section.has("header") {
        section.missing("header", "`value` is the value of a header");
    }
    let body = section.list("body", |text| {
        let good = !text.is_empty() && text.len() <= 100;
        good.then(|| text.to_owned()).ok_or("a text of 1 to 100 bytes; write what the vendor sends".into())
    });
    let wait = section.duration("wait");
    let status: Vec<u16> = status.into_iter().filter_map(|status| u16::try_from(status).ok()).collect();
    // A rule that lost a condition to an error would match too much.
    let whole = section.has("header") == header.is_some()
        && section.has("value") == value.is_some()
        && section.has("body") != body.is_empty();
    match means {
        Some(means) if whole && !status.is_empty() => {
            Some(RefusalSpec { status, header, value, body, means, wait })
        }
        _ => None,
    }
}

fn retry(section: &mut Section<'_, '_>) -> Option<RetrySpec> {
    let (header, body) = (header(section, "header"), text(section, "body"));
    let encoding = section.choice("as", &Encoding::WORDS);
    if !section.has("as") {
        section.missing("as", "write how the time is written, such as as = \"delta-s\"");
    }
    let source = match (header, body) {
        (Some(header), None) => RetrySource::Header(header),
        (None, Some(body)) => RetrySource::Body(body),
        _ => {
            if section.has("header") == section.has("body") {
                section.wrong("a [[vendor.retry]] is in a header or in the body; name `header` or `body`");
            }
            return None;
        }
    };
    Some(RetrySpec::new(source, encoding?))
}

#[cfg(test)]
mod tests {
    use crate::config::Config;
    use crate::quota::dialect::{Answer, Dialect, Encoding, Form, Meaning, Refusal, Unit};
    use crate::units::Timestamp;

    const VENDOR: &str = "[[vendor]]\nname = \"v\"\nhosts = [\"v.example\"]\n";

    fn errors(text: &str) -> Vec<String> {
        let text = format!("{VENDOR}{text}");
        Config::parse("f", &text).unwrap_err().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn users_write_a_dialect_in_sections_as_well_as_in_lists() {
        let sections = "[[vendor.limit]]\npolicy = \"burst\"\nunit = \"points\"\nlimit = \"X-Max\"\nremaining = \"X-Left\"\nreset = \"X-Reset\"\nreset_as = \"epoch-ms\"\nwindow = \"10s\"\n[[vendor.refusal]]\nstatus = [400]\nbody = [\"slow down\"]\nmeans = \"rate\"\nwait = \"5s\"\n[[vendor.retry]]\nheader = \"X-Wait\"\nas = \"delta-ms\"\n";
        let lists = "limit = [{ policy = \"burst\", unit = \"points\", limit = \"x-max\", remaining = \"x-left\", reset = \"x-reset\", reset_as = \"epoch-ms\", window = \"10s\" }]\nrefusal = [{ status = [400], body = [\"slow down\"], means = \"rate\", wait = \"5s\" }]\nretry = [{ header = \"x-wait\", as = \"delta-ms\" }]\n";
        let read = |text: &str| {
            let text = format!("{VENDOR}idempotency_header = \"Idempotency-Key\"\n{text}");
            Config::parse("f", &text).unwrap().vendors.remove(0)
        };
        let vendor = read(sections);
        assert_eq!(vendor, read(lists));
        assert_eq!(vendor.idempotency_header.as_deref(), Some("idempotency-key"));
        let limit = &vendor.dialect.limits[0];
        assert_eq!(
            (limit.unit, limit.form, limit.reset_as),
            (Unit::Points, Form::Plain, Encoding::EpochMillis)
        );
        assert_eq!(vendor.dialect.refusals[0].means, Meaning::Rate);
    }

    #[test]
    fn every_mistake_says_where_it_is_and_what_to_write() {
        for (text, expected) in [
            (
                "[[vendor.limit]]\n",
                "f:4:1: a limit without numbers; name at least one of `limit`, `remaining` and `used`",
            ),
            (
                "[[vendor.limit]]\nremaining = \"x left\"\n",
                "f:5:13: `remaining` is not a header's name; write it as in `x-ratelimit-limit`",
            ),
            (
                "[[vendor.limit]]\nremaining = \"x-left\"\nreset = \"x-reset\"\n",
                "f:4:1: `reset` and `reset_as` belong together; write both, such as reset_as = \"epoch-s\"",
            ),
            (
                "[[vendor.limit]]\nremaining = \"x-left\"\nreset = \"x-reset\"\nreset_as = \"minutes\"\n",
                "f:7:12: `reset_as` is not one of \"auto\", \"epoch-s\", \"epoch-ms\", \"delta-s\", \"delta-ms\", \"duration\", \"date\", \"delta-s-or-date\"",
            ),
            (
                "[[vendor.limit]]\nform = \"fraction\"\n",
                "f:4:1: `header` is missing; a fraction and pairs are in one header, name it",
            ),
            (
                "[[vendor.limit]]\nused = \"x-used\"\n",
                "f:4:1: `used` says nothing without a limit; name `limit`, or write `limit_is`",
            ),
            (
                "[[vendor.limit]]\nlimit = \"x-max\"\nlimit_is = 0\n",
                "f:4:1: `limit` and `limit_is` are two limits; keep the header where there is one",
            ),
            (
                "[[vendor.limit]]\nremaining = \"a\"\nwindow_header = \"b\"\nwindow_as = \"epoch-s\"\n",
                "f:4:1: `window_as` is a length of time; write \"delta-s\", \"delta-ms\" or \"duration\"",
            ),
            (
                "[[vendor.limit]]\nremaning = \"a\"\n",
                "f:5:1: unknown key `remaning`; did you mean `remaining`?",
            ),
            (
                "[[vendor.refusal]]\nstatus = [42]\nmeans = \"rate\"\n",
                "f:5:11: an entry of `status` is out of range; give whole numbers between 200 and 599",
            ),
            (
                "[[vendor.refusal]]\nmeans = \"rate\"\n",
                "f:4:1: `status` is missing; a refusal is told by its status first, as in status = [429]",
            ),
            (
                "[[vendor.refusal]]\nstatus = [429]\nmeans = \"maybe\"\n",
                "f:6:9: `means` is not one of \"rate\", \"exhausted\", \"other\"",
            ),
            (
                "[[vendor.retry]]\nas = \"delta-s\"\n",
                "f:4:1: a [[vendor.retry]] is in a header or in the body; name `header` or `body`",
            ),
        ] {
            let errors = errors(text);
            assert!(errors.iter().any(|error| error == expected), "{text}\n{errors:#?}");
        }
    }

    #[test]
    fn a_wrong_entry_leaves_the_right_ones() {
        let text = format!(
            "{VENDOR}limit = [{{ policy = \"a\" }}, {{ remaining = \"x-left\" }}]\nrefusal = [{{ status = [400], body = [7], means = \"rate\" }}]\n"
        );
        let (config, errors) = Config::read("f", &text);
        assert_eq!(errors.len(), 2, "{errors:?}");
        let dialect = &config.vendors[0].dialect;
        assert_eq!(dialect.limits.len(), 1);
        assert!(dialect.refusals.is_empty(), "a rule without its condition would match every 400");
    }

    #[test]
    fn more_limits_than_any_vendor_has_are_refused() {
        let many = "[[vendor.limit]]\nremaining = \"x-left\"\n".repeat(20);
        assert!(errors(&many)[0].ends_with("a vendor has at most 16 limits; leave out those that bind last"));
    }

    #[test]
    fn the_example_of_the_documentation_works() {
        let docs = include_str!("../../../docs/quota-dialects.md");
        let example = docs.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
        let config = Config::parse("quota-dialects.md", example).unwrap();
        let dialect = Dialect::new(&config.vendors[0].dialect);
        let now = Timestamp::from_nanos(1_795_255_200_000_000_000);
        let headers = [
            ("x-acme-limit", "60"),
            ("x-acme-left", "59"),
            ("x-acme-reset", "1795255230000"),
            ("x-acme-usage", "month=400/9000; day=18/5000"),
        ];
        let reading = dialect.read(&Answer::new(403, &headers).body_prefix(b"{\"code\":\"SLOW_DOWN\"}"), now);
        let left: Vec<_> = reading.statements().iter().map(|statement| statement.remaining).collect();
        assert_eq!(left, [Some(59), Some(4_982)]);
        assert_eq!(reading.refusal, Some(Refusal::Rate));
        assert_eq!(reading.retry_at, Some(now.plus_millis(30_000)));
    }
}
