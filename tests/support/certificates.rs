//! CAs and certificates, made when a test runs, so that nothing is committed and nothing expires.
//!
//! Only rcgen makes them, so the library does not read what it wrote itself.

use std::path::{Path, PathBuf};

use kv::{TlsIdentity, TlsRoots};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, date_time_ymd,
};

/// A CA.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate and its key, in PEM.
#[derive(Clone)]
pub(crate) struct Pair {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        Self::with(name, |_| {})
    }

    /// A CA whose certificate is changed before it is signed.
    pub(crate) fn with(name: &str, change: impl Fn(&mut CertificateParams)) -> Self {
        let mut params = ca_params(name);
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        Self {
            issuer: CertifiedIssuer::self_signed(params, key).unwrap(),
        }
    }

    /// An intermediate CA signed by this one.
    pub(crate) fn intermediate(&self, name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        Self {
            issuer: CertifiedIssuer::signed_by(ca_params(name), key, &self.issuer).unwrap(),
        }
    }

    pub(crate) fn pem(&self) -> String {
        self.issuer.pem()
    }

    pub(crate) fn roots(&self) -> TlsRoots {
        TlsRoots::from_pem(self.pem().as_bytes()).unwrap()
    }

    /// A certificate for a server of these names.
    pub(crate) fn server(&self, names: &[&str]) -> Pair {
        self.issue(names, |_| {})
    }

    /// A certificate for a client.
    pub(crate) fn client(&self) -> Pair {
        self.client_for(&[])
    }

    /// A certificate for a client that has names, as one for a server does.
    pub(crate) fn client_for(&self, names: &[&str]) -> Pair {
        self.issue(names, |params| {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        })
    }

    /// A server's certificate that is changed before it is signed.
    pub(crate) fn issue(&self, names: &[&str], change: impl Fn(&mut CertificateParams)) -> Pair {
        let names: Vec<_> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        Pair {
            certificate: params.signed_by(&key, &self.issuer).unwrap().pem(),
            key: key.serialize_pem(),
        }
    }
}

fn ca_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.distinguished_name.push(DnType::CommonName, name);
    params.use_authority_key_identifier_extension = true;
    params
}

impl Pair {
    pub(crate) fn identity(&self) -> TlsIdentity {
        TlsIdentity::from_pem(self.certificate.as_bytes(), self.key.as_bytes()).unwrap()
    }

    /// Writes `NAME.crt` and `NAME.key`. Only the owner can read the key.
    pub(crate) fn write(&self, directory: &Path, name: &str) {
        write(directory, &format!("{name}.crt"), &self.certificate);
        let key = write(directory, &format!("{name}.key"), &self.key);
        set_mode(&key, 0o600);
    }
}

pub(crate) fn write(directory: &Path, name: &str, text: &str) -> PathBuf {
    let path = directory.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

#[cfg_attr(not(unix), expect(unused_variables, reason = "there are no modes"))]
pub(crate) fn set_mode(path: &Path, mode: u32) {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }
}

/// Makes a certificate valid for the year 2020 only.
pub(crate) fn in_2020(params: &mut CertificateParams) {
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2020, 12, 31);
}

/// Makes a certificate valid from the year 3000 on.
pub(crate) fn from_3000_on(params: &mut CertificateParams) {
    params.not_before = date_time_ymd(3000, 1, 1);
    params.not_after = date_time_ymd(3001, 1, 1);
}
