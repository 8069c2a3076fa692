//! A large file, a pipe or the like in place of a store's small file is refused without reading it
//! or waiting for it.
//!
//! A separate binary, because it checks the peak memory of its process.

#![cfg(target_os = "linux")]
#![allow(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

#[allow(dead_code, reason = "the suite uses the rest")]
#[path = "support/stores.rs"]
mod stores;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use kv::{Report, SledDb, StorageError};
use stores::fill;
use tempfile::TempDir;

const LARGE_FILE_BYTES: u64 = 2 << 30;

/// Far more than the tests in this process need otherwise.
const MAX_MEMORY_BYTES: u64 = 1 << 30;

/// The contents of a directory before a file that is not small is put there.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Base {
    EmptyLog,
    Unmarked,
    Store,
}

const BASES: [Base; 3] = [Base::EmptyLog, Base::Unmarked, Base::Store];

fn make(base: Base) -> TempDir {
    let directory = TempDir::new().unwrap();
    let path = directory.path();
    match base {
        Base::EmptyLog => fs::write(path.join("db"), "").unwrap(),
        Base::Unmarked | Base::Store => fill(path, 10),
    }
    if base == Base::Unmarked {
        fs::remove_file(path.join("FORMAT")).unwrap();
    }
    directory
}

fn names(path: &Path) -> Vec<(std::ffi::OsString, u64)> {
    let entries = fs::read_dir(path).unwrap().map(|entry| {
        let entry = entry.unwrap();
        (entry.file_name(), entry.metadata().unwrap().len())
    });
    let mut names: Vec<_> = entries.collect();
    names.sort();
    names
}

/// Opens a directory that must be refused and left unchanged.
fn refused_unread(path: &Path, case: &str) -> StorageError {
    let before = names(path);
    let (sender, opened) = mpsc::channel();
    let directory = path.to_owned();
    thread::spawn(move || drop(sender.send(SledDb::open(&directory))));
    let opened = opened.recv_timeout(Duration::from_secs(60));
    let error = opened.unwrap_or_else(|_| panic!("{case}: it hangs"));
    let error = error
        .err()
        .unwrap_or_else(|| panic!("{case}: it is opened"));
    let report = Report(&error);
    assert_eq!(names(path), before, "{case}: {report}");
    error
}

fn peak_memory_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let kib = line.unwrap().split_whitespace().nth(1).unwrap();
    kib.parse::<u64>().unwrap() * 1024
}

#[test]
fn refuses_a_large_file_in_place_of_a_small_one_unread() {
    for base in BASES {
        for name in ["FORMAT", "FORMAT.new", "conf", "CLOSED"] {
            let directory = make(base);
            let path = directory.path();
            let case = format!("{base:?} with a large {name}");
            if base == Base::Store && name == "FORMAT.new" {
                continue;
            }
            let file = fs::File::create(path.join(name)).unwrap();
            file.set_len(LARGE_FILE_BYTES).unwrap();
            let error = refused_unread(path, &case);
            // The log shows that the store is kv's, whatever the file says.
            let is_known = match base {
                Base::EmptyLog => false,
                Base::Unmarked => name == "CLOSED",
                Base::Store => name != "FORMAT",
            };
            match is_known {
                true => assert!(matches!(error, StorageError::Damaged { .. }), "{case}"),
                false => assert!(matches!(error, StorageError::Format { .. }), "{case}"),
            }
            let peak = peak_memory_bytes();
            assert!(peak < MAX_MEMORY_BYTES, "{case}: {peak} bytes");
        }
    }
}

#[test]
fn refuses_a_pipe_in_place_of_a_file_without_waiting() {
    let snapshot = "snap.FFFFFFFFFFFFFFFF";
    for base in BASES {
        for name in ["FORMAT", "FORMAT.new", "conf", "CLOSED", "db", snapshot] {
            // In a store with a format file, kvs does not look at this file.
            if base == Base::Store && name == "FORMAT.new" {
                continue;
            }
            let directory = make(base);
            let path = directory.path();
            let _ = fs::remove_file(path.join(name));
            let made = Command::new("mkfifo").arg(path.join(name)).status();
            assert!(made.unwrap().success());
            let case = format!("{base:?} with a pipe {name}");
            let error = refused_unread(path, &case);
            if base != Base::Store || name == "FORMAT" {
                assert!(matches!(error, StorageError::Format { .. }), "{case}");
            }
        }
    }
}
