//! Calls that wait for a key that is gone: nobody delivers them, and no attempt fails that would say so.

use super::seal::{FILE, Keys, VARIABLE};
use super::{Operator, OutboxError};
use serde::Serialize;

/// Calls that wait, and that cannot be decrypted here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Unreadable {
    /// How many, with those that wait for one of the same order key; of very many the ones that are due first.
    pub calls: u64,
    /// Why, and what is to be done.
    pub why: String,
}

impl std::fmt::Display for Unreadable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { calls, why } = self;
        let (calls, verb) =
            if *calls == 1 { ("1 call".to_owned(), "waits") } else { (format!("{calls} calls"), "wait") };
        write!(f, "{calls} in the outbox {verb} for a key: {why}")
    }
}

impl Operator {
    /// The calls that wait and that no process can deliver which has the keys of this environment and home directory;
    /// `None` where all can be read. Makes no key.
    ///
    /// # Errors
    /// Where the store cannot be asked.
    pub fn unreadable(&self) -> Result<Option<Unreadable>, OutboxError> {
        let sealed = self.inner.store()?.sealed()?;
        if sealed.is_empty() {
            return Ok(None);
        }
        let file = self.inner.home.join(FILE);
        let (keys, why) = match Keys::there(&self.inner.home) {
            Ok(keys) => (keys, None),
            Err(OutboxError::Key(why)) => (Keys::from(Vec::new()), Some(why)),
            Err(error @ OutboxError::NoKey(_)) => (Keys::from(Vec::new()), Some(error.to_string())),
            Err(error) => return Err(error),
        };
        let calls =
            sealed.iter().filter(|(beginning, _)| keys.lacks(beginning)).map(|(_, calls)| calls).sum();
        let why = why.unwrap_or_else(|| {
            format!(
                "it is neither in {} nor in ${VARIABLE}; put it back (programs may have that variable where this \
                 command has not). Where it is lost, so are these calls: farcall outbox drop",
                file.display()
            )
        });
        Ok((calls > 0).then_some(Unreadable { calls, why }))
    }
}
