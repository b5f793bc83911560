//! What the sidecar promises, against real programs and the running kernel.
//!
//! Each test makes its own cgroup and captures that alone. They need root, a cgroup of version 2 and the features that
//! `farcall-sidecar check` lists; elsewhere they print `SKIPPED (kernel)` with the reason.
#![allow(missing_docs, clippy::unwrap_used)]

#[allow(dead_code)]
mod stage;

use std::net::IpAddr;

use farcall_sidecar::{
    coverage::Completeness,
    identity::executable::Tls,
    tap::{Connection, NameSource},
    wire::{exchange::Outcome, record::Protocol},
};
use serde_json::json;
use stage::counted;
use vendor_sim::{Options, Sim};

fn sim() -> Sim {
    Sim::start(Options { threads: 2, ..Options::default() }).unwrap()
}

#[test]
fn calls_of_curl_inside_tls_are_seen_exactly_as_the_vendor_counted_them() {
    let stage = stage!();
    let sim = sim();
    let body = stage.file("body", &"x".repeat(300_000));
    let upload = format!("@{}", body.display());
    let seen = stage.capture(
        true,
        vec![
            // One process, one connection, three requests; then one of its own with a large body.
            stage.curl(
                &sim,
                &[
                    "https://api.github.com/repos/acme/shop/issues/42?secret=1",
                    "https://api.github.com/repos/acme/shop/pulls/7",
                    "https://api.github.com/nowhere",
                    "--output",
                    "/dev/null",
                    "--output",
                    "/dev/null",
                ],
            ),
            stage.curl(&sim, &["--data-binary", &upload, "https://upload.example.com/up?x=1"]),
            stage.curl(&sim, &["--head", "https://api.stripe.com/v1/charges"]),
        ],
    );
    assert_eq!(seen.tally(), counted(&sim));
    assert_eq!(seen.exchanges.len(), 5);
    assert!(seen.losses.none(), "{:?}", seen.losses);
    assert!(seen.exchanges.iter().all(|exchange| exchange.http.outcome == Outcome::Complete));
    assert!(seen.exchanges.iter().all(|exchange| exchange.tls && exchange.connection.is_some()));
    let closed = seen.closed();
    assert_eq!(closed.len(), 3);
    for connection in closed {
        assert_eq!(connection.verdict, Completeness::Complete);
        assert_eq!(connection.tls, Some(Tls::OpenSsl));
        assert_eq!(connection.process.executable, "/usr/bin/curl");
        assert_eq!(connection.process.service, "curl");
        assert_eq!(connection.name.as_ref().unwrap().1, NameSource::Sni);
        assert_eq!(connection.offered, ["http/1.1"]);
    }
}

#[test]
fn a_library_that_nobody_named_is_found_in_a_process_that_maps_it() {
    let stage = stage!();
    let sim = sim();
    // A service that has loaded OpenSSL and not used it yet; then others that use the same file.
    let service = stage.inside("python3", &["-c", "import ssl, sys; sys.stdin.readline()"]);
    let urls = ["https://api.github.com/user"];
    let seen = stage.capture_once_found(service, (0..3).map(|_| stage.curl(&sim, &urls)).collect());
    assert_eq!(seen.tally(), counted(&sim));
    assert_eq!(seen.exchanges.len(), 3);
}

