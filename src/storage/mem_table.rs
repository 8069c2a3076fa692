//! Tables in memory: gone when the process ends.
//!
//! A concurrent map of tables, each a map under one lock of its own. The lock is what makes a command
//! with several keys atomic, and keeps a table of one row small: a concurrent map in place of it costs
//! 1 KiB while it is empty. No guard of the outer map is held while a table's lock is waited for, so
//! that a long read of one table holds up nobody but its writers.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;
use dashmap::DashMap;
use futures::{Stream, stream};

use super::{Storage, StorageError};
use crate::abi::{Kvpair, Value, value};

/// A [`Storage`] in memory. It never fails, and promises nothing beyond the life of the process.
#[derive(Default)]
pub struct MemTable {
    tables: DashMap<Box<str>, Arc<Table>>,
}

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
                return write(&mut contents.rows);
            }
        }
    }

    /// Removes rows, and the table with its last.
    fn remove<R>(&self, table: &str, remove: impl FnOnce(&mut Rows) -> R) -> Option<R> {
        let found = self.find(table)?;
        let mut contents = found.write();
        let removed = remove(&mut contents.rows);
        if contents.rows.is_empty() && !contents.retired {
            contents.retired = true;
            // The only place that locks the map while it holds a table's lock; nobody does the reverse.
            self.tables.remove(table);
        }
        Some(removed)
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
    ) -> Result<Vec<Option<Value>>, StorageError> {
        let values = self.read(table, |rows| {
            keys.iter()
                .map(|key| rows.get(key.as_str()).cloned())
                .collect()
        });
        Ok(values.unwrap_or_else(|| vec![None; keys.len()]))
    }

    async fn get_all(&self, table: &str) -> Result<Vec<Kvpair>, StorageError> {
        let pairs = self.read(table, |rows| {
            rows.iter()
                .map(|(key, value)| Kvpair::new(&**key, value.clone()))
                .collect()
        });
        Ok(pairs.unwrap_or_default())
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
    ) -> Result<Option<Value>, StorageError> {
        let value = detach(value);
        Ok(self.write(table, |rows| replace(rows, key, value)))
    }

    async fn set_many(
        &self,
        table: &str,
        pairs: Vec<(String, Value)>,
    ) -> Result<Vec<Option<Value>>, StorageError> {
        if pairs.is_empty() {
            return Ok(Vec::new());
        }
        let pairs: Vec<_> = pairs
            .into_iter()
            .map(|(key, value)| (key, detach(value)))
            .collect();
        Ok(self.write(table, |rows| {
            pairs
                .into_iter()
                .map(|(key, value)| replace(rows, &key, value))
                .collect()
        }))
    }

    async fn del(&self, table: &str, key: &str) -> Result<Option<Value>, StorageError> {
        Ok(self.remove(table, |rows| rows.remove(key)).flatten())
    }

    async fn del_many(
        &self,
        table: &str,
        keys: &[String],
    ) -> Result<Vec<Option<Value>>, StorageError> {
        let values = self.remove(table, |rows| {
            keys.iter().map(|key| rows.remove(key.as_str())).collect()
        });
        Ok(values.unwrap_or_else(|| vec![None; keys.len()]))
    }

    async fn sync(&self) -> Result<(), StorageError> {
        Ok(())
    }
}

/// Replaces the value of a key that exists without copying the key.
fn replace(rows: &mut Rows, key: &str, value: Value) -> Option<Value> {
    match rows.get_mut(key) {
        Some(place) => Some(std::mem::replace(place, value)),
        None => rows.insert(key.into(), value),
    }
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
            store.get_many("t", &keys).await.unwrap();
            store.get_all("t").await.unwrap();
            store.contains("t", "a").await.unwrap();
            store.contains_many("t", &keys).await.unwrap();
            store.del("t", "a").await.unwrap();
            store.del_many("t", &keys).await.unwrap();
            store.set_many("t", Vec::new()).await.unwrap();
            drop(store.get_iter("t"));
            assert_eq!(store.tables.len(), 0);

            store.set("t", "a", 1.into()).await.unwrap();
            store.set("t", "b", 2.into()).await.unwrap();
            store.del("t", "a").await.unwrap();
            assert_eq!(store.tables.len(), 1);
            store.del_many("t", &keys).await.unwrap();
            assert_eq!(store.tables.len(), 0);
        });
    }
}
