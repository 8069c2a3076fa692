//! Tables on disk, in sled.
//!
//! All rows are in one tree: with a tree for each of ten thousand tables, opening took 19 s and
//! 714 MB; with one tree, 0.1 s and 2.6 MB. `layout` defines its keys.
//!
//! Single operations of sled are atomic. It offers no consistent read of several rows and no batch
//! that depends on previous values. A lock for each table adds both.
//!
//! sled's calls block their thread, and one large batch holds up all others. So only small calls
//! are made on the thread of the caller, when they need not wait. A large read or write is made by
//! `workers`, in steps of about a millisecond, between which others have their turn. `undo` makes
//! a write of several steps atomic.

mod changes;
mod closed;
mod conf;
mod config;
mod errors;
mod files;
mod format;
mod gate;
mod layout;
mod locks;
mod open;
mod outflow;
mod prepare;
mod progress;
mod read;
mod rows;
mod snapshot;
mod sync;
mod transaction;
mod undo;
mod workers;
mod write;

use std::fmt;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Once};

use tracing::{error, info};

use self::closed::Seal;
use self::files::{sync_ancestors, sync_store};
use self::format::Found;
use self::locks::Locks;
use self::open::{contents, open_rows};
use self::prepare::{Prepared, prepare};
use self::progress::Progress;
use self::rows::Rows;
use self::sync::{Closed, Syncer, io_error, sync_failed, sync_once};
use self::workers::Workers;
use super::{Change, PartLimit, Storage, StorageError, StorageStats, TableSize};
use crate::abi::{Keys, Text, ValueRef};

pub use config::{SledConfig, SyncPolicy};

/// A [`Storage`] in a directory. [`sync`](Storage::sync) returns once `fdatasync` has confirmed
/// everything that was written before it, unless [another policy](crate::SyncPolicy) is set.
///
/// Opening a store reads every row once, which takes two to eight seconds per million rows. It
/// counts the rows, and if the store was closed cleanly, checks that all of them are unchanged.
/// Every three seconds, a `tracing` event reports the progress. Killing the process meanwhile loses
/// nothing.
///
/// After a failed write or sync, every write and sync fails until the store is opened again. After
/// a failed write, so does every read, because half of a command may be in the store.
/// [`failed`](Storage::failed) reports when that happens.
///
/// Every read of a corrupt row fails, and so does a write of several keys that include it, which
/// then changes nothing. A write of that key alone sees no previous value: it replaces or removes
/// the row, which repairs it, and returns [`StorageError::Write`] with the error of the row.
///
/// Dropping a store syncs everything and frees the directory for other processes. A store
/// that has failed cannot be closed, because sled would wait for ever: its directory is free when
/// the process ends.
pub struct SledDb {
    store: Arc<Store>,
    workers: Workers,
}

/// The store that callers and workers share.
struct Store {
    // Dropped in this order: the syncer's thread ends before the tree is closed and sealed.
    syncer: Syncer,
    rows: Rows,
    seal: Seal,
    locks: Arc<Locks>,
    directory: PathBuf,
    /// A corrupt row and damage are each logged once.
    reported_corrupt: Once,
    reported_damage: Once,
}

impl SledDb {
    /// Opens the store in `directory`, which is created if it does not exist, for its owner only.
    ///
    /// # Errors
    ///
    /// [`StorageError::InUse`] if another process has it open; [`StorageError::Open`] if it cannot
    /// be created or read; [`StorageError::Format`] if it holds something else, or a store of
    /// another version; [`StorageError::Damaged`] if it does not hold what was written.
    pub fn open(directory: impl AsRef<Path>) -> Result<Self, StorageError> {
        Self::open_with(directory, SledConfig::default())
    }

