//! Tables on disk, in sled.
//!
//! All rows are in one tree: ten thousand tables as ten thousand trees took 19 s and 714 MB,
//! as rows of one tree 0.1 s and 2.6 MB. `rows` knows how they lie in it.
//!
//! sled's single operations are atomic by themselves. What it does not have is a read of several rows
//! that no write comes between, or a batch that gives what it replaced: a lock a table, shared by a
//! fixed number of them, adds both. Locks are held for calls into sled alone, never across an await.

mod closed;
mod conf;
mod config;
mod files;
mod format;
mod locks;
mod open;
mod prepare;
mod progress;
mod rows;
mod snapshot;
mod sync;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::error::Error;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Once};

use futures::{Stream, stream};
use sled::IVec;
use tracing::{error, info};

use self::closed::Seal;
use self::files::{sync_ancestors, sync_store};
use self::format::Found;
use self::locks::Locks;
use self::open::{contents, damage, is_damage, open_rows};
use self::prepare::{Prepared, prepare};
use self::progress::Progress;
use self::rows::{Changes, NewValue, Rows, Stored, is_in_parts, key_of, row_key};
use self::sync::{Closed, Syncer};
use self::sync::{io_error, is_of_a_write, sync_failed, sync_once, to_be_opened_again};
use super::{Applied, ByteBudget, Storage, StorageError, StorageStats};
use crate::abi::{Kvpair, Value};

pub use config::{SledConfig, SyncPolicy};

/// A [`Storage`] in a directory. [`sync`](Storage::sync) returns once `fdatasync` has confirmed what was
/// written before it, unless [another policy](crate::SyncPolicy) is set.
///
/// Opening it reads every row once, which takes two to eight seconds for each million rows. It counts them, and where the
/// store was closed in good order, sees whether all of them are there as they were. Whenever it has taken three more
/// seconds, an event of `tracing` says what is being done. A process that is killed meanwhile loses nothing.
///
/// After a write or a sync that failed, every write and every sync is an error until it is opened anew. After a write
/// that failed so is every read, because half of it may be there. [`failed`](Storage::failed) tells when that happens.
///
/// Dropping it writes out what is left, and gives the directory free for another process. One that has
/// failed cannot be closed, because sled would wait for ever: its directory is free when the process ends.
pub struct SledDb {
    // Dropped in this order: the syncer's thread ends before the tree closes, and then that is said.
    syncer: Syncer,
    rows: Rows,
    seal: Seal,
    locks: Locks,
    directory: PathBuf,
    /// Whether those who can do something about it have been told where the store is.
    told_of_corrupt: Once,
    told_of_damage: Once,
}

impl SledDb {
    /// Opens the store in `directory`, which is created if it does not exist, for its owner only.
    ///
    /// # Errors
    ///
    /// [`StorageError::InUse`] where another process has it open; [`StorageError::Open`] where it cannot
    /// be created or read; [`StorageError::Format`] where it holds something else, or a store of another
    /// version; [`StorageError::Damaged`] where what is in it is not what was written.
    pub fn open(directory: impl AsRef<Path>) -> Result<Self, StorageError> {
        Self::open_with(directory, SledConfig::default())
    }

