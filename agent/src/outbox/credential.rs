//! Credentials that the program itself has: asked for by name at each delivery, from a function that it registered.
//!
//! The outbox knows the name alone. Each question has a thread of its own, and an end: who does not answer in time has
//! failed, and so many questions that nobody answered leave no room for more.

use super::{Outbox, OutboxError};
use crate::thread::{self, Mask};
use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

/// How long a callback may take.
const PATIENCE: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 10 });
/// Questions to one callback that wait for an answer, those among them that nobody waits for any more.
const AT_ONCE: usize = 16;
const MAX_NAME: usize = 256;
/// Of what a callback says about its failure.
const MAX_WHY: usize = 200;

type Callback = dyn Fn(Asked) + Send + Sync;

/// The callbacks of this process, by name. A child that is forked has them too.
#[derive(Default)]
pub(crate) struct Credentials(Mutex<BTreeMap<String, Arc<Known>>>);

struct Known {
    callback: Arc<Callback>,
    /// The signals of whoever registered it: programs that it starts would never get those that are blocked here.
    mask: Mask,
    room: Arc<Semaphore>,
}

impl Known {
    fn new(callback: Arc<Callback>, mask: Mask) -> Arc<Self> {
        Arc::new(Self { callback, mask, room: Arc::new(Semaphore::new(AT_ONCE)) })
    }
}

/// A credential that somebody asked for: to be [answered](Asked::answer), from whichever thread. Dropped instead, the
/// callback has failed.
#[derive(Debug)]
pub struct Asked {
    reply: oneshot::Sender<Result<String, String>>,
    _room: OwnedSemaphorePermit,
}

/// Why there is no credential.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Missing {
    /// This process does not know the callback.
    Unknown,
    /// It has none to give.
    Failed(String),
}

impl Outbox {
    /// Registers the callback that has the credential of this name, for [`Reference::callback`](super::Reference::callback):
    /// asked at each delivery, on a thread of its own, for at most 10 seconds. Another one of the name takes its place.
    /// From then on this process delivers calls of its service that take the credential, whoever put them.
    ///
    /// Where it fails, panics, or has nothing, that is a failed attempt; what the error says is kept in the clear, with
    /// the call.
    ///
    /// # Errors
    /// Where this is no name for it.
    pub fn credential<E: fmt::Display>(
        &self,
        name: impl Into<String>,
        callback: impl Fn() -> Result<String, E> + Send + Sync + 'static,
    ) -> Result<(), OutboxError> {
        self.credential_later(name, move |asked| {
            asked.answer(callback().map_err(|error| format!(": {error}")));
        })
    }

    /// The same, for a callback that answers when it can: what it is given may go to another thread.
    ///
    /// # Errors
    /// As [`credential`](Outbox::credential).
    pub fn credential_later(
        &self,
        name: impl Into<String>,
        callback: impl Fn(Asked) + Send + Sync + 'static,
    ) -> Result<(), OutboxError> {
        let name = checked(name.into())?;
        self.inner.credentials.lock().insert(name, Known::new(Arc::new(callback), Mask::current()));
        self.inner.serve();
        Ok(())
    }
}

impl Asked {
    /// Gives it, or says why not: what stands behind "the callback of the credential `name` failed". The first answer
    /// within the time stands.
    pub fn answer(self, answer: Result<String, String>) {
        // Nobody may be waiting any more.
        let _ = self.reply.send(answer);
    }
}

impl Credentials {
    /// Those of a child that is forked now: the same, of which none was asked yet.
    pub(crate) fn forked(&self) -> Self {
        // Held for ever where another thread of the parent had it.
        let Ok(known) = self.0.try_lock() else { return Self::default() };
        let anew = known
            .iter()
            .map(|(name, known)| (name.clone(), Known::new(Arc::clone(&known.callback), known.mask)));
        Self(Mutex::new(anew.collect()))
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.lock().keys().cloned().collect()
    }

    pub(super) fn are_there(&self) -> bool {
        !self.lock().is_empty()
    }

