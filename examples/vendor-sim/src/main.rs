//! `vendor-sim`: the simulator as a program.

use std::error::Error;
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use vendor_sim::{BadCertificate, Options, Sim};

const EXAMPLES: &str = "\
Ask it, under any vendor's name:
  curl --cacert DIR/ca.pem --connect-to ::127.0.0.1:PORT https://api.openai.com/v1/models

Behaviours that need no script, on every host:
  /scenario/ok  /scenario/redirect/3  /scenario/404  /scenario/500  /scenario/429/github
  /scenario/slow?ms=500  /scenario/sse?events=10&every_ms=50  /scenario/bytes/1000000
  /scenario/chunked?bytes=10000&chunks=10  /scenario/gzip  /scenario/echo  /scenario/endless
  /scenario/reset  /scenario/reset-mid-body  /scenario/truncate  /scenario/hang  /scenario/garbage

Script it: the next three calls to Stripe are refused, each after 200 ms:
  curl http://127.0.0.1:PORT/_sim/script -d '{\"match\": {\"host\": \"api.stripe.com\"},
    \"count\": 3, \"effect\": {\"dialect\": \"stripe\", \"latency_ms\": 200}}'

See what arrived:
  curl http://127.0.0.1:PORT/_sim/counts
  curl http://127.0.0.1:PORT/_sim/requests?host=api.stripe.com

README.md beside the sources has the whole script format; GET /_sim/ lists the commands.";

/// Plays several vendors' APIs by host name, over TLS and plain HTTP, and does what a script says.
///
/// Any host name gets a certificate of a throw-away authority, whose certificate is DIR/ca.pem. When it
/// is ready it prints one line of JSON: {"ready":true,"tls":"127.0.0.1:443","plain":"127.0.0.1:80",
/// "ca":"DIR/ca.pem","pid":1}. SIGTERM and SIGINT end it.
#[derive(Debug, Parser)]
#[command(version, after_help = EXAMPLES)]
struct Cli {
    /// Where to offer TLS 1.2 and 1.3 (HTTP/1.1, and HTTP/2 where the vendor has it); port 0 takes a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Where to offer plain HTTP/1.1 and HTTP/2 with prior knowledge; port 0 takes a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    plain: SocketAddr,
    /// Where to write ca.pem; made if missing
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
    /// Write the line that says "ready" to this file as well, all at once
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
    /// Worker threads
    #[arg(long, value_name = "N", default_value_t = 1)]
    threads: usize,
    /// Requests to keep for /_sim/requests; 0 keeps none and is quickest
    #[arg(long, value_name = "N", default_value_t = 4_096)]
    keep: usize,
    /// A host (or *.suffix) that offers no HTTP/2; may be repeated
    #[arg(long, value_name = "HOST")]
    http1_only: Vec<String>,
    /// A host whose certificate is wrong: HOST=wrong-name, HOST=unknown-ca or HOST=expired; may be
    /// repeated. bad-cert.*, unknown-ca.* and expired.* are wrong by themselves
    #[arg(long, value_name = "HOST=HOW", value_parser = bad_certificate)]
    bad_cert: Vec<(String, BadCertificate)>,
}

fn bad_certificate(text: &str) -> Result<(String, BadCertificate), String> {
    let (host, how) = text.split_once('=').ok_or("write HOST=wrong-name, HOST=unknown-ca or HOST=expired")?;
    Ok((host.to_ascii_lowercase(), how.parse()?))
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("vendor-sim: {e}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // Handlers first: a signal that comes while starting must not kill without a trace.
    let inside = runtime.enter();
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    drop(inside);
    let sim = Sim::start(Options {
        listen: cli.listen,
        plain: cli.plain,
        dir: Some(cli.dir),
        threads: cli.threads,
        keep: cli.keep,
        http1_only: cli.http1_only,
        bad_certificates: cli.bad_cert,
        ..Options::default()
    })?;
    let ready = serde_json::json!({
        "ready": true,
        "tls": sim.tls_addr().to_string(),
        "plain": sim.plain_addr().to_string(),
        "ca": sim.ca_path(),
        "pid": std::process::id(),
    });
    if let Some(file) = &cli.ready_file {
        // A reader that waits for the file must never see half of it.
        let half = file.with_extension("part");
        std::fs::write(&half, format!("{ready}\n"))?;
        std::fs::rename(&half, file)?;
    }
    // Whoever started us may have closed the pipe; the ready file still tells.
    let _ = writeln!(std::io::stdout(), "{ready}").and_then(|()| std::io::stdout().flush());
    runtime.block_on(async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    });
    drop(sim);
    Ok(())
}
