//! What the thread is asked to do: calls to be added and to be settled, many of them in one transaction, and
//! questions, each in one of its own.

use super::super::super::pending::Reply;
use super::super::super::table::{Item, New, Settlement};
use super::super::super::{OutboxError, Receipt};
use sqlx::PgConnection;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

type Done<'a> = Pin<Box<dyn Future<Output = sqlx::Result<()>> + 'a>>;

/// A question in a transaction of its own.
pub(super) trait Question: Send {
    fn ask<'a>(&'a mut self, db: &'a mut PgConnection) -> Done<'a>;
    fn answer(self: Box<Self>, committed: Result<(), OutboxError>);
}

pub(super) struct Asked<F, T> {
    pub(super) work: F,
    pub(super) done: Option<T>,
    pub(super) reply: Reply<T>,
}

impl<F, T> Question for Asked<F, T>
where
    F: AsyncFn(&mut PgConnection) -> sqlx::Result<T> + Send,
    T: Send,
{
    fn ask<'a>(&'a mut self, db: &'a mut PgConnection) -> Done<'a> {
        Box::pin(async move {
            self.done = Some((self.work)(db).await?);
            Ok(())
        })
    }

    fn answer(mut self: Box<Self>, committed: Result<(), OutboxError>) {
        let done = self.done.take().ok_or(OutboxError::Busy);
        self.reply.answer(committed.and(done));
    }
}

/// A call to be added.
pub(super) struct Put {
    pub(super) new: Arc<New>,
    pub(super) id: Option<i64>,
    /// In a copy, whose it is.
    pub(super) owner: Option<Arc<str>>,
    pub(super) reply: Reply<Receipt>,
}

/// How an attempt came out.
pub(super) struct Settled {
    pub(super) token: i64,
    pub(super) item: Item,
    pub(super) settlement: Arc<Settlement>,
    pub(super) done: bool,
    pub(super) reply: Reply<bool>,
}

pub(super) enum Job {
    Put(Put),
    Settled(Box<Settled>),
    Question(Box<dyn Question>),
}

impl Job {
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Put(put) => put.new.request.len(),
            _ => 0,
        }
    }

    pub(super) fn answer(self, committed: Result<(), OutboxError>) {
        match self {
            Self::Put(Put { new, id, reply, .. }) => reply.answer(committed.and_then(|()| {
                let id = id.ok_or(OutboxError::Busy)?;
                Ok(Receipt { id, idempotency_key: new.idempotency_key.clone() })
            })),
            Self::Settled(settled) => settled.reply.answer(committed.map(|()| settled.done)),
            Self::Question(question) => question.answer(committed),
        }
    }
}
