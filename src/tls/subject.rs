//! The subject of a client's certificate, by which a server calls the client in hooks and logs.
//!
//! The certificate was verified in the handshake. Its subject is text of the client's choice all
//! the same, so a log line gets it escaped and cut.

use rustls::pki_types::CertificateDer;
use x509_cert::certificate::{CertificateInner, Raw};
use x509_cert::der::Decode;

/// The maximum length in a log line of any text that a client can choose, in characters.
const MAX_SUBJECT_CHARS: usize = 64;

/// The subject of the first certificate, as RFC 4514 writes it.
pub(crate) fn subject(certificates: &[CertificateDer<'_>]) -> Option<String> {
    let parsed = CertificateInner::<Raw>::from_der(certificates.first()?).ok()?;
    Some(parsed.tbs_certificate().subject().to_string())
}

/// A subject for the log: escaped, and cut to a length that fits a line.
pub(crate) fn shown(subject: &str) -> String {
    subject.escape_debug().take(MAX_SUBJECT_CHARS).collect()
}
