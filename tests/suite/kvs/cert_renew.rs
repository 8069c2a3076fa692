//! `kvs cert renew` as a person runs it: what it replaces, what it keeps, and its errors.
//!
//! Nothing here depends on the clock or leaves a process behind.

use std::fs;

use kv::TlsIdentity;

use crate::support::made::{
    FILES, MODES, client, content, fails, identity, init, kvs_after, modes, renew, run,
    shake_hands, strict_server,
};

#[tokio::test]
async fn peers_that_trust_the_ca_accept_renewed_and_old_certificates() {
    let parent = tempfile::tempdir().unwrap();
    let directory = &parent.path().join("certs");
    init(parent.path(), &[]);
    let before = content(directory);
    let (old_client, old_server) = (
        client(directory, Some("client")),
        strict_server(directory, "server"),
    );
    let printed = renew(parent.path(), &["--host", "db.example", "--days", "30"]);
    assert!(
        printed.contains("as db.example, localhost, 127.0.0.1, ::1\n"),
        "{printed}"
    );
    for text in ["clients need nothing new", "SIGHUP", "server.key"] {
        assert!(printed.contains(text), "{text}: {printed}");
    }

    let after = content(directory);
    assert!(after.keys().eq(&FILES));
    for (name, bytes) in &after {
        let is_kept = name.starts_with("ca.");
        assert_eq!(before[name] == *bytes, is_kept, "{name}");
    }
    assert_eq!(modes(directory), MODES);

    let new_client = client(directory, Some("client"));
    let new_server = strict_server(directory, "server");
    for (client, host, server) in [
        (&old_client, "db.example", &new_server),
        (&new_client, "db.example", &new_server),
        (&new_client, "localhost", &old_server),
    ] {
        let shaken = shake_hands(client, host, server).await;
        assert!(shaken.is_ok(), "{host}: {shaken:?}");
    }
}

#[test]
fn keeps_the_host_names_unless_others_are_given() {
    let parent = tempfile::tempdir().unwrap();
    let directory = &parent.path().join("certs");
    init(
        parent.path(),
        &["--host", "db.example,*.in.example,192.0.2.7"],
    );
    let names = || identity(directory, "server").names().to_vec();
    let before = names();
    assert_eq!(before.len(), 6);
    renew(parent.path(), &[]);
    assert_eq!(names(), before);

    // As after a power cut between two renames: the certificate is new, but the key is old.
    let old_key = fs::read(directory.join("server.key")).unwrap();
    renew(parent.path(), &[]);
    fs::write(directory.join("server.key"), old_key).unwrap();
    renew(parent.path(), &[]);
    assert_eq!(names(), before);

    renew(parent.path(), &["--host", "other.example"]);
    assert_eq!(names(), ["other.example", "localhost", "127.0.0.1", "::1"]);
    fs::remove_file(directory.join("server.crt")).unwrap();
    let left = content(directory);
    assert_eq!(
        fails(parent.path(), &["cert", "renew", "certs"]),
        (
            Some(1),
            "kvs: there is no certs/server.crt to take the host names from; give them with --host\n"
                .to_owned()
        )
    );
    assert_eq!(content(directory), left);
    renew(parent.path(), &["--host", "db.example"]);
    assert_eq!(names()[0], "db.example");
}

#[test]
fn says_when_renewed_certificates_expire_with_the_ca() {
    let parent = tempfile::tempdir().unwrap();
    init(parent.path(), &[]);
    let last = "Nothing that it signs is valid for longer";
    assert!(!renew(parent.path(), &["--days", "3649"]).contains(last));
    assert!(renew(parent.path(), &["--days", "3650"]).contains(last));
    let directory = parent.path().join("certs");
    let ca = TlsIdentity::from_files(directory.join("ca.crt"), directory.join("ca.key")).unwrap();
    assert_eq!(identity(&directory, "server").not_after(), ca.not_after());
    assert_eq!(identity(&directory, "client").not_after(), ca.not_after());
}

#[test]
fn renews_nothing_without_the_ca() {
    let parent = tempfile::tempdir().unwrap();
    let directory = &parent.path().join("certs");
    fs::write(parent.path().join("file"), "").unwrap();
    let refused = |directory: &str| {
        let (code, line) = fails(parent.path(), &["cert", "renew", directory]);
        assert_eq!(code, Some(1));
        line
    };
    assert_eq!(
        refused("certs"),
        "kvs: there is no directory certs; kvs cert init creates it, with a CA and certificates\n"
    );
    for directory in ["file", "file/certs"] {
        assert_eq!(
            refused(directory),
            "kvs: file is a file, not a directory; choose another directory, or move it away\n"
        );
    }
    init(parent.path(), &[]);
    for name in ["ca.key", "ca.crt"] {
        fs::remove_file(directory.join(name)).unwrap();
        let left = content(directory);
        assert_eq!(
            refused("certs"),
            format!(
                "kvs: there is no certs/{name}; put it back while you renew, or make a new CA \
                 with kvs cert init --force\n"
            )
        );
        assert_eq!(content(directory), left);
    }
}

#[test]
fn renews_nothing_on_a_full_disk() {
    let parent = tempfile::tempdir().unwrap();
    init(parent.path(), &[]);
    let before = content(&parent.path().join("certs"));
    let full = "trap '' XFSZ; ulimit -f 0";
    let args = ["cert", "renew", "certs"];
    let (code, stdout, line) = run(&mut kvs_after(parent.path(), full, &args));
    assert_eq!((code, stdout.as_str()), (Some(1), ""));
    assert!(
        line.starts_with("kvs: cannot write certs/server.crt: ")
            && line.contains("nothing was changed"),
        "{line}"
    );
    assert_eq!(content(&parent.path().join("certs")), before);
}

#[test]
fn stops_reading_an_endless_file() {
    let parent = tempfile::tempdir().unwrap();
    init(parent.path(), &[]);
    let server = parent.path().join("certs/server.crt");
    fs::remove_file(&server).unwrap();
    std::os::unix::fs::symlink("/dev/zero", &server).unwrap();
    let (code, line) = fails(parent.path(), &["cert", "renew", "certs"]);
    assert_eq!(code, Some(1));
    assert!(line.contains("it has more than 1048576 bytes"), "{line}");
}

#[test]
fn does_not_replace_certificates_of_another_ca() {
    let parent = tempfile::tempdir().unwrap();
    init(parent.path(), &[]);
    let other = tempfile::tempdir().unwrap();
    init(other.path(), &[]);
    let directory = &parent.path().join("certs");
    for name in ["server", "client"] {
        for file in [format!("{name}.crt"), format!("{name}.key")] {
            fs::copy(
                other.path().join("certs").join(&file),
                directory.join(&file),
            )
            .unwrap();
        }
        let before = content(directory);
        for args in [
            &["cert", "renew", "certs"][..],
            &["cert", "renew", "certs", "--host", "db.example"],
        ] {
            let line = format!(
                "kvs: certs/{name}.crt was not signed by certs/ca.crt; renew it with the CA that \
                 signed it, or \
                 move it and its key away\n"
            );
            assert_eq!(fails(parent.path(), args), (Some(1), line));
            assert_eq!(content(directory), before);
        }
        fs::remove_file(directory.join(format!("{name}.crt"))).unwrap();
        renew(parent.path(), &["--host", "db.example"]);
    }
}
