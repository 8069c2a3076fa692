//! TLS between the real programs: what they print when it works, and the advice when it does not.
//!
//! Certificates are made when the tests run.

use std::fs;
use std::process::Command;

use crate::support::certificates::{Authority, from_3000_on, in_2020, write};
use crate::support::programs::{Kvs, stderr};
use crate::support::site::{LOCAL, Site, ask, assert_refused, owned};

#[test]
fn serves_clients_that_trust_the_ca() {
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

    // The flags may also follow the command, and each has a variable.
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
fn trusts_the_system_cas_by_default() {
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
            "is from a CA that is not trusted here; give the CA that signed it with --tls-ca; \
             the server has to send intermediate certificates\n"
        ),
        "{said}"
    );
    let (code, said) = output("none.crt");
    assert_eq!(code, Some(6));
    assert!(
        said.starts_with("kvc: the system has no trusted CA certificates: ")
            && said.ends_with("; name the server's CA with --tls-ca\n"),
        "{said}"
    );
    kvs.stop();
}

#[test]
fn tells_a_client_what_to_do_about_a_rejected_server_certificate() {
    let site = Site::new();
    let kvs = site.start(&[]);
    let peer = format!(
        "TLS with {} failed: the certificate of the peer",
        kvs.address
    );

    let other = write(site.path(), "other.crt", &Authority::new("other").pem());
    assert_refused(
        &kvs,
        &owned(&["--tls-ca", other.to_str().unwrap()]),
        &format!(
            "{peer} is from a CA that is not trusted here; give the CA that signed it with \
             --tls-ca; \
             the server has to send intermediate certificates"
        ),
    );
    let wrong_name = [site.trusting(), owned(&["--tls-server-name", "db.example"])].concat();
    assert_refused(
        &kvs,
        &wrong_name,
        &format!(
            "{peer} is not for \"db.example\", but for localhost, 127.0.0.1; use a name from the \
             certificate in --addr, or with --tls-server-name"
        ),
    );
    kvs.stop();

    site.ca.issue(LOCAL, in_2020).write(site.path(), "server");
    let kvs = site.start(&[]);
    let peer = format!(
        "TLS with {} failed: the certificate of the peer",
        kvs.address
    );
    kvs.wait_for("clients will reject the certificate; replace it and send SIGHUP");
    assert_refused(
        &kvs,
        &site.trusting(),
        &format!(
            "{peer} expired on 2020-12-31T00:00:00Z; have it renewed, or check the clock of this \
             machine"
        ),
    );
    kvs.stop();

    site.ca
        .issue(LOCAL, from_3000_on)
        .write(site.path(), "server");
    let kvs = site.start(&[]);
    let peer = format!(
        "TLS with {} failed: the certificate of the peer",
        kvs.address
    );
    kvs.wait_for("clients will reject the certificate; replace it and send SIGHUP");
    assert_refused(
        &kvs,
        &site.trusting(),
        &format!(
            "{peer} is not valid yet (valid from 3000-01-01T00:00:00Z); check the clock of this \
             machine"
        ),
    );
    kvs.stop();
}

#[test]
fn tells_a_client_that_it_needs_a_certificate() {
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
            "TLS with {address} failed: the peer requires a certificate; give one with --tls-cert \
             and \
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
            "TLS with {address} failed: the peer does not accept the certificate that it was \
             shown: it is \
             from a CA that is not trusted there; give a client certificate from the CA in kvs's \
             --tls-client-ca, with --tls-cert and --tls-key"
        ),
    );
    kvs.wait_for("the certificate of the peer is from a CA that is not trusted here");
    kvs.stop();
}

#[test]
fn tells_a_client_if_only_one_end_uses_tls() {
    let site = Site::new();
    let tls = site.start(&[]);
    let address = &tls.address;
    assert_refused(
        &tls,
        &[],
        &format!(
            "{address} speaks TLS; name its CA with --tls-ca, or use --tls to trust the system's \
             CAs"
        ),
    );
    tls.wait_for("TLS handshake failed error=the peer does not speak TLS");
    tls.stop();

    let plain = Kvs::start(site.path(), &["--storage", "memory"]);
    assert!(plain.started.contains(" tls=off "), "{}", plain.started);
    let address = &plain.address;
    assert_refused(
        &plain,
        &site.trusting(),
        &format!(
            "TLS with {address} failed: the peer does not speak TLS; use --tls=false, or name \
             another kvs with --addr"
        ),
    );
    plain.stop();
}

#[test]
fn explains_tls_flags_that_make_no_sense() {
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
            "--tls-cert is given and --tls-key is not; give both the certificate and \
             its key; see kvc --help"
                .to_owned(),
        ),
        (
            owned(&["--tls", "--tls-key", &key]),
            2,
            "--tls-key is given and --tls-cert is not; give both the certificate and \
             its key; see kvc --help"
                .to_owned(),
        ),
        (
            owned(&["--tls-ca", &none]),
            6,
            format!("cannot read {none}: No such file or directory (os error 2); check --tls-ca"),
        ),
        (
            owned(&["--tls-ca", &key]),
            6,
            format!("{key}: there is no certificate in it, but PRIVATE KEY; check --tls-ca"),
        ),
        (
            owned(&[
                "--tls-ca",
                &ca,
                "--tls-cert",
                &certificate,
                "--tls-key",
                &other,
            ]),
            6,
            format!(
                "{other}: the private key does not belong to the certificate; check --tls-cert and \
                 --tls-key"
            ),
        ),
        (
            owned(&["--tls-ca", &ca, "--tls-server-name", "a b"]),
            6,
            "\"a b\" is not a valid server name; give a DNS name or an IP address with \
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
fn an_empty_variable_counts_as_unset_and_tls_can_be_turned_off() {
    let site = Site::new();
    let kvs = Kvs::start(site.path(), &["--storage", "memory"]);
    let run = |variables: &[(&str, &str)], args: &[&str]| {
        let mut kvc = Command::new(env!("CARGO_BIN_EXE_kvc"));
        kvc.args(args).env("KVC_ADDR", &kvs.address);
        kvc.envs(variables.iter().copied());
        let output = kvc.output().unwrap();
        (output.status.code(), stderr(&output))
    };
    let empty = [
        "TLS",
        "TLS_CA",
        "TLS_CERT",
        "TLS_KEY",
        "TLS_SERVER_NAME",
        "TIMEOUT",
        "OUTPUT",
    ];
    let empty: Vec<_> = empty
        .iter()
        .map(|name| (format!("KVC_{name}"), ""))
        .collect();
    let empty: Vec<_> = empty
        .iter()
        .map(|(name, value)| (&**name, *value))
        .collect();
    assert_eq!(run(&empty, &["hgetall", "t"]), (Some(0), String::new()));

    let ca = site.file("ca.crt");
    let with_ca = [("KVC_TLS_CA", &*ca)];
    assert_eq!(run(&with_ca, &["hgetall", "t"]).0, Some(4));
    assert_eq!(run(&with_ca, &["--tls=false", "hgetall", "t"]).0, Some(0));
    let off = [("KVC_TLS_CA", &*ca), ("KVC_TLS", "false")];
    assert_eq!(run(&off, &["hgetall", "t"]).0, Some(0));
    kvs.stop();
}
