//! An error about a setting names its origin: a flag, a variable, or a target in its file.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Output, Stdio};

use crate::support::certificates;
use crate::support::programs::{kvc_with, stderr};

fn with(variables: &[(&str, &str)], home: &Path, args: &[&str]) -> Output {
    kvc_with(variables, home, args).output().unwrap()
}

/// The same, with these lines as standard input.
fn script(variables: &[(&str, &str)], home: &Path, args: &[&str], lines: &str) -> String {
    let mut command = kvc_with(variables, home, args);
    command.stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(lines.as_bytes()).unwrap();
    drop(stdin);
    stderr(&child.wait_with_output().unwrap())
}

#[test]
fn names_a_wrong_variable_and_no_flag() {
    let home = tempfile::tempdir().unwrap();
    let refused = |variables: &[(&str, &str)], args: &[&str], code, line: &str| {
        let output = with(variables, home.path(), args);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{variables:?}: {said}");
        assert!(
            said.starts_with(&format!("kvc: {line}")),
            "{variables:?}: {said}"
        );
        for (name, _) in variables {
            let flag = name
                .trim_start_matches("KVC_")
                .to_lowercase()
                .replace('_', "-");
            assert!(
                said.contains(name) && !said.contains(&format!("--{flag} ")),
                "{said}"
            );
        }
    };
    let ping = ["ping"];
    for (name, value, code, line) in [
        (
            "KVC_ADDR",
            "foo",
            2,
            "invalid value 'foo' for KVC_ADDR: \"foo\" is no address;",
        ),
        (
            "KVC_TIMEOUT",
            "5",
            2,
            "invalid value '5' for KVC_TIMEOUT: \"5\" has no unit; write 5s,",
        ),
        (
            "KVC_OUTPUT",
            "jsn",
            2,
            "invalid value 'jsn' for KVC_OUTPUT ",
        ),
        (
            "KVC_TLS",
            "maybe",
            2,
            "invalid value 'maybe' for KVC_TLS [possible values: true, false]",
        ),
        (
            "KVC_TLS_CA",
            "/none",
            6,
            "cannot read /none: No such file or directory (os error 2); check KVC_TLS_CA\n",
        ),
        (
            "KVC_TLS_CERT",
            "/none",
            2,
            "KVC_TLS_CERT is given and --tls-key is not;",
        ),
        (
            "KVC_TLS_KEY",
            "/none",
            2,
            "KVC_TLS_KEY is given and --tls-cert is not;",
        ),
        (
            "KVC_TARGET",
            "prod",
            6,
            "KVC_TARGET: there is no targets file;",
        ),
        ("KVC_CONFIG", "/none", 6, "KVC_CONFIG: cannot read /none"),
    ] {
        refused(&[(name, value)], &ping, code, line);
    }
    let ca = home.path().join("ca.crt");
    fs::write(&ca, certificates::Authority::new("ca").pem()).unwrap();
    let ca = ca.to_str().unwrap();
    let name = [("KVC_TLS_SERVER_NAME", "a b")];
    refused(
        &name,
        &["ping", "--tls-ca", ca],
        6,
        "\"a b\" is not a valid server name; give a DNS name or an IP address with \
         KVC_TLS_SERVER_NAME\n",
    );
    // A wrong variable is reported even if a flag overrides it, and the flag is not blamed.
    for args in [["--addr", "x:1", "ping"], ["ping", "--addr", "x:1"]] {
        let said = stderr(&with(&[("KVC_ADDR", "foo")], home.path(), &args));
        let line = "kvc: invalid value 'foo' for KVC_ADDR: ";
        assert!(said.starts_with(line), "{said}");
    }
    let output = with(
        &[("KVC_ADDR", "x:1")],
        home.path(),
        &["ping", "--addr", "bar"],
    );
    let line = "kvc: invalid value 'bar' for '--addr <HOST:PORT>': ";
    assert!(stderr(&output).starts_with(line), "{}", stderr(&output));
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let late = ["hget", "t", "k", "--timeout", "50ms"];
    refused(
        &[("KVC_ADDR", &address)],
        &late,
        4,
        &format!(
            "no answer from {address} within 50ms; check KVC_ADDR, or allow more with --timeout\n"
        ),
    );
    let output = with(
        &[],
        home.path(),
        &["--addr", &address, "hget", "t", "k", "--timeout", "50ms"],
    );
    assert!(
        stderr(&output).contains("; check --addr, or"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn names_a_wrong_target_with_its_file() {
    let home = tempfile::tempdir().unwrap();
    fs::create_dir(home.path().join("kvc")).unwrap();
    let file = home.path().join("kvc/config.toml");
    let said = |text: &str, variables: &[(&str, &str)], args: &[&str]| {
        fs::write(&file, text).unwrap();
        stderr(&with(variables, home.path(), args))
    };
    let place = format!("[target.prod] in {}", file.display());
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let text = format!("default = 'prod'\n[target.prod]\naddr = '{address}'\ntimeout = '50ms'\n");
    let line = said(&text, &[], &["ping"]);
    assert_eq!(
        line,
        format!(
            "kvc: no answer from {address} within 50ms; check addr of {place}, or allow more with \
             --timeout\n"
        )
    );
    let tls = "[target.prod]\ntls_ca = 'none.crt'\ntls_server_name = 'x'\n";
    let line = said(tls, &[], &["--target", "prod", "ping"]);
    assert!(
        line.ends_with(&format!("; check tls_ca of {place}\n")),
        "{line}"
    );
    // Only the file that is wrong is named, and the target once.
    let ca = home.path().join("kvc/ca.crt");
    fs::write(&ca, certificates::Authority::new("ca").pem()).unwrap();
    let all = "[target.prod]\ntls_ca = 'ca.crt'\ntls_cert = 'none.crt'\ntls_key = 'none.key'\n";
    let line = said(all, &[], &["--target", "prod", "ping"]);
    let end =
        format!("none.crt: No such file or directory (os error 2); check tls_cert of {place}\n");
    assert!(line.ends_with(&end), "{line}");
    let pem = all.replace("none.crt", "-----BEGIN CERTIFICATE-----");
    let line = said(&pem, &[], &["--target", "prod", "ping"]);
    assert!(
        line.ends_with(&format!("; check tls_cert of {place}\n")),
        "{line}"
    );
    // A source that overrides the target is named instead.
    let line = said(
        tls,
        &[("KVC_TLS_CA", "/other.crt"), ("KVC_TARGET", "prod")],
        &["ping"],
    );
    assert!(line.ends_with("; check KVC_TLS_CA\n"), "{line}");
    let line = said(
        tls,
        &[],
        &["--target", "prod", "ping", "--tls-ca", "/other.crt"],
    );
    assert!(line.ends_with("; check --tls-ca\n"), "{line}");
    let line = said(tls, &[("KVC_TARGET", "prd")], &["ping"]);
    assert!(
        line.starts_with("kvc: KVC_TARGET: no target is called \"prd\" in ")
            && line.contains("did you mean prod?"),
        "{line}"
    );
}

#[test]
fn names_the_script_line_that_names_the_server() {
    let home = tempfile::tempdir().unwrap();
    fs::create_dir(home.path().join("kvc")).unwrap();
    let file = home.path().join("kvc/config.toml");
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let text = format!("[target.prod]\naddr = '{address}'\ntimeout = '50ms'\n");
    fs::write(&file, text).unwrap();
    let target = format!("addr of [target.prod] in {}", file.display());
    let connect = format!("# why\nconnect {address}\n");
    let variable = [("KVC_ADDR", "127.0.0.1:1"), ("KVC_TIMEOUT", "50ms")];
    let same = [("KVC_ADDR", &*address), ("KVC_TIMEOUT", "50ms")];
    let allow = "or allow more with --timeout";
    for (variables, args, lines, line) in [
        (&variable, &[][..], &*connect, "check the address on line 2"),
        (
            &variable,
            &["--addr", "127.0.0.1:1"],
            &*connect,
            "check the address on line 2",
        ),
        (&same, &[], &*connect, "check the address on line 2"),
        (
            &variable,
            &[],
            "connect prod\n",
            &*format!("check {target}"),
        ),
        (
            &variable,
            &[],
            "connect --target prod\n",
            &*format!("check {target}"),
        ),
        // This connects to the same server again.
        (&same, &[], "connect\n", "check KVC_ADDR"),
        (&same, &[], "", "check KVC_ADDR"),
    ] {
        for command in ["ping", "hget t k", "hset t k v", "info", "subscribe t"] {
            let lines = format!("{lines}{command}\n");
            let said = script(variables, home.path(), args, &lines);
            let last = said.lines().last().unwrap();
            assert!(
                last.contains(&format!("{line}, {allow}")),
                "{lines}: {said}"
            );
        }
    }
    let lines = "connect nosuch.invalid:1\nping\n";
    let said = script(&variable, home.path(), &["--timeout", "10s"], lines);
    assert!(said.ends_with("; check the address on line 1\n"), "{said}");
    drop(silent);
    for (connect, named) in [
        (format!("connect {address}"), "the address on line 1"),
        ("connect prod".to_owned(), &target),
    ] {
        for command in ["ping", "ping --wait 50ms"] {
            let lines = format!("{connect}\n{command}\n");
            let said = script(&[("KVC_ADDR", "x:1")], home.path(), &[], &lines);
            let advice = format!("; start kvs there, or change {named}\n");
            assert!(said.ends_with(&advice), "{said}");
        }
    }
}
