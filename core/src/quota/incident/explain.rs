//! An incident in plain sentences.

use super::{Answers, Incident, Kind, Share};
use crate::quota::{Unit, Why};
use crate::units::moment::in_words;
use crate::units::{Timestamp, grouped};
use std::fmt::Write as _;
use std::time::Duration;

/// An incident with names instead of numbers: what is stored, and what [`explain`] reads.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct NamedIncident {
    /// The vendor's name.
    pub vendor: String,
    /// The credential's fingerprint; empty where none was seen.
    pub credential: String,
    /// The policy's name, as the vendor or the rule has it; may be empty.
    pub policy: String,
    /// What a rule keeps this quota apart by, as `customer=acme`; empty where it does not.
    pub partition: String,
    /// Whether other processes may have used the quota too.
    pub shared: bool,
    /// [`Kind::as_str`].
    pub kind: String,
    /// [`Why::as_str`], where calls were refused here; else empty.
    pub why: String,
    /// The first 429 or refusal.
    pub at: Timestamp,
    /// How many there were.
    pub count: u64,
    /// What the vendor's refusals were, by status; may be empty where they are not known.
    pub answers: Vec<Answers>,
    /// When the window began.
    pub began: Timestamp,
    /// When the window ends.
    pub ends: Timestamp,
    /// What the quota counts: `requests`, `tokens`, `points`, as the catalogue or the rule has it.
    pub unit: String,
    /// What `own` and the shares are counted in: `unit`, or `requests` where only the vendor knows what calls use of that.
    pub counted_in: String,
    /// The limit.
    pub limit: Option<u64>,
    /// In which time that many may go; `None` where nobody stated it.
    pub limit_window: Option<Duration>,
    /// What the vendor said was left.
    pub remaining: Option<u64>,
    /// When the vendor said it resets.
    pub resets_at: Option<Timestamp>,
    /// When calls may go again.
    pub retry_at: Option<Timestamp>,
    /// What we counted in the window, in `counted_in`.
    pub own: u64,
    /// Units of others on this credential; `None` where our own count cannot be set against what the vendor counts.
    pub foreign: Option<u64>,
    /// Calls that were refused here.
    pub refused: u64,
    /// Whose calls these were; the units are calls.
    pub kept_back: Vec<NamedShare>,
    /// What rules about these calls have already: `limit`, `fair`, `pace`, `cache`.
    pub has: Vec<String>,
    /// The customers that used most.
    pub customers: Vec<NamedShare>,
    /// The callers that used most.
    pub callers: Vec<NamedShare>,
    /// The endpoints that were used most.
    pub endpoints: Vec<NamedShare>,
    /// The credentials that were used most.
    pub credentials: Vec<NamedShare>,
    /// Who asked for what through whom.
    pub mixes: Vec<NamedMix>,
}

/// What one of many used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamedShare {
    /// Its name.
    pub name: String,
    /// Units: never too few.
    pub units: u64,
    /// Units for certain.
    pub at_least: u64,
}

/// What one customer used of one endpoint through one caller.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamedMix {
    /// The customer.
    pub customer: String,
    /// The endpoint.
    pub endpoint: String,
    /// The caller.
    pub caller: String,
    /// Units: never too few.
    pub units: u64,
    /// Units for certain.
    pub at_least: u64,
}

/// What the engine's numbers stand for.
pub trait Names {
    /// A customer's name.
    fn customer(&self, number: u32) -> String;
    /// A caller's name.
    fn caller(&self, number: u32) -> String;
    /// An endpoint, method and template.
    fn endpoint(&self, number: u32) -> String;
    /// A credential's fingerprint.
    fn credential(&self, number: u32) -> String;
}

