//! TLS errors: problems with certificates, keys and names, before and during a handshake.
//!
//! An error names files and never shows their contents. Causes from rustls are boxed, so its error
//! types are not part of this crate's API.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use super::HandshakeError;

/// Why TLS cannot be set up, or a handshake failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// PEM text was given instead of a path.
    #[error("got PEM text instead of the path of a PEM file")]
    NotAPath,
    /// A file is too long for a PEM file.
    #[error("{} has more than the {limit} bytes allowed in a PEM file", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// The maximum length of a file, in bytes.
        limit: u64,
    },
    /// A file does not contain what it should.
    #[error("{}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: PemError,
    },
    /// PEM text given in memory does not contain what it should.
    #[error(transparent)]
    Pem(#[from] PemError),
    /// The certificate, the key or the CA is of an unsupported kind.
    #[error("the certificate, its key or the CA cannot be used")]
    Unusable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The operating system has no CA certificates, or they cannot be read.
    #[error("the system has no trusted CA certificates{}", because(reasons))]
    NoSystemRoots {
        /// Why the sources that were tried gave none.
        reasons: Vec<String>,
    },
    /// A certificate cannot be for this server name.
    #[error("{name:?} is not a valid server name; give a DNS name or an IP address")]
    InvalidServerName {
        /// The name that was given.
        name: String,
    },
    /// The handshake failed.
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
}

/// What is wrong with PEM text.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PemError {
    /// It contains no certificate.
    #[error("there is no certificate in it, {}", instead(found))]
    NoCertificate {
        /// The labels of the sections that it contains.
        found: Vec<String>,
    },
    /// It contains no private key.
    #[error("there is no private key in it, {}", instead(found))]
    NoKey {
        /// The labels of the sections that it contains.
        found: Vec<String>,
    },
    /// The private key is encrypted.
    #[error(
        "the private key is encrypted, which is not supported; \
         store it unencrypted, readable only by its user"
    )]
    EncryptedKey,
    /// The private key is not that of the certificate.
    #[error("the private key does not belong to the certificate")]
    KeyMismatch,
    /// It is DER, the binary form of the same data.
    #[error(
        "it is DER, not PEM; convert it, for example with openssl x509 -inform DER, \
         or openssl pkey -inform DER"
    )]
    Der,
    /// It begins like PEM but cannot be parsed.
    #[error("it is not valid PEM{}", if *one_line { ": all of it is on one line" } else { "" })]
    Malformed {
        /// Whether it has no line breaks, as when an environment variable or a secret lost them.
        one_line: bool,
    },
    /// A line is indented, or something precedes `-----BEGIN` on its line.
    #[error(
        "line {line} of the PEM is indented or has something before -----BEGIN; \
         remove everything that precedes the PEM on each line"
    )]
    Indented {
        /// The line number, counted from 1.
        line: usize,
    },
    /// The certificate's version is too old: only version 3 has names.
    #[error(
        "it is a certificate of version 1 or 2, which has no names; \
         make one of version 3, with a subjectAltName"
    )]
    OldVersion,
    /// The private key is of an unsupported kind.
    #[error(
        "the private key is of an unsupported kind; \
         use RSA with at least 2048 bits, ECDSA on P-256 or P-384, or Ed25519"
    )]
    UnsupportedKey,
    /// A certificate section does not contain a valid certificate.
    #[error("it contains an invalid certificate")]
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
