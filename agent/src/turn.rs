//! What the processes of one host have told, in a file of the home directory: those that see the same tell of it once,
//! and so does a process that is started again and again. Where the file cannot be had, it is told.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::thread;
use std::time::Duration;

/// So often, and so long between, is tried to lock it: a process that was stopped with the lock holds up no alarm.
const TRIES: u32 = 25;
const BETWEEN: Duration = Duration::from_millis(10);
/// Rules that are remembered; those told longest ago are forgotten first.
const MAX_RULES: usize = 1_024;
/// More than all of them need: a file of another kind is not read to its end.
const MAX_BYTES: u64 = 1 << 20;

/// The last alarm of a rule on this host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Last {
    /// Milliseconds since the Unix epoch.
    pub(crate) at_ms: u64,
    /// Failures since, of which none was told.
    pub(crate) held_back: u64,
    /// Whose turn it is to tell of them, where somebody has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) telling: Option<Telling>,
}

/// The turn of a process that has not said yet whether anybody heard. It may have died.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Telling {
    /// When it took its turn, in milliseconds since the Unix epoch.
    pub(crate) since_ms: u64,
    /// Until then nobody else takes it.
    pub(crate) until_ms: u64,
    /// Failures that it counts, beside its own.
    pub(crate) held_back: u64,
}

/// Whether an alarm is to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Yes, and so many failures beside it.
    Tell { held_back: u64 },
    /// Another process told of this rule, or is telling: no turn before that time, in milliseconds since the Unix epoch.
    NotBefore { at_ms: u64 },
}

/// Asks for the turn of an alarm of this rule, after `held_back` failures that this process did not tell. Who has it
/// says within `lease` how it came out ([`told`], [`forget`]), or has died: then the next failure has the turn.
pub(crate) fn turn(
    file: &Path,
    rule: &str,
    (every, lease): (Duration, Duration),
    held_back: u64,
    now_ms: u64,
) -> Turn {
    let asked = with(file, |rules| {
        let last = rules.entry(rule.to_owned()).or_default();
        let (every, lease) = (millis(every), millis(lease));
        // What is in the future was written before a clock was set back.
        let passed = |since: u64| now_ms.checked_sub(since).filter(|_| since > 0);
        if passed(last.at_ms).is_some_and(|passed| passed < every) {
            last.held_back += held_back + 1;
            return Turn::NotBefore { at_ms: last.at_ms.saturating_add(every) };
        }
        let mut unheard = 0;
        if let Some(telling) = last.telling {
            if passed(telling.since_ms).is_some() && now_ms < telling.until_ms {
                last.held_back += held_back + 1;
                return Turn::NotBefore { at_ms: telling.until_ms };
            }
            unheard = telling.held_back + 1;
        }
        let held_back = held_back + last.held_back + unheard;
        let until_ms = now_ms.saturating_add(lease.min(every));
        *last =
            Last { at_ms: 0, held_back: 0, telling: Some(Telling { since_ms: now_ms, until_ms, held_back }) };
        Turn::Tell { held_back }
    });
    asked.unwrap_or(Turn::Tell { held_back })
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The alarm that had its turn at that time was told.
pub(crate) fn told(file: &Path, rule: &str, at_ms: u64) {
    let _ = with(file, |rules| {
        let last = rules.entry(rule.to_owned()).or_default();
        // Whoever was so slow that another had the turn meanwhile leaves that to the other.
        if last.telling.is_none_or(|telling| telling.since_ms <= at_ms) {
            (last.at_ms, last.telling) = (last.at_ms.max(at_ms), None);
        }
    });
}

/// Nobody heard the last alarm of this rule: the next one has its turn.
pub(crate) fn forget(file: &Path, rule: &str) {
    let _ = with(file, |rules| rules.remove(rule));
}

fn with<T>(path: &Path, work: impl FnOnce(&mut BTreeMap<String, Last>) -> T) -> Option<T> {
    let mut file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path).ok()?;
    lock(&file)?;
    let done = change(&mut file, work);
    // A child that is forked now has the file open, too: closing it here would not be enough.
    let _ = file.unlock();
    let done = done?;
    if let Some(home) = path.parent() {
        crate::home::give_to_owner(home, path);
    }
    Some(done)
}

fn change<T>(file: &mut File, work: impl FnOnce(&mut BTreeMap<String, Last>) -> T) -> Option<T> {
    let mut text = Vec::new();
    Read::by_ref(file).take(MAX_BYTES).read_to_end(&mut text).ok()?;
    // What a process that was killed left half written is as good as nothing.
    let mut rules = serde_json::from_slice(&text).unwrap_or_default();
    let done = work(&mut rules);
    while rules.len() > MAX_RULES {
        // A turn that was just taken is the youngest of all.
        let age = |last: &Last| last.at_ms.max(last.telling.map_or(0, |telling| telling.since_ms));
        let oldest = rules.iter().min_by_key(|(_, last)| age(last)).map(|(rule, _)| rule.clone());
        oldest.map(|rule| rules.remove(&rule));
    }
    let text = serde_json::to_vec(&rules).ok()?;
    file.set_len(0).ok()?;
    file.rewind().ok()?;
    file.write_all(&text).ok()?;
    Some(done)
}

