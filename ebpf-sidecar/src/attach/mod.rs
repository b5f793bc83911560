//! Loads the BPF programs, confines them to a cgroup and reads what they report.

mod adopt;
pub mod cgroup;
pub mod check;
mod discover;
mod folders;
mod load;
mod losses;
mod newcomers;
mod probe;
mod reconcile;
mod skeleton;
mod sockets;
mod table;

pub use folders::WELL_KNOWN;
pub use load::{Capture, Options, Unprobed};
pub use losses::Losses;

use std::{io, path::PathBuf};

/// Why nothing can be captured. Each text says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AttachError {
    /// No version 2 hierarchy is mounted.
    #[error(
        "no cgroup2 file system is mounted; mount one where it hides nothing: mkdir -p /run/cgroup2 && mount -t cgroup2 none /run/cgroup2"
    )]
    NoCgroup2,
    /// The path is no cgroup.
    #[error("{path} is not a cgroup of the version 2 hierarchy, which is mounted at {mount}", path = .path.display(), mount = .mount.display())]
    NotACgroup {
        /// What was asked for.
        path: PathBuf,
        /// Where the hierarchy is.
        mount: PathBuf,
    },
    /// Process identifiers here are not those of the host.
    #[error("pids of libraries and kernel would not meet, and calls would count twice: {}", check::HOST_PIDS)]
    PidNamespace,
    /// A system file could not be read.
    #[error("cannot read {path}: {source}", path = .path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// libbpf or the kernel refused.
    #[error("{what}: {source}; `farcall-sidecar check` says what this kernel offers")]
    Bpf {
        /// What was attempted.
        what: &'static str,
        /// Why not.
        source: libbpf_rs::Error,
    },
}

pub(crate) trait Attempting<T> {
    fn attempting(self, what: &'static str) -> Result<T, AttachError>;
}

impl<T> Attempting<T> for Result<T, libbpf_rs::Error> {
    fn attempting(self, what: &'static str) -> Result<T, AttachError> {
        self.map_err(|source| AttachError::Bpf { what, source })
    }
}
