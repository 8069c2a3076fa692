//! Which directories are opened as stores, and the errors for others.

use std::fs;

use futures::executor::block_on;
use kv::{Damage, SledConfig, SledDb, Storage, StorageError, Value, ValueRef};
use tempfile::TempDir;

use crate::support::chance::Chance;
use crate::support::stores::{count, files, fill, refused, shown, snapshots};

#[test]
fn refuses_a_store_without_its_format_file() {
    let directory = TempDir::new().unwrap();
    let path = directory.path();
    fill(path, 10);
    let format = path.join("FORMAT");
    assert_eq!(fs::read_to_string(&format).unwrap(), "kv sled 1\n");
    fs::remove_file(&format).unwrap();
    // Closed cleanly, with and without the remains of a start, and not closed cleanly.
    for also in [None, Some("FORMAT.new"), Some("CLOSED")] {
        match also {
            Some("CLOSED") => fs::remove_file(path.join("CLOSED")).unwrap(),
            Some(new) => fs::write(path.join(new), "kv sled 1\n").unwrap(),
            None => {}
        }
        let (error, report) = refused(path);
        assert_eq!(error.damage(), Some(Damage::FileMissing), "{report}");
        assert!(report.ends_with("its file FORMAT is missing"), "{report}");
        let _ = fs::remove_file(path.join("FORMAT.new"));
    }
    fs::write(&format, "kv sled 1\n").unwrap();
    assert_eq!(count(&SledDb::open(path).unwrap()), 10);
}

#[test]
fn leaves_a_directory_of_another_program_unchanged() {
    let directory = TempDir::new().unwrap();
    let path = directory.path();
    fs::write(path.join("notes.txt"), "mine").unwrap();
    let (error, report) = refused(path);
    assert!(matches!(error, StorageError::Format { .. }));
    assert_eq!(
        report,
        format!("{} holds \"notes.txt\" but no store", shown(path))
    );
    assert_eq!(fs::read_dir(path).unwrap().count(), 1);
    // Matching names alone do not make a store, nor do the contents of another program's files.
    for (is_dir, also) in [(true, None), (false, None), (false, Some("notes.txt"))] {
        let directory = TempDir::new().unwrap();
        let path = directory.path();
        for name in ["conf", "db"].into_iter().chain(also) {
            match is_dir {
                true => fs::create_dir(path.join(name)).unwrap(),
                false => fs::write(path.join(name), "mine, and no less than sled's").unwrap(),
            }
        }
        let (error, report) = refused(path);
        assert!(matches!(error, StorageError::Format { .. }), "{report}");
    }
    // A volume may contain a directory of its file system.
    let directory = TempDir::new().unwrap();
    fs::create_dir(directory.path().join("lost+found")).unwrap();
    fill(directory.path(), 1);
}

/// `conf` and `db` look like this in a store being created, and in one of another program.
#[test]
fn does_not_write_to_a_log_that_may_not_be_ours() {
    let theirs = TempDir::new().unwrap();
    let store = sled::open(theirs.path()).unwrap();
    store.insert("k", "v").unwrap();
    drop(store);
    let [conf, log] = ["conf", "db"].map(|name| fs::read(theirs.path().join(name)).unwrap());
    let (text, nothing, part) = (&b"mine"[..], &b""[..], &conf[..conf.len() - 4]);
    let none = "\"db\" but no store";
    for (db, conf, says) in [
        (text, nothing, none),
        (text, part, none),
        (text, &conf, "a sled database that is not a kv store"),
        (&[0; 4096], nothing, none),
        (&log, nothing, none),
        (&log, part, none),
        (&log, &conf, "a sled database that is not a kv store"),
        (nothing, text, "\"conf\" but no store"),
    ] {
        let directory = TempDir::new().unwrap();
        let path = directory.path();
        fs::write(path.join("db"), db).unwrap();
        fs::write(path.join("conf"), conf).unwrap();
        let (error, report) = refused(path);
        assert!(matches!(error, StorageError::Format { .. }), "{report}");
        assert_eq!(report, format!("{} holds {says}", shown(path)));
    }
    let directory = TempDir::new().unwrap();
    let path = directory.path();
    fs::write(path.join("db"), "").unwrap();
    for (text, is_ours) in [("kv sled 2\n", false), ("mine", false), ("kv sled", true)] {
        fs::write(path.join("FORMAT.new"), text).unwrap();
        match is_ours {
            false => assert!(matches!(refused(path).0, StorageError::Format { .. })),
            true => fill(path, 1),
        }
    }
}

