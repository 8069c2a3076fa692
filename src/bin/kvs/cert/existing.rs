//! Reads an existing directory: the CA that signs again, and the host names in the server's
//! certificate.
//!
//! The CA may come from another tool. Its name and key identifier are rebuilt from its key, as kvs
//! makes them. So new certificates are compared with ca.crt before anything is written: nobody gets
//! a certificate whose issuer no client can find.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use kv::{PemError, TlsError, TlsIdentity};
use rcgen::KeyPair;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use thiserror::Error;
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{
    AuthorityKeyIdentifier, BasicConstraints, SubjectAltName, SubjectKeyIdentifier,
};

use super::error::CertError;
use super::files;
use super::host::Host;
use super::issue::{Authority, Issued};
use super::names::{CA, CLIENT, SERVER};
use crate::bounded_file;

/// Larger than any certificate or key, and small enough to read any other file by mistake.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

type Cause = Box<dyn std::error::Error + Send + Sync>;

#[derive(Debug, Error)]
#[error("it contains no readable certificate")]
struct NoCertificate;

/// The CA in a directory.
pub(super) struct ExistingAuthority {
    authority: Authority,
    certificate: Certificate,
    path: PathBuf,
}

impl ExistingAuthority {
    /// Reads the CA, and checks that it is valid now.
    pub(super) fn read(directory: &Path, now: SystemTime) -> Result<Self, CertError> {
        let [path, key_path] = [CA.certificate, CA.key].map(|name| directory.join(name));
        check_existence(directory, [&path, &key_path])?;
        // Its errors name the file at fault, and it checks that the key belongs to the certificate.
        let identity = match TlsIdentity::from_files(&path, &key_path) {
            Ok(identity) => identity,
            Err(TlsError::File {
                source: PemError::KeyMismatch,
                ..
            }) => return Err(CertError::CaMismatch { path, key_path }),
            Err(TlsError::Unusable(_)) => return Err(CertError::ForeignCa { path }),
            Err(error) => return Err(CertError::Ca(error)),
        };
        let (from, until) = (identity.not_before(), identity.not_after());
        if now < from {
            return Err(CertError::CaNotYetValid { path, from });
        }
        if until <= now {
            return Err(CertError::CaExpired { path, until });
        }
        let (Ok(certificate), Some(key)) = (certificate(&path), key(&key_path)) else {
            return Err(CertError::ForeignCa { path });
        };
        Ok(Self {
            authority: Authority::with_key(key, from, until)?,
            certificate,
            path,
        })
    }

    /// Like [`Authority::issue`], but fails if clients would not find this CA as the issuer.
    pub(super) fn issue(
        &self,
        hosts: &[Host],
        days: u32,
        now: SystemTime,
    ) -> Result<Issued, CertError> {
        let issued = self.authority.issue(hosts, days, now)?;
        let made = parse(issued.server.certificate.as_bytes());
        match made.is_ok_and(|made| self.is_issuer(&made)) {
            true => Ok(issued),
            false => Err(CertError::ForeignCa {
                path: self.path.clone(),
            }),
        }
    }

    /// Checks that the certificates about to be replaced are from this CA too. A certificate from
    /// another CA would be lost, and clients that trust only that CA could no longer connect.
    pub(super) fn check_replaced(&self, directory: &Path) -> Result<(), CertError> {
        for name in [SERVER.certificate, CLIENT.certificate] {
            let path = directory.join(name);
            // A file that is not a certificate is no loss.
            if certificate(&path).is_ok_and(|there| !self.is_issuer(&there)) {
                let ca = self.path.clone();
                return Err(CertError::NotFromCa { path, ca });
            }
        }
        Ok(())
    }

    fn is_issuer(&self, issued: &Certificate) -> bool {
        is_issuer(&self.certificate, issued).is_ok_and(|found| found)
    }
}

/// The host names in the directory's server certificate. The certificate may have expired, and its
/// key may be missing.
pub(super) fn hosts(directory: &Path) -> Result<Vec<Host>, CertError> {
    let path = directory.join(SERVER.certificate);
    if is_missing(&path) {
        return Err(CertError::NoServer { path });
    }
    let hosts = certificate(&path).and_then(|certificate| names(&certificate));
    hosts.map_err(|source| CertError::Names { path, source })
}

fn check_existence(directory: &Path, files: [&PathBuf; 2]) -> Result<(), CertError> {
    if let Some(path) = files::file_in_the_way(directory) {
        return Err(CertError::NotDirectory { path });
    }
    if is_missing(directory) {
        return Err(CertError::NoDirectory {
            path: directory.to_owned(),
        });
    }
    match files.into_iter().find(|path| is_missing(path)) {
        Some(path) => Err(CertError::NoCa { path: path.clone() }),
        None => Ok(()),
    }
}

