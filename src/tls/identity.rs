//! What one end presents to the other: its certificate, the intermediate certificates that lead to
//! its CA, and its private key.
//!
//! Certificate and key are checked to match, so a server neither starts nor reloads with a pair
//! that does not.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::Error;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};

use super::certificate::{Facts, UnfitCertificate};
use super::error::{PemError, TlsError};
use super::{pem, provider};

/// A certificate and its private key.
#[derive(Clone)]
pub struct TlsIdentity {
    pub(super) key: Arc<SingleCertAndKey>,
    pub(super) facts: Facts,
}

impl TlsIdentity {
    /// Parses PEM: `certificate` holds the certificate, followed by the intermediate certificates
    /// that lead to its CA, if any; `key` holds the private key, as PKCS #8, PKCS #1 or SEC1.
    ///
    /// # Errors
    ///
    /// [`TlsError::Pem`] if either is invalid or the key does not match the certificate, and
    /// [`TlsError::Unusable`] if they are of an unsupported kind.
    pub fn from_pem(certificate: &[u8], key: &[u8]) -> Result<Self, TlsError> {
        Self::new(Chain::from_pem(certificate)?, pem::key(key)?)
    }

    /// [`from_pem`](Self::from_pem) with the contents of these files. They may be the same file.
    ///
    /// # Errors
    ///
    /// [`TlsError::Read`] and [`TlsError::TooLong`] if a file cannot be read,
    /// [`TlsError::NotAPath`] if PEM text was given as a path, and [`TlsError::File`] if a file is
    /// invalid or the key does not match; otherwise the same as [`from_pem`](Self::from_pem).
    pub fn from_files(
        certificate: impl AsRef<Path>,
        key: impl AsRef<Path>,
    ) -> Result<Self, TlsError> {
        let chain = pem::read(certificate.as_ref(), Chain::from_pem)?;
        let key = key.as_ref();
        let private = pem::read(key, pem::key)?;
        Self::new(chain, private).map_err(|error| match error {
            TlsError::Pem(source) => TlsError::File {
                path: key.to_owned(),
                source,
            },
            error => error,
        })
    }

    fn new(chain: Chain, key: PrivateKeyDer<'static>) -> Result<Self, TlsError> {
        let key = CertifiedKey::from_der(chain.certificates, key, &provider());
        let key = key.map_err(|error| match error {
            Error::InconsistentKeys(_) => PemError::KeyMismatch.into(),
            Error::General(_) => PemError::UnsupportedKey.into(),
            error => TlsError::Unusable(Box::new(error)),
        })?;
        Ok(Self {
            key: Arc::new(key.into()),
            facts: chain.facts,
        })
    }

    /// The DNS names and IP addresses that the certificate is for.
    pub fn names(&self) -> &[String] {
        &self.facts.names
    }

    /// When the certificate becomes valid.
    pub fn not_before(&self) -> SystemTime {
        self.facts.not_before
    }

    /// When the certificate expires.
    pub fn not_after(&self) -> SystemTime {
        self.facts.not_after
    }

    /// Why clients will reject the certificate if a server presents it at this time; empty if
    /// nothing is wrong. A server can use the certificate all the same.
    pub fn unfit_for_server(&self, at: SystemTime) -> Vec<UnfitCertificate> {
        self.facts.unfit_for_server(at)
    }
}

/// Certificates, and what the first one states.
struct Chain {
    certificates: Vec<CertificateDer<'static>>,
    facts: Facts,
}

impl Chain {
    fn from_pem(bytes: &[u8]) -> Result<Self, PemError> {
        let certificates = pem::certificates(bytes)?;
        let facts = match certificates.first() {
            Some(first) => Facts::of(first)?,
            None => return Err(PemError::NoCertificate { found: Vec::new() }),
        };
        if !facts.has_extensions {
            return Err(PemError::OldVersion);
        }
        Ok(Self {
            certificates,
            facts,
        })
    }
}

impl fmt::Debug for TlsIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsIdentity")
            .field("facts", &self.facts)
            .finish_non_exhaustive()
    }
}