impl Incident {
    /// The same with names. `vendor`, `credential` and `policy` are those of the quota.
    #[must_use]
    pub fn named(&self, vendor: &str, credential: &str, policy: &str, names: &impl Names) -> NamedIncident {
        let shares = |shares: &[Share], name: &dyn Fn(u32) -> String| {
            shares
                .iter()
                .map(|share| NamedShare {
                    name: name(share.id),
                    units: share.units,
                    at_least: share.at_least,
                })
                .collect()
        };
        let mixes = self.mixes.iter().map(|mix| NamedMix {
            customer: names.customer(mix.customer),
            endpoint: names.endpoint(mix.endpoint),
            caller: names.caller(mix.caller),
            units: mix.units,
            at_least: mix.at_least,
        });
        NamedIncident {
            vendor: vendor.to_owned(),
            credential: credential.to_owned(),
            policy: policy.to_owned(),
            partition: String::new(),
            shared: self.shared,
            kind: self.kind.as_str().to_owned(),
            why: self.why.map_or("", Why::as_str).to_owned(),
            at: self.at,
            count: self.count,
            answers: self.answers.clone(),
            began: self.began,
            ends: self.ends,
            unit: self.unit.as_str().to_owned(),
            counted_in: self.unit.as_str().to_owned(),
            limit: self.limit,
            limit_window: self.limit_window,
            remaining: self.remaining,
            resets_at: self.resets_at,
            retry_at: self.retry_at,
            own: self.own,
            foreign: Some(self.foreign),
            refused: self.refused,
            kept_back: shares(&self.kept_back, &|number| names.customer(number)),
            has: Vec::new(),
            customers: shares(&self.customers, &|number| names.customer(number)),
            callers: shares(&self.callers, &|number| names.caller(number)),
            endpoints: shares(&self.endpoints, &|number| names.endpoint(number)),
            credentials: shares(&self.credentials, &|number| names.credential(number)),
            mixes: mixes.collect(),
        }
    }
}

impl NamedIncident {
    /// The same of a quota that counts this unit; `countable`: what calls use of it is counted here, too.
    #[must_use]
    pub fn in_unit(self, unit: &str, countable: bool) -> Self {
        let counted_in = if countable { unit } else { Unit::Requests.as_str() }.to_owned();
        let foreign = self.foreign.filter(|_| countable);
        Self { unit: unit.to_owned(), counted_in, foreign, ..self }
    }

    /// Whether what we counted can be set against what the vendor counts.
    #[must_use]
    pub fn is_countable(&self) -> bool {
        self.counted_in == self.unit
    }

    fn has(&self, word: &str) -> bool {
        self.has.iter().any(|known| known == word)
    }

    /// Units that others used beyond doubt: the two accounts differ by answers on their way, and by calls for which the
    /// vendor asks nothing.
    fn of_others(&self) -> Option<u64> {
        let a_little = (self.limit.unwrap_or(0) / 20).max(5);
        self.foreign.filter(|foreign| self.is_countable() && *foreign > a_little)
    }
}

/// What happened, who used the window, and what would help: a few plain sentences, each on a line of its own.
#[must_use]
pub fn explain(incident: &NamedIncident) -> String {
    let mut text = what_happened(incident);
    text.push('\n');
    text.push_str(&whose_they_were(incident));
    text.push_str(&who_used_it(incident));
    if let Some(foreign) = incident.of_others() {
        let NamedIncident { vendor, unit, credential, .. } = incident;
        let whose = match credential.as_str() {
            "" => format!("asks {vendor}, too"),
            _ => "uses this credential".to_owned(),
        };
        let units = counted(foreign, unit);
        let _ =
            write!(text, "\n{vendor} counted {units} that no call of ours explains: somebody else {whose}.");
    }
    if let Some(at) = incident.retry_at {
        let _ = write!(text, "\nCalls may go again from {}.", in_words(at));
    }
    let helps = what_helps(incident);
    if !helps.is_empty() {
        let _ = write!(text, "\nWhat would help: {}.", helps.join("; "));
    }
    text
}

