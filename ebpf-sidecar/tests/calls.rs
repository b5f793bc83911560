//! What the sidecar promises of calls, inside TLS and in plaintext, against real programs and the running kernel.
//!
//! Each test makes its own cgroup and captures that alone. They need root, a cgroup of version 2 and the features that
//! `farcall-sidecar check` lists; elsewhere they print `SKIPPED (kernel)` with the reason.
#![allow(missing_docs, clippy::unwrap_used)]

#[allow(dead_code)]
mod stage;

use farcall_sidecar::{
    coverage::Completeness,
    identity::executable::Tls,
    tap::NameSource,
    wire::{exchange::Outcome, record::Protocol},
};
use serde_json::json;
use stage::seen::counted;

#[test]
fn calls_of_curl_inside_tls_are_seen_exactly_as_the_vendor_counted_them() {
    let stage = stage!();
    let sim = stage::sim();
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
    let sim = stage::sim();
    // A service that has loaded OpenSSL and not used it yet; then others that use the same file.
    let service = stage.inside("python3", &["-c", "import ssl, sys; sys.stdin.readline()"]);
    let urls = ["https://api.github.com/user"];
    let seen = stage.capture_once_found(service, (0..3).map(|_| stage.curl(&sim, &urls)).collect());
    assert_eq!(seen.tally(), counted(&sim));
    assert_eq!(seen.exchanges.len(), 3);
}

#[test]
fn plaintext_calls_are_seen_exactly_as_the_vendor_counted_them() {
    let stage = stage!();
    let sim = stage::sim();
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
            curl(&["--request", "PROPFIND", &format!("{base}/folder")]),
            curl(&["--request", "QUERY", "--data", "a=b", &format!("{base}/query")]),
            curl(&["--request", "M-SEARCH", &format!("{base}/search")]),
        ],
    );
    assert_eq!(seen.tally(), counted(&sim));
    assert_eq!(seen.exchanges.len(), 6);
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
    let sim = stage::sim();
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

/// A server whose SETTINGS, and in a packet of its own a WINDOW_UPDATE, are there before the client sends anything.
const GREETER: &str = r#"
import socket, threading
def frame(kind, flags, stream, payload): return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload
SETTINGS, UPDATE = frame(4, 0, 0, b"\0\x03\0\0\0\x64"), frame(8, 0, 0, b"\0\1\0\0")
listener = socket.socket(); listener.bind(("127.0.0.1", 0)); listener.listen()
client = socket.create_connection(listener.getsockname()); peer, _ = listener.accept()
for sock in (client, peer): sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
peer.sendall(SETTINGS); client.recv(len(SETTINGS), socket.MSG_WAITALL)
peer.sendall(UPDATE); client.recv(len(UPDATE), socket.MSG_WAITALL)
host = b"greeter.test"
head = b"\x82\x86\x44\x06/early\x41" + bytes([len(host)]) + host
sent = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b"") + frame(4, 1, 0, b"") + frame(1, 5, 1, head)
client.sendall(sent); peer.recv(len(sent), socket.MSG_WAITALL)
answer = frame(4, 1, 0, b"") + frame(1, 4, 1, b"\x88") + frame(0, 1, 1, b"hello")
peer.sendall(answer); client.recv(len(answer), socket.MSG_WAITALL)
client.close(); peer.close()
"#;

