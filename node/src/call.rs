//! The calls under way on this thread, each under its ticket.

use crate::handle::{NAMES, farcall};
use farcall::attribution::MAX_TAGS;
use farcall::{Call, ConnectTimes, ErrorType, Head, Target};
use napi::bindgen_prelude::Result;
use napi_derive::napi;
use std::cell::RefCell;
use std::time::Duration;

/// How a call came out, beside the numbers of [`ErrorType`]: whole.
const COMPLETE: u8 = 0;
/// The application let go of it.
const ABANDONED: u8 = 9;

thread_local! {
    static CALLS: RefCell<Calls> = RefCell::default();
}

/// A slab. The thread's end drops it, which settles what was left under way: Node ends a worker that is
/// terminated without telling its JavaScript.
#[derive(Default)]
struct Calls {
    slots: Vec<Option<Call>>,
    free: Vec<u32>,
}

impl Calls {
    fn insert(&mut self, call: Call) -> u32 {
        if let Some(ticket) = self.free.pop() {
            self.slots[ticket as usize] = Some(call);
            return ticket;
        }
        self.slots.push(Some(call));
        u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
    }

    fn get(&mut self, ticket: u32) -> Option<&mut Call> {
        self.slots.get_mut(ticket as usize)?.as_mut()
    }

    fn take(&mut self, ticket: u32) -> Option<Call> {
        let call = self.slots.get_mut(ticket as usize)?.take()?;
        self.free.push(ticket);
        Some(call)
    }

    fn abandon_all(&mut self) {
        let Ok(farcall) = farcall() else { return };
        for mut call in self.slots.drain(..).flatten() {
            call.abandon(farcall.engine(), farcall.now());
        }
        self.free.clear();
    }
}

impl Drop for Calls {
    fn drop(&mut self) {
        self.abandon_all();
    }
}

/// Begins a call, and its one attempt. Takes the numbers of origin, method and scope (-1 for none), and the
/// path; returns the call's ticket.
#[napi(catch_unwind)]
pub(crate) fn begin(origin: u32, method: u32, scope: i32, path: String) -> Result<u32> {
    let farcall = farcall()?;
    NAMES.with_borrow(|names| {
        let target = match names.origins.get(origin as usize) {
            Some(known) => Target::new(known.tls, &known.host, known.port, &path),
            None => Target::UNREADABLE,
        };
        let method = names.methods.get(method as usize).map_or("", String::as_str);
        let scope = usize::try_from(scope).ok().and_then(|scope| names.scopes.get(scope));
        let mut tags = [("", ""); MAX_TAGS];
        let mut count = 0;
        if let Some(scope) = scope {
            for ((key, value), slot) in scope.tags.iter().zip(&mut tags) {
                *slot = (key, value);
                count += 1;
            }
        }
        let head = Head::to(method, target)
            .customer(scope.and_then(|scope| scope.customer.as_deref()))
            .tags(&tags[..count]);
        let mut call = farcall.begin(&head);
        // The one answer there is today: send. Pacing and refusal make this a value that JavaScript acts on.
        let _send = call.step(farcall.engine(), call.begun());
        Ok(CALLS.with_borrow_mut(|calls| calls.insert(call)))
    })
}

/// Making a connection for this call took so many milliseconds each; negative for what did not happen.
#[napi(catch_unwind)]
pub(crate) fn connected(ticket: u32, dns_ms: f64, connect_ms: f64, tls_ms: f64) {
    let part = |ms: f64| Duration::try_from_secs_f64(ms / 1_000.0).ok();
    let times = ConnectTimes { dns: part(dns_ms), connect: part(connect_ms), tls: part(tls_ms) };
    CALLS.with_borrow_mut(|calls| {
        if let Some(call) = calls.get(ticket) {
            call.connected(times);
        }
    });
}

/// The head of the response arrived.
#[napi(catch_unwind)]
pub(crate) fn head(ticket: u32, status: u32) -> Result<()> {
    let now = farcall()?.now();
    CALLS.with_borrow_mut(|calls| {
        if let Some(call) = calls.get(ticket) {
            call.head(u16::try_from(status).unwrap_or(0), now);
        }
    });
    Ok(())
}

/// The call is over: `how` is 0 for whole, 9 for abandoned, else the number of an `ErrorType`. `sent` and
/// `received` are the bytes of the bodies on the wire. The ticket is void from now on.
#[napi(catch_unwind)]
pub(crate) fn settle(ticket: u32, how: u32, sent: f64, received: f64) -> Result<()> {
    let farcall = farcall()?;
    let Some(mut call) = CALLS.with_borrow_mut(|calls| calls.take(ticket)) else { return Ok(()) };
    call.sent(bytes(sent));
    call.body(bytes(received));
    let (engine, now) = (farcall.engine(), farcall.now());
    match u8::try_from(how).unwrap_or(ErrorType::Other as u8) {
        COMPLETE => call.end(engine, now),
        ABANDONED => call.abandon(engine, now),
        error => {
            call.failed(ErrorType::from_number(error));
            call.end(engine, now);
        }
    }
    Ok(())
}

/// Settles every call that is under way on this thread, as abandoned: for the process's exit.
#[napi(catch_unwind)]
pub(crate) fn abandon_all() {
    CALLS.with_borrow_mut(Calls::abandon_all);
}

/// How many calls are under way on this thread.
#[napi(catch_unwind)]
pub(crate) fn in_flight() -> u32 {
    CALLS.with_borrow(|calls| u32::try_from(calls.slots.len() - calls.free.len()).unwrap_or(u32::MAX))
}

/// JavaScript counts in doubles, exact up to 2^53.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count of bytes, saturating")]
fn bytes(count: f64) -> u64 {
    count as u64
}
