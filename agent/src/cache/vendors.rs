//! Which vendors somebody may mean: a name with a typing mistake in it matches nothing, and says so nowhere else.

use crate::home;
use crate::report::ReportError;
use crate::store::open_for_reading;
use farcall::Config;
use rusqlite::Connection;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Why nothing can be kept of this vendor, in words; `None` where something can: the catalogue has it, a configuration
/// of here or of a program of this home directory does, or a call to it is in the ledger. Patterns always can.
pub(super) fn objection(home: &Path, text: &str) -> Result<Option<String>, ReportError> {
    let name = text.strip_prefix('!').unwrap_or(text).trim();
    if name.contains('*') || Config::default().objection_to_vendor(name).is_none() {
        return Ok(None);
    }
    let candidates = home::config_candidates(None, Some(home)).into_iter();
    let mut files: BTreeSet<PathBuf> = candidates.filter_map(|file| std::path::absolute(file).ok()).collect();
    if let Some(ledger) = open_for_reading(home)? {
        if was_called(&ledger, name)? {
            return Ok(None);
        }
        files.extend(configurations(&ledger)?);
    }
    let mut known = Config::default();
    let mut unread = Vec::new();
    // What is not there, or right only in parts, names no further vendors.
    for file in files.iter().filter(|file| file.exists()) {
        match home::config_text(file) {
            Ok(text) => known.vendors.extend(Config::read(&file.display().to_string(), &text).0.vendors),
            Err(error) => unread.push(error),
        }
    }
    let and_unread = |objection: String| match unread.is_empty() {
        true => objection,
        false => format!("{objection}. A file that may name it cannot be read: {}", unread.join("; ")),
    };
    Ok(known.objection_to_vendor(name).map(and_unread))
}

fn was_called(ledger: &Connection, name: &str) -> rusqlite::Result<bool> {
    let sql = "SELECT EXISTS (SELECT 1 FROM rollups JOIN names ON names.id = vendor WHERE name = ?1 COLLATE NOCASE)";
    ledger.query_row(sql, [name], |row| row.get(0))
}

fn configurations(ledger: &Connection) -> rusqlite::Result<Vec<PathBuf>> {
    let mut statement = ledger.prepare("SELECT DISTINCT config FROM processes WHERE config <> ''")?;
    let files = statement.query_map([], |row| row.get::<_, String>(0))?;
    files.map(|file| file.map(PathBuf::from)).collect()
}