#[test]
fn payload_of_plain_connections_is_counted_to_the_byte() {
    let stage = stage!();
    // Answers what was asked for, then closes; the client prints what it sent and received by its own count.
    let script = stage.file(
        "bytes.py",
        r#"
import socket, threading, sys
listener = socket.socket(socket.AF_INET6 if sys.argv[1] == "::1" else socket.AF_INET)
listener.bind((sys.argv[1], 0)); listener.listen()
up, down, how = int(sys.argv[3]), int(sys.argv[4]), sys.argv[5]
def serve():
    peer, _ = listener.accept()
    left = up
    while left: left -= len(peer.recv(min(left, 65536)))
    peer.sendall(b"x" * down)
    if how == "server-first": peer.close()
    else:
        while peer.recv(65536): pass
        peer.close()
server = threading.Thread(target=serve); server.start()
client = socket.socket(socket.AF_INET if "." in sys.argv[2] and ":" not in sys.argv[2] else socket.AF_INET6)
client.connect((sys.argv[2], listener.getsockname()[1]))
client.sendall(b"\x00" * up)
left = down
while left: left -= len(client.recv(min(left, 65536)))
if how == "server-first": assert client.recv(1) == b""
if how == "half-close": client.shutdown(socket.SHUT_WR); assert client.recv(1) == b""
client.close(); server.join()
"#,
    );
    let script = script.to_str().unwrap();
    let mut expected = Vec::new();
    let mut programs = Vec::new();
    for (listen, connect) in [("127.0.0.1", "127.0.0.1"), ("::1", "::1"), ("127.0.0.1", "::ffff:127.0.0.1")] {
        for (up, down) in [(1, 0), (5, 7), (1_000_000, 3), (3, 3_000_000)] {
            for how in ["client-first", "server-first", "half-close"] {
                let arguments = [script, listen, connect, &up.to_string(), &down.to_string(), how];
                programs.push(stage.inside("python3", &arguments));
                expected.push((up, down, listen.parse::<IpAddr>().unwrap()));
            }
        }
    }
    let seen = stage.capture(false, programs);
    let counted = |connection: &&Connection| (connection.bytes_out, connection.bytes_in, connection.remote.0);
    assert_eq!(seen.closed().iter().map(counted).collect::<Vec<_>>(), expected);
    for connection in seen.closed() {
        assert!(connection.rtt_us > 0 && connection.closed > connection.opened);
        assert_eq!(connection.protocol, Protocol::Other);
        assert!(matches!(connection.verdict, Completeness::Opaque { .. }));
    }
}

#[test]
fn a_refused_and_a_reset_connection_are_reported_without_payload() {
    let stage = stage!();
    let script = stage.file(
        "refused.py",
        r#"
import socket, struct
probe = socket.socket(); probe.bind(("127.0.0.1", 0))
try: socket.create_connection(probe.getsockname())
except ConnectionRefusedError: pass
listener = socket.socket(); listener.bind(("127.0.0.1", 0)); listener.listen()
client = socket.create_connection(listener.getsockname())
peer, _ = listener.accept()
peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)); peer.close()
try: client.recv(1)
except ConnectionResetError: pass
client.close()
"#,
    );
    let seen = stage.capture(false, vec![stage.inside("python3", &[script.to_str().unwrap()])]);
    let closed = seen.closed();
    assert_eq!(closed.len(), 2);
    assert_eq!(
        closed.iter().map(|connection| connection.established != 0).collect::<Vec<_>>(),
        [false, true]
    );
    assert!(closed.iter().all(|connection| connection.bytes_in + connection.bytes_out == 0));
}

#[test]
fn plaintext_calls_are_seen_exactly_as_the_vendor_counted_them() {
    let stage = stage!();
    let sim = sim();
    let address = sim.plain_addr();
    let body = stage.file("body", &"y".repeat(500_000));
    let upload = format!("@{}", body.display());
    let base = format!("http://api.example.com:{}", address.port());
    let to = format!("::{address}");
    let quiet = ["--silent", "--output", "/dev/null", "--connect-to", &to];
    let curl = |arguments: &[&str]| stage.inside("curl", &[&quiet[..], arguments].concat());
    let measure = "%{size_request} %{size_upload} %{size_header} %{size_download}";
    let seen = stage.capture(
        false,
        vec![
            curl(&["--write-out", measure, &format!("{base}/one?secret=1")]),
            curl(&[
                "--write-out",
                measure,
                "--data-binary",
                &upload,
                "--header",
                "Expect:",
                &format!("{base}/up"),
            ]),
            curl(&[
                "--header",
                "Transfer-Encoding: chunked",
                "--data-binary",
                &upload,
                &format!("{base}/chunked"),
            ]),
        ],
    );
    assert_eq!(seen.tally(), counted(&sim));
    assert!(seen.losses.none(), "{:?}", seen.losses);
    let closed = seen.closed();
    for (connection, printed) in closed.iter().zip(&seen.printed[..2]) {
        let sizes: Vec<u64> = printed.split(' ').map(|size| size.parse().unwrap()).collect();
        assert_eq!((connection.bytes_out, connection.bytes_in), (sizes[0] + sizes[1], sizes[2] + sizes[3]));
    }
    for connection in closed {
        assert_eq!((&connection.verdict, connection.exchanges), (&Completeness::Complete, 1));
        assert_eq!(connection.protocol, Protocol::Http1);
        assert_eq!(connection.name.as_ref().unwrap().1, NameSource::Host);
    }
}

