//! A server that plays the vendors whose APIs services call, by host name, over TLS and plain text.
//!
//! Tests, benchmarks and the demo send real clients here under the vendors' real names: any name gets a
//! certificate of a throw-away authority. What happens to a request can be scripted over HTTP, and what
//! arrived can be asked for. [`Sim::start`] runs it inside a test; the binary `vendor-sim` runs it alone.
//!
//! ```
//! use serde_json::json;
//! use vendor_sim::{Options, Sim};
//!
//! let sim = Sim::start(Options::default())?;
//! sim.script(json!({"match": {"host": "api.stripe.com"}, "count": 1, "effect": {"dialect": "stripe"}}))?;
//! println!("https://{} trusts {}", sim.tls_addr(), sim.ca_pem().len());
//! assert_eq!(sim.counts().requests, 0);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod answer;
mod authority;
mod body;
mod clock;
mod connection;
mod control;
mod counts;
mod raw;
mod requests;
mod scenario;
mod script;
mod service;
mod vendors;
mod wire;

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener as StdListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::{DEFAULT_VERSIONS, ServerConfig};

use authority::Authority;
use connection::{TlsChoice, accept};
use service::World;

pub use authority::BadCertificate;
pub use counts::{CountRow, Counts, GroupRow};
pub use requests::Recorded;
pub use script::ScriptError;

/// How a simulator runs.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where TLS is offered; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where plain HTTP is offered; port 0 takes a free one.
    pub plain: SocketAddr,
    /// Where `ca.pem` is written; nowhere when `None`.
    pub dir: Option<PathBuf>,
    /// Worker threads, at least 1.
    pub threads: usize,
    /// Requests kept for [`Sim::requests`]; 0 keeps none and is quickest.
    pub keep: usize,
    /// Bytes kept of each request body.
    pub keep_body: usize,
    /// The longest request body accepted, in bytes; longer ones are answered 413.
    pub max_body: usize,
    /// More hosts (or `*.suffix`) that offer no HTTP/2, beside those whose vendor file says so.
    pub http1_only: Vec<String>,
    /// Hosts with a certificate that is wrong on purpose, beside `bad-cert.*` (wrong name),
    /// `unknown-ca.*` and `expired.*`.
    pub bad_certificates: Vec<(String, BadCertificate)>,
}

impl Default for Options {
    fn default() -> Self {
        let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Self {
            listen: any_port,
            plain: any_port,
            dir: None,
            threads: 1,
            keep: 4_096,
            keep_body: 4_096,
            max_body: 64 << 20,
            http1_only: Vec::new(),
            bad_certificates: Vec::new(),
        }
    }
}

/// A running simulator; dropping it stops it.
#[derive(Debug)]
pub struct Sim {
    world: Arc<World>,
    runtime: Option<Runtime>,
    tls_addr: SocketAddr,
    plain_addr: SocketAddr,
    ca_path: Option<PathBuf>,
}

impl Sim {
    /// Binds both listeners, makes a new authority and starts to serve on threads of its own. Works
    /// inside and outside an async runtime.
    ///
    /// # Errors
    /// An address cannot be bound, `dir` cannot be written, or no thread can be started.
    pub fn start(options: Options) -> io::Result<Self> {
        let authority = Arc::new(Authority::new(options.bad_certificates).map_err(io::Error::other)?);
        let tls = tls_choice(&authority).map_err(io::Error::other)?;
        let ca_pem = authority.pem();
        let ca_path = options.dir.as_deref().map(|dir| write_ca(dir, &ca_pem)).transpose()?;
        let (secure, plain) = (bind(options.listen)?, bind(options.plain)?);
        let (tls_addr, plain_addr) = (secure.local_addr()?, plain.local_addr()?);
        let world = Arc::new(World {
            vendors: vendors::Vendors::load(options.http1_only).map_err(io::Error::other)?,
            script: script::Script::default(),
            tallies: counts::Tallies::new(),
            recorder: requests::Recorder::new(options.keep, options.keep_body),
            connections: AtomicU64::new(0),
            max_body: options.max_body,
            ca_pem,
        });
        let runtime = Builder::new_multi_thread()
            .worker_threads(options.threads.max(1))
            .thread_name("vendor-sim")
            .enable_all()
            .build()?;
        let inside = runtime.enter();
        let (secure, plain) = (TcpListener::from_std(secure)?, TcpListener::from_std(plain)?);
        drop(inside);
        runtime.spawn(accept(secure, Arc::clone(&world), Some(Arc::new(tls))));
        runtime.spawn(accept(plain, Arc::clone(&world), None));
        Ok(Self { world, runtime: Some(runtime), tls_addr, plain_addr, ca_path })
    }

