//! Makes keys and certificates.
//!
//! Each certificate restricts its own use. The CA may sign certificates, but no further CAs; the
//! server's is only for servers and the client's only for clients, so that a client cannot pose as
//! the server. rcgen derives serial numbers from the public key. Every key is new, so every serial
//! number is unique.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use data_encoding::HEXLOWER;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType,
};

use super::error::CertError;
use super::host::Host;

/// How long the CA is valid. Nothing that it signs is valid for longer.
pub(super) const CA_DAYS: u32 = 3650;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// How far the clocks of other machines may lag behind this one.
const CLOCK_SKEW: Duration = DAY;

/// The longest common name that X.509 allows.
const MAX_COMMON_NAME_BYTES: usize = 64;

/// A certificate and its key, each as PEM.
pub(super) struct Pair {
    pub(super) certificate: String,
    pub(super) key: String,
}

/// The certificates that a CA issued together.
pub(super) struct Issued {
    pub(super) server: Pair,
    pub(super) client: Pair,
    /// When both certificates expire.
    pub(super) until: SystemTime,
    /// When the CA expires: not earlier than the certificates.
    pub(super) ca_until: SystemTime,
}

/// A CA with its key, which can sign.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    until: SystemTime,
}

impl Authority {
    /// Makes a CA. Returns it with its certificate and key as PEM.
    pub(super) fn generate(now: SystemTime) -> Result<(Self, Pair), CertError> {
        let (from, until) = (a_day_before(now)?, days_after(now, CA_DAYS)?);
        let key = KeyPair::generate()?;
        let pair = Pair {
            certificate: ca_params(&key, from, until)?.self_signed(&key)?.pem(),
            key: key.serialize_pem(),
        };
        Ok((Self::with_key(key, from, until)?, pair))
    }

    /// The CA that kvs makes from this key, with this validity. Certificates that it signs name it
    /// by a name and identifier derived from the key, not by those in an existing certificate.
    pub(super) fn with_key(
        key: KeyPair,
        from: SystemTime,
        until: SystemTime,
    ) -> Result<Self, CertError> {
        let issuer = Issuer::new(ca_params(&key, from, until)?, key);
        Ok(Self { issuer, until })
    }

    /// Makes certificates for a server with these names and for a client. They expire this many
    /// days from now, or with the CA if that is earlier.
    pub(super) fn issue(
        &self,
        hosts: &[Host],
        days: u32,
        now: SystemTime,
    ) -> Result<Issued, CertError> {
        let from = a_day_before(now)?;
        let until = days_after(now, days.min(CA_DAYS))?.min(self.until);
        Ok(Issued {
            server: sign(&server_params(hosts, from, until)?, &self.issuer)?,
            client: sign(&client_params(from, until)?, &self.issuer)?,
            until,
            ca_until: self.until,
        })
    }
}

fn sign(params: &CertificateParams, issuer: &Issuer<'_, KeyPair>) -> Result<Pair, CertError> {
    let key = KeyPair::generate()?;
    Ok(Pair {
        certificate: params.signed_by(&key, issuer)?.pem(),
        key: key.serialize_pem(),
    })
}

