//! Tables on disk, in sled.
//!
//! Every row is an entry of one tree: ten thousand tables as ten thousand trees took 19 s and 714 MB,
//! as rows of one tree 0.1 s and 2.6 MB. The entry's key is the table's name behind its length, then the
//! row's key, so that no two rows collide whatever is in their names; its value is the encoded
//! [`Value`].
//!
//! sled's single operations are atomic by themselves. What it does not have is a read of several rows
//! that no write comes between, or a batch that gives what it replaced: a lock a table, shared by a
//! fixed number of them, adds both. Locks are held for calls into sled alone, never across an await.

use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use futures::{Stream, stream};
use prost::Message;
use sled::{Batch, IVec};

use super::sled_config::SledConfig;
use super::sled_files::{make_directories, missing_directories, sync_created};
use super::sled_format::{self, Found};
use super::sled_locks::Locks;
use super::sled_sync::{Syncer, io_error, sync_once};
use super::{Applied, Room, Storage, StorageError, StorageStats, scanned_len};
use crate::abi::{Kvpair, Value};

/// How long a lock on the directory may be held by someone else. sled's threads let go of it a moment
/// after the store was dropped, so that what looks like another process may be the last store of this.
const LOCK_TIMEOUT: Duration = Duration::from_millis(500);

const LOCK_POLL: Duration = Duration::from_millis(10);

/// The length of a table's name stands in front of it, as a big-endian `u64`.
const TABLE_LEN_BYTES: usize = size_of::<u64>();

/// A [`Storage`] in a directory. [`sync`](Storage::sync) returns once `fdatasync` has confirmed what was
/// written before it, unless [another policy](crate::SyncPolicy) is set.
///
/// Opening it reads every row once, to count them: a second for a million rows, or for a gigabyte.
///
/// After a write or a sync that failed, every write and every sync is an error until it is opened anew.
///
/// Dropping it writes out what is left, and gives the directory free for another process. One that has
/// failed cannot be closed, because sled would wait for ever: its directory is free when the process ends.
pub struct SledDb {
    // Dropped in this order: the syncer's thread ends before the tree closes.
    syncer: Syncer,
    rows: sled::Db,
    locks: Locks,
}

