use super::file::Place;
use super::restore::{Restored, restore};
use super::store::{FileStore, Store, Unserved};
use super::table::{Count, Filter, Item, State, moment};
use super::{Answer, Inner, OutboxError, Pending, VendorCount, queue};
use crate::home;
use crate::outbox::content::Content;
use crate::outbox::seal::Purpose;
use farcall::Config;
use farcall::config::{OutboxPlace, OutboxStore};
use serde::Serialize;
use std::path::Path;
use std::sync::Arc;

/// Looks after an outbox from outside: `farcall outbox`. Delivers nothing.
#[derive(Debug)]
pub struct Operator {
    pub(super) inner: Arc<Inner>,
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

/// A credential of which no process that delivers knows the callback.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Awaited {
    /// The service.
    pub service: String,
    /// The name of the credential.
    pub credential: String,
    /// Calls that wait for it.
    pub calls: u64,
    /// When the oldest of them was put; in JSON, RFC 3339.
    #[serde(serialize_with = "moment")]
    pub oldest: i64,
}

impl std::fmt::Display for Awaited {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { service, credential, calls, .. } = self;
        let (calls, verb) =
            if *calls == 1 { ("1 call".to_owned(), "waits") } else { (format!("{calls} calls"), "wait") };
        write!(f, "{calls} of {service} {verb} for a process that knows the credential `{credential}`")
    }
}

impl Operator {
    /// The outbox of this home directory: where the configuration says that it is, which is read as by a program
    /// with this home directory. Where there is a file that cannot be read, nobody knows: then each question ends in
    /// that error.
    #[must_use]
    pub fn at(home: &Path) -> Self {
        let text = home::find_config(None, Some(home)).map(|file| home::config_text(&file)).transpose();
        let settings = text.map(|text| match text {
            Some(text) => Config::read(home::CONFIG, &text).0.outbox_store,
            None => OutboxStore::default(),
        });
        Self { inner: Inner::new(home, "", None, None, Arc::default(), false, settings.as_ref()) }
    }

    /// Whether there is an outbox, or one that cannot be had.
    #[must_use]
    pub fn may_have_calls(&self) -> bool {
        self.inner.store().is_ok_and(|store| store.exists()) || self.inner.store().is_err()
    }

    /// Whether other hosts may put calls there, too: what services they have is known to nobody here.
    ///
    /// # Errors
    /// Where it cannot be had.
    pub fn is_shared(&self) -> Result<bool, OutboxError> {
        Ok(self.inner.store()?.is_shared())
    }