#[test]
fn calls_over_http2_are_seen_exactly_as_the_vendor_counted_them() {
    let stage = stage!();
    let sim = sim();
    let body = stage.file("body", &"z".repeat(700_000));
    let upload = format!("@{}", body.display());
    let urls = [
        "https://api.github.com/users/1",
        "https://api.github.com/users/2",
        "https://api.github.com/nowhere",
    ];
    let plain = format!("http://{}/prior?secret=1", sim.plain_addr());
    let seen = stage.capture(
        true,
        vec![
            stage.curl(
                &sim,
                &[
                    &[
                        "--http2",
                        "--no-progress-meter",
                        "--parallel",
                        "--output",
                        "/dev/null",
                        "--output",
                        "/dev/null",
                    ],
                    &urls[..],
                ]
                .concat(),
            ),
            stage.curl(&sim, &["--http2", "--data-binary", &upload, "https://echo.example.com/up"]),
            stage.inside(
                "curl",
                &[
                    "--silent",
                    "--output",
                    "/dev/null",
                    "--http2-prior-knowledge",
                    "--data-binary",
                    &upload,
                    &plain,
                ],
            ),
        ],
    );
    assert_eq!(seen.tally(), counted(&sim));
    assert_eq!(seen.exchanges.len(), 5);
    assert!(seen.losses.none(), "{:?}", seen.losses);
    assert!(seen.exchanges.iter().all(|exchange| exchange.http.outcome == Outcome::Complete));
    assert!(
        seen.closed().iter().all(|connection| connection.verdict == Completeness::Complete),
        "{:#?}",
        seen.closed()
    );
}

const PYTHON: &str = r#"
import http.client, socket, ssl, sys
host, port, ca = "127.0.0.1", int(sys.argv[1]), sys.argv[2]
context = ssl.create_default_context(cafile=ca)
class Connection(http.client.HTTPSConnection):
    def connect(self):
        plain = socket.create_connection((host, port))
        self.sock = context.wrap_socket(plain, server_hostname=self.host)
connection = Connection("api.openai.com")
for path in ("/v1/models", "/v1/models?x=1", "/nowhere"):
    connection.request("GET", path); connection.getresponse().read()
connection.close()
connection = Connection("echo.example.com")
# One operation far beyond what is copied of it, then chunks, then an answer without a body.
connection.request("POST", "/big", body=b"z" * 5_000_000); connection.getresponse().read()
connection.request("POST", "/chunks", body=iter([b"a" * 70_000, b"b"]), encode_chunked=True, headers={"Transfer-Encoding": "chunked"})
connection.getresponse().read()
connection.request("HEAD", "/head"); connection.getresponse().read()
connection.close()
"#;

#[test]
fn calls_of_python_are_seen_exactly_as_the_vendor_counted_them_however_large() {
    let stage = stage!();
    let sim = sim();
    let ca = stage.file("ca.pem", sim.ca_pem());
    let script = stage.file("calls.py", PYTHON);
    let port = sim.tls_addr().port().to_string();
    let arguments = [script.to_str().unwrap(), &port, ca.to_str().unwrap()];
    let seen = stage.capture(true, vec![stage.inside("python3", &arguments)]);
    assert_eq!(seen.tally(), counted(&sim));
    assert_eq!(seen.exchanges.len(), 6);
    assert!(seen.losses.none(), "{:?}", seen.losses);
    assert!(
        seen.losses.cut_bytes > 4_000_000,
        "the rest of the large body was not copied, and that is counted"
    );
    assert_eq!(seen.closed().len(), 2);
    for connection in seen.closed() {
        assert_eq!((&connection.verdict, connection.exchanges), (&Completeness::Complete, 3));
        assert_eq!(connection.process.service, "calls.py");
    }
}