/// Until it is unlocked.
fn lock(file: &File) -> Option<()> {
    for _ in 0..TRIES {
        if file.try_lock().is_ok() {
            return Some(());
        }
        thread::sleep(BETWEEN);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    const EVERY: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(10));

    fn file_in(home: &tempfile::TempDir) -> PathBuf {
        home.path().join("alarms.json")
    }

    /// Asks, and where it is its turn tells.
    fn ask_and_tell(file: &Path, rule: &str, held_back: u64, now_ms: u64) -> Turn {
        let turn = turn(file, rule, EVERY, held_back, now_ms);
        if matches!(turn, Turn::Tell { .. }) {
            told(file, rule, now_ms);
        }
        turn
    }

    #[test]
    fn of_all_that_see_a_failure_one_tells_it_and_the_next_one_counts_those_of_all() {
        let home = tempfile::tempdir().unwrap();
        let ask =
            |rule, held_back, second: u64| ask_and_tell(&file_in(&home), rule, held_back, second * 1_000);
        assert_eq!(ask("a", 0, 100), Turn::Tell { held_back: 0 });
        assert_eq!(ask("a", 0, 101), Turn::NotBefore { at_ms: 160_000 });
        assert_eq!(ask("a", 4, 159), Turn::NotBefore { at_ms: 160_000 });
        assert_eq!(ask("b", 0, 159), Turn::Tell { held_back: 0 }, "each rule has its own");
        assert_eq!(ask("a", 2, 160), Turn::Tell { held_back: 8 });
        assert_eq!(ask("a", 0, 90), Turn::Tell { held_back: 0 }, "after a clock was set back");
        forget(&file_in(&home), "a");
        assert_eq!(ask("a", 0, 91), Turn::Tell { held_back: 0 }, "nobody heard the one before");
    }

    #[test]
    fn an_alarm_is_told_whatever_is_wrong_with_the_file() {
        let home = tempfile::tempdir().unwrap();
        let ask = |second: u64| ask_and_tell(&file_in(&home), "a", 0, second * 1_000);
        assert_eq!(
            turn(&home.path().join("gone").join("alarms.json"), "a", EVERY, 3, 5),
            Turn::Tell { held_back: 3 }
        );
        std::fs::write(file_in(&home), "{\"a\":{\"at_ms\":1000,").unwrap();
        assert_eq!(ask(100), Turn::Tell { held_back: 0 });
        let held = File::open(file_in(&home)).unwrap();
        held.lock().unwrap();
        assert_eq!(ask(101), Turn::Tell { held_back: 0 }, "whoever has the lock may stand still");
        drop(held);
        assert_eq!(ask(102), Turn::NotBefore { at_ms: 160_000 });
        // As versions wrote it that took the turn and the telling for one.
        std::fs::write(file_in(&home), r#"{"a":{"at_ms":200000,"held_back":3}}"#).unwrap();
        assert_eq!(ask(201), Turn::NotBefore { at_ms: 260_000 });
        assert_eq!(ask(260), Turn::Tell { held_back: 4 });
    }

    #[test]
    fn one_that_dies_before_it_told_holds_up_the_next_alarm_for_no_longer_than_its_lease() {
        let home = tempfile::tempdir().unwrap();
        let ask = |held_back, second: u64| turn(&file_in(&home), "a", EVERY, held_back, second * 1_000);
        assert_eq!(ask(2, 100), Turn::Tell { held_back: 2 });
        assert_eq!(ask(0, 105), Turn::NotBefore { at_ms: 110_000 }, "it may be telling yet");
        assert_eq!(
            ask(0, 110),
            Turn::Tell { held_back: 4 },
            "nobody heard of its own, nor of those that it counted"
        );
        told(&file_in(&home), "a", 110_000);
        told(&file_in(&home), "a", 100_000);
        assert_eq!(ask(0, 169), Turn::NotBefore { at_ms: 170_000 });
        assert_eq!(ask(0, 170), Turn::Tell { held_back: 1 });
        // The clock was set back since.
        assert_eq!(ask(0, 90), Turn::Tell { held_back: 2 });
    }

    #[test]
    fn a_turn_that_was_just_taken_is_not_forgotten_for_those_that_were_told_before() {
        let home = tempfile::tempdir().unwrap();
        with(&file_in(&home), |rules| {
            let told = |at_ms| Last { at_ms, ..Last::default() };
            rules
                .extend((0..MAX_RULES as u64).map(|number| (format!("rule {number}"), told(1_000 + number))));
        });
        let ask = |millis| turn(&file_in(&home), "the one more", EVERY, 0, millis);
        assert_eq!(ask(100_000), Turn::Tell { held_back: 0 });
        assert_eq!(ask(100_001), Turn::NotBefore { at_ms: 110_000 }, "it is being told");
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let home = tempfile::tempdir().unwrap();
        with(&file_in(&home), |rules| {
            rules.extend(
                (0..2_000_u64).map(|at_ms| (format!("rule {at_ms}"), Last { at_ms, ..Last::default() })),
            );
        });
        with(&file_in(&home), |rules| {
            assert_eq!(rules.len(), MAX_RULES);
            assert!(rules.contains_key("rule 1999"));
        });
    }
}
