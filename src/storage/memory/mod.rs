//! Tables in memory: gone when the process ends.
//!
//! The tables are spread by their names over maps under a lock each, the shards. A table of a few small rows lies
//! there itself, in one allocation with its name, and is read and written under the lock of its shard. A larger one
//! has a lock of its own, for which nobody waits while holding that of a shard, so that a long command on one table
//! holds up nobody but those who want this table, as far as they cannot go at once with it; one of thousands of rows has
//! several, each for a part of them. Whichever lock it is makes a command with several keys atomic.

mod block;
mod commands;
mod in_place;
mod large;
mod least;
mod near;
mod rows;
mod value;

pub(crate) use in_place::MAX_REPLACED;

use std::fmt;
use std::hash::BuildHasher;
use std::mem;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use foldhash::quality::RandomState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use self::block::{MAX_PACKED, Packed};
use self::rows::Rows;
use self::value::Stored;
use crate::abi::Value;
use large::{Change, Contents, Large, ReadParts, Wanted};
use near::Near;

/// How many shards there are: enough that two commands rarely meet in one, and that none takes long to grow.
const SHARDS: usize = 256;

/// How many rows one command at most changes under the lock of a shard.
const MOST_IN_A_SHARD: usize = 64;

/// A [`Storage`](super::Storage) in memory. It never fails, and promises nothing beyond the life of the process.
///
/// Names and keys are found by foldhash, seeded at random. It costs a request 390 instructions less than SipHash, and does
/// not hold against a client that takes pains to choose keys that collide: such a one makes a table slow to search, as
/// whoever may ask for all of a large table can keep the server busy too.
pub struct MemTable {
    shards: Box<[Shard]>,
    hasher: RandomState,
    near: Near,
    /// How many rows all the tables have.
    keys: Count,
}

/// What is changed often, beside nothing that is read as often.
#[derive(Default)]
#[repr(align(128))]
struct Count(AtomicU64);

/// Some of the tables, on cache lines of their own.
#[derive(Default)]
#[repr(align(64))]
struct Shard(RwLock<HashTable<Table>>);

/// A table, and its name.
enum Table {
    Small(Packed),
    Large(Arc<Large>),
}