#[test]
fn calls_through_memory_bios_are_seen_and_their_connection_says_why_it_is_opaque() {
    let stage = stage!();
    let sim = sim();
    let ca = stage.file("ca.pem", sim.ca_pem());
    let script = stage.file(
        "aio.py",
        r#"
import asyncio, ssl, sys
async def main():
    context = ssl.create_default_context(cafile=sys.argv[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", int(sys.argv[1]), ssl=context, server_hostname="api.stripe.com")
    writer.write(b"GET /v1/balance HTTP/1.1\r\nHost: api.stripe.com\r\nConnection: close\r\n\r\n")
    await reader.read(); writer.close()
asyncio.run(main())
"#,
    );
    let port = sim.tls_addr().port().to_string();
    let arguments = [script.to_str().unwrap(), &port, ca.to_str().unwrap()];
    let seen = stage.capture(true, vec![stage.inside("python3", &arguments)]);
    assert_eq!(seen.tally(), counted(&sim));
    assert_eq!(seen.exchanges[0].connection, None);
    let Completeness::Opaque { reason } = &seen.connection().verdict else { panic!("{seen:#?}") };
    assert!(reason.contains("memory BIO"), "{reason}");
}

#[test]
fn tls_to_this_machine_itself_is_not_egress_unless_asked_for() {
    let mut stage = stage!();
    let certificate = stage.certificate();
    // Two clients: Python names the socket to the library, curl does its own I/O below it.
    let script = stage.file(
        "itself.py",
        r#"
import http.client, socket, ssl, subprocess, sys, threading
server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER); server.load_cert_chain(sys.argv[1])
listener = socket.socket(); listener.bind(("0.0.0.0", 0)); listener.listen()
port = listener.getsockname()[1]
def serve():
    while True:
        peer = server.wrap_socket(listener.accept()[0], server_side=True)
        got = b""
        while b"\r\n\r\n" not in got: got += peer.recv(65536)
        peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
        try: peer.recv(1)
        except OSError: pass
        peer.close()
threading.Thread(target=serve, daemon=True).start()
client = ssl.create_default_context(); client.check_hostname = False; client.verify_mode = ssl.CERT_NONE
# A proxy of this machine leads to others; to it go the same bytes as to this, once its CONNECT was answered.
tunnel = http.client.HTTPSConnection("127.0.0.1", port, context=client)
tunnel.request("GET", "/tunnel", headers={"Host": "api.stripe.com"}); assert tunnel.getresponse().read() == b"ok"; tunnel.close()
for address in ("127.0.0.1", "10.77.0.1"):
    connection = http.client.HTTPSConnection(address, port, context=client)
    connection.request("GET", "/python"); assert connection.getresponse().read() == b"ok"; connection.close()
    subprocess.run(["curl", "--silent", "--insecure", "--http1.1", "--output", "/dev/null", f"https://{address}:{port}/curl"], check=True)
"#,
    );
    let shell = format!(
        "ip link set lo up && ip address add 10.77.0.1/32 dev lo && exec python3 {} {}",
        script.display(),
        certificate.display()
    );
    let (to_itself, to_others) =
        (["127.0.0.1/python", "127.0.0.1/curl"], ["10.77.0.1/python", "10.77.0.1/curl"]);
    for (include, expected, connections) in [
        (false, [&["api.stripe.com/tunnel"], &to_others[..]].concat(), 2),
        (true, [&["api.stripe.com/tunnel"], &to_itself[..], &to_others[..]].concat(), 5),
    ] {
        stage.include_loopback = include;
        let seen = stage.capture(true, vec![stage.inside("unshare", &["--net", "sh", "-c", &shell])]);
        let calls: Vec<_> =
            seen.exchanges.iter().map(|call| format!("{}{}", call.host, call.http.path)).collect();
        assert_eq!(calls, expected);
        assert_eq!(seen.closed().len(), connections);
    }
}

#[test]
fn calls_in_tls_inside_tls_to_a_proxy_are_seen_exactly_as_the_vendor_counted_them() {
    let stage = stage!();
    let sim = sim();
    let certificate = stage.certificate();
    let script = stage.file(
        "proxied.py",
        r#"
import select, socket, ssl, subprocess, sys, threading
certificate, port, ca, upload = sys.argv[1:]
server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER); server.load_cert_chain(certificate)
listener = socket.socket(); listener.bind(("127.0.0.1", 0)); listener.listen()
def pump(peer, vendor):
    # By one thread: two must not use one SSL object at once.
    while True:
        ready = [peer] if peer.pending() else select.select([peer, vendor], [], [])[0]
        for source, sink in ((peer, vendor), (vendor, peer)):
            if source not in ready: continue
            try: data = source.recv(65536)
            except OSError: data = b""
            if not data: peer.close(); vendor.close(); return
            sink.sendall(data)
def serve():
    while True:
        peer = server.wrap_socket(listener.accept()[0], server_side=True)
        got = b""
        while b"\r\n\r\n" not in got: got += peer.recv(65536)
        assert got.startswith(b"CONNECT ")
        vendor = socket.create_connection(("127.0.0.1", int(port)))
        peer.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        threading.Thread(target=pump, args=(peer, vendor), daemon=True).start()
threading.Thread(target=serve, daemon=True).start()
curl = ["curl", "--silent", "--show-error", "--http1.1", "--proxy-insecure", "--proxy", f"https://127.0.0.1:{listener.getsockname()[1]}", "--cacert", ca]
for more in (["https://api.github.com/one", "https://api.github.com/two", "--output", "/dev/null"], ["--data-binary", upload, "https://echo.example.com/up"]):
    subprocess.run(curl + ["--output", "/dev/null"] + more, check=True)
"#,
    );
    let ca = stage.file("ca.pem", sim.ca_pem());
    let upload = format!("@{}", stage.file("body", &"x".repeat(100_000)).display());
    let port = sim.tls_addr().port().to_string();
    let arguments =
        [script.to_str().unwrap(), certificate.to_str().unwrap(), &port, ca.to_str().unwrap(), &upload];
    let seen = stage.capture(true, vec![stage.inside("python3", &arguments)]);
    assert_eq!(seen.tally(), counted(&sim));
    assert_eq!(seen.exchanges.len(), 3);
    assert!(seen.losses.none(), "{:?}", seen.losses);
    let closed = seen.closed();
    let of_curl = closed.iter().filter(|connection| connection.process.service == "curl");
    let verdicts: Vec<_> = of_curl.map(|connection| (&connection.verdict, connection.exchanges)).collect();
    assert_eq!(verdicts, [(&Completeness::Complete, 2), (&Completeness::Complete, 1)]);
}

