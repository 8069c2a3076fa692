//! What one end shows to the other: a certificate, with those that lead from it to its CA, and its private key.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::Error;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};

use super::certificate::Facts;
use super::error::TlsError;
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
    /// [`TlsError::Pem`] where either is not what it should be, [`TlsError::KeyMismatch`] where they do not
    /// belong together, [`TlsError::Unusable`] where they are of a kind that is not supported.
    pub fn from_pem(certificate: &[u8], key: &[u8]) -> Result<Self, TlsError> {
        Self::new(pem::certificates(certificate)?, pem::key(key)?)
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
        let path = certificate.as_ref();
        let certificates = pem::read(path, |bytes| {
            let certificates = pem::certificates(bytes)?;
            // To name the file, if there is something wrong with it.
            certificates.first().map(Facts::of).transpose()?;
            Ok(certificates)
        })?;
        Self::new(certificates, pem::read(key.as_ref(), pem::key)?)
    }

    fn new(
        certificates: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Self, TlsError> {
        let first = certificates
            .first()
            .ok_or(super::PemError::NoCertificate { found: vec![] })?;
        let facts = Facts::of(first)?;
        let key = CertifiedKey::from_der(certificates, key, &provider());
        let key = key.map_err(|error| match error {
            Error::InconsistentKeys(_) => TlsError::KeyMismatch,
            error => TlsError::Unusable(Box::new(error)),
        })?;
        Ok(Self {
            key: Arc::new(key.into()),
            facts,
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
}

impl fmt::Debug for TlsIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsIdentity")
            .field("facts", &self.facts)
            .finish_non_exhaustive()
    }
}
