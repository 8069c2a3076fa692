//! `kvs cert init` as a person runs it: the files, the output, the errors, and TLS with the
//! certificates.
//!
//! Nothing here depends on the clock or leaves a process behind.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;

use kv::{HandshakeError, TlsClientConnector};

use crate::support::made::{
    FILES, MODES, client, content, fails, identity, init, kvs_after, modes, roots, run, server,
    shake_hands, strict_server,
};
use crate::support::programs::kvs;

#[test]
fn creates_six_files_with_keys_private_to_the_owner_whatever_the_umask() {
    for (umask, directory_mode) in [("umask 0", 0o755), ("umask 077", 0o700)] {
        let parent = tempfile::tempdir().unwrap();
        let args = ["cert", "init", "a/certs"];
        let (code, _, stderr) = run(&mut kvs_after(parent.path(), umask, &args));
        assert_eq!((code, stderr.as_str()), (Some(0), ""));
        let directory = parent.path().join("a/certs");
        let made = content(&directory).into_keys().collect::<Vec<_>>();
        assert_eq!(made, FILES);
        assert_eq!(modes(&directory), MODES, "{umask}");
        for made in ["a", "a/certs"] {
            let metadata = fs::metadata(parent.path().join(made)).unwrap();
            let mode = metadata.permissions().mode() & 0o7777;
            assert_eq!(mode, directory_mode, "{umask}: {made}");
        }
    }
}

#[test]
fn overwrites_nothing_without_force_and_everything_with_it() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("certs");
    init(parent.path(), &[]);
    let before = content(&directory);
    let again = ["cert", "init", "certs"];
    assert_eq!(
        fails(parent.path(), &again),
        (
            Some(1),
            "kvs: certs already has ca.crt, ca.key, server.crt, server.key, client.crt, \
             client.key; \
             choose another directory, or replace all six files with --force; \
             to keep the CA, use kvs cert renew certs\n"
                .to_owned()
        )
    );
    assert_eq!(content(&directory), before);

    // One existing file is enough to refuse; the others are not created beside it.
    for name in &FILES[1..] {
        fs::remove_file(directory.join(name)).unwrap();
    }
    let (code, line) = fails(parent.path(), &again);
    assert_eq!(code, Some(1));
    assert!(
        line.starts_with("kvs: certs already has ca.crt; "),
        "{line}"
    );
    assert_eq!(content(&directory).len(), 1);

    fs::write(directory.join("ca.key"), "a wider mode").unwrap();
    let wide = fs::Permissions::from_mode(0o644);
    fs::set_permissions(directory.join("ca.key"), wide).unwrap();
    init(parent.path(), &["--force"]);
    let after = content(&directory);
    assert!(after.keys().eq(&FILES));
    assert!(after.iter().all(|(name, bytes)| before[name] != *bytes));
    assert_eq!(modes(&directory), MODES);
}

#[test]
fn prints_what_was_made_and_how_to_use_it() {
    let parent = tempfile::tempdir().unwrap();
    let printed = init(parent.path(), &["--host", "db.example", "--days", "3650"]);
    for name in FILES {
        assert!(printed.contains(name), "{name}: {printed}");
    }
    for text in [
        "as db.example, localhost, 127.0.0.1, ::1\n",
        "  kvs --tls-cert certs/server.crt --tls-key certs/server.key\n",
        "  kvs --tls-cert certs/server.crt --tls-key certs/server.key --tls-client-ca \
         certs/ca.crt\n",
        "  kvc --tls-ca certs/ca.crt hget ",
        "  kvc --tls-ca certs/ca.crt --tls-cert certs/client.crt --tls-key certs/client.key hget ",
        "SIGHUP",
    ] {
        assert!(printed.contains(text), "{text}: {printed}");
    }
    assert!(printed.lines().count() <= 24);

    // With the most days, everything expires with the CA; by default, before it.
    let dates = |printed: &str| {
        let mut dates: Vec<_> = printed.split("until ").skip(1).collect();
        dates.iter_mut().for_each(|text| *text = &text[..10]);
        dates.dedup();
        dates.len()
    };
    assert_eq!(dates(&printed), 1);
    assert_eq!(dates(&init(parent.path(), &["--force"])), 2);
}

