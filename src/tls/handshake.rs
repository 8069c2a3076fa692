//! How a handshake fails, said so that whoever reads it knows what to do.
//!
//! rustls tells everything and names little of it; here is what people come across, each by a name. What a server
//! thinks of a client's certificate the client learns only after its own handshake, with its first read.

use std::error::Error as StdError;
use std::io;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use rustls::{AlertDescription, CertificateError, Error, InvalidMessage};
use thiserror::Error;

use super::certificate::utc;

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
    #[error("the certificate of the peer cannot be accepted")]
    InvalidCertificate(#[source] Box<dyn StdError + Send + Sync>),
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
    /// What an error of a stream of TLS means, if it is not about the connection under it.
    pub(crate) fn of_stream(error: &io::Error) -> Option<Self> {
        let error = error.get_ref()?.downcast_ref::<Error>()?;
        Some(error.clone().into())
    }
}

impl From<io::Error> for HandshakeError {
    fn from(error: io::Error) -> Self {
        use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
        if let Some(error) = Self::of_stream(&error) {
            return error;
        }
        match error.kind() {
            BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof => Self::Closed,
            _ => Self::Io(error),
        }
    }
}

impl From<Error> for HandshakeError {
    fn from(error: Error) -> Self {
        match error {
            Error::InvalidMessage(
                InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion,
            ) => Self::NotTls,
            Error::InvalidCertificate(problem) => certificate(problem),
            Error::NoCertificatesPresented => Self::NoCertificate,
            Error::AlertReceived(alert) => received(alert),
            Error::PeerIncompatible(_) => Self::Incompatible(Box::new(error)),
            error => Self::Protocol(Box::new(error)),
        }
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
            names: presented.iter().map(|name| plain(name)).collect(),
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
        problem => HandshakeError::InvalidCertificate(Box::new(Error::InvalidCertificate(problem))),
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
        // To a CA of the same name with another key the signature is wrong.
        Alert::UnknownCA | Alert::DecryptError => "it is from a CA that is not trusted there",
        Alert::CertificateExpired => "it expired, or is not valid yet",
        Alert::CertificateRevoked => "it was revoked",
        Alert::BadCertificate => "it is malformed, or for another name",
        Alert::UnsupportedCertificate => "it is not made for this purpose",
        Alert::CertificateUnknown | Alert::AccessDenied => "it says no more",
        _ => return HandshakeError::Protocol(Box::new(Error::AlertReceived(alert))),
    };
    HandshakeError::CertificateRefused { reason }
}

/// The name in `DnsName("localhost")` or `IpAddress(0::1)`, which is how they come from rustls.
fn plain(name: &str) -> String {
    let inner = name.split_once('(').and_then(|(kind, rest)| {
        matches!(kind, "DnsName" | "IpAddress").then_some(rest.strip_suffix(')')?)
    });
    let name = inner.unwrap_or(name).trim_matches('"');
    match name.parse::<IpAddr>() {
        Ok(address) => address.to_string(),
        Err(_) => name.to_owned(),
    }
}

fn list(names: &[String]) -> String {
    match names {
        [] => "no name at all".to_owned(),
        _ => names.join(", "),
    }
}

fn on(time: Option<SystemTime>) -> String {
    time.map_or_else(String::new, |time| format!(" on {}", utc(time)))
}

fn before(time: Option<SystemTime>) -> String {
    time.map_or_else(String::new, |time| format!(", but from {} on", utc(time)))
}