/// Returns false if this cannot be determined; reading the file then fails with the reason.
fn is_missing(path: &Path) -> bool {
    path.try_exists().is_ok_and(|exists| !exists)
}

fn read(path: &Path) -> Result<Vec<u8>, Cause> {
    let bytes = bounded_file::read(path, MAX_FILE_BYTES)?;
    bytes.ok_or_else(|| format!("it has more than {MAX_FILE_BYTES} bytes").into())
}

/// Reads the first certificate of a file.
fn certificate(path: &Path) -> Result<Certificate, Cause> {
    parse(&read(path)?)
}

fn parse(pem: &[u8]) -> Result<Certificate, Cause> {
    // The original error would quote the file, which may be a key by mistake.
    let der = CertificateDer::from_pem_slice(pem).map_err(|_| NoCertificate)?;
    Ok(Certificate::from_der(&der)?)
}

/// Reads a key. Returns [`None`] unless it is of a kind that rcgen can sign with.
fn key(path: &Path) -> Option<KeyPair> {
    let der = PrivateKeyDer::from_pem_slice(&read(path).ok()?).ok()?;
    KeyPair::try_from(&der).ok()
}

/// Whether the certificate names this CA as its issuer, by its name and key identifier. The
/// signature is right anyway, because the key belongs to the CA.
fn is_issuer(ca: &Certificate, issued: &Certificate) -> Result<bool, Cause> {
    let (ca, issued) = (ca.tbs_certificate(), issued.tbs_certificate());
    let constraints = ca.get_extension::<BasicConstraints>()?;
    let is_ca = constraints.is_some_and(|(_, constraints)| constraints.ca);
    let identifier = ca.get_extension::<SubjectKeyIdentifier>()?;
    let named = issued.get_extension::<AuthorityKeyIdentifier>()?;
    let named = named.and_then(|(_, issuer)| issuer.key_identifier);
    let is_named = named.is_some() && named == identifier.map(|(_, identifier)| identifier.0);
    Ok(is_ca && is_named && ca.subject() == issued.issuer())
}

fn names(certificate: &Certificate) -> Result<Vec<Host>, Cause> {
    let names = certificate
        .tbs_certificate()
        .get_extension::<SubjectAltName>()?;
    let names = names.map(|(_, names)| names.0).unwrap_or_default();
    let hosts: Vec<_> = names.iter().filter_map(host).collect::<Result<_, _>>()?;
    if hosts.is_empty() {
        // It is not a server's certificate, and replacing it would lose the name that it has.
        return Err("it has none".into());
    }
    Ok(hosts)
}

