//! The ways by which an alarm goes out. Each is tried whatever becomes of the others, and however long they take.

use super::event;
use super::message::{Message, now_ms};
use crate::export::otlp::{self, Resource, Signal, Whither, process_environment};
use crate::post::{Post, post};
use crate::say;
use crate::thread::with_signals;
use farcall::catalogue::{Catalogue, name_of_unknown};
use farcall::config::{AlarmConfig, OtlpConfig, Rule};
use farcall::matcher::{Field, Fields, Subject};
use farcall::{Config, outbox};
use http::Uri;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

const LOG: &str = "log";
const COMMAND: &str = "command";
const WEBHOOK: &str = "webhook";
const EVENT: &str = "event";

/// One by which alarms go out. None waits for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Log,
    Command,
    Webhook,
    Event,
}

/// By what alarms go out.
#[derive(Debug)]
pub(super) struct Ways {
    pub(super) alarm: AlarmConfig,
    otlp: OtlpConfig,
    /// Those that there are, beside stderr.
    pub(super) all: Vec<Way>,
}

impl Ways {
    pub(super) fn of(config: &Config) -> Self {
        let mut ways = Self { alarm: config.alarm.clone(), otlp: config.otlp.clone(), all: Vec::new() };
        let is_there = |way: &Way| match way {
            Way::Log => ways.alarm.log.is_some(),
            Way::Command => !ways.alarm.command.is_empty(),
            Way::Webhook => ways.alarm.webhook.is_some(),
            // Looks at the environment while the application starts.
            Way::Event => matches!(ways.collector(), Whither::To(_) | Whither::Wrong(_)),
        };
        let all = Way::ALL.into_iter().filter(is_there).collect();
        ways.all = all;
        ways
    }

    fn collector(&self) -> Whither {
        Whither::of(&self.otlp, Signal::Logs, &process_environment)
    }

    /// How long it takes at most to tell by all of them: a process that has not said by then that it did has died.
    pub(super) fn longest(&self) -> Duration {
        const AROUND: Duration = Duration::from_secs(5);
        let alarm = &self.alarm;
        let ways = u32::from(alarm.webhook.is_some()) + u32::from(!alarm.command.is_empty());
        let collector = match self.collector() {
            Whither::To(to) => to.timeout,
            _ => Duration::ZERO,
        };
        alarm.timeout.saturating_mul(ways).saturating_add(collector).saturating_add(AROUND)
    }
}

/// What became of an alarm on one way.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Told {
    /// `webhook`, `command`, `log` or `event`.
    pub way: &'static str,
    /// Why it did not go out; `None` where it did.
    pub failure: Option<String>,
}

const LOOK: Duration = Duration::from_millis(10);

/// Sends an alarm that is none by each of these ways, now: for `farcall alarm test`.
#[must_use]
pub fn test(config: &Config, service: &str) -> Vec<Told> {
    let ways = Ways::of(config);
    let mut told = tell(&ways, &Message::test(service));
    // No way of ours, and yet what somebody may take for one.
    if let Whither::Otherwise(why) = ways.collector() {
        told.push(Told { way: EVENT, failure: Some(why) });
    }
    told
}

/// Whether alarms go anywhere beside stderr, by this configuration and the environment of this process.
#[must_use]
pub fn has_way(config: &Config) -> bool {
    !Ways::of(config).all.is_empty()
}