/// The CA of this key. Its name contains the identifier of the key, `kvs CA 3f9a1c02`, and is
/// unique. So software that looks an issuer up by name does not find another CA instead, and says
/// that the issuer is unknown.
fn ca_params(
    key: &KeyPair,
    from: SystemTime,
    until: SystemTime,
) -> Result<CertificateParams, CertError> {
    let identifier = HEXLOWER.encode(&CertificateParams::default().key_identifier(key));
    let mut params = params(&format!("kvs CA {identifier:.8}"), from, until)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

fn server_params(
    hosts: &[Host],
    from: SystemTime,
    until: SystemTime,
) -> Result<CertificateParams, CertError> {
    // The common name is only for display: clients look at the alternative names.
    let mut names = hosts.iter().map(ToString::to_string);
    let name = names.find(|name| name.len() <= MAX_COMMON_NAME_BYTES);
    let name = name.unwrap_or_else(|| "kvs server".to_owned());
    let mut params = leaf_params(&name, ExtendedKeyUsagePurpose::ServerAuth, from, until)?;
    let names = hosts.iter().map(SanType::try_from);
    params.subject_alt_names = names.collect::<Result<_, _>>()?;
    Ok(params)
}

fn client_params(from: SystemTime, until: SystemTime) -> Result<CertificateParams, CertError> {
    leaf_params(
        "kvs client",
        ExtendedKeyUsagePurpose::ClientAuth,
        from,
        until,
    )
}

/// The parameters of a certificate that is not a CA.
fn leaf_params(
    name: &str,
    usage: ExtendedKeyUsagePurpose,
    from: SystemTime,
    until: SystemTime,
) -> Result<CertificateParams, CertError> {
    let mut params = params(name, from, until)?;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![usage];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn params(name: &str, from: SystemTime, until: SystemTime) -> Result<CertificateParams, CertError> {
    // The type comes from the crate time, which would be a dependency only to name it.
    let moment = |time: SystemTime| {
        let since = time.duration_since(UNIX_EPOCH).ok()?;
        rcgen::date_time_ymd(1970, 1, 1).checked_add(since.try_into().ok()?)
    };
    let mut params = CertificateParams::default();
    params.not_before = moment(from).ok_or(CertError::Clock)?;
    params.not_after = moment(until).ok_or(CertError::Clock)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    Ok(params)
}

fn a_day_before(time: SystemTime) -> Result<SystemTime, CertError> {
    time.checked_sub(CLOCK_SKEW).ok_or(CertError::Clock)
}

fn days_after(time: SystemTime, days: u32) -> Result<SystemTime, CertError> {
    time.checked_add(DAY * days).ok_or(CertError::Clock)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::client::WebPkiServerVerifier;
    use rustls::client::danger::ServerCertVerifier;
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
    use rustls::{CertificateError, Error, RootCertStore};

    use super::*;

    const HOUR: Duration = Duration::from_secs(60 * 60);

    fn now() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_800_000_000)
    }

    /// A new CA, and the certificates that it issued.
    struct Made {
        authority: Authority,
        ca: Pair,
        issued: Issued,
    }

    fn issue_for(hosts: &[&str], days: u32) -> Made {
        let hosts: Vec<_> = hosts.iter().map(|host| host.parse().unwrap()).collect();
        let (authority, ca) = Authority::generate(now()).unwrap();
        let issued = authority.issue(&hosts, days, now()).unwrap();
        Made {
            authority,
            ca,
            issued,
        }
    }

    fn certificate(pair: &Pair) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(pair.certificate.as_bytes()).unwrap()
    }

    fn contains(pair: &Pair, bytes: &[u8]) -> bool {
        let certificate = certificate(pair);
        certificate.windows(bytes.len()).any(|part| part == bytes)
    }

    /// Verifies the server's certificate as a client does, at this time.
    fn verify(made: &Made, host: &str, at: SystemTime) -> Result<(), Error> {
        let mut roots = RootCertStore::empty();
        roots.add(certificate(&made.ca)).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(roots.into(), provider);
        let verifier = verifier.build().unwrap();
        let name = ServerName::try_from(host).unwrap();
        let at = UnixTime::since_unix_epoch(at.duration_since(UNIX_EPOCH).unwrap());
        let server = certificate(&made.issued.server);
        let verified = verifier.verify_server_cert(&server, &[], &name, &[], at);
        verified.map(drop)
    }

    #[test]
    fn the_server_certificate_is_valid_for_its_hosts_only() {
        let long = format!("{}.example", "a".repeat(63));
        let hosts = [
            "*.db.example",
            "in_house",
            "192.0.2.7",
            "2001:db8::7",
            &long,
        ];
        let made = issue_for(&hosts, 30);
        for host in [
            "n1.db.example",
            "IN_HOUSE",
            "192.0.2.7",
            "2001:db8::7",
            &long,
        ] {
            assert_eq!(verify(&made, host, now()), Ok(()), "{host}");
        }
        for host in ["db.example", "a.n1.db.example", "192.0.2.8", "2001:db8::8"] {
            assert!(
                matches!(
                    verify(&made, host, now()),
                    Err(Error::InvalidCertificate(
                        CertificateError::NotValidForNameContext { .. }
                    ))
                ),
                "{host}"
            );
        }
    }

    #[test]
    fn certificates_are_valid_from_a_day_ago_for_the_given_days() {
        let made = issue_for(&["db"], 30);
        assert_eq!(made.issued.until, now() + 30 * DAY);
        assert_eq!(made.issued.ca_until, now() + 3650 * DAY);
        for at in [now() - 23 * HOUR, made.issued.until - HOUR] {
            assert_eq!(verify(&made, "db", at), Ok(()));
        }
        for at in [now() - 25 * HOUR, made.issued.until + HOUR] {
            assert!(verify(&made, "db", at).is_err());
        }
    }

    #[test]
    fn nothing_is_valid_for_longer_than_the_ca() {
        for days in [CA_DAYS, CA_DAYS + 1, u32::MAX] {
            let made = issue_for(&["db"], days);
            assert_eq!(made.issued.until, made.issued.ca_until);
            assert_eq!(verify(&made, "db", made.issued.ca_until - HOUR), Ok(()));
        }
    }

    #[test]
    fn every_key_is_new_and_no_certificate_is_accepted_by_another_ca() {
        let (one, mut other) = (issue_for(&["db"], 30), issue_for(&["db"], 30));
        let mut keys: Vec<_> = [&one, &other]
            .iter()
            .flat_map(|made| [&made.ca, &made.issued.server, &made.issued.client])
            .map(|pair| &pair.key)
            .collect();
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), 6);
        other.ca = one.ca;
        // Two CAs of one name would give a wrong signature instead.
        assert_eq!(
            verify(&other, "db", now()),
            Err(Error::InvalidCertificate(CertificateError::UnknownIssuer))
        );
    }

    #[test]
    fn the_key_of_a_ca_is_enough_to_sign_again() {
        let mut made = issue_for(&[], 30);
        let key = KeyPair::from_pem(&made.ca.key).unwrap();
        let again = Authority::with_key(key, now(), made.issued.ca_until).unwrap();
        let later = now() + 1000 * DAY;
        made.issued = again.issue(&["db".parse().unwrap()], 30, later).unwrap();
        assert_eq!(verify(&made, "db", later), Ok(()));
        assert!(verify(&made, "db", later + 31 * DAY).is_err());
    }

    #[test]
    fn certificates_issued_later_expire_with_the_ca() {
        let mut made = issue_for(&[], 30);
        let ca_until = made.issued.ca_until;
        let hosts = ["db".parse().unwrap()];
        for (days, until) in [
            (9, ca_until - DAY),
            (10, ca_until),
            (11, ca_until),
            (u32::MAX, ca_until),
        ] {
            let late = ca_until - 10 * DAY;
            made.issued = made.authority.issue(&hosts, days, late).unwrap();
            assert_eq!(made.issued.until, until);
            assert_eq!(verify(&made, "db", until - HOUR), Ok(()));
        }
    }

    /// Checks the bytes, because rustls, unlike openssl, ignores the path length of a trusted CA.
    #[test]
    fn the_ca_may_sign_no_further_ca() {
        // A sequence: true, it is a CA, and 0, the number of CAs that may follow it.
        let constraints = [0x30, 6, 1, 1, 0xff, 2, 1, 0];
        let made = issue_for(&[], 30);
        assert!(contains(&made.ca, &constraints));
        assert!(!contains(&made.issued.server, &constraints));
    }

    /// Other software finds the issuer by this, or learns that it does not have it.
    #[test]
    fn certificates_contain_the_key_identifier_of_their_ca() {
        let made = issue_for(&[], 30);
        let key = KeyPair::from_pem(&made.ca.key).unwrap();
        let identifier = CertificateParams::default().key_identifier(&key);
        for pair in [&made.ca, &made.issued.server, &made.issued.client] {
            assert!(contains(pair, &identifier));
            let name = format!("kvs CA {}", HEXLOWER.encode(&identifier[..4]));
            assert!(contains(pair, name.as_bytes()));
        }
    }

    #[test]
    fn reports_a_clock_that_is_far_off() {
        for now in [UNIX_EPOCH, UNIX_EPOCH + 8010 * 366 * DAY] {
            assert!(matches!(Authority::generate(now), Err(CertError::Clock)));
        }
    }
}
