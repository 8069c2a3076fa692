//! Tables in memory, which are gone when the process ends.
//!
//! The hash of a table's name tells its shard, a map of tables under one lock. A table of a few
//! small rows is stored in the map itself, in one allocation with its name, and is read and written
//! under the lock of the shard. A larger table has a lock of its own, and one of thousands of rows
//! has several, each for a part of them. No thread waits for these locks while it holds that of a
//! shard, so a long request holds up only requests for the same rows.
//!
//! Whichever locks guard the rows, a request holds all of them while it reads or writes, which
//! makes it atomic.

mod block;
mod locked_table;
mod packed;
mod read;
mod rows;
mod smallest;
mod storage;
mod table_cache;
mod undo;
mod value;
mod write;

use std::fmt;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use foldhash::quality::RandomState;
use hashbrown::HashTable;

use self::locked_table::LockedTable;
use self::packed::Packed;
use self::rows::Rows;
use self::table_cache::TableCache;

/// The number of shards: enough that two requests rarely need the same, and that none takes long to
/// grow.
const SHARDS: usize = 256;

/// The maximum length of a value that is read or written while its shard is locked, in bytes.
const MAX_IN_SHARD: usize = 4096;

/// A [`Storage`](super::Storage) in memory. It never fails, and it keeps nothing beyond the life of
/// the process.
///
/// Names and keys are hashed by foldhash with a random seed. It saves 390 instructions a request
/// compared to SipHash, but it does not resist an attacker who searches for colliding keys, which
/// slow a table down. A client that reads large tables can slow the server just as much.
pub struct MemTable {
    shards: Box<[Shard]>,
    hasher: RandomState,
    cache: TableCache,
    /// The number of keys in all tables.
    keys: Count,
}

/// A number that changes often, on cache lines of its own.
#[derive(Default)]
#[repr(align(128))]
struct Count(AtomicU64);

/// Some of the tables, on cache lines of their own.
#[derive(Default)]
#[repr(align(64))]
struct Shard(RwLock<HashTable<Table>>);

/// A table with its name.
enum Table {
    /// Guarded by the lock of the shard.
    Small(Packed),
    Locked(Arc<LockedTable>),
}

impl MemTable {
    /// A store without tables.
    pub fn new() -> Self {
        Self::default()
    }

    /// Finds a table that has locks of its own.
    fn find_locked(&self, hash: u64, name: &[u8]) -> Option<Arc<LockedTable>> {
        let shard = self.shard(hash).read();
        match shard.find(hash, |table| table.is_named(name))? {
            Table::Small(_) => None,
            Table::Locked(table) => {
                self.learn(hash, table);
                Some(Arc::clone(table))
            }
        }
    }

    /// Puts a table whose shard is locked into this thread's cache, if it is in parts.
    #[inline]
    fn learn(&self, hash: u64, table: &Arc<LockedTable>) {
        if table.whole().is_none() {
            self.cache.put(hash, table);
        }
    }

    /// Removes a table from its shard.
    fn remove(&self, hash: u64, name: &[u8]) {
        let mut shard = self.shard(hash).write();
        if let Ok(found) = shard.find_entry(hash, |table| table.is_named(name)) {
            found.remove();
        }
        self.shrink_shard(&mut shard);
    }

    /// Releases the memory that a shard no longer needs after a table was removed.
    fn shrink_shard(&self, shard: &mut HashTable<Table>) {
        if shard.len() < shard.capacity() / 8 {
            shard.shrink_to(shard.len() * 2, |table| self.hash(table.name()));
        }
    }

    /// A table with these rows, small if they are.
    fn table(&self, name: &[u8], rows: Rows) -> Table {
        let small = rows.into_named().map(Table::Small);
        small.unwrap_or_else(|rows| self.locked_table(name, rows))
    }

    fn locked_table(&self, name: &[u8], rows: Rows) -> Table {
        Table::Locked(Arc::new(LockedTable::new(name, rows, self.hasher.clone())))
    }

    /// Counts the keys after those of some rows became more or fewer.
    #[inline]
    fn count(&self, before: usize, after: usize) {
        if after > before {
            self.keys.0.fetch_add((after - before) as u64, Relaxed);
        } else if after < before {
            self.keys.0.fetch_sub((before - after) as u64, Relaxed);
        }
    }

    #[inline]
    fn hash(&self, name: &[u8]) -> u64 {
        self.hasher.hash_one(name)
    }

    /// The shard of a table. Uses other bits of its hash than its position there does.
    #[inline]
    #[expect(
        clippy::indexing_slicing,
        reason = "there are as many shards as a byte has values"
    )]
    fn shard(&self, hash: u64) -> &Shard {
        let [_, _, _, byte, ..] = hash.to_le_bytes();
        &self.shards[usize::from(byte)]
    }

    fn tables(&self) -> usize {
        self.shards.iter().map(|shard| shard.read().len()).sum()
    }
}

impl Default for MemTable {
    fn default() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Shard::default()).collect(),
            hasher: RandomState::default(),
            cache: TableCache::default(),
            keys: Count::default(),
        }
    }
}

impl fmt::Debug for MemTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemTable")
            .field("tables", &self.tables())
            .finish_non_exhaustive()
    }
}

// A panic while a shard is locked poisons its lock. The map is whole all the same, so it is used
// again.

impl Shard {
    #[inline]
    fn read(&self) -> RwLockReadGuard<'_, HashTable<Table>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashTable<Table>> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    #[inline]
    fn name(&self) -> &[u8] {
        match self {
            Self::Small(packed) => packed.name().unwrap_or_default(),
            Self::Locked(table) => table.name(),
        }
    }

    #[inline]
    fn is_named(&self, name: &[u8]) -> bool {
        self.name() == name
    }
}

#[cfg(test)]
mod tests;
