//! Tables in memory: gone when the process ends.
//!
//! A concurrent map of tables, each a map under one lock of its own. The lock is what makes a command
//! with several keys atomic, and keeps a table of one row small: a concurrent map in place of it costs
//! 1 KiB while it is empty. No guard of the outer map is held while a table's lock is waited for, so
//! that a long read of one table holds up nobody but its writers.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;
use dashmap::DashMap;
use futures::{Stream, stream};

use super::{Room, Storage, StorageError, StorageStats};
use crate::abi::{Kvpair, Value, value};

/// A [`Storage`] in memory. It never fails, and promises nothing beyond the life of the process.
#[derive(Default)]
pub struct MemTable {
    tables: DashMap<Box<str>, Arc<Table>>,
    /// How many rows all of them have.
    keys: AtomicU64,
}

/// For how many pairs room is made at once: a table may have far more than there is room for.
const MOST_RESERVED: usize = 4096;

type Rows = HashMap<Box<str>, Value>;

#[derive(Default)]
struct Table {
    contents: RwLock<Contents>,
}

#[derive(Default)]
struct Contents {
    rows: Rows,
    /// Set when the table was emptied and so taken out of the map: who still has it must look again.
    retired: bool,
}

impl MemTable {
    /// A store without tables.
    pub fn new() -> Self {
        Self::default()
    }

    fn read<R>(&self, table: &str, read: impl FnOnce(&Rows) -> R) -> Option<R> {
        let table = self.find(table)?;
        let contents = table.read();
        // A retired table is an empty one, which is what its name stands for until it is created anew.
        Some(read(&contents.rows))
    }

    fn write<R>(&self, table: &str, write: impl FnOnce(&mut Rows) -> R) -> R {
        loop {
            let found = self.find(table);
            let found =
                found.unwrap_or_else(|| Arc::clone(&self.tables.entry(table.into()).or_default()));
            let mut contents = found.write();
            if !contents.retired {
                let before = contents.rows.len();
                let result = write(&mut contents.rows);
                self.recount(before, contents.rows.len());
                self.retire_if_empty(table, &mut contents);
                return result;
            }
        }
    }

    /// Removes rows, and the table with its last.
    fn remove<R>(&self, table: &str, remove: impl FnOnce(&mut Rows) -> R) -> Option<R> {
        let found = self.find(table)?;
        let mut contents = found.write();
        let before = contents.rows.len();
        let removed = remove(&mut contents.rows);
        self.recount(before, contents.rows.len());
        self.retire_if_empty(table, &mut contents);
        Some(removed)
    }

    fn retire_if_empty(&self, table: &str, contents: &mut Contents) {
        if contents.rows.is_empty() && !contents.retired {
            contents.retired = true;
            // The only place that locks the map while it holds a table's lock; nobody does the reverse.
            self.tables.remove(table);
        }
    }

    fn recount(&self, before: usize, after: usize) {
        if after > before {
            self.keys.fetch_add((after - before) as u64, Relaxed);
        } else if after < before {
            self.keys.fetch_sub((before - after) as u64, Relaxed);
        }
    }

    fn find(&self, table: &str) -> Option<Arc<Table>> {
        self.tables.get(table).map(|found| Arc::clone(&found))
    }
}

impl fmt::Debug for MemTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemTable")
            .field("tables", &self.tables.len())
            .finish_non_exhaustive()
    }
}