#[test]
fn answers_of_an_http2_server_that_greets_before_its_client_speaks_are_seen() {
    let stage = stage!();
    let script = stage.file("greeter.py", GREETER);
    let seen = stage.capture(false, vec![stage.inside("python3", &[script.to_str().unwrap()])]);
    assert!(seen.losses.none(), "{:?}", seen.losses);
    let calls: Vec<_> = seen
        .exchanges
        .iter()
        .map(|call| (&*call.host, &*call.http.path, call.http.status, call.http.body_in, call.http.outcome))
        .collect();
    assert_eq!(calls, [("greeter.test", "/early", 200, 5, Outcome::Complete)]);
    assert_eq!(seen.connection().verdict, Completeness::Complete);
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
    let sim = stage::sim();
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
    let sim = stage::sim();
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
fn fifty_programs_at_once_lose_nothing() {
    let stage = stage!();
    let sim = stage::sim();
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
fn answers_that_break_the_rules_are_survived_and_said() {
    let stage = stage!();
    let sim = stage::sim();
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
        let exchange = exchange.unwrap_or_else(|| panic!("{wrong}: the request was understood"));
        // An answer is the vendor's fault; a head longer than we keep is ours.
        let ours = wrong == "huge-header";
        let outcome = if ours { Outcome::Unknown } else { Outcome::Malformed };
        let status = if wrong == "garbage-bytes" { 0 } else { 200 };
        assert_eq!((exchange.http.outcome, exchange.http.status), (outcome, status), "{wrong}");
    }
}

#[test]
fn the_first_call_of_the_first_program_is_seen_where_its_library_lies_in_a_folder() {
    let sim = stage::sim();
    for _ in 0..5 {
        let mut stage = stage!();
        stage.folders = vec![stage.libssl().parent().unwrap().into()];
        let seen = stage.capture(false, vec![stage.curl(&sim, &["https://api.github.com/user"])]);
        assert_eq!(seen.exchanges.len(), 1);
        assert_eq!(seen.connection().verdict, Completeness::Complete);
    }
}

#[test]
fn an_object_of_openssl_that_serves_one_connection_after_another_does_not_mix_their_calls() {
    let stage = stage!();
    let sim = stage::sim();
    // First by SSL_clear; then in another program of the same process, whose objects are where the first one's were.
    let script = stage.file(
        "reuse.py",
        r#"
import ctypes, os, socket, sys
host, port, library, rounds = sys.argv[1:]
ssl = ctypes.CDLL(library)
for name in ("TLS_client_method", "SSL_CTX_new", "SSL_new"): getattr(ssl, name).restype = ctypes.c_void_p
context = ctypes.c_void_p(ssl.SSL_CTX_new(ctypes.c_void_p(ssl.TLS_client_method())))
used = ctypes.c_void_p(ssl.SSL_new(context))
for n in range(4):
    peer = socket.create_connection((host, port))
    ssl.SSL_ctrl(used, 55, 0, b"api.github.com"); ssl.SSL_set_fd(used, peer.fileno())
    assert ssl.SSL_connect(used) == 1
    request = b"GET /user HTTP/1.1\r\nHost: api.github.com\r\n\r\n"
    assert ssl.SSL_write(used, request, len(request)) == len(request)
    answer, buffer = b"", ctypes.create_string_buffer(65536)
    def read():
        got = ssl.SSL_read(used, buffer, 65536); assert got > 0
        return buffer.raw[:got]
    while b"\r\n\r\n" not in answer: answer += read()
    head, body = answer.split(b"\r\n\r\n", 1)
    length = int(head.lower().split(b"content-length:")[1].split()[0])
    while len(body) < length: body += read()
    if n == 3: break # It ends as it is: what follows has the same object.
    ssl.SSL_shutdown(used); peer.close(); assert ssl.SSL_clear(used) == 1
if rounds == "again": os.execv(sys.executable, [sys.executable, sys.argv[0], host, port, library, "last"])
"#,
    );
    let (address, port) = (sim.tls_addr().ip().to_string(), sim.tls_addr().port().to_string());
    let library = stage.libssl();
    let arguments =
        ["-R", "python3", script.to_str().unwrap(), &address, &port, library.to_str().unwrap(), "again"];
    let seen = stage.capture(true, vec![stage.inside("setarch", &arguments)]);
    assert_eq!(seen.tally(), counted(&sim));
    assert_eq!(seen.exchanges.len(), 8);
    assert!(seen.exchanges.iter().all(|exchange| exchange.http.outcome == Outcome::Complete));
    let closed = seen.closed();
    assert_eq!(closed.len(), 8);
    for connection in closed {
        assert_eq!((&connection.verdict, connection.exchanges), (&Completeness::Complete, 1));
    }
    assert!(seen.losses.none(), "{:?}", seen.losses);
}
