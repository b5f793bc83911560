//! What can we not see?

use super::counters::meaning;
use super::numbers::share;
use super::source::Source;
use super::{Query, ReportError, Window};
use crate::store::ExplainedBy;
use serde::Serialize;
use std::collections::HashMap;

/// Which egress is explained down to the call, by which tap, and what is not, and why.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Coverage {
    /// Which report this is: `coverage`.
    pub report: &'static str,
    /// The time that it covers.
    pub window: Window,
    /// Whether a sidecar ran in the window. Without one nothing is known of connections.
    pub sidecar: bool,
    /// The answer in one sentence.
    pub sentence: String,
    /// A row for each program and vendor; those with the most unexplained bytes first.
    pub rows: Vec<CoverageRow>,
    /// All rows together.
    pub totals: CoverageTotals,
    /// What the sidecars that ran in the window could not deliver or follow, the most first; empty where nothing was
    /// missing.
    pub gaps: Vec<Gap>,
}

/// Something that sidecars could not deliver or follow, or that was made up for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Gap {
    /// The counter's name, as in `doctor`.
    pub name: String,
    /// How often, since these sidecars started.
    pub count: u64,
    /// What it counts, in words.
    pub meaning: &'static str,
}

/// The connections of a program to a vendor.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct CoverageRow {
    /// The service's name.
    pub service: String,
    /// The executable's path.
    pub executable: String,
    /// The vendor's name.
    pub vendor: String,
    /// All of them.
    #[serde(flatten)]
    pub all: Share,
    /// Those whose calls the library counted.
    pub library: Share,
    /// Those whose calls the kernel counted.
    pub kernel: Share,
    /// Those that nobody can explain.
    pub unexplained: Share,
    /// Why the unexplained ones, and the partly explained ones, are not whole.
    pub reasons: Vec<Unexplained>,
}

/// Connections and their bytes, both ways, TLS and headers included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Share {
    /// Connections.
    pub connections: u64,
    /// Bytes sent and received.
    pub bytes: u64,
}

/// Why connections are not explained, or not to the last byte.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Unexplained {
    /// How much was seen: `truncated`, `lost`, `opaque`, or `complete` where a whole account remained unused.
    pub verdict: String,
    /// The reason in words.
    pub reason: String,
    /// Whether the library's account explains them all the same; the reason then says why the kernel could not.
    pub explained: bool,
    /// The TLS library, `plaintext`, or empty.
    pub tls_library: String,
    /// Where the connections went: name, else address. At most 8.
    pub to: Vec<String>,
    /// How many.
    #[serde(flatten)]
    pub share: Share,
}

/// Coverage over all programs and vendors.
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct CoverageTotals {
    /// All connections.
    pub connections: u64,
    /// Their bytes, both ways.
    pub bytes: u64,
    /// Connections that either tap explains.
    pub explained_connections: u64,
    /// Their bytes.
    pub explained_bytes: u64,
    /// Explained connections in percent; null where there was none.
    pub connections_percent: Option<f64>,
    /// Explained bytes in percent; null where there was none.
    pub bytes_percent: Option<f64>,
}

impl Share {
    fn add(&mut self, connections: u64, bytes: u64) {
        self.connections += connections;
        self.bytes = self.bytes.saturating_add(bytes);
    }
}

const MAX_PLACES: usize = 8;

