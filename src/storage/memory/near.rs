//! Tables in parts, as each thread found them last.
//!
//! Two threads that look for the same table write to the lock of its shard both, and each waits for the cache line that the
//! other has: that takes as long as half of a small request. So for a thread the table is found here, under a lock
//! that others hardly ever take.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::available_parallelism;

use super::large::Large;
use crate::threads::thread_number;

/// More threads than this share places.
const MAX_THREADS: usize = 64;

/// How many threads there may be for each core, before they share places.
const THREADS_PER_CORE: usize = 4;

/// Of how many tables a thread knows where they are; they displace each other.
const TABLES: usize = 32;

/// Where tables are, for each thread.
pub(super) struct Near {
    /// How many tables in parts there are.
    tables: AtomicUsize,
    threads: Box<[Thread]>,
}

#[derive(Default)]
#[repr(align(128))]
struct Thread(Mutex<Tables>);

type Tables = [Option<Arc<Large>>; TABLES];

/// What a thread knows, which nobody changes until this is dropped.
pub(super) struct Known<'a> {
    tables: MutexGuard<'a, Tables>,
    place: usize,
}

impl Near {
    /// Whether there is anything to know. Where there is not, requests need not pay for asking.
    pub(super) fn is_any(&self) -> bool {
        self.tables.load(Relaxed) > 0
    }

    /// What this thread knows, if there is anything to know and no other thread is there.
    pub(super) fn known(&self, hash: u64) -> Option<Known<'_>> {
        if !self.is_any() {
            return None;
        }
        let tables = self.threads.get(thread_number() % self.threads.len())?;
        Some(Known {
            tables: tables.0.try_lock().ok()?,
            place: place(hash),
        })
    }

    /// One more table is in parts.
    pub(super) fn spread(&self) {
        self.tables.fetch_add(1, Relaxed);
    }

    /// Forgets a table in parts that is gone. Nobody learns of it any more.
    pub(super) fn forget(&self, hash: u64, gone: &Large) {
        self.tables.fetch_sub(1, Relaxed);
        for thread in &self.threads {
            let mut tables = thread.0.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(table) = tables.get_mut(place(hash)) {
                table.take_if(|table| std::ptr::eq(&raw const **table, gone));
            }
        }
    }
}

impl Default for Near {
    fn default() -> Self {
        let cores = available_parallelism().map_or(1, usize::from);
        let threads = (THREADS_PER_CORE * cores).min(MAX_THREADS);
        Self {
            tables: AtomicUsize::new(0),
            threads: (0..threads).map(|_| Thread::default()).collect(),
        }
    }
}

impl Known<'_> {
    pub(super) fn table(&self, name: &[u8]) -> Option<&Large> {
        let table = self.tables.get(self.place)?.as_deref()?;
        (table.name() == name).then_some(table)
    }

    /// Where a table is; to be called only while it cannot be forgotten.
    pub(super) fn learn(&mut self, table: &Arc<Large>) {
        if let Some(place) = self.tables.get_mut(self.place)
            && place
                .as_ref()
                .is_none_or(|known| !Arc::ptr_eq(known, table))
        {
            *place = Some(Arc::clone(table));
        }
    }
}

/// By other bits than those that shards and places there go by.
pub(super) fn place(hash: u64) -> usize {
    (hash >> 32) as usize % TABLES
}
