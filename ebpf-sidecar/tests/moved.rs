//! What the sidecar promises of processes that are moved into the cgroup while it runs, with what they have open.
//!
//! Each test makes its own cgroup and captures that alone. They need root, a cgroup of version 2 and the features that
//! `farcall-sidecar check` lists; elsewhere they print `SKIPPED (kernel)` with the reason.
#![allow(missing_docs, clippy::unwrap_used)]

#[allow(dead_code)]
mod stage;

use std::fs;

use farcall_sidecar::{coverage::Completeness, wire::exchange::Outcome};
use stage::seen::counted;

/// Calls on two connections that it keeps, one inside TLS and one in plaintext: before it prints a line, and after it read one.
const KEEPER: &str = r#"
import http.client, ssl, sys
tls, plain, ca = sys.argv[1].split(":"), sys.argv[2].split(":"), sys.argv[3]
context = ssl.create_default_context(cafile=ca); context.check_hostname = False
secure = http.client.HTTPSConnection(*tls, context=context); clear = http.client.HTTPConnection(*plain)
def call(connection, path, host):
    connection.request("GET", path, headers={"Host": host}); connection.getresponse().read()
for n in range(3): call(secure, "/before", "api.github.com"); call(clear, "/before", "api.stripe.com")
print("ready", flush=True); sys.stdin.readline()
for n in range(5): call(secure, "/after", "api.github.com"); call(clear, "/after", "api.stripe.com")
sent = sum(len("GET /after HTTP/1.1\r\nHost: api.stripe.com\r\nAccept-Encoding: identity\r\n\r\n") for n in range(5))
print(sent, flush=True)
secure.close(); clear.close()
"#;

#[test]
fn a_process_that_is_moved_into_the_cgroup_is_seen_with_the_connections_that_it_brings() {
    let stage = stage!();
    let sim = stage::sim();
    let (script, ca) = (stage.file("keeper.py", KEEPER), stage.file("ca.pem", sim.ca_pem()));
    let (tls, plain) = (sim.tls_addr().to_string(), sim.plain_addr().to_string());
    let arguments = [script.to_str().unwrap(), &tls, &plain, ca.to_str().unwrap()];
    let seen = stage.capture_of_moved(stage.outside("python3", &arguments), &[stage.cgroup()], 2);

    let calls: Vec<_> = seen.exchanges.iter().map(|call| (call.http.path.as_str(), call.tls)).collect();
    assert_eq!(calls, [("/after", true); 5], "{:#?}", seen.exchanges);
    let mut vendors = counted(&sim);
    vendors.retain(|(host, _, path, _), _| host == "api.github.com" && path == "/after");
    assert_eq!(seen.tally(), vendors);
    for call in &seen.exchanges {
        assert_eq!(call.http.outcome, Outcome::Complete);
        assert_eq!(call.process.service, "keeper.py");
        assert!(call.process.executable.contains("python3") && call.connection.is_some());
    }
    let closed = seen.closed();
    assert_eq!(closed.len(), 2, "{closed:#?}");
    let of = |address: std::net::SocketAddr| {
        closed.iter().find(|connection| connection.remote.1 == address.port()).unwrap()
    };
    assert_eq!(of(sim.tls_addr()).verdict, Completeness::Complete);
    // Its packets are shown to programs of the cgroup that its socket was made in alone.
    let clear = of(sim.plain_addr());
    assert_eq!(
        clear.verdict.to_string(),
        "opaque because it was open before its process was moved into the cgroup"
    );
    assert_eq!(clear.process.service, "keeper.py");
    let news = seen.progress.iter().filter(|news| news.connection.id == clear.id);
    let (out, inn) = news.fold((0, 0), |sums, news| (sums.0 + news.new_out, sums.1 + news.new_in));
    assert_eq!(out, seen.printed[0].trim().parse::<u64>().unwrap(), "its bytes since");
    assert!(inn > 0);
    assert_eq!(seen.losses.unowned, 0);
    assert!(seen.losses.none(), "{:?}", seen.losses);
}

#[test]
fn a_process_that_is_moved_within_the_scope_is_no_newcomer() {
    let stage = stage!();
    let sim = stage::sim();
    let parts = ["one", "two"].map(|name| stage.cgroup().join(name));
    parts.iter().for_each(|part| fs::create_dir(part).unwrap());
    // It also has a connection that it accepted, of which nothing tells so any more: its listening socket is closed.
    let script = stage.file(
        "settled.py",
        r#"
import http.client, os, socket, sys
open(os.path.join(sys.argv[1], "cgroup.procs"), "w").write(str(os.getpid()))
listener = socket.socket(); listener.bind(("127.0.0.1", 0)); listener.listen()
client = socket.create_connection(listener.getsockname()); accepted, _ = listener.accept(); listener.close()
connection = http.client.HTTPConnection(*sys.argv[2].split(":"))
def call(path): connection.request("GET", path, headers={"Host": "api.stripe.com"}); connection.getresponse().read()
call("/before"); print("ready", flush=True); sys.stdin.readline()
call("/after"); connection.close(); client.close(); accepted.close()
"#,
    );
    let plain = sim.plain_addr().to_string();
    let program = stage.outside("python3", &[script.to_str().unwrap(), parts[0].to_str().unwrap(), &plain]);
    let seen = stage.capture_of_moved(program, &[&parts[1], stage.cgroup(), &parts[0]], 2);
    parts.iter().for_each(|part| fs::remove_dir(part).unwrap());
    assert_eq!(seen.tally(), counted(&sim));
    let closed = seen.closed();
    assert_eq!(closed.len(), 2, "none that was accepted: {closed:#?}");
    assert!(closed.iter().all(|connection| connection.verdict == Completeness::Complete), "{closed:#?}");
    assert!(seen.losses.none(), "{:?}", seen.losses);
}
