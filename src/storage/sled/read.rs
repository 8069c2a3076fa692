//! Reads, each under the lock of its table: nothing is written to the table meanwhile.
//!
//! A small read is made on the caller's thread, a large one in jobs of the workers.

use std::ops::ControlFlow;
use std::sync::Arc;

use sled::IVec;

use super::layout::{key_of, reference, row_key};
use super::locks::ReadLock;
use super::rows::{Rows, Stored};
use super::workers::Returned;
use super::{SledDb, Store};
use crate::abi::{Keys, Text, ValueRef};
use crate::storage::{PartBudget, PartLimit, StorageError, TableSize};

/// The maximum number of rows that a call reads or writes on its caller's thread: half a
/// millisecond's work.
pub(super) const ROWS_AT_ONCE: usize = 64;

/// The maximum length of a value in parts that is read on the caller's thread.
const PARTS_AT_ONCE: u64 = 16 * 1024;

/// The maximum number of rows that a job reads: a millisecond's work.
pub(super) const ROWS_IN_JOB: usize = 128;

/// The size of the rows and values that a job reads in bytes; the last may exceed it.
const BYTES_IN_JOB: usize = 256 * 1024;

impl SledDb {
    pub(super) async fn read_rows(
        &self,
        table: Text<'_>,
        keys: Keys<'_>,
        mut each: impl FnMut(Option<ValueRef<'_>>) -> ControlFlow<()> + Send,
    ) -> Result<(), StorageError> {
        let Some(_lock) = self.lock_to_read(table).await? else {
            let _ = keys.iter().try_for_each(|_| each(None));
            return Ok(());
        };
        let mut each = |key, stored: Option<&Stored>| match stored {
            None => Ok(each(None)),
            Some(stored) => stored
                .with_value(|value| each(Some(value)))
                .map_err(|source| self.store.corrupt(table, key, source)),
        };
        if keys.len() <= ROWS_AT_ONCE {
            for key in keys {
                let stored = self.read_row(table, key).await?;
                if each(key, stored.as_ref())?.is_break() {
                    break;
                }
            }
            return Ok(());
        }
        let mut rest = keys.iter();
        while rest.len() > 0 {
            let some: Vec<_> = rest.clone().take(ROWS_IN_JOB).collect();
            let read = self.read_some(table, &some).await?.value;
            for (stored, key) in read.iter().zip(rest.by_ref()) {
                if each(key, stored.as_ref())?.is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Reads the pairs of a table from a key on, in order, as far as the limit allows.
    pub(super) async fn read_pairs(
        &self,
        table: Text<'_>,
        from: Text<'_>,
        limit: PartLimit,
        mut each: impl FnMut(Text<'_>, ValueRef<'_>) -> ControlFlow<()> + Send,
    ) -> Result<(), StorageError> {
        let Some(lock) = self.lock_to_read(table).await? else {
            return Ok(());
        };
        let mut budget = PartBudget::new(limit);
        let mut each = |row: &IVec, stored: &Stored| {
            let key = self.store.decode_key(table, row)?;
            let flow = stored.with_value(|value| match budget.take(key, value) {
                true => each(key, value),
                false => ControlFlow::Break(()),
            });
            flow.map_err(|source| self.store.corrupt(table, key, source))
        };
        let from = row_key(table.as_bytes(), from.as_bytes());
        let keys = usize::try_from(lock.size().keys).unwrap_or(usize::MAX);
        let mut left = limit.pairs.min(keys);
        if left <= ROWS_AT_ONCE {
            let table_row = row_key(table.as_bytes(), b"");
            let scan = |rows: &Rows| {
                let rows = rows.scan(&table_row, &from).take(left);
                rows.collect::<sled::Result<Vec<_>>>()
            };
            for (key, row) in self.now(table, scan).await? {
                let stored = self.with_parts(table, row).await?;
                if each(&key, &stored)?.is_break() {
                    break;
                }
            }
            return Ok(());
        }
        let mut next = from;
        while left > 0 {
            let pairs = self.scan_some(table, next, left).await?.value;
            let Some((last, _)) = pairs.last() else {
                break;
            };
            left -= pairs.len();
            // The smallest key behind it.
            next = [last, &[0][..]].concat();
            for (key, stored) in &pairs {
                if each(key, stored)?.is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    pub(super) async fn read_which_exist(
        &self,
        table: Text<'_>,
        keys: Keys<'_>,
        mut each: impl FnMut(bool) -> ControlFlow<()> + Send,
    ) -> Result<(), StorageError> {
        let Some(_lock) = self.lock_to_read(table).await? else {
            let _ = keys.iter().try_for_each(|_| each(false));
            return Ok(());
        };
        let mut rest = keys.iter();
        while rest.len() > 0 {
            let some = rest.by_ref().take(ROWS_IN_JOB);
            let some = some.map(|key| row_key(table.as_bytes(), key.as_bytes()));
            let some: Vec<_> = some.collect();
            let exist = move |rows: &Rows| {
                let exist = some.iter().map(|row| rows.contains(row));
                exist.collect::<sled::Result<Vec<_>>>()
            };
            let found = match keys.len() <= ROWS_AT_ONCE {
                true => self.now(table, exist).await?,
                false => self.in_job(table, exist).await?.value,
            };
            if found.into_iter().try_for_each(&mut each).is_break() {
                break;
            }
        }
        Ok(())
    }

    pub(super) async fn read_size_of(&self, table: Text<'_>) -> Result<TableSize, StorageError> {
        let lock = self.lock_to_read(table).await?;
        Ok(lock.map_or_else(TableSize::default, |lock| lock.size()))
    }

    /// Reads a row, with all parts of its value.
    pub(super) async fn read_row(
        &self,
        table: Text<'_>,
        key: Text<'_>,
    ) -> Result<Option<Stored>, StorageError> {
        let row = row_key(table.as_bytes(), key.as_bytes());
        match self.now(table, |rows| rows.row(&row)).await? {
            None => Ok(None),
            Some(row) => Ok(Some(self.with_parts(table, row).await?)),
        }
    }

    /// Reads the rows of some keys, the first or more of them, with all parts of their values.
    pub(super) async fn read_some(
        &self,
        table: Text<'_>,
        keys: &[Text<'_>],
    ) -> Result<Returned<Vec<Option<Stored>>>, StorageError> {
        let keys = keys.iter();
        let keys: Vec<_> = keys
            .map(|key| row_key(table.as_bytes(), key.as_bytes()))
            .collect();
        let read = move |rows: &Rows| {
            let mut bytes = 0;
            let mut read = Vec::with_capacity(keys.len());
            for key in &keys {
                let stored = rows.get(key)?;
                bytes += stored.as_ref().map_or(0, Stored::len);
                read.push(stored);
                if bytes > BYTES_IN_JOB {
                    break;
                }
            }
            Ok(read)
        };
        self.in_job(table, read).await
    }

    /// Reads up to so many pairs from this row on, the first or more of them.
    async fn scan_some(
        &self,
        table: Text<'_>,
        from: Vec<u8>,
        count: usize,
    ) -> Result<Returned<Vec<(IVec, Stored)>>, StorageError> {
        let table_row = row_key(table.as_bytes(), b"");
        let scan = move |rows: &Rows| {
            let mut bytes = 0;
            let mut pairs = Vec::new();
            for entry in rows.scan(&table_row, &from).take(count.min(ROWS_IN_JOB)) {
                let (key, row) = entry?;
                let stored = rows.with_parts(row)?;
                bytes += key.len() + stored.len();
                pairs.push((key, stored));
                if bytes > BYTES_IN_JOB {
                    break;
                }
            }
            Ok(pairs)
        };
        self.in_job(table, scan).await
    }

    /// Reads the parts of a row's value, if it has any.
    async fn with_parts(&self, table: Text<'_>, row: IVec) -> Result<Stored, StorageError> {
        match reference(&row) {
            Some((_, len)) if len > PARTS_AT_ONCE => {
                let read = move |rows: &Rows| rows.with_parts(row);
                Ok(self.in_job(table, read).await?.value)
            }
            Some(_) => self.now(table, |rows| rows.with_parts(row)).await,
            None => Ok(Stored::whole(row)),
        }
    }

    /// Makes a call of sled's, once no batch is being made.
    pub(super) async fn now<T>(
        &self,
        table: Text<'_>,
        call: impl FnOnce(&Rows) -> sled::Result<T>,
    ) -> Result<T, StorageError> {
        let rows = &self.store.rows;
        let _entered = rows.gate.enter().await;
        self.store.check_readable(table)?;
        call(rows).map_err(|error| self.store.read_failed(table, error))
    }

    /// Makes calls of sled's that take about a millisecond.
    async fn in_job<T: Send + 'static>(
        &self,
        table: Text<'_>,
        calls: impl FnOnce(&Rows) -> sled::Result<T> + Send + 'static,
    ) -> Result<Returned<T>, StorageError> {
        self.store.check_readable(table)?;
        let store = Arc::clone(&self.store);
        let job = move || calls(&store.rows);
        let Some(returned) = self.workers.run(job).await else {
            return Err(StorageError::Read {
                table: table.as_str().to_owned(),
                source: "sled panicked during a read".into(),
            });
        };
        returned
            .transpose()
            .map_err(|error| self.store.read_failed(table, error))
    }

    /// Locks a table for a read, unless half of a failed command may be in it. [`None`] if it has
    /// no rows.
    async fn lock_to_read(&self, table: Text<'_>) -> Result<Option<ReadLock>, StorageError> {
        let lock = self.store.locks.read(table).await;
        self.store.check_readable(table)?;
        Ok(lock)
    }
}

impl Store {
    fn decode_key<'a>(&self, table: Text<'_>, row: &'a [u8]) -> Result<Text<'a>, StorageError> {
        let key = key_of(table.len(), row);
        Text::from_utf8(key).ok_or_else(|| {
            let shown = String::from_utf8_lossy(key);
            self.corrupt(table, (&*shown).into(), "its key is not UTF-8".into())
        })
    }
}
