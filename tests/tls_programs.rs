//! TLS between the real programs: what each says when it works, and what to do when it does not.
//!
//! Certificates are made when the tests run.

#![cfg(feature = "cli")]
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

#[path = "support/certificates.rs"]
mod certificates;
#[path = "support/programs.rs"]
mod programs;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use certificates::{Authority, from_3000_on, in_2020, set_mode, write};
use programs::{Kvs, kvs, stderr};
use tempfile::TempDir;

const LOCAL: &[&str] = &["localhost", "127.0.0.1"];

const SERVER: &[&str] = &["--tls-cert", "server.crt", "--tls-key", "server.key"];

/// A directory with what a server and its clients need.
struct Site {
    directory: TempDir,
    ca: Authority,
}

impl Site {
    fn new() -> Self {
        let site = Self {
            directory: tempfile::tempdir().unwrap(),
            ca: Authority::new("ca"),
        };
        write(site.path(), "ca.crt", &site.ca.pem());
        site.ca.server(LOCAL).write(site.path(), "server");
        site.ca.client().write(site.path(), "client");
        site
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn file(&self, name: &str) -> String {
        self.path().join(name).display().to_string()
    }

    fn start(&self, args: &[&str]) -> Kvs {
        Kvs::start(
            self.path(),
            &[SERVER, &["--storage", "memory"], args].concat(),
        )
    }

    /// The flags that trust the CA.
    fn trusting(&self) -> Vec<String> {
        vec!["--tls-ca".to_owned(), self.file("ca.crt")]
    }

    /// The flags that show a client's certificate too.
    fn showing(&self) -> Vec<String> {
        let (certificate, key) = (self.file("client.crt"), self.file("client.key"));
        let more = ["--tls-cert", &certificate, "--tls-key", &key].map(str::to_owned);
        [self.trusting(), more.to_vec()].concat()
    }
}

/// Asks the server with these flags; gives the exit code and what was said.
fn ask(kvs: &Kvs, flags: &[String], args: &[&str]) -> (Option<i32>, String) {
    let flags: Vec<_> = flags.iter().map(String::as_str).collect();
    let output = kvs.kvc(&[&flags[..], args].concat());
    (output.status.code(), stderr(&output))
}

/// That it is not served, with this line.
fn assert_refused(kvs: &Kvs, flags: &[String], line: &str) {
    let said = ask(kvs, flags, &["hget", "t", "k"]);
    assert_eq!(said, (Some(4), format!("kvc: {line}\n")));
}

fn owned(args: &[&str]) -> Vec<String> {
    args.iter().map(ToString::to_string).collect()
}

#[test]
fn a_server_with_a_certificate_serves_clients_that_trust_its_ca() {
    let site = Site::new();
    let kvs = site.start(&[]);
    assert!(kvs.started.contains(" tls=on "), "{}", kvs.started);
    let certificate = kvs.wait_for("certificate");
    assert!(
        certificate.contains("names=localhost,127.0.0.1"),
        "{certificate}"
    );

    let noise: Vec<u8> = (0_u32..1 << 20)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    fs::write(site.path().join("noise"), &noise).unwrap();
    let value = format!("@{}", site.file("noise"));
    let said = ask(&kvs, &site.trusting(), &["hset", "t", "k", &value]);
    assert_eq!(said, (Some(0), String::new()));
    let ca = site.file("ca.crt");
    let output = kvs.kvc(&["--tls-ca", &ca, "--output", "raw", "hget", "t", "k"]);
    assert!(output.stdout == noise);

    // The flags go behind the command too, and each has a variable.
    let output = Command::new(env!("CARGO_BIN_EXE_kvc"))
        .args(["hexist", "t", "k"])
        .env("KVC_ADDR", kvs.address.replace("127.0.0.1", "localhost"))
        .env("KVC_TLS_CA", &ca)
        .env("KVC_TLS_SERVER_NAME", "127.0.0.1")
        .output()
        .unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "true\n");
    kvs.ask(&["hexist", "t", "k", "--tls-ca", &ca]);
    kvs.stop();
}

