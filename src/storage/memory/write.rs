//! Changing rows where they are stored.
//!
//! One row is changed while the lock of the shard, or of this thread's cache, keeps its table in
//! place, if that takes no longer than looking it up did. All other writes share ownership of the
//! table and release that lock first; a table that has no lock of its own is written under the lock
//! of the shard.

use std::mem;
use std::ops::ControlFlow;
use std::sync::Arc;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use super::locked_table::{Contents, LockedRows, LockedTable, PartSet};
use super::packed::Packed;
use super::rows::Rows;
use super::undo::UndoLog;
use super::value::{Payload, Stored};
use super::{MAX_IN_SHARD, MemTable, Table};
use crate::abi::{Keys, Text, ValueRef};
use crate::storage::Change;

/// The maximum number of keys that a write changes while a shard is locked.
const MAX_KEYS_IN_SHARD: usize = 64;

/// Why a write has changed nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    /// The caller broke off.
    Broken,
    /// The value is too large for the locks that are held.
    TooLarge,
}

impl MemTable {
    /// Changes the rows of keys as `change` says, all or none. It may start over: see
    /// [`Storage::write`](crate::Storage::write).
    #[inline]
    pub(super) fn write_rows<'v>(
        &self,
        table: &[u8],
        keys: Keys<'_>,
        change: &mut impl FnMut(usize, Option<ValueRef<'_>>) -> ControlFlow<(), Change<'v>>,
    ) {
        let hash = self.hash(table);
        match keys.single().map(Text::as_bytes) {
            Some(key) if self.cache.is_used() && self.write_cached(hash, table, key, change) => {}
            Some(key) if self.write_beside(hash, table, key, change) => {}
            _ => self.write_several(hash, table, keys, change),
        }
    }

    /// Changes a row of a table in parts that is in this thread's cache. Returns whether it could.
    #[inline(never)]
    fn write_cached<'v>(
        &self,
        hash: u64,
        name: &[u8],
        key: &[u8],
        change: &mut impl FnMut(usize, Option<ValueRef<'_>>) -> ControlFlow<(), Change<'v>>,
    ) -> bool {
        let Some(cached) = self.cache.slot(hash) else {
            return false;
        };
        let Some(table) = cached.get(name) else {
            return false;
        };
        self.write_soon(table, key, usize::MAX, change)
    }

    /// Changes one row: of a small table, or of a table with its own locks while the shard is
    /// read-locked. Returns whether it could.
    #[inline]
    fn write_beside<'v>(
        &self,
        hash: u64,
        name: &[u8],
        key: &[u8],
        change: &mut impl FnMut(usize, Option<ValueRef<'_>>) -> ControlFlow<(), Change<'v>>,
    ) -> bool {
        let shard = self.shard(hash).read();
        match shard.find(hash, |table| table.is_named(name)) {
            None => false,
            Some(Table::Locked(table)) => {
                self.learn(hash, table);
                self.write_soon(table, key, MAX_IN_SHARD, change)
            }
            Some(Table::Small(_)) => {
                drop(shard);
                self.write_small(hash, name, key, change)
            }
        }
    }

    /// Changes a row of a small table. Returns whether it could: not if the value is too large, or
    /// the table is gone or no longer small.
    #[inline(never)]
    fn write_small<'v>(
        &self,
        hash: u64,
        name: &[u8],
        key: &[u8],
        change: &mut impl FnMut(usize, Option<ValueRef<'_>>) -> ControlFlow<(), Change<'v>>,
    ) -> bool {
        let mut shard = self.shard(hash).write();
        let Some(Table::Small(packed)) = shard.find_mut(hash, |table| table.is_named(name)) else {
            return false;
        };
        let row = packed.find(key);
        let stored = row.map(|row| packed.stored(row));
        let next = match decide(0, key, stored, MAX_IN_SHARD, change) {
            ControlFlow::Break(stop) => return stop == Stop::Broken,
            ControlFlow::Continue(next) => next,
        };
        if let (Some(row), Change::Set(value)) = (row, next) {
            let number = &mut [0; 8];
            let payload = Payload::new(value, number);
            if Packed::fits(key, payload) {
                packed.overwrite(row, payload);
                return true;
            }
        }
        let keys = Keys::one(Text::known(key));
        let next = &mut |_, _: Option<ValueRef<'_>>| ControlFlow::Continue(next);
        self.change_shard(&mut shard, hash, name, keys, next)
    }

