//! Calls that have come out, as JavaScript tells of them: many in one bundle.
//!
//! The engine is told of a call when it is over, with the times at which everything happened; it has no clock
//! of its own, so the account is the same. One crossing costs a microsecond or more after the application's
//! own work has emptied the caches, the account of a call within a bundle a fraction of that.

use crate::handle::{NAMES, Names, farcall};
use farcall::attribution::MAX_TAGS;
use farcall::{ConnectTimes, Engine, ErrorType, Head, Target, Timestamp};
use farcall_agent::{How, Told};
use napi::bindgen_prelude::{Float64ArraySlice, Result};
use napi_derive::napi;
use std::time::Duration;

/// The numbers that tell of one call, in the order of `FIELDS` in `node/lib/account.js`.
const FIELDS: usize = 13;

/// How a call came out, beside the numbers of [`ErrorType`]: whole.
const COMPLETE: u8 = 0;
/// The application let go of it.
const ABANDONED: u8 = 9;

/// Accounts for the first `count` calls of `numbers`, 13 numbers each; `paths` is theirs, one a line. Times are
/// milliseconds of the clock that reads `now`.
#[napi(catch_unwind)]
pub(crate) fn account(now: f64, numbers: Float64ArraySlice<'_>, count: u32, paths: String) -> Result<()> {
    let farcall = farcall()?;
    let clock = Clock { now, is: farcall.now() };
    // Where a path holds a line break after all, nobody knows whose the next line is.
    let whole = paths.matches('\n').count() + 1 == count as usize;
    let mut paths = paths.split('\n');
    NAMES.with_borrow(|names| {
        for record in numbers.chunks_exact(FIELDS).take(count as usize) {
            let path = if whole { paths.next() } else { None };
            if let Ok(record) = record.try_into() {
                tell(farcall.engine(), names, &clock, record, path, farcall.seed());
            }
        }
    });
    Ok(())
}

/// Translates JavaScript's clock to the engine's; both are monotonic.
struct Clock {
    now: f64,
    is: Timestamp,
}

impl Clock {
    fn at(&self, ms: f64) -> Timestamp {
        self.is.minus(duration(self.now - ms).unwrap_or_default())
    }
}

/// Tells the engine of one call.
fn tell(
    engine: &Engine,
    names: &Names,
    clock: &Clock,
    record: &[f64; FIELDS],
    path: Option<&str>,
    seed: u64,
) {
    let [origin, method, scope, begun, head_at, ended, status, how, sent, received, dns, connect, tls] =
        *record;
    let target = match (index(origin).and_then(|origin| names.origins.get(origin)), path) {
        (Some(known), Some(path)) => Target::new(known.tls, &known.host, known.port, path),
        _ => Target::UNREADABLE,
    };
    let method = index(method).and_then(|method| names.methods.get(method)).map_or("", String::as_str);
    let scope = index(scope).and_then(|scope| names.scopes.get(scope));
    let mut tags = [("", ""); MAX_TAGS];
    let mut count = 0;
    for ((key, value), slot) in scope.into_iter().flat_map(|scope| &scope.tags).zip(&mut tags) {
        *slot = (key, value);
        count += 1;
    }
    let customer = scope.and_then(|scope| scope.customer.as_deref());
    let head = Head::to(method, target).customer(customer).tags(&tags[..count]);

    let mut call = engine.begin(&head, clock.at(begun), seed);
    // It went out before anybody asked: what rules say that came into force meanwhile stops it no more.
    call.send_regardless(engine, clock.at(begun));
    let told = Told {
        times: ConnectTimes { dns: duration(dns), connect: duration(connect), tls: duration(tls) },
        sent: bytes(sent),
        head: (head_at >= 0.0).then(|| (u16::try_from(bytes(status)).unwrap_or(0), clock.at(head_at))),
        received: bytes(received),
        how: match u8::try_from(bytes(how)).unwrap_or(ErrorType::Other as u8) {
            COMPLETE => How::Complete,
            ABANDONED => How::Abandoned,
            error => How::Failed(ErrorType::from_number(error)),
        },
        ended: clock.at(ended),
    };
    told.tell(engine, &mut call);
}

/// A number of `Names`; negative for none.
fn index(number: f64) -> Option<usize> {
    (number >= 0.0).then(|| usize::try_from(bytes(number)).ok()).flatten()
}

/// Milliseconds; `None` where they are negative, for what did not happen.
fn duration(ms: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(ms / 1_000.0).ok()
}

/// JavaScript counts in doubles, exact up to 2^53.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count, saturating")]
fn bytes(count: f64) -> u64 {
    count as u64
}
