//! The canaries of a home directory, for people: where they stand, and how to have one start over.

use crate::clock::Clock;
use crate::share::memory::Memory;
use farcall::Config;
use farcall::rollout::{Canary, CanaryStatus, Evidence, RollbackReason, Rule};
use serde::Serialize;
use std::io;
use std::path::Path;

/// Where a canary stands, on this host.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Standing {
    /// The rollout's name.
    pub rollout: String,
    /// `not begun` (no call asked for it yet), `step`, `finished` or `rolled back`.
    pub status: &'static str,
    /// Which of its steps it is in, from 1; `None` unless it is in one.
    pub step: Option<u64>,
    /// How many steps it has.
    pub steps: u64,
    /// The share that takes the new side, between 0 and 1.
    pub share: f64,
    /// Why it was rolled back: `errors`, `slow`; `None` where it was not, or an earlier version of farcall did it.
    pub reason: Option<&'static str>,
    /// Calls of the old side in this step.
    pub old_calls: u64,
    /// Of those, how many failed.
    pub old_errors: u64,
    /// Calls of the new side in this step.
    pub new_calls: u64,
    /// Of those, how many failed.
    pub new_errors: u64,
    /// Above how many milliseconds an answer is slow; `None` before enough answers of the old side are known.
    pub slow_after_ms: Option<f64>,
    /// Answers of the old side in this step since that is known.
    pub old_timed: u64,
    /// Of those, how many were slow.
    pub old_slow: u64,
    /// Answers of the new side since that is known.
    pub new_timed: u64,
    /// Of those, how many were slow.
    pub new_slow: u64,
    /// The reason in words.
    #[serde(skip)]
    pub because: Option<&'static str>,
}

/// Where the canaries of these rules stand that the programs of a home directory share, in the order of the file.
///
/// # Errors
/// When what they share cannot be read.
pub fn standings(home: &Path, config: &Config) -> io::Result<Vec<Standing>> {
    let rules = config.rollouts.iter().map(|rule| &rule.then).filter(|rule| rule.canary.is_some());
    let rules: Vec<&Rule> = rules.collect();
    if rules.is_empty() {
        return Ok(Vec::new());
    }
    let memory = Memory::of_canaries(home, false)?;
    Ok(rules
        .into_iter()
        .map(|rule| standing(rule, memory.as_ref().and_then(|memory| memory.known_canary(rule.key()))))
        .collect())
}

/// Has a canary start over in all programs of a home directory, at once: with its first step, and without what it has
/// seen. `false` where no call asked for it yet, or no such rule has a canary.
///
/// # Errors
/// When what they share cannot be read.
pub fn restart(home: &Path, config: &Config, rollout: &str) -> io::Result<bool> {
    let rules = config.rollouts.iter().map(|rule| &rule.then);
    let rule = rules.filter(|rule| rule.canary.is_some()).find(|rule| *rule.name == *rollout);
    let Some(rule) = rule else { return Ok(false) };
    let Some(memory) = Memory::of_canaries(home, true)? else { return Ok(false) };
    let Some(canary) = memory.known_canary(rule.key()) else { return Ok(false) };
    canary.restart(Clock::new().now());
    Ok(true)
}

fn standing(rule: &Rule, canary: Option<&Canary>) -> Standing {
    let steps = rule.canary.as_ref().map_or(&[][..], |canary| &canary.steps);
    let first = steps.first().copied().unwrap_or_default();
    let (status, step) = match canary.map(Canary::status) {
        None => ("not begun", None),
        Some(CanaryStatus::Step(step)) => ("step", Some(u64::from(step) + 1)),
        Some(CanaryStatus::Finished) => ("finished", None),
        Some(CanaryStatus::RolledBack) => ("rolled back", None),
    };
    let share = canary.zip(rule.canary.as_ref()).map_or(first, |(canary, rule)| canary.share(rule));
    let reason = canary.and_then(Canary::rolled_back_for);
    let seen: Evidence = canary.map(Canary::evidence).unwrap_or_default();
    Standing {
        rollout: rule.name.to_string(),
        status,
        step,
        steps: steps.len() as u64,
        share: share.ratio(),
        reason: reason.map(RollbackReason::name),
        old_calls: seen.old_calls,
        old_errors: seen.old_errors,
        new_calls: seen.new_calls,
        new_errors: seen.new_errors,
        slow_after_ms: (!seen.slow_after.is_zero()).then_some(seen.slow_after.as_secs_f64() * 1e3),
        old_timed: seen.old_timed,
        old_slow: seen.old_slow,
        new_timed: seen.new_timed,
        new_slow: seen.new_slow,
        because: reason.map(RollbackReason::as_str),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use farcall::Timestamp;
    use farcall::rollout::{CanaryHome, Rollout, RolloutVerdict, Sample};
    use std::sync::Arc;
    use std::time::Duration;

    #[test]
    fn a_canary_that_was_too_slow_says_so_and_how_slow_it_was() {
        let text = "[[rollout]]\nname = \"v2\"\nmatch = {}\nby = \"call\"\nvariant = { path_prefix = \"/v2\" }\n\
                    canary = { steps = [\"50%\", \"100%\"] }\n";
        let config = Config::parse("f", text).unwrap();
        let rule = &config.rollouts[0].then;
        let home: CanaryHome = Arc::new(Canary::new());
        let now = Timestamp::from_nanos(1_000_000_000);
        let rollout = Rollout::at(Arc::clone(&home), rule, now);
        let canary = (*home).as_ref();
        assert_eq!(standing(rule, Some(canary)).slow_after_ms, None);
        let change = (0..100_000).find_map(|seed: u64| {
            let (side, millis) =
                match rollout.before(rule, None, seed.wrapping_mul(0x9E37_79B9_7F4A_7C15), false) {
                    RolloutVerdict::Old { side, .. } => (side, 100),
                    RolloutVerdict::New { side } => (side, 900),
                    RolloutVerdict::Refuse => panic!("nothing is switched off"),
                };
            rollout.after(rule, side, Sample::answered(Duration::from_millis(millis)), now)
        });
        assert!(change.is_some(), "it never came to anything");
        let standing = standing(rule, Some(canary));
        assert_eq!((standing.status, standing.reason), ("rolled back", Some("slow")));
        assert_eq!(standing.because, Some("more of its calls are slow than max_p99_increase allows"));
        assert!(standing.slow_after_ms.is_some_and(|limit| (100.0..900.0).contains(&limit)), "{standing:?}");
        assert_eq!((standing.new_slow, standing.old_slow), (standing.new_timed, 0));
        assert!(standing.new_timed > 0 && standing.old_timed > 0, "{standing:?}");
        assert_eq!((standing.new_errors, standing.old_errors), (0, 0));
    }
}
