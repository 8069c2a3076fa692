//! What a certificate states: its names, its validity period and its purpose.
//!
//! rustls checks them in a peer's certificate but does not report them for our own, so they are
//! read here. They only inform people: rustls alone decides whom to accept.

use std::error::Error;
use std::fmt;
use std::net::IpAddr;
use std::time::SystemTime;

use rustls::pki_types::CertificateDer;
use x509_cert::certificate::{CertificateInner, Raw, Version};
use x509_cert::der::oid::db::rfc5280::ID_KP_SERVER_AUTH;
use x509_cert::der::{DateTime, Decode};
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{BasicConstraints, ExtendedKeyUsage, SubjectAltName};

use super::error::PemError;

/// Why peers will reject a certificate, whoever signed it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum UnfitCertificate {
    /// It has expired.
    Expired {
        /// When it expired.
        not_after: SystemTime,
    },
    /// It is not valid yet.
    NotYetValid {
        /// When it becomes valid.
        not_before: SystemTime,
    },
    /// It is a CA certificate, which is not accepted from a server.
    Ca,
    /// It has no DNS name and no IP address in its subjectAltName; the subject does not count.
    NoNames,
    /// Its extended key usage does not allow servers.
    WrongPurpose,
}

impl fmt::Display for UnfitCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Expired { not_after } => write!(f, "it expired on {}", utc(*not_after)),
            Self::NotYetValid { not_before } => {
                write!(f, "it is not valid before {}", utc(*not_before))
            }
            Self::Ca => f.write_str("it is a CA certificate, not a server certificate"),
            Self::NoNames => f.write_str("it has no subjectAltName with a DNS name or an address"),
            Self::WrongPurpose => f.write_str("it is not made for a server"),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Facts {
    /// DNS names and IP addresses.
    pub(super) names: Vec<String>,
    pub(super) not_before: SystemTime,
    pub(super) not_after: SystemTime,
    /// Whether it is version 3, which has names and purposes. CA certificates do not need it.
    pub(super) has_extensions: bool,
    /// Whether it may sign other certificates.
    is_ca: bool,
    /// Whether it names itself as its issuer.
    is_self_issued: bool,
    /// Whether its extended key usage allows servers.
    is_for_servers: bool,
}

impl Facts {
    pub(super) fn of(certificate: &CertificateDer<'_>) -> Result<Self, PemError> {
        // Raw, to be no stricter than rustls, which accepts serial numbers that are too long.
        let parsed = CertificateInner::<Raw>::from_der(certificate).map_err(invalid)?;
        let body = parsed.tbs_certificate();
        let names = body.get_extension::<SubjectAltName>().map_err(invalid)?;
        let names = names.map(|(_, names)| names.0).unwrap_or_default();
        let purposes = body.get_extension::<ExtendedKeyUsage>().map_err(invalid)?;
        let constraints = body.get_extension::<BasicConstraints>().map_err(invalid)?;
        let validity = body.validity();
        Ok(Self {
            names: names.iter().filter_map(name).collect(),
            not_before: validity.not_before.to_system_time(),
            not_after: validity.not_after.to_system_time(),
            has_extensions: body.version() == Version::V3,
            is_ca: constraints.is_some_and(|(_, constraints)| constraints.ca),
            is_self_issued: body.issuer() == body.subject(),
            is_for_servers: purposes.is_none_or(|(_, all)| all.0.contains(&ID_KP_SERVER_AUTH)),
        })
    }

    pub(super) fn unfit_for_server(&self, at: SystemTime) -> Vec<UnfitCertificate> {
        let (not_before, not_after) = (self.not_before, self.not_after);
        let reasons = [
            (not_after < at).then_some(UnfitCertificate::Expired { not_after }),
            (not_before > at).then_some(UnfitCertificate::NotYetValid { not_before }),
            self.is_ca.then_some(UnfitCertificate::Ca),
            self.names.is_empty().then_some(UnfitCertificate::NoNames),
            (!self.is_for_servers).then_some(UnfitCertificate::WrongPurpose),
        ];
        reasons.into_iter().flatten().collect()
    }

    /// Whether a peer's certificate can be accepted because of this one. A self-signed certificate
    /// that is not a CA can at least be presented itself.
    pub(super) fn can_vouch(&self) -> bool {
        self.is_ca || self.is_self_issued
    }
}

/// Formats a time as RFC 3339, in UTC, to the second.
pub(super) fn utc(time: SystemTime) -> String {
    DateTime::try_from(time).map_or_else(|_| "a date out of range".to_owned(), |t| t.to_string())
}

fn name(name: &GeneralName) -> Option<String> {
    match name {
        GeneralName::DnsName(name) => Some(name.to_string()),
        GeneralName::IpAddress(bytes) => {
            let bytes = bytes.as_bytes();
            let four = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
            let address = four.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from));
            address.ok().map(|address| address.to_string())
        }
        _ => None,
    }
}

fn invalid(error: impl Error + Send + Sync + 'static) -> PemError {
    PemError::InvalidCertificate(Box::new(error))
}
