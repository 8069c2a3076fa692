//! What a directory says of itself: that it holds a store of kv, and in which format.
//!
//! It says so twice. The file `FORMAT` is for people and for whoever opens the directory with another version. A row
//! of a tree of its own is for what sled does with a damaged log, which is to open it as if nothing had ever been in
//! it: where the file is there and the row is not, rows are missing as well.
//!
//! Without the file there may be nothing but what sled makes, which is looked at before sled is: it would make
//! what it needs in anybody's directory.
//!
//! The row is made first and the file last, each of them durable, so that a directory with the file is complete. While
//! a store is being made the file is there under another name, before sled has written anything: a log without
//! either file, and without the row, belongs to somebody else, and sled never gets to see it.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

use memchr::memmem;

use super::files::{MAX_SMALL_FILE_BYTES, open_regular, read_bounded, sync_path};
use super::{conf, snapshot};
use crate::storage::StorageError;

/// The format that this version reads and writes.
const VERSION: u32 = 1;

const FILE: &str = "FORMAT";

/// The name of the file while the store is being made.
const NEW_FILE: &str = "FORMAT.new";

/// What the file begins with, before the number.
const NAME: &str = "kv sled";

const TREE: &str = "kv";
const ROW: &str = "format";

/// The row as sled writes it into its log, both as a change and within a page: its key and its value, each behind its
/// length.
const LOGGED_ROW: &[u8] = b"\x06format\x04\0\0\0\x01";

const READ_SIZE: usize = 256 * 1024;

/// What a directory is, before sled has looked at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// There is nothing.
    Nothing,
    /// A store that was being made when its process ended, or that has lost its file `FORMAT`.
    Unmarked,
    /// A store in the format of this version.
    Store,
}

/// Finds out what a directory is.
///
/// # Errors
///
/// [`StorageError::Format`] where it is something else, or a store of another version.
pub(super) fn look(directory: &Path) -> Result<Found, StorageError> {
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
                    "a store of format {version}, and this version of kv reads format {VERSION}"
                ))),
                None => Err(foreign(format!("a file {FILE} that is not kv's"))),
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => match look_at_files(directory) {
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

/// What the files say of a directory without the file `FORMAT`; or what there is, where that is no store of kv.
fn look_at_files(directory: &Path) -> io::Result<Result<Found, String>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Ok(Found::Nothing)),
        Err(error) => return Err(error),
    };
    let names = entries.map(|entry| Ok(entry?.file_name()));
    let mut names = names.collect::<io::Result<Vec<_>>>()?;
    // What a file system puts into the root of a volume.
    names.retain(|name| name != "lost+found");
    let strange = names.iter().find(|name| !is_of_a_store(directory, name));
    if let Some(strange) = strange {
        return Ok(Err(no_store(strange)));
    }
    let has = |name: &str| names.iter().any(|found| found == name);
    let log = directory.join("db");
    Ok(match names.first() {
        None => Ok(Found::Nothing),
        // `db` is made first: a store whose process ended then is no more than that.
        Some(_) if is_empty(&log) => {
            let mut names = names.iter();
            match names.find(|name| !is_of_a_store_without_rows(directory, name)) {
                Some(strange) => Err(no_store(strange)),
                None if has("conf") => Ok(Found::Unmarked),
                None => Ok(Found::Nothing),
            }
        }
        Some(_) if has("db") && has("conf") => {
            if has(NEW_FILE) || is_logged(&log)? {
                Ok(Found::Unmarked)
            } else if conf::is_whole(directory) {
                Err("a store of sled's, and none of kv's".to_owned())
            } else {
                Err(no_store(OsStr::new("db")))
            }
        }
        Some(first) => Err(no_store(first)),
    })
}

fn no_store(name: &OsStr) -> String {
    format!("{:?}, and no store", name.to_string_lossy())
}

/// Whether a store without its file `FORMAT` can have this in it.
fn is_of_a_store(directory: &Path, name: &OsStr) -> bool {
    let path = directory.join(name);
    match name.to_string_lossy().as_ref() {
        "blobs" => path.is_dir(),
        "conf" => conf::is_of_sled(&path),
        NEW_FILE => {
            let read = read_bounded(&path, MAX_SMALL_FILE_BYTES);
            matches!(read, Ok(Some(text)) if is_part_of(&text, line().as_bytes()))
        }
        "db" | "CLOSED" | "CLOSED.new" => path.is_file(),
        name => path.is_file() && snapshot::is_one(name),
    }
}

/// Whether a store can have this in it before there is anything in its log, which sled writes first.
fn is_of_a_store_without_rows(directory: &Path, name: &OsStr) -> bool {
    match name.to_string_lossy().as_ref() {
        "db" | "conf" | NEW_FILE => true,
        "blobs" => {
            fs::read_dir(directory.join(name)).is_ok_and(|mut entries| entries.next().is_none())
        }
        _ => false,
    }
}

/// Whether a file can hold this because its writing was cut short: the beginning of what was to be in it, or the room
/// for that, which a power cut may leave empty.
pub(super) fn is_part_of(found: &[u8], whole: &[u8]) -> bool {
    let mut pairs = found.iter().zip(whole);
    found.len() <= whole.len() && pairs.all(|(is, meant)| is == meant || *is == 0)
}

/// What the file says.
fn line() -> String {
    format!("{NAME} {VERSION}\n")
}

/// Whether the row is in a log, valid or not: what sled would make of it is not known before sled opens it, and that
/// changes it.
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

/// Whether the store has the row that all stores have which say their format.
pub(super) fn is_marked(store: &sled::Db) -> sled::Result<bool> {
    // A tree that is asked for is made.
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

/// Whether there is nothing in a store that could be somebody's.
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

/// Says that a store is being made here, durably, before sled writes anything.
pub(super) fn begin(directory: &Path) -> io::Result<()> {
    let new = directory.join(NEW_FILE);
    let mut file = File::create(&new)?;
    file.write_all(line().as_bytes())?;
    file.sync_all()?;
    sync_path(directory)
}

/// Gives the file its name, once the row is durable.
pub(super) fn mark_directory(directory: &Path) -> io::Result<()> {
    fs::rename(directory.join(NEW_FILE), directory.join(FILE))?;
    sync_path(directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_row_is_found_across_the_parts_that_are_read() {
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
    fn what_was_cut_short_is_a_beginning_or_room() {
        for part in [&b""[..], b"ab", b"abc", b"ab\0", b"\0\0\0"] {
            assert!(is_part_of(part, b"abc"), "{part:?}");
        }
        for other in [&b"b"[..], b"abcd", b"\0\0\0\0", b"ac"] {
            assert!(!is_part_of(other, b"abc"), "{other:?}");
        }
    }
}
