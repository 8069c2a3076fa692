//! Caches, for each thread, where it last found tables in parts.
//!
//! Two threads that look up the same table both write to the lock of its shard, and each waits for
//! the cache line that the other has: that takes half as long as a small request. A thread that
//! has the table in its cache takes a lock there instead, which other threads hardly ever take.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::available_parallelism;

use super::locked_table::LockedTable;
use crate::threads::thread_number;

/// The maximum number of caches; if there are more threads, they share them.
const MAX_CACHES: usize = 64;

/// The number of caches for each core.
const CACHES_PER_CORE: usize = 4;

/// The number of tables in a cache; the hash of a name selects its slot.
const TABLES: usize = 32;

/// The caches of all threads.
pub(super) struct TableCache {
    /// The number of tables in parts.
    tables: AtomicUsize,
    caches: Box<[Cache]>,
}

/// One thread's cache, on cache lines of its own.
#[derive(Default)]
#[repr(align(128))]
struct Cache(Mutex<Tables>);

type Tables = [Option<Arc<LockedTable>>; TABLES];

/// The slot of a table in this thread's cache, which is locked.
pub(super) struct Cached<'a> {
    tables: MutexGuard<'a, Tables>,
    slot: usize,
}

impl TableCache {
    /// Whether there are tables in parts. If not, requests need not look here.
    #[inline]
    pub(super) fn is_used(&self) -> bool {
        self.tables.load(Relaxed) > 0
    }

    /// The slot of a table in this thread's cache. [`None`] if there are no tables in parts, or
    /// another thread has the cache locked.
    #[inline]
    pub(super) fn slot(&self, hash: u64) -> Option<Cached<'_>> {
        if !self.is_used() {
            return None;
        }
        let cache = self.caches.get(thread_number() % self.caches.len())?;
        Some(Cached {
            tables: cache.0.try_lock().ok()?,
            slot: slot(hash),
        })
    }

    /// Puts a table into this thread's cache. Its shard must be locked, so that the table is not
    /// removed meanwhile.
    #[inline(never)]
    pub(super) fn put(&self, hash: u64, table: &Arc<LockedTable>) {
        if let Some(mut cached) = self.slot(hash)
            && let Some(cached_table) = cached.tables.get_mut(slot(hash))
            && cached_table
                .as_ref()
                .is_none_or(|cached| !Arc::ptr_eq(cached, table))
        {
            *cached_table = Some(Arc::clone(table));
        }
    }

    /// Counts a table that was divided into parts.
    pub(super) fn add(&self) {
        self.tables.fetch_add(1, Relaxed);
    }

    /// Drops a table in parts that was removed from its shard, where no thread finds it any more.
    pub(super) fn remove(&self, hash: u64, removed: &LockedTable) {
        self.tables.fetch_sub(1, Relaxed);
        for cache in &self.caches {
            let mut tables = cache.0.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(table) = tables.get_mut(slot(hash)) {
                table.take_if(|table| std::ptr::eq(&raw const **table, removed));
            }
        }
    }
}

impl Default for TableCache {
    fn default() -> Self {
        let cores = available_parallelism().map_or(1, usize::from);
        let caches = (CACHES_PER_CORE * cores).min(MAX_CACHES);
        Self {
            tables: AtomicUsize::new(0),
            caches: (0..caches).map(|_| Cache::default()).collect(),
        }
    }
}

impl Cached<'_> {
    /// The table, if it is the cached one.
    #[inline]
    pub(super) fn get(&self, name: &[u8]) -> Option<&LockedTable> {
        let table = self.tables.get(self.slot)?.as_deref()?;
        (table.name() == name).then_some(table)
    }
}

/// The slot of a table. Uses other bits of its hash than its shard, and its position there, do.
pub(super) fn slot(hash: u64) -> usize {
    (hash >> 32) as usize % TABLES
}
