//! How a handshake fails, said so that whoever reads it knows what to do.
//!
//! rustls tells everything and names little of it; here is what people come across, each by a name. What is wrong
//! with a certificate is told in words of our own: those of rustls quote what the peer has put into it, which may be
//! a hundred kilobytes a line. What a server thinks of a client's certificate the client learns only after its own
//! handshake, with its first read.

use std::error::Error as StdError;
use std::io;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use rustls::{AlertDescription, CertificateError, Error, InvalidMessage};
use thiserror::Error;

use super::certificate::utc;

/// More names than that are not told.
const MAX_NAMES: usize = 20;

/// Why two ends do not come to speak TLS.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// What the peer sends is not TLS.
    #[error("the peer does not speak TLS")]
    NotTls,
    /// The peer has closed the connection.
    #[error("the peer closed the connection during the TLS handshake")]
    Closed,
    /// The handshake took too long.
    #[error("the TLS handshake was not done within {timeout:?}")]
    Timeout {
        /// How long it may take.
        timeout: Duration,
    },
    /// The peer's certificate is for other names.
    #[error(
        "the certificate of the peer is not for {expected:?}, but for {}",
        list(names)
    )]
    WrongName {
        /// The name that was looked for.
        expected: String,
        /// The names that the certificate is for.
        names: Vec<String>,
    },
    /// The peer's certificate comes from a CA that is not trusted.
    #[error("the certificate of the peer is from a CA that is not trusted here")]
    UnknownCa,
    /// The peer's certificate was valid, and is no longer.
    #[error("the certificate of the peer expired{}", on(*not_after))]
    Expired {
        /// Until when it was valid, where that is known.
        not_after: Option<SystemTime>,
    },
    /// The peer's certificate is not valid yet, or this machine's clock is slow.
    #[error("the certificate of the peer is not valid yet{}", before(*not_before))]
    NotYetValid {
        /// From when on it is valid, where that is known.
        not_before: Option<SystemTime>,
    },
    /// Something else is wrong with the peer's certificate.
    #[error("the certificate of the peer cannot be accepted: {reason}")]
    InvalidCertificate {
        /// What it is.
        reason: &'static str,
    },
    /// The peer has to present a certificate, and did not.
    #[error("the peer presented no certificate, which is required here")]
    NoCertificate,
    /// The peer requires a certificate, and none was presented to it.
    #[error("the peer requires a certificate")]
    CertificateRequired,
    /// The peer did not accept the certificate that was presented to it.
    #[error("the peer does not accept the certificate that it was shown: {reason}")]
    CertificateRefused {
        /// What it says of it.
        reason: &'static str,
    },
    /// There is no version of TLS, no cipher and no signature that both ends have.
    #[error("both ends have no version or algorithm of TLS in common")]
    Incompatible(#[source] Box<dyn StdError + Send + Sync>),
    /// Something else went wrong in TLS.
    #[error("the TLS handshake failed")]
    Protocol(#[source] Box<dyn StdError + Send + Sync>),
    /// The connection broke.
    #[error("the connection broke during the TLS handshake")]
    Io(#[source] io::Error),
}

impl HandshakeError {
    /// Why a handshake failed with this error of its stream.
    pub(super) fn of_handshake(error: io::Error) -> Self {
        use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
        match of_rustls(&error) {
            Some(error) => named(error.clone()),
            None => match error.kind() {
                BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof => Self::Closed,
                _ => Self::Io(error),
            },
        }
    }

    /// What a server has to say of the client's certificate after the handshake, if that is why reading failed.
    pub(crate) fn of_reading(error: &io::Error) -> Option<Self> {
        let Error::AlertReceived(alert) = of_rustls(error)? else {
            return None;
        };
        match received(*alert) {
            error @ (Self::CertificateRequired | Self::CertificateRefused { .. }) => Some(error),
            _ => None,
        }
    }
}

fn of_rustls(error: &io::Error) -> Option<&Error> {
    error.get_ref()?.downcast_ref()
}

fn named(error: Error) -> HandshakeError {
    match error {
        Error::InvalidMessage(
            InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion,
        ) => HandshakeError::NotTls,
        Error::InvalidCertificate(problem) => certificate(problem),
        Error::NoCertificatesPresented => HandshakeError::NoCertificate,
        Error::AlertReceived(alert) => received(alert),
        Error::PeerIncompatible(_) => HandshakeError::Incompatible(Box::new(error)),
        error => HandshakeError::Protocol(Box::new(error)),
    }
}

/// What is wrong with the peer's certificate.
fn certificate(problem: CertificateError) -> HandshakeError {
    let time = |seconds| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
    match problem {
        CertificateError::NotValidForNameContext {
            expected,
            presented,
        } => HandshakeError::WrongName {
            expected: expected.to_str().into_owned(),
            names: presented.iter().filter_map(|name| plain(name)).collect(),
        },
        // A CA of the same name with another key is another CA.
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
            return "it is signed in a way that is not supported";
        }
        Problem::Other(other) => other.0.downcast_ref(),
        _ => None,
    };
    match other {
        Some(webpki::Error::CaUsedAsEndEntity) => {
            "it is that of a CA; make one that is none (CA:FALSE)"
        }
        Some(webpki::Error::UnsupportedCertVersion) => {
            "it is of version 1 or 2; make one of version 3, with a subjectAltName"
        }
        _ => "it does not follow the rules for certificates",
    }
}

/// What the peer thinks of this end.
fn received(alert: AlertDescription) -> HandshakeError {
    use AlertDescription as Alert;
    let reason = match alert {
        Alert::CertificateRequired => return HandshakeError::CertificateRequired,
        Alert::ProtocolVersion | Alert::HandshakeFailure | Alert::InsufficientSecurity => {
            return HandshakeError::Incompatible(Box::new(Error::AlertReceived(alert)));
        }
        Alert::UnknownCA => "it is from a CA that is not trusted there",
        // As is said of one from another CA of the same name.
        Alert::DecryptError => {
            "it is not signed by a CA that is trusted there, or in an unknown way"
        }
        Alert::CertificateExpired => "it expired, or is not valid yet",
        Alert::CertificateRevoked => "it was revoked",
        // Programs with rustls before 0.21 send it for whatever is wrong with a certificate.
        Alert::BadCertificate => {
            "its alert, bad_certificate, does not say why: the CA may not be trusted there, the certificate may \
             have expired or not be valid yet, be for another name, or be malformed"
        }
        Alert::UnsupportedCertificate => "it is not made for this purpose",
        Alert::CertificateUnknown => "its alert, certificate_unknown, does not say why",
        Alert::AccessDenied => "the certificate is valid, but access is denied",
        _ => return HandshakeError::Protocol(Box::new(Error::AlertReceived(alert))),
    };
    HandshakeError::CertificateRefused { reason }
}

/// The name in `DnsName("localhost")` or `IpAddress(0::1)`, which is how they come from rustls. Others are of no
/// use for a server.
fn plain(name: &str) -> Option<String> {
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

fn on(time: Option<SystemTime>) -> String {
    time.map_or_else(String::new, |time| format!(" on {}", utc(time)))
}

fn before(time: Option<SystemTime>) -> String {
    time.map_or_else(String::new, |time| format!(", but from {} on", utc(time)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alert_that_does_not_say_what_is_wrong_with_a_certificate_is_not_taken_to_say_it() {
        let told = |alert| received(alert).to_string();
        let refused = "the peer does not accept the certificate that it was shown: ";
        for (alert, reason) in [
            (
                AlertDescription::BadCertificate,
                "its alert, bad_certificate, does not say why: the CA may not be trusted there, the certificate may \
                 have expired or not be valid yet, be for another name, or be malformed",
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
