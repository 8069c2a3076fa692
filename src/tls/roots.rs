//! Whom one end trusts: the CAs that the other end's certificate has to come from.
//!
//! A CA is trusted because it was configured, not because of what its certificate states: as usual
//! with rustls, its expiry is not checked.

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::RootCertStore;

use super::certificate::Facts;
use super::error::{PemError, TlsError};
use super::pem;

/// The CA certificates that are trusted; there is at least one.
#[derive(Debug, Clone)]
pub struct TlsRoots {
    pub(super) store: Arc<RootCertStore>,
    facts: Arc<[Facts]>,
}

impl TlsRoots {
    /// Trusts every certificate in this PEM text.
    ///
    /// # Errors
    ///
    /// [`TlsError::Pem`] if there is no certificate, or an invalid one.
    pub fn from_pem(pem: &[u8]) -> Result<Self, TlsError> {
        Ok(Self::parse(pem)?)
    }

    /// Trusts every certificate in this PEM file.
    ///
    /// # Errors
    ///
    /// [`TlsError::Read`] and [`TlsError::TooLong`] if the file cannot be read,
    /// [`TlsError::NotAPath`] if PEM text was given as the path, and [`TlsError::File`] if the file
    /// contains no certificate, or an invalid one.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, TlsError> {
        pem::read(path.as_ref(), Self::parse)
    }

    /// Trusts the CAs that the operating system trusts. On Unix, the environment variables
    /// `SSL_CERT_FILE` and `SSL_CERT_DIR` override the system's locations. Invalid certificates are
    /// skipped, because some systems have them.
    ///
    /// # Errors
    ///
    /// [`TlsError::NoSystemRoots`] if no valid certificate is found.
    pub fn system() -> Result<Self, TlsError> {
        let loaded = rustls_native_certs::load_native_certs();
        let facts = loaded.certs.iter().map(Facts::of).filter_map(Result::ok);
        let facts = facts.collect();
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
            facts,
        })
    }

    /// The number of certificates.
    #[expect(clippy::len_without_is_empty, reason = "there is always one")]
    pub fn len(&self) -> usize {
        self.store.len()
    }

    /// When the first of them expires, or [`None`] if that is unknown. They stay trusted after
    /// that.
    pub fn not_after(&self) -> Option<SystemTime> {
        self.facts.iter().map(|facts| facts.not_after).min()
    }

    /// The number of certificates that are neither CA certificates nor self-signed: no peer is
    /// accepted because of them.
    pub fn count_useless(&self) -> usize {
        let can_vouch = |facts: &&Facts| facts.can_vouch();
        self.facts.len() - self.facts.iter().filter(can_vouch).count()
    }

    fn parse(pem: &[u8]) -> Result<Self, PemError> {
        let certificates = pem::certificates(pem)?;
        // Certificates that cannot be parsed here are only missing from the facts; rustls decides
        // below whether they can be trusted.
        let facts = certificates.iter().map(Facts::of).filter_map(Result::ok);
        let facts = facts.collect();
        let mut store = RootCertStore::empty();
        for certificate in certificates {
            let added = store.add(certificate);
            added.map_err(|error| PemError::InvalidCertificate(Box::new(error)))?;
        }
        Ok(Self {
            store: Arc::new(store),
            facts,
        })
    }
}