/// What can we not see: a row for each program and vendor, the least explained first.
///
/// # Errors
/// When there is no ledger, it cannot be read, or a filter asks for what connections do not have.
pub fn coverage(query: &Query) -> Result<Coverage, ReportError> {
    for filter in &query.filters {
        filter.must_fit_connections()?;
    }
    let source = Source::open(query)?;
    let mut rows: HashMap<[String; 3], CoverageRow> = HashMap::new();
    let mut totals = CoverageTotals::default();
    source.connections(|row| {
        let key = [row.caller.service.clone(), row.caller.executable.clone(), row.vendor.to_string()];
        let bytes = row.bytes_out.saturating_add(row.bytes_in);
        let known = rows.entry(key).or_insert_with_key(|[service, executable, vendor]| CoverageRow {
            service: service.clone(),
            executable: executable.clone(),
            vendor: vendor.clone(),
            all: Share::default(),
            library: Share::default(),
            kernel: Share::default(),
            unexplained: Share::default(),
            reasons: Vec::new(),
        });
        known.all.add(row.connections, bytes);
        totals.connections += row.connections;
        totals.bytes = totals.bytes.saturating_add(bytes);
        let explained = row.explained_by != ExplainedBy::Nobody.as_str();
        if explained {
            totals.explained_connections += row.connections;
            totals.explained_bytes = totals.explained_bytes.saturating_add(bytes);
        }
        match row.explained_by.as_str() {
            "library" => known.library.add(row.connections, bytes),
            "kernel" => known.kernel.add(row.connections, bytes),
            _ => known.unexplained.add(row.connections, bytes),
        }
        if !explained || !row.reason.is_empty() {
            let place = if row.name.is_empty() { row.address } else { row.name };
            known.add_reason(&row.verdict, row.reason, row.library, explained, place, row.connections, bytes);
        }
    })?;
    totals.finish();
    let mut rows: Vec<CoverageRow> = rows.into_values().collect();
    for row in &mut rows {
        row.reasons.sort_by_key(|reason| std::cmp::Reverse(reason.share.bytes));
    }
    rows.sort_by(|a, b| {
        (b.unexplained.bytes, b.all.bytes)
            .cmp(&(a.unexplained.bytes, a.all.bytes))
            .then_with(|| (&a.service, &a.vendor).cmp(&(&b.service, &b.vendor)))
    });
    let sidecar = source.had_sidecar()? || !rows.is_empty();
    Ok(Coverage {
        report: "coverage",
        window: query.window(),
        sentence: totals.sentence(sidecar),
        sidecar,
        rows,
        totals,
        gaps: gaps(&source)?,
    })
}

fn gaps(source: &Source<'_>) -> Result<Vec<Gap>, ReportError> {
    let Some(connection) = source.connection() else { return Ok(Vec::new()) };
    let from = i64::try_from(source.query.first_minute() * 60_000_000_000).unwrap_or(i64::MAX);
    let mut statement = connection.prepare(
        "SELECT c.name, SUM(c.value) FROM counters c JOIN processes p ON p.caller = c.caller
         WHERE p.role = 'sidecar' AND p.last_flush >= ?1 AND c.value > 0 AND substr(c.name, 1, 8) = 'sidecar_'
         GROUP BY c.name ORDER BY 2 DESC, 1",
    )?;
    let mut rows = statement.query([from])?;
    let mut gaps = Vec::new();
    while let Some(row) = rows.next()? {
        let name: String = row.get(0)?;
        let meaning = meaning(&name).map_or("", |(meaning, _)| meaning);
        gaps.push(Gap { name, count: row.get::<_, i64>(1)?.unsigned_abs(), meaning });
    }
    Ok(gaps)
}

impl CoverageRow {
    #[allow(clippy::too_many_arguments)] // The columns of one row.
    fn add_reason(
        &mut self,
        verdict: &str,
        reason: &str,
        library: &str,
        explained: bool,
        place: &str,
        connections: u64,
        bytes: u64,
    ) {
        let reason = if reason.is_empty() { "no reason was recorded" } else { reason };
        let known = self.reasons.iter_mut().find(|known| {
            known.verdict == verdict
                && known.reason == reason
                && known.tls_library == library
                && known.explained == explained
        });
        let known = match known {
            Some(known) => known,
            None => {
                self.reasons.push(Unexplained {
                    verdict: verdict.into(),
                    reason: reason.into(),
                    explained,
                    tls_library: library.into(),
                    to: Vec::new(),
                    share: Share::default(),
                });
                let last = self.reasons.len() - 1;
                &mut self.reasons[last]
            }
        };
        known.share.add(connections, bytes);
        if known.to.len() < MAX_PLACES && !known.to.iter().any(|to| to == place) {
            known.to.push(place.to_owned());
        }
    }
}

impl CoverageTotals {
    fn finish(&mut self) {
        let percent = |part, whole| (whole > 0).then(|| (share(part, whole) * 1_000.0).round() / 10.0);
        self.connections_percent = percent(self.explained_connections, self.connections);
        self.bytes_percent = percent(self.explained_bytes, self.bytes);
    }

    fn sentence(&self, sidecar: bool) -> String {
        match (sidecar, self.connections_percent, self.bytes_percent) {
            (false, ..) => {
                "no sidecar has run in this window: coverage unknown; start one with farcall-sidecar \
                            run"
                .into()
            }
            (true, Some(connections), Some(bytes)) => {
                format!("{connections}% of the connections and {bytes}% of the bytes are explained")
            }
            (true, None, Some(bytes)) => format!("{bytes}% of the bytes are explained"),
            (true, ..) => "a sidecar ran in this window and saw no connection".into(),
        }
    }
}