    /// The credential of this name, as it is now.
    pub(super) async fn ask(&self, name: &str) -> Result<String, Missing> {
        let known = self.lock().get(name).cloned().ok_or(Missing::Unknown)?;
        let failed = |why: &str| Missing::Failed(format!("the callback of the credential `{name}` {why}"));
        let answer = async {
            let Ok(room) = Arc::clone(&known.room).acquire_owned().await else {
                return Err(failed("is gone"));
            };
            let (reply, answer) = oneshot::channel();
            let asked = Asked { reply, _room: room };
            let (mask, known) = (known.mask, Arc::clone(&known));
            let call = move || {
                // What it does is not ours; where it panics it has not answered.
                let _ = catch_unwind(AssertUnwindSafe(|| (known.callback)(asked)));
            };
            if thread::spawn_with(mask, "farcall-secret", call).is_err() {
                return Err(failed("could not be asked: no thread can be started"));
            }
            match answer.await {
                Ok(Ok(value)) if value.is_empty() => Err(failed("has nothing to give")),
                Ok(Ok(value)) => Ok(value),
                Ok(Err(why)) => Err(failed(&format!("failed{}", shortened(&why)))),
                Err(_) => Err(failed("failed without an answer")),
            }
        };
        let late = || failed(&format!("did not answer within {} s", PATIENCE.as_secs()));
        tokio::time::timeout(PATIENCE, answer).await.unwrap_or_else(|_| Err(late()))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Known>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}

/// A name that a credential can have.
pub(super) fn checked(name: String) -> Result<String, OutboxError> {
    match name.is_empty() || name.len() > MAX_NAME || name.chars().any(char::is_control) {
        true => Err(OutboxError::Invalid(format!(
            "the name of a credential has 1 to {MAX_NAME} bytes, and no control characters"
        ))),
        false => Ok(name),
    }
}

fn shortened(why: &str) -> String {
    crate::say::plain(why).chars().take(MAX_WHY).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(callback: impl Fn(Asked) + Send + Sync + 'static) -> Credentials {
        Credentials(Mutex::new(BTreeMap::from([(
            "stripe".to_owned(),
            Known::new(Arc::new(callback), Mask::current()),
        )])))
    }

    fn asked(credentials: &Credentials) -> Result<String, Missing> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(credentials.ask("stripe"))
    }

    fn failure(credentials: &Credentials) -> String {
        match asked(credentials) {
            Err(Missing::Failed(why)) => why,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_callback_is_asked_anew_each_time_and_on_a_thread_of_its_own() {
        let here = std::thread::current().id();
        let turns = Mutex::new(0);
        let credentials = known(move |asked| {
            assert_ne!(std::thread::current().id(), here);
            let mut turn = turns.lock().unwrap();
            *turn += 1;
            asked.answer(Ok(format!("sk_{turn}")));
        });
        assert_eq!(
            [asked(&credentials), asked(&credentials)],
            ["sk_1", "sk_2"].map(|key| Ok(key.to_owned()))
        );
        assert_eq!(asked(&Credentials::default()), Err(Missing::Unknown));
    }

    #[test]
    fn a_callback_that_fails_says_so_and_one_that_panics_or_says_nothing_has_failed_too() {
        let why = |callback: fn(Asked)| failure(&known(callback));
        assert_eq!(
            why(|asked| asked.answer(Err(" (ValueError)\n".to_owned()))),
            "the callback of the credential `stripe` failed (ValueError)\u{FFFD}"
        );
        assert!(why(|asked| asked.answer(Err("x".repeat(5_000)))).len() < 300);
        assert!(why(|asked| asked.answer(Ok(String::new()))).contains("has nothing to give"));
        assert!(why(drop).contains("failed without an answer"));
        assert!(why(|_| panic!("on purpose")).contains("failed without an answer"));
    }

    #[test]
    fn callbacks_that_hang_take_up_bounded_room_and_nobody_waits_for_them_for_ever() {
        let kept = Arc::new(Mutex::new(Vec::new()));
        let hung = Arc::clone(&kept);
        let credentials = known(move |asked| hung.lock().unwrap().push(asked));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let late = runtime.block_on(async {
            let all = (0..AT_ONCE + 5).map(|_| credentials.ask("stripe"));
            let mut late = 0;
            let mut waiting = Vec::from_iter(all.map(Box::pin));
            for one in &mut waiting {
                // Each is begun before the first one ends.
                let _ = tokio::time::timeout(Duration::ZERO, one.as_mut()).await;
            }
            for one in waiting {
                late += usize::from(
                    matches!(one.await, Err(Missing::Failed(why)) if why.contains("did not answer")),
                );
            }
            late
        });
        assert_eq!(late, AT_ONCE + 5);
        assert_eq!(kept.lock().unwrap().len(), AT_ONCE);
        kept.lock().unwrap().clear();
        assert!(failure(&credentials).contains("did not answer"), "there is room again");
        assert_eq!(kept.lock().unwrap().len(), 1);
    }

    #[test]
    fn a_name_has_no_end_of_its_own() {
        assert!(["stripe", "Stripe live key"].iter().all(|name| checked((*name).to_owned()).is_ok()));
        assert!(
            ["", "a\u{1f}b", "a\n", &"x".repeat(257)].iter().all(|name| checked((*name).to_owned()).is_err())
        );
    }
}
