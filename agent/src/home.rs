//! Where things are on disk.

use std::env;
use std::path::{Path, PathBuf};

/// The ledger's file in the home directory.
pub(crate) const LEDGER: &str = "ledger.db";
/// Where the sidecar listens, in the home directory.
pub(crate) const SOCKET: &str = "sidecar.sock";
const CONFIG: &str = "farcall.toml";

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
    if let Some(given) = given {
        return Some(given.to_owned());
    }
    if let Some(named) = env::var_os("FARCALL_CONFIG").filter(|value| !value.is_empty()) {
        return Some(named.into());
    }
    let here = PathBuf::from(CONFIG);
    if here.is_file() {
        return Some(here);
    }
    home.map(|home| home.join(CONFIG)).filter(|file| file.is_file())
}