fn what_happened(incident: &NamedIncident) -> String {
    let NamedIncident { vendor, count, .. } = incident;
    let at = in_words(incident.at);
    let quota = [incident.policy.as_str(), incident.partition.as_str()].into_iter();
    let quota: Vec<&str> = quota.filter(|part| !part.is_empty()).collect();
    let policy = match quota.as_slice() {
        [] => String::new(),
        [name, partition @ ..] => {
            let partition = partition.iter().map(|partition| format!(" ({partition})"));
            format!(" `{name}`{}", partition.collect::<String>())
        }
    };
    let of_quota = if policy.is_empty() { String::new() } else { format!(" of the quota{policy}") };
    let times = |count: u64, one: &str, many: &str| match count {
        1 => one.to_owned(),
        count => format!("{} {many}", grouped(count)),
    };
    let too_fast = |count, of_quota: &str| {
        let calls = times(count, "one call", "calls");
        format!("refused {calls}{of_quota} for coming too fast{}", by(incident, false))
    };
    if incident.kind == Kind::Exhausted.as_str() {
        let fast: u64 = incident.answers.iter().filter(|one| !one.exhausted).map(|one| one.count).sum();
        let also = if fast > 0 { format!(", and {}", too_fast(fast, "")) } else { String::new() };
        let answers = times(count.saturating_sub(fast), "one answer", "answers until the window ended");
        format!(
            "At {at} {vendor} said that the quota{policy} is used up, in {answers}{}{also}.",
            by(incident, true)
        )
    } else if incident.kind == Kind::Rate.as_str() {
        format!("At {at} {vendor} {}.", too_fast(*count, &of_quota))
    } else {
        let why = match incident.why.as_str() {
            "own_limit" => "the limit of the configuration was reached",
            "exhausted" => "nothing was left of the vendor's quota",
            "rate_limited" => "the vendor had said to stay away",
            "reserved" => "what was left is kept for calls of higher priority",
            "paced" => "what was left is spread until the reset",
            "learned" => "earlier refusals taught a limit",
            "fair_share" => "their customers had had their share",
            "concurrency" => "as many calls as the rule's `concurrency` allows were under way",
            "lease" => "what the fleet granted to this host was used",
            "unshared" => "what others share of the quota could not be had",
            _ => "the quota did not allow them",
        };
        let calls = times(*count, "one call to", "calls to");
        let quota = if policy.is_empty() { String::new() } else { format!(": quota{policy}") };
        format!("From {at} on {calls} {vendor} went no further than here, because {why}{quota}.")
    }
}

/// The statuses of the refusals that meant it so: ` (429)`.
fn by(incident: &NamedIncident, exhausted: bool) -> String {
    let so = incident.answers.iter().filter(|answers| answers.exhausted == exhausted);
    let statuses: Vec<String> = so.map(|answers| answers.status.to_string()).collect();
    if statuses.is_empty() { String::new() } else { format!(" ({})", statuses.join(", ")) }
}

/// Whose calls were refused here, where these do not speak for themselves: who had more than its share is not who used
/// most.
fn whose_they_were(incident: &NamedIncident) -> String {
    let NamedIncident { kept_back, refused, .. } = incident;
    let (Some(first), true) = (kept_back.first(), incident.kind == Kind::Own.as_str()) else {
        return String::new();
    };
    let part = |one: &NamedShare| share(one.units, one.at_least, *refused);
    let mut text = format!("{} of them were for {}", part(first), customer(&first.name));
    let others: Vec<String> = kept_back[1..]
        .iter()
        .take(3)
        .filter(|other| other.units * 100 >= *refused)
        .map(|other| format!("{} {}", customer(&other.name), part(other)))
        .collect();
    if !others.is_empty() {
        let _ = write!(text, "; {}", others.join(", "));
    }
    text.push_str(". ");
    text
}

