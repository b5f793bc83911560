//! An exchange, and whom it is told of.

use std::{net::IpAddr, sync::Arc};

use super::{Connection, Observation};
use crate::{identity::Process, wire::exchange};

/// An HTTP exchange, and who made it.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// Who made the call.
    pub process: Arc<Process>,
    /// The connection that carried it, where it is known.
    pub connection: Option<u64>,
    /// Whether it travelled inside TLS.
    pub tls: bool,
    /// The vendor's host: the `Host` field, else the connection's name, else its address.
    pub host: String,
    /// The vendor's port.
    pub port: u16,
    /// What was exchanged. Times are `CLOCK_MONOTONIC` nanoseconds.
    pub http: exchange::Exchange,
}

pub(super) fn observe(connection: &Connection, http: exchange::Exchange, tls: bool) -> Observation {
    let host = match (&http.host, &connection.name) {
        (host, _) if !host.is_empty() => unbracketed(host).to_owned(),
        (_, Some((name, _))) => name.to_string(),
        (_, None) => connection.remote.0.to_string(),
    };
    Observation::Exchange(Exchange {
        process: Arc::clone(&connection.process),
        connection: Some(connection.id),
        tls,
        host,
        port: http.port.unwrap_or(connection.remote.1),
        http,
    })
}

/// A host as it is named elsewhere: an IPv6 address has brackets only beside a port (RFC 3986, section 3.2.2).
pub(super) fn unbracketed(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

/// Tells of exchanges inside TLS whose connection nobody follows. How many had no process.
pub(super) fn tell_of_loose(
    process: Option<Arc<Process>>,
    cookie: u64,
    mut exchanges: Vec<exchange::Exchange>,
    out: &mut Vec<Observation>,
) -> u64 {
    // Over a socket that was left out, to this machine: a proxy's, whose tunnels lead to whom their requests name.
    exchanges.retain(|http| cookie == 0 || !is_this_machine(&http.host));
    let Some(process) = process else { return exchanges.len() as u64 };
    out.extend(exchanges.into_iter().map(|http| observe_loose(&process, http)));
    0
}

/// Whether a request's host is the machine that it is made on.
fn is_this_machine(host: &str) -> bool {
    let address = unbracketed(host).parse::<IpAddr>();
    host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

/// An exchange inside TLS whose socket is unknown.
fn observe_loose(process: &Arc<Process>, http: exchange::Exchange) -> Observation {
    Observation::Exchange(Exchange {
        process: Arc::clone(process),
        connection: None,
        tls: true,
        host: unbracketed(&http.host).to_owned(),
        port: http.port.unwrap_or(443),
        http,
    })
}
