//! A server with TLS as its operator sees it: what it says about its files, what SIGHUP does, and
//! the log.
//!
//! Certificates are made when the tests run.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use crate::support::certificates::{Authority, from_3000_on, in_2020, set_mode, write};
use crate::support::programs::{Kvs, kvc, kvs, stderr};
use crate::support::site::{LOCAL, SERVER, Site, ask};

#[test]
fn sighup_reloads_the_files_and_a_broken_pair_changes_nothing() {
    let site = Site::new();
    let kvs = site.start(&["--tls-client-ca", "ca.crt"]);
    assert_eq!(ask(&kvs, &site.showing(), &["hgetall", "t"]).0, Some(0));
    let next = Authority::new("next");
    let pair = next.server(LOCAL);

    let broken = |what: &str| {
        kvs.signal("HUP");
        let line = kvs.wait_for("SIGHUP: reload failed");
        assert!(line.contains(what), "{line}");
        assert_eq!(ask(&kvs, &site.showing(), &["hgetall", "t"]).0, Some(0));
    };
    write(site.path(), "server.crt", &pair.certificate);
    broken("the private key does not belong to the certificate");
    write(site.path(), "server.key", "");
    broken("server.key: there is no private key in it");
    next.issue(LOCAL, in_2020).write(site.path(), "server");
    broken("clients would reject server.crt: it expired on 2020-12-31T00:00:00Z");
    next.issue(LOCAL, from_3000_on).write(site.path(), "server");
    broken("clients would reject server.crt: it is not valid before 3000-01-01T00:00:00Z");
    pair.write(site.path(), "server");
    fs::remove_file(site.path().join("ca.crt")).unwrap();
    kvs.signal("HUP");
    let line = kvs.wait_for("SIGHUP: reload failed");
    assert!(line.contains("cannot read ca.crt"), "{line}");

    // Now everything is new: the CA that clients trust, and the clients that are accepted.
    write(site.path(), "ca.crt", &next.pem());
    kvs.signal("HUP");
    kvs.wait_for("SIGHUP: new connections use the reloaded files");
    kvs.wait_for("certificate");
    next.client().write(site.path(), "client");
    assert_eq!(ask(&kvs, &site.showing(), &["hgetall", "t"]).0, Some(0));
    site.ca.client().write(site.path(), "client");
    assert_eq!(ask(&kvs, &site.showing(), &["hgetall", "t"]).0, Some(4));
    kvs.stop();
}

#[test]
fn warns_about_a_certificate_that_expires_soon_and_a_world_readable_key() {
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
    let line = kvs.wait_for("the certificate expires soon; replace it and send SIGHUP");
    assert!(line.contains("days=29") && line.contains("WARN"), "{line}");
    kvs.wait_for("every user of this machine can read the private key; chmod 600 it");
    kvs.stop();

    expiring(30);
    let kvs = site.start(&[]);
    assert_eq!(ask(&kvs, &site.trusting(), &["hgetall", "t"]).0, Some(0));
    kvs.signal("TERM");
    let (_, log) = kvs.wait();
    assert!(!log.contains("WARN"), "{log}");
}