#[test]
fn fifty_programs_at_once_lose_nothing() {
    let stage = stage!();
    let sim = sim();
    let programs = |n: usize| {
        let url = format!("https://api.github.com/users/{n}");
        stage.curl(&sim, &[&url, &url, "--output", "/dev/null"])
    };
    let seen = stage.capture_at_once(true, vec![(0..50).map(programs).collect()]);
    assert_eq!(seen.tally(), counted(&sim));
    assert_eq!(seen.exchanges.len(), 100);
    assert!(seen.losses.none(), "{:?}", seen.losses);
    assert_eq!(seen.closed().len(), 50);
    assert!(seen.closed().iter().all(|connection| connection.verdict == Completeness::Complete));
}

#[test]
fn a_socket_that_connects_again_after_a_refusal_is_seen_again() {
    let stage = stage!();
    let script = stage.file(
        "again.py",
        r#"
import socket
closed = socket.socket(); closed.bind(("127.0.0.1", 0))
listener = socket.socket(); listener.bind(("127.0.0.1", 0)); listener.listen()
client = socket.socket()
assert client.connect_ex(closed.getsockname()) != 0
assert client.connect_ex(closed.getsockname()) != 0
assert client.connect_ex(listener.getsockname()) == 0
peer, _ = listener.accept()
client.sendall(b"\x00" * 700); peer.recv(700, socket.MSG_WAITALL)
peer.sendall(b"\x00" * 30); client.recv(30, socket.MSG_WAITALL)
client.close()
"#,
    );
    let seen = stage.capture(false, vec![stage.inside("python3", &[script.to_str().unwrap()])]);
    let closed = seen.closed();
    let bytes: Vec<_> = closed.iter().map(|connection| (connection.bytes_out, connection.bytes_in)).collect();
    assert_eq!(bytes, [(0, 0), (0, 0), (700, 30)]);
    assert!(closed.windows(2).all(|pair| pair[0].id == pair[1].id && pair[0].opened < pair[1].opened));
}