#[test]
fn the_system_s_cas_are_trusted_where_none_is_named() {
    let site = Site::new();
    let kvs = site.start(&[]);
    let output = |roots: &str| {
        let mut kvc = Command::new(env!("CARGO_BIN_EXE_kvc"));
        kvc.args(["hgetall", "t"])
            .env("KVC_ADDR", &kvs.address)
            .env("KVC_TLS", "true")
            .env("SSL_CERT_FILE", site.file(roots))
            .env_remove("SSL_CERT_DIR");
        let output = kvc.output().unwrap();
        (output.status.code(), stderr(&output))
    };
    assert_eq!(output("ca.crt"), (Some(0), String::new()));

    write(site.path(), "others.crt", &Authority::new("other").pem());
    let (code, said) = output("others.crt");
    assert_eq!(code, Some(4));
    assert!(
        said.ends_with(
            "is from a CA that is not trusted here; name the server's CA with --tls-ca\n"
        ),
        "{said}"
    );
    let (code, said) = output("none.crt");
    assert_eq!(code, Some(6));
    assert!(
        said.starts_with("kvc: the system has no certificates of CAs to trust: ")
            && said.ends_with("; name the server's CA with --tls-ca\n"),
        "{said}"
    );
    kvs.stop();
}

#[test]
fn a_client_is_told_what_to_do_about_the_server_s_certificate() {
    let site = Site::new();
    let kvs = site.start(&[]);
    let peer = format!("no TLS with {}: the certificate of the peer", kvs.address);

    let other = write(site.path(), "other.crt", &Authority::new("other").pem());
    assert_refused(
        &kvs,
        &owned(&["--tls-ca", other.to_str().unwrap()]),
        &format!(
            "{peer} is from a CA that is not trusted here; name the server's CA with --tls-ca"
        ),
    );
    let wrong_name = [site.trusting(), owned(&["--tls-server-name", "db.example"])].concat();
    assert_refused(
        &kvs,
        &wrong_name,
        &format!(
            "{peer} is not for \"db.example\", but for localhost, 127.0.0.1; name one of these in \
             --addr, or with --tls-server-name"
        ),
    );
    kvs.stop();

    site.ca.issue(LOCAL, in_2020).write(site.path(), "server");
    let kvs = site.start(&[]);
    let peer = format!("no TLS with {}: the certificate of the peer", kvs.address);
    kvs.wait_for(
        "clients will refuse the certificate, which has expired: replace it, and send SIGHUP",
    );
    assert_refused(
        &kvs,
        &site.trusting(),
        &format!(
            "{peer} expired on 2020-12-31T00:00:00Z; have it renewed, or check the clock of this machine"
        ),
    );
    kvs.stop();

    site.ca
        .issue(LOCAL, from_3000_on)
        .write(site.path(), "server");
    let kvs = site.start(&[]);
    let peer = format!("no TLS with {}: the certificate of the peer", kvs.address);
    kvs.wait_for("clients will refuse the certificate, which is not valid yet");
    assert_refused(
        &kvs,
        &site.trusting(),
        &format!(
            "{peer} is not valid yet, but from 3000-01-01T00:00:00Z on; check the clock of this machine"
        ),
    );
    kvs.stop();
}

#[test]
fn with_a_client_ca_a_client_needs_a_certificate_and_is_told_so() {
    let site = Site::new();
    let kvs = site.start(&["--tls-client-ca", "ca.crt"]);
    assert!(kvs.started.contains(" tls=mutual "), "{}", kvs.started);
    assert_eq!(
        ask(&kvs, &site.showing(), &["hset", "t", "k", "v"]),
        (Some(0), String::new())
    );
    let address = &kvs.address;
    assert_refused(
        &kvs,
        &site.trusting(),
        &format!(
            "no TLS with {address}: the peer requires a certificate; give one with --tls-cert and \
             --tls-key"
        ),
    );
    kvs.wait_for("the peer presented no certificate, which is required here");

    Authority::new("strangers")
        .client()
        .write(site.path(), "client");
    assert_refused(
        &kvs,
        &site.showing(),
        &format!(
            "no TLS with {address}: the peer does not accept the certificate that it was shown: it is \
             from a CA that is not trusted there; with --tls-cert and --tls-key give one from the CA \
             that kvs has as --tls-client-ca"
        ),
    );
    kvs.wait_for("the certificate of the peer is from a CA that is not trusted here");
    kvs.stop();
}

#[test]
fn one_end_without_tls_is_told_to_use_it_or_not_to() {
    let site = Site::new();
    let tls = site.start(&[]);
    let address = &tls.address;
    assert_refused(
        &tls,
        &[],
        &format!(
            "{address} speaks TLS; name its CA with --tls-ca, or say --tls to trust those of the system"
        ),
    );
    tls.wait_for("no TLS handshake error=the peer does not speak TLS");
    tls.stop();

    let plain = Kvs::start(site.path(), &["--storage", "memory"]);
    assert!(plain.started.contains(" tls=off "), "{}", plain.started);
    let address = &plain.address;
    assert_refused(
        &plain,
        &site.trusting(),
        &format!(
            "no TLS with {address}: the peer does not speak TLS; leave the flags of TLS out, or name \
             another kvs with --addr"
        ),
    );
    plain.stop();
}

