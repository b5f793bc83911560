//! What the sidecar promises of connections, against real programs and the running kernel.
//!
//! Each test makes its own cgroup and captures that alone. They need root, a cgroup of version 2 and the features that
//! `farcall-sidecar check` lists; elsewhere they print `SKIPPED (kernel)` with the reason.
#![allow(missing_docs, clippy::unwrap_used)]

#[allow(dead_code)]
mod stage;

use std::net::IpAddr;

use farcall_sidecar::{
    coverage::Completeness,
    tap::{Connection, NameSource},
    wire::record::Protocol,
};

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
    let sim = stage::sim();
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
fn a_connection_that_broke_is_named_by_what_was_known_before() {
    let stage = stage!();
    // Refused after DNS named the address; reset after a request that names its host; and refused with nothing to go by.
    let script = stage.file(
        "broken.py",
        r#"
import socket, struct, threading
resolver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); resolver.bind(("127.0.0.1", 53))
def resolve():
    query, peer = resolver.recvfrom(512)
    answer = b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04" + bytes([127, 0, 0, 9])
    resolver.sendto(query[:2] + b"\x81\x80\x00\x01\x00\x01\x00\x00\x00\x00" + query[12:] + answer, peer)
thread = threading.Thread(target=resolve); thread.start()
asker = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
name = b"".join(bytes([len(part)]) + part for part in b"api.stripe.com".split(b".")) + b"\x00"
asker.sendto(b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00" + name + b"\x00\x01\x00\x01", ("127.0.0.1", 53))
asker.recvfrom(512); thread.join()
def refused(address):
    try: socket.create_connection((address, 7777))
    except ConnectionRefusedError: pass
refused("127.0.0.9")
listener = socket.socket(); listener.bind(("127.0.0.8", 7777)); listener.listen()
client = socket.create_connection(("127.0.0.8", 7777))
client.sendall(b"GET /user HTTP/1.1\r\nHost: api.github.com\r\n\r\n")
peer, _ = listener.accept(); peer.recv(1000)
peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)); peer.close()
try: client.recv(1)
except ConnectionResetError: pass
client.close()
refused("127.0.0.7")
"#,
    );
    let shell = format!("ip link set lo up && exec python3 {}", script.display());
    let seen = stage.capture(false, vec![stage.inside("unshare", &["--net", "sh", "-c", &shell])]);
    let names: Vec<_> = seen.closed().iter().map(|connection| connection.name.clone()).collect();
    let expected = [
        Some(("api.stripe.com".into(), NameSource::Dns)),
        Some(("api.github.com".into(), NameSource::Host)),
        None,
    ];
    assert_eq!(names, expected);
}

#[test]
fn a_connection_has_the_name_that_the_hosts_file_of_its_root_has_for_the_address() {
    let stage = stage!();
    // Refused, so that nothing else tells a name; the last address has two, of which neither may be claimed.
    let script = stage.file(
        "hosts.py",
        r#"
import socket, sys
for address in ["127.0.0.7", "127.0.0.6"]:
    try: socket.create_connection((address, 7777))
    except ConnectionRefusedError: pass
    print("done", flush=True); sys.stdin.readline()
"#,
    );
    let hosts = stage.file("hosts", "127.0.0.7 hooks.slack.com slack\n127.0.0.6 a.example b.example\n");
    let shell = format!(
        "ip link set lo up && mount --bind {} /etc/hosts && exec python3 {}",
        hosts.display(),
        script.display()
    );
    let program = stage.inside("unshare", &["--net", "--mount", "sh", "-c", &shell]);
    let seen = stage.capture_by_rounds(program, 2);
    let names: Vec<_> = seen.closed().iter().map(|connection| connection.name.clone()).collect();
    assert_eq!(names, [Some(("hooks.slack.com".into(), NameSource::Hosts)), None]);
    assert_eq!(seen.losses.unread_hosts, 0);
}

#[test]
fn a_plain_connection_under_way_has_the_name_of_its_request_in_each_report() {
    let stage = stage!();
    // Answers that come in parts: first after half a request's head, then while the first answer goes on.
    let script = stage.file(
        "under_way.py",
        r#"
import socket, sys
def turn(): print("turn", flush=True); sys.stdin.readline()
listener = socket.socket(); listener.bind(("127.0.0.1", 0)); listener.listen()
client = socket.create_connection(listener.getsockname()); peer, _ = listener.accept()
client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
head = b"GET /scenario/endless HTTP/1.1\r\nHost: api.openai.com\r\n\r\n"
client.sendall(head[:20]); client.sendall(head[20:]); peer.recv(len(head), socket.MSG_WAITALL)
peer.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"); client.recv(47, socket.MSG_WAITALL)
for _ in range(3):
    peer.sendall(b"3e8\r\n" + b"x" * 1000 + b"\r\n"); client.recv(1007, socket.MSG_WAITALL)
    turn()
client.close()
"#,
    );
    let seen = stage.capture_by_rounds(stage.inside("python3", &[script.to_str().unwrap()]), 3);
    let names: Vec<_> = seen.progress.iter().map(|progress| progress.connection.name.clone()).collect();
    assert!(names.len() > 3, "{names:?}");
    let expected = Some(("api.openai.com".into(), NameSource::Host));
    assert!(names.iter().all(|name| *name == expected), "{names:?}");
    assert_eq!(seen.progress.iter().map(|progress| progress.new_out).sum::<u64>(), 56);
    assert_eq!(seen.progress.iter().map(|progress| progress.new_in).sum::<u64>(), 47 + 3 * 1007);
    assert_eq!(seen.exchanges.len(), 1);
}

#[test]
fn what_cannot_be_read_says_why() {
    let stage = stage!();
    let sim = stage::sim();
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
