//! A vendor of the test's own under its real name: vendor-sim, reached by a resolver that knows no other host.
#![allow(dead_code, reason = "each test file uses a part")]

use std::future::{Ready, ready};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper_util::client::legacy::connect::dns::Name;
use rustls::pki_types::{CertificateDer, pem::PemObject};
use rustls::{ClientConfig, RootCertStore};
use tower::Service;
use vendor_sim::{Options, Sim};

pub(crate) fn vendor() -> Sim {
    Sim::start(Options::default()).unwrap()
}

/// A TLS configuration that trusts this authority.
pub(crate) fn trusting(ca_pem: &str) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca_pem.as_bytes()) {
        roots.add(certificate.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    builder.with_root_certificates(roots).with_no_client_auth()
}

/// Resolves every name to one address; names under `.invalid` do not exist (RFC 6761).
#[derive(Clone, Debug)]
pub(crate) struct To(pub(crate) SocketAddr);

impl Service<Name> for To {
    type Response = std::iter::Once<SocketAddr>;
    type Error = io::Error;
    type Future = Ready<io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        ready(match name.as_str().ends_with(".invalid") {
            true => Err(io::Error::other("no such host")),
            false => Ok(std::iter::once(self.0)),
        })
    }
}
