//! Which name an address has in the hosts file (hosts(5)) that a process sees: no resolver is asked for such a name, so
//! no DNS answer tells it.
//!
//! The file is written by whoever owns the process: it is opened without leaving the process's root and without
//! waiting, and what is read, and how often, is bounded.

use std::{collections::HashMap, fs::File, io::Read, net::IpAddr, os::unix::fs::MetadataExt, sync::Arc};

use rustix::fs::{Mode, OFlags, ResolveFlags, open, openat2};

/// A larger file is not read, in bytes.
const MAX_FILE: u64 = 64 * 1024;
/// Files remembered, and cgroups; beyond, all are forgotten.
const MAX_FILES: usize = 64;
const MAX_CGROUPS: usize = 4_096;
/// Files read within a second of `CLOCK_MONOTONIC`.
const MAX_READS: u32 = 16;
/// The longest name (RFC 1035, 3.1), in bytes.
const MAX_NAME: usize = 253;

type Names = HashMap<IpAddr, Arc<str>>;

/// A bounded memory of hosts files, each read again when it has changed.
#[derive(Debug, Default)]
pub struct Hosts {
    files: HashMap<Version, Arc<Names>>,
    /// The file that a process of the cgroup saw last: for those that are gone before anybody looks.
    latest: HashMap<u64, Arc<Names>>,
    /// A second, and how many files were read in it.
    reads: (u64, u32),
    unread: u64,
}

/// Tells one state of a file from another, without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Version {
    place: (u64, u64),
    bytes: u64,
    changed: (i64, i64),
}

