//! TLS libraries in the folders where distributions put them, found before any process maps them: a probe that is placed
//! when a process maps its library may come after the process's first call.

use std::{
    collections::HashMap,
    ffi::OsStr,
    fs::{self, File},
    os::{
        fd::OwnedFd,
        unix::{ffi::OsStrExt, fs::MetadataExt},
    },
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::fs::{CWD, Dir, Mode, OFlags, ResolveFlags, openat, openat2};

use super::{discover::Inode, table};

/// Where shared libraries are, for [`Options::folders`](super::Options::folders).
pub const WELL_KNOWN: &[&str] = &[
    "/usr/lib",
    "/usr/lib64",
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/local/lib",
    "/usr/local/lib64",
    "/usr/local/ssl/lib",
    "/lib",
    "/lib64",
    "/lib/x86_64-linux-gnu",
    "/lib/aarch64-linux-gnu",
    "/opt/conda/lib",
];

/// How often folders are read again: packages are upgraded, and bring new files.
const AGAIN: Duration = Duration::from_secs(60);
/// Mount namespaces that are remembered.
const MAX_ROOTS: usize = 1_024;
/// Libraries of one mount namespace.
const MAX_LIBRARIES: usize = 32;

/// The folders, in each mount namespace that a process of the scope lives in.
#[derive(Debug, Default)]
pub(super) struct Folders {
    folders: Vec<PathBuf>,
    roots: HashMap<u64, Root>,
}

/// A mount namespace.
#[derive(Debug)]
struct Root {
    read: Instant,
    libraries: Vec<Inode>,
}

impl Folders {
    pub(super) fn new(folders: Vec<PathBuf>) -> Self {
        Self { folders, roots: HashMap::new() }
    }

    /// Libraries in the mount namespace of a process. Those that are none of `known`, open; all of them, as files.
    pub(super) fn look(&mut self, tgid: u32, now: Instant) -> (Vec<(File, String)>, &[Inode]) {
        let mut opened = Vec::new();
        let namespace = match self.folders.is_empty() {
            true => None,
            false => fs::metadata(format!("/proc/{tgid}/ns/mnt")).ok().map(|metadata| metadata.ino()),
        };
        let Some(namespace) = namespace else { return (opened, &[]) };
        let is_fresh = |root: &Root| now.saturating_duration_since(root.read) < AGAIN;
        if !self.roots.get(&namespace).is_some_and(is_fresh) {
            if self.roots.len() >= MAX_ROOTS {
                self.roots.retain(|_, root| is_fresh(root));
            }
            opened = read(&format!("/proc/{tgid}/root"), &self.folders);
            let libraries = opened.iter().filter_map(|(file, _)| inode(file)).collect();
            self.roots.insert(namespace, Root { read: now, libraries });
        }
        (opened, self.roots.get(&namespace).map_or(&[], |root| root.libraries.as_slice()))
    }
}

pub(super) fn inode(file: &File) -> Option<Inode> {
    file.metadata().ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

/// The libraries of the folders below `root`.
fn read(root: &str, folders: &[PathBuf]) -> Vec<(File, String)> {
    let mut found: Vec<(File, String)> = Vec::new();
    let Ok(root) = openat(CWD, root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
    else {
        return found;
    };
    // Links inside a container lead to its own files, never to ours; and opening a pipe must not wait.
    let open = |path: &Path, flags: OFlags| -> Option<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | flags;
        openat2(&root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT).ok()
    };
    for folder in folders {
        let Some(entries) = open(folder, OFlags::DIRECTORY).and_then(|folder| Dir::new(folder).ok()) else {
            continue;
        };
        for entry in entries.flatten() {
            let Ok(name) = entry.file_name().to_str() else { continue };
            if !table::is_openssl(name) || found.len() >= MAX_LIBRARIES {
                continue;
            }
            let path = folder.join(OsStr::from_bytes(name.as_bytes()));
            let Some(file) = open(&path, OFlags::empty()).map(File::from) else { continue };
            let is_new = |file: &File| !found.iter().any(|(known, _)| inode(known) == inode(file));
            if file.metadata().is_ok_and(|metadata| metadata.is_file()) && is_new(&file) {
                found.push((file, name.to_owned()));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_library_is_found_once_and_links_never_leave_the_root() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("root");
        let lib = root.join("usr/lib");
        fs::create_dir_all(&lib).unwrap();
        fs::write(lib.join("libssl.so.3"), "theirs").unwrap();
        fs::write(lib.join("libz.so.1"), "other").unwrap();
        symlink("libssl.so.3", lib.join("libssl.so")).unwrap();
        symlink("/usr/lib", root.join("lib")).unwrap();
        // What they call by this name is in their root, where there is no such file.
        let ours = directory.path().join("libssl.so.1.1");
        fs::write(&ours, "ours").unwrap();
        symlink(&ours, lib.join("libssl.so.1.1")).unwrap();
        let found = read(root.to_str().unwrap(), &["/lib".into(), "/usr/lib".into(), "/none".into()]);
        let inodes: Vec<_> = found.iter().map(|(file, _)| inode(file).unwrap().1).collect();
        assert_eq!(inodes, [fs::metadata(lib.join("libssl.so.3")).unwrap().ino()]);
    }

    #[test]
    fn a_pipe_of_that_name_is_no_library_and_nobody_waits_for_it() {
        let directory = tempfile::tempdir().unwrap();
        let pipe = directory.path().join("libssl.so.3");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        assert!(read("/", &[directory.path().into()]).is_empty());
    }

    #[test]
    fn folders_of_a_mount_namespace_are_read_once_a_minute() {
        let directory = tempfile::tempdir().unwrap();
        let mut folders = Folders::new(vec![directory.path().into()]);
        let (me, now) = (std::process::id(), Instant::now());
        assert!(folders.look(me, now).0.is_empty());
        fs::write(directory.path().join("libssl.so.3"), "new").unwrap();
        assert!(folders.look(me, now).0.is_empty());
        assert_eq!(folders.look(me, now + AGAIN).0.len(), 1);
        let (opened, all) = folders.look(me, now + AGAIN);
        assert_eq!((opened.len(), all.len()), (0, 1));
        assert!(Folders::default().look(me, now).1.is_empty());
    }
}