#[test]
fn flags_of_tls_that_make_no_sense_are_explained() {
    let site = Site::new();
    let kvs = site.start(&[]);
    let (ca, certificate, key) = (
        site.file("ca.crt"),
        site.file("client.crt"),
        site.file("client.key"),
    );
    let none = site.file("none.crt");
    let other = site.file("server.key");
    for (flags, code, line) in [
        (
            owned(&["--tls", "--tls-cert", &certificate]),
            2,
            "--tls-cert is given and --tls-key is not; a certificate is shown with its key, so give \
             both; see kvc --help"
                .to_owned(),
        ),
        (
            owned(&["--tls", "--tls-key", &key]),
            2,
            "--tls-key is given and --tls-cert is not; a certificate is shown with its key, so give \
             both; see kvc --help"
                .to_owned(),
        ),
        (
            owned(&["--tls-ca", &none]),
            6,
            format!(
                "cannot read {none}: No such file or directory (os error 2); check --tls-ca, \
                 --tls-cert and --tls-key"
            ),
        ),
        (
            owned(&["--tls-ca", &key]),
            6,
            format!(
                "{key}: there is no certificate in it, but PRIVATE KEY; check --tls-ca, --tls-cert \
                 and --tls-key"
            ),
        ),
        (
            owned(&["--tls-ca", &ca, "--tls-cert", &certificate, "--tls-key", &other]),
            6,
            "the private key does not belong to the certificate; check --tls-cert and --tls-key"
                .to_owned(),
        ),
        (
            owned(&["--tls-ca", &ca, "--tls-server-name", "a b"]),
            6,
            "\"a b\" is no name that a certificate can have; give a DNS name or an IP address with \
             --tls-server-name"
                .to_owned(),
        ),
    ] {
        let said = ask(&kvs, &flags, &["hget", "t", "k"]);
        assert_eq!(said, (Some(code), format!("kvc: {line}\n")), "{flags:?}");
    }
    kvs.stop();
}

#[test]
fn sighup_has_the_files_read_again_and_a_broken_pair_changes_nothing() {
    let site = Site::new();
    let kvs = site.start(&["--tls-client-ca", "ca.crt"]);
    assert_eq!(ask(&kvs, &site.showing(), &["hgetall", "t"]).0, Some(0));
    let next = Authority::new("next");
    let pair = next.server(LOCAL);

    let broken = |what: &str| {
        kvs.signal("HUP");
        let line = kvs.wait_for("SIGHUP: nothing changes");
        assert!(line.contains(what), "{line}");
        assert_eq!(ask(&kvs, &site.showing(), &["hgetall", "t"]).0, Some(0));
    };
    write(site.path(), "server.crt", &pair.certificate);
    broken("the private key does not belong to the certificate");
    write(site.path(), "server.key", "");
    broken("server.key: there is no private key in it");
    next.issue(LOCAL, in_2020).write(site.path(), "server");
    broken("server.crt: the certificate expired on 2020-12-31T00:00:00Z");
    pair.write(site.path(), "server");
    fs::remove_file(site.path().join("ca.crt")).unwrap();
    kvs.signal("HUP");
    let line = kvs.wait_for("SIGHUP: nothing changes");
    assert!(line.contains("cannot read ca.crt"), "{line}");

    // All of it is new now: whom clients have to trust, and who of them gets in.
    write(site.path(), "ca.crt", &next.pem());
    kvs.signal("HUP");
    kvs.wait_for("SIGHUP: new connections use what was read");
    kvs.wait_for("certificate");
    next.client().write(site.path(), "client");
    assert_eq!(ask(&kvs, &site.showing(), &["hgetall", "t"]).0, Some(0));
    site.ca.client().write(site.path(), "client");
    assert_eq!(ask(&kvs, &site.showing(), &["hgetall", "t"]).0, Some(4));
    kvs.stop();
}

#[test]
fn a_certificate_that_expires_soon_and_a_key_that_all_can_read_are_warned_of() {
    let site = Site::new();
    let expiring = |days: u64| {
        let pair = site.ca.issue(LOCAL, |params| {
            let end = SystemTime::now() + Duration::from_secs(days * 24 * 60 * 60 + 3600);
            params.not_after = end.into();
        });
        pair.write(site.path(), "server");
    };
    expiring(29);
    set_mode(&site.path().join("server.key"), 0o644);
    let kvs = site.start(&[]);
    let line = kvs.wait_for("the certificate expires soon: replace it, and send SIGHUP");
    assert!(line.contains("days=29") && line.contains("WARN"), "{line}");
    kvs.wait_for("every user of this machine can read the private key: chmod 600 it");
    kvs.stop();

    expiring(30);
    let kvs = site.start(&[]);
    assert_eq!(ask(&kvs, &site.trusting(), &["hgetall", "t"]).0, Some(0));
    kvs.signal("TERM");
    let (_, log) = kvs.wait();
    assert!(!log.contains("WARN"), "{log}");
}

