//! What the sidecar promises of TLS to this machine itself, and through it to others.
//!
//! Each test makes its own cgroup and captures that alone. They need root, a cgroup of version 2 and the features that
//! `farcall-sidecar check` lists; elsewhere they print `SKIPPED (kernel)` with the reason.
#![allow(missing_docs, clippy::unwrap_used)]

#[allow(dead_code)]
mod stage;

use farcall_sidecar::coverage::Completeness;
use stage::seen::counted;

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
    let sim = stage::sim();
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
fn a_connection_to_a_plain_proxy_is_explained_by_the_calls_in_it() {
    let stage = stage!();
    let sim = stage::sim();
    // Speaks CONNECT and SOCKS5, whichever comes; then passes bytes on.
    let script = stage.file(
        "proxy.py",
        r#"
import http.client, socket, ssl, struct, subprocess, sys, threading
port, ca = int(sys.argv[1]), sys.argv[2]
listener = socket.socket(); listener.bind(("127.0.0.1", 0)); listener.listen()
proxy = listener.getsockname()[1]
def pump(source, sink):
    try:
        while data := source.recv(65536): sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError: pass
def serve(peer):
    got = peer.recv(65536)
    if got[0] == 5:
        peer.sendall(b"\x05\x00"); peer.recv(65536); peer.sendall(b"\x05\x00\x00\x01" + bytes(6))
    else:
        assert got.startswith(b"CONNECT "); peer.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    vendor = socket.create_connection(("127.0.0.1", port))
    threading.Thread(target=pump, args=(vendor, peer), daemon=True).start(); pump(peer, vendor)
def accept():
    while True: threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
threading.Thread(target=accept, daemon=True).start()
urls = ["https://api.github.com/one", "https://api.github.com/two", "--output", "/dev/null"]
for scheme in ("http", "socks5h"):
    subprocess.run(["curl", "--silent", "--show-error", "--http1.1", "--cacert", ca, "--proxy", f"{scheme}://127.0.0.1:{proxy}", "--output", "/dev/null"] + urls, check=True)
connection = http.client.HTTPSConnection("127.0.0.1", proxy, context=ssl.create_default_context(cafile=ca))
connection.set_tunnel("api.stripe.com", 443)
connection.request("GET", "/python"); connection.getresponse().read(); connection.close()
"#,
    );
    let ca = stage.file("ca.pem", sim.ca_pem());
    let port = sim.tls_addr().port().to_string();
    let arguments = [script.to_str().unwrap(), &port, ca.to_str().unwrap()];
    let seen = stage.capture(true, vec![stage.inside("python3", &arguments)]);
    assert_eq!(seen.tally(), counted(&sim));
    assert_eq!(seen.exchanges.len(), 5);
    let closed = seen.closed();
    let port = sim.tls_addr().port();
    // The proxy's own connections are those to the vendor.
    let of_clients = closed.iter().filter(|connection| connection.remote.1 != port);
    let verdicts: Vec<_> = of_clients.map(|connection| (&connection.verdict, connection.exchanges)).collect();
    let complete = &Completeness::Complete;
    assert_eq!(verdicts, [(complete, 2), (complete, 2), (complete, 1)], "{closed:#?}");
    assert!(
        seen.progress
            .iter()
            .all(|progress| progress.connection.verdict == *complete || progress.connection.remote.1 == port)
    );
}
