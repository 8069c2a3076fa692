//! Why there is no TLS: what is wrong with certificates, keys and names, before a handshake and in it.
//!
//! An error names files and never shows what is in them. Causes from rustls are boxed, so that its errors are no part
//! of this crate's API.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use super::HandshakeError;

/// Why there is no TLS.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A PEM was given where the path of a file was to be.
    #[error("this is a PEM itself, where the path of a file with it belongs")]
    NotAPath,
    /// A file is too long to be what it should be.
    #[error("{} has more than the {limit} bytes that a file of certificates may have", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// How many bytes it may have.
        limit: u64,
    },
    /// A file does not hold what it should.
    #[error("{}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: PemError,
    },
    /// What was given in memory is not what it should be.
    #[error(transparent)]
    Pem(#[from] PemError),
    /// The certificate, the key or the CA is of a kind that is not supported.
    #[error("the certificate, its key or the CA cannot be used")]
    Unusable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The operating system has no certificates of CAs, or they cannot be read.
    #[error("the system has no certificates of CAs to trust{}", because(reasons))]
    NoSystemRoots {
        /// What was tried in vain.
        reasons: Vec<String>,
    },
    /// This can be no name of a server in a certificate.
    #[error("{name:?} is no name that a certificate can have; give a DNS name or an IP address")]
    InvalidServerName {
        /// What was given.
        name: String,
    },
    /// The other end and this one do not come to speak TLS.
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
}

/// What is wrong with a PEM.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PemError {
    /// It holds no certificate.
    #[error("there is no certificate in it, {}", instead(found))]
    NoCertificate {
        /// What it holds.
        found: Vec<String>,
    },
    /// It holds no private key.
    #[error("there is no private key in it, {}", instead(found))]
    NoKey {
        /// What it holds.
        found: Vec<String>,
    },
    /// The private key in it is encrypted.
    #[error(
        "the private key is encrypted, which is not supported; store it as it is, readable for its user only"
    )]
    EncryptedKey,
    /// The private key is not the one that the certificate was made for.
    #[error("the private key does not belong to the certificate")]
    KeyMismatch,
    /// It is the same in another form.
    #[error(
        "it is DER and not PEM; convert it, for example with openssl x509 -inform DER, or openssl pkey -inform DER"
    )]
    Der,
    /// It begins like PEM and is none.
    #[error("it is no valid PEM{}", if *one_line { ": all of it is on one line" } else { "" })]
    Malformed {
        /// Whether it lacks the breaks of lines that PEM has, as after a variable or a secret has lost them.
        one_line: bool,
    },
    /// There is something before `-----BEGIN` on its line, or a line is indented.
    #[error(
        "line {line} of the PEM is indented or has something before -----BEGIN; \
         remove what stands before each line"
    )]
    Indented {
        /// The line, counted from 1.
        line: usize,
    },
    /// It is a certificate of a version that has no names.
    #[error(
        "it is a certificate of version 1 or 2, which has no names; make one of version 3, with a subjectAltName"
    )]
    OldVersion,
    /// The private key is of a kind that is not supported.
    #[error(
        "the private key is of no kind that is supported: RSA from 2048 bits on, ECDSA on P-256 or P-384, Ed25519"
    )]
    UnsupportedKey,
    /// What is in it is no certificate.
    #[error("what it has for a certificate is not a valid certificate")]
    InvalidCertificate(#[source] Box<dyn std::error::Error + Send + Sync>),
}

fn instead(found: &[String]) -> String {
    match found {
        [] => "and nothing else that is PEM".to_owned(),
        _ => format!("but {}", found.join(", ")),
    }
}

fn because(reasons: &[String]) -> String {
    match reasons {
        [] => String::new(),
        _ => format!(": {}", reasons.join("; ")),
    }
}
