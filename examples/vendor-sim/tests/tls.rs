//! Certificates, protocol choice, and the program around the library.
#![allow(clippy::unwrap_used)]

mod common;

use std::io::{BufRead, BufReader, ErrorKind};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use common::{Client, Way, handshake, sim};
use tokio_rustls::rustls::version::{TLS12, TLS13};
use vendor_sim::{BadCertificate, Options, Sim};

const BOTH: &[&[u8]] = &[b"h2", b"http/1.1"];

#[tokio::test]
async fn any_name_gets_a_certificate_that_webpki_accepts() {
    let sim = sim();
    let long = format!("{}.{}.test", "a".repeat(63), "b".repeat(63));
    for host in ["api.openai.com", "nobody-heard-of.example", "localhost", "127.0.0.1", long.as_str()] {
        for version in [&TLS12, &TLS13] {
            let tls = handshake(&sim, host, BOTH, version).await.unwrap();
            assert_eq!(tls.get_ref().1.protocol_version(), Some(version.version), "{host}");
            assert_eq!(tls.get_ref().1.alpn_protocol(), Some(&b"h2"[..]), "{host}");
        }
    }
    assert_eq!(sim.counts().tls_failures, 0);
}

#[tokio::test]
async fn vendors_without_http2_do_not_offer_it() {
    let sim = Sim::start(Options { http1_only: vec!["*.old.test".into()], ..Options::default() }).unwrap();
    for host in ["api.twilio.com", "acme.my.salesforce.com", "a.old.test"] {
        let tls = handshake(&sim, host, BOTH, &TLS13).await.unwrap();
        assert_eq!(tls.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]), "{host}");
    }
}

#[tokio::test]
async fn bad_certificates_are_refused_each_for_its_own_reason() {
    let bad = vec![("api.stripe.com".to_owned(), BadCertificate::Expired)];
    let sim = Sim::start(Options { bad_certificates: bad, ..Options::default() }).unwrap();
    for (host, reason) in [
        ("bad-cert.test", "not valid for name"),
        ("unknown-ca.test", "BadSignature"),
        ("expired.test", "expired"),
        ("api.stripe.com", "expired"),
    ] {
        let refused = handshake(&sim, host, BOTH, &TLS13).await.unwrap_err().to_string();
        assert!(refused.contains(reason), "{host}: {refused}");
    }
    common::until("four failures counted", || sim.counts().tls_failures == 4).await;
    assert_eq!(sim.counts().requests, 0);
}

#[tokio::test]
async fn a_handshake_can_be_reset_or_left_hanging_by_name() {
    let sim = sim();
    let reset = handshake(&sim, "reset-handshake.test", BOTH, &TLS13).await.unwrap_err();
    assert_eq!(reset.kind(), ErrorKind::ConnectionReset);
    let sim = Arc::new(sim);
    let shared = Arc::clone(&sim);
    let hanging =
        tokio::spawn(async move { handshake(&shared, "hang-handshake.test", BOTH, &TLS13).await.map(drop) });
    common::until("connected", || sim.counts().connections == 2).await;
    // Time enough for an answer, of which there is none.
    tokio::time::sleep(Duration::from_millis(80)).await;
    assert!(!hanging.is_finished());
    hanging.abort();
    common::until("both counted as failed", || sim.counts().tls_failures == 2).await;
}

#[test]
fn openssl_accepts_the_chain_in_strict_mode() {
    let sim = sim();
    let dir = tempfile::tempdir().unwrap();
    let ca = dir.path().join("ca.pem");
    std::fs::write(&ca, sim.ca_pem()).unwrap();
    let openssl = Command::new("openssl")
        .args(["s_client", "-connect", &sim.tls_addr().to_string(), "-servername", "api.github.com"])
        .args(["-verify_hostname", "api.github.com", "-verify_return_error", "-x509_strict", "-CAfile"])
        .arg(&ca)
        .stdin(Stdio::null())
        .output();
    let Ok(output) = openssl else {
        println!("skipped: no openssl program here");
        return;
    };
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("Verify return code: 0 (ok)"), "{said}{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn curl_reaches_vendors_over_both_protocols() {
    let sim = sim();
    let dir = tempfile::tempdir().unwrap();
    let ca = dir.path().join("ca.pem");
    std::fs::write(&ca, sim.ca_pem()).unwrap();
    for (flag, version) in [("--http1.1", "1.1"), ("--http2", "2")] {
        let curl = Command::new("curl")
            .args(["-sS", "--max-time", "60", flag, "-o", "/dev/null", "-w", "%{http_version} %{http_code}"])
            .args(["--connect-to", &format!("::{}", sim.tls_addr()), "--cacert"])
            .arg(&ca)
            .arg("https://api.openai.com/v1/models")
            .output();
        let Ok(output) = curl else {
            println!("skipped: no curl program here");
            return;
        };
        let said = String::from_utf8_lossy(&output.stdout);
        assert_eq!(said, format!("{version} 200"), "{}", String::from_utf8_lossy(&output.stderr));
    }
    assert_eq!(sim.counts().requests_for("api.openai.com", "/v1/models"), 2);
}

#[tokio::test]
async fn a_stopped_simulator_frees_its_ports() {
    // Where nobody else listens, who could get the same ports meanwhile.
    let here = SocketAddr::from(([127, 0, 0, 77], 0));
    let sim = Sim::start(Options { listen: here, plain: here, ..Options::default() }).unwrap();
    let (tls, plain) = (sim.tls_addr(), sim.plain_addr());
    let mut client = Client::connect(&sim, "a.test", Way::Plain1).await;
    client.get("/scenario/ok").await;
    drop(sim);
    for addr in [tls, plain] {
        let again = || std::net::TcpStream::connect(addr).is_err();
        common::until("the port is closed", again).await;
    }
}

#[test]
fn the_program_says_when_it_is_ready_and_ends_at_sigterm() {
    let dir = tempfile::tempdir().unwrap();
    let ready_file = dir.path().join("ready.json");
    let mut child = Command::new(env!("CARGO_BIN_EXE_vendor-sim"))
        .args(["--listen", "127.0.0.1:0", "--plain", "127.0.0.1:0", "--bad-cert", "a.test=expired", "--dir"])
        .arg(dir.path())
        .arg("--ready-file")
        .arg(&ready_file)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(std::fs::read_to_string(&ready_file).unwrap(), line);
    let ready: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(ready["pid"], child.id());
    for listener in ["tls", "plain"] {
        let addr: SocketAddr = ready[listener].as_str().unwrap().parse().unwrap();
        std::net::TcpStream::connect(addr).unwrap();
    }
    let ca = std::fs::read_to_string(Path::new(ready["ca"].as_str().unwrap())).unwrap();
    assert!(ca.starts_with("-----BEGIN CERTIFICATE-----"));
    assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
    assert!(child.wait().unwrap().success());
}

#[test]
fn an_address_in_use_is_said_in_words() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap();
    let e = Sim::start(Options { listen, ..Options::default() }).unwrap_err().to_string();
    assert!(e.contains(&listen.to_string()), "{e}");
}
