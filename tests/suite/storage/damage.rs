//! Stores with damaged or missing files, and the errors for them.

use std::fs;

use futures::executor::block_on;
use kv::abi::Value;
use kv::{Damage, Report, SledDb, Storage, StorageError, ValueRef};
use tempfile::TempDir;

use crate::support::chance::Chance;
use crate::support::stores::{count, files, fill, refused, shown, snapshots};

#[test]
fn never_opens_a_damaged_store_as_an_empty_one() {
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

/// Damages the log of a store of [`FEW`] keys in many ways, and opens each result.
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
                // If the last round ended well, this file exists, and snapshots may exist too.
                let _ = fs::remove_file(path.join("CLOSED"));
                for snapshot in snapshots(path) {
                    fs::remove_file(snapshot).unwrap();
                }
            }
        }
        let before = files(path);
        let store = SledDb::open(path);
        if closed {
            assert!(before == files(path), "a refused store was changed");
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
fn detects_all_damage_to_a_closed_store_and_changes_nothing() {
    damage(true, |store| {
        let said = Report(&store.unwrap_err()).to_string();
        assert!(
            said.contains("its file db ") && said.contains("the store was closed"),
            "{said}"
        );
    });
}

/// After a crash, the store cannot know what it had.
#[test]
fn opens_the_readable_part_of_an_unclosed_store_or_nothing() {
    let (mut opened, mut refused) = (0, 0);
    damage(false, |store| match store {
        Ok(store) => {
            opened += 1;
            match block_on(store.get_all("t")) {
                Ok(pairs) => assert!(pairs.len() <= FEW as usize),
                Err(error) => assert!(Report(&error).to_string().lines().count() == 1),
            }
        }
        Err(_) => refused += 1,
    });
    assert!(opened > 0 && refused > 0, "{opened} {refused}");
}

#[test]
fn counts_missing_rows_and_can_open_the_rest() {
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
            "it was closed with 12 keys in 1 tables and now holds 10 keys in 1 tables",
        ),
        (
            said.replace(sum, "sum=1"),
            "it was closed with 10 keys in 1 tables and now holds 10 keys in 1 tables with other \
             contents",
        ),
        ("10".to_owned(), "its file CLOSED was not written by kvs"),
    ] {
        for (file, content) in &before {
            if let Some(content) = content {
                fs::write(file, content).unwrap();
            }
        }
        fs::write(&note, text).unwrap();
        // The rows are not known before sled has opened them.
        let error = SledDb::open(path).unwrap_err();
        let report = Report(&error).to_string();
        assert_eq!(error.damage(), Some(Damage::NotAsClosed));
        assert!(note.exists(), "the next start must report it again");
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

/// sled would create the missing file, and cut off the log after it.
#[test]
fn names_a_missing_file_and_does_not_create_it() {
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
    // Some tools do not copy empty directories.
    let directory = TempDir::new().unwrap();
    fill(directory.path(), 10);
    fs::remove_dir(directory.path().join("blobs")).unwrap();
    assert_eq!(count(&SledDb::open(directory.path()).unwrap()), 10);
}

/// The parts of a value are written before the row that refers to them.
#[test]
fn removes_parts_left_by_a_crash() {
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
    block_on(store.set("t", "large", ValueRef::new(&large).unwrap())).unwrap();
    drop(store);
    assert_eq!(open().len(), 10 + 1 + 25);
    fs::remove_file(path.join("CLOSED")).unwrap();
    let store = SledDb::open(path).unwrap();
    assert_eq!(block_on(store.get("t", "large")).unwrap(), Some(large));
}

/// Pages with long names are in separate files.
#[test]
fn detects_a_missing_or_swapped_page_file() {
    let directory = TempDir::new().unwrap();
    let path = directory.path();
    let store = SledDb::open(path).unwrap();
    for n in 0..10 {
        let name = format!("{n:0>60000}");
        block_on(store.set(&name, &name, (&[n; 4000][..]).into())).unwrap();
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
