//! A throw-away certificate authority that vouches for any host name, minting on demand.
//!
//! Strict verifiers (OpenSSL's `X509_STRICT`, webpki, Go) want authority and subject key ids, key
//! usages and basic constraints on every certificate; so each carries them.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType, SerialNumber,
};
use tokio_rustls::rustls::crypto::ring::sign::any_supported_type;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;

use crate::counts::lock;

const DAY: Duration = Duration::from_secs(86_400);
/// Some clients refuse leaf certificates that live longer than 398 days.
const LEAF_DAYS: u32 = 397;
const MAX_CACHED: usize = 4_096;

/// A way in which a host's certificate can be wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum BadCertificate {
    /// Vouches for `somebody-else.invalid`.
    WrongName,
    /// Signed by an authority that is not in `ca.pem`, under the same name.
    UnknownCa,
    /// Ended yesterday.
    Expired,
}

impl FromStr for BadCertificate {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        match word {
            "wrong-name" => Ok(Self::WrongName),
            "unknown-ca" => Ok(Self::UnknownCa),
            "expired" => Ok(Self::Expired),
            other => Err(format!("`{other}` is not one of wrong-name, unknown-ca, expired")),
        }
    }
}

/// A certificate could not be made.
#[derive(Debug)]
pub(crate) struct MintError(String);

impl fmt::Display for MintError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot make a certificate: {}", self.0)
    }
}

impl std::error::Error for MintError {}

impl From<rcgen::Error> for MintError {
    fn from(e: rcgen::Error) -> Self {
        Self(e.to_string())
    }
}

impl From<tokio_rustls::rustls::Error> for MintError {
    fn from(e: tokio_rustls::rustls::Error) -> Self {
        Self(e.to_string())
    }
}

type Issuer = CertifiedIssuer<'static, KeyPair>;

/// The authority, its impostor, and the certificates that they issued.
pub(crate) struct Authority {
    issuer: Issuer,
    impostor: Issuer,
    /// One key serves all leaves: what differs is the name that it is vouched for.
    key: KeyPair,
    bad: Vec<(String, BadCertificate)>,
    issued: Mutex<HashMap<String, Arc<CertifiedKey>>>,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("bad", &self.bad).finish_non_exhaustive()
    }
}

impl Authority {
    /// Makes a new authority. `bad` lists hosts whose certificates are wrong on purpose, beside
    /// `bad-cert.*`, `unknown-ca.*` and `expired.*`.
    pub(crate) fn new(bad: Vec<(String, BadCertificate)>) -> Result<Self, MintError> {
        Ok(Self {
            issuer: issuer()?,
            impostor: issuer()?,
            key: KeyPair::generate()?,
            bad,
            issued: Mutex::default(),
        })
    }

    pub(crate) fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// The certificate for a host; an empty name stands for a client that sent none.
    pub(crate) fn certificate(&self, host: &str) -> Result<Arc<CertifiedKey>, MintError> {
        let host = host.to_ascii_lowercase();
        if let Some(found) = lock(&self.issued).get(&host) {
            return Ok(Arc::clone(found));
        }
        let minted = Arc::new(self.mint(&host)?);
        let mut issued = lock(&self.issued);
        if issued.len() >= MAX_CACHED {
            issued.clear();
        }
        Ok(Arc::clone(issued.entry(host).or_insert(minted)))
    }

    fn wrong(&self, host: &str) -> Option<BadCertificate> {
        if let Some((_, how)) = self.bad.iter().find(|(h, _)| h == host) {
            return Some(*how);
        }
        match host.split_once('.').map_or(host, |(first, _)| first) {
            "bad-cert" | "wrong-name" => Some(BadCertificate::WrongName),
            "unknown-ca" => Some(BadCertificate::UnknownCa),
            "expired" => Some(BadCertificate::Expired),
            _ => None,
        }
    }

    fn mint(&self, host: &str) -> Result<CertifiedKey, MintError> {
        let wrong = self.wrong(host);
        let name = match wrong {
            Some(BadCertificate::WrongName) => "somebody-else.invalid",
            _ => host,
        };
        let mut params = leaf(name)?;
        if wrong == Some(BadCertificate::Expired) {
            let end = SystemTime::now() - DAY;
            params.not_before = (end - 30 * DAY).into();
            params.not_after = end.into();
        }
        let issuer = if wrong == Some(BadCertificate::UnknownCa) { &self.impostor } else { &self.issuer };
        let certificate = params.signed_by(&self.key, issuer)?;
        let key = PrivateKeyDer::try_from(self.key.serialize_der()).map_err(|e| MintError(e.to_owned()))?;
        Ok(CertifiedKey::new(vec![certificate.der().clone()], any_supported_type(&key)?))
    }
}

impl ResolvesServerCert for Authority {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.certificate(hello.server_name().unwrap_or_default()).ok()
    }
}

fn issuer() -> Result<Issuer, MintError> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name.push(DnType::CommonName, "vendor-sim throw-away CA");
    params.distinguished_name.push(DnType::OrganizationName, "Farcall vendor-sim");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    valid_for(&mut params, 3_650);
    Ok(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?)
}

fn leaf(host: &str) -> Result<CertificateParams, MintError> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.subject_alt_names = if host.is_empty() {
        let loopback = [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)];
        let names = [SanType::DnsName("localhost".try_into()?)];
        names.into_iter().chain(loopback.map(SanType::IpAddress)).collect()
    } else {
        vec![SanType::DnsName(host.try_into()?)]
    };
    // X.520 bounds a common name at 64 characters; the names that count are the alternative ones.
    let common = if host.is_empty() { "localhost" } else { host };
    params.distinguished_name.push(DnType::CommonName, common.get(..64).unwrap_or(common));
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    params.serial_number = Some(SerialNumber::from_slice(&serial(host)));
    valid_for(&mut params, LEAF_DAYS);
    Ok(params)
}

fn valid_for(params: &mut CertificateParams, days: u32) {
    let start = SystemTime::now() - DAY;
    params.not_before = start.into();
    params.not_after = (start + days * DAY).into();
}

/// A positive serial number, one for each name.
fn serial(host: &str) -> [u8; 16] {
    let digest = ring::digest::digest(&ring::digest::SHA256, host.as_bytes());
    let mut serial = [0; 16];
    serial.copy_from_slice(&digest.as_ref()[..16]);
    serial[0] = serial[0] & 0x7f | 0x40;
    serial
}
