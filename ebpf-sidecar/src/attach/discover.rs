//! Which TLS libraries the processes of the scope map, and when to look.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs::{self, File},
    io,
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::{
    folders::{self, Folders},
    table,
};

/// A library file, held open so that it can be probed even after its process has ended.
#[derive(Debug)]
pub(super) struct Library {
    pub(super) file: File,
    pub(super) name: String,
    /// As its mappings name it, which may differ from what the file says of itself, or as the file does where it was found
    /// in a folder; `None` where the user named it.
    pub(super) mapping: Option<Inode>,
}

/// Device and inode.
pub(super) type Inode = (u64, u64);

/// Libraries found so far, by device and inode, and processes to look at again.
///
/// A process maps its libraries some milliseconds after `execve`, and nothing tells us when: so a new process is looked
/// at several times, at growing distances, and once more when it connects.
#[derive(Debug, Default)]
pub(super) struct Discovery {
    known: HashSet<Inode>,
    folders: Folders,
    /// When a library was last seen mapped, or in a folder of a process that lives.
    mapped: HashMap<Inode, Instant>,
    due: BTreeMap<(Instant, u32), Duration>,
    /// Processes that connected of late, and when they were looked at for that.
    connected: HashMap<u32, Instant>,
}

const FIRST_LOOK: Duration = Duration::from_millis(1);
/// How long a library stays probed after it was last seen mapped.
const UNUSED: Duration = Duration::from_secs(600);
const LAST_LOOK: Duration = Duration::from_millis(256);
/// How often a process that connects again and again is looked at.
const AGAIN: Duration = Duration::from_millis(50);
/// Processes waiting to be looked at again; beyond, only the periodic look over the whole scope finds them.
const MAX_DUE: usize = 4096;

impl Discovery {
    /// Looks into these folders as well, in each mount namespace of a process that it looks at.
    pub(super) fn with_folders(folders: Vec<PathBuf>) -> Self {
        Self { folders: Folders::new(folders), ..Self::default() }
    }

    /// A process executed a program: look soon, and then again.
    pub(super) fn expect(&mut self, tgid: u32, now: Instant) {
        self.connected.remove(&tgid);
        if self.due.len() < MAX_DUE {
            self.due.insert((now + FIRST_LOOK, tgid), FIRST_LOOK);
        }
    }

    /// When to look next.
    pub(super) fn next(&self) -> Option<Instant> {
        self.due.first_key_value().map(|((at, _), _)| *at)
    }

    /// Looks at the processes whose time has come and returns the libraries that are new.
    pub(super) fn look_at_due(&mut self, now: Instant) -> Vec<Library> {
        let mut found = Vec::new();
        while let Some(entry) = self.due.first_entry().filter(|entry| entry.key().0 <= now) {
            let ((_, tgid), distance) = entry.remove_entry();
            let alive = self.look_at(tgid, now, &mut found);
            if alive && distance < LAST_LOOK {
                self.due.insert((now + distance * 2, tgid), distance * 2);
            }
        }
        found
    }

    /// A process connects: looks now, or a little later where it has been looked at a moment ago.
    pub(super) fn connects(&mut self, tgid: u32, now: Instant, found: &mut Vec<Library>) {
        let again = self.connected.get(&tgid).map(|last| *last + AGAIN).filter(|again| *again > now);
        if let Some(again) = again {
            if self.due.len() < MAX_DUE {
                self.due.entry((again, tgid)).or_insert(LAST_LOOK);
            }
            return;
        }
        if self.connected.len() >= MAX_DUE {
            self.connected.retain(|_, last| *last + AGAIN > now);
        }
        self.connected.insert(tgid, now);
        self.look_at(tgid, now, found);
    }

