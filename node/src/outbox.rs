//! The outbox: what is asked of it as JSON, on a thread of libuv's pool.

use crate::handle::{farcall, unharmed};
use farcall_agent::outbox::{Asked, Outbox, OutboxError, Parcel};
use napi::bindgen_prelude::{AsyncTask, Buffer, Env, Result};
use napi::threadsafe_function::{ThreadsafeFunction, ThreadsafeFunctionCallMode};
use napi::{Error, Status, Task};
use napi_derive::napi;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Called with the number of a question; keeps no process alive.
type Ask = ThreadsafeFunction<u32, (), u32, Status, false, true>;

/// Questions for credentials that JavaScript has not answered; as many as each callback has room for.
static ASKED: Mutex<Option<Questions>> = Mutex::new(None);

#[derive(Default)]
struct Questions {
    last: u32,
    open: HashMap<u32, Asked>,
}

/// One question to the outbox.
pub(crate) enum Question {
    Put { parcel: String, body: Vec<u8> },
    Item { id: i64 },
}

/// Asks it.
pub(crate) struct OutboxTask(Question);

impl Task for OutboxTask {
    type Output = String;
    type JsValue = String;

    fn compute(&mut self) -> Result<String> {
        unharmed(|| {
            let outbox = outbox()?;
            let answer = match &mut self.0 {
                Question::Put { parcel, body } => Parcel::from_json(parcel, std::mem::take(body))
                    .and_then(|parcel| outbox.put(parcel))
                    .map(|receipt| receipt.to_json()),
                Question::Item { id } => outbox.item(*id).map(|item| item.to_json()),
            };
            answer.map_err(to_node)
        })
    }

    fn resolve(&mut self, _env: Env, answer: String) -> Result<String> {
        Ok(answer)
    }
}

/// Reads what the vendor answered.
pub(crate) struct AnswerTask(i64);

/// What the vendor answered: its head as JSON, and its body.
#[napi(object)]
pub(crate) struct Answered {
    /// As JSON.
    pub head: String,
    /// As far as it was kept.
    pub body: Buffer,
}

impl Task for AnswerTask {
    type Output = Option<(String, Vec<u8>)>;
    type JsValue = Option<Answered>;

    fn compute(&mut self) -> Result<Self::Output> {
        unharmed(|| {
            let answer = outbox()?.answer(self.0).map_err(to_node)?;
            Ok(answer.map(|answer| (answer.to_json(), answer.body)))
        })
    }

    fn resolve(&mut self, _env: Env, answer: Self::Output) -> Result<Self::JsValue> {
        Ok(answer.map(|(head, body)| Answered { head, body: body.into() }))
    }
}

/// Takes a call for delivery; resolves with its receipt as JSON once it is on the disk.
#[napi]
pub(crate) fn outbox_put(parcel: String, body: Buffer) -> AsyncTask<OutboxTask> {
    AsyncTask::new(OutboxTask(Question::Put { parcel, body: body.to_vec() }))
}

/// A call as it stands, as JSON.
#[napi]
pub(crate) fn outbox_item(id: i64) -> AsyncTask<OutboxTask> {
    AsyncTask::new(OutboxTask(Question::Item { id }))
}

/// What the vendor answered; `null` while nothing was delivered.
#[napi]
pub(crate) fn outbox_answer(id: i64) -> AsyncTask<AnswerTask> {
    AsyncTask::new(AnswerTask(id))
}

/// Registers what is asked for a credential at each delivery: called with a number, that `outboxGive` answers.
#[napi(catch_unwind)]
pub(crate) fn outbox_credential(name: String, ask: Ask) -> Result<()> {
    let callback = move |asked| {
        let number = {
            let mut questions = questions();
            let questions = questions.get_or_insert_default();
            questions.last = questions.last.wrapping_add(1);
            questions.open.insert(questions.last, asked);
            questions.last
        };
        // The thread of JavaScript that registered it may have ended.
        if ask.call(number, ThreadsafeFunctionCallMode::NonBlocking) != Status::Ok {
            drop(take(number));
        }
    };
    outbox()?.credential_later(name, callback).map_err(to_node)
}

/// Answers a question: with the credential, or why there is none.
#[napi(catch_unwind)]
pub(crate) fn outbox_give(number: u32, value: Option<String>, why: Option<String>) {
    if let Some(asked) = take(number) {
        asked.answer(value.ok_or_else(|| why.unwrap_or_default()));
    }
}

fn take(number: u32) -> Option<Asked> {
    questions().as_mut()?.open.remove(&number)
}

fn questions() -> MutexGuard<'static, Option<Questions>> {
    ASKED.lock().unwrap_or_else(PoisonError::into_inner)
}

fn outbox() -> Result<Outbox> {
    farcall()?.outbox().map_err(to_node)
}

/// lib/outbox.js gives the first of these statuses a name of ours.
fn to_node(error: OutboxError) -> Error {
    let status = if error.is_passing() { Status::QueueFull } else { Status::GenericFailure };
    Error::new(status, error.to_string())
}
