//! Stores whose files are damaged or missing, and what is said of them.

use std::fs;

use futures::executor::block_on;
use kv::abi::Value;
use kv::{Damage, Report, SledDb, Storage, StorageError};
use tempfile::TempDir;

use crate::support::chance::Chance;
use crate::support::stores::{count, files, fill, refused, shown, snapshots};

#[test]
fn a_damaged_store_is_never_opened_as_an_empty_one() {
    let directory = TempDir::new().unwrap();
    let path = directory.path();
    for noise in [vec![], vec![b'x'; 1024 * 1024], vec![0; 1024 * 1024]] {
        fill(path, 10);
        fs::write(path.join("db"), noise).unwrap();
        for snapshot in snapshots(path) {
            fs::remove_file(snapshot).unwrap();
        }
        let (error, report) = refused(path);
        assert!(matches!(error, StorageError::Damaged { .. }), "{report}");
        assert!(
            report.starts_with(&format!("the store in {} is damaged: ", shown(path))),
            "{report}"
        );
        assert_eq!(report.lines().count(), 1, "{report}");
        fs::remove_dir_all(path).unwrap();
    }
}

const FEW: u32 = 2000;

/// Damages the log of a store of [`FEW`] keys in many ways, and opens what that makes.
fn damage(closed: bool, mut opened: impl FnMut(Result<SledDb, StorageError>)) {
    let directory = TempDir::new().unwrap();
    let path = directory.path();
    fill(path, FEW);
    let whole = fs::read(path.join("db")).unwrap();
    let note = fs::read(path.join("CLOSED")).unwrap();
    let mut chance = Chance(7);
    let mut random = |below| chance.below(below);
    for round in 0..60 {
        let mut damaged = whole.clone();
        match round % 3 {
            0 => damaged.truncate(random(whole.len())),
            1 => damaged[random(whole.len())] ^= 1 << random(8),
            _ => {
                let from = random(whole.len());
                let to = (from + random(100_000)).min(whole.len());
                damaged[from..to].fill(0);
            }
        }
        fs::write(path.join("db"), damaged).unwrap();
        match closed {
            true => fs::write(path.join("CLOSED"), &note).unwrap(),
            false => {
                // It is there where the last round ended well, and so may be snapshots.
                let _ = fs::remove_file(path.join("CLOSED"));
                for snapshot in snapshots(path) {
                    fs::remove_file(snapshot).unwrap();
                }
            }
        }
        let before = files(path);
        let store = SledDb::open(path);
        if closed {
            assert!(before == files(path), "what is refused is left as it is");
        }
        if let Err(error) = &store {
            let report = Report(error).to_string();
            assert!(matches!(error, StorageError::Damaged { .. }), "{report}");
            assert!(
                report.contains(&shown(path)) && report.lines().count() == 1,
                "{report}"
            );
        }
        opened(store);
    }
}

#[test]
fn of_a_store_that_was_closed_no_damage_goes_unseen_and_nothing_is_changed() {
    damage(true, |store| {
        let said = Report(&store.unwrap_err()).to_string();
        assert!(
            said.contains("its file db ") && said.contains("when the store was closed"),
            "{said}"
        );
    });
}

/// After a crash nobody knows what there was.
#[test]
fn of_a_store_that_was_not_closed_what_can_be_read_is_opened_or_nothing() {
    let (mut opened, mut refused) = (0, 0);
    damage(false, |store| match store {
        Ok(store) => {
            opened += 1;
            match block_on(store.get_all("t", usize::MAX)) {
                Ok(pairs) => assert!(pairs.len() <= FEW as usize),
                Err(error) => assert!(Report(&error).to_string().lines().count() == 1),
            }
        }
        Err(_) => refused += 1,
    });
    assert!(opened > 0 && refused > 0, "{opened} {refused}");
}

