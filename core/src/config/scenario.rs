//! A scenario of `farcall simulate`: vendors, customers, and what if.

use super::matcher::VendorNames;
use super::quota::parse_limit;
use super::section::{self, Section, nearest};
use super::{ConfigError, parse_duration};
use crate::call::{ErrorType, Priority};
use crate::catalogue::builtin;
use crate::quota::{Unit, Weight};
use crate::simulate::{
    Asked, Bursts, Cache, Change, ClockJump, Customer, CustomerChange, Form, Latency, Limit, Model, Outage,
    Scenario, Shows, Vendor, VendorChange, WhatIf,
};
use crate::units::Timestamp;
use crate::units::moment::rfc_3339;
use std::time::Duration;
use toml::Spanned;
use toml::de::DeValue;

/// The longest time that is simulated, and the most engines and calls a second: beyond them nobody waits for the end.
const LONGEST: Duration = Duration::from_secs(5 * 366 * 86_400);
const MAX_ENGINES: usize = 1_024;
const MAX_RATE: f64 = 1e7;
/// 2026-01-05, a Monday.
const START: Timestamp = Timestamp::from_nanos(1_767_571_200_000_000_000);
const PRIORITIES: [(&str, Priority); 2] =
    [("interactive", Priority::Interactive), ("batch", Priority::Batch)];
const ERRORS: [(&str, ErrorType); 3] =
    [("timeout", ErrorType::Timeout), ("reset", ErrorType::Reset), ("connect", ErrorType::Connect)];

pub(crate) fn read(file: &str, text: &str) -> Result<Scenario, Vec<ConfigError>> {
    let mut scenario = None;
    let outline = |root: &mut Section<'_, '_>| drop(read_root(root));
    let errors = section::read_outlined(file, text, &outline, |root| scenario = Some(read_root(root)));
    match scenario {
        Some(scenario) if errors.is_empty() => Ok(scenario),
        _ => Err(errors),
    }
}

