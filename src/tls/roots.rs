//! Whom one end trusts: the CAs from which the other's certificate has to come.

use std::path::Path;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;

use super::error::{PemError, TlsError};
use super::pem;

/// The certificates of CAs that are trusted, at least one.
#[derive(Debug, Clone)]
pub struct TlsRoots {
    pub(super) store: Arc<RootCertStore>,
}

impl TlsRoots {
    /// Trusts every certificate in this PEM.
    ///
    /// # Errors
    ///
    /// [`TlsError::Pem`] where there is none, or one that is malformed.
    pub fn from_pem(pem: &[u8]) -> Result<Self, TlsError> {
        Ok(Self::new(pem::certificates(pem)?)?)
    }

    /// Trusts every certificate in this file of PEM.
    ///
    /// # Errors
    ///
    /// [`TlsError::Read`] and [`TlsError::TooLong`] where it cannot be read, [`TlsError::File`] where there is
    /// no certificate in it, or one that is malformed.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, TlsError> {
        pem::read(path.as_ref(), |bytes| Self::new(pem::certificates(bytes)?))
    }

    /// Trusts whom the operating system trusts. On Unix, `SSL_CERT_FILE` and `SSL_CERT_DIR` take the place of
    /// what it has. Certificates that are malformed are left out, as there are some in practice.
    ///
    /// # Errors
    ///
    /// [`TlsError::NoSystemRoots`] where there are none.
    pub fn system() -> Result<Self, TlsError> {
        let loaded = rustls_native_certs::load_native_certs();
        let mut store = RootCertStore::empty();
        let (added, _) = store.add_parsable_certificates(loaded.certs);
        if added == 0 {
            let reasons = loaded.errors.iter().map(ToString::to_string);
            return Err(TlsError::NoSystemRoots {
                reasons: reasons.collect(),
            });
        }
        Ok(Self {
            store: Arc::new(store),
        })
    }

    fn new(certificates: Vec<CertificateDer<'static>>) -> Result<Self, PemError> {
        let mut store = RootCertStore::empty();
        for certificate in certificates {
            let added = store.add(certificate);
            added.map_err(|error| PemError::InvalidCertificate(Box::new(error)))?;
        }
        Ok(Self {
            store: Arc::new(store),
        })
    }
}
