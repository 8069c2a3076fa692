//! Writes, each under the lock of its table: what the caller decides on is what is replaced.
//!
//! A small write is made on the caller's thread. A large one is a transaction, which the workers
//! make.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ops::ControlFlow;
use std::sync::Arc;

use sled::IVec;

use super::changes::{Changes, ENTRY_BYTES, NewValue};
use super::layout::{reference, row_key};
use super::locks::{Growth, WriteLock};
use super::read::{ROWS_AT_ONCE, ROWS_IN_JOB};
use super::rows::{Rows, Stored};
use super::transaction::Transaction;
use super::{SledDb, Store};
use crate::abi::{Keys, Text, ValueRef};
use crate::storage::{Applied, Change, StorageError};

/// The size of the changes that are made together in bytes; the last may exceed it.
const MAX_BATCH_BYTES: usize = 128 * 1024;

/// A row that a write of several keys may change.
struct Row<'v> {
    /// What is stored now.
    old: Option<Stored>,
    /// The last change so far, other than [`Change::Keep`].
    change: Change<'v>,
}

/// The changes that a caller has decided on.
struct Decided {
    changes: Changes,
    /// How many keys they cover: the first of those that were asked for.
    keys: usize,
    /// Whether the caller has ended the write, so that nothing may change.
    is_broken: bool,
}

impl SledDb {
    /// Writes one key.
    ///
    /// If its value is corrupt, the caller is shown none, and may replace or remove it. The outcome
    /// is an error all the same, so that nobody takes the value for missing.
    pub(super) async fn write_row<'v>(
        &self,
        table: Text<'_>,
        key: Text<'_>,
        mut change: impl FnMut(usize, Option<ValueRef<'_>>) -> ControlFlow<(), Change<'v>> + Send,
    ) -> Result<(), StorageError> {
        let mut lock = self.store.locks.write(table).await;
        self.store.check_writable(table)?;
        let old = self.read_row(table, key).await.map_err(as_write)?;
        let shown = match &old {
            Some(old) => old.with_value(|value| change(0, Some(value))),
            None => Ok(change(0, None)),
        };
        let (decided, corrupt) = match shown {
            Ok(decided) => (decided, None),
            Err(source) => (
                change(0, None),
                Some(self.store.corrupt(table, key, source)),
            ),
        };
        let new = match decided {
            ControlFlow::Continue(Change::Set(value)) => Some(NewValue::from(value)),
            ControlFlow::Continue(Change::Remove) => None,
            ControlFlow::Continue(Change::Keep) | ControlFlow::Break(()) => {
                return corrupt.map_or(Ok(()), Err);
            }
        };
        let row = row_key(table.as_bytes(), key.as_bytes());
        let old = old.map(|old| old.row);
        let has_parts = new.as_ref().is_some_and(NewValue::has_parts)
            || old.as_deref().is_some_and(|old| reference(old).is_some());
        if has_parts {
            let mut changes = Changes::default();
            let next_number = || self.store.rows.next_number();
            changes.replace(row, key.len(), old.as_ref(), new, next_number);
            let mut transaction = Transaction::new(&self.store, &self.workers, lock);
            transaction.add(changes, true);
            self.make(table, transaction).await?;
        } else if old.is_some() || new.is_some() {
            let new_len = new.as_ref().map(|new| new.bytes.len());
            self.replace_now(table, &row, old.as_ref(), new).await?;
            let old = old.as_deref();
            lock.count(Growth::replacing(key.len(), old, new_len));
        }
        match corrupt {
            None => Ok(()),
            Some(corrupt) => Err(StorageError::Write {
                table: table.as_str().to_owned(),
                applied: Applied::Unknown,
                source: corrupt.into(),
            }),
        }
    }

