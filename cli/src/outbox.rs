//! `farcall outbox`.

mod service;
mod url;

use crate::output::{complain, json, print, style};
use crate::{Exit, duration};
use clap::{Args, Subcommand, ValueEnum};
use farcall::config::OutboxPlace;
use farcall_agent::outbox::{Filter, Item, Operator, OutboxError, Restored, State, VendorCount};
use farcall_agent::report::{self, Query, Render};
use farcall_agent::{Farcall, Options};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:
  farcall outbox stats                        how many calls wait, and for how long
  farcall outbox ls --state dead              which were given up, and why
  farcall outbox show 7 --bodies              what was to be sent, and what was answered
  farcall outbox retry --dead                 deliver all dead letters anew
  farcall outbox drain --service checkout     deliver what waits, from here
  farcall outbox restore --from /mnt/b/outbox.db    put back what was lost, from a copy

docs/outbox.md says what is promised. Ends with 1 where there are dead letters, or calls without a key (stats), where calls
are left (drain), or one that is named is not there (retry, drop).")]
pub(crate) enum Command {
    /// Which calls are in it?
    #[command(after_help = "Examples:
  farcall outbox ls                           the newest 50, however they stand
  farcall outbox ls --state dead --vendor stripe
  farcall outbox ls --state pending --limit 0 --json | jq '.calls[].id'")]
    Ls {
        /// Only those that stand so
        #[arg(long, value_enum)]
        state: Option<Word>,
        /// Only those of this service
        #[arg(long)]
        service: Option<String>,
        /// Only those to this vendor
        #[arg(long)]
        vendor: Option<String>,
        /// The most calls to show; 0 for all
        #[arg(long, default_value_t = 50)]
        limit: usize,
        #[command(flatten)]
        place: Place,
    },
    /// One call: where it goes, with what, and what became of it
    #[command(after_help = "Examples:
  farcall outbox show 7
  farcall outbox show 7 --bodies              what was to be sent, and what was answered
  farcall outbox show 7 --json

Secrets are references and are never shown: only where they are taken from at delivery.")]
    Show {
        /// Its number; a negative one is of a call that has not reached its PostgreSQL yet
        #[arg(allow_negative_numbers = true)]
        id: i64,
        /// Show the bodies of request and answer, decrypted
        #[arg(long)]
        bodies: bool,
        /// Show the values in the URL's query, too: they may be secrets
        #[arg(long)]
        reveal: bool,
        #[command(flatten)]
        place: Place,
    },
    /// Deliver calls anew that were given up or wait: at once, with a new age
    #[command(after_help = "Examples:
  farcall outbox retry 7 8
  farcall outbox retry --dead                 all dead letters, once their reason is mended

They are delivered by the programs of their service, or by `farcall outbox drain`. Ends with 1 where one is not there.")]
    Retry {
        /// Their numbers
        #[arg(required_unless_present = "dead", conflicts_with = "dead", allow_negative_numbers = true)]
        ids: Vec<i64>,
        /// All dead letters
        #[arg(long)]
        dead: bool,
        #[command(flatten)]
        place: Place,
    },
    /// Forget calls, delivered or not
    #[command(after_help = "Examples:
  farcall outbox drop 7
  farcall outbox ls --state dead --json | jq '.calls[].id' | xargs farcall outbox drop

What is forgotten is not delivered any more, and cannot be had back but from a copy. Ends with 1 where one is not there.")]
    Drop {
        /// Their numbers
        #[arg(required = true, allow_negative_numbers = true)]
        ids: Vec<i64>,
        #[command(flatten)]
        place: Place,
    },
    /// Deliver what waits, from here: with the credentials of this environment
    #[command(after_help = "Examples:
  farcall outbox drain --service checkout
  farcall outbox drain --service checkout --timeout 10m --home /var/lib/farcall

Beside the programs of the service, if any run: no call is delivered by two at once. The rules of farcall.toml apply. Ends
with 1 where calls are left, of which it shows the oldest and why it waits.")]
    Drain {
        /// Whose calls
        #[arg(long)]
        service: String,
        /// How long to try
        #[arg(long, default_value = "1m", value_parser = duration)]
        timeout: Duration,
        #[command(flatten)]
        place: Place,
    },
    /// How many calls there are, and since when
    #[command(after_help = "Examples:
  farcall outbox stats
  farcall outbox stats --json | jq '.vendors[] | {vendor, pending, oldest}'

Ends with 1 where something is to be looked at: dead letters, calls whose key is gone, or that nothing is trusted for, an outbox or a copy that stopped, a
copy that cannot be written (a volume that is not mounted, a variable that this environment has not).")]
    Stats {
        #[command(flatten)]
        place: Place,
    },
    /// Put calls back from a copy, where the outbox was lost or is an older one
    #[command(after_help = "Examples:
  farcall outbox restore --from /mnt/b/outbox.db
  farcall outbox restore --from '$BACKUP_DATABASE'            lists whose calls it has, where there are several
  farcall outbox restore --from '$BACKUP_DATABASE' --of 3f... --dead

A copy in PostgreSQL can be read with the key that was in FARCALL_OUTBOX_KEY. Run it as often as you like: what is there
already is left alone. What comes back is delivered by the programs of its service, or by `farcall outbox drain`.")]
    Restore {
        /// The copy: a file, postgres://user@host/database, or '$NAME' for what that environment variable holds
        #[arg(long, value_name = "COPY", value_parser = copy_place)]
        from: OutboxPlace,
        /// Which outbox was lost, where the copy has calls of several; without it, they are listed
        #[arg(long, value_name = "OUTBOX")]
        of: Option<String>,
        /// Its dead letters too, to be delivered
        #[arg(long)]
        dead: bool,
        #[command(flatten)]
        place: Place,
    },
    /// Use it again after its disk failed; check the disk first
    #[command(after_help = "Examples:
  farcall outbox resume
  farcall outbox resume --home /var/lib/farcall

After an error of its disk the outbox takes nothing more, as what was not synced may be lost: `farcall outbox stats` says so.")]
    Resume {
        #[command(flatten)]
        place: Place,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Place {
    /// Print JSON (docs/outbox.md) instead of a table
    #[arg(long)]
    json: bool,
    /// Where the outbox is
    #[arg(long, value_name = "DIR")]
    home: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Word {
    /// They will be delivered
    Pending,
    /// The vendor took them
    Delivered,
    /// They were given up
    Dead,
}

impl From<Word> for State {
    fn from(word: Word) -> Self {
        match word {
            Word::Pending => Self::Pending,
            Word::Delivered => Self::Delivered,
            Word::Dead => Self::Dead,
        }
    }
}

pub(crate) fn run(command: &Command) -> Exit {
    let place = match command {
        Command::Ls { place, .. }
        | Command::Show { place, .. }
        | Command::Retry { place, .. }
        | Command::Drop { place, .. }
        | Command::Drain { place, .. }
        | Command::Restore { place, .. }
        | Command::Stats { place }
        | Command::Resume { place } => place,
    };
    let done = match farcall_agent::home(place.home.as_deref()) {
        None => Err(OutboxError::NoHome),
        // What was lost is put back into a new one.
        Some(home) if !was_used(&home) && !matches!(command, Command::Restore { .. }) => {
            complain(&format!(
                "there is neither an outbox nor a ledger in {}; run a program with farcall installed, or point \
                 FARCALL_HOME at its home",
                home.display()
            ));
            return Exit::NoLedger;
        }
        Some(home) => answer(command, place.json, home),
    };
    match done {
        Ok((text, exit)) => print(&text, exit),
        Err(error) => {
            complain(&error.to_string());
            if matches!(error, OutboxError::NotFound(_) | OutboxError::Whose(_)) {
                Exit::Usage
            } else {
                Exit::NoLedger
            }
        }
    }
}

/// A copy's place; of a file any path.
fn copy_place(text: &str) -> Result<OutboxPlace, String> {
    OutboxPlace::parse(text)
        .or_else(|_| std::path::absolute(text).map(OutboxPlace::File).map_err(|error| error.to_string()))
}

/// Whether any program used this home directory, or its configuration names an outbox that is elsewhere. One that put
/// nothing has an empty outbox.
fn was_used(home: &Path) -> bool {
    home.join("ledger.db").exists() || Operator::at(home).may_have_calls()
}

fn answer(command: &Command, as_json: bool, home: PathBuf) -> Result<(String, Exit), OutboxError> {
    let operator = Operator::at(&home);
    let changed = |many: usize, of: usize, word: &str, others: &str| {
        let left = of.saturating_sub(many);
        let more = match left {
            0 => String::new(),
            1 => format!("; 1 was {others}"),
            left => format!("; {left} were {others}"),
        };
        let text = match as_json {
            true => json(&json!({ word: many })),
            false => format!("{word} {many} {}{more}\n", if many == 1 { "call" } else { "calls" }),
        };
        (text, if left == 0 { Exit::Fine } else { Exit::Wrong })
    };
    match command {
        Command::Ls { state, service, vendor, limit, .. } => {
            let mut filter = Filter::default();
            filter.state = state.map(State::from);
            filter.service.clone_from(service);
            filter.vendor.clone_from(vendor);
            filter.limit = *limit;
            let (items, exit) = match operator.list(&filter) {
                Ok(items) => (items, Exit::Fine),
                // What the server has not got can be seen without it.
                Err(error) => match operator.waiting_here(&filter) {
                    Ok(here) if error.is_passing() && !here.is_empty() => {
                        complain(&format!("{error}; these wait here for it:"));
                        (here, Exit::NoLedger)
                    }
                    _ => return Err(error),
                },
            };
            if let Some(service) = service
                && items.is_empty()
                && exit == Exit::Fine
                && !service::is_there(&operator, &home, service)?
            {
                return Ok((String::new(), Exit::Usage));
            }
            let text = if as_json { json(&json!({ "calls": items })) } else { items.render(&style()) };
            Ok((text, exit))
        }
        Command::Show { id, bodies, reveal, .. } => {
            let mut shown = operator.show(*id, *bodies)?;
            if !reveal {
                shown.url = url::without_values(&shown.url);
            }
            Ok((if as_json { json(&shown) } else { shown.render(&style()) }, Exit::Fine))
        }
        Command::Retry { ids, dead, .. } => {
            let ids = match dead {
                true => dead_letters(&operator)?,
                false => ids.clone(),
            };
            Ok(changed(operator.retry(&ids)?, ids.len(), "retried", "not there, or delivered already"))
        }
        Command::Drop { ids, .. } => Ok(changed(operator.remove(ids)?, ids.len(), "dropped", "not there")),
        Command::Drain { service, timeout, .. } => {
            if !service::is_there(&operator, &home, service)? {
                return Ok((String::new(), Exit::Usage));
            }
            let (delivered, left) = drain(&operator, home, service, *timeout)?;
            let exit = if left == 0 { Exit::Fine } else { Exit::Wrong };
            let text = match as_json {
                true => json(&json!({ "settled": delivered, "left": left })),
                false if left > 0 => {
                    let what = format!("settled {delivered}, left {left}, of which the oldest are\n");
                    what + &oldest(&operator, service)?.render(&style())
                }
                false => format!("settled {delivered}, left {left}\n"),
            };
            Ok((text, exit))
        }
        Command::Stats { .. } => {
            let all = operator.counts().and_then(|counts| Ok((counts, operator.vendors()?)));
            let ((counts, vendors), missing) = match all {
                Ok(all) => (all, None),
                // What is here can be seen without the server.
                Err(error) if error.is_passing() => match operator.here() {
                    Ok(here) => (here, Some(error)),
                    Err(_) => return Err(error),
                },
                Err(error) => return Err(error),
            };
            if let Some(missing) = &missing {
                complain(&format!(
                    "{missing}; of what is there nothing is known, these are the calls that are here:"
                ));
            }
            let awaited = if missing.is_none() { operator.awaited()? } else { Vec::new() };
            let unreadable = if missing.is_none() { operator.unreadable()? } else { None };
            let untrusting = if missing.is_none() { operator.untrusting()? } else { Vec::new() };
            let (here, stopped) = (operator.beside()?, operator.stopped());
            let failed = stopped.is_some() || !here.wrong_with_copies().is_empty();
            let failed = failed || unreadable.is_some() || !untrusting.is_empty();
            let wrong = failed || counts.iter().any(|count| count.state == State::Dead);
            let text = match (as_json, &stopped) {
                (true, _) => {
                    let stopped = stopped.as_ref().map(ToString::to_string);
                    let missing = missing.as_ref().map(ToString::to_string);
                    let vendors: Vec<_> = vendors.iter().map(with_age).collect();
                    json(&json!({
                        "counts": counts, "vendors": vendors, "awaited": awaited, "unreadable": unreadable,
                        "untrusting": untrusting, "here": here,
                        "stopped": stopped, "missing": missing, "counters": counters(&home)
                    }))
                }
                (false, stopped) => {
                    let stopped = stopped.as_ref().map_or(String::new(), |stopped| format!("\n{stopped}\n"));
                    let vendors = match vendors.is_empty() {
                        true => String::new(),
                        false => format!("\n{}", vendors.render(&style())),
                    };
                    let here = match here.render(&style()) {
                        here if here.is_empty() => here,
                        here => format!("\n{here}"),
                    };
                    // Nothing here says nothing of what is there.
                    let counts = match missing.is_some() && counts.is_empty() {
                        true => String::new(),
                        false => counts.render(&style()),
                    };
                    let awaited: String = awaited.iter().map(|awaited| format!("\n{awaited}\n")).collect();
                    let unreadable: String = unreadable.iter().map(|calls| format!("\n{calls}\n")).collect();
                    let untrusting: String =
                        untrusting.iter().map(|service| format!("\n{service}\n")).collect();
                    format!("{counts}{vendors}{awaited}{unreadable}{untrusting}{here}{stopped}")
                }
            };
            let exit = match missing {
                Some(_) => Exit::NoLedger,
                None if wrong => Exit::Wrong,
                None => Exit::Fine,
            };
            Ok((text, exit))
        }
        Command::Restore { from, of, dead, .. } => {
            let done = operator.restore(from, of.as_deref(), *dead)?;
            let text = match as_json {
                true => json(&done),
                false => restored(done),
            };
            Ok((text, Exit::Fine))
        }
        Command::Resume { .. } => {
            let noted = operator.stopped().is_some()
                || operator.beside().map_or(true, |here| !here.stopped_copies.is_empty());
            operator.resume()?;
            let text = match noted {
                true => "the outbox is in use again; restart the processes that stopped\n",
                // Where the disk failed even that may not have been written.
                false => "no stop was noted here; restart a process that says that it stopped, if one does\n",
            };
            Ok((if as_json { json(&json!({ "resumed": noted })) } else { text.into() }, Exit::Fine))
        }
    }
}

/// A vendor's calls, with how long the oldest of those that wait has waited.
fn with_age(count: &VendorCount) -> Value {
    let mut with_age = json!(count);
    with_age["oldest_age_s"] = json!(count.oldest_age().map(|age| age.as_secs_f64()));
    with_age
}

/// What the programs of this home directory counted, as far back as its ledger goes: what they tell a collector.
/// Null where there is no ledger.
fn counters(home: &Path) -> Option<BTreeMap<&'static str, u64>> {
    const NAMES: [&str; 7] = [
        "delivered_calls",
        "failed_deliveries",
        "given_up_calls",
        "told_alarms",
        "untold_alarms",
        "lost_alarms",
        "failed_exports",
    ];
    let all = report::counters(&Query::at(home).since(Duration::MAX)).ok()?;
    let sum = |name| all.iter().filter(|counter| counter.name == name).map(|counter| counter.value).sum();
    Some(NAMES.map(|name| (name, sum(name))).into())
}

fn restored(done: Restored) -> String {
    let calls = |many: usize| format!("{many} {}", if many == 1 { "call" } else { "calls" });
    let dead = match done.dead {
        0 => String::new(),
        1 => "; 1 dead letter is left in the copy, which --dead restores, too".to_owned(),
        many => format!("; {many} dead letters are left in the copy, which --dead restores, too"),
    };
    format!("restored {}, {} there already{dead}\n", calls(done.restored), done.known)
}

/// Some of the calls that a service has yet.
fn oldest(operator: &Operator, service: &str) -> Result<Vec<Item>, OutboxError> {
    let mut filter = Filter::default();
    (filter.state, filter.service, filter.limit) = (Some(State::Pending), Some(service.to_owned()), 10);
    operator.list(&filter)
}

fn dead_letters(operator: &Operator) -> Result<Vec<i64>, OutboxError> {
    let mut filter = Filter::default();
    filter.state = Some(State::Dead);
    Ok(operator.list(&filter)?.iter().map(|item| item.id).collect())
}

/// Delivers as a process of that service, until nothing is pending: how many were settled, and how many are left.
fn drain(
    operator: &Operator,
    home: PathBuf,
    service: &str,
    timeout: Duration,
) -> Result<(u64, u64), OutboxError> {
    let pending = || {
        let counts = operator.counts()?;
        let mine = counts.iter().find(|count| count.service == service && count.state == State::Pending);
        Ok(mine.map_or(0, |count| count.calls))
    };
    let before = pending()?;
    if before == 0 {
        return Ok((0, 0));
    }
    let farcall = Farcall::start(Options {
        home: Some(home),
        service: Some(service.to_owned()),
        hub: false,
        ..Options::default()
    });
    // Says why, where it may not be used at all.
    farcall.outbox()?;
    let until = Instant::now() + timeout;
    let mut left = pending()?;
    while left > 0 && Instant::now() < until && operator.stopped().is_none() {
        std::thread::sleep(Duration::from_millis(50));
        left = pending()?;
    }
    farcall.shutdown();
    let left = pending()?;
    Ok((before.saturating_sub(left), left))
}
