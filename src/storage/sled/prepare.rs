//! What is done to a directory before sled opens it.
//!
//! All of it happens under sled's own lock, which is released before sled opens the store: a store that another process
//! has open is looked at and not touched. A directory is looked at first, and what is refused is left as it is.
//!
//! A process can be killed at any moment of an opening, in this part or in sled's, and what it leaves is put right
//! here. Each step leaves something that the same step takes for what it has to do: an empty log is nothing yet, a
//! store is being made as long as its file `FORMAT` has its other name, `conf` is written again as long as it is no more
//! than a beginning, and a snapshot that was begun is removed.

use std::io;
use std::path::{Path, PathBuf};

use tracing::info;

use super::closed::{self, Contents, OPEN_TIMEOUT, file_failed, lock};
use super::files::{make_blobs, make_directories, missing_directories, open_log, open_regular};
use super::format::{self, Found};
use super::progress::Progress;
use super::{conf, config::SledConfig, snapshot};
use crate::storage::StorageError;

/// A directory that sled can open.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) found: Found,
    /// What the store had in it when it was closed, if it was.
    pub(super) closed: Option<Contents>,
    /// The directories that were made for it.
    pub(super) created: Vec<PathBuf>,
}

/// Finds out what a directory is, and makes it one that sled can open.
///
/// # Errors
///
/// Those of opening a store. Where it is refused as something else, missing, damaged, or in use, nothing is changed.
pub(super) fn prepare(
    directory: &Path,
    settings: &SledConfig,
    progress: &Progress,
) -> Result<Prepared, StorageError> {
    let failed = |error: io::Error| StorageError::Open {
        path: directory.to_owned(),
        source: error.into(),
    };
    let found = format::look(directory)?;
    if settings.must_exist && found == Found::Nothing {
        return Err(StorageError::Missing {
            path: directory.to_owned(),
        });
    }
    if found != Found::Nothing {
        info!(directory = %directory.display(), "opening the store");
    }
    let created = missing_directories(directory);
    let log = match found {
        Found::Nothing => make_directories(&created)
            .and_then(|()| open_log(directory))
            .map_err(failed)?,
        // A missing log is an error: sled would make a new one.
        Found::Unmarked | Found::Store => open_regular(&directory.join("db"))
            .map_err(|error| file_failed(directory, "db", error))?,
    };
    if !lock(&log, OPEN_TIMEOUT).map_err(failed)? {
        return Err(StorageError::InUse {
            path: directory.to_owned(),
        });
    }
    // Whoever had the lock until now may have made a store, or closed it.
    let found = format::look(directory)?;
    let closed = closed::take(directory, found, progress)?;
    put_right(directory, found).map_err(failed)?;
    Ok(Prepared {
        found,
        closed,
        created,
    })
}

/// Makes what is missing in a store that is being made, and mends what an opening has left that was cut short.
fn put_right(directory: &Path, found: Found) -> io::Result<()> {
    if found != Found::Store {
        format::begin(directory)?;
    }
    for file in snapshot::remove_begun(directory)? {
        let directory = directory.display();
        info!(%directory, file, "removed what an opening has left that was cut short");
    }
    make_blobs(directory)?;
    conf::restore(directory)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_store_that_is_open_is_not_looked_at() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        for (name, text) in [
            ("db", ""),
            ("conf", ""),
            ("FORMAT", "kv sled 1"),
            ("CLOSED", ""),
        ] {
            fs::write(path.join(name), text).unwrap();
        }
        let open = fs::File::open(path.join("db")).unwrap();
        open.lock().unwrap();
        let progress = Progress::start(path);
        let error = prepare(path, &SledConfig::default(), &progress).unwrap_err();
        assert!(matches!(error, StorageError::InUse { .. }), "{error}");
        drop(open);
        let error = prepare(path, &SledConfig::default(), &progress).unwrap_err();
        assert!(matches!(error, StorageError::Damaged { .. }), "{error}");
    }
}
