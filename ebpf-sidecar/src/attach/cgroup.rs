//! Where the cgroup hierarchy of version 2 is, and which cgroup is meant.

use std::{
    fs::{self, File},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::AttachError;

/// The mount point of the version 2 hierarchy. On hybrid systems it is not `/sys/fs/cgroup`.
///
/// # Errors
/// When none is mounted or the mount table cannot be read.
pub fn mount_point() -> Result<PathBuf, AttachError> {
    let path = PathBuf::from("/proc/self/mountinfo");
    let table = fs::read_to_string(&path).map_err(|source| AttachError::Read { path, source })?;
    find_mount(&table).ok_or(AttachError::NoCgroup2)
}

/// The first cgroup2 mount of a mount table in the format of `/proc/self/mountinfo` (proc(5)) that shows the root of
/// the hierarchy, else the first one at all.
fn find_mount(table: &str) -> Option<PathBuf> {
    let mounts: Vec<(&str, &str)> = table
        .lines()
        .filter_map(|line| {
            let (mount, source) = line.split_once(" - ")?;
            let mut fields = mount.split(' ').skip(3);
            let (root, point) = (fields.next()?, fields.next()?);
            source.starts_with("cgroup2 ").then_some((root, point))
        })
        .collect();
    let whole = mounts.iter().find(|(root, _)| *root == "/").or(mounts.first())?;
    Some(PathBuf::from(unescape(whole.1)))
}

/// Undoes the octal escapes of blanks in mount tables.
fn unescape(path: &str) -> String {
    path.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

/// A cgroup, held open so that it stays the same one.
#[derive(Debug)]
pub struct Cgroup {
    /// Its directory.
    pub path: PathBuf,
    /// Its identifier in the kernel.
    pub id: u64,
    pub(crate) directory: File,
    pub(crate) mount: PathBuf,
}

impl Cgroup {
    /// Opens a cgroup by its directory, or by its path below the hierarchy (`/system.slice/app.service`).
    ///
    /// # Errors
    /// When there is no such cgroup in the version 2 hierarchy.
    pub fn open(path: &Path) -> Result<Self, AttachError> {
        let mount = mount_point()?;
        let below = mount.join(path.strip_prefix("/").unwrap_or(path));
        let candidates = [path.to_path_buf(), below];
        for candidate in candidates {
            let candidate = fs::canonicalize(&candidate).unwrap_or(candidate);
            if candidate.starts_with(&mount)
                && candidate.join("cgroup.procs").exists()
                && let Ok(directory) = File::open(&candidate)
                && let Ok(metadata) = directory.metadata()
            {
                return Ok(Self { path: candidate, id: metadata.ino(), directory, mount });
            }
        }
        Err(AttachError::NotACgroup { path: path.to_path_buf(), mount })
    }

    /// The cgroup that is at its path now, where that is another one: a service manager removes a unit's cgroup when the unit
    /// stops, and makes one anew when it starts.
    pub(crate) fn successor(&self) -> Option<Self> {
        let is_another = fs::metadata(&self.path).is_ok_and(|metadata| metadata.ino() != self.id);
        is_another.then(|| Self::open(&self.path).ok())?
    }

    /// Whether it is still the one at its path.
    pub(crate) fn is_there(&self) -> bool {
        fs::metadata(&self.path).is_ok_and(|metadata| metadata.ino() == self.id)
    }

    /// The processes in it and below it, as far as they can be read.
    #[must_use]
    pub fn processes(&self) -> Vec<u32> {
        let mut found = Vec::new();
        let mut directories = vec![self.path.clone()];
        while let Some(directory) = directories.pop() {
            if let Ok(text) = fs::read_to_string(directory.join("cgroup.procs")) {
                found.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()));
            }
            if let Ok(entries) = fs::read_dir(&directory) {
                directories.extend(
                    entries
                        .flatten()
                        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
                        .map(|entry| entry.path()),
                );
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hierarchy_is_found_on_hybrid_systems() {
        let table = "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n\
                     35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                     37 31 0:38 /docker/1 /mnt/part rw - cgroup2 cgroup2 rw\n\
                     38 31 0:38 / /sys/fs/cgroup/uni\\040fied rw shared:9 - cgroup2 cgroup2 rw\n";
        assert_eq!(find_mount(table), Some(PathBuf::from("/sys/fs/cgroup/uni fied")));
        assert_eq!(find_mount("22 27 0:21 / /proc rw - proc proc rw\n"), None);
    }

    #[test]
    fn a_directory_outside_the_hierarchy_is_refused() {
        assert!(Cgroup::open(Path::new("/proc")).is_err());
    }
}
