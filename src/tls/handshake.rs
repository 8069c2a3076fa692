//! Why a handshake failed, in terms that tell the reader what to do.
//!
//! rustls reports every detail but few problems by name; the common ones have names here. Problems
//! with certificates get our own wording, because rustls quotes what the peer put into its
//! certificate, which may be a hundred kilobytes per line. A client learns that the server rejected
//! its certificate only after its own handshake, with its first read.

use std::error::Error as StdError;
use std::io;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use rustls::{AlertDescription, CertificateError, Error, InvalidMessage};
use thiserror::Error;

use super::certificate::utc;

/// The maximum number of names that an error lists.
const MAX_NAMES: usize = 20;

/// Why a TLS handshake failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// What the peer sends is not TLS.
    #[error("the peer does not speak TLS")]
    NotTls,
    /// The peer closed the connection.
    #[error("the peer closed the connection during the TLS handshake")]
    Closed,
    /// The handshake took too long.
    #[error("the TLS handshake was not done within {timeout:?}")]
    Timeout {
        /// The time limit.
        timeout: Duration,
    },
    /// The peer's certificate is for other names.
    #[error(
        "the certificate of the peer is not for {expected:?}, but for {}",
        list(names)
    )]
    WrongName {
        /// The name that was expected.
        expected: String,
        /// The DNS names and IP addresses in the certificate.
        names: Vec<String>,
    },
    /// The peer's certificate comes from a CA that is not trusted.
    #[error("the certificate of the peer is from a CA that is not trusted here")]
    UnknownCa,
    /// The peer's certificate has expired.
    #[error("the certificate of the peer expired{}", on_date(*not_after))]
    Expired {
        /// When it expired, if known.
        not_after: Option<SystemTime>,
    },
    /// The peer's certificate is not valid yet, or this machine's clock is behind.
    #[error("the certificate of the peer is not valid yet{}", valid_from(*not_before))]
    NotYetValid {
        /// When it becomes valid, if known.
        not_before: Option<SystemTime>,
    },
    /// Something else is wrong with the peer's certificate.
    #[error("the certificate of the peer cannot be accepted: {reason}")]
    InvalidCertificate {
        /// The problem.
        reason: &'static str,
    },
    /// The peer presented no certificate, but one is required.
    #[error("the peer presented no certificate, which is required here")]
    NoCertificate,
    /// The peer requires a certificate, but none was presented to it.
    #[error("the peer requires a certificate")]
    CertificateRequired,
    /// The peer rejected the certificate that was presented to it.
    #[error("the peer does not accept the certificate that it was shown: {reason}")]
    CertificateRefused {
        /// The reason that its alert gives.
        reason: &'static str,
    },
    /// The two ends share no TLS version, cipher suite or signature algorithm.
    #[error("the two ends have no TLS version or algorithm in common")]
    Incompatible(#[source] Box<dyn StdError + Send + Sync>),
    /// Another TLS error occurred.
    #[error("the TLS handshake failed")]
    Protocol(#[source] Box<dyn StdError + Send + Sync>),
    /// The connection broke.
    #[error("the connection broke during the TLS handshake")]
    Io(#[source] io::Error),
}

impl HandshakeError {
    /// Explains the error with which a handshake failed.
    pub(super) fn of_handshake(error: io::Error) -> Self {
        use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
        match rustls_error(&error) {
            Some(error) => from_rustls(error.clone()),
            None => match error.kind() {
                BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof => Self::Closed,
                _ => Self::Io(error),
            },
        }
    }

    /// Explains an error of reading after the handshake, if the server rejected the client's
    /// certificate, or requires one. Returns [`None`] for any other error.
    #[cfg(feature = "client")]
    pub(crate) fn of_reading(error: &io::Error) -> Option<Self> {
        let Error::AlertReceived(alert) = rustls_error(error)? else {
            return None;
        };
        match from_alert(*alert) {
            error @ (Self::CertificateRequired | Self::CertificateRefused { .. }) => Some(error),
            _ => None,
        }
    }
}

fn rustls_error(error: &io::Error) -> Option<&Error> {
    error.get_ref()?.downcast_ref()
}

fn from_rustls(error: Error) -> HandshakeError {
    match error {
        Error::InvalidMessage(
            InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion,
        ) => HandshakeError::NotTls,
        Error::InvalidCertificate(problem) => from_certificate_error(problem),
        Error::NoCertificatesPresented => HandshakeError::NoCertificate,
        Error::AlertReceived(alert) => from_alert(alert),
        Error::PeerIncompatible(_) => HandshakeError::Incompatible(Box::new(error)),
        error => HandshakeError::Protocol(Box::new(error)),
    }
}

/// Explains what is wrong with the peer's certificate.
fn from_certificate_error(problem: CertificateError) -> HandshakeError {
    let time = |seconds| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
    match problem {
        CertificateError::NotValidForNameContext {
            expected,
            presented,
        } => HandshakeError::WrongName {
            expected: expected.to_str().into_owned(),
            names: presented
                .iter()
                .filter_map(|name| bare_name(name))
                .collect(),
        },
        // A CA with the same name but another key is another CA.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            HandshakeError::UnknownCa
        }
        CertificateError::Expired => HandshakeError::Expired { not_after: None },
        CertificateError::ExpiredContext { not_after, .. } => HandshakeError::Expired {
            not_after: time(not_after.as_secs()),
        },
        CertificateError::NotValidYet => HandshakeError::NotYetValid { not_before: None },
        CertificateError::NotValidYetContext { not_before, .. } => HandshakeError::NotYetValid {
            not_before: time(not_before.as_secs()),
        },
        problem => HandshakeError::InvalidCertificate {
            reason: reason(&problem),
        },
    }
}

fn reason(problem: &CertificateError) -> &'static str {
    use CertificateError as Problem;
    let other = match problem {
        Problem::BadEncoding => return "it is malformed",
        Problem::InvalidPurpose | Problem::InvalidPurposeContext { .. } => {
            return "it is not made for this purpose";
        }
        Problem::Revoked => return "it was revoked",
        Problem::UnsupportedSignatureAlgorithmContext { .. }
        | Problem::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            return "its signature algorithm is not supported";
        }
        Problem::Other(other) => other.0.downcast_ref(),
        _ => None,
    };
    match other {
        Some(webpki::Error::CaUsedAsEndEntity) => "it is a CA certificate; make one with CA:FALSE",
        Some(webpki::Error::UnsupportedCertVersion) => {
            "it is of version 1 or 2; make one of version 3, with a subjectAltName"
        }
        _ => "it does not follow the rules for certificates",
    }
}