impl Hosts {
    /// Looks which file a process of this cgroup sees, at `now` in `CLOCK_MONOTONIC` nanoseconds.
    pub fn look(&mut self, cgroup: u64, tgid: u32, now: u64) {
        let Ok(root) = open(format!("/proc/{tgid}/root"), OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        else {
            return; // It is gone: what was seen last holds.
        };
        let how = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let names = match openat2(&root, "etc/hosts", how, Mode::empty(), inside) {
            Ok(file) => self.names_of(File::from(file), now),
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => Some(Arc::default()),
            Err(_) => None,
        };
        self.unread += u64::from(names.is_none());
        if self.latest.len() >= MAX_CGROUPS && !self.latest.contains_key(&cgroup) {
            self.latest.clear();
        }
        self.latest.insert(cgroup, names.unwrap_or_default());
    }

    /// The one name of this address in the file that was seen last in this cgroup. `None` also where there are several:
    /// which of them was meant, the address does not tell.
    #[must_use]
    pub fn of(&self, cgroup: u64, address: IpAddr) -> Option<Arc<str>> {
        self.latest.get(&cgroup)?.get(&address.to_canonical()).cloned()
    }

    /// How often a file could not be read: it is too large, no file, or was one of too many in a second.
    #[must_use]
    pub fn unread(&self) -> u64 {
        self.unread
    }

    fn names_of(&mut self, file: File, now: u64) -> Option<Arc<Names>> {
        let metadata = file.metadata().ok()?;
        let version = Version {
            place: (metadata.dev(), metadata.ino()),
            bytes: metadata.len(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        };
        if let Some(known) = self.files.get(&version) {
            return Some(Arc::clone(known));
        }
        let second = now / 1_000_000_000;
        if self.reads.0 != second {
            self.reads = (second, 0);
        }
        self.reads.1 += 1;
        if !metadata.is_file() || metadata.len() > MAX_FILE || self.reads.1 > MAX_READS {
            return None;
        }
        let mut bytes = Vec::new();
        file.take(MAX_FILE).read_to_end(&mut bytes).ok()?;
        let names = Arc::new(parse(&bytes));
        if self.files.len() >= MAX_FILES {
            self.files.clear();
        }
        self.files.insert(version, Arc::clone(&names));
        Some(names)
    }
}

/// The addresses of a hosts file that have one name. Names of the machine itself are none of a vendor's; those without
/// a dot are short for one that has, where there is one. A line that is not understood says nothing.
fn parse(bytes: &[u8]) -> Names {
    let mut candidates: HashMap<IpAddr, Vec<String>> = HashMap::new();
    for line in bytes.split(|byte| *byte == b'\n') {
        let Ok(line) = std::str::from_utf8(line) else { continue };
        let mut words = line.split('#').next().unwrap_or_default().split_ascii_whitespace();
        let Some(Ok(address)) = words.next().map(str::parse::<IpAddr>) else { continue };
        let names = candidates.entry(address.to_canonical()).or_default();
        for name in words.map(|name| name.trim_end_matches('.').to_ascii_lowercase()) {
            if is_name(&name) && !names.contains(&name) {
                names.push(name);
            }
        }
    }
    let named = candidates.into_iter().filter_map(|(address, mut names)| {
        if names.iter().any(|name| name.contains('.')) {
            names.retain(|name| name.contains('.'));
        }
        let [name] = names.as_slice() else { return None };
        Some((address, name.as_str().into()))
    });
    named.collect()
}

fn is_name(name: &str) -> bool {
    let letters = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let of_machine = name.starts_with("localhost") || name.starts_with("ip6-");
    !name.is_empty() && name.len() <= MAX_NAME && name.bytes().all(letters) && !of_machine
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;

    use proptest::prelude::*;

    use super::*;

    fn named(text: &str) -> Vec<(String, String)> {
        let mut names: Vec<_> =
            parse(text.as_bytes()).iter().map(|(ip, name)| (ip.to_string(), name.to_string())).collect();
        names.sort();
        names
    }

    #[test]
    fn an_address_has_the_only_name_that_the_file_gives_it() {
        let text = "# ours\n127.0.0.1 localhost\n::1 ip6-localhost localhost\n\
                    10.0.0.1\tAPI.Partner.example. # the partner\n10.0.0.2 db.internal db\n10.0.0.3 queue\n\
                    ::ffff:10.0.0.4 mapped.example\nnonsense\n10.0.0.999 x.example\n10.0.0.5 a/b\n";
        let expected = [
            ("10.0.0.1", "api.partner.example"),
            ("10.0.0.2", "db.internal"),
            ("10.0.0.3", "queue"),
            ("10.0.0.4", "mapped.example"),
        ];
        assert_eq!(named(text), expected.map(|(ip, name)| (ip.to_owned(), name.to_owned())));
    }

    #[test]
    fn an_address_of_several_names_has_none() {
        assert_eq!(named("10.0.0.1 api.openai.com api.stripe.com\n"), []);
        assert_eq!(named("10.0.0.1 api.openai.com\n10.0.0.1 api.stripe.com\n"), []);
        assert_eq!(named("10.0.0.1 api.openai.com\n10.0.0.1 API.openai.com\n").len(), 1);
    }

    #[test]
    fn a_file_is_read_once_for_each_of_its_states_and_only_so_often() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            File::open(path).unwrap()
        };
        let mut hosts = Hosts::default();
        for n in 1..=MAX_READS {
            let first = file(&format!("hosts-{n}"), "10.0.0.1 a.example\n");
            let again = first.try_clone().unwrap();
            for same in [first, again] {
                let names = hosts.names_of(same, 5);
                assert_eq!((names.map(|names| names.len()), hosts.reads), (Some(1), (0, n)));
            }
        }
        let more = || file("more", "10.0.0.1 more.example\n");
        assert_eq!(hosts.names_of(more(), 5), None, "too many in a second");
        assert_eq!(hosts.names_of(more(), 1_000_000_000).unwrap().len(), 1);
        let large = file("large", &"#".repeat(MAX_FILE as usize + 1));
        assert_eq!(hosts.names_of(large, 2_000_000_000), None, "too large");
        assert_eq!(hosts.names_of(File::open("/dev/null").unwrap(), 3_000_000_000), None, "no file");
    }

    #[test]
    fn the_file_of_a_process_that_is_gone_is_the_one_last_seen_in_its_cgroup() {
        let mut hosts = Hosts::default();
        let name: Arc<str> = "db.internal".into();
        let address = "10.0.0.2".parse().unwrap();
        hosts.latest.insert(7, Arc::new(Names::from([(address, Arc::clone(&name))])));
        hosts.look(7, u32::MAX, 1);
        assert_eq!(hosts.of(7, address), Some(name));
        assert_eq!(hosts.of(8, address), None);
        hosts.look(7, std::process::id(), 1);
        assert_eq!((hosts.of(7, address), hosts.unread()), (None, 0), "a living one tells");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(prop_oneof![any::<u8>(), Just(b' '), Just(b'\n'), Just(b'1'), Just(b'.')], 0..200)) {
            let _ = parse(&bytes);
        }
    }
}