#[test]
fn connections_that_come_and_go_by_thousands_are_all_seen_to_open_and_to_close() {
    let stage = stage!();
    // Timers of closing sockets and packets of others arrive while a thread connects: state changes within state changes.
    let script = stage.file(
        "churn.py",
        r#"
import socket, threading
listener = socket.socket(); listener.bind(("127.0.0.1", 0)); listener.listen(512)
def serve():
    while True:
        peer, _ = listener.accept(); peer.recv(1); peer.close()
def churn():
    for _ in range(500):
        client = socket.create_connection(listener.getsockname()); client.sendall(b"\x00"); client.recv(1); client.close()
for _ in range(4): threading.Thread(target=serve, daemon=True).start()
clients = [threading.Thread(target=churn) for _ in range(4)]
for client in clients: client.start()
for client in clients: client.join()
"#,
    );
    let program = || stage.inside("python3", &[script.to_str().unwrap()]);
    let seen = stage.capture_at_once(false, vec![vec![program(), program()]]);
    assert_eq!(seen.closed().len(), 4_000);
    assert!(seen.closed().iter().all(|connection| connection.established != 0 && connection.bytes_out == 1));
    assert!(seen.losses.none(), "{:?}", seen.losses);
    println!("{} changes were seen by one of two programs", seen.losses.skipped_states);
}

#[test]
fn a_process_outside_the_cgroup_is_not_seen() {
    let stage = stage!();
    let sim = sim();
    let ca = stage.file("ca.pem", sim.ca_pem());
    let to = format!("::{}", sim.tls_addr());
    let arguments = [
        "--silent",
        "--output",
        "/dev/null",
        "--cacert",
        ca.to_str().unwrap(),
        "--connect-to",
        &to,
        "https://api.github.com/user",
    ];
    let plain = format!("http://{}/plain", sim.plain_addr());
    let seen = stage.capture(
        true,
        vec![
            stage.outside("curl", &arguments),
            stage.outside("curl", &["--silent", "--output", "/dev/null", &plain]),
        ],
    );
    assert_eq!(sim.counts().requests, 2);
    assert!(seen.exchanges.is_empty() && seen.progress.is_empty(), "{seen:#?}");
    assert!(seen.losses.none());
}

#[test]
fn a_connection_has_the_name_that_dns_answered() {
    let stage = stage!();
    let script = stage.file(
        "dns.py",
        r#"
import socket, threading
resolver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); resolver.bind(("127.0.0.1", 53))
listener = socket.socket(); listener.bind(("127.0.0.9", 7777)); listener.listen()
def resolve():
    query, peer = resolver.recvfrom(512)
    answer = b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04" + bytes([127, 0, 0, 9])
    resolver.sendto(query[:2] + b"\x81\x80\x00\x01\x00\x01\x00\x00\x00\x00" + query[12:] + answer, peer)
thread = threading.Thread(target=resolve); thread.start()
asker = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
name = b"".join(bytes([len(part)]) + part for part in b"api.stripe.com".split(b".")) + b"\x00"
asker.sendto(b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00" + name + b"\x00\x01\x00\x01", ("127.0.0.1", 53))
address = socket.inet_ntoa(asker.recvfrom(512)[0][-4:]); thread.join()
client = socket.create_connection((address, 7777)); client.sendall(b"\x00hello")
listener.accept()[0].recv(6); client.close()
"#,
    );
    // Port 53 is free in a network namespace of its own.
    let shell = format!("ip link set lo up && exec python3 {}", script.display());
    let seen = stage.capture(false, vec![stage.inside("unshare", &["--net", "sh", "-c", &shell])]);
    let connection = seen.connection();
    assert_eq!(connection.name, Some(("api.stripe.com".into(), NameSource::Dns)));
    assert_eq!(connection.remote, ("127.0.0.9".parse().unwrap(), 7777));
    assert_eq!(connection.bytes_out, 6);
}