    /// Changes a row of a table with locks of its own, unless it has to wait, or the table may have
    /// to be removed or divided into parts. Returns whether it could.
    #[inline(always)]
    fn write_soon<'v>(
        &self,
        table: &LockedTable,
        key: &[u8],
        max_len: usize,
        change: &mut impl FnMut(usize, Option<ValueRef<'_>>) -> ControlFlow<(), Change<'v>>,
    ) -> bool {
        let Some(mut contents) = table.lock_of(key).write_soon() else {
            return false;
        };
        let rows = &mut contents.rows;
        let before = rows.len();
        if before <= 1 || rows.should_divide() {
            return false;
        }
        let written = rows.change(key, |stored| decide(0, key, stored, max_len, change));
        self.count(before, rows.len());
        written != ControlFlow::Break(Stop::TooLarge)
    }

    /// Changes rows, waiting for their locks.
    #[inline(never)]
    fn write_several<'v>(
        &self,
        hash: u64,
        name: &[u8],
        keys: Keys<'_>,
        change: &mut impl FnMut(usize, Option<ValueRef<'_>>) -> ControlFlow<(), Change<'v>>,
    ) {
        loop {
            let is_written = match self.find_locked(hash, name) {
                Some(table) => self.write_locked(hash, &table, keys, change),
                None => {
                    let mut shard = self.shard(hash).write();
                    self.change_shard(&mut shard, hash, name, keys, change)
                }
            };
            if is_written {
                return;
            }
        }
    }

    /// Changes rows of a table with locks of its own. Returns false if it is retired.
    fn write_locked<'v>(
        &self,
        hash: u64,
        table: &LockedTable,
        keys: Keys<'_>,
        change: &mut impl FnMut(usize, Option<ValueRef<'_>>) -> ControlFlow<(), Change<'v>>,
    ) -> bool {
        let Some(whole) = table.whole() else {
            let mut parts = table.write_parts(table.parts_of(keys));
            if parts.is_retired() {
                return false;
            }
            let _ = self.apply(&mut parts, keys, usize::MAX, change);
            let may_be_empty = parts.is_any_empty();
            drop(parts);
            if may_be_empty {
                self.remove_if_empty(hash, table);
            }
            return true;
        };
        let mut contents = whole.write();
        if contents.retired {
            return false;
        }
        if contents.rows.should_divide() {
            self.divide(hash, table, &mut contents);
            return false;
        }
        let _ = self.apply(&mut contents.rows, keys, usize::MAX, change);
        if contents.rows.is_empty() {
            contents.retired = true;
            // Locking a shard while a table is locked is safe: no thread does the reverse.
            self.remove(hash, table.name());
        }
        true
    }

    /// Changes rows of a table that is small, or does not exist, in its locked shard. Returns false
    /// if the table has locks of its own, or has got them because this would take too long.
    fn change_shard<'v>(
        &self,
        shard: &mut HashTable<Table>,
        hash: u64,
        name: &[u8],
        keys: Keys<'_>,
        change: &mut impl FnMut(usize, Option<ValueRef<'_>>) -> ControlFlow<(), Change<'v>>,
    ) -> bool {
        let is_same = |table: &Table| table.is_named(name);
        let mut entry = shard.entry(hash, is_same, |table| self.hash(table.name()));
        // The rows are taken out, and put back below: only a closure that panics, against the
        // contract, would lose them.
        let packed = match &mut entry {
            Entry::Vacant(_) => Packed::named(name).unwrap_or_default(),
            Entry::Occupied(found) => match found.get_mut() {
                Table::Small(packed) => mem::take(packed),
                Table::Locked(_) => return false,
            },
        };
        let mut rows = Rows::new(packed, self.hasher.clone());
        let is_written = keys.len() <= MAX_KEYS_IN_SHARD
            && self.apply(&mut rows, keys, MAX_IN_SHARD, change)
                != ControlFlow::Break(Stop::TooLarge);
        let is_gone = is_written && rows.is_empty();
        let table = |rows| match is_written {
            true => self.table(name, rows),
            false => self.locked_table(name, rows),
        };
        match entry {
            Entry::Vacant(_) if is_gone => {}
            Entry::Vacant(vacant) => {
                vacant.insert(table(rows));
            }
            Entry::Occupied(found) if is_gone => {
                found.remove();
                self.shrink_shard(shard);
            }
            Entry::Occupied(mut found) => *found.get_mut() = table(rows),
        }
        is_written
    }

