use super::table::{self, Count, Filter, Item};
use super::{Answer, Inner, OutboxError, wall};
use crate::outbox::parcel::Content;
use crate::outbox::seal::Purpose;
use rusqlite::Connection;
use serde::Serialize;
use std::path::Path;
use std::sync::Arc;

/// Looks after an outbox from outside: `farcall outbox`. Delivers nothing.
#[derive(Debug)]
pub struct Operator {
    inner: Arc<Inner>,
}

/// A call with what it carries, for people to read: credentials are not shown.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Shown {
    /// How it stands.
    #[serde(flatten)]
    pub item: Item,
    /// Where it goes.
    pub url: String,
    /// Names and values of the request's headers; where a credential comes from instead of its value.
    pub headers: Vec<(String, String)>,
    /// The request's body; only where it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// What the vendor answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answer: Option<Answer>,
    /// The body of that; only where it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answer_body: Option<String>,
}

impl Operator {
    /// The outbox in this home directory.
    #[must_use]
    pub fn at(home: &Path) -> Self {
        Self { inner: Inner::new(home, "", None, false) }
    }

    /// The calls that the filter lets through, the oldest first.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub fn list(&self, filter: &Filter) -> Result<Vec<Item>, OutboxError> {
        self.read(|connection| table::list(connection, filter))
    }

    /// How many calls there are, by service and state.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub fn counts(&self) -> Result<Vec<Count>, OutboxError> {
        self.read(table::counts)
    }

    /// One call, decrypted; with bodies where `bodies`.
    ///
    /// # Errors
    /// Where the file cannot be read, has no such call, or its key is not here.
    pub fn show(&self, id: i64, bodies: bool) -> Result<Shown, OutboxError> {
        let (item, request, response) = self.inner.get(id)?;
        let bytes = self.inner.keys()?.open(Purpose::Request, &item.idempotency_key, &request)?;
        let content = Content::from_bytes(&bytes).ok_or_else(|| OutboxError::Key("it is damaged".into()))?;
        let answer = self.inner.answer_of(&item, response)?;
        let text = |bytes: &[u8]| bodies.then(|| String::from_utf8_lossy(bytes).into_owned());
        Ok(Shown {
            url: content.url.clone(),
            headers: content.shown_headers(),
            body: text(&content.body),
            answer_body: answer.as_ref().and_then(|answer| text(&answer.body)),
            answer,
            item,
        })
    }

    /// Delivers calls anew that were given up or wait: at once, with age and attempts counted from now. How many
    /// there were.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn retry(&self, ids: &[i64]) -> Result<usize, OutboxError> {
        let ids = ids.to_vec();
        self.write(move |connection| {
            let now = wall();
            ids.iter().try_fold(0, |many, id| Ok(many + usize::from(table::retry(connection, *id, now)?)))
        })
    }

    /// Forgets calls, delivered or not. How many there were.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn remove(&self, ids: &[i64]) -> Result<usize, OutboxError> {
        let ids = ids.to_vec();
        self.write(move |connection| {
            ids.iter().try_fold(0, |many, id| Ok(many + usize::from(table::remove(connection, *id)?)))
        })
    }

    /// Why nothing is accepted any more, where the disk failed.
    #[must_use]
    pub fn stopped(&self) -> Option<OutboxError> {
        self.inner.place.stopped().err()
    }

    /// Lets processes that start from now on use the outbox again, after its disk failed.
    ///
    /// # Errors
    /// Where the mark cannot be removed, or the file cannot be opened.
    pub fn resume(&self) -> Result<(), OutboxError> {
        self.inner.place.resume().map_err(|error| self.inner.place.unavailable(error))?;
        if !self.inner.place.exists() {
            return Ok(());
        }
        let wrong = |error: rusqlite::Error| self.inner.place.failure(&error);
        let open = self.inner.place.open()?;
        let found: String =
            open.connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0)).map_err(wrong)?;
        match found.as_str() {
            "ok" => Ok(()),
            damage => Err(self.inner.place.unavailable(format!("it is damaged: {damage}"))),
        }
    }

    pub(super) fn read<T: Default>(
        &self,
        question: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, OutboxError> {
        match self.inner.place.open_for_reading()? {
            Some(connection) => question(&connection).map_err(|error| self.inner.place.failure(&error)),
            None => Ok(T::default()),
        }
    }

    fn write<T: Send + Default + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, OutboxError> {
        if !self.inner.place.exists() {
            return Ok(T::default());
        }
        self.inner.writer.submit(0, move |transaction| work(transaction)).wait()
    }
}