#[test]
fn unusable_tls_files_prevent_startup_and_create_nothing() {
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
    let advice = "or make certificates with kvs cert init";
    for (args, code, line) in [
        (
            &["--tls-cert", "server.crt"][..],
            2,
            "tls_cert is set (--tls-cert), but tls_key is not (the default); TLS needs a \
             certificate \
             and its key, so set both tls_cert and tls_key"
                .to_owned(),
        ),
        (
            &["--tls-client-ca", "ca.crt"],
            2,
            "tls_client_ca is set (--tls-client-ca), but tls_cert is not (the default); TLS needs \
             a \
             certificate and its key, so set both tls_cert and tls_key"
                .to_owned(),
        ),
        (
            &["--tls-cert", "none.crt", "--tls-key", "server.key"],
            1,
            format!(
                "TLS: cannot read none.crt: No such file or directory (os error 2); check \
                 --tls-cert, {advice}"
            ),
        ),
        (
            &["--tls-cert", "server.key", "--tls-key", "server.crt"],
            1,
            format!(
                "TLS: server.key: there is no certificate in it, but PRIVATE KEY; check \
                 --tls-cert, {advice}"
            ),
        ),
        (
            &["--tls-cert", "server.crt", "--tls-key", "other.key"],
            1,
            "TLS: other.key: the private key does not belong to the certificate; --tls-key must be \
             the key that the certificate in --tls-cert was made for"
                .to_owned(),
        ),
        (
            &[
                "--tls-cert",
                "server.crt",
                "--tls-key",
                "server.key",
                "--tls-client-ca",
                "server.key",
            ],
            1,
            format!(
                "TLS: server.key: there is no certificate in it, but PRIVATE KEY; check \
                 --tls-key and --tls-client-ca, {advice}"
            ),
        ),
    ] {
        for check in [false, true] {
            // A server that starts logs its address first.
            let (ended, log) = run(args, check);
            let said = (ended, log.lines().last().unwrap());
            assert_eq!(said, (Some(code), format!("kvs: {line}").as_str()), "{args:?}");
        }
    }
    assert!(!site.path().join("kvs-data").exists());
    assert_eq!(run(SERVER, true).0, Some(0));
}

#[test]
fn warns_about_a_non_loopback_address_unless_clients_need_certificates() {
    let site = Site::new();
    let start = |args: &[&str]| {
        let mut command = kvs(site.path(), &[SERVER, args].concat());
        Kvs::spawn(command.args(["--storage", "memory", "--listen", "0.0.0.0:0"]))
    };
    let kvs = start(&[]);
    kvs.wait_for("without tls_client_ca, so without authentication");
    kvs.stop();
    let kvs = start(&["--tls-client-ca", "ca.crt"]);
    kvs.signal("TERM");
    let (_, log) = kvs.wait();
    assert!(!log.contains("WARN"), "{log}");
}

#[test]
fn does_not_warn_about_a_bare_connect_but_about_a_stranger() {
    let site = Site::new();
    let kvs = site.start(&[]);
    drop(TcpStream::connect(&kvs.address).unwrap());
    let mut stranger = TcpStream::connect(&kvs.address).unwrap();
    stranger
        .write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        .unwrap();
    let mut alert = Vec::new();
    stranger.read_to_end(&mut alert).unwrap();
    // A TLS alert is all that the server can say to a stranger.
    assert_eq!(alert[..2], [0x15, 3]);
    kvs.signal("TERM");
    let (_, log) = kvs.wait();
    let warnings: Vec<_> = log.lines().filter(|line| line.contains("WARN")).collect();
    assert_eq!(warnings.len(), 1, "{log}");
    assert!(warnings[0].contains("the peer does not speak TLS"), "{log}");
    assert!(warnings[0].contains("peer=127.0.0.1:"), "{log}");
}

#[test]
fn disconnects_and_logs_a_silent_client() {
    let site = Site::new();
    let kvs = site.start(&["--tls-handshake-timeout", "100ms"]);
    let mut silent = TcpStream::connect(&kvs.address).unwrap();
    assert_eq!(silent.read(&mut [0]).unwrap_or(0), 0);
    kvs.wait_for("the TLS handshake was not done within 100ms");
    kvs.stop();
}