#[test]
fn what_cannot_be_read_says_why() {
    let stage = stage!();
    let sim = sim();
    let ca = stage.file("ca.pem", sim.ca_pem());
    let script = stage.file(
        "calls.js",
        r#"
const https = require("https"), fs = require("fs"), tls = require("tls");
const [port, ca] = process.argv.slice(2);
https.get({ host: "127.0.0.1", port, servername: "api.github.com", headers: { host: "api.github.com" }, ca: fs.readFileSync(ca), path: "/user", agent: false },
  (response) => response.resume());
"#,
    );
    let port = sim.tls_addr().port().to_string();
    let arguments = [script.to_str().unwrap(), &port, ca.to_str().unwrap()];
    let ssh = stage.file("other.py", OTHER);
    let seen = stage.capture(
        true,
        vec![stage.inside("node", &arguments), stage.inside("python3", &[ssh.to_str().unwrap()])],
    );
    let reasons: Vec<String> =
        seen.closed().iter().map(|connection| connection.verdict.to_string()).collect();
    assert_eq!(reasons.len(), 2, "{reasons:?}");
    assert!(reasons[0].contains("OpenSSL inside node"), "{reasons:?}");
    assert!(reasons[1].contains("spoke first"), "{reasons:?}");
    assert!(seen.exchanges.is_empty());
}

const OTHER: &str = r#"
import socket
listener = socket.socket(); listener.bind(("127.0.0.1", 0)); listener.listen()
client = socket.create_connection(listener.getsockname()); peer, _ = listener.accept()
peer.sendall(b"SSH-2.0-OpenSSH_9.2\r\n"); client.recv(100); client.close()
"#;

#[test]
fn a_connection_still_open_is_reported_by_what_is_new() {
    let stage = stage!();
    let script = stage.file(
        "slow.py",
        r#"
import socket, sys
listener = socket.socket(); listener.bind(("127.0.0.1", 0)); listener.listen()
client = socket.create_connection(listener.getsockname()); peer, _ = listener.accept()
for n in range(8):
    client.sendall(b"\x00" * 1000); peer.recv(1000, socket.MSG_WAITALL)
    peer.sendall(b"\x00" * 500); client.recv(500, socket.MSG_WAITALL)
    if n < 3: print("done", flush=True); sys.stdin.readline()
client.close()
"#,
    );
    let seen = stage.capture_by_rounds(stage.inside("python3", &[script.to_str().unwrap()]), 3);
    let reports: Vec<_> = seen.progress.iter().map(|progress| (progress.new_out, progress.new_in)).collect();
    assert!(reports.len() > 3, "{reports:?}");
    assert_eq!(reports.iter().map(|(out, _)| out).sum::<u64>(), 8_000);
    assert_eq!(reports.iter().map(|(_, inn)| inn).sum::<u64>(), 4_000);
    assert!(seen.progress[0].first && seen.progress.iter().filter(|progress| progress.first).count() == 1);
    assert!(seen.progress.iter().filter(|progress| progress.last).count() == 1);
}

#[test]
fn connections_that_were_open_before_we_looked_are_taken_over_with_what_follows() {
    let stage = stage!();
    let script = stage.file(
        "before.py",
        r#"
import http.client, http.server, socket, sys, threading
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *arguments): pass
    def do_GET(self):
        self.send_response(200); self.send_header("Content-Length", "5"); self.end_headers(); self.wfile.write(b"hello")
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
listener = socket.socket(); listener.bind(("127.0.0.1", 0)); listener.listen()
raw = socket.create_connection(listener.getsockname()); peer, _ = listener.accept()
raw.sendall(b"\x00" * 1000); peer.recv(1000, socket.MSG_WAITALL)
connection = http.client.HTTPConnection(*server.server_address)
connection.request("GET", "/before"); connection.getresponse().read()
print("ready", flush=True); sys.stdin.readline()
connection.request("GET", "/after"); connection.getresponse().read(); connection.close()
raw.sendall(b"\x00" * 300); peer.recv(300, socket.MSG_WAITALL); peer.sendall(b"\x00" * 20); raw.recv(20, socket.MSG_WAITALL)
raw.close()
"#,
    );
    let seen = stage.capture_after_ready(stage.inside("python3", &[script.to_str().unwrap()]));
    let paths: Vec<_> = seen.exchanges.iter().map(|exchange| exchange.http.path.as_str()).collect();
    assert_eq!(paths, ["/after"]);
    let mut new: Vec<_> = seen.progress.iter().map(|progress| (progress.new_out, progress.new_in)).collect();
    new.retain(|bytes| *bytes != (0, 0));
    assert!(new.contains(&(300, 20)), "{new:?}");
    // Both ends live in the same cgroup: accepted connections are not ours to count.
    assert_eq!(seen.closed().len(), 2);
    assert!(seen.closed().iter().any(|connection| connection.verdict == Completeness::Complete));
}

