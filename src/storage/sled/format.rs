//! How a directory is marked as a store of kv, and with which format.
//!
//! It is marked twice. The file `FORMAT` is for people and for other versions of kv. A row in a
//! tree of its own detects a damaged log, which sled opens as if it were empty: if the file exists
//! and the row does not, other rows are missing as well.
//!
//! Without `FORMAT`, the directory may hold nothing but files that sled makes. This is checked
//! before sled opens it, because sled would create its files in any directory.
//!
//! The row is written first and the file last, each durably, so that a directory with `FORMAT` is
//! complete. While a store is being created, before sled writes anything, the file exists as
//! `FORMAT.new`. A log with the row and neither file belongs to a store that has lost its file. A
//! log with none of the three is not ours. sled sees neither.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

use memchr::memmem;

use super::files::{MAX_SMALL_FILE_BYTES, open_regular, read_bounded, sync_path};
use super::{closed, conf, snapshot};
use crate::storage::StorageError;

/// The format that this version reads and writes.
const VERSION: u32 = 1;

pub(super) const FILE: &str = "FORMAT";

/// The name of the file while the store is being made.
const NEW_FILE: &str = "FORMAT.new";

/// The beginning of the file, before the number.
const NAME: &str = "kv sled";

const TREE: &str = "kv";
const ROW: &str = "format";

/// The row as sled writes it to its log, both as a change and within a page: its key and its value,
/// each after its length.
const LOGGED_ROW: &[u8] = b"\x06format\x04\0\0\0\x01";

const READ_SIZE: usize = 256 * 1024;

/// What a directory holds, before sled opens it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// No store.
    Nothing,
    /// A store that was being created when its process ended.
    Begun,
    /// A store that has lost its file `FORMAT`.
    Unmarked,
    /// A store in the format of this version.
    Store,
}

/// Determines what a directory holds.
///
/// # Errors
///
/// [`StorageError::Format`] if it holds something else, or a store of another version.
pub(super) fn inspect(directory: &Path) -> Result<Found, StorageError> {
    let foreign = |found: String| StorageError::Format {
        path: directory.to_owned(),
        found,
    };
    match read_bounded(&directory.join(FILE), MAX_SMALL_FILE_BYTES) {
        Ok(text) => {
            let text = text.and_then(|text| String::from_utf8(text).ok());
            let version = text
                .as_deref()
                .and_then(|text| text.trim_end().strip_prefix(NAME))
                .map(str::trim);
            match version.and_then(|version| version.parse::<u32>().ok()) {
                Some(VERSION) => Ok(Found::Store),
                Some(version) => Err(foreign(format!(
                    "a store of format {version}, which needs another version of kv: this one \
                     reads format {VERSION}"
                ))),
                None => Err(foreign(format!(
                    "a file {FILE} that this version of kv cannot read"
                ))),
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => match inspect_files(directory) {
            Ok(Ok(found)) => Ok(found),
            Ok(Err(other)) => Err(foreign(other)),
            Err(source) => Err(StorageError::Open {
                path: directory.to_owned(),
                source: source.into(),
            }),
        },
        Err(source) => Err(StorageError::Open {
            path: directory.to_owned(),
            source: source.into(),
        }),
    }
}

/// Determines from its files what a directory without `FORMAT` holds. The inner error describes
/// what it holds if this is not a store of kv.
fn inspect_files(directory: &Path) -> io::Result<Result<Found, String>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Ok(Found::Nothing)),
        Err(error) => return Err(error),
    };
    let names = entries.map(|entry| Ok(entry?.file_name()));
    let mut names = names.collect::<io::Result<Vec<_>>>()?;
    // File systems create this in the root of a volume.
    names.retain(|name| name != "lost+found");
    let foreign = names.iter().find(|name| !may_be_in_store(directory, name));
    if let Some(foreign) = foreign {
        return Ok(Err(no_store(foreign)));
    }
    let has = |name: &str| names.iter().any(|found| found == name);
    let log = directory.join("db");
    Ok(match names.first() {
        None => Ok(Found::Nothing),
        // `db` is created first: if the process ended then, the directory holds nothing else.
        Some(_) if is_empty(&log) => {
            let mut names = names.iter();
            match names.find(|name| !may_be_in_empty_store(directory, name)) {
                Some(foreign) => Err(no_store(foreign)),
                None if has("conf") => Ok(Found::Begun),
                None => Ok(Found::Nothing),
            }
        }
        Some(_) if has("db") && has("conf") => {
            // Only a complete store is closed, and a complete store has `FORMAT`.
            if has(NEW_FILE) && !has(closed::FILE) {
                Ok(Found::Begun)
            } else if is_logged(&log)? {
                Ok(Found::Unmarked)
            } else if conf::is_complete(directory) {
                Err("a sled database that is not a kv store".to_owned())
            } else {
                Err(no_store(OsStr::new("db")))
            }
        }
        Some(first) => Err(no_store(first)),
    })
}

fn no_store(name: &OsStr) -> String {
    format!("{:?} but no store", name.to_string_lossy())
}