/// Explains an alert from the peer.
fn from_alert(alert: AlertDescription) -> HandshakeError {
    use AlertDescription as Alert;
    let reason = match alert {
        Alert::CertificateRequired => return HandshakeError::CertificateRequired,
        Alert::ProtocolVersion | Alert::HandshakeFailure | Alert::InsufficientSecurity => {
            return HandshakeError::Incompatible(Box::new(Error::AlertReceived(alert)));
        }
        Alert::UnknownCA => "it is from a CA that is not trusted there",
        // Also sent if the certificate is from another CA with the same name.
        Alert::DecryptError => {
            "it is signed by a CA that is not trusted there, or with an unsupported algorithm"
        }
        Alert::CertificateExpired => "it expired, or is not valid yet",
        Alert::CertificateRevoked => "it was revoked",
        // Programs with rustls before 0.21 send it for any problem with a certificate.
        Alert::BadCertificate => {
            "its alert, bad_certificate, does not say why: the CA may not be trusted there, \
             the certificate may have expired or not be valid yet, be for another name, \
             or be malformed"
        }
        Alert::UnsupportedCertificate => "it is not made for this purpose",
        Alert::CertificateUnknown => "its alert, certificate_unknown, does not say why",
        Alert::AccessDenied => "the certificate is valid, but access is denied",
        _ => return HandshakeError::Protocol(Box::new(Error::AlertReceived(alert))),
    };
    HandshakeError::CertificateRefused { reason }
}

/// The name inside `DnsName("localhost")` or `IpAddress(0::1)`, the forms that rustls reports.
/// Other kinds of names do not identify servers.
fn bare_name(name: &str) -> Option<String> {
    let (kind, rest) = name.split_once('(')?;
    let name = rest.strip_suffix(')')?;
    match kind {
        "DnsName" => Some(name.trim_matches('"').to_owned()),
        "IpAddress" => {
            let address = name.parse::<IpAddr>();
            Some(address.map_or_else(|_| name.to_owned(), |address| address.to_string()))
        }
        _ => None,
    }
}

fn list(names: &[String]) -> String {
    let shown: Vec<_> = names.iter().take(MAX_NAMES).map(String::as_str).collect();
    match names.len() {
        0 => "no name at all: it needs a subjectAltName".to_owned(),
        count if count > shown.len() => {
            format!("{} and {} more", shown.join(", "), count - shown.len())
        }
        _ => shown.join(", "),
    }
}

fn on_date(time: Option<SystemTime>) -> String {
    time.map_or_else(String::new, |time| format!(" on {}", utc(time)))
}

fn valid_from(time: Option<SystemTime>) -> String {
    time.map_or_else(String::new, |time| format!(" (valid from {})", utc(time)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vague_alert_is_not_explained_beyond_what_it_says() {
        let told = |alert| from_alert(alert).to_string();
        let refused = "the peer does not accept the certificate that it was shown: ";
        for (alert, reason) in [
            (
                AlertDescription::BadCertificate,
                "its alert, bad_certificate, does not say why: the CA may not be trusted there, \
                 the certificate may have expired or not be valid yet, be for another name, \
                 or be malformed",
            ),
            (
                AlertDescription::CertificateUnknown,
                "its alert, certificate_unknown, does not say why",
            ),
            (
                AlertDescription::UnknownCA,
                "it is from a CA that is not trusted there",
            ),
            (
                AlertDescription::CertificateExpired,
                "it expired, or is not valid yet",
            ),
        ] {
            assert_eq!(told(alert), format!("{refused}{reason}"));
        }
    }
}
