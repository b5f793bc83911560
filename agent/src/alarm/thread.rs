//! The threads that tell, each there while it has something to tell, and a little longer: one that says it on stderr and
//! hands it on, and one for each way, so that none waits for another, nor the next alarm for one that nobody takes.

use super::message::Message;
use super::way::{Way, Ways};
use super::{Alarm, MAX_WAITING};
use crate::{say, thread};
use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

/// With nothing to tell for so long, they end.
const IDLE: Duration = Duration::from_secs(10);
/// What is said of a way that panicked.
const OURS: &str = "an error of farcall's own (please report it)";

/// What one way has to tell.
#[derive(Debug, Default)]
pub(super) struct Lane {
    pub(super) waiting: VecDeque<Arc<Outgoing>>,
    /// Whether its thread is there.
    runs: bool,
    /// Whether it is telling something.
    busy: bool,
}

impl Lane {
    pub(super) fn rests(&self) -> bool {
        !self.runs || (!self.busy && self.waiting.is_empty())
    }
}

/// An alarm on its way out.
#[derive(Debug)]
pub(super) struct Outgoing {
    message: Message,
    ways: Arc<Ways>,
    /// Ways that are not done with it.
    left: AtomicUsize,
    /// Whether one of them took it.
    heard: AtomicBool,
}

pub(super) fn start(alarm: &Arc<Alarm>) -> io::Result<()> {
    let alarm = Arc::clone(alarm);
    thread::spawn("farcall-alarm", move || run(&alarm)).map(drop)
}

fn run(alarm: &Arc<Alarm>) {
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
            hand_on(alarm, ways, message);
        }
        alarm.lock().busy = false;
        alarm.changed.notify_all();
    }
}

fn hand_on(alarm: &Arc<Alarm>, ways: Arc<Ways>, message: Message) {
    // First, for it is the one way that always is there.
    say::say(message.text.strip_prefix("farcall: ").unwrap_or(&message.text));
    if ways.all.is_empty() {
        return alarm.told(&message);
    }
    let left = AtomicUsize::new(ways.all.len());
    let outgoing = Arc::new(Outgoing { message, ways, left, heard: AtomicBool::new(false) });
    for way in &outgoing.ways.all {
        if let Err(why) = add(alarm, *way, &outgoing) {
            outgoing.ended(alarm, *way, Err(why));
        }
    }
    alarm.changed.notify_all();
}

/// Leaves it for the thread of a way.
fn add(alarm: &Arc<Alarm>, way: Way, outgoing: &Arc<Outgoing>) -> Result<(), String> {
    let mut state = alarm.lock();
    let lane = &mut state.lanes[way as usize];
    if lane.waiting.len() >= MAX_WAITING {
        return Err("too many alarms wait for it".to_owned());
    }
    if !lane.runs {
        let alarm = Arc::clone(alarm);
        thread::spawn(format!("farcall-{}", way.name()), move || run_way(&alarm, way))
            .map_err(|error| format!("cannot start its thread: {error}"))?;
        lane.runs = true;
    }
    lane.waiting.push_back(Arc::clone(outgoing));
    Ok(())
}

fn run_way(alarm: &Alarm, way: Way) {
    loop {
        let outgoing = {
            let state = alarm.lock();
            let (mut state, _) = alarm
                .changed
                .wait_timeout_while(state, IDLE, |state| state.lanes[way as usize].waiting.is_empty())
                .unwrap_or_else(PoisonError::into_inner);
            let lane = &mut state.lanes[way as usize];
            let Some(outgoing) = lane.waiting.pop_front() else {
                lane.runs = false;
                return;
            };
            lane.busy = true;
            outgoing
        };
        let tell = AssertUnwindSafe(|| way.tell(&outgoing.ways, &outgoing.message));
        let told = catch_unwind(tell).unwrap_or_else(|_| Err(OURS.to_owned()));
        outgoing.ended(alarm, way, told);
        alarm.lock().lanes[way as usize].busy = false;
        alarm.changed.notify_all();
    }
}

impl Outgoing {
    /// A way is done with it. Somebody was told as soon as one took it, and nobody where the last one did not either.
    fn ended(&self, alarm: &Alarm, way: Way, told: Result<(), String>) {
        match told {
            Ok(()) if !self.heard.swap(true, Ordering::AcqRel) => alarm.told(&self.message),
            Ok(()) => {}
            Err(why) => {
                alarm.failed_ways.fetch_add(1, Ordering::Relaxed);
                say::say(&format!("the alarm did not go out by {}: {why}", way.name()));
            }
        }
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1 && !self.heard.load(Ordering::Acquire) {
            alarm.not_told(&self.message.farcall.rule);
        }
    }
}
