//! Reads, each under the lock of its table: nothing is written to the table meanwhile.

use std::ops::ControlFlow;

use super::SledDb;
use super::layout::{key_of, row_key};
use super::locks::ReadLock;
use super::rows::Entry;
use crate::abi::{Keys, Text, ValueRef};
use crate::storage::{StorageError, TableSize};

impl SledDb {
    pub(super) fn read_rows(
        &self,
        table: Text<'_>,
        keys: Keys<'_>,
        mut each: impl FnMut(Option<ValueRef<'_>>) -> ControlFlow<()>,
    ) -> Result<(), StorageError> {
        let _lock = self.lock_to_read(table)?;
        for key in keys {
            let stored = self.rows.get(&row_key(table.as_bytes(), key.as_bytes()));
            let flow = match stored.map_err(|error| self.read_failed(table, error))? {
                None => each(None),
                Some(stored) => stored
                    .with_value(|value| each(Some(value)))
                    .map_err(|source| self.corrupt(table, key, source))?,
            };
            if flow.is_break() {
                break;
            }
        }
        Ok(())
    }

    /// Reads the entries that `entries` gives once the table is locked.
    pub(super) fn read_entries<I: Iterator<Item = Entry>>(
        &self,
        table: Text<'_>,
        entries: impl FnOnce() -> I,
        mut each: impl FnMut(Text<'_>, ValueRef<'_>) -> ControlFlow<()>,
    ) -> Result<(), StorageError> {
        let _lock = self.lock_to_read(table)?;
        for entry in entries() {
            let (row, stored) = entry.map_err(|error| self.read_failed(table, error))?;
            let key = self.decode_key(table, &row)?;
            let stored = self.rows.with_parts(stored);
            let flow = stored
                .map_err(|error| self.read_failed(table, error))?
                .with_value(|value| each(key, value))
                .map_err(|source| self.corrupt(table, key, source))?;
            if flow.is_break() {
                break;
            }
        }
        Ok(())
    }

    pub(super) fn read_which_exist(
        &self,
        table: Text<'_>,
        keys: Keys<'_>,
        mut each: impl FnMut(bool) -> ControlFlow<()>,
    ) -> Result<(), StorageError> {
        let _lock = self.lock_to_read(table)?;
        for key in keys {
            let found = self
                .rows
                .contains(&row_key(table.as_bytes(), key.as_bytes()));
            let found = found.map_err(|error| self.read_failed(table, error))?;
            if each(found).is_break() {
                break;
            }
        }
        Ok(())
    }

    pub(super) fn read_size_of(&self, table: Text<'_>) -> Result<TableSize, StorageError> {
        Ok(self.lock_to_read(table)?.size())
    }

    /// Locks a table for a read, unless half of a failed command may be in it.
    fn lock_to_read(&self, table: Text<'_>) -> Result<ReadLock<'_>, StorageError> {
        let lock = self.locks.read(table);
        self.check_readable(table)?;
        Ok(lock)
    }

    fn decode_key<'a>(&self, table: Text<'_>, row: &'a [u8]) -> Result<Text<'a>, StorageError> {
        let key = key_of(table.len(), row);
        Text::from_utf8(key).ok_or_else(|| {
            let shown = String::from_utf8_lossy(key);
            self.corrupt(table, (&*shown).into(), "its key is not UTF-8".into())
        })
    }
}
