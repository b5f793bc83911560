//! What was taken while a copy was missing is copied when the copy is back. Which calls those are is written down before
//! they are acknowledged, so that a process that starts later knows, too.

use super::super::super::seal::name_of;
use super::super::super::table::State;
use super::super::super::{OutboxError, nanos, wall};
use super::super::moving;
use super::copies::UNDER_WAY;
use super::{Links, Store};
use std::sync::Arc;

/// So many calls at once.
const MANY: usize = 200;

/// How far it is.
#[derive(Clone, Debug, Default)]
pub(super) struct Place {
    /// Those of names up to this one had their turn.
    after: Vec<u8>,
    /// The copy is missing yet: no more calls are read for it this time.
    in_vain: bool,
}

impl Links {
    /// Copies some of the calls that were taken without their copies, and forgets which of them were settled. Where to
    /// go on; `None` at the end.
    ///
    /// # Errors
    /// Where the store or the file cannot be asked.
    pub(super) fn complete(&self, at: &Place) -> Result<Option<Place>, OutboxError> {
        if !self.file.exists() {
            return Ok(None);
        }
        let noted = self.file.look(|db| moving::uncopied(db, &at.after, MANY))?;
        let Some((last, _)) = noted.last().cloned() else { return Ok(None) };
        // Whose copies they are is said first.
        self.copies.look(&*self.store, &self.file, true, None)?;
        let states = self.states(noted.iter().map(|(name, _)| name.clone()).collect())?;
        // One that nobody has by then was never acknowledged, or is forgotten.
        let old = wall().saturating_sub(nanos(UNDER_WAY));
        let (mut done, mut wanted) = (Vec::new(), Vec::new());
        for (name, at) in noted {
            match states.get(&name) {
                Some(State::Pending) => wanted.push(name),
                Some(State::Delivered) => done.push(name),
                // Until it is retried or forgotten.
                Some(State::Dead) => {}
                None if at < old => done.push(name),
                None => {}
            }
        }
        if at.in_vain {
            wanted.clear();
        }
        let mut calls = self.store.named(wanted.clone()).wait()?;
        if let Some(spool) = &self.spool {
            calls.extend(spool.file().named(wanted).wait()?);
        }
        let calls: Vec<_> = calls.into_iter().map(Arc::new).collect();
        let copied = self.copies.complete(&calls);
        let in_vain = at.in_vain || (!calls.is_empty() && !copied.contains(&true));
        let copied = calls.iter().zip(copied).filter(|(_, copied)| *copied);
        done.extend(copied.map(|(new, _)| name_of(&new.request).to_vec()));
        if !done.is_empty() {
            self.file.write(0, move |db| moving::copied_now(db, &done)).wait()?;
        }
        Ok(Some(Place { after: last, in_vain }))
    }
}
