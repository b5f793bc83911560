//! Answers on a disk, a file each, that the processes of a host share.
//!
//! A file is complete before it gets its name, and what is read is only taken for an answer where its seal is whole, so
//! a process may die at any instruction; nobody waits for a lock. The files lie in parts, of each of which the processes
//! count the bytes together. Where there is no room, parts are gone through in turn and lose what was not read for
//! longest; one part is gone through each second in any case, so that what was miscounted or left behind is put right.

use super::leases::{Leases, PARTS};
use super::tier::Tier;
use crate::home::give_to_owner;
use farcall::cache::Key;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

/// Where it lies in the home directory; raised with the form of what lies there.
const FOLDER: &str = "cache/1";
const MAP: &str = "map";
/// A file takes whole blocks of the disk.
const BLOCK: u64 = 4_096;
/// When a file was last read is noted so exactly.
const READ: Duration = Duration::from_secs(60);
/// What nobody read for so long goes.
const UNREAD: Duration = Duration::from_secs(7 * 86_400);
/// What is still without its name after so long was left by a process that died.
const LEFT: Duration = Duration::from_secs(600);
/// No file takes more than this part of the whole.
const LARGEST: u64 = 4;

/// The files of a home directory.
#[derive(Debug)]
pub(super) struct Disk {
    home: PathBuf,
    folder: PathBuf,
    /// Bytes in all.
    most: u64,
    leases: Arc<Leases>,
    /// Tells files apart that this process is writing.
    written: AtomicU64,
}

impl Disk {
    /// Makes the folder where there is none. What lies there from before the machine's last start goes: what was
    /// changed since, nobody knows.
    pub(super) fn open(home: &Path, most: u64) -> io::Result<Self> {
        let folder = home.join(FOLDER);
        DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        give_to_owner(home, &home.join("cache"));
        give_to_owner(home, &folder);
        let leases = Leases::open(home, &folder.join(MAP), || clear(&folder))?;
        Ok(Self { home: home.to_owned(), folder, most, leases: Arc::new(leases), written: AtomicU64::new(0) })
    }

    /// Whether there is one in this home directory.
    pub(super) fn is_in(home: &Path) -> bool {
        home.join(FOLDER).join(MAP).exists()
    }

    pub(super) fn leases(&self) -> &Arc<Leases> {
        &self.leases
    }

    fn part_of(key: Key) -> usize {
        (key.number() >> 120) as usize % PARTS
    }

    fn part(&self, part: usize) -> PathBuf {
        self.folder.join(format!("{part:02x}"))
    }

    fn file(&self, key: Key) -> PathBuf {
        self.part(Self::part_of(key)).join(format!("{:032x}", key.number()))
    }

    /// Removes what is kept under a name; does nothing where somebody else did.
    fn take_away(&self, part: usize, file: &Path, size: u64) {
        if fs::remove_file(file).is_ok() {
            subtract(self.leases.size(part), size);
        }
    }

    /// Makes room for so many bytes more; whether there is.
    fn make_room(&self, bytes: u64) -> bool {
        if bytes > self.most / LARGEST {
            return false;
        }
        // Twice around: the first look at a part may find that others were there before.
        for _ in 0..2 * PARTS {
            if self.leases.total().saturating_add(bytes) <= self.most {
                return true;
            }
            let part = self.leases.next_part();
            let mut files = self.go_through(part);
            files.sort_by_key(|file| file.read);
            let enough = files.iter().map(|file| file.size).sum::<u64>() / 4;
            let mut freed = 0;
            for file in &files {
                if freed > enough {
                    break;
                }
                self.take_away(part, &file.path, file.size);
                freed += file.size;
            }
        }
        false
    }