#[test]
fn leaves_a_directory_in_use_unchanged() {
    let directory = TempDir::new().unwrap();
    let path = directory.path();
    // In use by another program, or by another kvs that has just begun.
    let log = fs::File::create(path.join("db")).unwrap();
    log.lock().unwrap();
    assert!(matches!(refused(path).0, StorageError::InUse { .. }));
    drop(log);
    let store = SledDb::open(path).unwrap();
    assert!(matches!(refused(path).0, StorageError::InUse { .. }));
    block_on(store.set("t", "k", 1.into())).unwrap();
    assert_eq!(count(&store), 1);
}

#[test]
fn does_not_take_over_a_sled_store_of_another_program() {
    for tree in [None, Some("theirs")] {
        let directory = TempDir::new().unwrap();
        let open = || loop {
            match sled::open(directory.path()) {
                Ok(store) => break store,
                Err(error) => assert!(error.to_string().contains("lock"), "{error}"),
            }
        };
        let store = open();
        match tree {
            None => store.insert("k", "v").unwrap(),
            Some(tree) => store.open_tree(tree).unwrap().insert("k", "v").unwrap(),
        };
        let trees = store.tree_names();
        drop(store);
        let (error, report) = refused(directory.path());
        assert!(matches!(error, StorageError::Format { .. }), "{report}");
        assert!(report.ends_with("a sled database that is not a kv store"));
        assert_eq!(open().tree_names(), trees);
    }
}

#[test]
fn names_a_store_of_another_format_and_leaves_it_unchanged() {
    let directory = TempDir::new().unwrap();
    let path = directory.path();
    fill(path, 10);
    for (text, says) in [
        (
            "kv sled 2\n",
            "a store of format 2, which needs another version of kv: this one reads format 1",
        ),
        (
            "kv sled 0",
            "a store of format 0, which needs another version of kv: this one reads format 1",
        ),
        ("", "a file FORMAT that this version of kv cannot read"),
        (
            "PostgreSQL 15\n",
            "a file FORMAT that this version of kv cannot read",
        ),
    ] {
        fs::write(path.join("FORMAT"), text).unwrap();
        let (error, report) = refused(path);
        assert!(matches!(error, StorageError::Format { .. }), "{report}");
        assert_eq!(report, format!("{} holds {says}", shown(path)));
    }
    fs::write(path.join("FORMAT"), [0xff, 0xfe]).unwrap();
    assert!(matches!(refused(path).0, StorageError::Format { .. }));
    fs::write(path.join("FORMAT"), "kv sled 1\n").unwrap();
    assert_eq!(count(&SledDb::open(path).unwrap()), 10);
}

#[test]
fn creates_no_store_with_must_exist() {
    let directory = TempDir::new().unwrap();
    let config = SledConfig::default().with_must_exist(true);
    for path in [directory.path().to_owned(), directory.path().join("none")] {
        let error = SledDb::open_with(&path, config).unwrap_err();
        assert!(matches!(error, StorageError::Missing { .. }), "{error}");
        assert_eq!(
            error.to_string(),
            format!("there is no store in {}", shown(&path))
        );
    }
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    // A store that got no further than this does not count as one.
    fs::write(directory.path().join("db"), "").unwrap();
    let error = SledDb::open_with(directory.path(), config).unwrap_err();
    assert!(matches!(error, StorageError::Missing { .. }), "{error}");
    let made = files(directory.path());
    assert_eq!(made, [(directory.path().join("db"), Some(Vec::new()))]);
    fill(directory.path(), 10);
    assert_eq!(
        count(&SledDb::open_with(directory.path(), config).unwrap()),
        10
    );
}

