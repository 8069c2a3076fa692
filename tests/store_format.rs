//! What a directory must be to be opened as a store, and what is said of one that is not.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

#[path = "support/chance.rs"]
mod chance;

use std::fs;
use std::path::Path;

use chance::Chance;
use futures::executor::block_on;
use kv::abi::Value;
use kv::{Report, SledConfig, SledDb, Storage, StorageError};
use tempfile::TempDir;

fn fill(directory: &Path, keys: u32) {
    let store = SledDb::open(directory).unwrap();
    block_on(async {
        for key in 0..keys {
            let value = Value::from(vec![key as u8; 1000]);
            let key = key.to_string();
            store.set("t", &key, value, usize::MAX).await.unwrap();
        }
        store.sync().await.unwrap();
    });
}

fn count(store: &SledDb) -> usize {
    block_on(store.get_all("t", usize::MAX)).unwrap().len()
}

fn refused(directory: &Path) -> (StorageError, String) {
    let error = SledDb::open(directory).unwrap_err();
    let report = Report(&error).to_string();
    (error, report)
}

fn shown(directory: &Path) -> String {
    directory.display().to_string()
}

#[test]
fn a_store_says_what_it_is_and_one_that_does_not_is_told_to() {
    let directory = TempDir::new().unwrap();
    let path = directory.path();
    fill(path, 10);
    let format = path.join("FORMAT");
    assert_eq!(fs::read_to_string(&format).unwrap(), "kv sled 1\n");
    // One of before there was the file.
    fs::remove_file(&format).unwrap();
    assert_eq!(count(&SledDb::open(path).unwrap()), 10);
    assert_eq!(fs::read_to_string(&format).unwrap(), "kv sled 1\n");
    assert_eq!(count(&SledDb::open(path).unwrap()), 10);
}

#[test]
fn a_directory_of_something_else_is_left_as_it_is() {
    let directory = TempDir::new().unwrap();
    let path = directory.path();
    fs::write(path.join("notes.txt"), "mine").unwrap();
    let (error, report) = refused(path);
    assert!(matches!(error, StorageError::Format { .. }));
    assert_eq!(
        report,
        format!("{} holds \"notes.txt\", and no store", shown(path))
    );
    assert_eq!(fs::read_dir(path).unwrap().count(), 1);
    // A volume may have a directory of its file system.
    let directory = TempDir::new().unwrap();
    fs::create_dir(directory.path().join("lost+found")).unwrap();
    fill(directory.path(), 1);
}

#[test]
fn a_store_of_another_format_is_named_and_left_as_it_is() {
    let directory = TempDir::new().unwrap();
    let path = directory.path();
    fill(path, 10);
    for (text, says) in [
        (
            "kv sled 2\n",
            "a store of format 2, and this version of kv reads format 1",
        ),
        (
            "kv sled 0",
            "a store of format 0, and this version of kv reads format 1",
        ),
        ("", "a file FORMAT that is not kv's"),
        ("PostgreSQL 15\n", "a file FORMAT that is not kv's"),
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
fn where_a_store_must_exist_none_is_made() {
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
    fill(directory.path(), 10);
    assert_eq!(
        count(&SledDb::open_with(directory.path(), config).unwrap()),
        10
    );
}

#[test]
fn a_store_that_was_being_made_is_made() {
    let directory = TempDir::new().unwrap();
    let path = directory.path();
    fill(path, 0);
    fs::remove_file(path.join("FORMAT")).unwrap();
    fs::write(path.join("FORMAT.new"), "kv").unwrap();
    fill(path, 10);
    assert_eq!(count(&SledDb::open(path).unwrap()), 10);
    let directory = TempDir::new().unwrap();
    fs::write(directory.path().join("db"), "").unwrap();
    fill(directory.path(), 10);
}

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

fn snapshots(path: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    entries
        .filter(|path| path.to_string_lossy().contains("snap."))
        .collect()
}

/// Whatever is wrong with the log, it is opened with what can be read of it, or not at all.
#[test]
fn no_damage_is_a_panic() {
    let directory = TempDir::new().unwrap();
    let path = directory.path();
    fill(path, 2000);
    let whole = fs::read(path.join("db")).unwrap();
    let mut chance = Chance(7);
    let mut random = |below| chance.below(below);
    let (mut opened, mut refused) = (0, 0);
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
        for snapshot in snapshots(path) {
            fs::remove_file(snapshot).unwrap();
        }
        match SledDb::open(path) {
            Ok(store) => {
                opened += 1;
                match block_on(store.get_all("t", usize::MAX)) {
                    Ok(pairs) => assert!(pairs.len() <= 2000),
                    Err(error) => assert!(Report(&error).to_string().lines().count() == 1),
                }
            }
            Err(error) => {
                refused += 1;
                let report = Report(&error).to_string();
                assert!(
                    report.contains(&shown(path)) && report.lines().count() == 1,
                    "{report}"
                );
            }
        }
    }
    assert!(opened > 0 && refused > 0, "{opened} {refused}");
}
