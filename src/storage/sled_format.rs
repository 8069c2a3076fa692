//! What a directory says of itself: that it holds a store of kv, and in which format.
//!
//! It says so twice. The file `FORMAT` is for people and for whoever opens the directory with another version. A row
//! of a tree of its own is for what sled does with a damaged log, which is to open it as if nothing had ever been in
//! it: where the file is there and the row is not, rows are missing as well.
//!
//! Without the file there may be nothing but what sled makes, which is looked at before sled is: it would make
//! what it needs in anybody's directory.
//!
//! The row is made first and the file last, each of them durable, so that a directory with the file is complete. One
//! without it is new, or was made before there was one, and gets it.

use std::ffi::OsStr;
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
    // `db` is made first: a store whose process ended then is no more than that.
    let strange = names.iter().find(|name| !is_of_a_store(directory, name));
    let has = |name: &str| names.iter().any(|found| found == name);
    match strange {
        None if has("conf") && has("db") => Ok(Found::Unmarked),
        None if is_empty(&directory.join("db")) => Ok(Found::Nothing),
        strange => {
            let strange = strange.or(names.first()).map(|name| name.to_string_lossy());
            Err(foreign(format!(
                "{:?}, and no store",
                strange.unwrap_or_default()
            )))
        }
    }
}

/// Whether a store without its file `FORMAT` can have this in it.
fn is_of_a_store(directory: &Path, name: &OsStr) -> bool {
    let is_dir = directory.join(name).is_dir();
    match name.to_string_lossy().as_ref() {
        "blobs" => is_dir,
        "conf" => is_conf_of_sled(&directory.join(name)),
        "db" | NEW_FILE | "CLOSED" | "CLOSED.new" => !is_dir,
        name => !is_dir && name.starts_with("snap."),
    }
}

/// Whether a file is what sled keeps its settings in, or was to become that.
fn is_conf_of_sled(file: &Path) -> bool {
    const BEGINNING: &[u8] = b"segment_size: ";
    fs::read(file).is_ok_and(|text| text.is_empty() || text.starts_with(BEGINNING))
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

/// Writes the file, once the row is durable.
pub(super) fn mark_directory(directory: &Path) -> io::Result<()> {
    let new: PathBuf = directory.join(NEW_FILE);
    let mut file = File::create(&new)?;
    writeln!(file, "{NAME} {VERSION}")?;
    file.sync_all()?;
    fs::rename(&new, directory.join(FILE))?;
    super::sled_files::sync_path(directory)
}
