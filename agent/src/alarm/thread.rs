//! The thread that tells: there while there is something to tell, and a little longer.

use super::Alarm;
use super::message::Message;
use super::way::{Ways, tell};
use crate::say;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::thread;
use std::time::Duration;

/// With nothing to tell for so long, it ends.
const IDLE: Duration = Duration::from_secs(10);

pub(super) fn start(alarm: &Arc<Alarm>) -> io::Result<()> {
    let alarm = Arc::clone(alarm);
    thread::Builder::new().name("farcall-alarm".into()).spawn(move || run(&alarm)).map(drop)
}

fn run(alarm: &Alarm) {
    loop {
        let (message, since, ways) = {
            let state = alarm.lock();
            let (mut state, _) = alarm
                .changed
                .wait_timeout_while(state, IDLE, |state| state.waiting.is_empty())
                .unwrap_or_else(PoisonError::into_inner);
            let Some((message, since)) = state.waiting.pop_front() else {
                state.runs = false;
                return;
            };
            state.busy = true;
            (message, since, Arc::clone(&state.ways))
        };
        if let Some(message) = alarm.turn(message, ways.alarm.every, since.elapsed() + ways.longest()) {
            tell_all(alarm, &ways, &message);
        }
        alarm.lock().busy = false;
        alarm.changed.notify_all();
    }
}

fn tell_all(alarm: &Alarm, ways: &Ways, message: &Message) {
    // First, for it is the one way that always is there.
    say::say(message.text.strip_prefix("farcall: ").unwrap_or(&message.text));
    let told = catch_unwind(AssertUnwindSafe(|| tell(ways, message))).unwrap_or_default();
    for failure in told.iter().filter_map(|told| told.failure.as_ref().map(|why| (told.way, why))) {
        alarm.failed_ways.fetch_add(1, Ordering::Relaxed);
        say::say(&format!("the alarm did not go out by {}: {}", failure.0, failure.1));
    }
    if ways.are_there() && !told.iter().any(|told| told.failure.is_none()) {
        alarm.not_told(&message.farcall.rule);
    } else {
        alarm.told(message);
    }
}