#[tokio::test]
async fn clients_accept_the_server_by_its_hosts_and_no_other() {
    let parent = tempfile::tempdir().unwrap();
    let hosts = ["--host", "db.example,*.in.example", "--host=192.0.2.7"];
    init(parent.path(), &hosts);
    let directory = &parent.path().join("certs");
    let (client, server) = (client(directory, None), server(directory, "server"));
    for host in [
        "localhost",
        "127.0.0.1",
        "::1",
        "db.example",
        "a.in.example",
        "192.0.2.7",
    ] {
        let shaken = shake_hands(&client, host, &server).await;
        assert!(shaken.is_ok(), "{host}: {shaken:?}");
    }
    for host in ["other.example", "in.example", "127.0.0.2"] {
        let refused = shake_hands(&client, host, &server).await;
        assert!(
            matches!(refused, Err(HandshakeError::WrongName { .. })),
            "{host}: {refused:?}"
        );
    }
}

#[test]
fn accepts_a_host_before_the_directory() {
    let parent = tempfile::tempdir().unwrap();
    let args = ["cert", "init", "--host", "db.example", "certs"];
    let (code, printed, _) = run(&mut kvs(parent.path(), &args));
    assert_eq!(code, Some(0));
    assert!(printed.contains("as db.example, localhost"), "{printed}");
    assert!(parent.path().join("certs/server.crt").is_file());
}

#[tokio::test]
async fn a_server_with_client_ca_accepts_only_its_own_clients() {
    let parents = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [directory, strange] = parents.each_ref().map(|parent| {
        init(parent.path(), &[]);
        parent.path().join("certs")
    });
    let connect = async |has: Option<&str>, server: &str| {
        let server = strict_server(&directory, server);
        shake_hands(&client(&directory, has), "localhost", &server).await
    };
    let let_in = connect(Some("client"), "server").await;
    assert!(let_in.is_ok(), "{let_in:?}");
    let refused = connect(None, "server").await;
    assert!(
        matches!(refused, Err(HandshakeError::NoCertificate)),
        "{refused:?}"
    );
    // Neither certificate works in place of the other.
    for (has, server) in [("server", "server"), ("client", "client")] {
        let refused = connect(Some(has), server).await;
        let Err(HandshakeError::InvalidCertificate { reason }) = refused else {
            panic!("{refused:?}");
        };
        assert_eq!(reason, "it is not made for this purpose");
    }
    let (roots, stranger) = (roots(&directory), identity(&strange, "client"));
    let stranger = TlsClientConnector::new(roots, Some(stranger)).unwrap();
    let server = strict_server(&directory, "server");
    let refused = shake_hands(&stranger, "localhost", &server).await;
    assert!(
        matches!(refused, Err(HandshakeError::UnknownCa)),
        "{refused:?}"
    );
}

#[test]
fn reports_a_failed_write_and_leaves_nothing_behind() {
    let parent = tempfile::tempdir().unwrap();
    fs::write(parent.path().join("file"), "").unwrap();
    for directory in ["file", "file/certs"] {
        let (code, line) = fails(parent.path(), &["cert", "init", directory]);
        assert_eq!(
            (code, line.as_str()),
            (
                Some(1),
                "kvs: file is a file, not a directory; choose another directory, or move it away\n"
            )
        );
    }
    // Nobody can create a directory in /proc.
    let (code, line) = fails(parent.path(), &["cert", "init", "/proc/certs"]);
    assert_eq!(code, Some(1));
    assert!(
        line.starts_with("kvs: cannot create the directory /proc/certs: ")
            && line.ends_with("; choose a directory that exists or can be created\n"),
        "{line}"
    );

    fs::create_dir_all(parent.path().join("taken/client.key")).unwrap();
    for args in [
        &["cert", "init", "taken"][..],
        &["cert", "init", "taken", "--force"],
    ] {
        let (code, line) = fails(parent.path(), args);
        assert_eq!(
            (code, line.as_str()),
            (
                Some(1),
                "kvs: taken/client.key is a directory, where a file has to be written; move it \
                 away\n"
            )
        );
    }
    let left = fs::read_dir(parent.path().join("taken")).unwrap();
    assert_eq!(left.count(), 1);

    // As on a full disk: no file may have even one byte.
    let full = "trap '' XFSZ; ulimit -f 0";
    let (code, stdout, line) = run(&mut kvs_after(
        parent.path(),
        full,
        &["cert", "init", "a/b"],
    ));
    assert_eq!((code, stdout.as_str()), (Some(1), ""));
    assert!(
        line.starts_with(
            "kvs: cannot write a/b/ca.crt: File too large (os error 27); nothing was changed: "
        ),
        "{line}"
    );
    assert!(!parent.path().join("a").exists());
}

