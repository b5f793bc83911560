//! Filters that no row matches: which of them it is, and what to write instead. To people only: what a program reads is
//! the empty report.

use super::filter::{Filter, subject_of};
use super::quotas::NOTHING_STATED;
use super::render::{Render, Style};
use super::source::Source;
use super::{Query, Report, ReportError};
use farcall::config::nearest_name;
use farcall::matcher::Subject;
use std::collections::BTreeSet;
use std::fmt;

/// Names that are offered in the place of one that is like none of them.
const MAX_SHOWN: usize = 8;

/// Why a report has no rows: what its filters ask for, and what there is, in sentences.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unmatched {
    sentences: Vec<String>,
}

impl fmt::Display for Unmatched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentences.join(" "))
    }
}

impl Report {
    /// Why its filters leave nothing of it; `None` where something is left, or there is nothing to leave.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub fn unmatched(&self, query: &Query) -> Result<Option<Unmatched>, ReportError> {
        let (is_empty, has_calls) = match self {
            Self::Vendors(table) => (table.rows.is_empty(), true),
            Self::Endpoints(table) => (table.rows.is_empty(), true),
            Self::Customers(table) => (table.rows.is_empty(), true),
            Self::Callers(table) => (table.rows.is_empty(), true),
            Self::Calls(table) => (table.rows.is_empty(), true),
            Self::Findings(table) => (table.rows.is_empty(), true),
            Self::Advise(advice) => (advice.rows.is_empty(), true),
            Self::All(all) => {
                let coverage = all.coverage.as_ref();
                (all.vendors.rows.is_empty() && coverage.is_none_or(|seen| seen.rows.is_empty()), true)
            }
            // Without a sidecar nothing is known of any connection.
            Self::Coverage(coverage) => (coverage.rows.is_empty() && coverage.sidecar, false),
            Self::Incidents(incidents) => (incidents.rows.is_empty(), false),
            Self::Quotas(quotas) => (quotas.notes == [NOTHING_STATED], false),
            Self::Budgets(budgets) => (budgets.rows.is_empty(), false),
            Self::Notices(notices) => (notices.rows.is_empty(), false),
        };
        let found = if is_empty { look(query)? } else { None };
        Ok(found.filter(|found| !(has_calls && found.calls_match)).map(|found| found.unmatched))
    }
}

/// Why no call of the window matches the filters; `None` where one does, or there is none.
///
/// # Errors
/// When there is no ledger, or it cannot be read.
pub fn unmatched(query: &Query) -> Result<Option<Unmatched>, ReportError> {
    let found = look(query)?;
    Ok(found.filter(|found| !found.calls_match).map(|found| found.unmatched))
}

struct Found {
    unmatched: Unmatched,
    calls_match: bool,
}

/// A filter, whether anything in the window matches it, and what there is until something does.
struct Asked<'q> {
    filter: &'q Filter,
    is_met: bool,
    values: BTreeSet<String>,
}

fn look(query: &Query) -> Result<Option<Found>, ReportError> {
    if query.filters.is_empty() {
        return Ok(None);
    }
    let all = Query { filters: Vec::new(), ..query.clone() };
    let source = Source::open(&all)?;
    let asked = |filter| Asked { filter, is_met: false, values: BTreeSet::new() };
    let mut asked: Vec<Asked<'_>> = query.filters.iter().map(asked).collect();
    let (mut is_empty, mut calls_match) = (true, false);
    source.rows(|row| {
        is_empty = false;
        let mut all = true;
        for asked in &mut asked {
            let matches = asked.filter.matches(row);
            asked.see(matches, || asked.filter.values(&subject_of(row), row.tap, row.outcome));
            all &= matches;
        }
        calls_match |= all;
    })?;
    source.connections(|row| {
        is_empty = false;
        for asked in asked.iter_mut().filter(|asked| asked.filter.is_about_connections()) {
            let mut subject = Subject::default();
            subject.vendor = row.vendor;
            subject.vendor_tags = source.tags(row.vendor);
            subject.caller = row.caller;
            let matches = asked.filter.matches_connection(row.vendor, subject.vendor_tags, row.caller);
            asked.see(matches, || asked.filter.values(&subject, "", ""));
        }
    })?;
    if is_empty {
        return Ok(None);
    }
    let mut sentences: Vec<String> =
        asked.iter().filter(|asked| !asked.is_met).map(|asked| asked.sentence(&source)).collect();
    if sentences.is_empty() {
        let filters: Vec<String> = query.filters.iter().map(Filter::quoted).collect();
        let together = if filters.len() > 1 { " together" } else { "" };
        sentences.push(format!("No row of this window matches {}{together}.", filters.join(" and ")));
    }
    Ok(Some(Found { unmatched: Unmatched { sentences }, calls_match }))
}

impl<'q> Asked<'q> {
    fn see<'v>(&mut self, matches: bool, values: impl FnOnce() -> Vec<&'v str>) {
        self.is_met |= matches;
        if !self.is_met && self.filter.wanted().is_some() {
            for value in values().into_iter().filter(|value| !value.is_empty()) {
                if !self.values.contains(value) {
                    self.values.insert(value.to_owned());
                }
            }
        }
    }

    fn sentence(&self, source: &Source<'_>) -> String {
        let filter = self.filter.quoted();
        match self.remedy(source) {
            Some(remedy) => format!("No row of this window matches {filter}{remedy}"),
            None => format!("No row of this window matches {filter}."),
        }
    }

    /// What to write instead, or what there is.
    fn remedy(&self, source: &Source<'_>) -> Option<String> {
        let wanted = self.filter.wanted()?;
        let written = |value: &str| self.filter.asking_for(value);
        if self.filter.is_about_vendors() {
            let mut below = source.config.vendors_below(wanted);
            if below.iter().any(|vendor| self.values.contains(vendor)) {
                below.retain(|vendor| self.values.contains(vendor));
            }
            if let [first, rest @ ..] = below.as_slice() {
                let whose = rest
                    .iter()
                    .fold(format!("the vendor {first}"), |said, other| format!("{said} and of {other}"));
                let write: Vec<String> = below.iter().map(|vendor| written(vendor)).collect();
                return Some(format!(
                    ": {wanted} is a domain of {whose}; write {}",
                    write.join(" or ") + "."
                ));
            }
        }
        let known = || self.values.iter().map(String::as_str);
        let part = || {
            let lower = wanted.to_lowercase();
            known().find(|known| known.to_lowercase().contains(&lower))
        };
        if !wanted.contains('*') {
            if source.knows(wanted) {
                return Some("; earlier ones do: look further back with --since 7d.".to_owned());
            }
            if let Some(nearest) = nearest_name(wanted, known()).or_else(part) {
                return Some(format!("; did you mean {}?", written(nearest)));
            }
        }
        match self.values.len() {
            0 => None,
            1..=MAX_SHOWN => Some(format!("; there are {}.", known().collect::<Vec<_>>().join(", "))),
            more => Some(format!(
                "; there are {} and {} more.",
                known().take(MAX_SHOWN).collect::<Vec<_>>().join(", "),
                more - MAX_SHOWN
            )),
        }
    }
}

impl Render for Unmatched {
    fn render(&self, style: &Style) -> String {
        super::render::sentences(&self.sentences, style)
    }
}