/// Whether a store without `FORMAT` may contain this file.
fn may_be_in_store(directory: &Path, name: &OsStr) -> bool {
    let path = directory.join(name);
    match name.to_string_lossy().as_ref() {
        "blobs" => path.is_dir(),
        "conf" => conf::is_of_sled(&path),
        NEW_FILE => {
            let read = read_bounded(&path, MAX_SMALL_FILE_BYTES);
            matches!(read, Ok(Some(text)) if is_part_of(&text, line().as_bytes()))
        }
        "db" | closed::FILE | closed::NEW_FILE => path.is_file(),
        name => path.is_file() && snapshot::is_snapshot(name),
    }
}

/// Whether a store may contain this file while its log, which sled writes first, is empty.
fn may_be_in_empty_store(directory: &Path, name: &OsStr) -> bool {
    match name.to_string_lossy().as_ref() {
        "db" | "conf" | NEW_FILE => true,
        "blobs" => {
            fs::read_dir(directory.join(name)).is_ok_and(|mut entries| entries.next().is_none())
        }
        _ => false,
    }
}

/// Whether a file can hold this because a write of `whole` was interrupted: a beginning of it, or
/// zeros in its place, which a power cut may leave.
pub(super) fn is_part_of(found: &[u8], whole: &[u8]) -> bool {
    let mut pairs = found.iter().zip(whole);
    found.len() <= whole.len() && pairs.all(|(is, meant)| is == meant || *is == 0)
}

/// The content of the file.
fn line() -> String {
    format!("{NAME} {VERSION}\n")
}

/// Whether the row is in a log, valid or not. Only sled could tell if it is valid, and opening the
/// log with sled changes it.
pub(super) fn is_logged(log: &Path) -> io::Result<bool> {
    let mut log = open_regular(log)?;
    let mut buffer = vec![0; READ_SIZE];
    let mut kept = 0;
    loop {
        let read = match buffer.get_mut(kept..) {
            Some(free) => log.read(free)?,
            None => 0,
        };
        let Some(found) = buffer.get(..kept + read).filter(|_| read > 0) else {
            return Ok(false);
        };
        if memmem::find(found, LOGGED_ROW).is_some() {
            return Ok(true);
        }
        // The row may begin in this part and end in the next.
        let from = found.len().saturating_sub(LOGGED_ROW.len() - 1);
        kept = found.len() - from;
        buffer.copy_within(from..from + kept, 0);
    }
}

fn is_empty(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|metadata| metadata.len() == 0)
}

/// Whether the store has the row that marks its format.
pub(super) fn is_marked(store: &sled::Db) -> sled::Result<bool> {
    // `open_tree` would create a missing tree.
    if !store
        .tree_names()
        .iter()
        .any(|name| **name == *TREE.as_bytes())
    {
        return Ok(false);
    }
    let row = store.open_tree(TREE)?.get(ROW)?;
    Ok(row.is_some())
}

/// Whether a store holds no data, ours or foreign.
pub(super) fn is_bare(store: &sled::Db) -> bool {
    let names = store.tree_names();
    let mut others = names
        .iter()
        .filter(|name| **name != *TREE.as_bytes() && **name != store.name());
    store.is_empty() && others.next().is_none()
}

/// Adds the row.
pub(super) fn mark_rows(store: &sled::Db) -> sled::Result<()> {
    store.open_tree(TREE)?.insert(ROW, &VERSION.to_be_bytes())?;
    Ok(())
}

/// Marks the directory, durably, as one in which a store is being created. Called before sled
/// writes anything.
pub(super) fn begin(directory: &Path) -> io::Result<()> {
    let new = directory.join(NEW_FILE);
    let mut file = File::create(&new)?;
    file.write_all(line().as_bytes())?;
    file.sync_all()?;
    sync_path(directory)
}

/// Gives the file its final name, once the row is durable.
pub(super) fn mark_directory(directory: &Path) -> io::Result<()> {
    fs::rename(directory.join(NEW_FILE), directory.join(FILE))?;
    sync_path(directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_row_across_read_boundaries() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("db");
        for at in [
            0,
            1,
            READ_SIZE - 11,
            READ_SIZE - 1,
            READ_SIZE,
            3 * READ_SIZE,
        ] {
            let mut bytes = vec![b'x'; at];
            bytes.extend(LOGGED_ROW);
            fs::write(&log, &bytes).unwrap();
            assert!(is_logged(&log).unwrap(), "{at}");
            bytes.pop();
            fs::write(&log, &bytes).unwrap();
            assert!(!is_logged(&log).unwrap(), "{at}");
        }
    }

    #[test]
    fn an_interrupted_write_leaves_a_beginning_or_zeros() {
        for part in [&b""[..], b"ab", b"abc", b"ab\0", b"\0\0\0"] {
            assert!(is_part_of(part, b"abc"), "{part:?}");
        }
        for other in [&b"b"[..], b"abcd", b"\0\0\0\0", b"ac"] {
            assert!(!is_part_of(other, b"abc"), "{other:?}");
        }
    }
}