/// A table's rows, to be read.
#[derive(Clone, Copy)]
enum View<'a> {
    Small(&'a Packed),
    Large(&'a Rows),
    Parts(&'a ReadParts<'a>),
}

impl MemTable {
    /// A store without tables.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads a table; one that is not there has no rows.
    fn read<R>(&self, name: &[u8], read: impl FnOnce(View<'_>) -> R) -> R {
        self.read_parts(name, |_| Wanted::ALL, read)
    }

    /// Reads rows of a table; none but those with these keys are looked at.
    fn read_rows<R>(&self, name: &[u8], keys: &[String], read: impl FnOnce(View<'_>) -> R) -> R {
        let wanted = |large: &Large| large.wanted(keys.iter().map(String::as_bytes));
        self.read_parts(name, wanted, read)
    }

    fn read_parts<R>(
        &self,
        name: &[u8],
        wanted: impl Fn(&Large) -> Wanted,
        read: impl FnOnce(View<'_>) -> R,
    ) -> R {
        let hash = self.hash(name);
        loop {
            let shard = self.shard(hash).read();
            let large = match shard.find(hash, |table| table.is_named(name)) {
                None => return read(View::Small(&Packed::default())),
                Some(Table::Small(rows)) => return read(View::Small(rows)),
                Some(Table::Large(large)) => self.learned(hash, large),
            };
            drop(shard);
            if let Some(whole) = large.whole() {
                let contents = whole.read();
                if !contents.retired {
                    return read(View::Large(&contents.rows));
                }
            } else {
                let parts = large.read_parts(wanted(&large));
                if !parts.is_retired() {
                    return read(View::Parts(&parts));
                }
            }
        }
    }

    /// Reads one row of a table.
    fn read_row<R>(
        &self,
        name: &[u8],
        key: &[u8],
        read: impl FnOnce(Option<Stored<'_>>) -> R,
    ) -> R {
        match self.read_known(self.hash(name), name, key, read) {
            Ok(value) => value,
            Err(read) => {
                let wanted = |large: &Large| large.wanted([key].into_iter());
                self.read_parts(name, wanted, |rows| read(rows.get(key)))
            }
        }
    }

    /// Reads one row of a table in parts that this thread knows, or gives back what was to read it. Out of line, so that
    /// the way of other tables is no longer for it.
    #[inline(never)]
    fn read_known<R, F: FnOnce(Option<Stored<'_>>) -> R>(
        &self,
        hash: u64,
        name: &[u8],
        key: &[u8],
        read: F,
    ) -> Result<R, F> {
        if let Some(known) = self.near.known(hash)
            && let Some(large) = known.table(name)
            && let Some(contents) = large.lock_of(key).read_soon()
        {
            return Ok(read(contents.rows.get(key)));
        }
        Err(read)
    }

    /// Changes the rows of a table that have these keys, and no others. One that is not there has no rows, and one without
    /// rows is not there afterwards.
    fn change<R>(
        &self,
        name: &str,
        keys: &[impl AsRef<str>],
        mut change: impl FnOnce(&mut dyn Change) -> R,
    ) -> R {
        let hash = self.hash(name.as_bytes());
        loop {
            if let Some(large) = self.find_large(hash, name.as_bytes()) {
                match self.change_large(hash, &large, keys, change) {
                    Ok(changed) => return changed,
                    Err(unused) => change = unused,
                }
            }
            let mut shard = self.shard(hash).write();
            let same = |table: &Table| table.is_named(name.as_bytes());
            let mut found = shard.entry(hash, same, |table| self.hash(table.name()));
            let packed = match &mut found {
                Entry::Vacant(_) => Packed::named(name).unwrap_or_default(),
                Entry::Occupied(found) => match found.get_mut() {
                    Table::Small(packed) => mem::take(packed),
                    // It has grown, or was created anew, since it was looked for.
                    Table::Large(_) => continue,
                },
            };
            let mut rows = Rows::new(packed, self.hasher.clone());
            if keys.len() > MOST_IN_A_SHARD {
                // That takes too long for all the other tables here.
                let large = self.large(name, rows);
                match found {
                    Entry::Vacant(place) => drop(place.insert(large)),
                    Entry::Occupied(mut place) => *place.get_mut() = large,
                }
                continue;
            }
            // Nothing that is called from here on panics, so that whatever was taken out is put back.
            let changed = self.counted(&mut rows, |rows| change(rows));
            match found {
                Entry::Vacant(_) if rows.is_empty() => {}
                Entry::Vacant(place) => {
                    place.insert(self.table(name, rows));
                }
                Entry::Occupied(place) if rows.is_empty() => {
                    place.remove();
                    self.make_fit(&mut shard);
                }
                Entry::Occupied(mut place) => *place.get_mut() = self.table(name, rows),
            }
            return changed;
        }
    }

    /// [`change`](Self::change), of a table with locks of its own. If it is retired, what was to change it is given back.
    fn change_large<R, F: FnOnce(&mut dyn Change) -> R>(
        &self,
        hash: u64,
        large: &Large,
        keys: &[impl AsRef<str>],
        change: F,
    ) -> Result<R, F> {
        let Some(whole) = large.whole() else {
            let keys = keys.iter().map(|key| key.as_ref().as_bytes());
            let mut parts = large.write_parts(large.wanted(keys));
            if parts.is_retired() {
                return Err(change);
            }
            let changed = self.counted(&mut parts, |rows| change(rows));
            let may_be_empty = parts.is_any_empty();
            drop(parts);
            if may_be_empty {
                self.retire_if_empty(hash, large);
            }
            return Ok(changed);
        };
        let mut contents = whole.write();
        if contents.rows.are_many() && !contents.retired {
            self.spread(hash, large, &mut contents);
        }
        if contents.retired {
            return Err(change);
        }
        let changed = self.counted(&mut contents.rows, |rows| change(rows));
        if contents.rows.is_empty() {
            contents.retired = true;
            // A shard is locked while a table is, but nobody does the reverse.
            self.forget(hash, large.name());
        }
        Ok(changed)
    }

    /// [`change`](Self::change), of one row.
    fn change_row<R>(&self, name: &str, key: &str, change: impl FnOnce(&mut dyn Change) -> R) -> R {
        if let Some(known) = self.near.known(self.hash(name.as_bytes()))
            && let Some(large) = known.table(name.as_bytes())
            && let Some(mut contents) = large.lock_of(key.as_bytes()).write_soon()
            // Otherwise it may be the last row of all.
            && contents.rows.len() > 1
        {
            return self.counted(&mut contents.rows, |rows| change(rows));
        }
        self.change(name, &[key], change)
    }

    fn find_large(&self, hash: u64, name: &[u8]) -> Option<Arc<Large>> {
        let shard = self.shard(hash).read();
        match shard.find(hash, |table| table.is_named(name))? {
            Table::Small(_) => None,
            Table::Large(large) => Some(self.learned(hash, large)),
        }
    }

    fn learned(&self, hash: u64, large: &Arc<Large>) -> Arc<Large> {
        self.learn(hash, large);
        Arc::clone(large)
    }

    /// A table whose shard is locked is one that this thread knows from then on, if it is in parts.
    fn learn(&self, hash: u64, large: &Arc<Large>) {
        if large.whole().is_none()
            && let Some(mut known) = self.near.known(hash)
        {
            known.learn(large);
        }
    }

    /// Puts a table in parts in the place of one that is locked, and retires that.
    fn spread(&self, hash: u64, large: &Large, contents: &mut Contents) {
        let rows = mem::take(&mut contents.rows);
        let table = Table::Large(Arc::new(large.spread(rows)));
        contents.retired = true;
        self.near.spread();
        let mut shard = self.shard(hash).write();
        if let Some(place) = shard.find_mut(hash, |table| table.is_named(large.name())) {
            *place = table;
        }
    }

    /// Takes a table in parts away if it has no rows.
    fn retire_if_empty(&self, hash: u64, large: &Large) {
        let mut parts = large.write_parts(Wanted::ALL);
        if Change::len(&parts) == 0 && !parts.is_retired() {
            parts.retire();
            self.forget(hash, large.name());
            self.near.forget(hash, large);
        }
    }

    fn forget(&self, hash: u64, name: &[u8]) {
        let mut shard = self.shard(hash).write();
        if let Ok(found) = shard.find_entry(hash, |table| table.is_named(name)) {
            found.remove();
        }
        self.make_fit(&mut shard);
    }

    /// Gives back the room of tables that are gone.
    fn make_fit(&self, shard: &mut HashTable<Table>) {
        if shard.len() < shard.capacity() / 8 {
            shard.shrink_to(shard.len() * 2, |table| self.hash(table.name()));
        }
    }

    /// A table with these rows, small or large.
    fn table(&self, name: &str, rows: Rows) -> Table {
        let small = rows.into_named().map(Table::Small);
        small.unwrap_or_else(|rows| self.large(name, rows))
    }

    fn large(&self, name: &str, rows: Rows) -> Table {
        Table::Large(Arc::new(Large::new(name, rows, self.hasher.clone())))
    }

    fn counted<T: Change, R>(&self, rows: &mut T, change: impl FnOnce(&mut T) -> R) -> R {
        let before = rows.len();
        let changed = change(rows);
        let after = rows.len();
        if after > before {
            self.keys.0.fetch_add((after - before) as u64, Relaxed);
        } else if after < before {
            self.keys.0.fetch_sub((before - after) as u64, Relaxed);
        }
        changed
    }

    fn hash(&self, name: &[u8]) -> u64 {
        self.hasher.hash_one(name)
    }

    /// The shard of a table: by other bits of its hash than those that its place there goes by.
    #[expect(
        clippy::indexing_slicing,
        reason = "a byte, and there are as many shards as it has values"
    )]
    fn shard(&self, hash: u64) -> &Shard {
        let [_, _, _, byte, ..] = hash.to_le_bytes();
        &self.shards[usize::from(byte)]
    }

    fn value(&self, table: &str, key: &str) -> Option<Value> {
        let value = |stored: Option<Stored<'_>>| stored.map(Stored::to_value);
        self.read_row(table.as_bytes(), key.as_bytes(), value)
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
            near: Near::default(),
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

// A panic while a lock is held would poison it. What it guards is whole whenever something could panic, so it is taken
// all the same.

impl Shard {
    fn read(&self) -> RwLockReadGuard<'_, HashTable<Table>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashTable<Table>> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn name(&self) -> &[u8] {
        match self {
            Self::Small(packed) => packed.name().unwrap_or_default(),
            Self::Large(large) => large.name(),
        }
    }

    fn is_named(&self, name: &[u8]) -> bool {
        self.name() == name
    }
}

impl<'a> View<'a> {
    fn get(self, key: &[u8]) -> Option<Stored<'a>> {
        match self {
            Self::Small(packed) => packed.get(key),
            Self::Large(rows) => rows.get(key),
            Self::Parts(parts) => parts.get(key),
        }
    }

    fn len(self) -> usize {
        match self {
            Self::Small(packed) => packed.rows().count(),
            Self::Large(rows) => rows.len(),
            Self::Parts(parts) => parts.len(),
        }
    }

    /// The rows: keys, which are text, and values.
    fn rows(self) -> impl Iterator<Item = (&'a [u8], Stored<'a>)> {
        let (packed, rows, parts) = match self {
            Self::Small(packed) => (Some(packed), None, None),
            Self::Large(rows) => (None, Some(rows), None),
            Self::Parts(parts) => (None, None, Some(parts)),
        };
        let packed = packed.into_iter().flat_map(Packed::rows);
        let parts = parts.into_iter().flat_map(ReadParts::contents);
        let rows = rows.into_iter().chain(parts.map(|contents| &contents.rows));
        packed.chain(rows.flat_map(Rows::iter))
    }
}

#[cfg(test)]
mod tests;
