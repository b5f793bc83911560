//! Which programs of a ledger run still. A process that executes another program (`exec`) keeps its pid and its start: the
//! ledger has two programs then, of which the later one runs.

use super::who::may_be_one_process;
use crate::caller::{container_of_this_process, pid_namespace_of, start_ticks_of};
use farcall::Caller;
use std::rc::Rc;

/// A program says that it is alive twice a minute.
const SILENCE: u64 = 70_000_000_000;

/// What a program wrote of itself. Times in Unix nanoseconds.
pub(super) struct Written {
    pub(super) caller: Rc<Caller>,
    pub(super) since: u64,
    pub(super) last_flush: u64,
    /// Whether it wrote that it ends.
    pub(super) ended: bool,
}

/// What became of each, as [`ProcessRow::state`](super::ProcessRow::state) has it.
pub(super) fn states(written: &[Written], now: u64) -> Vec<&'static str> {
    let state = |one: &Written| match one {
        one if one.ended => "ended",
        one if written.iter().any(|later| replaces(later, one)) => "replaced",
        one if is_there(&one.caller, now.saturating_sub(one.last_flush)) => "running",
        _ => "vanished",
    };
    written.iter().map(state).collect()
}

/// Whether `later` is what the process of `earlier` executed. Two handles of one program may live in a process side by
/// side: these have one executable, and both speak.
fn replaces(later: &Written, earlier: &Written) -> bool {
    let (one, other) = (&later.caller, &earlier.caller);
    let same = one.started != 0 && (one.pid, one.started) == (other.pid, other.started);
    let other_program = executable(one) != executable(other);
    let silent = later.last_flush.saturating_sub(earlier.last_flush) > SILENCE;
    later.since > earlier.since && same && may_be_one_process(one, other) && (other_program || silent)
}

/// The path of the executable; one that was replaced on the disk since is another for its name only.
fn executable(caller: &Caller) -> &str {
    caller.executable.trim_end_matches(" (deleted)")
}

/// Whether a process is there. One of another pid namespace cannot be asked for, but says itself that it is alive.
fn is_there(caller: &Caller, silent: u64) -> bool {
    match is_of_other_namespace(caller) {
        true => silent < SILENCE,
        false => start_ticks_of(&caller.pid.to_string()) == Some(caller.started),
    }
}

fn is_of_other_namespace(caller: &Caller) -> bool {
    match pid_namespace_of("self") {
        Some(own) if caller.pid_namespace != 0 => caller.pid_namespace != own,
        // A ledger of an earlier version names none.
        _ => caller.container != container_of_this_process(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::caller::of_this_process;

    const SECOND: u64 = 1_000_000_000;

    /// A program of this process that began and last wrote at these seconds.
    fn written(service: &str, executable: &str, since: u64, last_flush: u64) -> Written {
        let caller = Caller { executable: executable.into(), ..of_this_process(Some(service.into())) };
        let (since, last_flush) = (since * SECOND, last_flush * SECOND);
        Written { caller: Rc::new(caller), since, last_flush, ended: false }
    }

    #[test]
    fn of_the_programs_that_a_process_executed_the_last_one_runs() {
        let programs = [
            written("launcher", "/usr/bin/launcher", 1, 1),
            written("python3", "/usr/bin/python3", 2, 3),
            written("shop", "/usr/bin/shop", 3, 4),
        ];
        assert_eq!(states(&programs, 5 * SECOND), ["replaced", "replaced", "running"]);
        let elsewhere = |mut one: Written, pid_namespace: u64| {
            one.caller = Rc::new(Caller { pid_namespace, ..(*one.caller).clone() });
            one
        };
        // They end: the first one did not vanish.
        let gone = |mut one: Written| {
            one.caller = Rc::new(Caller { started: 1, ..(*one.caller).clone() });
            one
        };
        let mut gone = programs.map(gone);
        assert_eq!(states(&gone, 5 * SECOND), ["replaced", "replaced", "vanished"]);
        gone[2].ended = true;
        assert_eq!(states(&gone, 5 * SECOND), ["replaced", "replaced", "ended"]);
        let containers = [
            elsewhere(written("launcher", "/usr/bin/launcher", 1, 4), 1),
            elsewhere(written("shop", "/usr/bin/shop", 3, 4), 2),
        ];
        assert_eq!(states(&containers, 5 * SECOND), ["running", "running"]);
    }

    #[test]
    fn two_handles_of_one_program_run_side_by_side_while_both_speak() {
        let program = "/usr/bin/python3";
        let handles = |last| [written("shop", program, 1, last), written("billing", program, 2, 200)];
        assert_eq!(states(&handles(180), 201 * SECOND), ["running", "running"]);
        assert_eq!(states(&handles(100), 201 * SECOND), ["replaced", "running"]);
        let upgraded =
            [written("shop", "/opt/shop (deleted)", 1, 199), written("billing", "/opt/shop", 2, 200)];
        assert_eq!(states(&upgraded, 201 * SECOND), ["running", "running"]);
    }
}
