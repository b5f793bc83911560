//! The ledger as the reports read it: one pass over the rows of a window, with names resolved.

use super::filter::{BadFilter, Filter};
use super::row::{ConnectionRow, Kept, Row, count, get, outcome};
use super::who::Who;
use super::{Query, ReportError};
use crate::{home, store};
use farcall::catalogue::{Catalogue, Vendor};
use farcall::ledger::{Sketch, Sums};
use farcall::{Caller, Config};
use rusqlite::{Connection, Row as SqlRow, params};
use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

/// The spans of rollups, in minutes.
const SPANS: [i64; 3] = [1, 60, 1_440];

/// A ledger that is open for a question.
pub(super) struct Source<'q> {
    pub(super) query: &'q Query,
    connection: Option<Connection>,
    names: HashMap<i64, Rc<str>>,
    who: Who,
    catalogue: Catalogue,
    /// The user's configuration, as far as it can be read.
    pub(super) config: Config,
    /// What is wrong with its file, in a sentence; `None` where nothing is.
    pub(super) config_problem: Option<String>,
    /// The places of the vendors in the catalogue, by name.
    places: HashMap<String, usize>,
}

/// A vendor, and one of its endpoints.
type Asked = (Rc<str>, Rc<str>);

impl<'q> Source<'q> {
    pub(super) fn open(query: &'q Query) -> Result<Self, ReportError> {
        let connection = store::open_for_reading(&query.home)?;
        // The user's own vendors have labels and tags too.
        let (config, config_problem) = read_config(&query.home);
        let mut source = Self {
            query,
            connection,
            names: HashMap::new(),
            who: Who::default(),
            places: HashMap::new(),
            catalogue: Catalogue::new(config.vendors.clone()),
            config,
            config_problem,
        };
        let named = source.catalogue.vendors().iter().enumerate();
        source.places = named.map(|(place, vendor)| (vendor.name.clone(), place)).collect();
        source.load()?;
        query.filters.iter().try_for_each(|filter| source.must_name_a_vendor(filter))?;
        Ok(source)
    }

    /// A host for a vendor would silently show nothing. Of a word alone nobody knows whose configuration names it.
    fn must_name_a_vendor(&self, filter: &Filter) -> Result<(), BadFilter> {
        let Some(name) = filter.vendor().filter(|name| name.contains(['.', ':'])) else { return Ok(()) };
        match self.config.objection_to_vendor(name) {
            Some(why) if !self.names.values().any(|known| known.eq_ignore_ascii_case(name)) => {
                Err(filter.idle(why))
            }
            _ => Ok(()),
        }
    }