#[test]
fn what_we_were_too_slow_for_is_counted_as_lost_and_bytes_stay_exact() {
    let stage = stage!();
    let script = stage.file(
        "flood.py",
        r#"
import socket, threading
listener = socket.socket(); listener.bind(("127.0.0.1", 0)); listener.listen()
size = 40_000_000
def serve():
    peer, _ = listener.accept(); peer.recv(65536)
    peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size); peer.close()
threading.Thread(target=serve).start()
client = socket.create_connection(listener.getsockname())
client.sendall(b"GET /flood HTTP/1.1\r\nHost: flood.example.com\r\n\r\n")
while client.recv(1 << 20): pass
client.close()
"#,
    );
    // It fills the ring; after it there are connections whose payload finds no room, but which must be known.
    let mut programs = vec![stage.inside("python3", &[script.to_str().unwrap()])];
    programs.push(stage.inside("python3", &[stage.file("other.py", OTHER).to_str().unwrap()]));
    let seen = stage.capture_too_late(programs);
    assert!(seen.losses.ring_pressure > 0, "{:?}", seen.losses);
    assert_eq!(seen.losses.ring_full, 0, "connections keep their room: {:?}", seen.losses);
    let closed = seen.closed();
    assert_eq!(closed.len(), 2);
    assert!(
        matches!(closed[0].verdict, Completeness::Lost { events } if events > 0),
        "{:?}",
        closed[0].verdict
    );
    assert_eq!(
        closed[0].bytes_in,
        40_000_000 + "HTTP/1.1 200 OK\r\nContent-Length: 40000000\r\n\r\n".len() as u64
    );
    assert_eq!(closed[1].bytes_in, "SSH-2.0-OpenSSH_9.2\r\n".len() as u64);
}

#[test]
fn answers_that_break_the_rules_are_survived_and_said() {
    let stage = stage!();
    let sim = sim();
    let wrongs =
        ["bad-content-length", "two-content-lengths", "bad-chunk-size", "garbage-bytes", "huge-header"];
    let seen = stage.capture(
        true,
        wrongs
            .iter()
            .map(|wrong| {
                let host = format!("{wrong}.example.com");
                sim.script(json!({"match": {"host": host}, "effect": {"wrong": wrong}})).unwrap();
                let url = format!("https://{host}/");
                let mut command = stage.curl(&sim, &[&url]);
                command.arg("--stderr").arg("/dev/null");
                stage::whatever_it_returns(command)
            })
            .collect(),
    );
    assert_eq!(seen.closed().len(), wrongs.len());
    assert!(seen.losses.none(), "{:?}", seen.losses);
    for (connection, wrong) in seen.closed().iter().zip(wrongs) {
        assert!(connection.exchanges <= 1, "{wrong}: {connection:#?}");
        let exchange = seen.exchanges.iter().find(|exchange| exchange.connection == Some(connection.id));
        assert!(exchange.is_some(), "{wrong}: the request was understood, whatever the answer");
    }
}

#[test]
fn the_first_call_of_the_first_program_is_seen_where_its_library_lies_in_a_folder() {
    let sim = sim();
    for _ in 0..5 {
        let mut stage = stage!();
        stage.folders = vec![stage.libssl().parent().unwrap().into()];
        let seen = stage.capture(false, vec![stage.curl(&sim, &["https://api.github.com/user"])]);
        assert_eq!(seen.exchanges.len(), 1);
        assert_eq!(seen.connection().verdict, Completeness::Complete);
    }
}
