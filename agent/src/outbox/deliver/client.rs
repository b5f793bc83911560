//! The agent's own client: HTTP/1.1, rustls with ring, the system's certificates.

use super::super::lease::Permit;
use super::super::trust::nothing_to_trust;
use super::fence::FencedConnector;
use bytes::Bytes;
use farcall::ErrorType;
use http_body_util::Full;
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Client as Legacy, Error as LegacyError};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::ClientConfig;
use rustls::crypto::ring;
use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

pub(super) type Client = Legacy<HttpsConnector<FencedConnector>, Full<Bytes>>;

/// How long making a connection may take.
const CONNECT: Duration = Duration::from_secs(10);

/// A client that sends only with this permit.
///
/// # Errors
/// Where there are no certificates to trust: what is to be noted of the calls.
pub(super) fn client(permit: &Arc<Permit>) -> Result<Client, String> {
    let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_native_roots()
        .map_err(|_| nothing_to_trust())?
        .with_no_client_auth();
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(CONNECT));
    let https = HttpsConnectorBuilder::new()
        .with_tls_config(tls)
        .https_or_http()
        .enable_http1()
        .wrap_connector(FencedConnector::new(connector, Arc::clone(permit)));
    Ok(Legacy::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(Duration::from_secs(20))
        .build(https))
}

/// What kind of failure it was, and in words that repeat nothing of the request.
pub(super) fn explain(error: &LegacyError) -> (ErrorType, String) {
    let mut said = String::new();
    let (mut tls, mut dns, mut protocol) = (false, false, false);
    let mut link: Option<&(dyn Error + 'static)> = error.source();
    for _ in 0..16 {
        let Some(current) = link else { break };
        tls |= current.downcast_ref::<rustls::Error>().is_some();
        protocol |= current.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_parse);
        said = current.to_string();
        dns |= said.contains("dns error");
        link = match current.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(held) => Some(held),
            None => current.source(),
        };
    }
    let kind = match error.is_connect() {
        true if tls => ErrorType::Tls,
        true if dns => ErrorType::Dns,
        true => ErrorType::Connect,
        false if protocol => ErrorType::Protocol,
        false => ErrorType::Reset,
    };
    (kind, format!("{}: {said}", kind.as_str()))
}