impl Table {
    // A panic while a lock is held would poison it. The rows are whole at every moment that could panic,
    // so the lock is taken all the same.
    fn read(&self) -> RwLockReadGuard<'_, Contents> {
        self.contents.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Contents> {
        self.contents
            .write()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Storage for MemTable {
    async fn get(&self, table: &str, key: &str) -> Result<Option<Value>, StorageError> {
        Ok(self.read(table, |rows| rows.get(key).cloned()).flatten())
    }

    async fn get_many(
        &self,
        table: &str,
        keys: &[String],
        max_bytes: usize,
    ) -> Result<Vec<Option<Value>>, StorageError> {
        let mut room = Room::new(max_bytes);
        let values = self.read(table, |rows| {
            // Collected as results they would grow one doubling after the other.
            let mut values = Vec::with_capacity(keys.len());
            for key in keys {
                let value = rows.get(key.as_str());
                room.take_any(value)?;
                values.push(value.cloned());
            }
            Ok(values)
        });
        values.unwrap_or_else(|| Ok(vec![None; keys.len()]))
    }

    async fn get_all(&self, table: &str, max_bytes: usize) -> Result<Vec<Kvpair>, StorageError> {
        let mut room = Room::new(max_bytes);
        let pairs = self.read(table, |rows| {
            let mut pairs = Vec::with_capacity(rows.len().min(MOST_RESERVED));
            for (key, value) in rows {
                room.take(key, value)?;
                pairs.push(Kvpair::new(&**key, value.clone()));
            }
            Ok(pairs)
        });
        pairs.unwrap_or_else(|| Ok(Vec::new()))
    }

    fn get_iter(&self, table: &str) -> impl Stream<Item = Result<Kvpair, StorageError>> + Send {
        let keys: Vec<Box<str>> = self
            .read(table, |rows| rows.keys().cloned().collect())
            .unwrap_or_default();
        let table = self.find(table);
        stream::iter(keys.into_iter().filter_map(move |key| {
            let value = table.as_ref()?.read().rows.get(&key).cloned()?;
            Some(Ok(Kvpair::new(key, value)))
        }))
    }

    async fn contains(&self, table: &str, key: &str) -> Result<bool, StorageError> {
        Ok(self
            .read(table, |rows| rows.contains_key(key))
            .unwrap_or(false))
    }

    async fn contains_many(&self, table: &str, keys: &[String]) -> Result<Vec<bool>, StorageError> {
        let found = self.read(table, |rows| {
            keys.iter()
                .map(|key| rows.contains_key(key.as_str()))
                .collect()
        });
        Ok(found.unwrap_or_else(|| vec![false; keys.len()]))
    }

    async fn set(
        &self,
        table: &str,
        key: &str,
        value: Value,
        max_bytes: usize,
    ) -> Result<Option<Value>, StorageError> {
        let value = detach(value);
        let stored = self.write(table, |rows| {
            fits(rows, key, max_bytes).then(|| replace(rows, key, value))
        });
        stored.ok_or(StorageError::AnswerTooLarge { max_bytes })
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
        self.write(table, |rows| {
            let values = keys.iter().zip(values);
            let previous = values
                .map(|(key, value)| replace(rows, key, value))
                .collect();
            or_undo(rows, &keys, previous, max_bytes)
        })
    }

    async fn del(
        &self,
        table: &str,
        key: &str,
        max_bytes: usize,
    ) -> Result<Option<Value>, StorageError> {
        let removed = self.remove(table, |rows| {
            fits(rows, key, max_bytes).then(|| rows.remove(key))
        });
        removed
            .unwrap_or(Some(None))
            .ok_or(StorageError::AnswerTooLarge { max_bytes })
    }

    async fn del_many(
        &self,
        table: &str,
        keys: &[String],
        max_bytes: usize,
    ) -> Result<Vec<Option<Value>>, StorageError> {
        let values = self.remove(table, |rows| {
            let previous = keys.iter().map(|key| rows.remove(key.as_str())).collect();
            or_undo(rows, keys, previous, max_bytes)
        });
        values.unwrap_or_else(|| Ok(vec![None; keys.len()]))
    }

    fn stats(&self) -> StorageStats {
        StorageStats::new(self.tables.len() as u64, self.keys.load(Relaxed))
    }

    async fn sync(&self) -> Result<(), StorageError> {
        Ok(())
    }
}

/// Whether the value of a key has no more bytes than that; any number needs no look.
fn fits(rows: &Rows, key: &str, max_bytes: usize) -> bool {
    max_bytes == usize::MAX
        || rows
            .get(key)
            .is_none_or(|value| value.payload_len() <= max_bytes)
}

/// Replaces the value of a key that exists without copying the key.
fn replace(rows: &mut Rows, key: &str, value: Value) -> Option<Value> {
    match rows.get_mut(key) {
        Some(place) => Some(std::mem::replace(place, value)),
        None => rows.insert(key.into(), value),
    }
}

/// Gives the values that were replaced, or puts them back where there is no room for them. To look at them
/// afterwards costs one look at each; beforehand it would be two.
fn or_undo(
    rows: &mut Rows,
    keys: &[String],
    previous: Vec<Option<Value>>,
    max_bytes: usize,
) -> Result<Vec<Option<Value>>, StorageError> {
    let mut room = Room::new(max_bytes);
    let mut present = previous.iter().flatten();
    let Err(error) = present.try_for_each(|value| room.take("", value)) else {
        return Ok(previous);
    };
    // Backwards, so that of a key that comes twice the first has the last word.
    for (key, value) in keys.iter().zip(previous).rev() {
        match value {
            Some(value) => rows.insert(key.as_str().into(), value),
            None => rows.remove(key.as_str()),
        };
    }
    Err(error)
}

/// Copies a binary value out of the frame that it is a slice of.
fn detach(mut value: Value) -> Value {
    if let Some(value::Value::Binary(bytes)) = &mut value.value {
        *bytes = Bytes::copy_from_slice(bytes);
    }
    value
}

#[cfg(test)]
mod tests {
    use futures::executor::block_on;

    use super::*;

    #[test]
    fn reading_creates_no_table_and_the_last_row_takes_its_table_with_it() {
        let store = MemTable::new();
        let keys = ["a".to_owned(), "b".to_owned()];
        block_on(async {
            store.get("t", "a").await.unwrap();
            store.get_many("t", &keys, usize::MAX).await.unwrap();
            store.get_all("t", usize::MAX).await.unwrap();
            store.contains("t", "a").await.unwrap();
            store.contains_many("t", &keys).await.unwrap();
            store.del("t", "a", usize::MAX).await.unwrap();
            store.del_many("t", &keys, usize::MAX).await.unwrap();
            store.set_many("t", Vec::new(), usize::MAX).await.unwrap();
            drop(store.get_iter("t"));
            assert_eq!(store.tables.len(), 0);

            store.set("t", "a", 1.into(), usize::MAX).await.unwrap();
            store.set("t", "b", 2.into(), usize::MAX).await.unwrap();
            store.del("t", "a", usize::MAX).await.unwrap();
            assert_eq!(store.tables.len(), 1);
            store.del_many("t", &keys, usize::MAX).await.unwrap();
            assert_eq!(store.tables.len(), 0);
        });
    }
}