    /// Changes rows that are locked, all or none.
    fn apply<'v>(
        &self,
        rows: &mut impl LockedRows,
        keys: Keys<'_>,
        max_len: usize,
        change: &mut impl FnMut(usize, Option<ValueRef<'_>>) -> ControlFlow<(), Change<'v>>,
    ) -> ControlFlow<Stop> {
        let before = rows.len();
        let mut undo = UndoLog::default();
        for (position, key) in keys.iter().map(Text::as_bytes).enumerate() {
            let Some(rows_of_key) = rows.rows_of(key) else {
                continue;
            };
            let changed = rows_of_key.change(key, |stored| {
                let next = decide(position, key, stored, max_len, change)?;
                // The last change is never undone.
                if position + 1 < keys.len() {
                    undo.push(stored, &next);
                }
                ControlFlow::Continue(next)
            });
            if changed.is_break() {
                undo.undo(rows, keys);
                return changed;
            }
        }
        self.count(before, rows.len());
        ControlFlow::Continue(())
    }

    /// Replaces a locked table by one in parts, and retires it.
    fn divide(&self, hash: u64, table: &LockedTable, contents: &mut Contents) {
        let rows = mem::take(&mut contents.rows);
        let divided = Table::Locked(Arc::new(table.divided(rows)));
        contents.retired = true;
        self.cache.add();
        let mut shard = self.shard(hash).write();
        if let Some(entry) = shard.find_mut(hash, |other| other.is_named(table.name())) {
            *entry = divided;
        }
    }

    /// Removes a table in parts if it has no rows.
    fn remove_if_empty(&self, hash: u64, table: &LockedTable) {
        let mut parts = table.write_parts(PartSet::ALL);
        if parts.len() == 0 && !parts.is_retired() {
            parts.retire();
            self.remove(hash, table.name());
            self.cache.remove(hash, table);
        }
    }
}

/// Asks the caller what to do with a row.
#[inline]
fn decide<'v>(
    position: usize,
    key: &[u8],
    stored: Option<Stored<'_>>,
    max_len: usize,
    change: &mut impl FnMut(usize, Option<ValueRef<'_>>) -> ControlFlow<(), Change<'v>>,
) -> ControlFlow<Stop, Change<'v>> {
    if stored.is_some_and(|stored| stored.payload_len() > max_len) {
        return ControlFlow::Break(Stop::TooLarge);
    }
    match change(position, stored.map(Stored::value)) {
        ControlFlow::Break(()) => ControlFlow::Break(Stop::Broken),
        ControlFlow::Continue(Change::Set(value)) if key.len().max(data_len(value)) > max_len => {
            ControlFlow::Break(Stop::TooLarge)
        }
        ControlFlow::Continue(next) => ControlFlow::Continue(next),
    }
}

/// The length of the payload, if that varies.
#[inline]
fn data_len(value: ValueRef<'_>) -> usize {
    match value {
        ValueRef::String(text) => text.len(),
        ValueRef::Binary(data) => data.len(),
        ValueRef::Integer(_) | ValueRef::Float(_) | ValueRef::Bool(_) => 0,
    }
}
