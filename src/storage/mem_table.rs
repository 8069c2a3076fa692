//! Tables in memory: gone when the process ends.
//!
//! The tables are spread by their names over maps under a lock each, the shards. A table of a few small rows lies
//! there itself, in one allocation with its name, and is read and written under the lock of its shard. A larger one
//! has a lock of its own, for which nobody waits while holding that of a shard, so that a long command on one table
//! holds up nobody but those who want this table, as far as they cannot go at once with it. Either lock is what makes a
//! command with several keys atomic.

mod in_place;

use std::fmt;
use std::hash::BuildHasher;
use std::mem;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;
use foldhash::quality::RandomState;
use futures::{Stream, stream};
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use super::mem_block::{MAX_PACKED, Packed, Stored, text};
use super::mem_least::Least;
use super::mem_rows::Rows;
use super::{Room, Storage, StorageError, StorageStats};
use crate::abi::{Kvpair, Value, value};

/// How many shards there are: enough that two commands rarely meet in one, and that none takes long to grow.
const SHARDS: usize = 256;

/// How many rows one command at most changes under the lock of a shard.
const MOST_IN_A_SHARD: usize = 64;

/// For how many pairs room is made at once: a table may have far more than there is room for.
const MOST_RESERVED: usize = 4096;

/// A [`Storage`] in memory. It never fails, and promises nothing beyond the life of the process.
///
/// Names and keys are found by foldhash, seeded at random. It costs a request 390 instructions less than SipHash, and does
/// not hold against a client that takes pains to choose keys that collide: such a one makes a table slow to search, as
/// whoever may ask for all of a large table can keep the server busy too.
pub struct MemTable {
    shards: Box<[Shard]>,
    hasher: RandomState,
    /// How many rows all the tables have.
    keys: AtomicU64,
}

/// Some of the tables, on cache lines of their own.
#[derive(Default)]
#[repr(align(64))]
struct Shard(RwLock<HashTable<Table>>);

/// A table, and its name.
enum Table {
    Small(Packed),
    Large(Arc<Large>),
}

struct Large {
    name: Box<str>,
    contents: RwLock<Contents>,
}

struct Contents {
    rows: Rows,
    /// Set when the table was emptied and so taken out of its shard: who still has it must look again.
    retired: bool,
}