#[test]
fn rows_that_are_missing_are_counted_and_what_is_left_can_be_had() {
    let directory = TempDir::new().unwrap();
    let path = directory.path();
    fill(path, 10);
    let note = path.join("CLOSED");
    let said = fs::read_to_string(&note).unwrap();
    assert!(said.starts_with("tables=1 keys=10 sum="), "{said}");
    let sum = said.split(' ').nth(2).unwrap();
    let before = files(path);
    for (text, says) in [
        (
            said.replace("keys=10", "keys=12"),
            "it was closed with 12 keys in 1 tables, and what is there is 10 keys in 1 tables",
        ),
        (
            said.replace(sum, "sum=1"),
            "it was closed with 10 keys in 1 tables, and what is there is 10 keys in 1 tables, with other contents",
        ),
        ("10".to_owned(), "its file CLOSED is not what kvs writes"),
    ] {
        for (file, content) in &before {
            if let Some(content) = content {
                fs::write(file, content).unwrap();
            }
        }
        fs::write(&note, text).unwrap();
        // What is in the rows is not known before sled has opened them.
        let error = SledDb::open(path).unwrap_err();
        let report = Report(&error).to_string();
        assert_eq!(error.damage(), Some(Damage::NotAsClosed));
        assert!(note.exists(), "whoever tries again is told again");
        assert_eq!(
            report,
            format!("the store in {} is damaged: {says}", shown(path))
        );
    }
    fs::remove_file(&note).unwrap();
    let store = SledDb::open(path).unwrap();
    assert_eq!(count(&store), 10);
    assert!(!note.exists());
    drop(store);
    let now = fs::read_to_string(&note).unwrap();
    assert_eq!(now.split(' ').nth(2), Some(sum));
}

/// sled would make what is missing, and cut off what is behind it.
#[test]
fn a_file_that_is_missing_is_named_and_not_made() {
    for closed in [true, false] {
        for name in ["db", "conf"] {
            let directory = TempDir::new().unwrap();
            let path = directory.path();
            fill(path, 10);
            fs::remove_file(path.join(name)).unwrap();
            if !closed {
                fs::remove_file(path.join("CLOSED")).unwrap();
            }
            let (error, report) = refused(path);
            assert_eq!(error.damage(), Some(Damage::FileMissing), "{report}");
            assert!(
                report.ends_with(&format!("its file {name} is missing")),
                "{report}"
            );
        }
    }
    // Some tools do not copy an empty directory.
    let directory = TempDir::new().unwrap();
    fill(directory.path(), 10);
    fs::remove_dir(directory.path().join("blobs")).unwrap();
    assert_eq!(count(&SledDb::open(directory.path()).unwrap()), 10);
}

/// A value's parts are written before what refers to them.
#[test]
fn parts_that_a_crash_has_left_are_removed() {
    let directory = TempDir::new().unwrap();
    let path = directory.path();
    fill(path, 10);
    let open = || loop {
        match sled::open(path) {
            Ok(store) => break store,
            Err(error) => assert!(error.to_string().contains("lock"), "{error}"),
        }
    };
    let store = open();
    for part in 0..200_u8 {
        let key = [&[0xff; 8][..], &[0; 11], &[part]].concat();
        store.insert(key, vec![part; 4096]).unwrap();
    }
    drop(store);
    assert!(matches!(refused(path).0, StorageError::Damaged { .. }));
    fs::remove_file(path.join("CLOSED")).unwrap();
    let store = SledDb::open(path).unwrap();
    assert_eq!(count(&store), 10);
    let large = Value::binary(vec![1; 100_000]);
    block_on(store.set("t", "large", large.clone(), usize::MAX)).unwrap();
    drop(store);
    assert_eq!(open().len(), 10 + 1 + 25);
    fs::remove_file(path.join("CLOSED")).unwrap();
    let store = SledDb::open(path).unwrap();
    assert_eq!(block_on(store.get("t", "large")).unwrap(), Some(large));
}

/// Pages with long names are in files of their own.
#[test]
fn no_file_of_a_page_can_be_missing_or_another() {
    let directory = TempDir::new().unwrap();
    let path = directory.path();
    let store = SledDb::open(path).unwrap();
    for n in 0..10 {
        let name = format!("{n:0>60000}");
        block_on(store.set(&name, &name, Value::binary(vec![n; 4000]), usize::MAX)).unwrap();
    }
    drop(store);
    let blobs = fs::read_dir(path.join("blobs")).unwrap();
    let blobs: Vec<_> = blobs.map(|entry| entry.unwrap().path()).collect();
    assert!(!blobs.is_empty());
    for blob in &blobs {
        let whole = fs::read(blob).unwrap();
        let mut flipped = whole.clone();
        flipped[whole.len() / 2] ^= 1;
        for damaged in [None, Some(&whole[..whole.len() / 2]), Some(&flipped)] {
            match damaged {
                Some(damaged) => fs::write(blob, damaged).unwrap(),
                None => fs::remove_file(blob).unwrap(),
            }
            let (error, report) = refused(path);
            assert!(matches!(error, StorageError::Damaged { .. }), "{report}");
            let name = blob.strip_prefix(path).unwrap();
            assert!(
                report.contains(&format!("its file {} ", name.display())),
                "{report}"
            );
            fs::write(blob, &whole).unwrap();
        }
    }
    assert_eq!(SledDb::open(path).unwrap().stats().keys, Some(10));
}