    /// Adds rules, in the format of `POST /_sim/script`: one rule, a list, or `{"rules": [...]}`.
    /// Returns their ids.
    ///
    /// # Errors
    /// A rule has an unknown key, an impossible value, or there are too many: none is added.
    pub fn script(&self, rules: Value) -> Result<Vec<u64>, ScriptError> {
        self.world.script.add(rules)
    }

    /// Removes all rules.
    pub fn clear_script(&self) {
        self.world.script.remove(None);
    }

    /// Where TLS is offered.
    pub fn tls_addr(&self) -> SocketAddr {
        self.tls_addr
    }

    /// Where plain HTTP/1.1 and HTTP/2 with prior knowledge are offered.
    pub fn plain_addr(&self) -> SocketAddr {
        self.plain_addr
    }

    /// The authority's certificate, as PEM.
    pub fn ca_pem(&self) -> &str {
        &self.world.ca_pem
    }

    /// Where `ca.pem` was written.
    pub fn ca_path(&self) -> Option<&Path> {
        self.ca_path.as_deref()
    }

    /// What was counted so far.
    pub fn counts(&self) -> Counts {
        self.world.tallies.snapshot()
    }

    /// The counts once no exchange is under way, or as they are after `within`. Blocks the thread.
    pub fn settled_counts(&self, within: Duration) -> Counts {
        let end = Instant::now() + within;
        loop {
            let counts = self.counts();
            if counts.open == 0 || Instant::now() >= end {
                return counts;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// The last requests, in the order in which their heads were parsed; of one host or of all.
    pub fn requests(&self, host: Option<&str>) -> Vec<Recorded> {
        self.world.recorder.last(host)
    }

    /// Forgets counts and recorded requests.
    pub fn clear_counts(&self) {
        self.world.tallies.clear();
        self.world.recorder.clear();
    }
}

impl Drop for Sim {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // A plain drop would block, which async callers must not.
            runtime.shutdown_background();
        }
    }
}

fn bind(addr: SocketAddr) -> io::Result<StdListener> {
    let say = |e: io::Error| io::Error::new(e.kind(), format!("cannot listen on {addr}: {e}"));
    let listener = StdListener::bind(addr).map_err(say)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn write_ca(dir: &Path, pem: &str) -> io::Result<PathBuf> {
    let path = dir.join("ca.pem");
    let say = |e: io::Error| io::Error::new(e.kind(), format!("cannot write {}: {e}", path.display()));
    std::fs::create_dir_all(dir).and_then(|()| std::fs::write(&path, pem)).map_err(say)?;
    path.canonicalize()
}

fn tls_choice(authority: &Arc<Authority>) -> Result<TlsChoice, tokio_rustls::rustls::Error> {
    let config = |alpn: &[&[u8]]| {
        let builder = ServerConfig::builder_with_provider(Arc::new(default_provider()));
        let mut config = builder
            .with_protocol_versions(DEFAULT_VERSIONS)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(authority) as _);
        config.alpn_protocols = alpn.iter().map(|p| p.to_vec()).collect();
        Ok::<_, tokio_rustls::rustls::Error>(Arc::new(config))
    };
    Ok(TlsChoice { http2: config(&[b"h2", b"http/1.1"])?, http1: config(&[b"http/1.1"])? })
}
