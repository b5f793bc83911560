//! Everything of Farcall that has I/O and threads. Each adapter holds one handle, [`Farcall`]: it owns the
//! engine, reads the clock for it, and writes what was counted to the ledger once a second.
//!
//! Nothing in here ever fails or delays the host: what cannot be done is counted, said once on stderr and
//! shown by `farcall doctor`.
//!
//! ```
//! use farcall::{Head, Step};
//! use farcall_agent::{Farcall, Options};
//!
//! # let home = std::env::temp_dir().join(format!("farcall-doc-{}", std::process::id()));
//! let farcall = Farcall::start(Options { home: Some(home.clone()), ..Options::default() });
//! farcall.adapter_installed("example");
//!
//! let head = Head::new("GET", "https://api.stripe.com/v1/balance").customer(Some("acme"));
//! let mut call = farcall.guard(farcall.begin(&head));
//! if let Step::Send(_) = call.step() {
//!     // Here the adapter performs the exchange.
//!     call.head(200);
//! }
//! call.body(512);
//! call.end();
//!
//! farcall.shutdown();
//! let query = farcall_agent::report::Query::at(&home);
//! assert_eq!(farcall_agent::report::vendors(&query)?.rows[0].label, "Stripe");
//! # std::fs::remove_dir_all(&home).ok();
//! # Ok::<(), farcall_agent::report::ReportError>(())
//! ```

#[cfg(feature = "outbox")]
pub mod alarm;
mod cache;
mod caller;
pub mod canary;
mod clock;
#[cfg(feature = "outbox")]
mod export;
mod handle;
mod home;
mod hub;
mod kept;
mod options;
#[cfg(feature = "outbox")]
pub mod outbox;
#[cfg(feature = "outbox")]
mod post;
#[cfg(all(test, feature = "redis"))]
mod redis_server;
pub mod report;
mod say;
mod share;
mod store;
mod tally;
mod thread;
#[cfg(feature = "outbox")]
mod turn;
mod wal;

pub use cache::purge_cache;
pub use caller::{container_of, pid_namespace_of};
pub use handle::{CallGuard, Farcall, Flush, How, Note, Scope, Told};
pub use options::{Options, Role};
pub use store::{Confirmation, ConnectionRollup, ExplainedBy, Verdict};
#[doc(hidden)]
pub use thread::spawn as spawn_thread;

/// The home directory of the ledger, as [`Options::home`] would find it: the first of `given`,
/// `$FARCALL_HOME`, `$XDG_STATE_HOME/farcall`, `~/.local/state/farcall`. `None` where none of them is known.
#[must_use]
pub fn home(given: Option<&std::path::Path>) -> Option<std::path::PathBuf> {
    home::find(given)
}

/// The configuration file that [`Farcall::start`] would read, where there is one: the first of `given`,
/// `$FARCALL_CONFIG`, `./farcall.toml`, `$FARCALL_HOME/farcall.toml`.
#[must_use]
pub fn config_file(
    given: Option<&std::path::Path>,
    home: Option<&std::path::Path>,
) -> Option<std::path::PathBuf> {
    home::find_config(given, home)
}

/// The memory through which the processes of this home directory share their quotas, for an embedder that has an
/// [`Engine`](farcall::Engine) of its own; [`Farcall`] has it already.
///
/// # Errors
/// Where it cannot be mapped: no room on the disk, nothing may be written there.
pub fn quota_home(home: &std::path::Path) -> std::io::Result<std::sync::Arc<dyn farcall::QuotaHome>> {
    share::Share::of(home).map(|share| std::sync::Arc::new(share) as _)
}
