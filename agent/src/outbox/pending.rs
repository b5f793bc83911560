//! What the writer answers, later: awaited or waited for.

use super::OutboxError;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread::{self, Thread};

/// Something that was asked of the outbox and is not on the disk yet. Dropping it takes nothing back.
#[derive(Debug)]
#[must_use = "it is not acknowledged before this says so"]
pub struct Pending<T> {
    shared: Arc<Shared<T>>,
    /// With whom it is answered.
    round: Option<Arc<Round>>,
}

/// The other end. Dropped without an answer, it answers that the outbox has ended.
pub(super) struct Reply<T>(Option<Arc<Shared<T>>>);

#[derive(Debug)]
struct Shared<T> {
    state: Mutex<State<T>>,
}

#[derive(Debug)]
struct State<T> {
    answer: Option<Result<T, OutboxError>>,
    waiter: Option<Waiter>,
}

/// Who is to be told of the answer.
#[derive(Debug)]
enum Waiter {
    Task(Waker),
    Thread(Thread),
}

/// Those who are answered together. One call wakes all of them: one for each would take as long as the sync that
/// they share.
#[derive(Debug, Default)]
pub(super) struct Round {
    over: Mutex<bool>,
    rings: Condvar,
}

/// Ends a round when it is dropped. Whoever has no answer by then still gets it.
#[derive(Debug, Default)]
pub(super) struct Ending(Arc<Round>);

impl Ending {
    pub(super) fn round(&self) -> &Arc<Round> {
        &self.0
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        *self.0.lock() = true;
        self.0.rings.notify_all();
    }
}

impl Round {
    fn wait(&self) {
        let over = self.rings.wait_while(self.lock(), |over| !*over);
        drop(over.unwrap_or_else(PoisonError::into_inner));
    }

    fn lock(&self) -> MutexGuard<'_, bool> {
        self.over.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn pair<T>() -> (Reply<T>, Pending<T>) {
    let state = Mutex::new(State { answer: None, waiter: None });
    let shared = Arc::new(Shared { state });
    (Reply(Some(Arc::clone(&shared))), Pending { shared, round: None })
}

impl<T> Pending<T> {
    /// What is answered already.
    pub(super) fn ready(answer: Result<T, OutboxError>) -> Self {
        let (reply, pending) = pair();
        reply.answer(answer);
        pending
    }

    /// The same, answered in a round.
    pub(super) fn within(self, round: &Arc<Round>) -> Self {
        Self { round: Some(Arc::clone(round)), ..self }
    }

    /// Waits for the answer.
    ///
    /// # Errors
    /// Where it was not done; see [`OutboxError`].
    pub fn wait(self) -> Result<T, OutboxError> {
        let mut round = self.round;
        loop {
            let mut state = self.shared.lock();
            if let Some(answer) = state.answer.take() {
                return answer;
            }
            if let Some(round) = round.take() {
                drop(state);
                round.wait();
                continue;
            }
            state.waiter = Some(Waiter::Thread(thread::current()));
            drop(state);
            thread::park();
        }
    }
}

impl<T> Future for Pending<T> {
    type Output = Result<T, OutboxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.shared.lock();
        match state.answer.take() {
            Some(answer) => Poll::Ready(answer),
            None => {
                state.waiter = Some(Waiter::Task(cx.waker().clone()));
                Poll::Pending
            }
        }
    }
}

impl<T> Reply<T> {
    pub(super) fn answer(mut self, answer: Result<T, OutboxError>) {
        self.tell(answer);
    }

    /// The first answer stands.
    pub(super) fn tell(&mut self, answer: Result<T, OutboxError>) {
        if let Some(shared) = self.0.take() {
            shared.put(answer);
        }
    }
}

impl<T> Drop for Reply<T> {
    fn drop(&mut self) {
        self.tell(Err(OutboxError::Busy));
    }
}

impl<T> Shared<T> {
    fn put(&self, answer: Result<T, OutboxError>) {
        let mut state = self.lock();
        state.answer = Some(answer);
        let waiter = state.waiter.take();
        drop(state);
        match waiter {
            Some(Waiter::Task(waker)) => waker.wake(),
            Some(Waiter::Thread(thread)) => thread.unpark(),
            None => {}
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