    /// Looks at one process now. Returns whether it lives.
    pub(super) fn look_at(&mut self, tgid: u32, now: Instant, found: &mut Vec<Library>) -> bool {
        self.look_into_folders(tgid, now, found);
        let Ok(maps) = fs::read_to_string(format!("/proc/{tgid}/maps")) else { return false };
        for line in maps.lines() {
            let Some(mapping) = Mapping::parse(line) else { continue };
            let inode = (mapping.device, mapping.inode);
            if !table::is_openssl(mapping.name) {
                continue;
            }
            self.mapped.insert(inode, now);
            if self.known.contains(&inode) {
                continue;
            }
            // The mapping itself leads to the file even where the path means something else in our own root.
            let by_mapping = File::open(format!("/proc/{tgid}/map_files/{}", mapping.range));
            let Ok(file) = by_mapping.or_else(|_| File::open(format!("/proc/{tgid}/root{}", mapping.path)))
            else {
                continue;
            };
            found.extend(self.new_library(file, mapping.name.to_owned(), Some(inode)));
            self.known.insert(inode);
        }
        true
    }

    /// Looks into the folders of a process's mount namespace.
    pub(super) fn look_into_folders(&mut self, tgid: u32, now: Instant, found: &mut Vec<Library>) {
        let (opened, all) = self.folders.look(tgid, now);
        self.mapped.extend(all.iter().map(|inode| (*inode, now)));
        for (file, name) in opened {
            let inode = folders::inode(&file);
            found.extend(self.new_library(file, name, inode));
        }
    }

    /// Opens a library that the user named.
    pub(super) fn named(&mut self, path: &Path) -> io::Result<Option<Library>> {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let file = File::open(path)?;
        if is_for_32_bits(&file) {
            return Err(io::Error::other("it is for 32-bit programs, whose calls are not read"));
        }
        Ok(self.new_library(file, name, None))
    }

    /// Whether nobody has mapped this library for long, in which case it is forgotten: containers come and go, and each
    /// brings its own file.
    pub(super) fn forget_unused(&mut self, library: &Library, now: Instant) -> bool {
        let Some(inode) = library.mapping else { return false };
        let unused = self.mapped.get(&inode).is_none_or(|last| now.saturating_duration_since(*last) > UNUSED);
        if unused {
            self.mapped.remove(&inode);
            self.known.remove(&inode);
            if let Ok(metadata) = library.file.metadata() {
                self.known.remove(&(metadata.dev(), metadata.ino()));
            }
        }
        unused
    }

    fn new_library(&mut self, file: File, name: String, mapping: Option<Inode>) -> Option<Library> {
        let metadata = file.metadata().ok()?;
        let is_new = self.known.insert((metadata.dev(), metadata.ino()));
        (is_new && !is_for_32_bits(&file)).then_some(Library { file, name, mapping })
    }
}

/// Whether a library is for 32-bit programs: the probes would take other things for its arguments (EI_CLASS, elf(5)).
fn is_for_32_bits(file: &File) -> bool {
    let mut identification = [0; 5];
    file.read_exact_at(&mut identification, 0).is_ok() && identification == *b"\x7fELF\x01"
}

/// An executable or readable mapping of a file, from a line of `/proc/<pid>/maps` (proc(5)).
#[derive(Debug, PartialEq, Eq)]
struct Mapping<'a> {
    range: &'a str,
    device: u64,
    inode: u64,
    path: &'a str,
    name: &'a str,
}

