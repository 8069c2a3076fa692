//! The contract of [`Storage`], run over every backend, and tests of the store on disk alone.
//!
//! `kv::storage_tests` has the contract. `model` compares random commands with a map of maps.

use std::ops::ControlFlow;
use std::path::Path;

use futures::executor::block_on;
use kv::{
    Applied, Change, Keys, Kvpair, MemTable, PartLimit, Report, SledDb, Storage, StorageError,
    StorageStats, Value, ValueRef, storage_tests,
};
use tempfile::TempDir;

#[test]
fn tables_in_memory_keep_the_contract() {
    storage_tests::run(MemTable::new);
}

#[test]
fn tables_on_disk_keep_the_contract() {
    let mut directories = Vec::new();
    storage_tests::run(|| {
        let (store, directory) = open_sled();
        directories.push(directory);
        store
    });
}

/// The contract allows a store to return nothing here; these two return numbers.
#[test]
fn tables_in_memory_and_on_disk_know_their_size() {
    let (sled, _directory) = open_sled();
    knows_its_size(&MemTable::new());
    knows_its_size(&sled);
}

fn knows_its_size(store: &impl Storage) {
    assert_eq!(store.stats(), StorageStats::new(0, 0));
    block_on(store.set("t", "a", 1.into())).unwrap();
    block_on(store.set("u", "a", 1.into())).unwrap();
    block_on(store.set("u", "b", 1.into())).unwrap();
    assert_eq!(store.stats(), StorageStats::new(2, 3));
}

#[test]
fn only_tables_on_disk_are_durable() {
    assert!(!MemTable::new().is_durable());
    assert!(open_sled().0.is_durable());
}

fn open_sled() -> (SledDb, TempDir) {
    let directory = tempfile::tempdir().unwrap();
    (SledDb::open(directory.path()).unwrap(), directory)
}

#[test]
fn a_store_on_disk_keeps_its_rows_when_reopened() {
    let directory = tempfile::tempdir().unwrap();
    let large = Value::binary(vec![7; 1024 * 1024]);
    let store = SledDb::open(directory.path().join("new/store")).unwrap();
    block_on(async {
        store.set("t", "k", "v".into()).await.unwrap();
        let value = ValueRef::new(&large).unwrap();
        store.set("t", "large", value).await.unwrap();
        store.set("t", "gone", 1.into()).await.unwrap();
        store.del("t", "gone").await.unwrap();
        store.sync().await.unwrap();
    });
    drop(store);
    let store = SledDb::open(directory.path().join("new/store")).unwrap();
    let mut rows = block_on(store.get_all("t")).unwrap();
    rows.sort_by(|a, b| a.key.cmp(&b.key));
    assert_eq!(
        rows,
        [Kvpair::new("k", "v".into()), Kvpair::new("large", large)]
    );
}

/// A value in parts is joined once, and an answer can share the buffer.
#[test]
fn a_large_value_on_disk_is_shared_with_its_readers() {
    let (store, _directory) = open_sled();
    let large = "v".repeat(100_000);
    block_on(store.set("t", "text", (&*large).into())).unwrap();
    block_on(store.set("t", "bytes", large.as_bytes().into())).unwrap();
    for key in ["text", "bytes"] {
        let mut shared = false;
        let read = store.read("t".into(), Keys::one(key.into()), |value| {
            shared = match value.unwrap() {
                ValueRef::String(text) => text.to_bytes().as_ptr() == text.as_bytes().as_ptr(),
                ValueRef::Binary(data) => data.to_bytes().as_ptr() == data.as_bytes().as_ptr(),
                _ => false,
            };
            ControlFlow::Continue(())
        });
        block_on(read).unwrap();
        assert!(shared, "{key} is copied");
    }
}

#[test]
fn refuses_to_open_a_store_twice() {
    let (store, directory) = open_sled();
    let error = SledDb::open(directory.path()).unwrap_err();
    assert!(
        matches!(error, StorageError::InUse { .. }),
        "{}",
        Report(&error)
    );
    assert!(
        error
            .to_string()
            .contains(directory.path().to_str().unwrap()),
        "{error}"
    );
    drop(store);
    assert!(SledDb::open(directory.path()).is_ok());
}

