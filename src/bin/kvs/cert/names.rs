//! The names of the files in a directory of certificates.

use std::fmt;

pub(super) const CA: Names = Names::of("ca.crt", "ca.key");
pub(super) const SERVER: Names = Names::of("server.crt", "server.key");
pub(super) const CLIENT: Names = Names::of("client.crt", "client.key");

/// The names of a certificate's two files.
#[derive(Debug, Clone, Copy)]
pub(super) struct Names {
    pub(super) certificate: &'static str,
    pub(super) key: &'static str,
}

impl Names {
    const fn of(certificate: &'static str, key: &'static str) -> Self {
        Self { certificate, key }
    }
}

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}, {}", self.certificate, self.key))
    }
}
