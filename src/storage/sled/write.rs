//! Writes, each under the lock of its table: what the caller decides on is what is replaced.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ops::ControlFlow;

use super::SledDb;
use super::changes::{Changes, NewValue};
use super::layout::{key_of, row_key};
use super::locks::Growth;
use super::rows::Stored;
use crate::abi::{Keys, Text, ValueRef};
use crate::storage::{Applied, Change, StorageError};

/// A row that a write of several keys may change.
struct Row<'v> {
    key: Vec<u8>,
    /// What is stored now.
    old: Option<Stored>,
    /// The last change so far, other than [`Change::Keep`].
    change: Change<'v>,
}

impl SledDb {
    /// Writes one key.
    ///
    /// If its value is corrupt, the caller is shown none, and may replace or remove it. The outcome
    /// is an error all the same, so that nobody takes the value for missing.
    pub(super) fn write_row<'v>(
        &self,
        table: Text<'_>,
        key: Text<'_>,
        mut change: impl FnMut(usize, Option<ValueRef<'_>>) -> ControlFlow<(), Change<'v>>,
    ) -> Result<(), StorageError> {
        let row = row_key(table.as_bytes(), key.as_bytes());
        let mut lock = self.locks.write(table);
        self.check_writable(table)?;
        let old = self.read_replaced(table, &row)?;
        let shown = match &old {
            Some(old) => old.with_value(|value| change(0, Some(value))),
            None => Ok(change(0, None)),
        };
        let (decided, corrupt) = match shown {
            Ok(decided) => (decided, None),
            Err(source) => (change(0, None), Some(self.corrupt(table, key, source))),
        };
        let new = match decided {
            ControlFlow::Continue(Change::Set(value)) => Some(NewValue::from(value)),
            ControlFlow::Continue(Change::Remove) => None,
            ControlFlow::Continue(Change::Keep) | ControlFlow::Break(()) => {
                return corrupt.map_or(Ok(()), Err);
            }
        };
        let growth = growth(key.len(), old.as_ref(), new.as_ref());
        let writing = self.syncer.writing();
        self.rows
            .replace(row, old.as_ref(), new)
            .map_err(|error| self.write_failed(table, error))?;
        lock.count(growth);
        drop(writing);
        match corrupt {
            None => Ok(()),
            Some(corrupt) => Err(StorageError::Write {
                table: table.as_str().to_owned(),
                applied: Applied::Unknown,
                source: corrupt.into(),
            }),
        }
    }

    /// Writes several keys, each of which may come more than once.
    pub(super) fn write_rows<'v>(
        &self,
        table: Text<'_>,
        keys: Keys<'_>,
        mut change: impl FnMut(usize, Option<ValueRef<'_>>) -> ControlFlow<(), Change<'v>>,
    ) -> Result<(), StorageError> {
        let mut rows: HashMap<&[u8], Row<'v>> = HashMap::new();
        let mut lock = self.locks.write(table);
        self.check_writable(table)?;
        for (position, key) in keys.iter().enumerate() {
            let row = match rows.entry(key.as_bytes()) {
                Entry::Occupied(earlier) => earlier.into_mut(),
                Entry::Vacant(first) => first.insert(self.row_to_change(table, key)?),
            };
            let decided = match (row.change, &row.old) {
                (Change::Set(value), _) => change(position, Some(value)),
                (Change::Remove, _) | (Change::Keep, None) => change(position, None),
                (Change::Keep, Some(old)) => old
                    .with_value(|value| change(position, Some(value)))
                    .map_err(|source| self.corrupt(table, key, source))?,
            };
            match decided {
                ControlFlow::Break(()) => return Ok(()),
                ControlFlow::Continue(Change::Keep) => {}
                ControlFlow::Continue(decided) => row.change = decided,
            }
        }
        let mut changes = Changes::default();
        let mut total = Growth::default();
        for Row { key, old, change } in rows.into_values() {
            let new = match change {
                Change::Keep => continue,
                Change::Set(value) => Some(NewValue::from(value)),
                Change::Remove => None,
            };
            total += growth(key_of(table.len(), &key).len(), old.as_ref(), new.as_ref());
            self.rows.add(&mut changes, key, old.as_ref(), new);
        }
        let _writing = self.syncer.writing();
        self.rows
            .apply(changes)
            .map_err(|error| self.write_failed(table, error))?;
        lock.count(total);
        Ok(())
    }

    fn row_to_change<'v>(&self, table: Text<'_>, key: Text<'_>) -> Result<Row<'v>, StorageError> {
        let key = row_key(table.as_bytes(), key.as_bytes());
        let old = self.read_replaced(table, &key)?;
        Ok(Row {
            key,
            old,
            change: Change::Keep,
        })
    }

    /// Reads what a write is about to replace. If sled cannot read it, the write has failed without
    /// any effect: after a full disk, every call into sled fails.
    fn read_replaced(&self, table: Text<'_>, row: &[u8]) -> Result<Option<Stored>, StorageError> {
        let read = self.rows.get(row);
        read.map_err(|error| match self.read_failed(table, error) {
            StorageError::Read { table, source } => StorageError::Write {
                table,
                applied: Applied::No,
                source,
            },
            other => other,
        })
    }
}

/// How a table grows when a row with a key of this length is replaced.
fn growth(key_len: usize, old: Option<&Stored>, new: Option<&NewValue>) -> Growth {
    let old = old.map(|old| &*old.row);
    Growth::replacing(key_len, old, new.map(|new| new.bytes.len()))
}