#[test]
fn reads_no_settings_and_accepts_none() {
    let parent = tempfile::tempdir().unwrap();
    let mut command = kvs(parent.path(), &["cert", "init", "certs"]);
    command.envs([
        ("KVS_CONFIG", "no/such/file"),
        ("KVS_THREADS", "0"),
        ("RUST_LOG", "kv=loud"),
    ]);
    let (code, _, stderr) = run(&mut command);
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    assert!(!parent.path().join("kvs-data").exists());
    assert_eq!(
        fails(parent.path(), &["--threads", "1", "cert", "init", "other"]),
        (
            Some(2),
            "kvs: the subcommand 'cert' cannot be used with '--threads <N>'; see kvs --help\n"
                .to_owned()
        )
    );
    assert!(!parent.path().join("other").exists());
}

#[test]
fn wrong_usage_exits_with_2_and_says_what_to_write() {
    let parent = tempfile::tempdir().unwrap();
    for (args, message) in [
        (
            &["ini"][..],
            "a similar subcommand exists: 'init'; see kvs cert --help\n",
        ),
        (&["init"], "<DIR>; see kvs cert init --help\n"),
        (&["renew"], "<DIR>; see kvs cert renew --help\n"),
        (
            &["renew", "certs", "--force"],
            "kvs: unexpected argument '--force' found",
        ),
        (&["init", "certs", "--threads", "1"], "'--threads'"),
        (
            &["init", "certs", "other"],
            "kvs: unexpected argument 'other' found; see kvs cert init --help\n",
        ),
        (
            &["init", "certs", "--days"],
            "kvs: a value is required for '--days <N>' but none was supplied; see kvs cert init \
             --help\n",
        ),
        (
            &["init", "certs", "--host", "db:9527"],
            "kvs: --host: \"db:9527\" is not a host; write a DNS name such as db.example",
        ),
        (
            &["init", "certs", "--host", "db,"],
            "kvs: --host: \"\" is not a host; ",
        ),
        (
            &["init", "certs", "--host", "bücher.example"],
            "kvs: --host: \"bücher.example\" is not ASCII; write the name in punycode",
        ),
        (
            &["init", "certs", "--days", "0"],
            "kvs: --days: \"0\" is not allowed; write a whole number from 1 to 3650\n",
        ),
        (
            &["init", "certs", "--days", "-1"],
            "kvs: --days: \"-1\" is not allowed; write a whole number from 1 to 3650\n",
        ),
        (
            &["init", "certs", "--days", "3651"],
            "kvs: --days: \"3651\" is not allowed; write a whole number from 1 to 3650\n",
        ),
    ] {
        let (code, line) = fails(parent.path(), &[&["cert"], args].concat());
        assert!(
            code == Some(2) && line.contains(message),
            "{args:?}: {line}"
        );
    }
    assert!(!parent.path().join("certs").exists());

    let (code, stdout, help) = run(&mut kvs(parent.path(), &["cert"]));
    assert_eq!((code, stdout.as_str()), (Some(2), ""));
    assert!(help.contains("Usage: kvs cert <COMMAND>"), "{help}");
}

#[test]
fn help_shows_the_subcommand_and_the_settings() {
    let parent = tempfile::tempdir().unwrap();
    let (code, help, _) = run(&mut kvs(parent.path(), &["--help"]));
    assert_eq!(code, Some(0));
    assert!(
        help.contains("  cert  Make certificates for TLS\n"),
        "{help}"
    );
    assert!(help.contains("--listen <HOST:PORT>"), "{help}");
}

#[test]
fn a_closed_reader_is_no_error() {
    let parent = tempfile::tempdir().unwrap();
    let (reader, writer) = io::pipe().unwrap();
    drop(reader);
    let mut command = kvs(parent.path(), &["cert", "init", "certs"]);
    let status = command.stdout(writer).status().unwrap();
    assert_eq!(status.code(), Some(0));
    assert!(parent.path().join("certs/ca.crt").is_file());
}

#[cfg(target_os = "linux")]
#[test]
fn reports_that_certificates_were_made_if_nothing_can_be_printed() {
    let parent = tempfile::tempdir().unwrap();
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let mut command = kvs(parent.path(), &["cert", "init", "certs"]);
    let (code, _, line) = run(command.stdout(full));
    assert_eq!(
        (code, line.as_str()),
        (
            Some(1),
            "kvs: the certificates were made, but the instructions for using them cannot be \
             written to standard output: \
             No space left on device (os error 28)\n"
        )
    );
    assert!(content(&parent.path().join("certs")).keys().eq(&FILES));
}
