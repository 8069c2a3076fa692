//! Prepares a directory before sled opens it.
//!
//! Everything is changed under sled's own lock, which is released before sled opens the store, so a
//! store that another process has open is never changed. A directory is inspected first, and one
//! that is refused is left as it is.
//!
//! A process can be killed at any moment of an opening, in this part or in sled's. The next opening
//! repairs what it left, because every step can be repeated: an empty log counts as no store, a
//! store is being created for as long as `FORMAT` is called `FORMAT.new`, `conf` is rewritten if it
//! is incomplete, and an unfinished snapshot is removed.

use std::io;
use std::path::{Path, PathBuf};

use tracing::info;

use super::closed::{self, Contents, OPEN_TIMEOUT, file_failed, file_missing, lock};
use super::files::{make_blobs, make_directories, missing_directories, open_log, open_regular};
use super::format::{self, Found};
use super::progress::Progress;
use super::{conf, config::SledConfig, snapshot};
use crate::storage::StorageError;

/// A directory that sled can open.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) found: Found,
    /// What the store held when it was closed, if it was.
    pub(super) closed: Option<Contents>,
    /// The directories that were created for it.
    pub(super) created: Vec<PathBuf>,
}

/// Inspects a directory and prepares it for sled.
///
/// # Errors
///
/// Those of opening a store. If the store is missing, damaged, in use, or not a store, nothing is
/// changed.
pub(super) fn prepare(
    directory: &Path,
    settings: &SledConfig,
    progress: &Progress,
) -> Result<Prepared, StorageError> {
    let failed = |error: io::Error| StorageError::Open {
        path: directory.to_owned(),
        source: error.into(),
    };
    let found = format::inspect(directory)?;
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
        // A missing log is an error: sled would create a new one.
        Found::Begun | Found::Unmarked | Found::Store => open_regular(&directory.join("db"))
            .map_err(|error| file_failed(directory, "db", error))?,
    };
    if !lock(&log, OPEN_TIMEOUT).map_err(failed)? {
        return Err(StorageError::InUse {
            path: directory.to_owned(),
        });
    }
    // The previous holder of the lock may have created a store, or closed it.
    let found = format::inspect(directory)?;
    if found == Found::Unmarked {
        return Err(file_missing(directory, format::FILE));
    }
    let closed = closed::take(directory, found, progress)?;
    repair(directory, found).map_err(failed)?;
    Ok(Prepared {
        found,
        closed,
        created,
    })
}

/// Creates what a new store lacks, and repairs what an interrupted opening left.
fn repair(directory: &Path, found: Found) -> io::Result<()> {
    if found != Found::Store {
        format::begin(directory)?;
    }
    for file in snapshot::remove_unfinished(directory)? {
        let directory = directory.display();
        info!(%directory, file, "removed an unfinished snapshot of an interrupted start");
    }
    make_blobs(directory)?;
    conf::restore(directory)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_store_in_use_is_not_checked_for_damage() {
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