/// Returns [`None`] for names other than a server's, such as an e-mail address.
fn host(name: &GeneralName) -> Option<Result<Host, Cause>> {
    match name {
        GeneralName::DnsName(name) => Some(name.as_str().parse().map_err(Into::into)),
        GeneralName::IpAddress(bytes) => {
            let bytes = bytes.as_bytes();
            let four = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
            let address = four.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from));
            Some(address.map(Host::Address).map_err(Into::into))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::{Duration, UNIX_EPOCH};

    use rcgen::{
        BasicConstraints as Constraints, CertificateParams, DnType, IsCa, KeyIdMethod, SanType,
        date_time_ymd,
    };
    use tempfile::TempDir;

    use super::super::issue::Pair;
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    fn now() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_800_000_000)
    }

    /// A directory with this certificate and key as its CA.
    fn directory(certificate: &str, key: &str) -> TempDir {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("ca.crt"), certificate).unwrap();
        fs::write(directory.path().join("ca.key"), key).unwrap();
        directory
    }

    /// A new CA, as its files have it.
    fn new_ca() -> Pair {
        Authority::generate(now()).unwrap().1
    }

    /// Reads the CA, and issues certificates at this time.
    fn issue(directory: &TempDir, days: u32, at: SystemTime) -> Result<Issued, CertError> {
        let authority = ExistingAuthority::read(directory.path(), at)?;
        authority.issue(&["db".parse().unwrap()], days, at)
    }

    /// The error and its hint, without the path of the directory.
    fn error_line(result: Result<impl Sized, CertError>, directory: &TempDir) -> String {
        let error = result.map(drop).unwrap_err();
        let line = format!("{}{}", kv::Report(&error), error.hint());
        line.replace(&format!("{}/", directory.path().display()), "")
    }

    #[test]
    fn a_ca_made_by_kvs_signs_again_while_it_is_valid() {
        let ca = new_ca();
        let directory = directory(&ca.certificate, &ca.key);
        let until = now() + 3650 * DAY;
        for (at, days, expected) in [
            (now(), 30, now() + 30 * DAY),
            (until - 31 * DAY, 30, until - DAY),
            (until - 30 * DAY, 30, until),
            (until - DAY, 30, until),
        ] {
            let issued = issue(&directory, days, at).unwrap();
            assert_eq!((issued.until, issued.ca_until), (expected, until));
        }
        assert_eq!(
            error_line(issue(&directory, 30, until), &directory),
            "ca.crt expired on 2037-01-12; make a new CA with kvs cert init --force, and give its \
             ca.crt to every client"
        );
        assert_eq!(
            error_line(issue(&directory, 30, now() - 2 * DAY), &directory),
            "ca.crt is not valid before 2027-01-14, and the clock shows an earlier time; set the \
             clock and try again"
        );
    }

    #[test]
    fn refuses_the_key_of_another_ca() {
        let directory = directory(&new_ca().certificate, &new_ca().key);
        assert_eq!(
            error_line(issue(&directory, 30, now()), &directory),
            "ca.key does not belong to ca.crt; put back the key that the CA was made with, or make \
             a new CA with kvs cert init --force"
        );
    }

    #[test]
    fn names_a_file_that_is_not_a_certificate_or_a_key() {
        let ca = new_ca();
        for (certificate, key, start) in [
            (
                &ca.key,
                &ca.key,
                "ca.crt: there is no certificate in it, but PRIVATE KEY; put back the file",
            ),
            (
                &ca.certificate,
                &ca.certificate,
                "ca.key: there is no private key in it, but CERTIFICATE; put back the file",
            ),
        ] {
            let directory = directory(certificate, key);
            let line = error_line(issue(&directory, 30, now()), &directory);
            assert!(line.starts_with(start), "{line}");
        }
    }

    /// Each CA differs from one that kvs makes in one property by which clients find an issuer.
    #[test]
    fn refuses_a_ca_made_by_another_tool() {
        let key = KeyPair::generate().unwrap();
        let sign = |change: &dyn Fn(&mut CertificateParams)| {
            let mut params = CertificateParams::default();
            let identifier = params.key_identifier(&key);
            let digits: String = identifier[..4].iter().map(|b| format!("{b:02x}")).collect();
            let name = format!("kvs CA {digits}");
            params.distinguished_name = rcgen::DistinguishedName::new();
            params.distinguished_name.push(DnType::CommonName, name);
            params.is_ca = IsCa::Ca(Constraints::Unconstrained);
            params.not_after = date_time_ymd(2030, 1, 1);
            change(&mut params);
            let certificate = params.self_signed(&key).unwrap().pem();
            directory(&certificate, &key.serialize_pem())
        };
        // Without a change it is accepted, so it is the change that is found below.
        assert!(issue(&sign(&|_| {}), 30, now()).is_ok());
        let changes: [&dyn Fn(&mut CertificateParams); 3] = [
            &|params| params.distinguished_name.push(DnType::CommonName, "kvs CA"),
            &|params| params.key_identifier_method = KeyIdMethod::PreSpecified(vec![1; 20]),
            &|params| params.is_ca = IsCa::ExplicitNoCa,
        ];
        for change in changes {
            let directory = sign(change);
            assert_eq!(
                error_line(issue(&directory, 30, now()), &directory),
                "ca.crt is not a CA made by kvs cert init; sign with the tool that made it, or \
                 make a new CA with kvs cert init in another directory"
            );
        }
    }

    #[test]
    fn reads_the_host_names_of_the_certificate() {
        let directory = tempfile::tempdir().unwrap();
        let write = |names: &[SanType]| {
            let mut params = CertificateParams::default();
            params.subject_alt_names = names.to_vec();
            let key = KeyPair::generate().unwrap();
            let pem = params.self_signed(&key).unwrap().pem();
            fs::write(directory.path().join("server.crt"), pem).unwrap();
        };
        let names = ["*.db.example", "192.0.2.7", "2001:db8::7", "localhost"];
        let names = names.map(|name| name.parse::<Host>().unwrap());
        let mut sans: Vec<_> = names
            .iter()
            .map(|n| SanType::try_from(n).unwrap())
            .collect();
        sans.push(SanType::Rfc822Name("who@db.example".try_into().unwrap()));
        write(&sans);
        assert_eq!(hosts(directory.path()).unwrap(), names);

        write(&[]);
        assert_eq!(
            error_line(hosts(directory.path()), &directory),
            "cannot read the host names in server.crt: it has none; give them with --host"
        );
        // A name that is not a valid host here is not silently dropped.
        write(&[SanType::DnsName("*.example".try_into().unwrap())]);
        let wild = error_line(hosts(directory.path()), &directory);
        assert!(
            wild.contains("server.crt: \"*.example\" is not a valid wildcard; ")
                && wild.ends_with("; give them with --host"),
            "{wild}"
        );
    }
}
