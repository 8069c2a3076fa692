//! The locks of a store's tables, and the count of their rows, which changes under them.
//!
//! A fixed number of locks is shared by all tables. What a table is counted by is the hash of its name: two
//! whose hashes are the same, of which there are none in practice, would count as one.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::storage::StorageStats;

/// How many locks the tables share.
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

/// The lock of a table that is being written.
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

    pub(super) fn read(&self, table: &str) -> impl Drop {
        let lock: RwLockReadGuard<'_, Sizes> = self
            .of(self.hasher.hash_one(table))
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        lock
    }

    pub(super) fn write(&self, table: &str) -> WriteLock<'_> {
        let table = self.hasher.hash_one(table);
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

    /// How many tables there are, and how many rows.
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

impl WriteLock<'_> {
    /// Counts rows that were added to the table and removed from it.
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
