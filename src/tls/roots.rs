//! Whom one end trusts: the CAs from which the other's certificate has to come.
//!
//! A CA is trusted because it was named, and not because of what its certificate says: whether that has expired is
//! not looked at, as with rustls in general.

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::RootCertStore;

use super::certificate::Facts;
use super::error::{PemError, TlsError};
use super::pem;

/// The certificates of CAs that are trusted, at least one.
#[derive(Debug, Clone)]
pub struct TlsRoots {
    pub(super) store: Arc<RootCertStore>,
    facts: Arc<[Facts]>,
}

impl TlsRoots {
    /// Trusts every certificate in this PEM.
    ///
    /// # Errors
    ///
    /// [`TlsError::Pem`] where there is none, or one that is malformed.
    pub fn from_pem(pem: &[u8]) -> Result<Self, TlsError> {
        Ok(Self::parse(pem)?)
    }

    /// Trusts every certificate in this file of PEM.
    ///
    /// # Errors
    ///
    /// [`TlsError::Read`] and [`TlsError::TooLong`] where it cannot be read, [`TlsError::File`] where there is
    /// no certificate in it, or one that is malformed.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, TlsError> {
        pem::read(path.as_ref(), Self::parse)
    }

    /// Trusts whom the operating system trusts. On Unix, `SSL_CERT_FILE` and `SSL_CERT_DIR` take the place of
    /// what it has. Certificates that are malformed are left out, as there are some in practice.
    ///
    /// # Errors
    ///
    /// [`TlsError::NoSystemRoots`] where there are none.
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

    /// How many certificates they are.
    #[expect(clippy::len_without_is_empty, reason = "there is always one")]
    pub fn len(&self) -> usize {
        self.store.len()
    }

    /// When the first of them expires, as far as they say. They are trusted beyond that.
    pub fn not_after(&self) -> Option<SystemTime> {
        self.facts.iter().map(|facts| facts.not_after).min()
    }

    /// How many of them are of no CA, so that nobody has a certificate from them.
    pub fn count_useless(&self) -> usize {
        let can_vouch = |facts: &&Facts| facts.can_vouch();
        self.facts.len() - self.facts.iter().filter(can_vouch).count()
    }

    fn parse(pem: &[u8]) -> Result<Self, PemError> {
        let certificates = pem::certificates(pem)?;
        // What is not understood of one is not told; rustls decides whether it is a CA that can be trusted.
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