impl<'a> Mapping<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.splitn(6, ' ');
        let range = fields.next()?;
        let _permissions = fields.next()?;
        let _offset = fields.next()?;
        let (major, minor) = fields.next()?.split_once(':')?;
        let inode = fields.next()?.parse().ok().filter(|inode| *inode != 0)?;
        let path = fields.next()?.trim_start();
        let path = path.strip_suffix(" (deleted)").unwrap_or(path);
        let (major, minor) = (u32::from_str_radix(major, 16).ok()?, u32::from_str_radix(minor, 16).ok()?);
        Some(Self { range, device: libc::makedev(major, minor), inode, path, name: path.rsplit('/').next()? })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_mapped_file_is_known_by_device_and_inode() {
        let line = "7f96aca00000-7f96acb00000 r-xp 00001000 fe:00 131337                     /opt/my libs/libssl.so.3 (deleted)";
        let mapping = Mapping::parse(line).unwrap();
        assert_eq!(mapping.name, "libssl.so.3");
        assert_eq!(mapping.path, "/opt/my libs/libssl.so.3");
        assert_eq!((mapping.device, mapping.inode), (libc::makedev(0xfe, 0), 131_337));
        assert_eq!(Mapping::parse("7f96aca00000-7f96acb00000 rw-p 00000000 00:00 0"), None);
        assert_eq!(Mapping::parse("garbage"), None);
    }

    #[test]
    fn a_process_is_looked_at_with_growing_distance_and_not_for_ever() {
        let mut discovery = Discovery::default();
        let start = Instant::now();
        discovery.expect(std::process::id(), start);
        let mut looks = 0;
        while let Some(next) = discovery.next() {
            discovery.look_at_due(next);
            looks += 1;
            assert!(looks < 20);
        }
        assert_eq!(looks, 9);
    }

    #[test]
    fn a_process_that_connects_all_the_time_is_looked_at_now_and_then() {
        let mut discovery = Discovery::default();
        let (me, start) = (std::process::id(), Instant::now());
        let mut found = Vec::new();
        for connection in 0..100 {
            discovery.connects(me, start + AGAIN * connection / 100, &mut found);
        }
        assert_eq!(discovery.connected.get(&me), Some(&start), "one look, for all of them");
        assert_eq!(discovery.next(), Some(start + AGAIN), "and one for what it has loaded since");
        discovery.look_at_due(start + AGAIN);
        assert_eq!(discovery.next(), None);
        discovery.connects(me, start + AGAIN, &mut found);
        assert_eq!(discovery.connected.get(&me), Some(&(start + AGAIN)));
        discovery.expect(me, start + AGAIN);
        assert!(discovery.connected.is_empty(), "another program is looked at anew");
    }

    #[test]
    fn a_process_that_is_gone_is_not_looked_at_again() {
        let mut discovery = Discovery::default();
        let now = Instant::now();
        discovery.expect(u32::MAX, now);
        assert!(discovery.look_at_due(now + FIRST_LOOK).is_empty());
        assert_eq!(discovery.next(), None);
    }

    #[test]
    fn a_library_that_nobody_maps_any_more_is_forgotten_and_found_again() {
        let mut discovery = Discovery::default();
        let now = Instant::now();
        let file = File::open(std::env::current_exe().unwrap()).unwrap();
        let library = discovery.new_library(file, "libssl.so.3".into(), Some((1, 2))).unwrap();
        discovery.mapped.insert((1, 2), now);
        assert!(!discovery.forget_unused(&library, now + UNUSED));
        assert!(discovery.forget_unused(&library, now + UNUSED + Duration::from_secs(1)));
        assert!(discovery.known.is_empty() && discovery.mapped.is_empty());
    }

    #[test]
    fn a_library_for_32_bit_programs_is_not_probed() {
        let directory = tempfile::tempdir().unwrap();
        for (class, is_probed) in [(1, false), (2, true)] {
            let path = directory.path().join(format!("libssl.so.{class}"));
            fs::write(&path, [b"\x7fELF", &[class][..], &[0; 59]].concat()).unwrap();
            let mut discovery = Discovery::default();
            let file = File::open(&path).unwrap();
            assert_eq!(discovery.new_library(file, "libssl.so.3".into(), None).is_some(), is_probed);
            assert_eq!(Discovery::default().named(&path).is_ok(), is_probed);
        }
    }

    #[test]
    fn a_library_is_found_once() {
        let mut discovery = Discovery::default();
        let path = std::env::current_exe().unwrap();
        assert!(discovery.named(&path).unwrap().is_some());
        assert!(discovery.named(&path).unwrap().is_none());
    }
}
