//! What a certificate says of itself: the names it is for, and from when until when it is valid.
//!
//! rustls checks these of a peer's certificate and does not tell them of one's own, so they are read here.

use std::error::Error;
use std::net::IpAddr;
use std::time::SystemTime;

use rustls::pki_types::CertificateDer;
use x509_cert::Certificate;
use x509_cert::der::{DateTime, Decode};
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use super::error::PemError;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Facts {
    /// DNS names and addresses.
    pub(super) names: Vec<String>,
    pub(super) not_before: SystemTime,
    pub(super) not_after: SystemTime,
}

impl Facts {
    pub(super) fn of(certificate: &CertificateDer<'_>) -> Result<Self, PemError> {
        let parsed = Certificate::from_der(certificate).map_err(invalid)?;
        let body = parsed.tbs_certificate();
        let names = body.get_extension::<SubjectAltName>().map_err(invalid)?;
        let names = names.map(|(_, names)| names.0).unwrap_or_default();
        let validity = body.validity();
        Ok(Self {
            names: names.iter().filter_map(name).collect(),
            not_before: validity.not_before.to_system_time(),
            not_after: validity.not_after.to_system_time(),
        })
    }
}

/// A point in time as RFC 3339 has it, in UTC, to the second.
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