    /// The calls that the filter lets through, the oldest first.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub fn list(&self, filter: &Filter) -> Result<Vec<Item>, OutboxError> {
        let store = self.inner.store()?;
        let mut items = store.list(filter).wait()?;
        self.say_what_is_awaited(&mut items)?;
        Ok(items)
    }

    /// The credentials that calls which are due wait for: those of callbacks that no process which delivers knows.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub fn awaited(&self) -> Result<Vec<Awaited>, OutboxError> {
        let unserved = self.inner.store()?.unserved()?;
        let awaited = unserved.into_iter().filter_map(|Unserved { queue, calls, oldest }| {
            let (service, credential) = queue::parts(&queue);
            Some(Awaited { service: service.to_owned(), credential: credential?.to_owned(), calls, oldest })
        });
        Ok(awaited.collect())
    }

    /// Has calls that wait for a process say so, before what became of them the last time.
    fn say_what_is_awaited(&self, items: &mut [Item]) -> Result<(), OutboxError> {
        let waits = |item: &Item| item.state == State::Pending && item.credential.is_some();
        if !items.iter().any(waits) {
            return Ok(());
        }
        let unserved = self.inner.store()?.unserved()?;
        for item in items.iter_mut().filter(|item| waits(item)) {
            let queue = item.queue();
            if let Some(credential) = &item.credential
                && unserved.iter().any(|unserved| unserved.queue == queue)
            {
                let last =
                    item.error.as_ref().map_or(String::new(), |last| format!("; the last time: {last}"));
                item.error = Some(queue::waits_for(credential) + &last);
            }
        }
        Ok(())
    }

    /// Those that wait on this host until a PostgreSQL takes them; also while it cannot be reached.
    ///
    /// # Errors
    /// Where their file cannot be read.
    pub fn waiting_here(&self, filter: &Filter) -> Result<Vec<Item>, OutboxError> {
        self.inner.store()?.waiting_here(filter)
    }

    /// What the file of this home directory has of the outbox, where that is in a PostgreSQL: what waits for it here, or
    /// was left here; also while it cannot be reached. Nothing where the file is the outbox itself.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub fn here(&self) -> Result<(Vec<Count>, Vec<VendorCount>), OutboxError> {
        if !self.inner.store()?.is_shared() {
            return Ok((Vec::new(), Vec::new()));
        }
        let file = FileStore::new(Place::new(&self.inner.home), Arc::default());
        let mut counts = file.counts().wait()?;
        // What went on is the server's to count.
        counts.retain(|count| count.state != State::Delivered);
        let mut vendors = file.vendors().wait()?;
        vendors.retain(|count| count.pending + count.dead > 0);
        vendors.iter_mut().for_each(|count| count.delivered = 0);
        VendorCount::sort(&mut vendors);
        Ok((counts, vendors))
    }

    /// How many calls there are, by service and state.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub fn counts(&self) -> Result<Vec<Count>, OutboxError> {
        self.inner.store()?.counts().wait()
    }

    /// One call, decrypted; with bodies where `bodies`.
    ///
    /// # Errors
    /// Where the file cannot be read, has no such call, or its key is not here.
    pub fn show(&self, id: i64, bodies: bool) -> Result<Shown, OutboxError> {
        let (mut item, request, response) = self.inner.get(id)?;
        self.say_what_is_awaited(std::slice::from_mut(&mut item))?;
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
    /// Where the file cannot be written: of many calls some may have been retried until then.
    pub fn retry(&self, ids: &[i64]) -> Result<usize, OutboxError> {
        self.in_parts(ids, |store, ids| store.retry(ids))
    }

    /// Forgets calls, delivered or not. How many there were.
    ///
    /// # Errors
    /// Where the file cannot be written: of many calls some may have been forgotten until then.
    pub fn remove(&self, ids: &[i64]) -> Result<usize, OutboxError> {
        self.in_parts(ids, |store, ids| store.remove(ids))
    }

    /// Some at a time: who puts or delivers meanwhile waits for no more than that, and a server takes no longer than it
    /// may.
    fn in_parts(
        &self,
        ids: &[i64],
        work: impl Fn(&dyn Store, Vec<i64>) -> Pending<usize>,
    ) -> Result<usize, OutboxError> {
        const MANY: usize = 200;
        let store = self.inner.store()?;
        ids.chunks(MANY).try_fold(0, |many, ids| Ok(many + work(&**store, ids.to_vec()).wait()?))
    }

    /// Puts calls back from a copy: those that it has and that the store has not, under new numbers and the same
    /// idempotency keys; its dead letters too, to be delivered, where `dead`. Run again, it finds those of the first
    /// time in their place. `of` names the outbox that was lost, where the copy has calls of several.
    ///
    /// # Errors
    /// Where the copy or the store cannot be used, or a call of the copy cannot be decrypted; what was put back until
    /// then stays. Where the copy has calls of several outboxes, and `of` is none of them.
    pub fn restore(&self, from: &OutboxPlace, of: Option<&str>, dead: bool) -> Result<Restored, OutboxError> {
        restore(&self.inner, from, of, dead)
    }

    /// Why nothing is accepted any more, where the disk failed.
    #[must_use]
    pub fn stopped(&self) -> Option<OutboxError> {
        self.inner.store().and_then(|store| store.stopped()).err()
    }

    /// Lets processes that start from now on use the outbox again, after its disk failed.
    ///
    /// # Errors
    /// Where the mark cannot be removed, or the file cannot be opened.
    pub fn resume(&self) -> Result<(), OutboxError> {
        self.inner.store()?.resume()
    }
}