    /// Replaces a row by another, or adds or removes it; neither has a value in parts.
    async fn replace_now(
        &self,
        table: Text<'_>,
        row: &[u8],
        old: Option<&IVec>,
        new: Option<NewValue>,
    ) -> Result<(), StorageError> {
        let bytes = row.len() + new.as_ref().map_or(0, |new| new.bytes.len());
        self.wait_for_outflow(table, bytes as u64).await?;
        let Store { rows, syncer, .. } = &*self.store;
        let _entered = rows.gate.enter().await;
        self.store.check_writable(table)?;
        let _writing = syncer.writing();
        rows.replace(row, old, new)
            .map_err(|error| self.store.write_failed(table, error))
    }

    /// Writes several keys, each of which may come more than once.
    pub(super) async fn write_rows<'v>(
        &self,
        table: Text<'_>,
        keys: Keys<'_>,
        mut change: impl FnMut(usize, Option<ValueRef<'_>>) -> ControlFlow<(), Change<'v>> + Send,
    ) -> Result<(), StorageError> {
        let mut lock = self.store.locks.write(table).await;
        self.store.check_writable(table)?;
        if let Some(old) = self.read_small(table, keys).await? {
            let decided =
                self.store
                    .decide(table, 0, keys.iter(), old, Changes::default(), &mut change)?;
            if decided.is_broken {
                return Ok(());
            }
            // If they are too many or too large, the caller decides on them once more.
            if decided.keys == keys.len() && decided.changes.values.is_empty() {
                return self.apply_now(table, &mut lock, decided.changes).await;
            }
        }
        let mut transaction = Transaction::new(&self.store, &self.workers, lock);
        let mut rest = keys.iter();
        let mut next = ROWS_IN_JOB;
        while rest.len() > 0 {
            let some: Vec<_> = rest.clone().take(next).collect();
            let position = keys.len() - rest.len();
            let decided = {
                // Their place is free once they are decided on: the next jobs need it.
                let old = self.read_some(table, &some).await.map_err(as_write)?;
                let some = some.into_iter();
                self.store.decide(
                    table,
                    position,
                    some,
                    old.value,
                    Changes::to_record(),
                    &mut change,
                )
            };
            let Ok(Decided {
                changes,
                keys,
                is_broken: false,
            }) = decided
            else {
                transaction.undo();
                self.make(table, transaction).await?;
                return decided.map(drop);
            };
            let _ = rest.by_ref().take(keys).count();
            // No more than can be changed together, as far as that can be told.
            next = (2 * keys).min(ROWS_IN_JOB);
            transaction.add(changes, rest.len() == 0);
            transaction = self.make(table, transaction).await?;
        }
        Ok(())
    }

    /// Reads the rows of keys that are few and small.
    async fn read_small(
        &self,
        table: Text<'_>,
        keys: Keys<'_>,
    ) -> Result<Option<Vec<Option<Stored>>>, StorageError> {
        if keys.len() > ROWS_AT_ONCE {
            return Ok(None);
        }
        let read = |rows: &Rows| {
            let mut read = Vec::with_capacity(keys.len());
            for key in keys {
                let row = rows.row(&row_key(table.as_bytes(), key.as_bytes()))?;
                if row.as_ref().is_some_and(|row| reference(row).is_some()) {
                    return Ok(None);
                }
                read.push(row.map(Stored::whole));
            }
            Ok(Some(read))
        };
        self.now(table, read).await.map_err(as_write)
    }

    /// Makes changes on this thread.
    async fn apply_now(
        &self,
        table: Text<'_>,
        lock: &mut WriteLock,
        changes: Changes,
    ) -> Result<(), StorageError> {
        if changes.bytes == 0 {
            return Ok(());
        }
        self.wait_for_outflow(table, changes.bytes).await?;
        let Store { rows, syncer, .. } = &*self.store;
        let _alone = rows.gate.enter_alone().await;
        self.store.check_writable(table)?;
        let _writing = syncer.writing();
        rows.tree()
            .apply_batch(changes.batch)
            .map_err(|error| self.store.write_failed(table, error))?;
        rows.add_sum(changes.sum);
        lock.count(changes.growth);
        Ok(())
    }

