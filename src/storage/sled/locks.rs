//! The locks of a store's tables, and the numbers of their rows, which change under these locks.
//!
//! All tables share a fixed number of locks. Rows are counted by the hash of their table's name:
//! two tables with the same hash, which does not happen in practice, would count as one.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::abi::Text;
use crate::storage::StorageStats;

/// The number of locks that the tables share.
const LOCKS: usize = 64;

/// The rows of each table, by the hash of its name.
type Sizes = HashMap<u64, u64>;

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
    /// The number of rows of the table.
    pub(super) fn rows(&self) -> u64 {
        self.sizes.get(&self.table).copied().unwrap_or_default()
    }
}

impl WriteLock<'_> {
    /// Counts rows that were added to the table, and rows that were removed from it.
    pub(super) fn count(&mut self, added: u64, removed: u64) {
        if added == removed {
            return;
        }
        let before = self.sizes.get(&self.table).copied().unwrap_or_default();
        let after = (before + added).saturating_sub(removed);
        if after == 0 {
            self.sizes.remove(&self.table);
        } else {
            self.sizes.insert(self.table, after);
        }
        let changed = after.abs_diff(before);
        if after > before {
            self.locks.keys.fetch_add(changed, Relaxed);
        } else {
            self.locks.keys.fetch_sub(changed, Relaxed);
        }
        match (before, after) {
            (0, 1..) => self.locks.tables.fetch_add(1, Relaxed),
            (1.., 0) => self.locks.tables.fetch_sub(1, Relaxed),
            _ => return,
        };
    }
}
