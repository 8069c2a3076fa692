//! What one end shows to the other: a certificate, with those that lead from it to its CA, and its private key.
//!
//! That the two belong together is known from here on: one that does not is refused before a server starts, or goes
//! on, with it.

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
    /// Takes PEM: the certificate first, and behind it those that lead to its CA, if there are any; and the
    /// private key, as PKCS #8, PKCS #1 or SEC1.
    ///
    /// # Errors
    ///
    /// [`TlsError::Pem`] where either is not what it should be or they do not belong together, and
    /// [`TlsError::Unusable`] where they are of a kind that is not supported.
    pub fn from_pem(certificate: &[u8], key: &[u8]) -> Result<Self, TlsError> {
        Self::new(Chain::from_pem(certificate)?, pem::key(key)?)
    }

    /// [`from_pem`](Self::from_pem), with what these files hold. They may be the same file.
    ///
    /// # Errors
    ///
    /// [`TlsError::Read`] and [`TlsError::TooLong`] where a file cannot be read, and [`TlsError::File`] where it
    /// is not what it should be; otherwise as there.
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

    /// The DNS names and addresses that the certificate is for.
    pub fn names(&self) -> &[String] {
        &self.facts.names
    }

    /// From when on the certificate is valid.
    pub fn not_before(&self) -> SystemTime {
        self.facts.not_before
    }

    /// Until when the certificate is valid.
    pub fn not_after(&self) -> SystemTime {
        self.facts.not_after
    }

    /// Why clients will refuse the certificate if a server shows it at this time. None of it keeps a server from
    /// trying.
    pub fn unfit_for_server(&self, at: SystemTime) -> Vec<UnfitCertificate> {
        self.facts.unfit_for_server(at)
    }
}

/// Certificates, and what the first of them says.
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