    /// One state of the ledger for all that follows, and who is in it.
    fn load(&mut self) -> Result<(), ReportError> {
        let Some(connection) = &self.connection else { return Ok(()) };
        connection.execute_batch("BEGIN")?;
        let mut statement = connection.prepare("SELECT id, name FROM names")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            self.names.insert(row.get(0)?, Rc::from(row.get::<_, String>(1)?));
        }
        self.who = Who::read(connection)?;
        Ok(())
    }

    /// Whether anything that the ledger holds, of whatever time, is called so.
    pub(super) fn knows(&self, name: &str) -> bool {
        let services = self.who.shown.values().map(|caller| caller.service.as_str());
        self.names.values().map(AsRef::as_ref).chain(services).any(|known| known.eq_ignore_ascii_case(name))
    }

    /// The name as the vendor writes it.
    pub(super) fn label(&self, vendor: &str) -> String {
        self.find_vendor(vendor).map_or_else(|| vendor.to_owned(), |vendor| vendor.label.clone())
    }

    /// Whether the catalogue gives the vendor this tag.
    pub(super) fn has_tag(&self, vendor: &str, tag: &str) -> bool {
        self.tags(vendor).iter().any(|known| known == tag)
    }

    /// What the catalogue says of a vendor.
    pub(super) fn find_vendor(&self, name: &str) -> Option<&Vendor> {
        self.places.get(name).map(|&place| &self.catalogue.vendors()[place])
    }

    /// What the catalogue tags a vendor with.
    pub(super) fn tags(&self, vendor: &str) -> &[String] {
        self.find_vendor(vendor).map_or(&[], |vendor| &vendor.tags)
    }

    /// The country of a vendor's seat; empty where nobody states it.
    pub(super) fn country(&self, vendor: &str) -> &str {
        self.find_vendor(vendor).and_then(|vendor| vendor.country.as_deref()).unwrap_or("")
    }

    /// The vendors as the user's configuration has them.
    pub(super) fn catalogue(&self) -> &Catalogue {
        &self.catalogue
    }

    /// Whether a library lives in this program.
    pub(super) fn is_instrumented(&self, caller: &Caller) -> bool {
        self.who.is_instrumented(caller)
    }

    /// Each rollup of the window that the filters let through.
    pub(super) fn rows(&self, mut each: impl FnMut(&Row<'_>)) -> Result<(), ReportError> {
        self.scan("rollups", |row, names| {
            let (tap, status): (String, u16) = (row.get("tap")?, get(row, "status")?);
            let outcome = outcome(status, row.get("outcome")?);
            let nanos = |column: &str| get::<u64>(row, column).map(Duration::from_nanos);
            let mut sums = Sums::default();
            sums.calls = count(row, "calls")?;
            sums.attempts = count(row, "attempts")?;
            sums.bytes_out = get(row, "bytes_out")?;
            sums.bytes_in = get(row, "bytes_in")?;
            sums.duration = nanos("duration")?;
            sums.ttfb = nanos("ttfb")?;
            sums.transfer = nanos("transfer")?;
            sums.answered = count(row, "answered")?;
            sums.connections = count(row, "connections")?;
            sums.dns = nanos("dns")?;
            sums.connect = nanos("connect")?;
            sums.tls = nanos("tls")?;
            sums.dns_known = count(row, "dns_known")?;
            sums.connect_known = count(row, "connect_known")?;
            sums.tls_known = count(row, "tls_known")?;
            sums.waited = nanos("waited")?;
            sums.cost = row.get("cost")?;
            sums.cost_unknown = count(row, "cost_unknown")?;
            sums.tokens_in = get(row, "tokens_in")?;
            sums.tokens_out = get(row, "tokens_out")?;
            sums.saved_bytes = get(row, "saved_bytes")?;
            sums.saved_cost = row.get("saved_cost")?;
            sums.saved_requests = count(row, "saved_requests")?;
            sums.saved_tokens = get(row, "saved_tokens")?;
            let latency = row.get_ref("latency")?.as_blob().map(Sketch::from_bytes);
            let Some(caller) = names.caller(row)? else { return Ok(()) };
            let row = Row {
                span: get(row, "span")?,
                vendor: names.get(row, "vendor")?,
                vendor_tags: self.tags(names.get(row, "vendor")?),
                endpoint: names.get(row, "endpoint")?,
                customer: names.get(row, "customer")?,
                tags: names.get(row, "tags")?,
                caller,
                tap: &tap,
                status,
                outcome: &outcome,
                sums,
                latency: latency.unwrap_or(Ok(Sketch::new())).unwrap_or_default(),
            };
            if self.query.filters.iter().all(|filter| filter.matches(&row)) {
                each(&row);
            }
            Ok(())
        })
    }

    /// Each kept call of the window that the filters let through, the newest first, until `each` has enough.
    pub(super) fn kept(&self, mut each: impl FnMut(&Row<'_>, Kept) -> bool) -> Result<(), ReportError> {
        let Some(connection) = &self.connection else { return Ok(()) };
        let from = i64::try_from(self.query.first_minute() * 60_000_000_000).unwrap_or(i64::MAX);
        // The clock may have been set back since: as for the totals, what is yet to come is not in the window.
        let to = i64::try_from(self.query.now.as_nanos()).unwrap_or(i64::MAX);
        let mut statement = connection
            .prepare("SELECT * FROM exemplars WHERE begun >= ?1 AND begun <= ?2 ORDER BY begun DESC, id")?;
        let mut rows = statement.query([from, to])?;
        let names = Names { names: &self.names, callers: &self.who.shown };
        while let Some(row) = rows.next()? {
            let (tap, status): (String, u16) = (row.get("tap")?, get(row, "status")?);
            let outcome = outcome(status, row.get("outcome")?);
            let Some(caller) = names.caller(row)? else { continue };
            let kept = Kept {
                id: row.get::<_, i64>("id")?.cast_unsigned(),
                begun: get(row, "begun")?,
                duration: Duration::from_nanos(get(row, "duration")?),
                ttfb: row
                    .get::<_, Option<i64>>("ttfb")?
                    .map(|nanos| Duration::from_nanos(nanos.unsigned_abs())),
                bytes_out: get(row, "bytes_out")?,
                bytes_in: get(row, "bytes_in")?,
                attempts: get(row, "attempts")?,
                waited: Duration::from_nanos(get(row, "waited")?),
                cost: row.get("cost")?,
                cost_unknown: row.get("cost_unknown")?,
                events: row.get("events")?,
            };
            let row = Row {
                span: 0,
                vendor: names.get(row, "vendor")?,
                vendor_tags: self.tags(names.get(row, "vendor")?),
                endpoint: names.get(row, "endpoint")?,
                customer: names.get(row, "customer")?,
                tags: names.get(row, "tags")?,
                caller,
                tap: &tap,
                status,
                outcome: &outcome,
                sums: Sums::default(),
                latency: Sketch::new(),
            };
            if self.query.filters.iter().all(|filter| filter.matches(&row)) && !each(&row, kept) {
                break;
            }
        }
        Ok(())
    }

    /// Calls of a library that the kernel saw too, by vendor and endpoint, where the filters can tell.
    pub(super) fn confirmed(
        &self,
        mut each: impl FnMut(&Rc<str>, &Rc<str>, &Rc<Caller>, u64),
    ) -> Result<(), ReportError> {
        if self.query.filters.iter().any(|filter| filter.is_about_single_calls()) {
            return Ok(());
        }
        self.scan("confirmed", |row, names| {
            let Some(caller) = names.caller(row)? else { return Ok(()) };
            let (vendor, endpoint) = (names.get(row, "vendor")?, names.get(row, "endpoint")?);
            if self.lets_through(vendor, endpoint, caller) {
                each(vendor, endpoint, caller, count(row, "calls")?);
            }
            Ok(())
        })
    }

    /// Each row of a table that is kept by vendor, endpoint and caller, where the filters can tell.
    pub(super) fn of_endpoints(
        &self,
        table: &str,
        mut each: impl FnMut(&SqlRow<'_>, &Rc<str>, &Rc<str>, &Rc<Caller>) -> rusqlite::Result<()>,
    ) -> Result<(), ReportError> {
        if self.query.filters.iter().any(|filter| filter.is_about_single_calls()) {
            return Ok(());
        }
        self.scan(table, |row, names| {
            let Some(caller) = names.caller(row)? else { return Ok(()) };
            let (vendor, endpoint) = (names.get(row, "vendor")?, names.get(row, "endpoint")?);
            // What is about all vendors is about each.
            if vendor.is_empty() || self.lets_through(vendor, endpoint, caller) {
                each(row, vendor, endpoint, caller)?;
            }
            Ok(())
        })
    }

    fn lets_through(&self, vendor: &Rc<str>, endpoint: &Rc<str>, caller: &Rc<Caller>) -> bool {
        let of_calls = Row {
            span: 0,
            vendor,
            vendor_tags: self.tags(vendor),
            endpoint,
            caller,
            customer: endpoint,
            tags: "",
            tap: "",
            status: 0,
            outcome: "",
            sums: Sums::default(),
            latency: Sketch::new(),
        };
        self.query.filters.iter().all(|filter| filter.matches(&of_calls))
    }

    /// Each use of a credential that the ledger knows, of whatever time, where the filters can tell: vendor,
    /// fingerprint, service, the minutes in which, and how many calls.
    pub(super) fn credentials(
        &self,
        mut each: impl FnMut(&Rc<str>, &Rc<str>, &str, std::ops::Range<u64>, u64),
    ) -> Result<(), ReportError> {
        let Some(connection) = &self.connection else { return Ok(()) };
        if self.query.filters.iter().any(|filter| filter.is_about_single_calls()) {
            return Ok(());
        }
        let names = Names { names: &self.names, callers: &self.who.shown };
        let mut statement = connection.prepare("SELECT * FROM credentials")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let Some(caller) = names.caller(row)? else { continue };
            let (vendor, credential) = (names.get(row, "vendor")?, names.get(row, "credential")?);
            if self.lets_through(vendor, vendor, caller) {
                let minute: u64 = get(row, "minute")?;
                let minutes = minute..minute.saturating_add(get(row, "span")?);
                each(vendor, credential, &caller.service, minutes, count(row, "calls")?);
            }
        }
        Ok(())
    }

    /// Each rollup of connections in the window that the filters let through.
    pub(super) fn connections(&self, mut each: impl FnMut(&ConnectionRow<'_>)) -> Result<(), ReportError> {
        self.scan("connections", |row, names| {
            let Some(caller) = names.caller(row)? else { return Ok(()) };
            let row = ConnectionRow {
                caller,
                vendor: names.get(row, "vendor")?,
                name: names.get(row, "name")?,
                address: names.get(row, "address")?,
                library: names.get(row, "library")?,
                reason: names.get(row, "reason")?,
                verdict: row.get("verdict")?,
                explained_by: row.get("explained_by")?,
                connections: count(row, "connections")?,
                bytes_out: get(row, "bytes_out")?,
                bytes_in: get(row, "bytes_in")?,
            };
            let filters = &self.query.filters;
            if filters
                .iter()
                .all(|filter| filter.matches_connection(row.vendor, self.tags(row.vendor), row.caller))
            {
                each(&row);
            }
            Ok(())
        })
    }

    /// Each vendor and endpoint that the ledger knows, of whatever time.
    pub(super) fn all_endpoints(&self) -> Result<Vec<Asked>, ReportError> {
        let Some(connection) = &self.connection else { return Ok(Vec::new()) };
        let names = Names { names: &self.names, callers: &self.who.shown };
        let mut statement = connection.prepare("SELECT DISTINCT vendor, endpoint FROM rollups")?;
        let rows = statement.query_map([], |row| {
            Ok((Rc::clone(names.get(row, "vendor")?), Rc::clone(names.get(row, "endpoint")?)))
        })?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// Whether a sidecar wrote into the ledger within the window.
    pub(super) fn had_sidecar(&self) -> Result<bool, ReportError> {
        let Some(connection) = &self.connection else { return Ok(false) };
        let from = i64::try_from(self.query.first_minute() * 60_000_000_000).unwrap_or(i64::MAX);
        let mut statement = connection
            .prepare("SELECT EXISTS (SELECT 1 FROM processes WHERE role = 'sidecar' AND last_flush >= ?1)")?;
        Ok(statement.query_row([from], |row| row.get(0))?)
    }

    /// The database itself, for what only one report asks; `None` for a ledger that was never written.
    pub(super) fn connection(&self) -> Option<&Connection> {
        self.connection.as_ref()
    }

    /// The name of this number.
    pub(super) fn name(&self, number: i64) -> Option<&Rc<str>> {
        self.names.get(&number)
    }

    /// The caller of this number, as it is written.
    pub(super) fn caller(&self, number: i64) -> Option<&Rc<Caller>> {
        self.who.written.get(&number)
    }

    fn scan(
        &self,
        table: &str,
        mut each: impl FnMut(&SqlRow<'_>, &Names<'_>) -> rusqlite::Result<()>,
    ) -> Result<(), ReportError> {
        let Some(connection) = &self.connection else { return Ok(()) };
        let names = Names { names: &self.names, callers: &self.who.shown };
        let from = i64::try_from(self.query.first_minute()).unwrap_or(i64::MAX);
        let to = i64::try_from(self.query.now.minute()).unwrap_or(i64::MAX);
        for span in SPANS {
            let mut statement = connection.prepare(&format!(
                "SELECT * FROM {table} WHERE span = ?1 AND minute > ?2 - ?1 AND minute <= ?3"
            ))?;
            let mut rows = statement.query(params![span, from, to])?;
            while let Some(row) = rows.next()? {
                each(row, &names)?;
            }
        }
        Ok(())
    }
}

/// The configuration that programs of a home directory read, as far as it can be read, and what is wrong with it.
fn read_config(home: &Path) -> (Config, Option<String>) {
    let Some(file) = home::find_config(None, Some(home)) else { return (Config::default(), None) };
    let text = match home::config_text(&file) {
        Ok(text) => text,
        Err(error) => {
            return (Config::default(), Some(format!("Its rules and vendors are missing here: {error}.")));
        }
    };
    let (config, errors) = Config::read(&file.display().to_string(), &text);
    let problem = (!errors.is_empty()).then(|| {
        let (file, count) = (file.display(), errors.len());
        let errors = if count == 1 { "error" } else { "errors" };
        format!(
            "{file} has {count} {errors}, and what they are in is missing here: farcall config check {file}"
        )
    });
    (config, problem)
}

/// Numbers as names.
struct Names<'s> {
    names: &'s HashMap<i64, Rc<str>>,
    callers: &'s HashMap<i64, Rc<Caller>>,
}

impl<'s> Names<'s> {
    fn get(&self, row: &SqlRow<'_>, column: &str) -> rusqlite::Result<&'s Rc<str>> {
        let number: i64 = row.get(column)?;
        // Names and rows are written and removed together.
        self.names.get(&number).ok_or(rusqlite::Error::IntegralValueOutOfRange(0, number))
    }

    fn caller(&self, row: &SqlRow<'_>) -> rusqlite::Result<Option<&'s Rc<Caller>>> {
        Ok(self.callers.get(&row.get("caller")?))
    }
}

/// The names in a set, sorted.
pub(super) fn sorted(names: &HashSet<Rc<str>>) -> Vec<String> {
    let mut names: Vec<String> = names.iter().map(ToString::to_string).collect();
    names.sort_unstable();
    names
}
