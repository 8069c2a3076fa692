//! Certificates, keys and names given to the library, and the errors for wrong ones.
//!
//! Nothing here opens a connection.

use std::time::SystemTime;

use kv::{
    ClientError, PemError, ProstClientStream, Report, TlsClientConnector, TlsError, TlsIdentity,
    TlsRoots, UnfitCertificate,
};

use crate::support::certificates::{self, Authority, from_3000_on, in_2020};

const LOCAL: &[&str] = &["localhost", "127.0.0.1"];

#[test]
fn names_data_that_is_not_a_certificate_or_key() {
    let ca = Authority::new("ca");
    let pair = ca.server(LOCAL);
    let other = ca.server(LOCAL);
    let identity = |certificate: &str, key: &str| {
        let identity = TlsIdentity::from_pem(certificate.as_bytes(), key.as_bytes());
        let error = identity.unwrap_err();
        (Report(&error).to_string(), error)
    };
    let encrypted =
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAA==\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let broken = "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n";
    let noise = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for (certificate, key, said) in [
        (
            &*pair.key,
            &*pair.key,
            "there is no certificate in it, but PRIVATE KEY",
        ),
        (
            &*pair.certificate,
            &*pair.certificate,
            "there is no private key in it, but CERTIFICATE",
        ),
        (
            "",
            &*pair.key,
            "there is no certificate in it, and nothing else that is PEM",
        ),
        (
            &*pair.certificate,
            encrypted,
            "the private key is encrypted, which is not supported; \
             store it unencrypted, readable only by its user",
        ),
        (
            &*pair.certificate,
            &*other.key,
            "the private key does not belong to the certificate",
        ),
    ] {
        assert_eq!(identity(certificate, key).0, said);
    }
    for wrong in [broken, noise] {
        let (line, error) = identity(wrong, &pair.key);
        assert!(
            matches!(
                error,
                TlsError::Pem(PemError::Malformed { .. } | PemError::InvalidCertificate(_))
            ),
            "{line}"
        );
        let error = TlsRoots::from_pem(wrong.as_bytes()).unwrap_err();
        assert!(matches!(
            error,
            TlsError::Pem(PemError::Malformed { .. } | PemError::InvalidCertificate(_))
        ));
    }
    let identity = pair.identity();
    assert_eq!(identity.names(), LOCAL);
    assert!(identity.not_before() < identity.not_after());
    // The key must not be shown.
    let shown = format!("{identity:?}");
    assert!(
        shown.contains("localhost") && !shown.to_lowercase().contains("pkcs"),
        "{shown}"
    );
}

#[test]
fn names_the_file_in_errors() {
    let directory = tempfile::tempdir().unwrap();
    let ca = Authority::new("ca");
    let pair = ca.server(LOCAL);
    pair.write(directory.path(), "server");
    let path = |name: &str| directory.path().join(name);
    let (certificate, key) = (path("server.crt"), path("server.key"));
    TlsIdentity::from_files(&certificate, &key).unwrap();
    let both = format!("{}{}", pair.key, pair.certificate);
    let both = certificates::write(directory.path(), "both.pem", &both);
    TlsIdentity::from_files(&both, &both).unwrap();

    let error = TlsIdentity::from_files(&key, &certificate).unwrap_err();
    assert_eq!(
        Report(&error).to_string(),
        format!(
            "{}: there is no certificate in it, but PRIVATE KEY",
            key.display()
        )
    );
    let error = TlsRoots::from_file(path("none.crt")).unwrap_err();
    assert!(matches!(&error, TlsError::Read { path: named, .. } if *named == path("none.crt")));
    let error = TlsRoots::from_file("/dev/zero").unwrap_err();
    assert!(matches!(error, TlsError::TooLong { .. }), "{error}");
}

#[test]
fn refuses_an_impossible_server_name_before_connecting() {
    let connector = TlsClientConnector::new(Authority::new("ca").roots(), None).unwrap();
    for name in ["", "a b", "localhost:9527", "http://localhost"] {
        let error = connector.clone().with_server_name(name).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("{name:?} is not a valid server name; give a DNS name or an IP address")
        );
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let refused = runtime.block_on(ProstClientStream::connect_tls("a b:1", &connector));
    assert!(matches!(
        refused.unwrap_err(),
        ClientError::Tls(TlsError::InvalidServerName { .. })
    ));
}

#[test]
fn knows_beforehand_what_clients_will_reject() {
    let ca = Authority::new("ca");
    let unfit = |pair: certificates::Pair| pair.identity().unfit_for_server(SystemTime::now());
    assert_eq!(unfit(ca.server(LOCAL)), []);
    assert!(matches!(
        unfit(ca.issue(LOCAL, in_2020))[..],
        [UnfitCertificate::Expired { .. }]
    ));
    assert!(matches!(
        unfit(ca.issue(LOCAL, from_3000_on))[..],
        [UnfitCertificate::NotYetValid { .. }]
    ));
    assert_eq!(unfit(ca.issue(&[], |_| {})), [UnfitCertificate::NoNames]);
    assert_eq!(
        unfit(ca.client_for(LOCAL)),
        [UnfitCertificate::WrongPurpose]
    );
    let of_a_ca = ca.issue(LOCAL, |params| {
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    });
    assert_eq!(unfit(of_a_ca), [UnfitCertificate::Ca]);
}

#[test]
fn roots_report_their_expiry_and_useless_certificates() {
    let ca = Authority::new("ca");
    let client = ca.client();
    let text = format!("{}{}", ca.pem(), client.certificate);
    let roots = TlsRoots::from_pem(text.as_bytes()).unwrap();
    assert_eq!((roots.len(), roots.count_useless()), (2, 1));
    assert!(roots.not_after().unwrap() > SystemTime::now());
    assert_eq!(ca.roots().count_useless(), 0);
}