    /// [`open`](Self::open) with settings.
    ///
    /// # Errors
    ///
    /// Those of [`open`](Self::open), and [`StorageError::Missing`] where there is no store and
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
        let syncer = mark().map_err(|error| failed(error.into()))?;
        tell(path, found, closed.is_some(), &locks);
        Ok(Self {
            syncer,
            rows,
            seal: Seal::new(path),
            locks,
            directory: path.to_owned(),
            told_of_corrupt: Once::new(),
            told_of_damage: Once::new(),
        })
    }

    /// Holds the lock of a table while it is read, unless what is there may be half of a command.
    fn lock_to_read(&self, table: &str) -> Result<impl Drop, StorageError> {
        let lock = self.locks.read(table);
        self.check_readable(table)?;
        Ok(lock)
    }

    fn check_readable(&self, table: &str) -> Result<(), StorageError> {
        match self.syncer.doubt() {
            None => Ok(()),
            Some(failure) => Err(StorageError::Read {
                table: table.to_owned(),
                source: to_be_opened_again(&failure).into(),
            }),
        }
    }

    /// What is stored under a key, and its value. The caller holds the lock of the table.
    fn read_row(&self, table: &str, key: &str) -> Result<Option<(Stored, Value)>, StorageError> {
        let stored = self
            .rows
            .get(&row_key(table, key))
            .map_err(|error| self.read_failed(table, error))?;
        let Some(stored) = stored else {
            return Ok(None);
        };
        let value = self.decode_value(table, key, &stored)?;
        Ok(Some((stored, value)))
    }

    /// What a write is about to replace. Where sled cannot read it, it is the write that failed, and nothing of it was
    /// applied: after a full disk sled fails so, whatever it is asked.
    fn read_replaced(
        &self,
        table: &str,
        key: &str,
    ) -> Result<Option<(Stored, Value)>, StorageError> {
        self.read_row(table, key).map_err(|error| match error {
            StorageError::Read { table, source } => StorageError::Write {
                table,
                applied: Applied::No,
                source,
            },
            other => other,
        })
    }

    /// The pair of a row that was scanned. The caller holds the lock of the table.
    fn read_entry(
        &self,
        table: &str,
        entry: sled::Result<(IVec, IVec)>,
    ) -> Result<Kvpair, StorageError> {
        let (row, stored) = entry.map_err(|error| self.read_failed(table, error))?;
        let key = self.decode_key(table, &row)?;
        let stored = self.rows.with_parts(stored);
        let stored = stored.map_err(|error| self.read_failed(table, error))?;
        let value = self.decode_value(table, key, &stored)?;
        Ok(Kvpair::new(key, value))
    }

    /// The pair of a row that was scanned without the lock of its table: as it was then, or as it is now where it is in
    /// parts, which may have been replaced.
    fn read_scanned(
        &self,
        table: &str,
        (row, stored): (IVec, IVec),
    ) -> Result<Option<Kvpair>, StorageError> {
        self.check_readable(table)?;
        let key = self.decode_key(table, &row)?;
        let stored = match is_in_parts(&stored) {
            false => Some(self.rows.with_parts(stored)),
            true => {
                let _lock = self.lock_to_read(table)?;
                self.rows.get(&row).transpose()
            }
        };
        let Some(stored) = stored else {
            return Ok(None);
        };
        let stored = stored.map_err(|error| self.read_failed(table, error))?;
        let value = self.decode_value(table, key, &stored)?;
        Ok(Some(Kvpair::new(key, value)))
    }

    /// Writes several rows at once, having found out what they replace: under the table's lock nobody else writes.
    fn write_rows<'a>(
        &self,
        table: &str,
        rows: impl IntoIterator<Item = (&'a str, Option<&'a Value>)>,
        max_bytes: usize,
    ) -> Result<Vec<Option<Value>>, StorageError> {
        let mut previous = Vec::new();
        // What each key had before, and what it gets at last.
        let mut written: HashMap<&str, (Option<Stored>, Option<&Value>)> = HashMap::new();
        let mut budget = ByteBudget::new(max_bytes);
        let mut lock = self.locks.write(table);
        self.check_writable(table)?;
        for (key, value) in rows {
            let replaced = match written.entry(key) {
                Entry::Occupied(mut earlier) => {
                    let (_, at_last) = earlier.get_mut();
                    std::mem::replace(at_last, value).cloned()
                }
                Entry::Vacant(first) => {
                    let (stored, replaced) = self.read_replaced(table, key)?.unzip();
                    first.insert((stored, value));
                    replaced
                }
            };
            budget.take_value(replaced.as_ref())?;
            previous.push(replaced);
        }
        let mut changes = Changes::default();
        let (mut added, mut removed) = (0, 0);
        for (key, (old, value)) in written {
            added += u64::from(old.is_none() && value.is_some());
            removed += u64::from(old.is_some() && value.is_none());
            self.rows.add(
                &mut changes,
                row_key(table, key),
                old.as_ref(),
                value.map(Into::into),
            );
        }
        let _writing = self.syncer.writing();
        self.rows
            .apply(changes)
            .map_err(|error| self.write_failed(table, error))?;
        lock.count(added, removed);
        Ok(previous)
    }

    /// Writes one row, or removes it.
    fn write_row(
        &self,
        table: &str,
        key: &str,
        value: Option<&Value>,
        max_bytes: usize,
    ) -> Result<Option<Value>, StorageError> {
        let row = row_key(table, key);
        let exists = value.is_some();
        let value = value.map(NewValue::from);
        let mut lock = self.locks.write(table);
        self.check_writable(table)?;
        if max_bytes < usize::MAX {
            let previous = self.read_replaced(table, key)?;
            ByteBudget::new(max_bytes).take_value(previous.map(|(_, value)| value).as_ref())?;
        }
        let writing = self.syncer.writing();
        let old = self
            .rows
            .replace(row, value)
            .map_err(|error| self.write_failed(table, error))?;
        lock.count(
            u64::from(exists && old.is_none()),
            u64::from(!exists && old.is_some()),
        );
        drop(writing);
        drop(lock);
        let previous = old.map(|old| self.decode_value(table, key, &old));
        // What was replaced may be corrupt; that is mended now.
        previous.transpose().map_err(|corrupt| StorageError::Write {
            table: table.to_owned(),
            applied: Applied::Unknown,
            source: corrupt.into(),
        })
    }

    fn check_writable(&self, table: &str) -> Result<(), StorageError> {
        match self.syncer.failure() {
            None => Ok(()),
            Some(failure) => Err(StorageError::Write {
                table: table.to_owned(),
                applied: Applied::No,
                source: to_be_opened_again(&failure).into(),
            }),
        }
    }

    /// A write that fails is the last: what sled holds in memory may never reach its log.
    fn write_failed(&self, table: &str, error: sled::Error) -> StorageError {
        let error = Arc::new(io_error(error));
        self.syncer.fail(Arc::clone(&error));
        StorageError::Write {
            table: table.to_owned(),
            applied: Applied::Unknown,
            source: to_be_opened_again(&error).into(),
        }
    }

    fn decode_key<'a>(&self, table: &str, row: &'a [u8]) -> Result<&'a str, StorageError> {
        let key = key_of(table, row);
        std::str::from_utf8(key)
            .map_err(|error| self.corrupt(table, &String::from_utf8_lossy(key), error.into()))
    }

    fn decode_value(&self, table: &str, key: &str, stored: &Stored) -> Result<Value, StorageError> {
        let value = stored.value();
        value.map_err(|source| self.corrupt(table, key, source))
    }

    /// Says where the row is to those who can do something about it.
    fn corrupt(
        &self,
        table: &str,
        key: &str,
        source: Box<dyn Error + Send + Sync>,
    ) -> StorageError {
        let directory = self.directory.display();
        self.told_of_corrupt.call_once(|| {
            error!(%directory, "a stored row is corrupt: keep a copy of the directory; writing or removing the row mends it");
        });
        StorageError::Corrupt {
            table: table.to_owned(),
            key: key.to_owned(),
            source,
        }
    }

    fn read_failed(&self, table: &str, error: sled::Error) -> StorageError {
        if is_damage(&error) {
            let directory = self.directory.display();
            self.told_of_damage.call_once(|| {
                error!(%directory, "the store is damaged: stop kvs, keep a copy of the directory, and restore a backup");
            });
            return StorageError::Damaged {
                path: self.directory.clone(),
                source: damage(&error).into(),
            };
        }
        let error = io_error(error);
        StorageError::Read {
            table: table.to_owned(),
            source: match is_of_a_write(&error) {
                // One that sled made by itself, of which nobody else may be told.
                true => {
                    let text = to_be_opened_again(&error);
                    self.syncer.fail(Arc::new(error));
                    text.into()
                }
                false => error.into(),
            },
        }
    }
}