    /// Makes all steps of a transaction that there are.
    async fn make(
        &self,
        table: Text<'_>,
        mut transaction: Transaction,
    ) -> Result<Transaction, StorageError> {
        loop {
            let turn = move || {
                let turn = transaction.turn();
                (transaction, turn)
            };
            let Some(returned) = self.workers.run(turn).await else {
                return Err(self.store.write_panicked(table));
            };
            let (back, turn) = returned.value;
            if !turn.map_err(|error| self.store.write_failed(table, error))? {
                return Ok(back);
            }
            transaction = back;
        }
    }

    /// Waits while too much that was written is still in the process, before an entry of so many
    /// bytes is written.
    async fn wait_for_outflow(&self, table: Text<'_>, bytes: u64) -> Result<(), StorageError> {
        if !self.store.rows.outflow.add(1, bytes) {
            return Ok(());
        }
        let store = Arc::clone(&self.store);
        let wait = move || {
            let Rows { outflow, gate, .. } = &store.rows;
            let _writing = store.syncer.writing();
            outflow.wait_until_low(store.rows.tree(), gate)
        };
        let Some(waited) = self.workers.run_first(wait).await else {
            return Err(self.store.write_panicked(table));
        };
        waited.map_err(|error| self.store.write_failed(table, error))
    }
}

impl Store {
    /// Asks a caller for the changes of keys, the first of which has this position, until they
    /// are all the changes that are made together.
    fn decide<'k, 'v>(
        &self,
        table: Text<'_>,
        position: usize,
        keys: impl Iterator<Item = Text<'k>>,
        old: Vec<Option<Stored>>,
        mut changes: Changes,
        change: &mut impl FnMut(usize, Option<ValueRef<'_>>) -> ControlFlow<(), Change<'v>>,
    ) -> Result<Decided, StorageError> {
        let mut rows: HashMap<&[u8], Row<'v>> = HashMap::with_capacity(old.len());
        let (mut decided_keys, mut bytes) = (0, 0);
        for (key, old) in keys.zip(old) {
            let row = match rows.entry(key.as_bytes()) {
                Entry::Occupied(earlier) => earlier.into_mut(),
                Entry::Vacant(first) => first.insert(Row {
                    old,
                    change: Change::Keep,
                }),
            };
            let position = position + decided_keys;
            let decided = match (row.change, &row.old) {
                (Change::Set(value), _) => change(position, Some(value)),
                (Change::Remove, _) | (Change::Keep, None) => change(position, None),
                (Change::Keep, Some(old)) => old
                    .with_value(|value| change(position, Some(value)))
                    .map_err(|source| self.corrupt(table, key, source))?,
            };
            match decided {
                ControlFlow::Break(()) => return Ok(Decided::broken()),
                ControlFlow::Continue(Change::Keep) => {}
                ControlFlow::Continue(decided) => row.change = decided,
            }
            decided_keys += 1;
            bytes += key.len() + ENTRY_BYTES as usize;
            if let Change::Set(value) = row.change {
                bytes += value.encoded_len();
            }
            if bytes > MAX_BATCH_BYTES {
                break;
            }
        }
        for (key, Row { old, change }) in rows {
            let new = match change {
                Change::Keep => continue,
                Change::Set(value) => Some(NewValue::from(value)),
                Change::Remove => None,
            };
            let row = row_key(table.as_bytes(), key);
            let old = old.map(|old| old.row);
            changes.replace(row, key.len(), old.as_ref(), new, || {
                self.rows.next_number()
            });
        }
        Ok(Decided {
            changes,
            keys: decided_keys,
            is_broken: false,
        })
    }
}

impl Decided {
    /// Nothing may change.
    fn broken() -> Self {
        Self {
            changes: Changes::default(),
            keys: 0,
            is_broken: true,
        }
    }
}

/// The error of a read on behalf of a write. The write has had no effect: after a full disk, every
/// call into sled fails.
fn as_write(error: StorageError) -> StorageError {
    match error {
        StorageError::Read { table, source } => StorageError::Write {
            table,
            applied: Applied::No,
            source,
        },
        other => other,
    }
}