#[test]
fn files_that_are_no_certificates_keep_a_server_from_starting_and_nothing_is_made() {
    let site = Site::new();
    write(site.path(), "other.key", &site.ca.server(LOCAL).key);
    let run = |args: &[&str], check: bool| {
        let mut command = kvs(site.path(), args);
        command.env("KVS_LISTEN", "127.0.0.1:0");
        if check {
            command.arg("--check-config");
        }
        let output = command.output().unwrap();
        (output.status.code(), stderr(&output))
    };
    let advice = "check --tls-cert, --tls-key and --tls-client-ca, or make certificates with kvs \
                  cert init";
    for (args, code, line) in [
        (
            &["--tls-cert", "server.crt"][..],
            2,
            "tls_cert is set (--tls-cert) and tls_key is not (the default); TLS takes a certificate \
             and its key, so set both tls_cert and tls_key"
                .to_owned(),
        ),
        (
            &["--tls-client-ca", "ca.crt"],
            2,
            "tls_client_ca is set (--tls-client-ca) and tls_cert is not (the default); TLS takes a \
             certificate and its key, so set both tls_cert and tls_key"
                .to_owned(),
        ),
        (
            &["--tls-cert", "none.crt", "--tls-key", "server.key"],
            1,
            format!("TLS: cannot read none.crt: No such file or directory (os error 2); {advice}"),
        ),
        (
            &["--tls-cert", "server.key", "--tls-key", "server.crt"],
            1,
            format!("TLS: server.key: there is no certificate in it, but PRIVATE KEY; {advice}"),
        ),
        (
            &["--tls-cert", "server.crt", "--tls-key", "other.key"],
            1,
            "TLS: the private key does not belong to the certificate; --tls-key needs the key that \
             the certificate of --tls-cert was made for"
                .to_owned(),
        ),
        (
            &["--tls-cert", "server.crt", "--tls-key", "server.key", "--tls-client-ca", "server.key"],
            1,
            format!("TLS: server.key: there is no certificate in it, but PRIVATE KEY; {advice}"),
        ),
    ] {
        for check in [false, true] {
            let said = run(args, check);
            assert_eq!(said, (Some(code), format!("kvs: {line}\n")), "{args:?}");
        }
    }
    assert!(!site.path().join("kvs-data").exists());
    assert_eq!(run(SERVER, true).0, Some(0));
}

#[test]
fn an_open_address_is_warned_of_unless_clients_need_certificates() {
    let site = Site::new();
    let start = |args: &[&str]| {
        let mut command = kvs(site.path(), &[SERVER, args].concat());
        Kvs::spawn(command.args(["--storage", "memory", "--listen", "0.0.0.0:0"]))
    };
    let kvs = start(&[]);
    kvs.wait_for("without tls_client_ca there is no authentication");
    kvs.stop();
    let kvs = start(&["--tls-client-ca", "ca.crt"]);
    kvs.signal("TERM");
    let (_, log) = kvs.wait();
    assert!(!log.contains("WARN"), "{log}");
}

#[test]
fn a_probe_that_only_connects_is_no_complaint_and_a_stranger_is() {
    let site = Site::new();
    let kvs = site.start(&["--tls-handshake-timeout", "100ms"]);
    let address = &kvs.address;
    drop(TcpStream::connect(address).unwrap());
    let mut stranger = TcpStream::connect(address).unwrap();
    stranger
        .write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        .unwrap();
    let mut alert = Vec::new();
    stranger.read_to_end(&mut alert).unwrap();
    // An alert of TLS, which is what whoever speaks it can say.
    assert_eq!(alert[..2], [0x15, 3]);
    let mut silent = TcpStream::connect(address).unwrap();
    assert_eq!(silent.read(&mut [0]).unwrap_or(0), 0);
    kvs.wait_for("the TLS handshake was not done within 100ms");
    kvs.signal("TERM");
    let (_, log) = kvs.wait();
    let warnings: Vec<_> = log.lines().filter(|line| line.contains("WARN")).collect();
    assert_eq!(warnings.len(), 2, "{log}");
    assert!(
        warnings[0].contains("the peer does not speak TLS")
            && warnings[0].contains("peer=127.0.0.1:")
    );
}