fn who_used_it(incident: &NamedIncident) -> String {
    let NamedIncident { unit, counted_in, own, vendor, .. } = incident;
    let window = length(incident.began, incident.ends);
    let (Some(first), true) = (incident.customers.first(), *own > 0) else {
        return format!("None of our {} were counted in {window}.", words(counted_in));
    };
    let units = counted(*own, counted_in);
    let countable = incident.is_countable();
    let total = match incident.limit {
        Some(limit) if limit == *own && countable => format!("the {units} in {window}"),
        Some(limit) => {
            let limit = if countable { grouped(limit) } else { counted(limit, unit) };
            format!("our {units} in {window} (the limit is {limit}{})", span_of(incident))
        }
        None => format!("our {units} in {window}"),
    };
    let mut text = customer(&first.name);
    text[..1].make_ascii_uppercase();
    let _ = write!(text, " used {} of {total}", share(first.units, first.at_least, *own));
    if let Some(mix) = incident.mixes.iter().find(|mix| mix.customer == first.name)
        && mix.units * 2 > first.units
    {
        let _ = write!(text, ", mostly {} from {}", mix.endpoint, mix.caller);
    }
    let others: Vec<String> = incident.customers[1..]
        .iter()
        .take(3)
        .filter(|other| other.units * 100 >= *own)
        .map(|other| format!("{} {}", customer(&other.name), share(other.units, other.at_least, *own)))
        .collect();
    if !others.is_empty() {
        let _ = write!(text, "; {}", others.join(", "));
    }
    if incident.refused > 0 && incident.kind != Kind::Own.as_str() {
        let (calls, were) =
            (counted(incident.refused, "calls"), if incident.refused == 1 { "was" } else { "were" });
        let calls = calls.replacen(' ', " more ", 1);
        let _ = write!(
            text,
            "; {calls} {were} refused here before {} went out",
            if incident.refused == 1 { "it" } else { "they" }
        );
    }
    text.push('.');
    if !countable {
        let _ = match unit.as_str() {
            "concurrency" => write!(text, " How many of them were under way at once only {vendor} counts."),
            unit => write!(text, " How many {} they used only {vendor} counts.", words(unit)),
        };
    }
    text
}

fn what_helps(incident: &NamedIncident) -> Vec<String> {
    let mut helps = Vec::new();
    let vendor = &incident.vendor;
    let own = incident.own.max(1);
    if let Some(foreign) = incident.of_others()
        && !incident.credential.is_empty()
        && foreign * 5 > incident.own + foreign
    {
        helps.push(
            "a credential of our own for each program, so that nobody else uses up this one".to_owned(),
        );
    }
    if let Some(first) = incident.customers.first()
        && incident.customers.len() > 1
        && first.units * 2 > own
        && !incident.has("fair")
        && !matches!(incident.why.as_str(), "fair_share" | "concurrency")
    {
        // What only the vendor counts cannot be shared out, but what a rule counts can.
        let limit = if incident.is_countable() { "" } else { "a `limit` in requests and " };
        helps.push(format!(
            "a [[quota]] rule for {vendor} with {limit}fair = \"customer\", which keeps {} to its share while others ask",
            customer(&first.name)
        ));
    }
    if let Some(first) = incident.endpoints.first()
        && first.at_least * 2 > own
        && !incident.has("cache")
        && (first.name.starts_with("GET ") || first.name.starts_with("HEAD "))
    {
        let part = share(first.units, first.at_least, own);
        helps.push(match incident.counted_in.as_str() {
            "requests" => format!("a [[cache]] rule for {}, which made {part} of the calls", first.name),
            unit => format!("a [[cache]] rule for {}, which used {part} of the {}", first.name, words(unit)),
        });
    }
    match incident.kind.as_str() {
        // What calls use of it is not known before they are answered.
        "rate" if !incident.is_countable() => {}
        "rate" if incident.limit.is_some() && incident.has("pace") => {}
        "rate" if incident.limit.is_some() => {
            helps.push("pace = \"smooth\", which spreads what is left until the reset".to_owned());
        }
        "rate" if incident.has("limit") => {
            helps.push(format!("a lower `limit` in the configuration: {vendor} refuses before it is reached"))
        }
        "rate" => helps.push(format!(
            "the limit from {vendor}'s contract as a [[quota]] rule, since its answers do not state it"
        )),
        "exhausted" => helps.push(format!("a higher limit from {vendor}")),
        _ if incident.why == "own_limit" => {
            helps.push("a higher `limit` in the configuration, if the contract allows it".to_owned());
        }
        _ if incident.why == "fair_share" => {
            if let Some(first) = incident.kept_back.first().filter(|first| first.name != "other") {
                helps.push(format!(
                    "more weight for {} in `weights`, if it is to have more",
                    customer(&first.name)
                ));
            }
            helps.push("a higher `limit`, if the contract allows it".to_owned());
        }
        _ if incident.why == "concurrency" => {
            helps.push(format!(
                "a higher `concurrency` in the configuration, if {vendor} takes as many at once"
            ));
            helps.push(
                "a longer `max_wait`, for calls that may wait until one under way is answered".to_owned(),
            );
        }
        _ => {}
    }
    helps
}

