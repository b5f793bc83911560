//! What to watch so that no way of replacing a file goes unnoticed: writing into it, renaming another one over it
//! (editors), and swapping a symbolic link anywhere on the way to it (the volumes of Kubernetes, releases).

use crate::kept::Kept;
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io;
use std::collections::BTreeSet;
use std::fs;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

/// Links that are followed, as Linux does.
const MAX_LINKS: usize = 40;

#[derive(Debug)]
pub(super) struct Watches {
    fd: Kept<OwnedFd>,
}

impl Watches {
    pub(super) fn on(candidates: &[PathBuf]) -> io::Result<Self> {
        // Kept at once: while the places are looked for, the number may become the program's.
        let fd = Kept::new(inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?);
        let add = |place: &Path, flags| {
            inotify::add_watch(fd.get().ok_or(io::Errno::BADF)?, place, flags).map(drop)
        };
        let mut any = Err(io::Errno::NOENT);
        for candidate in candidates {
            for directory in directories(candidate) {
                // Not what is written within it: the ledger may be there.
                let flags = WatchFlags::CREATE
                    | WatchFlags::MOVED_TO
                    | WatchFlags::MOVED_FROM
                    | WatchFlags::DELETE
                    | WatchFlags::ONLYDIR;
                any = any.or(add(&directory, flags));
            }
            let flags = WatchFlags::MODIFY
                | WatchFlags::CLOSE_WRITE
                | WatchFlags::ATTRIB
                | WatchFlags::MOVE_SELF
                | WatchFlags::DELETE_SELF;
            let _ = add(candidate, flags);
        }
        any.map(|()| Self { fd })
    }

    /// Takes all that is told; whether the file was written to and not closed since.
    pub(super) fn take_events(&self) -> bool {
        let mut buffer = [MaybeUninit::uninit(); 4_096];
        let mut open = false;
        let Some(fd) = self.fd.get() else { return false };
        let mut reader = Reader::new(fd, &mut buffer);
        while let Ok(event) = reader.next() {
            if event.events().contains(ReadFlags::MODIFY) {
                open = true;
            }
            if event.events().intersects(ReadFlags::CLOSE_WRITE | ReadFlags::MOVED_TO) {
                open = false;
            }
        }
        open
    }
}

impl Watches {
    /// Where it tells of changes; `None` where somebody closed it.
    pub(super) fn source(&self) -> Option<BorrowedFd<'_>> {
        self.fd.get().map(AsFd::as_fd)
    }
}

/// The directories in which something must change for the path to lead to another file.
fn directories(file: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut path = file.to_owned();
    'links: for _ in 0..MAX_LINKS {
        let mut sofar = PathBuf::new();
        let mut components = path.components();
        while let Some(component) = components.next() {
            let parent = sofar.clone();
            match component {
                Component::ParentDir => drop(sofar.pop()),
                component => sofar.push(component),
            }
            if let Ok(target) = fs::read_link(&sofar) {
                path = parent.join(target).join(components.as_path());
                found.insert(parent);
                continue 'links;
            }
            if !sofar.exists() {
                // Whatever of it there is: somebody may make the rest.
                found.insert(parent);
                return found;
            }
        }
        break;
    }
    found.extend(path.parent().map(Path::to_owned));
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn every_link_on_the_way_is_watched_where_it_lies() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        fs::create_dir_all(root.join("etc/..v1")).unwrap();
        fs::write(root.join("etc/..v1/farcall.toml"), "").unwrap();
        symlink("..v1", root.join("etc/..data")).unwrap();
        symlink("..data/farcall.toml", root.join("etc/farcall.toml")).unwrap();
        symlink("etc", root.join("current")).unwrap();
        let found = directories(&root.join("current/farcall.toml"));
        let expected = [root.clone(), root.join("etc"), root.join("etc/..v1")];
        assert_eq!(found, BTreeSet::from(expected));
    }

    #[test]
    fn of_a_path_that_is_not_there_what_there_is_is_watched() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        assert_eq!(directories(&root.join("a/b/farcall.toml")), BTreeSet::from([root]));
    }
}