fn read_root(root: &mut Section<'_, '_>) -> Scenario {
    let duration = root.duration("duration");
    if duration.is_none() && !root.has("duration") {
        root.missing("duration", "say how long to simulate, as in \"7d\"");
    }
    if duration.is_some_and(|duration| duration > LONGEST) {
        root.wrong("`duration` is longer than five years; nothing is known of rates so far ahead");
    }
    let start = root.checked_string("start", |text| {
        let whole =
            if text.contains(['T', 't', ' ']) { text.to_owned() } else { format!("{text}T00:00:00Z") };
        rfc_3339(whole.as_bytes())
            .ok_or(r#"a date; write it as in "2026-03-02" (UTC), or as RFC 3339 has it"#.into())
    });
    let seed = root.number("seed", 0..=i64::MAX as usize);
    let engines = root.number("engines", 1..=MAX_ENGINES).unwrap_or(1);
    let sample = root.share("sample");
    if sample == Some(0.0) {
        root.wrong("a `sample` of nothing simulates nothing; write a share such as \"1%\"");
    }
    let config = root.string("config");
    let vendors: Vec<Vendor> = root.tables("vendor").iter_mut().map(vendor).collect();
    if vendors.is_empty() {
        root.missing("vendor", "a scenario has at least one [[vendor]]");
    }
    let customers: Vec<Customer> =
        root.tables("customer").iter_mut().map(|section| customer(section, &vendors)).collect();
    if customers.is_empty() {
        root.missing("customer", "a scenario has at least one [[customer]]");
    }
    let clock_jumps =
        root.tables("clock_jump").iter_mut().filter_map(|section| jump(section, engines)).collect();
    let what_if = root.table("what_if").map(|section| what_if(section, &vendors, &customers));
    Scenario {
        duration: duration.unwrap_or(Duration::from_secs(1)),
        start: start.unwrap_or(START),
        seed: seed.unwrap_or(1) as u64,
        engines,
        sample: sample.filter(|sample| *sample > 0.0).unwrap_or(1.0),
        config,
        vendors,
        customers,
        clock_jumps,
        caches: Vec::new(),
        what_if,
    }
}

fn vendor(section: &mut Section<'_, '_>) -> Vendor {
    let name = section.string("name").unwrap_or_default();
    if name.is_empty() {
        section.missing("name", "write it as in the catalogue, or as in your own [[vendor]]");
    }
    if name.contains('.')
        && let Some(objection) = VendorNames::new(&[]).objection(&name)
    {
        section.wrong(objection);
    }
    let known = builtin().iter().find(|known| known.name == name);
    let host = section.checked_string("host", |host| {
        let good = !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
        good.then(|| host.to_ascii_lowercase()).ok_or("a host; write it as in `api.example.com`".into())
    });
    let host = host.or_else(|| {
        let host = known?.hosts.first()?;
        Some(host.strip_prefix("*.").map_or_else(|| host.clone(), |rest| format!("sim.{rest}")))
    });
    if host.is_none() && !section.has("host") {
        let names = builtin().iter().map(|vendor| &vendor.name);
        let why = match nearest(&name.to_lowercase(), names) {
            Some(nearest) => format!(
                "the catalogue does not know the vendor `{name}`; did you mean `{nearest}`? If not, write where it answers"
            ),
            None => "the catalogue does not know this vendor; write where it answers".to_owned(),
        };
        section.missing("host", &why);
    }
    let mut latency = Latency { p50: Duration::from_millis(100), p99: Duration::from_millis(1_000) };
    if let Some(section) = section.table("latency") {
        let (p50, p99) = (section.duration("p50"), section.duration("p99"));
        latency.p50 = p50.unwrap_or(latency.p50);
        latency.p99 = p99.unwrap_or(latency.p50 * 10);
        if latency.p99 < latency.p50 {
            section.wrong("`p99` is below `p50`; the slowest calls are not faster than the median");
        }
    }
    Vendor {
        host: host.unwrap_or_default(),
        latency,
        errors: section.share("errors").unwrap_or(0.0),
        outages: section.tables("outages").iter_mut().filter_map(outage).collect(),
        limit: limit(section),
        capacity: section.number("capacity", 1..=1_000_000),
        name,
    }
}

fn limit(section: &mut Section<'_, '_>) -> Option<Limit> {
    let limit = section.checked_string("limit", parse_requests);
    let form = section.choice("form", &[("window", Form::Window), ("bucket", Form::Bucket)]);
    let burst = section.number("burst", 1..=1_000_000_000);
    let states = section.boolean("states");
    let retry_after = section.boolean("retry_after");
    if let (None, Some(key)) =
        (limit, ["form", "burst", "states", "retry_after"].into_iter().find(|key| section.has(key)))
        && !section.has("limit")
    {
        section.wrong(format!("`{key}` is about the limit; write `limit` as well"));
    }
    let (units, period) = limit?;
    Some(Limit {
        units,
        period,
        form: form.unwrap_or_default(),
        burst: burst.map_or(units, |burst| burst as u64),
        states: states.unwrap_or(true),
        retry_after: retry_after.unwrap_or(true),
    })
}

fn parse_requests(text: &str) -> Result<(u64, Duration), String> {
    let limit = parse_limit(text)?;
    (limit.unit == Unit::Requests)
        .then_some((limit.units, limit.period))
        .ok_or("a limit that can be simulated; only requests are counted, as in \"100 requests / 1s\"".into())
}

fn outage(section: &mut Section<'_, '_>) -> Option<Outage> {
    let from = section.checked_string("from", from_start);
    let lasts = section.duration("for");
    let share = section.share("share").unwrap_or(1.0);
    let status = section.number("status", 400..=599);
    let error = section.choice("error", &ERRORS);
    if status.is_some() && error.is_some() {
        section.wrong("an outage shows by a `status` or by an `error`; write one of them");
    }
    if !section.has("from") || !section.has("for") {
        section.wrong("an outage has a beginning and a length; write from = \"2d\", for = \"20m\"");
    }
    let shows = error.map_or_else(
        || Shows::Status(status.and_then(|status| u16::try_from(status).ok()).unwrap_or(503)),
        Shows::Error,
    );
    Some(Outage { from: from?, lasts: lasts?, share, shows })
}

/// A time after the start; `"0s"` is the start itself.
fn from_start(text: &str) -> Result<Duration, String> {
    if text.trim() == "0s" {
        return Ok(Duration::ZERO);
    }
    parse_duration(text)
        .ok_or_else(|| "a time after the start; write a duration, such as \"2d\" or \"90m\"".into())
}

fn customer(section: &mut Section<'_, '_>, vendors: &[Vendor]) -> Customer {
    let name = section.string("name").unwrap_or_default();
    if name.is_empty() {
        section.missing("name", "every [[customer]] has one");
    }
    let rate = section.checked_string("rate", parse_rate);
    if rate.is_none() && !section.has("rate") {
        section.missing("rate", "say how often it calls, as in \"5 / s\"");
    }
    let weight =
        section.amount("weight", 0.001..=1_000.0).map(|weight| Weight((weight * 1_000.0).round() as u32));
    let peak = section.checked_string("peak", |text| {
        let (hour, minute) = text.split_once(':').ok_or("a time of day; write it as in \"14:00\" (UTC)")?;
        let part = |text: &str, below: u64| text.parse::<u64>().ok().filter(|number| *number < below);
        let (hour, minute) =
            part(hour, 24).zip(part(minute, 60)).ok_or("a time of day; write it as in \"14:00\"")?;
        Ok(Duration::from_secs(hour * 3_600 + minute * 60))
    });
    let bursts = section.table("bursts").and_then(|section| {
        let (every, lasts) = (section.duration("every"), section.duration("for"));
        let factor = section.amount("factor", 0.0..=10_000.0).unwrap_or(10.0);
        if !section.has("every") || !section.has("for") {
            section.wrong("bursts have a length and a distance; write every = \"1h\", for = \"1m\"");
        }
        let (every, lasts) = (every?, lasts?);
        if lasts >= every {
            section.wrong("a burst lasts as long as the time between two; make `for` shorter than `every`");
        }
        Some(Bursts { every, lasts, factor })
    });
    let calls: Vec<Asked> =
        section.tables("calls").iter_mut().filter_map(|section| asked(section, vendors)).collect();
    // Of calls that are there and wrong, that is said.
    let is_there =
        |value: &Spanned<DeValue<'_>>| !matches!(value.get_ref(), DeValue::Array(items) if items.is_empty());
    if calls.is_empty() && !section.value("calls").is_some_and(is_there) {
        section.missing(
            "calls",
            r#"say what it asks for, as in calls = [{ vendor = "github", endpoint = "GET /user" }]"#,
        );
    }
    Customer {
        rate: rate.unwrap_or(0.0),
        priority: section.choice("priority", &PRIORITIES).unwrap_or_default(),
        weight,
        credential: section.string("credential").unwrap_or_else(|| "shared".into()),
        deadline: section.duration("deadline"),
        sdk_retries: section.number("sdk_retries", 0..=10).unwrap_or(0) as u32,
        swing: section.share("swing").unwrap_or(0.0),
        peak: peak.unwrap_or(Duration::from_secs(14 * 3_600)),
        weekend: section.share("weekend").unwrap_or(1.0),
        bursts,
        calls,
        name,
    }
}

/// `"5 / s"`, `"0.5 per minute"`: in calls a second.
fn parse_rate(text: &str) -> Result<f64, String> {
    const FORM: &str = "a rate; write it as in \"5 / s\", \"0.5 / minute\" or \"2000 / day\"";
    let (number, period) = text.split_once('/').or_else(|| text.split_once(" per ")).ok_or(FORM)?;
    let seconds = match period.trim() {
        "s" | "second" => 1.0,
        "m" | "min" | "minute" => 60.0,
        "h" | "hour" => 3_600.0,
        "d" | "day" => 86_400.0,
        _ => return Err(FORM.into()),
    };
    let rate = number.trim().parse::<f64>().map_err(|_| FORM)? / seconds;
    if !(0.0..=MAX_RATE).contains(&rate) {
        return Err("a rate between none and ten million calls a second".into());
    }
    Ok(rate)
}

fn asked(section: &mut Section<'_, '_>, vendors: &[Vendor]) -> Option<Asked> {
    let vendor = of_scenario(section, vendors);
    if !section.has("vendor") {
        section.missing("vendor", "say who is called");
    }
    let endpoint = section.checked_string("endpoint", |text| {
        let (method, path) = text.split_once(' ').unwrap_or(("", text));
        let good =
            !method.is_empty() && method.bytes().all(|b| b.is_ascii_uppercase()) && path.starts_with('/');
        good.then(|| (text.to_owned(), method.to_owned(), path_of(path)))
            .ok_or("an endpoint; write method and path, as in \"GET /v1/items/{id}\"".into())
    });
    if !section.has("endpoint") {
        section.missing("endpoint", "say what is asked for, as in \"GET /user\"");
    }
    let name = section.string("model");
    let tokens_in = section.number("tokens_in", 0..=10_000_000);
    let tokens_out = section.number("tokens_out", 0..=10_000_000);
    if name.is_none() && (tokens_in.is_some() || tokens_out.is_some()) {
        section.wrong("tokens are those of a model; write `model` as well");
    }
    let model = name.map(|name| Model {
        name,
        tokens_in: tokens_in.unwrap_or(500) as u64,
        tokens_out: tokens_out.unwrap_or(200) as u64,
    });
    let weight = section.amount("weight", 0.000_001..=1_000_000.0).unwrap_or(1.0);
    let (endpoint, method, path) = endpoint?;
    Some(Asked { vendor: vendor?, endpoint, method, path, weight, model })
}

/// The place of the vendor that is named among those of the scenario.
fn of_scenario(section: &mut Section<'_, '_>, vendors: &[Vendor]) -> Option<usize> {
    section.checked_string("vendor", |name| {
        vendors.iter().position(|vendor| vendor.name == name).ok_or_else(|| {
            match nearest(name, vendors.iter().map(|vendor| &vendor.name)) {
                Some(nearest) => format!("a vendor of this scenario; did you mean `{nearest}`?"),
                None => "a vendor of this scenario; write a [[vendor]] of this name above".into(),
            }
        })
    })
}

/// A path that a template matches: each place that is left open gets a number.
fn path_of(template: &str) -> String {
    let segments = template.split('/').map(|segment| if segment.starts_with('{') { "1017" } else { segment });
    segments.collect::<Vec<_>>().join("/")
}

fn jump(section: &mut Section<'_, '_>, engines: usize) -> Option<ClockJump> {
    let engine = section.number("engine", 1..=engines);
    let at = section.checked_string("at", from_start);
    let by = section.checked_string("by", |text| {
        let (sign, rest) = match text.strip_prefix('-') {
            Some(rest) => (-1, rest),
            None => (1, text.strip_prefix('+').unwrap_or(text)),
        };
        let by = parse_duration(rest).ok_or("a difference; write it as in \"-1h\" or \"+30s\"")?;
        Ok(sign * i64::try_from(by.as_millis()).unwrap_or(i64::MAX))
    });
    if !section.has("at") || !section.has("by") {
        section.wrong("a clock jumps at a time and by a difference; write at = \"10m\", by = \"-1h\"");
    }
    Some(ClockJump { engine, at: at?, by_millis: by? })
}

fn what_if(section: &mut Section<'_, '_>, vendors: &[Vendor], customers: &[Customer]) -> WhatIf {
    let engines = section.number("engines", 1..=MAX_ENGINES);
    let mut what = WhatIf { engines, ..WhatIf::default() };
    if let Some(section) = section.table("customer") {
        let (names, sections) = section.named();
        for (name, section) in names.into_iter().zip(sections) {
            if !customers.iter().any(|customer| customer.name == name) {
                section.wrong(format!("no [[customer]] is called `{name}`; name one of this scenario"));
            }
            let rate = section.checked_string("rate", |text| change(text, parse_rate));
            let priority = section.choice("priority", &PRIORITIES);
            what.customers.push((name, CustomerChange { rate, priority }));
        }
    }
    if let Some(section) = section.table("vendor") {
        let (names, sections) = section.named();
        for (name, section) in names.into_iter().zip(sections) {
            if !vendors.iter().any(|vendor| vendor.name == name) {
                section.wrong(format!("no [[vendor]] is called `{name}`; name one of this scenario"));
            }
            let limit = section.checked_string("limit", |text| change(text, parse_requests));
            let errors = section.share("errors");
            let latency = section.checked_string("latency", factor);
            let capacity = section.number("capacity", 1..=1_000_000);
            what.vendors.push((name, VendorChange { limit, errors, latency, capacity }));
        }
    }
    if let Some(section) = section.table("quota") {
        let limit =
            |text: &str| change(text, |text| parse_limit(text).map(|limit| (limit.units, limit.period)));
        what.quotas.extend(section.checked_string("limit", limit).map(|limit| (None, limit)));
        let (names, sections) = section.named();
        for (name, section) in names.into_iter().zip(sections) {
            what.quotas.extend(section.checked_string("limit", limit).map(|limit| (Some(name), limit)));
        }
    }
    what.caches = section
        .some_tables("cache")
        .iter_mut()
        .filter_map(|section| cache(section, vendors, customers))
        .collect();
    if what == WhatIf::default() {
        section.says_nothing("[what_if] changes nothing; write as in `customer.acme.rate = \"x3\"`");
    }
    what
}

fn factor(text: &str) -> Result<f64, String> {
    text.strip_prefix('x')
        .and_then(|number| number.trim().parse::<f64>().ok())
        .filter(|factor| (0.001..=1_000_000.0).contains(factor))
        .ok_or("a multiple; write it as in \"x3\" or \"x0.5\"".into())
}

fn change<T>(text: &str, to: impl Fn(&str) -> Result<T, String>) -> Result<Change<T>, String> {
    if text.starts_with('x') { factor(text).map(Change::Times) } else { to(text).map(Change::To) }
}

fn cache(section: &mut Section<'_, '_>, vendors: &[Vendor], customers: &[Customer]) -> Option<Cache> {
    let vendor = of_scenario(section, vendors).map(|place| vendors[place].name.clone());
    let endpoint = section.string("endpoint");
    let hit = section.share("hit");
    if !section.has("endpoint") || !section.has("hit") {
        section
            .wrong(r#"a cache has an endpoint and a share; write { endpoint = "GET /user", hit = "80%" }"#);
    }
    let (endpoint, hit) = (endpoint?, hit?);
    if !customers.iter().flat_map(|customer| &customer.calls).any(|call| call.endpoint == endpoint) {
        section.wrong(format!("nobody asks for `{endpoint}`; write an endpoint of the scenario's `calls`"));
    }
    Some(Cache { vendor, endpoint, hit })
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: &str = "duration = \"1d\"\n[[vendor]]\nname = \"github\"\n[[customer]]\nname = \"acme\"\nrate = \"2 / s\"\n\
                        calls = [{ vendor = \"github\", endpoint = \"GET /user\" }]\n";

    fn errors(text: &str) -> Vec<String> {
        read("s.toml", text).unwrap_err().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_short_scenario_has_defaults() {
        let scenario = read("s.toml", BASE).unwrap();
        assert_eq!((scenario.engines, scenario.sample, scenario.seed), (1, 1.0, 1));
        assert_eq!(scenario.vendors[0].host, "api.github.com");
        assert_eq!(scenario.customers[0].credential, "shared");
    }

    #[test]
    fn what_is_wrong_is_said_with_place_and_remedy() {
        for (more, says) in [
            ("[what_if]\ncustomer.globex.rate = \"x3\"", "no [[customer]] is called `globex`"),
            ("[what_if]\ncustomer.acme.rate = \"3x\"", "`rate` is not a rate"),
            ("[what_if]\n", "changes nothing"),
            ("[what_if]\ncache = { endpoint = \"GET /none\", hit = \"5%\" }", "nobody asks for"),
            ("[[clock_jump]]\nengine = 2\nat = \"1h\"\nby = \"-1h\"", "between 1 and 1"),
            ("[[vendor]]\nname = \"nobody\"", "`host` is missing"),
            (
                "[[vendor]]\nname = \"api.example.co.uk\"\nhost = \"api.example.co.uk\"",
                "goes by its domain; write `example.co.uk`",
            ),
            (
                "[what_if]\ncache = { vendor = \"githb\", endpoint = \"GET /user\", hit = \"5%\" }",
                "`vendor` is not a vendor of this scenario; did you mean `github`?",
            ),
            ("[[vendor]]\nname = \"githb\"", "does not know the vendor `githb`; did you mean `github`?"),
            (
                "[[customer]]\nname = \"x\"\nrate = \"1 / s\"\ncalls = [{ vendor = \"githb\", endpoint = \"GET /user\" }]",
                "`vendor` is not a vendor of this scenario; did you mean `github`?",
            ),
            ("[[vendor]]\nname = \"stripe\"\nstates = true", "write `limit` as well"),
            ("[[vendor]]\nname = \"stripe\"\nlatency = { p50 = \"1s\", p99 = \"1ms\" }", "below `p50`"),
            ("[[vendor]]\nname = \"stripe\"\nlimit = \"10 tokens / 1s\"", "only requests"),
            ("[[customer]]\nname = \"x\"\nrate = \"-1 / s\"\ncalls = []", "between none and"),
            ("[[customer]]\nname = \"x\"\nrate = \"nan / s\"\ncalls = []", "between none and"),
            (
                "[[customer]]\nname = \"x\"\nrate = \"1 / s\"\nwieght = 2\ncalls = []",
                "did you mean `weight`?",
            ),
        ] {
            let errors = errors(&format!("{BASE}{more}\n"));
            assert!(errors.iter().any(|error| error.contains(says)), "{more}: {errors:?}");
        }
        let asks = |vendor: &str| {
            format!(
                "[[customer]]\nname = \"x\"\nrate = \"1 / s\"\ncalls = [{{ vendor = \"{vendor}\", endpoint = \"GET /user\" }}]\n"
            )
        };
        assert_eq!(errors(&format!("{BASE}{}", asks("githb"))).len(), 1, "said alone");
        assert!(errors("sample = \"0%\"").iter().any(|error| error.contains("simulates nothing")));
    }
}