/// Which ways lead to a vendor of which a rule says that calls to it are critical, and to which: when it fails, so does
/// the alarm. Of what is in environment variables, those of this process.
#[must_use]
pub fn at_critical_vendors(config: &Config) -> Vec<(&'static str, String)> {
    let webhook = config.alarm.webhook.as_deref().and_then(|webhook| url_of(webhook).ok());
    let collector = match Ways::of(config).collector() {
        Whither::To(to) => Some(to.url),
        _ => None,
    };
    let ways = [(WEBHOOK, webhook), (EVENT, collector)];
    let at = |(way, url): (&'static str, Option<Uri>)| Some((way, critical_vendor_at(config, url?.host()?)?));
    ways.into_iter().filter_map(at).collect()
}

fn critical_vendor_at(config: &Config, host: &str) -> Option<String> {
    let host = host.to_ascii_lowercase();
    let catalogue = Catalogue::new(config.vendors.clone());
    let vendor = catalogue.vendor_of(&host);
    let name = vendor.map_or_else(|| name_of_unknown(&host), |vendor| &vendor.name);
    let tags = vendor.map(|vendor| vendor.tags.clone()).unwrap_or_default();
    let mut subject = Subject::default();
    (subject.vendor, subject.vendor_tags, subject.host) = (name, &tags, &host);
    let told_of = |rule: &&Rule<outbox::Rule>| {
        let (asks, unmet) = (rule.matcher.depends(), rule.matcher.unmet(&subject));
        // What else a rule asks (endpoint, customer) only narrows it.
        rule.then.critical == Some(true)
            && [Fields::VENDOR, Fields::VENDOR_TAG, Fields::HOST]
                .into_iter()
                .any(|field| asks.contains(field))
            && !unmet.iter().any(|field| matches!(field, Field::Vendor | Field::VendorTag | Field::Host))
    };
    config.outbox.iter().find(told_of).map(|_| name.to_owned())
}

/// Tells it by one way after the other; what became of it on each.
pub(super) fn tell(ways: &Ways, message: &Message) -> Vec<Told> {
    let by = |way: &Way| Told { way: way.name(), failure: way.tell(ways, message).err() };
    ways.all.iter().map(by).collect()
}

impl Way {
    /// All of them.
    pub(super) const ALL: [Self; 4] = [Self::Log, Self::Command, Self::Webhook, Self::Event];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Log => LOG,
            Self::Command => COMMAND,
            Self::Webhook => WEBHOOK,
            Self::Event => EVENT,
        }
    }

    /// Tells it by this way, however long that takes.
    ///
    /// # Errors
    /// Why nobody took it.
    pub(super) fn tell(self, ways: &Ways, message: &Message) -> Result<(), String> {
        let (alarm, json) = (&ways.alarm, message.to_json());
        match self {
            Self::Log => alarm.log.as_ref().map_or(Ok(()), |file| {
                let line = OpenOptions::new().create(true).append(true).open(file);
                line.and_then(|mut log| log.write_all(format!("{json}\n").as_bytes()))
                    .map_err(|error| format!("{}: {error}", file.display()))
            }),
            Self::Command => alarm.command.split_first().map_or(Ok(()), |(program, arguments)| {
                run(program, arguments, message, &json, alarm.timeout)
            }),
            Self::Webhook => {
                alarm.webhook.as_ref().map_or(Ok(()), |webhook| hook(&url_of(webhook)?, &json, alarm.timeout))
            }
            Self::Event => match ways.collector() {
                Whither::To(to) => {
                    let fields = &message.farcall;
                    let resource = Resource::new(&fields.service, fields.pid, &process_environment);
                    otlp::send(&to, Signal::Logs, &event::of(message, &resource, now_ms()))
                }
                Whither::Wrong(why) => Err(why),
                Whither::Nowhere | Whither::Otherwise(_) => Ok(()),
            },
        }
    }
}

fn hook(url: &Uri, json: &str, timeout: Duration) -> Result<(), String> {
    post(&Post { url, headers: &[], json, timeout, passes: |_| true, answered: false }).map(drop)
}

/// Where a webhook is: what the file says, or the environment variable that it names.
fn url_of(webhook: &str) -> Result<Uri, String> {
    let text = match webhook.strip_prefix('$') {
        Some(name) => process_environment(name)
            .ok_or_else(|| format!("the environment variable {name} is not set in this process"))?,
        None => webhook.to_owned(),
    };
    Uri::try_from(text)
        .ok()
        .filter(|uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some())
        .ok_or_else(|| "what it holds is no URL".to_owned())
}

/// Runs a program with the message on its stdin, and ends it when its time is up.
fn run(
    program: &str,
    arguments: &[String],
    message: &Message,
    json: &str,
    timeout: Duration,
) -> Result<(), String> {
    let named = |error: io::Error| format!("{program}: {error}");
    let mut child = with_signals(&mut Command::new(program))
        .args(arguments)
        .env("FARCALL_ALARM_RULE", &*say::plain(&message.farcall.rule))
        .env("FARCALL_ALARM_TEXT", &message.text)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(named)?;
    if let Some(mut stdin) = child.stdin.take() {
        // It fits into any pipe; a program that does not read has what it needs in its environment.
        let _ = stdin.write_all(format!("{json}\n").as_bytes());
    }
    let until = Instant::now() + timeout;
    loop {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => return Ok(()),
            Ok(Some(status)) => return Err(format!("{program}: it ended with {status}")),
            Ok(None) if Instant::now() < until => thread::sleep(LOOK),
            Ok(None) => return Err(end(&mut child, program)),
            // The application reaps all children: how this one ended, nobody here can know.
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::CHILD.raw_os_error()) => {
                return Ok(());
            }
            Err(error) => return Err(named(error)),
        }
    }
}

fn end(child: &mut Child, program: &str) -> String {
    let _ = child.kill();
    let _ = child.wait();
    format!("{program}: it did not end in time")
}