impl SledDb {
    /// Opens the store in `directory`, which is created if it does not exist, for its owner only.
    ///
    /// # Errors
    ///
    /// [`StorageError::InUse`] where another process has it open; [`StorageError::Open`] where it cannot
    /// be created or read, or holds what no [`SledDb`] has written.
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
        let found = sled_format::look(path)?;
        if settings.must_exist && found == Found::Nothing {
            return Err(StorageError::Missing {
                path: path.to_owned(),
            });
        }
        let failed = |source| StorageError::Open {
            path: path.to_owned(),
            source,
        };
        let damaged = |source| StorageError::Damaged {
            path: path.to_owned(),
            source,
        };
        let created = missing_directories(path);
        make_directories(&created).map_err(|error| failed(error.into()))?;
        let rows = open_sled(path, settings.cache_size)?;
        let is_marked = sled_format::is_marked(&rows).map_err(|error| damaged(error.into()))?;
        if found == Found::Store && !is_marked {
            return Err(damaged("its log does not hold what was in it".into()));
        }
        let locks = count_rows(&rows).map_err(damaged)?;
        let mark = || {
            sync_created(path, &created)?;
            if found != Found::Store {
                sled_format::mark_rows(&rows).map_err(io_error)?;
                sync_once(&rows, path)?;
                sled_format::mark_directory(path)?;
            }
            Syncer::start(rows.clone(), path, settings.sync)
        };
        let syncer = mark().map_err(|error| failed(error.into()))?;
        Ok(Self {
            syncer,
            rows,
            locks,
        })
    }

    fn read_row(&self, table: &str, key: &str) -> Result<Option<Value>, StorageError> {
        let row = self
            .rows
            .get(row_key(table, key))
            .map_err(|error| read_failed(table, error))?;
        row.map(|row| decode_value(table, key, &row)).transpose()
    }

    /// Writes a batch, having found out what it replaces: under the table's lock nobody else writes.
    fn write_rows<'a>(
        &self,
        table: &str,
        rows: impl IntoIterator<Item = (&'a str, Option<Value>)>,
        max_bytes: usize,
    ) -> Result<Vec<Option<Value>>, StorageError> {
        let mut batch = Batch::default();
        let mut previous = Vec::new();
        let mut written: HashMap<&str, Option<Value>> = HashMap::new();
        let mut room = Room::new(max_bytes);
        let (mut added, mut removed) = (0, 0);
        let mut lock = self.locks.write(table);
        self.check_writable(table)?;
        for (key, value) in rows {
            match &value {
                Some(value) => batch.insert(row_key(table, key), value.encode_to_vec()),
                None => batch.remove(row_key(table, key)),
            }
            let exists = value.is_some();
            let replaced = match written.insert(key, value) {
                Some(earlier) => earlier,
                None => self.read_row(table, key)?,
            };
            room.take_any(replaced.as_ref())?;
            added += u64::from(exists && replaced.is_none());
            removed += u64::from(!exists && replaced.is_some());
            previous.push(replaced);
        }
        self.rows
            .apply_batch(batch)
            .map_err(|error| self.write_failed(table, error))?;
        lock.count(added, removed);
        Ok(previous)
    }

    /// Writes one row, which then `exists` or not, with an operation of sled that gives what it replaced.
    fn write_row(
        &self,
        table: &str,
        key: &str,
        exists: bool,
        max_bytes: usize,
        write: impl FnOnce(&sled::Tree, Vec<u8>) -> sled::Result<Option<IVec>>,
    ) -> Result<Option<Value>, StorageError> {
        let mut lock = self.locks.write(table);
        self.check_writable(table)?;
        if max_bytes < usize::MAX {
            Room::new(max_bytes).take_any(self.read_row(table, key)?.as_ref())?;
        }
        let previous = write(&self.rows, row_key(table, key))
            .map_err(|error| self.write_failed(table, error))?;
        lock.count(
            u64::from(exists && previous.is_none()),
            u64::from(!exists && previous.is_some()),
        );
        drop(lock);
        // What was replaced may be corrupt; the write has been applied all the same.
        previous
            .map(|row| decode_value(table, key, &row))
            .transpose()
            .map_err(|corrupt| StorageError::Write {
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
                source: format!("the store has failed and has to be opened again: {failure}")
                    .into(),
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
            source: error.into(),
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
        self.read_row(table, key)
    }

    async fn get_many(
        &self,
        table: &str,
        keys: &[String],
        max_bytes: usize,
    ) -> Result<Vec<Option<Value>>, StorageError> {
        let mut room = Room::new(max_bytes);
        let _lock = self.locks.read(table);
        let values = keys.iter().map(|key| {
            let value = self.read_row(table, key)?;
            room.take_any(value.as_ref())?;
            Ok(value)
        });
        values.collect()
    }

    async fn get_all(&self, table: &str, max_bytes: usize) -> Result<Vec<Kvpair>, StorageError> {
        let mut room = Room::new(max_bytes);
        let _lock = self.locks.read(table);
        let pairs = self.rows.scan_prefix(table_prefix(table)).map(|entry| {
            let entry = entry.map_err(|error| read_failed(table, error))?;
            let pair = decode_entry(table, entry)?;
            if let Some(value) = &pair.value {
                room.take(pair.key.len() + value.payload_len())?;
            }
            Ok(pair)
        });
        pairs.collect()
    }

    fn get_iter(&self, table: &str) -> impl Stream<Item = Result<Kvpair, StorageError>> + Send {
        stream::iter(
            self.rows
                .scan_prefix(table_prefix(table))
                .map(move |entry| {
                    let entry = entry.map_err(|error| read_failed(table, error))?;
                    decode_entry(table, entry)
                }),
        )
    }

    async fn scan(
        &self,
        table: &str,
        from: &str,
        limit: usize,
        max_bytes: usize,
    ) -> Result<Vec<Kvpair>, StorageError> {
        let prefix = table_prefix(table);
        let mut pairs = Vec::new();
        let mut bytes = 0;
        let _lock = self.locks.read(table);
        // The keys of a table stand together, in their own order, because its name is in front of each.
        for entry in self.rows.range(row_key(table, from)..).take(limit) {
            let entry = entry.map_err(|error| read_failed(table, error))?;
            if !entry.0.starts_with(&prefix) {
                break;
            }
            let pair = decode_entry(table, entry)?;
            let payload_len = pair.value.as_ref().map_or(0, Value::payload_len);
            bytes += scanned_len(pair.key.as_bytes(), payload_len);
            if bytes > max_bytes && !pairs.is_empty() {
                break;
            }
            pairs.push(pair);
        }
        Ok(pairs)
    }

    async fn contains(&self, table: &str, key: &str) -> Result<bool, StorageError> {
        self.rows
            .contains_key(row_key(table, key))
            .map_err(|error| read_failed(table, error))
    }

    async fn contains_many(&self, table: &str, keys: &[String]) -> Result<Vec<bool>, StorageError> {
        let _lock = self.locks.read(table);
        let found = keys
            .iter()
            .map(|key| self.rows.contains_key(row_key(table, key)));
        found
            .collect::<Result<_, _>>()
            .map_err(|error| read_failed(table, error))
    }

    async fn set(
        &self,
        table: &str,
        key: &str,
        value: Value,
        max_bytes: usize,
    ) -> Result<Option<Value>, StorageError> {
        self.write_row(table, key, true, max_bytes, |rows, row| {
            rows.insert(row, value.encode_to_vec())
        })
    }

    async fn set_many(
        &self,
        table: &str,
        pairs: Vec<(String, Value)>,
        max_bytes: usize,
    ) -> Result<Vec<Option<Value>>, StorageError> {
        let rows = pairs
            .iter()
            .map(|(key, value)| (key.as_str(), Some(value.clone())));
        self.write_rows(table, rows, max_bytes)
    }

    async fn del(
        &self,
        table: &str,
        key: &str,
        max_bytes: usize,
    ) -> Result<Option<Value>, StorageError> {
        self.write_row(table, key, false, max_bytes, |rows, row| rows.remove(row))
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

    async fn sync(&self) -> Result<(), StorageError> {
        self.syncer.sync().await
    }

    async fn sync_all(&self) -> Result<(), StorageError> {
        self.syncer.sync_all().await
    }
}

/// Opens what sled keeps in a directory.
fn open_sled(path: &Path, cache_size: usize) -> Result<sled::Db, StorageError> {
    let config = sled::Config::new()
        .path(path)
        .cache_capacity(cache_size as u64);
    let deadline = Instant::now() + LOCK_TIMEOUT;
    loop {
        // What sled makes of a damaged log may be a panic.
        let opened = panic::catch_unwind(AssertUnwindSafe(|| config.open()));
        let path = path.to_owned();
        match opened {
            Ok(Ok(rows)) => return Ok(rows),
            Ok(Err(error)) if is_lock_error(&error) => {
                if Instant::now() > deadline {
                    return Err(StorageError::InUse { path });
                }
                thread::sleep(LOCK_POLL);
            }
            Ok(Err(error @ (sled::Error::Corruption { .. } | sled::Error::ReportableBug(_)))) => {
                let source = error.into();
                return Err(StorageError::Damaged { path, source });
            }
            Ok(Err(error)) => {
                let source = io_error(error).into();
                return Err(StorageError::Open { path, source });
            }
            Err(_) => {
                let source = "sled cannot make sense of it".into();
                return Err(StorageError::Damaged { path, source });
            }
        }
    }
}

/// Counts the rows of each table.
fn count_rows(rows: &sled::Tree) -> Result<Locks, Box<dyn Error + Send + Sync>> {
    let locks = Locks::new();
    for row in rows.iter().keys() {
        let row = row.map_err(io_error)?;
        let table = table_of(&row).ok_or("it holds rows that are not kvs's")?;
        locks.write(table).count(1, 0);
    }
    Ok(locks)
}

fn table_prefix(table: &str) -> Vec<u8> {
    row_key(table, "")
}

fn row_key(table: &str, key: &str) -> Vec<u8> {
    let mut row = Vec::with_capacity(TABLE_LEN_BYTES + table.len() + key.len());
    row.extend_from_slice(&(table.len() as u64).to_be_bytes());
    row.extend_from_slice(table.as_bytes());
    row.extend_from_slice(key.as_bytes());
    row
}

/// The table's name in a row's key.
fn table_of(row: &[u8]) -> Option<&str> {
    let (len, rest) = row.split_first_chunk::<TABLE_LEN_BYTES>()?;
    let len = usize::try_from(u64::from_be_bytes(*len)).ok()?;
    std::str::from_utf8(rest.get(..len)?).ok()
}

fn decode_entry(table: &str, (row, value): (IVec, IVec)) -> Result<Kvpair, StorageError> {
    let key = row.get(TABLE_LEN_BYTES + table.len()..).unwrap_or_default();
    let key = std::str::from_utf8(key).map_err(|error| StorageError::Corrupt {
        table: table.to_owned(),
        key: String::from_utf8_lossy(key).into_owned(),
        source: error.into(),
    })?;
    Ok(Kvpair::new(key, decode_value(table, key, &value)?))
}

fn decode_value(table: &str, key: &str, row: &[u8]) -> Result<Value, StorageError> {
    let corrupt = |source: Box<dyn Error + Send + Sync>| StorageError::Corrupt {
        table: table.to_owned(),
        key: key.to_owned(),
        source,
    };
    let value = Value::decode(row).map_err(|error| corrupt(error.into()))?;
    if value.is_set() {
        Ok(value)
    } else {
        Err(corrupt("the value has no type".into()))
    }
}

fn read_failed(table: &str, error: sled::Error) -> StorageError {
    StorageError::Read {
        table: table.to_owned(),
        source: io_error(error).into(),
    }
}

/// sled reports a lock that is taken as an I/O error like any other, with this text.
fn is_lock_error(error: &sled::Error) -> bool {
    matches!(error, sled::Error::Io(io) if io.to_string().contains("could not acquire lock"))
}