#[test]
fn the_closed_file_covers_everything_written_before() {
    let directory = TempDir::new().unwrap();
    let path = directory.path();
    for life in 0..4_u8 {
        let store = SledDb::open(path).unwrap();
        let large = [life; 100_000];
        let large = ValueRef::from(&large[..]);
        block_on(async {
            store.set("t", "k", i64::from(life).into()).await.unwrap();
            store.set("t", "large", large).await.unwrap();
            let pairs = ["a", "b", "a"].map(|key| (key, large));
            store.set_many("many", &pairs).await.unwrap();
            store.del_many("many", &["b", "c", "b"]).await.unwrap();
            store.del("t", "large").await.unwrap();
            store.del("t", "none").await.unwrap();
            store.set("t", "small or large", large).await.unwrap();
            store.set("t", "small or large", 1.into()).await.unwrap();
            let stored = store.get("many", "a").await.unwrap();
            assert_eq!(stored, Some(large.into()));
        });
    }
    let note = fs::read_to_string(path.join("CLOSED")).unwrap();
    assert!(note.starts_with("tables=2 keys=3 "), "{note}");
}

#[test]
fn finishes_a_store_that_was_being_created() {
    let directory = TempDir::new().unwrap();
    let path = directory.path();
    fill(path, 0);
    for name in ["FORMAT", "CLOSED"] {
        fs::remove_file(path.join(name)).unwrap();
    }
    fs::write(path.join("FORMAT.new"), "kv").unwrap();
    fill(path, 10);
    assert_eq!(count(&SledDb::open(path).unwrap()), 10);
    let conf = fs::read(path.join("conf")).unwrap();
    let begun = &conf[..conf.len() - 4];
    for also in [
        None,
        Some(("blobs", None)),
        Some(("conf", Some(&b""[..]))),
        Some(("conf", Some(begun))),
    ] {
        let directory = TempDir::new().unwrap();
        let path = directory.path();
        fs::write(path.join("db"), "").unwrap();
        match also {
            Some((name, Some(text))) => fs::write(path.join(name), text).unwrap(),
            Some((name, None)) => fs::create_dir(path.join(name)).unwrap(),
            None => {}
        }
        fill(path, 10);
        assert_eq!(count(&SledDb::open(path).unwrap()), 10);
        assert_eq!(fs::read(path.join("conf")).unwrap(), conf);
    }
}

/// Such files are left by a start that was killed, or by an older kvs.
#[test]
fn opens_a_store_with_a_partial_file_and_all_its_rows() {
    for is_closed in [true, false] {
        for number in ["0000000000000000", "00000000000004D2", "FFFFFFFFFFFFFFFF"] {
            for text in ["", "part of a snapshot"] {
                let directory = TempDir::new().unwrap();
                let path = directory.path();
                fill(path, 10);
                if !is_closed {
                    fs::remove_file(path.join("CLOSED")).unwrap();
                }
                let begun = path.join(format!("snap.{number}.generating"));
                fs::write(&begun, text).unwrap();
                assert_eq!(count(&SledDb::open(path).unwrap()), 10);
                assert!(!begun.exists());
            }
        }
    }
    let directory = TempDir::new().unwrap();
    let path = directory.path();
    fill(path, 10);
    let conf = fs::read(path.join("conf")).unwrap();
    for len in [0, 8, 9, conf.len() - 4, conf.len() - 1] {
        fs::write(path.join("conf"), &conf[..len]).unwrap();
        let (error, report) = refused(path);
        assert_eq!(error.damage(), Some(Damage::NotAsClosed), "{report}");
        fs::remove_file(path.join("CLOSED")).unwrap();
        assert_eq!(count(&SledDb::open(path).unwrap()), 10);
        assert_eq!(fs::read(path.join("conf")).unwrap(), conf);
    }
}