/// Says what has been opened.
fn tell(path: &Path, found: Found, was_closed: bool, locks: &Locks) {
    let directory = path.display();
    let (tables, keys) = locks.sizes();
    match (found, was_closed) {
        (Found::Nothing, _) => info!(%directory, "made a new store"),
        (_, true) => info!(%directory, tables, keys, "opened the store"),
        (_, false) => info!(
            %directory,
            tables,
            keys,
            "opened the store; it was not closed the last time, and is what its log says"
        ),
    }
}

impl Drop for SledDb {
    fn drop(&mut self) {
        let contents = contents(&self.rows, &self.locks);
        match self.syncer.close() {
            Closed::Synced => self.seal.set(contents),
            Closed::Failed | Closed::Late => {
                // sled could not be closed, and would wait for ever.
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
    async fn get(&self, table: &str, key: &str) -> Result<Option<Value>, StorageError> {
        let _lock = self.lock_to_read(table)?;
        let row = self.read_row(table, key)?;
        Ok(row.map(|(_, value)| value))
    }

    async fn get_many(
        &self,
        table: &str,
        keys: &[String],
        max_bytes: usize,
    ) -> Result<Vec<Option<Value>>, StorageError> {
        let mut budget = ByteBudget::new(max_bytes);
        let _lock = self.lock_to_read(table)?;
        let values = keys.iter().map(|key| {
            let value = self.read_row(table, key)?.map(|(_, value)| value);
            budget.take_value(value.as_ref())?;
            Ok(value)
        });
        values.collect()
    }

    async fn get_all(&self, table: &str, max_bytes: usize) -> Result<Vec<Kvpair>, StorageError> {
        let mut budget = ByteBudget::new(max_bytes);
        let _lock = self.lock_to_read(table)?;
        let pairs = self.rows.scan(table).map(|entry| {
            let pair = self.read_entry(table, entry)?;
            budget.take_pair(&pair)?;
            Ok(pair)
        });
        pairs.collect()
    }

    fn get_iter(&self, table: &str) -> impl Stream<Item = Result<Kvpair, StorageError>> + Send {
        stream::iter(self.rows.scan(table).filter_map(move |entry| {
            let entry = entry.map_err(|error| self.read_failed(table, error));
            entry
                .and_then(|entry| self.read_scanned(table, entry))
                .transpose()
        }))
    }

    async fn scan(
        &self,
        table: &str,
        from: &str,
        limit: usize,
        max_bytes: usize,
    ) -> Result<Vec<Kvpair>, StorageError> {
        let mut pairs = Vec::new();
        let mut bytes = 0;
        let _lock = self.lock_to_read(table)?;
        for entry in self.rows.scan_from(table, from).take(limit) {
            let pair = self.read_entry(table, entry)?;
            bytes += pair.scanned_len();
            if bytes > max_bytes && !pairs.is_empty() {
                break;
            }
            pairs.push(pair);
        }
        Ok(pairs)
    }

    async fn contains(&self, table: &str, key: &str) -> Result<bool, StorageError> {
        let _lock = self.lock_to_read(table)?;
        self.rows
            .contains(&row_key(table, key))
            .map_err(|error| self.read_failed(table, error))
    }

    async fn contains_many(&self, table: &str, keys: &[String]) -> Result<Vec<bool>, StorageError> {
        let _lock = self.lock_to_read(table)?;
        let found = keys
            .iter()
            .map(|key| self.rows.contains(&row_key(table, key)));
        found
            .collect::<Result<_, _>>()
            .map_err(|error| self.read_failed(table, error))
    }

    async fn set(
        &self,
        table: &str,
        key: &str,
        value: Value,
        max_bytes: usize,
    ) -> Result<Option<Value>, StorageError> {
        self.write_row(table, key, Some(&value), max_bytes)
    }

    async fn set_many(
        &self,
        table: &str,
        pairs: Vec<(String, Value)>,
        max_bytes: usize,
    ) -> Result<Vec<Option<Value>>, StorageError> {
        let rows = pairs.iter().map(|(key, value)| (key.as_str(), Some(value)));
        self.write_rows(table, rows, max_bytes)
    }

    async fn del(
        &self,
        table: &str,
        key: &str,
        max_bytes: usize,
    ) -> Result<Option<Value>, StorageError> {
        self.write_row(table, key, None, max_bytes)
    }

    async fn del_many(
        &self,
        table: &str,
        keys: &[String],
        max_bytes: usize,
    ) -> Result<Vec<Option<Value>>, StorageError> {
        self.write_rows(
            table,
            keys.iter().map(|key| (key.as_str(), None)),
            max_bytes,
        )
    }

    fn kind(&self) -> &str {
        "sled"
    }

    fn stats(&self) -> StorageStats {
        self.locks.stats()
    }

    fn health(&self) -> Result<(), StorageError> {
        match self.syncer.failure() {
            None => Ok(()),
            Some(failure) => Err(sync_failed(&failure)),
        }
    }

    async fn failed(&self) -> StorageError {
        let failure = self.syncer.failed().await;
        sync_failed(&failure)
    }

    async fn sync(&self) -> Result<(), StorageError> {
        self.syncer.sync().await
    }

    async fn sync_all(&self) -> Result<(), StorageError> {
        self.syncer.sync_all().await
    }
}
