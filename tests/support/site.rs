//! A directory with certificates, and the real programs started with them.
//!
//! Each test makes its own CA and certificates.

use std::path::Path;

use tempfile::TempDir;

use super::certificates::{Authority, write};
use super::programs::{Kvs, stderr};

pub(crate) const LOCAL: &[&str] = &["localhost", "127.0.0.1"];

pub(crate) const SERVER: &[&str] = &["--tls-cert", "server.crt", "--tls-key", "server.key"];

/// A directory with the files that a server and its clients need.
pub(crate) struct Site {
    directory: TempDir,
    pub(crate) ca: Authority,
}

impl Site {
    pub(crate) fn new() -> Self {
        let site = Self {
            directory: tempfile::tempdir().unwrap(),
            ca: Authority::new("ca"),
        };
        write(site.path(), "ca.crt", &site.ca.pem());
        site.ca.server(LOCAL).write(site.path(), "server");
        site.ca.client().write(site.path(), "client");
        site
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn file(&self, name: &str) -> String {
        self.path().join(name).display().to_string()
    }

    pub(crate) fn start(&self, args: &[&str]) -> Kvs {
        Kvs::start(
            self.path(),
            &[SERVER, &["--storage", "memory"], args].concat(),
        )
    }

    /// The flags that trust the CA.
    pub(crate) fn trusting(&self) -> Vec<String> {
        vec!["--tls-ca".to_owned(), self.file("ca.crt")]
    }

    /// The flags that trust the CA and present a client certificate.
    pub(crate) fn showing(&self) -> Vec<String> {
        let (certificate, key) = (self.file("client.crt"), self.file("client.key"));
        let more = ["--tls-cert", &certificate, "--tls-key", &key].map(str::to_owned);
        [self.trusting(), more.to_vec()].concat()
    }
}

/// Runs kvc with these flags. Returns the exit code and standard error.
pub(crate) fn ask(kvs: &Kvs, flags: &[String], args: &[&str]) -> (Option<i32>, String) {
    let flags: Vec<_> = flags.iter().map(String::as_str).collect();
    let output = kvs.kvc(&[&flags[..], args].concat());
    (output.status.code(), stderr(&output))
}

/// Checks that kvc is refused with this error.
pub(crate) fn assert_refused(kvs: &Kvs, flags: &[String], line: &str) {
    let said = ask(kvs, flags, &["hget", "t", "k"]);
    assert_eq!(said, (Some(4), format!("kvc: {line}\n")));
}

pub(crate) fn owned(args: &[&str]) -> Vec<String> {
    args.iter().map(ToString::to_string).collect()
}