/// sled would write to the store before it finds out.
#[test]
fn names_a_partial_snapshot_and_writes_nothing() {
    let directory = TempDir::new().unwrap();
    let path = directory.path();
    // Rows in many places of the log, most of them replaced and their space reused.
    let mut chance = Chance(7);
    let mut rows = std::collections::BTreeMap::new();
    for _ in 0..6 {
        let store = SledDb::open(path).unwrap();
        for _ in 0..500 {
            let (key, value) = (
                chance.below(100).to_string(),
                vec![chance.below(256) as u8; 2000],
            );
            block_on(store.set("t", &key, value[..].into())).unwrap();
            rows.insert(key, value);
        }
    }
    fs::remove_file(path.join("CLOSED")).unwrap();
    fs::remove_dir(path.join("blobs")).unwrap();
    let snapshot = snapshots(path).pop().unwrap();
    let whole = fs::read(&snapshot).unwrap();
    for text in [&whole[..whole.len() - 1], b""] {
        fs::write(&snapshot, text).unwrap();
        let (error, report) = refused(path);
        assert_eq!(error.damage(), Some(Damage::Snapshot));
        let name = snapshot.file_name().unwrap().to_str().unwrap();
        assert!(
            report.ends_with(&format!("its file {name} is incomplete")),
            "{report}"
        );
    }
    // The log contains the same.
    fs::remove_file(&snapshot).unwrap();
    let store = SledDb::open(path).unwrap();
    assert_eq!(count(&store), rows.len());
    for (key, value) in rows {
        assert_eq!(
            block_on(store.get("t", &key)).unwrap(),
            Some(Value::binary(value))
        );
    }
}

/// A second process may close the store after this one has looked for the file `CLOSED`.
#[test]
fn an_open_store_never_has_a_closed_file() {
    let directory = TempDir::new().unwrap();
    let path = directory.path();
    fill(path, 0);
    fs::write(path.join("CLOSED"), "tables=0 keys=0 sum=0 files=0\n").unwrap();
    let store = SledDb::open(path).unwrap();
    assert!(!path.join("CLOSED").exists());
    drop(store);
    assert!(path.join("CLOSED").exists());
}

/// sled writes its log before anything else, so none of these directories is a store.
#[test]
fn leaves_a_file_that_no_new_store_has_unchanged() {
    let sled = TempDir::new().unwrap();
    fill(sled.path(), 1);
    let conf = fs::read(sled.path().join("conf")).unwrap();
    for conf in [None, Some(&conf[..8]), Some(&conf)] {
        for name in [
            "snap.notes",
            "snap.0123456789ABCDEF",
            "snap.0123456789ABCDEF.generating",
            "CLOSED",
            "CLOSED.new",
            "blobs/7",
            "blobs/mine",
        ] {
            let directory = TempDir::new().unwrap();
            let path = directory.path();
            fs::write(path.join("db"), "").unwrap();
            if let Some(conf) = conf {
                fs::write(path.join("conf"), conf).unwrap();
            }
            let file = path.join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, "mine").unwrap();
            let (error, report) = refused(path);
            assert!(matches!(error, StorageError::Format { .. }), "{report}");
            let named = name.split('/').next().unwrap();
            assert_eq!(
                report,
                format!("{} holds \"{named}\" but no store", shown(path))
            );
        }
    }
}

/// sled takes any `snap.*` for a snapshot, and removes those that it does not need.
#[test]
fn leaves_a_file_with_almost_the_name_of_a_snapshot_unchanged() {
    let directory = TempDir::new().unwrap();
    let path = directory.path();
    fill(path, 10);
    fs::write(path.join("snap.notes"), "mine").unwrap();
    let (error, report) = refused(path);
    assert_eq!(error.damage(), Some(Damage::Snapshot), "{report}");
    assert!(report.ends_with("its file snap.notes is incomplete"));
    fs::remove_file(path.join("FORMAT")).unwrap();
    let (error, report) = refused(path);
    assert!(matches!(error, StorageError::Format { .. }), "{report}");
    assert_eq!(
        report,
        format!("{} holds \"snap.notes\" but no store", shown(path))
    );
    fs::remove_file(path.join("snap.notes")).unwrap();
    fs::write(path.join("FORMAT"), "kv sled 1\n").unwrap();
    assert_eq!(count(&SledDb::open(path).unwrap()), 10);
}

#[cfg(unix)]
#[test]
fn files_with_rows_are_private_to_the_owner() {
    use std::os::unix::fs::PermissionsExt;
    let directory = TempDir::new().unwrap();
    let path = directory.path();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    fill(path, 10);
    for (name, mode) in [("db", 0o600), ("blobs", 0o700)] {
        let found = fs::metadata(path.join(name)).unwrap().permissions().mode();
        assert_eq!(found & 0o777, mode, "{name}");
    }
}
