//! What a directory says of itself: that it holds a store of kv, and in which format.
//!
//! It says so twice. The file `FORMAT` is for people and for whoever opens the directory with another version. A row
//! of a tree of its own is for what sled does with a damaged log, which is to open it as if nothing had ever been in
//! it: where the file is there and the row is not, rows are missing as well.
//!
//! The row is made first and the file last, each of them durable, so that a directory with the file is complete. One
//! without it is new, or was made before there was one, and gets it.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::StorageError;

/// The format that this version reads and writes.
const VERSION: u32 = 1;

const FILE: &str = "FORMAT";

/// Where the file is written before it has its name.
const NEW_FILE: &str = "FORMAT.new";

/// What the file begins with, before the number.
const NAME: &str = "kv sled";

const TREE: &str = "kv";
const ROW: &str = "format";

/// What a directory is, before sled has looked at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// There is nothing.
    Nothing,
    /// A store that does not say its format: it was being made when its process ended, or it is of before there was one.
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
    let failed = |source: io::Error| StorageError::Open {
        path: directory.to_owned(),
        source: source.into(),
    };
    let foreign = |found: String| StorageError::Format {
        path: directory.to_owned(),
        found,
    };
    match fs::read_to_string(directory.join(FILE)) {
        Ok(text) => {
            let version = text.trim_end().strip_prefix(NAME).map(str::trim);
            return match version.and_then(|version| version.parse::<u32>().ok()) {
                Some(VERSION) => Ok(Found::Store),
                Some(version) => Err(foreign(format!(
                    "a store of format {version}, and this version of kv reads format {VERSION}"
                ))),
                None => Err(foreign(format!("a file {FILE} that is not kv's"))),
            };
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            return Err(foreign(format!("a file {FILE} that is not kv's")));
        }
        Err(error) => return Err(failed(error)),
    }
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(error) => return Err(failed(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        names.push(entry.map_err(failed)?.file_name());
    }
    // What a file system puts into the root of a volume.
    names.retain(|name| name != "lost+found");
    if names.is_empty() {
        return Ok(Found::Nothing);
    }
    let is_of_sled = |name: &&str| names.iter().any(|found| found == *name);
    if ["conf", "db"].iter().all(is_of_sled) {
        return Ok(Found::Unmarked);
    }
    // sled makes `db` first: a store whose process ended then is no more than that.
    let made_by_sled = ["db", "blobs", "snap.", "conf"];
    let is_begun = names.iter().all(|name| {
        let name = name.to_string_lossy();
        made_by_sled.iter().any(|made| name.starts_with(made))
    });
    match is_begun && is_empty(&directory.join("db")) {
        true => Ok(Found::Nothing),
        false => {
            let strange = names.first().map(|name| name.to_string_lossy());
            Err(foreign(format!(
                "{:?}, and no store",
                strange.unwrap_or_default()
            )))
        }
    }
}

fn is_empty(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|metadata| metadata.len() == 0)
}

/// Whether the store has the row that all stores have which say their format.
pub(super) fn is_marked(store: &sled::Db) -> sled::Result<bool> {
    let row = store.open_tree(TREE)?.get(ROW)?;
    Ok(row.is_some())
}

/// Adds the row.
pub(super) fn mark_rows(store: &sled::Db) -> sled::Result<()> {
    store.open_tree(TREE)?.insert(ROW, &VERSION.to_be_bytes())?;
    Ok(())
}

/// Writes the file, once the row is durable.
pub(super) fn mark_directory(directory: &Path) -> io::Result<()> {
    let new: PathBuf = directory.join(NEW_FILE);
    let mut file = File::create(&new)?;
    writeln!(file, "{NAME} {VERSION}")?;
    file.sync_all()?;
    fs::rename(&new, directory.join(FILE))?;
    super::sled_files::sync_path(directory)
}
