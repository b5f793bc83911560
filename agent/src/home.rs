//! Where things are on disk.

use farcall::config::text_of;
use std::env;
use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The ledger's file in the home directory.
pub(crate) const LEDGER: &str = "ledger.db";
/// Where the sidecar listens, in the home directory.
pub(crate) const SOCKET: &str = "sidecar.sock";
/// The configuration file, in the working directory or the home directory.
pub(crate) const CONFIG: &str = "farcall.toml";

pub(crate) fn find(given: Option<&Path>) -> Option<PathBuf> {
    if let Some(given) = given {
        return Some(given.to_owned());
    }
    // An empty variable counts as absent, and a relative XDG path is invalid (XDG Base Directory
    // Specification).
    let path = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(home) = path("FARCALL_HOME") {
        return Some(home);
    }
    if let Some(state) = path("XDG_STATE_HOME").filter(|state| state.is_absolute()) {
        return Some(state.join("farcall"));
    }
    let user = path("HOME").or_else(crate::caller::home_of_user).filter(|home| home.is_absolute())?;
    Some(user.join(".local/state/farcall"))
}

pub(crate) fn find_config(given: Option<&Path>, home: Option<&Path>) -> Option<PathBuf> {
    let mut candidates = config_candidates(given, home);
    match is_named(given) {
        true => candidates.pop(),
        false => candidates.into_iter().find(|file| file.is_file()),
    }
}

/// Where the configuration may be, the first choice first.
pub(crate) fn config_candidates(given: Option<&Path>, home: Option<&Path>) -> Vec<PathBuf> {
    if let Some(given) = given {
        return vec![given.to_owned()];
    }
    if let Some(named) = env::var_os("FARCALL_CONFIG").filter(|value| !value.is_empty()) {
        return vec![named.into()];
    }
    let home = home.map(|home| home.join(CONFIG));
    [PathBuf::from(CONFIG)].into_iter().chain(home).collect()
}

/// The text of a configuration file; the error is a sentence without its full stop.
pub(crate) fn config_text(file: &Path) -> Result<String, String> {
    let name = file.display().to_string();
    let bytes = fs::read(file).map_err(|error| format!("cannot read {name}: {error}"))?;
    text_of(&name, bytes).map_err(|error| error.to_string())
}

/// Whether somebody said where the configuration is.
fn is_named(given: Option<&Path>) -> bool {
    given.is_some() || env::var_os("FARCALL_CONFIG").is_some_and(|value| !value.is_empty())
}

/// A sidecar that runs as root must not lock the directory's owner out of his own files.
pub(crate) fn give_to_owner(home: &Path, file: &Path) {
    if rustix::process::geteuid().is_root()
        && let Ok(owner) = fs::metadata(home)
        && owner.uid() != 0
    {
        let _ = chown(file, Some(owner.uid()), Some(owner.gid()));
    }
}

/// Whoever makes something in the home directory that others must not make at the same time waits so long: as long as a
/// process that is starved may take for it.
const LOCK: Duration = Duration::from_secs(5);

/// Locks a home directory until the file is dropped. A process that was stopped with the lock must not keep others
/// from starting: after some seconds it is an error.
pub(crate) fn lock(home: &Path) -> io::Result<File> {
    let directory = File::open(home)?;
    lock_file(&directory)?;
    Ok(directory)
}

/// Takes the lock of a file. Whoever has it may be stopped: an error after a while.
pub(crate) fn lock_file(file: &File) -> io::Result<()> {
    let begun = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) if begun.elapsed() < LOCK => {
                std::thread::sleep(Duration::from_millis(2));
            }
            Err(error) => return Err(error.into()),
        }
    }
}