    /// Like [`open`](Self::open), with settings.
    ///
    /// # Errors
    ///
    /// Those of [`open`](Self::open), and [`StorageError::Missing`] if there is no store and
    /// [one must exist](SledConfig::with_must_exist).
    pub fn open_with(
        directory: impl AsRef<Path>,
        settings: SledConfig,
    ) -> Result<Self, StorageError> {
        let path = directory.as_ref();
        let failed = |source| StorageError::Open {
            path: path.to_owned(),
            source,
        };
        let progress = Progress::start(path);
        let prepared = prepare(path, &settings, &progress)?;
        let (rows, locks) = open_rows(path, &prepared, &settings, &progress)?;
        let Prepared {
            found,
            closed,
            created,
        } = prepared;
        let mark = || {
            closed::remove(path)?;
            sync_store(path)?;
            if found != Found::Store {
                sync_ancestors(path, &created)?;
                format::mark_rows(rows.tree()).map_err(io_error)?;
                sync_once(rows.tree(), path)?;
                format::mark_directory(path)?;
            }
            Syncer::start(&rows, path, settings.sync)
        };
        let workers = Workers::start().map_err(|error| failed(error.into()))?;
        let syncer = mark().map_err(|error| failed(error.into()))?;
        log_opened(path, found, closed.is_some(), &locks);
        let store = Store {
            syncer,
            rows,
            seal: Seal::new(path),
            locks: Arc::new(locks),
            directory: path.to_owned(),
            reported_corrupt: Once::new(),
            reported_damage: Once::new(),
        };
        Ok(Self {
            store: Arc::new(store),
            workers,
        })
    }
}

/// Logs what was opened.
fn log_opened(path: &Path, found: Found, was_closed: bool, locks: &Locks) {
    let directory = path.display();
    let (tables, keys) = locks.sizes();
    match (found, was_closed) {
        (Found::Nothing, _) => info!(%directory, "created a new store"),
        (_, true) => info!(%directory, tables, keys, "opened the store"),
        (_, false) => info!(
            %directory,
            tables,
            keys,
            "opened the store, which was not closed cleanly; its rows are those in its log"
        ),
    }
}

impl Drop for SledDb {
    fn drop(&mut self) {
        let has_failed = || self.store.syncer.failure().is_some();
        if !self.workers.close(has_failed) && !has_failed() {
            error!("the store was not closed: a write has not ended");
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let contents = contents(&self.rows, &self.locks);
        match self.syncer.close() {
            Closed::Synced => self.seal.set(contents),
            Closed::Failed | Closed::Late => {
                // Closing sled would wait for ever.
                std::mem::forget(self.rows.tree().clone());
            }
        }
    }
}

impl fmt::Debug for SledDb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SledDb").finish_non_exhaustive()
    }
}

impl Storage for SledDb {
    async fn read<F>(&self, table: Text<'_>, keys: Keys<'_>, each: F) -> Result<(), StorageError>
    where
        F: FnMut(Option<ValueRef<'_>>) -> ControlFlow<()> + Send,
    {
        self.read_rows(table, keys, each).await
    }

    async fn read_all<F>(&self, table: Text<'_>, each: F) -> Result<(), StorageError>
    where
        F: FnMut(Text<'_>, ValueRef<'_>) -> ControlFlow<()> + Send,
    {
        self.read_pairs(table, "".into(), PartLimit::NONE, each)
            .await
    }

    async fn read_from<F>(
        &self,
        table: Text<'_>,
        from: Text<'_>,
        limit: PartLimit,
        each: F,
    ) -> Result<(), StorageError>
    where
        F: FnMut(Text<'_>, ValueRef<'_>) -> ControlFlow<()> + Send,
    {
        self.read_pairs(table, from, limit, each).await
    }

    async fn read_existence<F>(
        &self,
        table: Text<'_>,
        keys: Keys<'_>,
        each: F,
    ) -> Result<(), StorageError>
    where
        F: FnMut(bool) -> ControlFlow<()> + Send,
    {
        self.read_which_exist(table, keys, each).await
    }

    async fn read_size(&self, table: Text<'_>) -> Result<TableSize, StorageError> {
        self.read_size_of(table).await
    }

    async fn write<'v, F>(
        &self,
        table: Text<'_>,
        keys: Keys<'_>,
        change: F,
    ) -> Result<(), StorageError>
    where
        F: FnMut(usize, Option<ValueRef<'_>>) -> ControlFlow<(), Change<'v>> + Send,
    {
        match keys.single() {
            Some(key) => self.write_row(table, key, change).await,
            None => self.write_rows(table, keys, change).await,
        }
    }

    fn kind(&self) -> &str {
        "sled"
    }

    fn stats(&self) -> StorageStats {
        self.store.locks.stats()
    }

    fn health(&self) -> Result<(), StorageError> {
        match self.store.syncer.failure() {
            None => Ok(()),
            Some(failure) => Err(sync_failed(&failure)),
        }
    }

    async fn failed(&self) -> StorageError {
        let failure = self.store.syncer.failed().await;
        sync_failed(&failure)
    }

    async fn sync(&self) -> Result<(), StorageError> {
        self.store.syncer.sync().await
    }

    async fn sync_all(&self) -> Result<(), StorageError> {
        self.store.syncer.sync_all().await
    }
}
