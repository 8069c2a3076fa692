//! The locks of a store's tables, and the sizes of the tables, which change under these locks.
//!
//! All tables share a fixed number of locks. Rows are counted by the hash of their table's name:
//! two tables with the same hash, which does not happen in practice, would count as one.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::ops::AddAssign;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::layout::reference;
use crate::abi::Text;
use crate::storage::{StorageStats, TableSize};

/// The number of locks that the tables share.
const LOCKS: usize = 64;

/// The size of each table, by the hash of its name.
type Sizes = HashMap<u64, TableSize>;

/// How a change affects the size of a table.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Growth {
    /// By how much the number of keys grows.
    pub(super) keys: i64,
    /// By how much the bytes of keys and values grow.
    pub(super) bytes: i64,
}

#[derive(Debug)]
pub(super) struct Locks {
    locks: [RwLock<Sizes>; LOCKS],
    hasher: RandomState,
    tables: AtomicU64,
    keys: AtomicU64,
}

/// The lock of a table that is read.
pub(super) struct ReadLock<'a> {
    sizes: RwLockReadGuard<'a, Sizes>,
    table: u64,
}

/// The lock of a table that is written to.
pub(super) struct WriteLock<'a> {
    sizes: RwLockWriteGuard<'a, Sizes>,
    table: u64,
    locks: &'a Locks,
}

impl Locks {
    pub(super) fn new() -> Self {
        Self {
            locks: std::array::from_fn(|_| RwLock::default()),
            hasher: RandomState::new(),
            tables: AtomicU64::new(0),
            keys: AtomicU64::new(0),
        }
    }

    pub(super) fn read(&self, table: Text<'_>) -> ReadLock<'_> {
        let table = self.hasher.hash_one(table.as_bytes());
        let sizes = self.of(table).read();
        let sizes = sizes.unwrap_or_else(PoisonError::into_inner);
        ReadLock { sizes, table }
    }

    pub(super) fn write(&self, table: Text<'_>) -> WriteLock<'_> {
        let table = self.hasher.hash_one(table.as_bytes());
        let sizes = self
            .of(table)
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        WriteLock {
            sizes,
            table,
            locks: self,
        }
    }

    pub(super) fn stats(&self) -> StorageStats {
        let (tables, keys) = self.sizes();
        StorageStats::new(tables, keys)
    }

    /// The number of tables, and of rows in all of them.
    pub(super) fn sizes(&self) -> (u64, u64) {
        (self.tables.load(Relaxed), self.keys.load(Relaxed))
    }

    #[expect(
        clippy::indexing_slicing,
        reason = "a remainder is less than its divisor"
    )]
    fn of(&self, table: u64) -> &RwLock<Sizes> {
        &self.locks[table as usize % LOCKS]
    }
}

impl ReadLock<'_> {
    /// The size of the table.
    pub(super) fn size(&self) -> TableSize {
        self.sizes.get(&self.table).copied().unwrap_or_default()
    }
}

impl WriteLock<'_> {
    /// Counts what a write has changed in the table.
    pub(super) fn count(&mut self, growth: Growth) {
        let Growth { keys, bytes } = growth;
        if (keys, bytes) == (0, 0) {
            return;
        }
        let before = self.sizes.get(&self.table).copied().unwrap_or_default();
        let after = TableSize::new(
            before.keys.saturating_add_signed(keys),
            before.bytes.saturating_add_signed(bytes),
        );
        if after.keys == 0 {
            self.sizes.remove(&self.table);
        } else {
            self.sizes.insert(self.table, after);
        }
        if keys == 0 {
            return;
        }
        // Wraps around when keys are removed.
        let keys = after.keys.wrapping_sub(before.keys);
        self.locks.keys.fetch_add(keys, Relaxed);
        match (before.keys, after.keys) {
            (0, 1..) => self.locks.tables.fetch_add(1, Relaxed),
            (1.., 0) => self.locks.tables.fetch_sub(1, Relaxed),
            _ => return,
        };
    }
}

impl Growth {
    /// The growth by a row in place of another; both without the name of the table. A row is the
    /// length of its key and its encoded value.
    pub(super) fn replacing(key_len: usize, old: Option<&[u8]>, new: Option<usize>) -> Self {
        // A value in parts counts with their length.
        let encoded = |row: &[u8]| reference(row).map_or(row.len() as u64, |(_, len)| len);
        let row = |len: u64| (1, (key_len as u64).saturating_add(len) as i64);
        let none = (0, 0);
        let (old_keys, old_bytes) = old.map_or(none, |old| row(encoded(old)));
        let (new_keys, new_bytes) = new.map_or(none, |len| row(len as u64));
        Self {
            keys: new_keys - old_keys,
            bytes: new_bytes - old_bytes,
        }
    }
}

impl AddAssign for Growth {
    fn add_assign(&mut self, other: Self) {
        self.keys += other.keys;
        self.bytes += other.bytes;
    }
}