#[test]
fn warns_about_flawed_files_when_checking_and_when_starting() {
    let site = Site::new();
    write(
        site.path(),
        "clients.crt",
        &format!("{}{}", site.ca.pem(), site.ca.client().certificate),
    );
    site.ca.issue(&[], in_2020).write(site.path(), "server");
    let flags = [SERVER, &["--tls-client-ca", "clients.crt"]].concat();
    let output = kvs(site.path(), &flags)
        .arg("--check-config")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0));
    let checked = stderr(&output);
    let kvs = site.start(&["--tls-client-ca", "clients.crt"]);
    kvs.signal("TERM");
    let (_, started) = kvs.wait();
    for log in [checked, started] {
        for line in [
            "reason=it expired on 2020-12-31T00:00:00Z",
            "reason=it has no subjectAltName with a DNS name or an address",
            "client CA file=clients.crt certificates=2 expires=",
            "some certificates are not CA certificates; their clients are rejected \
             file=clients.crt useless=1",
        ] {
            assert!(log.contains(line), "{line}: {log}");
        }
    }
}

#[test]
fn trusts_an_expired_ca_with_a_warning() {
    let site = Site::new();
    let old = Authority::with("old", in_2020);
    write(site.path(), "ca.crt", &old.pem());
    old.server(LOCAL).write(site.path(), "server");
    old.client().write(site.path(), "client");
    let kvs = site.start(&["--tls-client-ca", "ca.crt"]);
    kvs.wait_for("a client CA has expired but stays trusted");
    assert_eq!(ask(&kvs, &site.showing(), &["hgetall", "t"]).0, Some(0));
    kvs.stop();
}

#[test]
fn a_reload_under_load_fails_no_request() {
    let site = Site::new();
    let kvs = site.start(&[]);
    let next = Authority::new("next");
    let both = format!("{}{}", site.ca.pem(), next.pem());
    let both = write(site.path(), "both.crt", &both).display().to_string();
    let address = kvs.address.clone();
    let done = AtomicBool::new(false);
    let requests = [AtomicUsize::new(0), AtomicUsize::new(0)];
    std::thread::scope(|scope| {
        let load = |requests: &AtomicUsize| {
            while !done.load(Ordering::SeqCst) {
                let output = kvc(&address, &["--tls-ca", &both, "hset", "t", "k", "v"], b"");
                assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
                requests.fetch_add(1, Ordering::SeqCst);
            }
        };
        let loads = requests
            .each_ref()
            .map(|requests| scope.spawn(move || load(requests)));
        // At least ten times, and until both have asked more than once, or failed.
        let is_enough = |round| {
            let all_asked = requests.iter().all(|n| n.load(Ordering::SeqCst) > 1);
            round >= 10 && (all_asked || loads.iter().any(|load| load.is_finished()))
        };
        for round in (0..).take_while(|round| !is_enough(*round)) {
            let ca = if round % 2 == 0 { &next } else { &site.ca };
            ca.server(LOCAL).write(site.path(), "server");
            kvs.signal("HUP");
            kvs.wait_for("SIGHUP: new connections use the reloaded files");
        }
        done.store(true, Ordering::SeqCst);
        for load in loads {
            load.join().unwrap();
        }
    });
    kvs.stop();
}

#[test]
fn a_flood_of_one_failure_does_not_hide_another() {
    let site = Site::new();
    let kvs = site.start(&["--tls-client-ca", "ca.crt"]);
    for _ in 0..100 {
        let mut stranger = TcpStream::connect(&kvs.address).unwrap();
        stranger.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    }
    assert_eq!(ask(&kvs, &site.trusting(), &["hgetall", "t"]).0, Some(4));
    kvs.wait_for("the peer presented no certificate, which is required here");
    kvs.stop();
}

#[test]
fn does_not_print_a_key_given_instead_of_its_path() {
    let site = Site::new();
    let key = fs::read_to_string(site.path().join("server.key")).unwrap();
    let output = kvs(site.path(), &["--check-config"])
        .env("KVS_TLS_CERT", "server.crt")
        .env("KVS_TLS_KEY", &key)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = stderr(&output);
    assert!(
        said.starts_with("kvs: TLS: got PEM text instead of"),
        "{said}"
    );
    assert!(!said.contains(key.lines().nth(1).unwrap()), "{said}");
}
