//! The contract of [`Storage`], run over every backend, and tests of the store on disk alone.
//!
//! `kv::storage_tests` has the contract. `model` compares random commands with a map of maps.

use futures::TryStreamExt;
use futures::executor::block_on;
use kv::{
    Applied, Kvpair, MemTable, Report, SledDb, Storage, StorageError, StorageStats, Value,
    storage_tests,
};
use tempfile::TempDir;

const NO_LIMIT: usize = usize::MAX;

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
    block_on(store.set("t", "a", 1.into(), NO_LIMIT)).unwrap();
    block_on(store.set("u", "a", 1.into(), NO_LIMIT)).unwrap();
    block_on(store.set("u", "b", 1.into(), NO_LIMIT)).unwrap();
    assert_eq!(store.stats(), StorageStats::new(2, 3));
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
        store.set("t", "k", "v".into(), NO_LIMIT).await.unwrap();
        store
            .set("t", "large", large.clone(), NO_LIMIT)
            .await
            .unwrap();
        store.set("t", "gone", 1.into(), NO_LIMIT).await.unwrap();
        store.del("t", "gone", NO_LIMIT).await.unwrap();
        store.sync().await.unwrap();
    });
    drop(store);
    let store = SledDb::open(directory.path().join("new/store")).unwrap();
    let mut rows = block_on(store.get_all("t", NO_LIMIT)).unwrap();
    rows.sort_by(|a, b| a.key.cmp(&b.key));
    assert_eq!(
        rows,
        [Kvpair::new("k", "v".into()), Kvpair::new("large", large)]
    );
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
    let store = SledDb::open(directory.path()).unwrap();
    block_on(store.set("t", "k", "secret".into(), NO_LIMIT)).unwrap();
    drop(store);
    // sled releases its lock a moment after the store is dropped.
    let rows = loop {
        match sled::open(directory.path()) {
            Ok(rows) => break rows,
            Err(error) => assert!(error.to_string().contains("lock"), "{error}"),
        }
    };
    let (row, _) = rows.first().unwrap().unwrap();
    rows.insert(&row, b"\xff").unwrap();
    drop(rows);
    assert!(matches!(
        SledDb::open(directory.path()).unwrap_err(),
        StorageError::Damaged { .. }
    ));
    std::fs::remove_file(directory.path().join("CLOSED")).unwrap();
    let store = SledDb::open(directory.path()).unwrap();
    let message = r#"the stored value of key "k" in table "t" is corrupt"#;
    assert_eq!(
        block_on(store.get("t", "k")).unwrap_err().to_string(),
        message
    );
    assert_eq!(
        block_on(store.get_all("t", NO_LIMIT))
            .unwrap_err()
            .to_string(),
        message
    );
    let streamed: Result<Vec<_>, _> = block_on(store.get_iter("t").try_collect());
    assert_eq!(streamed.unwrap_err().to_string(), message);
    // Several keys are not written if a previous value cannot be read; a single one is, with an
    // error.
    let error = block_on(store.set_many("t", vec![("k".into(), 1.into())], NO_LIMIT)).unwrap_err();
    assert_eq!(error.applied(), Applied::No);
    let error = block_on(store.set("t", "k", 1.into(), NO_LIMIT)).unwrap_err();
    assert_eq!(
        (error.applied(), Report(&error).to_string()),
        (
            Applied::Unknown,
            format!(
                "cannot write table \"t\": {message}: failed to decode Protobuf message: invalid varint"
            )
        )
    );
    assert_eq!(block_on(store.get("t", "k")).unwrap(), Some(1.into()));
}
