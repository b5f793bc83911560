//! What the sidecar promises of exchanges that end before their last byte: whether the vendor broke them off or the program
//! let go of them.
//!
//! Each test makes its own cgroup and captures that alone. They need root, a cgroup of version 2 and the features that
//! `farcall-sidecar check` lists; elsewhere they print `SKIPPED (kernel)` with the reason.
#![allow(missing_docs, clippy::unwrap_used)]

#[allow(dead_code)]
mod stage;

use farcall_sidecar::wire::exchange::Outcome;

/// Answers by path as its name says, in plaintext and in TLS, and ends each connection as it says; then the clients.
const ENDS: &str = r#"
import socket, ssl, struct, sys, threading
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER); context.load_cert_chain(sys.argv[1])
client = ssl.create_default_context(); client.check_hostname = False; client.verify_mode = ssl.CERT_NONE
HEADS = {
    "length": b"Content-Length: 20000\r\n", "chunked": b"Transfer-Encoding: chunked\r\n", "close": b"Connection: close\r\n",
}
def head(framing): return b"HTTP/1.1 200 OK\r\n" + HEADS[framing] + b"\r\n" + (b"1000\r\n" if framing == "chunked" else b"")
def reset(peer): peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)); peer.close()
gone, read = threading.Event(), threading.Event()
def until_gone(peer):
    try:
        while peer.recv(65536): pass
    except OSError: pass
def serve(peer, secure):
    try:
        if secure: peer = context.wrap_socket(peer, server_side=True)
        got = b""
        while b"\r\n\r\n" not in got: got += peer.recv(65536)
        how, _, framing = got.split(b" ")[1].decode().strip("/").partition("/")
        if framing: peer.sendall(head(framing) + b"x" * 500)
        if how == "whole": peer.sendall(b"x" * 19500)
        if how in ("leave", "silent"): until_gone(peer)
        if how == "reset":
            if framing: read.wait()
            reset(peer)
        peer.close()
        if (how, framing) == ("whole", "close"): gone.set()
    except OSError: pass
def listen(secure):
    listener = socket.socket(); listener.bind(("127.0.0.1", 0)); listener.listen()
    def accept():
        while True: threading.Thread(target=serve, args=(listener.accept()[0], secure), daemon=True).start()
    threading.Thread(target=accept, daemon=True).start()
    return listener.getsockname()
def ask(address, secure, path, let_go):
    gone.clear(); read.clear()
    peer = socket.create_connection(address)
    if secure: peer = client.wrap_socket(peer)
    peer.sendall(f"GET {path} HTTP/1.1\r\nHost: {'tls' if secure else 'plain'}\r\n\r\n".encode())
    if path == "/half/close": peer.shutdown(socket.SHUT_WR)
    if path == "/silent": peer.settimeout(0.2)
    got = 0
    if path == "/whole/close": gone.wait()
    try:
        while data := peer.recv(200):
            got += len(data)
            if got > 300: read.set()
            if let_go and got > 300: break
    except OSError: pass
    peer.close()
for secure in (False, True):
    address = listen(secure)
    for how, let_go in (("leave", True), ("end", False), ("reset", False)):
        for framing in HEADS: ask(address, secure, f"/{how}/{framing}", let_go)
    for path in ("/silent", "/end", "/reset", "/whole/length"): ask(address, secure, path, False)
    # All has come, and the server is gone; but not all is read.
    ask(address, secure, "/whole/close", True)
    if not secure: ask(address, secure, "/half/close", False)
"#;

#[test]
fn who_ended_an_exchange_first_is_seen_in_plaintext_and_in_tls() {
    use Outcome::{Abandoned, Aborted, Cancelled, Complete, NoResponse};
    let stage = stage!();
    let certificate = stage.certificate();
    let script = stage.file("ends.py", ENDS);
    let arguments = [script.to_str().unwrap(), certificate.to_str().unwrap()];
    let seen = stage.capture(true, vec![stage.inside("python3", &arguments)]);
    assert!(seen.losses.none(), "{:?}", seen.losses);
    for host in ["plain", "tls"] {
        let of_host = seen.exchanges.iter().filter(|exchange| exchange.host == host);
        let mut ends: Vec<_> =
            of_host.map(|call| (call.http.path.as_str(), call.http.status, call.http.outcome)).collect();
        let mut expected = vec![
            ("/leave/length", 200, Abandoned),
            ("/leave/chunked", 200, Abandoned),
            ("/leave/close", 200, Abandoned),
            ("/end/length", 200, Aborted),
            ("/end/chunked", 200, Aborted),
            ("/end/close", 200, Complete),
            ("/reset/length", 200, Aborted),
            ("/reset/chunked", 200, Aborted),
            ("/reset/close", 200, Aborted),
            ("/silent", 0, Cancelled),
            ("/end", 0, NoResponse),
            ("/reset", 0, NoResponse),
            ("/whole/length", 200, Complete),
        ];
        match host {
            // What came is seen in packets, and of TLS what the program read.
            "plain" => expected.extend([("/whole/close", 200, Complete), ("/half/close", 200, Complete)]),
            _ => expected.push(("/whole/close", 200, Abandoned)),
        }
        // Two connections that end one right after the other may be told of in either order.
        ends.sort_unstable_by_key(|&(path, ..)| path);
        expected.sort_unstable_by_key(|&(path, ..)| path);
        assert_eq!(ends, expected, "{host}");
    }
}