    /// What lies in a part. Counts it anew, and removes what nobody will miss.
    fn go_through(&self, part: usize) -> Vec<Found> {
        let mut found = Vec::new();
        let now = SystemTime::now();
        for entry in fs::read_dir(self.part(part)).into_iter().flatten().flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            let (path, size) = (entry.path(), size_of_file(metadata.len()));
            let read = metadata.modified().unwrap_or(now);
            let age = now.duration_since(read).unwrap_or_default();
            let Some(key) = key_of(&path) else {
                if age > LEFT {
                    let _ = fs::remove_file(&path);
                }
                continue;
            };
            match age > UNREAD {
                true => drop(fs::remove_file(&path)),
                false => found.push(Found { path, key, size, read }),
            }
        }
        self.leases.size(part).store(found.iter().map(|file| file.size).sum(), Ordering::Relaxed);
        found
    }
}

struct Found {
    path: PathBuf,
    key: Key,
    size: u64,
    read: SystemTime,
}

impl Tier for Disk {
    fn read(&mut self, key: Key) -> io::Result<Option<Vec<u8>>> {
        let file = self.file(key);
        let bytes = match fs::read(&file) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        // What is read stays.
        if let Ok(open) = File::open(&file)
            && let Ok(read) = open.metadata().and_then(|metadata| metadata.modified())
            && read.elapsed().is_ok_and(|age| age > READ)
        {
            let _ = open.set_modified(SystemTime::now());
        }
        Ok(Some(bytes))
    }

    fn write(&mut self, key: Key, sealed: &[u8], _: Duration) -> io::Result<()> {
        let (part, size) = (Self::part_of(key), size_of_file(sealed.len() as u64));
        if !self.make_room(size) {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "there is no room for it"));
        }
        let (folder, file) = (self.part(part), self.file(key));
        let number = self.written.fetch_add(1, Ordering::Relaxed);
        let new = folder.join(format!("new-{}-{number}", std::process::id()));
        let create = || OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new);
        let mut half = match create() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
                give_to_owner(&self.home, &folder);
                create()?
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                // Of a process that died, which had the same number.
                fs::remove_file(&new)?;
                create()?
            }
            made => made?,
        };
        let before = fs::metadata(&file).map_or(0, |metadata| size_of_file(metadata.len()));
        let written = half.write_all(sealed).and_then(|()| {
            give_to_owner(&self.home, &new);
            fs::rename(&new, &file)
        });
        if written.is_err() {
            let _ = fs::remove_file(&new);
            return written;
        }
        self.leases.size(part).fetch_add(size, Ordering::Relaxed);
        subtract(self.leases.size(part), before);
        Ok(())
    }

    fn remove(&mut self, key: Key) -> io::Result<()> {
        let file = self.file(key);
        let size = fs::metadata(&file).map_or(0, |metadata| size_of_file(metadata.len()));
        self.take_away(Self::part_of(key), &file, size);
        Ok(())
    }

    fn walk(&mut self, wants: &mut dyn FnMut(Key, Vec<u8>) -> bool) -> io::Result<u64> {
        let mut removed = 0;
        for part in 0..PARTS {
            for file in self.go_through(part) {
                if let Ok(bytes) = fs::read(&file.path)
                    && wants(file.key, bytes)
                {
                    self.take_away(part, &file.path, file.size);
                    removed += 1;
                }
            }
        }
        Ok(removed)
    }

    fn tick(&mut self) {
        let part = self.leases.next_part();
        drop(self.go_through(part));
    }
}

/// Removes all answers.
fn clear(folder: &Path) -> io::Result<()> {
    for part in 0..PARTS {
        match fs::remove_dir_all(folder.join(format!("{part:02x}"))) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn key_of(path: &Path) -> Option<Key> {
    let name = path.file_name()?.to_str().filter(|name| name.len() == 32)?;
    u128::from_str_radix(name, 16).ok().map(Key::of)
}

/// What a file of this length takes.
const fn size_of_file(length: u64) -> u64 {
    length.div_ceil(BLOCK).saturating_mul(BLOCK)
}

fn subtract(from: &AtomicU64, size: u64) {
    let _ = from.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |all| Some(all.saturating_sub(size)));
}