/// So many of a unit, which is a word in the plural: `1 request`, `1,435 tokens`, `10 calls at once`.
fn counted(count: u64, unit: &str) -> String {
    let unit = words(unit);
    let (thing, rest) = unit.split_once(' ').unwrap_or((&unit, ""));
    match (count, rest) {
        (1, "") => format!("1 {}", thing.strip_suffix('s').unwrap_or(thing)),
        (1, "tokens") => format!("1 {thing} token"),
        (1, rest) => format!("1 {} {rest}", thing.strip_suffix('s').unwrap_or(thing)),
        _ => format!("{} {unit}", grouped(count)),
    }
}

/// A unit of the catalogue as people say it, in the plural.
fn words(unit: &str) -> String {
    match unit {
        "concurrency" => "calls at once".to_owned(),
        "cost" => "units of cost".to_owned(),
        unit => unit.replace('-', " "),
    }
}

fn customer(name: &str) -> String {
    match name {
        "unknown" => "calls for nobody in particular".to_owned(),
        "other" => "customers beyond those told apart".to_owned(),
        name => format!("customer {name}"),
    }
}

fn share(units: u64, at_least: u64, of: u64) -> String {
    let percent = |units: u64| units.min(of) as u128 * 100 / of.max(1) as u128;
    match (percent(at_least), percent(units)) {
        (low, high) if low == high => format!("{high}%"),
        (low, high) => format!("{low}% to {high}%"),
    }
}

/// In which time the limit may be used, or until when.
fn span_of(incident: &NamedIncident) -> String {
    let Some(window) = incident.limit_window else {
        return incident.resets_at.map_or_else(String::new, |at| format!(" until {}", in_words(at)));
    };
    match (window.as_secs(), window.subsec_millis()) {
        (1, 0) => " a second".to_owned(),
        (60, 0) => " a minute".to_owned(),
        (3_600, 0) => " an hour".to_owned(),
        (86_400, 0) => " a day".to_owned(),
        (seconds, 0) if seconds % 86_400 == 0 => format!(" in {} days", seconds / 86_400),
        (seconds, 0) if seconds % 3_600 == 0 => format!(" in {} hours", seconds / 3_600),
        (seconds, 0) if seconds % 60 == 0 => format!(" in {} minutes", seconds / 60),
        _ => format!(" in {} seconds", window.as_secs_f64()),
    }
}

fn length(began: Timestamp, ends: Timestamp) -> String {
    match (ends.since(began).as_millis() + 500) / 1_000 {
        0 | 1 => "this second".to_owned(),
        60 => "this minute".to_owned(),
        3_600 => "this hour".to_owned(),
        86_400 => "this day".to_owned(),
        seconds if seconds >= 7_200 => format!("these {} hours", seconds / 3_600),
        seconds if seconds >= 120 => format!("these {} minutes", seconds / 60),
        seconds => format!("these {seconds} seconds"),
    }
}
