//! How a handle is started.

use std::path::PathBuf;
use std::time::Duration;

/// How a [`Farcall`](crate::Farcall) is started. [`Options::default`] reads the environment
/// (`FARCALL_DISABLED`, the rest when it starts); set what differs:
///
/// ```
/// use farcall_agent::Options;
/// let options = Options { service: Some("checkout".into()), ..Options::default() };
/// assert!(options.enabled);
/// ```
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the ledger lives. `None`: `$FARCALL_HOME`, else `$XDG_STATE_HOME/farcall`, else
    /// `~/.local/state/farcall`.
    pub home: Option<PathBuf>,
    /// The configuration file. `None`: `$FARCALL_CONFIG`, else `./farcall.toml`, else `farcall.toml` in the
    /// home directory; none of the latter two need exist.
    pub config: Option<PathBuf>,
    /// The service's name. `None`: `service` of the configuration file, else `$OTEL_SERVICE_NAME`, else
    /// [`service_hint`](Options::service_hint), else the executable's name.
    pub service: Option<String>,
    /// What the binding would call the service where nobody named it: the script's base name in Python and Node.
    pub service_hint: Option<String>,
    /// Whether anything is counted at all. False where `$FARCALL_DISABLED` is `1`, `true` or `yes`.
    pub enabled: bool,
    /// How often the counts are written. `None` starts no thread: the embedder calls
    /// [`flush`](crate::Farcall::flush) itself, about once a second.
    pub flush_every: Option<Duration>,
    /// Whether to look for a sidecar (`sidecar.sock` in the home directory) and tell it of the calls.
    pub hub: bool,
    /// Whether to flush on SIGTERM and then die by it as before. Takes effect only where the signal's
    /// disposition is the default one at the start, or when [`handle_sigterm`](crate::Farcall::handle_sigterm) is called. Off by default: leave it off in a program that installs a
    /// handler *later* through `signal-hook` or tokio (both handlers would run, and ours ends the process);
    /// a handler that replaces ours, as those of Python and Node do, is safe.
    pub handle_sigterm: bool,
    /// What kind of process this is.
    pub role: Role,
}

/// What kind of process holds the handle; `farcall doctor` tells them apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Role {
    /// A program that makes calls.
    #[default]
    Program,
    /// The sidecar, which watches others.
    Sidecar,
}

impl Role {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Program => "program",
            Self::Sidecar => "sidecar",
        }
    }
}

impl Default for Options {
    fn default() -> Self {
        let disabled = std::env::var("FARCALL_DISABLED").unwrap_or_default();
        Self {
            home: None,
            config: None,
            service: None,
            service_hint: None,
            enabled: !matches!(disabled.trim().to_ascii_lowercase().as_str(), "1" | "true" | "yes"),
            flush_every: Some(Duration::from_secs(1)),
            hub: true,
            handle_sigterm: false,
            role: Role::Program,
        }
    }
}
