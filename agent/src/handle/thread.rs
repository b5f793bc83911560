//! The flush thread.

use super::process::Process;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

#[derive(Debug, Default)]
pub(super) struct Thread {
    state: Arc<(Mutex<State>, Condvar)>,
    join: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug, Default)]
struct State {
    /// Which thread may run; one that finds another number ends.
    turn: u64,
    running: bool,
}

impl Thread {
    /// Starts the thread, unless it runs.
    pub(super) fn start(&self, process: &Arc<Process>, every: Duration) -> io::Result<()> {
        let turn = {
            let mut state = lock(&self.state.0);
            if state.running {
                return Ok(());
            }
            state.running = true;
            state.turn += 1;
            state.turn
        };
        let (mine, process) = (Arc::clone(&self.state), Arc::clone(process));
        let spawned = crate::thread::spawn("farcall", move || run(&process, &mine, turn, every));
        match spawned {
            Ok(join) => {
                *lock(&self.join) = Some(join);
                Ok(())
            }
            Err(error) => {
                lock(&self.state.0).running = false;
                Err(error)
            }
        }
    }

    /// Stops the thread and waits for it, a flush that is under way included.
    pub(super) fn stop(&self) {
        lock(&self.state.0).running = false;
        self.state.1.notify_all();
        let join = lock(&self.join).take();
        if let Some(join) = join
            && join.thread().id() != std::thread::current().id()
        {
            let _ = join.join();
        }
    }

    pub(super) fn is_missing(&self) -> bool {
        !lock(&self.state.0).running
    }
}

fn run(process: &Arc<Process>, (state, changed): &(Mutex<State>, Condvar), turn: u64, every: Duration) {
    let mut next = Instant::now() + every;
    loop {
        let mut mine = lock(state);
        loop {
            if !mine.running || mine.turn != turn {
                return;
            }
            let Some(wait) = next.checked_duration_since(Instant::now()).filter(|wait| !wait.is_zero())
            else {
                break;
            };
            mine = changed.wait_timeout(mine, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
        drop(mine);
        next = Instant::now() + every;
        Process::watch_config(process);
        process.flush(false);
        process.export();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
