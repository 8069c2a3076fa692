//! Certificates that `kvs cert` made in the directory `certs`, and TLS with them.
//!
//! The handshakes are kv's own, over a pipe, so that they test how the library reads the files too.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use kv::{HandshakeError, TlsClientConnector, TlsError, TlsIdentity, TlsRoots, TlsServerAcceptor};
use tokio::io::duplex;

use super::programs::{kvs, stderr};

pub(crate) const FILES: [&str; 6] = [
    "ca.crt",
    "ca.key",
    "client.crt",
    "client.key",
    "server.crt",
    "server.key",
];

pub(crate) const MODES: [(&str, u32); 6] = [
    ("ca.crt", 0o644),
    ("ca.key", 0o600),
    ("client.crt", 0o644),
    ("client.key", 0o600),
    ("server.crt", 0o644),
    ("server.key", 0o600),
];

pub(crate) fn run(command: &mut Command) -> (Option<i32>, String, String) {
    let output = command.output().unwrap();
    let message = stderr(&output);
    let stdout = String::from_utf8(output.stdout).unwrap();
    (output.status.code(), stdout, message)
}

/// Runs `kvs cert init certs` with further arguments. It must succeed. Returns its output.
pub(crate) fn init(parent: &Path, args: &[&str]) -> String {
    let mut command = kvs(parent, &["cert", "init", "certs"]);
    let (code, stdout, stderr) = run(command.args(args));
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    stdout
}

/// Runs `kvs cert renew certs` with further arguments. It must succeed. Returns its output.
pub(crate) fn renew(parent: &Path, args: &[&str]) -> String {
    let mut command = kvs(parent, &["cert", "renew", "certs"]);
    let (code, stdout, stderr) = run(command.args(args));
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    stdout
}

/// Runs a kvs that must fail, with nothing on standard output and one line on standard error.
pub(crate) fn fails(parent: &Path, args: &[&str]) -> (Option<i32>, String) {
    let (code, stdout, stderr) = run(&mut kvs(parent, args));
    assert_eq!(
        (stdout.as_str(), stderr.lines().count()),
        ("", 1),
        "{stderr}"
    );
    (code, stderr)
}

/// A kvs started by a shell that first runs `preparation`.
pub(crate) fn kvs_after(parent: &Path, preparation: &str, args: &[&str]) -> Command {
    let kvs = kvs(parent, args);
    let mut command = Command::new("sh");
    command
        .args(["-c", &format!("{preparation}; exec \"$0\" \"$@\"")])
        .arg(kvs.get_program())
        .args(kvs.get_args())
        .current_dir(parent);
    command
}

/// Every file in a directory, including hidden ones.
pub(crate) fn content(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        (name, fs::read(entry.path()).unwrap())
    });
    entries.collect()
}

pub(crate) fn identity(directory: &Path, name: &str) -> TlsIdentity {
    let path = |extension| directory.join(format!("{name}.{extension}"));
    TlsIdentity::from_files(path("crt"), path("key")).unwrap()
}

pub(crate) fn roots(directory: &Path) -> TlsRoots {
    TlsRoots::from_file(directory.join("ca.crt")).unwrap()
}

/// A client that trusts the CA of this directory. It has a certificate from there if `has` names
/// one.
pub(crate) fn client(directory: &Path, has: Option<&str>) -> TlsClientConnector {
    let identity = has.map(|name| identity(directory, name));
    TlsClientConnector::new(roots(directory), identity).unwrap()
}

/// A server with the certificate of this name that accepts all clients.
pub(crate) fn server(directory: &Path, name: &str) -> TlsServerAcceptor {
    TlsServerAcceptor::new(identity(directory, name), None).unwrap()
}

/// A server that accepts only clients with a certificate from the CA of this directory.
pub(crate) fn strict_server(directory: &Path, name: &str) -> TlsServerAcceptor {
    TlsServerAcceptor::new(identity(directory, name), Some(roots(directory))).unwrap()
}

/// Shakes hands, and returns the error of the end that rejects the other.
pub(crate) async fn shake_hands(
    client: &TlsClientConnector,
    host: &str,
    server: &TlsServerAcceptor,
) -> Result<(), HandshakeError> {
    let (near, far) = duplex(64 * 1024);
    let (connected, accepted) = tokio::join!(client.connect(host, near), server.accept(far));
    match connected {
        // The client finishes before the server has checked it.
        Ok(_) => accepted.map(drop),
        Err(TlsError::Handshake(error)) => Err(error),
        Err(other) => panic!("{other}"),
    }
}

pub(crate) fn modes(directory: &Path) -> Vec<(&'static str, u32)> {
    let modes = FILES.map(|name| {
        let metadata = fs::metadata(directory.join(name)).unwrap();
        (name, metadata.permissions().mode() & 0o7777)
    });
    modes.to_vec()
}
