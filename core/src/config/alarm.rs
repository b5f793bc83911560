//! `[alarm]`: who is told when a critical call fails.

use super::section::Section;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// The ways by which alarms go out. Where there is none, they go to stderr alone.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct AlarmConfig {
    /// `webhook`: the URL that gets a POST with JSON, or `$NAME` for what the environment variable holds. May hold a
    /// secret: not shown by `Debug`.
    pub webhook: Option<String>,
    /// `command`: a program and its arguments, which gets the same JSON on its stdin.
    pub command: Vec<String>,
    /// `log`: the file that gets a line of the same JSON.
    pub log: Option<PathBuf>,
    /// `every`: how long after an alarm of a rule the next one of that rule may go out, on one host.
    pub every: Duration,
    /// `timeout`: how long webhook and command may take.
    pub timeout: Duration,
}

impl Default for AlarmConfig {
    fn default() -> Self {
        Self {
            webhook: None,
            command: Vec::new(),
            log: None,
            every: Duration::from_secs(300),
            timeout: Duration::from_secs(10),
        }
    }
}

impl AlarmConfig {
    /// Whether alarms go anywhere beside stderr.
    #[must_use]
    pub fn has_way(&self) -> bool {
        self.webhook.is_some() || !self.command.is_empty() || self.log.is_some()
    }
}

impl fmt::Debug for AlarmConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AlarmConfig")
            .field("webhook", &self.webhook.as_ref().map(|_| ".."))
            .field("command", &self.command.first())
            .field("log", &self.log)
            .field("every", &self.every)
            .finish_non_exhaustive()
    }
}

/// The most arguments of a command.
const MAX_ARGUMENTS: usize = 64;

pub(super) fn read(section: &mut Section<'_, '_>) -> AlarmConfig {
    let default = AlarmConfig::default();
    let webhook = section.checked_string("webhook", |text| {
        let variable = text.strip_prefix('$').is_some_and(|name| {
            !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        });
        let url = http::Uri::try_from(text).is_ok_and(|uri| {
            matches!(uri.scheme_str(), Some("http" | "https"))
                && uri.authority().is_some_and(|authority| !authority.as_str().contains('@'))
        });
        (variable || url).then(|| text.to_owned()).ok_or_else(|| {
            r#"a webhook; write its URL, or the environment variable that holds it, as in "$ALARM_WEBHOOK""#.into()
        })
    });
    let command = section.list("command", |part: &str| Ok(part.to_owned()));
    if section.has("command")
        && (command.first().is_none_or(|program| program.is_empty()) || command.len() > MAX_ARGUMENTS)
    {
        section
            .wrong(r#"`command` names no program; write it as in ["/usr/local/bin/page", "--team", "pay"]"#);
    }
    let log = section.checked_string("log", |text| match text.is_empty() {
        true => Err(r#"a file; write its path, as in "/var/log/farcall-alarms.log""#.into()),
        false => Ok(PathBuf::from(text)),
    });
    let every = section.duration("every");
    let timeout = section.duration("timeout");
    AlarmConfig {
        webhook,
        command,
        log,
        every: every.unwrap_or(default.every),
        timeout: timeout.unwrap_or(default.timeout),
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Config;
    use std::time::Duration;

    #[test]
    fn the_ways_are_read_and_what_the_webhook_holds_is_not_shown() {
        let text = "[alarm]\nwebhook = \"https://hooks.example.com/T0/secret\"\ncommand = [\"page\", \"-x\"]\n\
                    log = \"/tmp/a.log\"\nevery = \"1m\"\ntimeout = \"2s\"\n";
        let alarm = Config::parse("f", text).unwrap().alarm;
        assert!(alarm.has_way() && !format!("{alarm:?}").contains("secret"));
        assert_eq!((alarm.every, alarm.timeout), (Duration::from_secs(60), Duration::from_secs(2)));
        assert_eq!(alarm.command, ["page", "-x"]);
        assert!(Config::parse("f", "[alarm]\nwebhook = \"$HOOK\"\n").unwrap().alarm.has_way());
        assert!(!Config::default().alarm.has_way());
        for bad in [
            "webhook = \"hooks.example.com\"",
            "webhook = \"https://user:pw@hooks.example.com/\"",
            "webhook = \"$\"",
            "command = []",
            "log = \"\"",
            "every = \"often\"",
            "wehbook = \"$A\"",
        ] {
            assert!(Config::parse("f", &format!("[alarm]\n{bad}\n")).is_err(), "{bad}");
        }
    }
}