#[test]
fn an_error_on_opening_names_the_directory() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    std::fs::write(&path, "not a directory").unwrap();
    let error = SledDb::open(&path).unwrap_err();
    assert!(matches!(error, StorageError::Open { .. }));
    assert!(
        error.to_string().contains(path.to_str().unwrap()),
        "{error}"
    );
}

#[test]
fn a_corrupt_row_is_an_error_that_names_it() {
    let directory = tempfile::tempdir().unwrap();
    let store = corrupt_store(directory.path());
    assert_names_the_row(block_on(store.get("t", "k")).unwrap_err());
    assert_names_the_row(block_on(store.get_many("t", &["x", "k"])).unwrap_err());
    assert_names_the_row(block_on(store.get_all("t")).unwrap_err());
    assert_names_the_row(block_on(store.scan("t", "", PartLimit::NONE)).unwrap_err());
    // Its key can be read, and a part that ends before it too.
    assert!(block_on(store.contains("t", "k")).unwrap());
    let part = block_on(store.scan("t", "", PartLimit::new(1, usize::MAX)));
    assert_eq!(part.unwrap(), [Kvpair::new("a", 1.into())]);
}

#[test]
fn a_corrupt_row_is_not_taken_for_missing_by_a_write() {
    let directory = tempfile::tempdir().unwrap();
    let store = corrupt_store(directory.path());
    // A write of several keys changes nothing.
    let pairs = ["new", "k", "k"].map(|key| (key, 2.into()));
    assert_names_the_row(block_on(store.set_many("t", &pairs)).unwrap_err());
    assert_names_the_row(block_on(store.del_many("t", &["a", "k"])).unwrap_err());
    // Nor does a write of its key that decides to change nothing.
    for decided in [ControlFlow::Continue(Change::Keep), ControlFlow::Break(())] {
        let written = store.write("t".into(), Keys::one("k".into()), |_, _| decided);
        assert_names_the_row(block_on(written).unwrap_err());
    }
    assert_names_the_row(block_on(store.get("t", "k")).unwrap_err());
    assert_eq!(block_on(store.get("t", "a")).unwrap(), Some(1.into()));
    assert_eq!(store.stats(), StorageStats::new(1, 2));
}

#[test]
fn writing_or_removing_a_corrupt_row_repairs_it_and_reports_it() {
    for set in [true, false] {
        let directory = tempfile::tempdir().unwrap();
        let store = corrupt_store(directory.path());
        let error = match set {
            true => block_on(store.set("t", "k", 2.into())).unwrap_err(),
            false => block_on(store.del("t", "k")).unwrap_err(),
        };
        assert_eq!(error.applied(), Applied::Unknown);
        assert_eq!(
            Report(&error).to_string(),
            format!("cannot write table \"t\": {CORRUPT}: it is not an encoded value")
        );
        let expected = set.then(|| 2.into());
        assert_eq!(block_on(store.get("t", "k")).unwrap(), expected);
        assert_eq!(store.stats(), StorageStats::new(1, 1 + u64::from(set)));
        drop(store);
        // The store was closed in good order.
        let store = SledDb::open(directory.path()).unwrap();
        assert_eq!(block_on(store.get("t", "k")).unwrap(), expected);
    }
}

const CORRUPT: &str = r#"the stored value of key "k" in table "t" is corrupt"#;

#[track_caller]
fn assert_names_the_row(error: StorageError) {
    assert_eq!(error.to_string(), CORRUPT);
    assert_eq!(error.applied(), Applied::No);
}

/// A store with a row `a` of table `t`, followed by a corrupt row `k`.
fn corrupt_store(directory: &Path) -> SledDb {
    let store = SledDb::open(directory).unwrap();
    block_on(store.set("t", "a", 1.into())).unwrap();
    block_on(store.set("t", "k", "secret".into())).unwrap();
    drop(store);
    // sled releases its lock a moment after the store is dropped.
    let rows = loop {
        match sled::open(directory) {
            Ok(rows) => break rows,
            Err(error) => assert!(error.to_string().contains("lock"), "{error}"),
        }
    };
    let mut table = rows.iter().keys().map(Result::unwrap);
    let row = table.find(|row| row.ends_with(b"k")).unwrap();
    rows.insert(&row, b"\xff").unwrap();
    drop((table, rows));
    let error = SledDb::open(directory).unwrap_err();
    assert!(matches!(error, StorageError::Damaged { .. }));
    std::fs::remove_file(directory.join("CLOSED")).unwrap();
    SledDb::open(directory).unwrap()
}
