//! Which program this is: read from `/proc`, without a system call of our own.

mod container;

pub use container::container_of;

use farcall::Caller;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::{env, fs};

/// The program of this process under the name `service`, or under its own name.
pub(crate) fn of_this_process(service: Option<String>) -> Caller {
    let executable = env::current_exe().map(|path| path.display().to_string()).unwrap_or_default();
    let service = service.unwrap_or_else(|| base_name(&executable));
    Caller {
        service,
        pid: std::process::id(),
        pid_namespace: pid_namespace_of("self").unwrap_or(0),
        // Where `/proc` is that of another PID namespace, another process stands there under our pid.
        started: start_ticks_of("self").unwrap_or(0),
        container: container_of_this_process(),
        user: user(),
        executable,
    }
}

/// The name that the environment gives the service: `OTEL_SERVICE_NAME`, else `service.name` of
/// `OTEL_RESOURCE_ATTRIBUTES` (OpenTelemetry, "Resource SDK").
pub(crate) fn service_of_environment() -> Option<String> {
    let set = |name: &str| env::var(name).ok().filter(|value| !value.trim().is_empty());
    set("OTEL_SERVICE_NAME").or_else(|| {
        let attributes = set("OTEL_RESOURCE_ATTRIBUTES")?;
        let pair = attributes.split(',').find_map(|pair| pair.trim().strip_prefix("service.name="))?;
        Some(pair.to_owned())
    })
}

/// The last part of a path, or `unknown`.
pub(crate) fn base_name(path: &str) -> String {
    let name = path.trim_end_matches(" (deleted)").rsplit('/').next().unwrap_or_default();
    if name.is_empty() { "unknown".into() } else { name.into() }
}

/// The PID namespace of a process as the inode that names it, alike for all who ask; `None` where it cannot be read. `pid`
/// is a number, or `self`.
#[must_use]
pub fn pid_namespace_of(pid: &str) -> Option<u64> {
    fs::metadata(format!("/proc/{pid}/ns/pid")).ok().map(|namespace| namespace.ino())
}

/// When a process started, in clock ticks since boot; `None` where there is none of this pid. `pid` is a number, or `self`.
pub(crate) fn start_ticks_of(pid: &str) -> Option<u64> {
    start_ticks(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The container that this process runs in; empty outside of one.
pub(crate) fn container_of_this_process() -> String {
    container_of("self").unwrap_or_default()
}

/// Field 22 of `/proc/PID/stat`. The second field, the program's name in brackets, may hold anything.
fn start_ticks(stat: &str) -> Option<u64> {
    let (_, after) = stat.rsplit_once(')')?;
    after.split_ascii_whitespace().nth(19)?.parse().ok()
}

fn user() -> String {
    let uid = rustix::process::geteuid().as_raw();
    match passwd_entry(uid) {
        Some(entry) => entry.name,
        None => uid.to_string(),
    }
}

/// The home directory that the user database gives, for a process without `$HOME`.
pub(crate) fn home_of_user() -> Option<PathBuf> {
    passwd_entry(rustix::process::geteuid().as_raw()).map(|entry| entry.home)
}

struct PasswdEntry {
    name: String,
    home: PathBuf,
}

fn passwd_entry(uid: u32) -> Option<PasswdEntry> {
    parse_passwd(&fs::read_to_string("/etc/passwd").ok()?, uid)
}

fn parse_passwd(text: &str, uid: u32) -> Option<PasswdEntry> {
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, _password, id) = (fields.next()?, fields.next()?, fields.next()?);
        let home = fields.nth(2)?;
        (id.parse() == Ok(uid)).then(|| PasswdEntry { name: name.into(), home: home.into() })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_cannot_hide_its_start_behind_its_name() {
        let stat = "7 (evil) S 1 2) R 1 7 7 0 -1 4194304 0 0 0 0 0 0 0 0 20 0 1 0 4242 0 0";
        assert_eq!(start_ticks(stat), Some(4242));
        assert_eq!(start_ticks(""), None);
    }

    #[test]
    fn this_process_is_described() {
        let caller = of_this_process(None);
        assert_eq!(caller.pid, std::process::id());
        assert!(caller.started > 0 && caller.pid_namespace > 0 && !caller.user.is_empty());
        assert!(caller.executable.ends_with(&caller.service));
        assert_eq!(of_this_process(Some("checkout".into())).service, "checkout");
    }

    #[test]
    fn a_user_is_found_by_number() {
        let text = "root:x:0:0:root:/root:/bin/sh\nbroken\nweb:x:33:33::/srv/www:/bin/false\n";
        let entry = parse_passwd(text, 33).unwrap();
        assert_eq!((entry.name.as_str(), entry.home.to_str()), ("web", Some("/srv/www")));
        assert!(parse_passwd(text, 34).is_none());
    }

    #[test]
    fn a_replaced_executable_keeps_its_name() {
        assert_eq!(base_name("/usr/bin/app (deleted)"), "app");
        assert_eq!(base_name(""), "unknown");
    }
}
