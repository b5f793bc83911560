//! Calls that are not sent because nothing is trusted: no attempt fails that would say so.

use super::table::{Filter, State};
use super::{Operator, OutboxError};
use serde::Serialize;
use std::env;
use std::fs;
use std::path::Path;

/// What deliveries trust where these are set, as OpenSSL has it.
const FILE: &str = "SSL_CERT_FILE";
const FOLDERS: &str = "SSL_CERT_DIR";
/// What is noted of a call that is not sent for that begins so.
const NOTHING: &str = "there is no certificate to trust: ";
/// So many of the oldest calls that wait are asked why.
const ASKED: usize = 1_000;

/// What is noted of a call where no certificate of the system could be read.
pub(super) fn nothing_to_trust() -> String {
    let file = env::var_os(FILE).map(|file| match fs::read(Path::new(&file)) {
        Err(error) => format!("${FILE} names {file:?}, which cannot be read: {error}"),
        Ok(_) => format!("${FILE} names {file:?}, which has none"),
    });
    let folders = env::var_os(FOLDERS).filter(|folders| !folders.is_empty());
    let folders = folders.map(|folders| format!("${FOLDERS} names {folders:?}, which has none"));
    let why: Vec<String> = file.into_iter().chain(folders).collect();
    match why.is_empty() {
        true => format!("{NOTHING}the system has none (install ca-certificates, or set ${FILE})"),
        false => format!("{NOTHING}{}", why.join("; ")),
    }
}

/// A service whose calls are not sent, since its process has nothing to trust.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Untrusting {
    /// The service.
    pub service: String,
    /// What its process could not read.
    pub why: String,
}

impl std::fmt::Display for Untrusting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { service, why } = self;
        write!(f, "calls of {service} wait in the outbox and are not sent: {why}")
    }
}

impl Operator {
    /// The services whose calls are not sent because what their processes should trust cannot be read there, as it was
    /// noted of one of the oldest calls that wait.
    ///
    /// # Errors
    /// Where the store cannot be asked.
    pub fn untrusting(&self) -> Result<Vec<Untrusting>, OutboxError> {
        let filter = Filter { state: Some(State::Pending), limit: ASKED, ..Filter::default() };
        let mut found: Vec<Untrusting> = Vec::new();
        for item in self.inner.store()?.list(&filter).wait()? {
            let Some(why) = item.error.filter(|why| why.starts_with(NOTHING)) else { continue };
            if found.iter().all(|known| known.service != item.service) {
                found.push(Untrusting { service: item.service, why });
            }
        }
        Ok(found)
    }
}
