//! Certificates and keys as PEM, from a file or from memory.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::error::{PemError, TlsError};

/// More than a bundle of every CA there is, and little enough to read whatever is named by mistake.
const MAX_FILE_BYTES: u64 = 4 * 1024 * 1024;

/// Reads a file, and makes something of it.
pub(super) fn read<T>(
    path: &Path,
    parse: impl FnOnce(&[u8]) -> Result<T, PemError>,
) -> Result<T, TlsError> {
    let failed = |source| TlsError::Read {
        path: path.to_owned(),
        source,
    };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed)?;
    let read = file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes);
    if read.map_err(failed)? as u64 > MAX_FILE_BYTES {
        return Err(TlsError::TooLong {
            path: path.to_owned(),
            limit: MAX_FILE_BYTES,
        });
    }
    parse(&bytes).map_err(|source| TlsError::File {
        path: path.to_owned(),
        source,
    })
}

/// Every certificate, at least one.
pub(super) fn certificates(bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, PemError> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bytes).collect();
    let certificates = certificates.map_err(PemError::Malformed)?;
    if certificates.is_empty() {
        return Err(PemError::NoCertificate {
            found: labels(bytes),
        });
    }
    Ok(certificates)
}

/// The first private key.
pub(super) fn key(bytes: &[u8]) -> Result<PrivateKeyDer<'static>, PemError> {
    match PrivateKeyDer::from_pem_slice(bytes) {
        Ok(key) => Ok(key),
        Err(pem::Error::NoItemsFound) => {
            let found = labels(bytes);
            let encrypted = |label: &String| label.contains("ENCRYPTED");
            match found.iter().any(encrypted) {
                true => Err(PemError::EncryptedKey),
                false => Err(PemError::NoKey { found }),
            }
        }
        Err(error) => Err(PemError::Malformed(error)),
    }
}

/// What the sections are called.
fn labels(bytes: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(bytes);
    let labels = text.lines().filter_map(|line| {
        let label = line.trim().strip_prefix("-----BEGIN ")?;
        label.strip_suffix("-----").map(str::to_owned)
    });
    labels.collect()
}
