//! The locks of a store's tables, and the sizes of the tables, which the locks guard.
//!
//! A task that waits for a lock holds up no thread. Locks are granted in the order in which they
//! were asked for; reads share one. A lock exists while its table has rows or somebody uses it.
//!
//! Tables are told apart by the hashes of their names: two tables with the same hash, which does
//! not happen in practice, would share a lock and count as one.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::ops::{Add, AddAssign};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

use super::layout::reference;
use crate::abi::Text;
use crate::storage::{StorageStats, TableSize};

/// The number of maps among which the locks are divided, so that threads rarely meet at one.
const SHARDS: usize = 64;

/// The locks of some tables, by the hashes of the tables' names.
type Shard = HashMap<u64, Arc<RwLock<TableSize>>>;

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
    shards: [Mutex<Shard>; SHARDS],
    hasher: RandomState,
    tables: AtomicU64,
    keys: AtomicU64,
}

/// The lock of a table that is read.
#[derive(Debug)]
pub(super) struct ReadLock {
    // Dropped in this order.
    size: OwnedRwLockReadGuard<TableSize>,
    _used: Used,
}

/// The lock of a table that is written to.
#[derive(Debug)]
pub(super) struct WriteLock {
    // Dropped in this order.
    size: OwnedRwLockWriteGuard<TableSize>,
    used: Used,
}

/// Keeps the lock of a table while somebody holds it or waits for it. Once nobody does and the
/// table has no rows, the lock is removed.
#[derive(Debug)]
struct Used {
    locks: Arc<Locks>,
    table: u64,
    lock: Arc<RwLock<TableSize>>,
}

impl Locks {
    pub(super) fn new() -> Self {
        Self {
            shards: std::array::from_fn(|_| Mutex::default()),
            hasher: RandomState::new(),
            tables: AtomicU64::new(0),
            keys: AtomicU64::new(0),
        }
    }

    /// Locks a table for reading. [`None`] if it has no rows and nobody is writing any.
    pub(super) async fn read(self: &Arc<Self>, table: Text<'_>) -> Option<ReadLock> {
        let table = self.hasher.hash_one(table.as_bytes());
        let used = self.used(table, self.shard(table).get(&table)?);
        // Waiting for a lock counts against the budget of a tokio task even if the lock is free.
        let size = match Arc::clone(&used.lock).try_read_owned() {
            Ok(size) => size,
            Err(_) => Arc::clone(&used.lock).read_owned().await,
        };
        Some(ReadLock { size, _used: used })
    }

    /// Locks a table for writing.
    pub(super) async fn write(self: &Arc<Self>, table: Text<'_>) -> WriteLock {
        let table = self.hasher.hash_one(table.as_bytes());
        let used = self.used(table, self.shard(table).entry(table).or_default());
        let size = match Arc::clone(&used.lock).try_write_owned() {
            Ok(size) => size,
            Err(_) => Arc::clone(&used.lock).write_owned().await,
        };
        WriteLock { size, used }
    }

    /// Counts a row that is found while the store is opened.
    pub(super) fn count_found(&mut self, table: Text<'_>, row: Growth) {
        let table = self.hasher.hash_one(table.as_bytes());
        let mut shard = self.shard(table);
        let lock = Arc::get_mut(shard.entry(table).or_default());
        let Some(size) = lock.map(RwLock::get_mut) else {
            return;
        };
        let before = *size;
        *size = before + row;
        let after = *size;
        drop(shard);
        self.count(before, after);
    }

    pub(super) fn stats(&self) -> StorageStats {
        let (tables, keys) = self.sizes();
        StorageStats::new(tables, keys)
    }

    /// The number of tables, and of rows in all of them.
    pub(super) fn sizes(&self) -> (u64, u64) {
        (self.tables.load(Relaxed), self.keys.load(Relaxed))
    }

    /// Counts how the number of rows of a table has changed.
    fn count(&self, before: TableSize, after: TableSize) {
        // Wraps around when keys are removed.
        let keys = after.keys.wrapping_sub(before.keys);
        self.keys.fetch_add(keys, Relaxed);
        match (before.keys, after.keys) {
            (0, 1..) => self.tables.fetch_add(1, Relaxed),
            (1.., 0) => self.tables.fetch_sub(1, Relaxed),
            _ => return,
        };
    }

    /// Called with the shard locked.
    fn used(self: &Arc<Self>, table: u64, lock: &Arc<RwLock<TableSize>>) -> Used {
        Used {
            locks: Arc::clone(self),
            table,
            lock: Arc::clone(lock),
        }
    }

    #[expect(
        clippy::indexing_slicing,
        reason = "a remainder is less than its divisor"
    )]
    fn shard(&self, table: u64) -> MutexGuard<'_, Shard> {
        let shard = &self.shards[table as usize % SHARDS];
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ReadLock {
    /// The size of the table.
    pub(super) fn size(&self) -> TableSize {
        *self.size
    }
}

impl WriteLock {
    /// Counts what a write has changed in the table.
    pub(super) fn count(&mut self, growth: Growth) {
        let before = *self.size;
        *self.size = before + growth;
        if growth.keys != 0 {
            self.used.locks.count(before, *self.size);
        }
    }
}

impl Drop for Used {
    fn drop(&mut self) {
        // If somebody else holds the lock, this is left to them.
        let is_empty = || self.lock.try_read().is_ok_and(|size| size.keys == 0);
        if !is_empty() {
            return;
        }
        let mut shard = self.locks.shard(self.table);
        // The references are this one and the shard's: others are only made with the shard locked.
        if Arc::strong_count(&self.lock) == 2 && is_empty() {
            shard.remove(&self.table);
        }
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

impl Add<Growth> for TableSize {
    type Output = Self;

    fn add(self, growth: Growth) -> Self {
        Self::new(
            self.keys.saturating_add_signed(growth.keys),
            self.bytes.saturating_add_signed(growth.bytes),
        )
    }
}
