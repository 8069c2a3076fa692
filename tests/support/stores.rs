//! Stores on disk: filling and counting them, and checking that a refused one is unchanged.

use std::fs;
use std::path::Path;

use futures::executor::block_on;
use kv::{Report, SledDb, Storage, StorageError, ValueRef};

pub(crate) fn fill(directory: &Path, keys: u32) {
    let store = SledDb::open(directory).unwrap();
    block_on(async {
        for key in 0..keys {
            let value = [key as u8; 1000];
            let value = ValueRef::from(&value[..]);
            store.set("t", &key.to_string(), value).await.unwrap();
        }
        store.sync().await.unwrap();
    });
}

pub(crate) fn count(store: &SledDb) -> usize {
    block_on(store.get_all("t")).unwrap().len()
}

pub(crate) fn refused(directory: &Path) -> (StorageError, String) {
    let before = files(directory);
    let error = SledDb::open(directory).unwrap_err();
    let report = Report(&error).to_string();
    assert!(
        files(directory) == before,
        "what is refused is left as it is: {report}"
    );
    (error, report)
}

pub(crate) fn shown(directory: &Path) -> String {
    directory.display().to_string()
}

/// Everything in a directory, with the contents of files, and [`None`] for directories.
pub(crate) fn files(path: &Path) -> Vec<(std::path::PathBuf, Option<Vec<u8>>)> {
    let mut files = Vec::new();
    for entry in fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(self::files(&path));
            files.push((path, None));
        } else {
            let content = fs::read(&path).unwrap();
            files.push((path, Some(content)));
        }
    }
    files.sort();
    files
}

pub(crate) fn snapshots(path: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    entries
        .filter(|path| path.to_string_lossy().contains("snap."))
        .collect()
}

/// Copies a directory with all that is in it.
pub(crate) fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let to = to.join(path.file_name().unwrap());
        match path.is_dir() {
            true => copy(&path, &to),
            false => drop(fs::copy(&path, to).unwrap()),
        }
    }
}
