//! A host name with several addresses, some of which answer, for every command that connects.
//!
//! libnss-wrapper makes the C library resolve the name from a file of the test.

use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

use crate::support::programs::{Kvs, stderr};
use crate::support::silent::Silent;

const NSS_WRAPPER: &str = "libnss_wrapper.so";

/// How long kvc would wait for a silent address if it tried no other.
const LONG: &str = "60s";

/// A directory with a hosts file that gives the name `twofold` these addresses, in this order.
fn hosts(addresses: [&str; 2]) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let lines = addresses.map(|address| format!("{address} twofold\n"));
    fs::write(directory.path().join("hosts"), lines.concat()).unwrap();
    directory
}

/// Runs kvc with this hosts file.
fn kvc(hosts: &Path, port: u16, args: &[&str], stdin: &[u8]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kvc"));
    let mut child = command
        .args(["--addr", &format!("twofold:{port}")])
        .args(args)
        .env_remove("KVC_TIMEOUT")
        .env("LD_PRELOAD", NSS_WRAPPER)
        .env("NSS_WRAPPER_HOSTS", hosts.join("hosts"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(stdin).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = stderr(&output);
    assert!(
        !said.contains("cannot be preloaded"),
        "this test needs Debian's libnss-wrapper: {said}"
    );
    output
}

/// A server, and a silent address with the same port.
fn with_silent_address() -> (Kvs, Silent, u16) {
    let directory = tempfile::tempdir().unwrap();
    loop {
        let kvs = Kvs::start(directory.path(), &["--storage", "memory"]);
        let port = kvs.address.parse::<SocketAddr>().unwrap().port();
        // The port may be in use at the other address.
        if let Some(silent) = Silent::at(SocketAddr::from(([127, 0, 0, 2], port))) {
            return (kvs, silent, port);
        }
    }
}

#[test]
fn every_command_reaches_the_server_beside_a_silent_address() {
    let (kvs, _silent, port) = with_silent_address();
    for order in [["127.0.0.2", "127.0.0.1"], ["127.0.0.1", "127.0.0.2"]] {
        let hosts = hosts(order);
        let commands: [(&[&str], &str, &str); 5] = [
            (&["ping"], "", "pong\n"),
            (&["ping", "--wait", LONG], "", "pong\n"),
            (&["hexist", "t", "none"], "", "false\n"),
            (&[], "ping\nhexist t none\n", "pong\nfalse\n"),
            (&["bench", "--requests", "10", "--connections", "2"], "", ""),
        ];
        for (args, stdin, printed) in commands {
            let args = [&["--timeout", LONG], args].concat();
            let output = kvc(hosts.path(), port, &args, stdin.as_bytes());
            let said = stderr(&output);
            let no = printed.ends_with("false\n");
            assert_eq!(output.status.code(), Some(no.into()), "{args:?}: {said}");
            let stdout = String::from_utf8(output.stdout).unwrap();
            assert!(stdout.starts_with(printed), "{args:?}: {stdout}");
        }
    }
    kvs.stop();
}

#[test]
fn names_each_address_and_reason_if_none_answers() {
    let (kvs, _silent, port) = with_silent_address();
    kvs.stop();
    let hosts = hosts(["127.0.0.2", "127.0.0.1"]);
    for args in [&["ping"][..], &["hget", "t", "k"], &["bench"]] {
        let args = [&["--timeout", "1s"], args].concat();
        let output = kvc(hosts.path(), port, &args, b"");
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(4), "{said}");
        for part in [
            format!("kvc: cannot connect to twofold:{port}: "),
            format!("127.0.0.2:{port}: no answer within 1s"),
            format!("127.0.0.1:{port}: Connection refused (os error 111)"),
            "; check --addr, or allow more with --timeout\n".to_owned(),
        ] {
            assert!(said.contains(&part), "{said}");
        }
    }
}

/// One address cannot be reached from here: a multicast address over TCP, or `::1` on a machine
/// without IPv6.
#[test]
fn advises_to_start_a_server_even_if_another_address_is_unreachable() {
    let directory = tempfile::tempdir().unwrap();
    let kvs = Kvs::start(directory.path(), &["--storage", "memory"]);
    let port = kvs.address.parse::<SocketAddr>().unwrap().port();
    kvs.stop();
    for other in ["224.0.0.1", "::1"] {
        let hosts = hosts([other, "127.0.0.1"]);
        let output = kvc(hosts.path(), port, &["hget", "t", "k"], b"");
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(4), "{said}");
        let refused = format!("127.0.0.1:{port}: Connection refused (os error 111)");
        assert!(said.contains(&refused), "{said}");
        assert!(said.contains("; start kvs there"), "{said}");
    }
}
