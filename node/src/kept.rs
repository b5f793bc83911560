//! Calls that the cache may answer: their headers cross as one string, and so does the answer that is kept. A hit is one
//! crossing, and what nobody looks at stays a string.

use crate::decide::Decision;
use crate::handle::{farcall, unharmed};
use farcall::attribution::MAX_TAGS;
use farcall::{Head, HeaderNames, Headers, Priority, Step, Stored, Target};
use farcall_agent::outbox::Detour;
use napi::bindgen_prelude::{AsyncTask, Either, Env, Result, Uint8Array};
use napi::{Error, JsString, Status, Task};
use napi_derive::napi;
use std::cell::RefCell;

/// The request can be sent again.
const REPLAYABLE: u32 = 1;
/// Nobody waits for the answer.
const BATCH: u32 = 2;
/// It can be handed over to the outbox.
const PARKS: u32 = 4;
/// A second attempt can be made beside a slow one.
const HEDGES: u32 = 8;
/// Where the number of its detour begins.
const DETOUR: u32 = 4;

/// Room that is kept for the next answer; a larger one is given back.
const ROOM: usize = 64 * 1024;

thread_local! {
    static TEXT: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Whether rules keep answers.
#[napi(catch_unwind)]
pub(crate) fn caches() -> bool {
    farcall().is_ok_and(|farcall| farcall.engine().has_caches())
}

/// What JavaScript knows of a request all of whose headers it shows, and whose answer it can keep.
#[napi(object, object_to_js = false)]
pub(crate) struct Known {
    /// Its body, where it is at hand.
    pub content: Option<Uint8Array>,
    /// Bytes of the body, where known.
    pub body: Option<f64>,
    /// Keys and values in turn.
    pub tags: Option<Vec<String>>,
}

/// Begins a call whose answer may be kept, and takes its first step: an answer that is kept comes at once, as the text
/// of [`write`]. `headers` are names and values in turn, a line each. Of the `kind` of client one is told from another by
/// `client`, for what it adds to a request below, and waits for an answer for so many milliseconds at most; 0 where it
/// does not say. `known` is left out where there is no body and no tag.
#[allow(clippy::too_many_arguments)] // An object for them costs more to pass than the look-up.
#[napi(catch_unwind)]
pub(crate) fn open<'env>(
    env: &'env Env,
    method: String,
    url: String,
    headers: String,
    flags: u32,
    kind: u32,
    client: String,
    patience: f64,
    customer: Option<String>,
    known: Option<Known>,
) -> Result<Either<JsString<'env>, Decision>> {
    let farcall = farcall()?;
    let mut lines = headers.split('\n');
    let mut pairs = Vec::with_capacity(8);
    while let (Some(name), Some(value)) = (lines.next(), lines.next()) {
        pairs.push((name, value));
    }
    let words = known.as_ref().and_then(|known| known.tags.as_deref()).unwrap_or_default();
    let mut tags = [("", ""); MAX_TAGS];
    let count = crate::decide::pairs(words).zip(&mut tags).map(|(tag, slot)| *slot = tag).count();
    let content = known.as_ref().and_then(|known| known.content.as_deref()).unwrap_or_default();
    let body = known.as_ref().map_or(Some(0.0), |known| known.body);
    let shown = OfClient { headers: &pairs, client: &client };
    let head = Head::to(&method, Target::parse(&url).unwrap_or(Target::UNREADABLE))
        .headers(&shown)
        .body(body.map(crate::decide::whole), flags & REPLAYABLE != 0)
        .content(content)
        .caches(true)
        .client(kind)
        .patience(crate::decide::duration(patience).filter(|patience| !patience.is_zero()))
        .parks(flags & PARKS != 0)
        .hedges(flags & HEDGES != 0)
        .priority(if flags & BATCH != 0 { Priority::Batch } else { Priority::Interactive })
        .customer(customer.as_deref())
        .tags(&tags[..count]);
    let mut call = farcall.guard(farcall.begin(&head));
    if let Some(detour) = Detour::from_number(flags >> DETOUR) {
        call.unparkable(detour.as_str());
    }
    let now = call.now();
    match call.step_at(now) {
        Step::Respond(stored) => TEXT.with_borrow_mut(|text| {
            text.clear();
            write(&stored, text);
            let string = env.create_string_latin1(&text);
            text.shrink_to(ROOM);
            string.map(Either::A)
        }),
        step => Ok(Either::B(Decision::after(call, step))),
    }
}

/// The status, `A` where the body is ASCII and `-` where it is not, the header lines and an empty one, then the body:
/// each byte becomes the character of that number.
fn write(stored: &Stored, text: &mut Vec<u8>) {
    text.extend_from_slice(stored.status.to_string().as_bytes());
    text.push(if stored.body.is_ascii() { b'A' } else { b'-' });
    for (name, value) in &stored.headers {
        text.push(b'\n');
        text.extend_from_slice(name.as_str().as_bytes());
        text.extend_from_slice(b": ");
        text.extend_from_slice(value.as_bytes());
    }
    text.extend_from_slice(b"\n\n");
    text.extend_from_slice(&stored.body);
}

/// The headers of a request, and the client that it is made with: that one may add credentials.
struct OfClient<'a> {
    headers: &'a [(&'a str, &'a str)],
    client: &'a str,
}

impl Headers for OfClient<'_> {
    fn get(&self, name: &str) -> Option<&[u8]> {
        Headers::get(self.headers, name)
    }

    fn pick<'a>(&'a self, wanted: &HeaderNames, values: &mut [Option<&'a [u8]>]) -> u64 {
        self.headers.pick(wanted, values)
    }

    fn each(&self, see: &mut dyn FnMut(&[u8], &[u8])) -> bool {
        // No header has such a name.
        see(b"node client", self.client.as_bytes());
        self.headers.each(see)
    }
}

/// Tells the programs of this machine to forget answers, and forgets them here, on a thread of libuv's pool.
pub(crate) struct PurgeTask {
    conditions: Vec<String>,
}

impl Task for PurgeTask {
    type Output = f64;
    type JsValue = f64;

    fn compute(&mut self) -> Result<f64> {
        unharmed(|| {
            let pairs = self.conditions.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone()));
            let programs = farcall()?
                .purge_cache(&pairs.collect::<Vec<_>>())
                .map_err(|error| Error::new(Status::GenericFailure, error.to_string()))?;
            Ok(crate::step::float(programs))
        })
    }

    fn resolve(&mut self, _env: Env, programs: f64) -> Result<f64> {
        Ok(programs)
    }
}

/// Has the programs of this machine forget the answers that match all `conditions` (keys and values in turn); resolves
/// to how many programs were told.
#[napi]
pub(crate) fn purge_cache(conditions: Vec<String>) -> AsyncTask<PurgeTask> {
    AsyncTask::new(PurgeTask { conditions })
}
