//! What every storage does, on tables in memory.

use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use futures::{Stream, stream};

use super::MemTable;
use super::block::MAX_PACKED;
use super::large::Change;
use super::least::Least;
use super::value::{Stored, text};
use crate::abi::{Kvpair, Value, value};
use crate::storage::{ByteBudget, Storage, StorageError, StorageStats};

/// For how many pairs room is made at once: a table may have far more than there is room for.
const MOST_RESERVED: usize = 4096;

impl Storage for MemTable {
    async fn get(&self, table: &str, key: &str) -> Result<Option<Value>, StorageError> {
        Ok(self.value(table, key))
    }

    async fn get_many(
        &self,
        table: &str,
        keys: &[String],
        max_bytes: usize,
    ) -> Result<Vec<Option<Value>>, StorageError> {
        let mut budget = ByteBudget::new(max_bytes);
        self.read_rows(table.as_bytes(), keys, |rows| {
            // Collected as results they would grow one doubling after the other.
            let mut values = Vec::with_capacity(keys.len());
            for key in keys {
                let stored = rows.get(key.as_bytes());
                budget.take(stored.map_or(0, Stored::payload_len))?;
                values.push(stored.map(Stored::to_value));
            }
            Ok(values)
        })
    }

    async fn get_all(&self, table: &str, max_bytes: usize) -> Result<Vec<Kvpair>, StorageError> {
        let mut budget = ByteBudget::new(max_bytes);
        self.read(table.as_bytes(), |rows| {
            let mut pairs = Vec::with_capacity(rows.len().min(MOST_RESERVED));
            for (key, stored) in rows.rows() {
                budget.take(key.len() + stored.payload_len())?;
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
            let value = self.value(table, &key)?;
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
        let is_some = |stored: Option<Stored<'_>>| stored.is_some();
        Ok(self.read_row(table.as_bytes(), key.as_bytes(), is_some))
    }

    async fn contains_many(&self, table: &str, keys: &[String]) -> Result<Vec<bool>, StorageError> {
        Ok(self.read_rows(table.as_bytes(), keys, |rows| {
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
        self.change_row(table, key, |rows| {
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
        self.change(table, &keys, |rows| {
            let mut values = values.into_iter();
            let mut set =
                |rows: &mut dyn Change, key: &str| rows.insert(key.as_bytes(), values.next()?);
            all_or_none(rows, &keys, max_bytes, &mut set)
        })
    }

    async fn del(
        &self,
        table: &str,
        key: &str,
        max_bytes: usize,
    ) -> Result<Option<Value>, StorageError> {
        self.change_row(table, key, |rows| {
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
        self.change(table, keys, |rows| {
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
        StorageStats::new(self.tables() as u64, self.keys.0.load(Relaxed))
    }

    async fn sync(&self) -> Result<(), StorageError> {
        Ok(())
    }
}

/// Gives the value that was replaced or removed, or puts it back where there is no room for it. To look at it beforehand
/// would be to find it twice.
fn or_undo(
    rows: &mut dyn Change,
    key: &str,
    previous: Option<Value>,
    max_bytes: usize,
) -> Result<Option<Value>, StorageError> {
    match ByteBudget::new(max_bytes).take_value(previous.as_ref()) {
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
    rows: &mut dyn Change,
    keys: &[String],
    max_bytes: usize,
    change: &mut impl FnMut(&mut dyn Change, &str) -> Option<Value>,
) -> Result<Vec<Option<Value>>, StorageError> {
    let mut budget = ByteBudget::new(max_bytes);
    let mut previous = Vec::with_capacity(keys.len());
    for key in keys {
        let value = change(rows, key);
        let fits = budget.take_value(value.as_ref());
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

fn put_back(rows: &mut dyn Change, key: &str, value: Option<Value>) {
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