/// A table's rows, to be read.
#[derive(Clone, Copy)]
enum View<'a> {
    Small(&'a Packed),
    Large(&'a Rows),
}

impl MemTable {
    /// A store without tables.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads a table; one that is not there has no rows.
    fn read<R>(&self, name: &[u8], read: impl FnOnce(View<'_>) -> R) -> R {
        let hash = self.hash(name);
        let shard = self.shard(hash).read();
        let large = match shard.find(hash, |table| table.is_named(name)) {
            None => return read(View::Small(&Packed::default())),
            Some(Table::Small(rows)) => return read(View::Small(rows)),
            Some(Table::Large(large)) => Arc::clone(large),
        };
        drop(shard);
        let contents = large.read();
        // A retired table is an empty one, which is what its name stands for until it is created anew.
        read(View::Large(&contents.rows))
    }

    /// Changes a table, as many rows of it at most. One that is not there has no rows, and one without rows is not there
    /// afterwards.
    fn change<R>(&self, name: &str, most: usize, change: impl FnOnce(&mut Rows) -> R) -> R {
        let hash = self.hash(name.as_bytes());
        loop {
            if let Some(large) = self.find_large(hash, name.as_bytes()) {
                let mut contents = large.write();
                if !contents.retired {
                    let changed = self.counted(&mut contents.rows, change);
                    if contents.rows.is_empty() {
                        contents.retired = true;
                        // The only place that locks a shard while a table is locked; nobody does the reverse.
                        self.forget(hash, name.as_bytes());
                    }
                    return changed;
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
            if most > MOST_IN_A_SHARD {
                // That takes too long for all the other tables here.
                let large = Table::large(name, rows);
                match found {
                    Entry::Vacant(place) => drop(place.insert(large)),
                    Entry::Occupied(mut place) => *place.get_mut() = large,
                }
                continue;
            }
            // Nothing that is called from here on panics, so that whatever was taken out is put back.
            let changed = self.counted(&mut rows, change);
            match found {
                Entry::Vacant(_) if rows.is_empty() => {}
                Entry::Vacant(place) => {
                    place.insert(Table::new(name, rows));
                }
                Entry::Occupied(place) if rows.is_empty() => {
                    place.remove();
                    self.make_fit(&mut shard);
                }
                Entry::Occupied(mut place) => *place.get_mut() = Table::new(name, rows),
            }
            return changed;
        }
    }

    fn find_large(&self, hash: u64, name: &[u8]) -> Option<Arc<Large>> {
        let shard = self.shard(hash).read();
        match shard.find(hash, |table| table.is_named(name))? {
            Table::Small(_) => None,
            Table::Large(large) => Some(Arc::clone(large)),
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

    fn counted<R>(&self, rows: &mut Rows, change: impl FnOnce(&mut Rows) -> R) -> R {
        let before = rows.len();
        let changed = change(rows);
        let after = rows.len();
        if after > before {
            self.keys.fetch_add((after - before) as u64, Relaxed);
        } else if after < before {
            self.keys.fetch_sub((before - after) as u64, Relaxed);
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

    fn tables(&self) -> usize {
        self.shards.iter().map(|shard| shard.read().len()).sum()
    }
}

impl Default for MemTable {
    fn default() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Shard::default()).collect(),
            hasher: RandomState::default(),
            keys: AtomicU64::new(0),
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

impl Large {
    fn read(&self) -> RwLockReadGuard<'_, Contents> {
        self.contents.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Contents> {
        let contents = self.contents.write();
        contents.unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn new(name: &str, rows: Rows) -> Self {
        let small = rows.into_named().map(Self::Small);
        small.unwrap_or_else(|rows| Self::large(name, rows))
    }

    fn large(name: &str, rows: Rows) -> Self {
        Self::Large(Arc::new(Large {
            name: name.into(),
            contents: RwLock::new(Contents {
                rows,
                retired: false,
            }),
        }))
    }

    fn name(&self) -> &[u8] {
        match self {
            Self::Small(packed) => packed.name().unwrap_or_default(),
            Self::Large(large) => large.name.as_bytes(),
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
        }
    }

    fn value(self, key: &str) -> Option<Value> {
        self.get(key.as_bytes()).map(Stored::to_value)
    }

    fn len(self) -> usize {
        match self {
            Self::Small(packed) => packed.rows().count(),
            Self::Large(rows) => rows.len(),
        }
    }

    /// The rows: keys, which are text, and values.
    fn rows(self) -> impl Iterator<Item = (&'a [u8], Stored<'a>)> {
        let (packed, rows) = match self {
            Self::Small(packed) => (Some(packed), None),
            Self::Large(rows) => (None, Some(rows)),
        };
        let packed = packed.into_iter().flat_map(Packed::rows);
        packed.chain(rows.into_iter().flat_map(Rows::iter))
    }
}

impl Storage for MemTable {
    async fn get(&self, table: &str, key: &str) -> Result<Option<Value>, StorageError> {
        Ok(self.read(table.as_bytes(), |rows| rows.value(key)))
    }

    async fn get_many(
        &self,
        table: &str,
        keys: &[String],
        max_bytes: usize,
    ) -> Result<Vec<Option<Value>>, StorageError> {
        let mut room = Room::new(max_bytes);
        self.read(table.as_bytes(), |rows| {
            // Collected as results they would grow one doubling after the other.
            let mut values = Vec::with_capacity(keys.len());
            for key in keys {
                let stored = rows.get(key.as_bytes());
                room.take(stored.map_or(0, Stored::payload_len))?;
                values.push(stored.map(Stored::to_value));
            }
            Ok(values)
        })
    }

    async fn get_all(&self, table: &str, max_bytes: usize) -> Result<Vec<Kvpair>, StorageError> {
        let mut room = Room::new(max_bytes);
        self.read(table.as_bytes(), |rows| {
            let mut pairs = Vec::with_capacity(rows.len().min(MOST_RESERVED));
            for (key, stored) in rows.rows() {
                room.take(key.len() + stored.payload_len())?;
                pairs.push(Kvpair::new(text(key), stored.to_value()));
            }
            Ok(pairs)
        })
    }

    fn get_iter(&self, table: &str) -> impl Stream<Item = Result<Kvpair, StorageError>> + Send {
        let keys = self.read(table.as_bytes(), |rows| {
            let keys = rows.rows().map(|(key, _)| Box::from(text(key)));
            keys.collect::<Vec<Box<str>>>()
        });
        stream::iter(keys.into_iter().filter_map(move |key| {
            let value = self.read(table.as_bytes(), |rows| rows.value(&key))?;
            Some(Ok(Kvpair::new(key, value)))
        }))
    }

    async fn scan(
        &self,
        table: &str,
        from: &str,
        limit: usize,
        max_bytes: usize,
    ) -> Result<Vec<Kvpair>, StorageError> {
        Ok(self.read(table.as_bytes(), |rows| {
            let mut least = Least::new(from, limit, max_bytes);
            rows.rows().for_each(|(key, value)| least.offer(key, value));
            least.into_pairs()
        }))
    }

    async fn contains(&self, table: &str, key: &str) -> Result<bool, StorageError> {
        Ok(self.read(table.as_bytes(), |rows| rows.get(key.as_bytes()).is_some()))
    }

    async fn contains_many(&self, table: &str, keys: &[String]) -> Result<Vec<bool>, StorageError> {
        Ok(self.read(table.as_bytes(), |rows| {
            keys.iter()
                .map(|key| rows.get(key.as_bytes()).is_some())
                .collect()
        }))
    }

    async fn set(
        &self,
        table: &str,
        key: &str,
        value: Value,
        max_bytes: usize,
    ) -> Result<Option<Value>, StorageError> {
        let value = detach(value);
        self.change(table, 1, |rows| {
            let previous = rows.insert(key.as_bytes(), value);
            or_undo(rows, key, previous, max_bytes)
        })
    }

    async fn set_many(
        &self,
        table: &str,
        pairs: Vec<(String, Value)>,
        max_bytes: usize,
    ) -> Result<Vec<Option<Value>>, StorageError> {
        if pairs.is_empty() {
            return Ok(Vec::new());
        }
        let (keys, values): (Vec<_>, Vec<_>) = pairs
            .into_iter()
            .map(|(key, value)| (key, detach(value)))
            .unzip();
        self.change(table, keys.len(), |rows| {
            let mut values = values.into_iter();
            let mut set = |rows: &mut Rows, key: &str| rows.insert(key.as_bytes(), values.next()?);
            all_or_none(rows, &keys, max_bytes, &mut set)
        })
    }

    async fn del(
        &self,
        table: &str,
        key: &str,
        max_bytes: usize,
    ) -> Result<Option<Value>, StorageError> {
        self.change(table, 1, |rows| {
            let removed = rows.remove(key.as_bytes());
            or_undo(rows, key, removed, max_bytes)
        })
    }

    async fn del_many(
        &self,
        table: &str,
        keys: &[String],
        max_bytes: usize,
    ) -> Result<Vec<Option<Value>>, StorageError> {
        self.change(table, keys.len(), |rows| {
            all_or_none(rows, keys, max_bytes, &mut |rows, key| {
                rows.remove(key.as_bytes())
            })
        })
    }

    fn kind(&self) -> &str {
        "memory"
    }

    fn in_memory(&self) -> Option<&MemTable> {
        Some(self)
    }

    fn stats(&self) -> StorageStats {
        StorageStats::new(self.tables() as u64, self.keys.load(Relaxed))
    }

    async fn sync(&self) -> Result<(), StorageError> {
        Ok(())
    }
}

/// Gives the value that was replaced or removed, or puts it back where there is no room for it. To look at it beforehand
/// would be to find it twice.
fn or_undo(
    rows: &mut Rows,
    key: &str,
    previous: Option<Value>,
    max_bytes: usize,
) -> Result<Option<Value>, StorageError> {
    match Room::new(max_bytes).take_any(previous.as_ref()) {
        Ok(()) => Ok(previous),
        Err(error) => {
            put_back(rows, key, previous);
            Err(error)
        }
    }
}

/// Changes the rows with these keys and gives the values that they had, unless there is no room for these: then it puts
/// them back.
fn all_or_none(
    rows: &mut Rows,
    keys: &[String],
    max_bytes: usize,
    change: &mut impl FnMut(&mut Rows, &str) -> Option<Value>,
) -> Result<Vec<Option<Value>>, StorageError> {
    let mut room = Room::new(max_bytes);
    let mut previous = Vec::with_capacity(keys.len());
    for key in keys {
        let value = change(rows, key);
        let fits = room.take_any(value.as_ref());
        previous.push(value);
        if let Err(error) = fits {
            // Backwards, so that of a key that comes twice the first has the last word.
            for (key, value) in keys.iter().zip(previous).rev() {
                put_back(rows, key, value);
            }
            return Err(error);
        }
    }
    Ok(previous)
}

fn put_back(rows: &mut Rows, key: &str, value: Option<Value>) {
    match value {
        Some(value) => rows.insert(key.as_bytes(), value),
        None => rows.remove(key.as_bytes()),
    };
}

/// Copies a binary value out of the frame that it is a slice of, if it is not copied anyway.
fn detach(mut value: Value) -> Value {
    if let Some(value::Value::Binary(bytes)) = &mut value.value
        && bytes.len() > MAX_PACKED
    {
        *bytes = Bytes::copy_from_slice(bytes);
    }
    value
}

#[cfg(test)]
mod tests;
