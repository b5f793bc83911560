//! The installation's key: credentials have the same fingerprint in all processes of one home directory, and
//! another one elsewhere.

use crate::home::{give_to_owner, lock};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

/// The key's file in the home directory: 16 random bytes.
const KEY: &str = "key";

/// Reads the key, and makes it where there is none.
///
/// # Errors
/// Where the file can be neither read nor made.
pub(super) fn of_installation(home: &Path) -> io::Result<[u8; 16]> {
    kept(home, KEY)
}

/// Reads a key of `N` random bytes in the home directory, and makes it where there is none.
///
/// # Errors
/// Where the file can be neither read nor made.
pub(crate) fn kept<const N: usize>(home: &Path, name: &str) -> io::Result<[u8; N]> {
    let file = home.join(name);
    if let Some(key) = read(&file)? {
        return Ok(key);
    }
    DirBuilder::new().recursive(true).mode(0o700).create(home)?;
    // One process at a time; whoever comes second finds the first one's.
    let _lock = lock(home)?;
    if let Some(key) = read(&file)? {
        return Ok(key);
    }
    let key = random()?;
    // Under another name first: a process that dies here leaves no half of a key.
    let new = home.join(format!("{name}.new"));
    let _ = fs::remove_file(&new);
    let mut half = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    half.write_all(&key)?;
    half.sync_all()?;
    give_to_owner(home, &new);
    fs::rename(&new, &file)?;
    Ok(key)
}

/// A key of this process alone.
pub(super) fn of_process() -> Option<[u8; 16]> {
    random().ok()
}

/// `None` where there is no file, or one of another length, which cannot be a key.
fn read<const N: usize>(file: &Path) -> io::Result<Option<[u8; N]>> {
    match fs::read(file) {
        Ok(bytes) => Ok(bytes.try_into().ok()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut key = [0; N];
    File::open("/dev/urandom")?.read_exact(&mut key)?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn all_who_come_at_once_get_the_same_key_and_nobody_else_may_read_it() {
        let home = tempfile::tempdir().unwrap();
        let home = home.path().join("made");
        let keys: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..16).map(|_| scope.spawn(|| of_installation(&home).unwrap())).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(keys.iter().all(|key| *key == keys[0]) && keys[0] != [0; 16]);
        assert_eq!(fs::metadata(home.join(KEY)).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(of_installation(&home).unwrap(), keys[0]);
    }

    #[test]
    fn what_is_no_key_is_replaced_and_what_cannot_be_read_is_not() {
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join(KEY), "half").unwrap();
        let key = of_installation(home.path()).unwrap();
        assert_eq!(fs::read(home.path().join(KEY)).unwrap(), key);
        fs::remove_file(home.path().join(KEY)).unwrap();
        fs::create_dir(home.path().join(KEY)).unwrap();
        assert!(of_installation(home.path()).is_err());
        assert!(of_process().is_some());
    }
}
