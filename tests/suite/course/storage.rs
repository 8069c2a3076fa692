//! Lectures 22 and 26: functions over any storage, and a storage written in the program, tested
//! against the contract.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};

use bytes::Bytes;
use futures::{Stream, TryStreamExt, stream};
use kv::{
    ByteBudget, Kvpair, MemTable, SledDb, Storage, StorageError, Value, storage_tests, value,
};
use tokio::runtime::Handle;

use super::Result;

/// No limit: a program does not know how large an answer may be, unlike a server.
const ANY: usize = usize::MAX;

type Stored<T> = std::result::Result<T, StorageError>;
type Rows = BTreeMap<String, Value>;

/// Tables in one map behind one lock.
#[derive(Debug, Default)]
struct OwnStore {
    tables: Mutex<BTreeMap<String, Rows>>,
    /// Whether the store ignores `max_bytes`, which breaks the contract.
    uncounted: bool,
    /// Whether the store works only within a runtime, as a store across a network does.
    needs_runtime: bool,
}

impl OwnStore {
    fn tables(&self) -> MutexGuard<'_, BTreeMap<String, Rows>> {
        if self.needs_runtime {
            drop(Handle::current());
        }
        self.tables.lock().unwrap()
    }

    fn budget(&self, max_bytes: usize) -> ByteBudget {
        ByteBudget::new(if self.uncounted { ANY } else { max_bytes })
    }

    /// Changes a copy of a table. It replaces the table unless the previous values exceed
    /// `max_bytes`.
    fn change<T>(
        &self,
        table: &str,
        max_bytes: usize,
        changes: impl IntoIterator<Item = T>,
        change: impl Fn(&mut Rows, T) -> Option<Value>,
    ) -> Stored<Vec<Option<Value>>> {
        let mut tables = self.tables();
        let mut rows = tables.get(table).cloned().unwrap_or_default();
        let mut budget = self.budget(max_bytes);
        let mut replaced = Vec::new();
        for item in changes {
            let value = change(&mut rows, item);
            budget.take_value(value.as_ref())?;
            replaced.push(value);
        }
        match rows.is_empty() {
            true => tables.remove(table),
            false => tables.insert(table.to_owned(), rows),
        };
        Ok(replaced)
    }
}

/// A copy of a value that does not keep its frame alive.
fn copied(mut value: Value) -> Value {
    if let Some(value::Value::Binary(bytes)) = &mut value.value {
        *bytes = Bytes::copy_from_slice(bytes);
    }
    value
}

impl Storage for OwnStore {
    async fn get(&self, table: &str, key: &str) -> Stored<Option<Value>> {
        let tables = self.tables();
        Ok(tables.get(table).and_then(|rows| rows.get(key)).cloned())
    }

    async fn get_many(
        &self,
        table: &str,
        keys: &[String],
        max_bytes: usize,
    ) -> Stored<Vec<Option<Value>>> {
        let tables = self.tables();
        let mut budget = self.budget(max_bytes);
        let values = keys.iter().map(|key| {
            let value = tables.get(table).and_then(|rows| rows.get(key));
            budget.take_value(value)?;
            Ok(value.cloned())
        });
        values.collect()
    }

    async fn get_all(&self, table: &str, max_bytes: usize) -> Stored<Vec<Kvpair>> {
        let tables = self.tables();
        let mut budget = self.budget(max_bytes);
        let pairs = tables.get(table).into_iter().flatten().map(|(key, value)| {
            let pair = Kvpair::new(key, value.clone());
            budget.take_pair(&pair)?;
            Ok(pair)
        });
        pairs.collect()
    }

    fn get_iter(&self, table: &str) -> impl Stream<Item = Stored<Kvpair>> + Send {
        let rows = self.tables().get(table).cloned().unwrap_or_default();
        stream::iter(rows.into_iter().map(|pair| Ok(pair.into())))
    }

    async fn scan(
        &self,
        table: &str,
        from: &str,
        limit: usize,
        max_bytes: usize,
    ) -> Stored<Vec<Kvpair>> {
        let tables = self.tables();
        let Some(rows) = tables.get(table) else {
            return Ok(Vec::new());
        };
        let (mut pairs, mut bytes) = (Vec::new(), 0);
        for (key, value) in rows.range(from.to_owned()..).take(limit) {
            let pair = Kvpair::new(key, value.clone());
            bytes += pair.scanned_len();
            if bytes > max_bytes && !pairs.is_empty() {
                break;
            }
            pairs.push(pair);
        }
        Ok(pairs)
    }

    async fn contains(&self, table: &str, key: &str) -> Stored<bool> {
        Ok(self.get(table, key).await?.is_some())
    }

    async fn contains_many(&self, table: &str, keys: &[String]) -> Stored<Vec<bool>> {
        let values = self.get_many(table, keys, ANY).await?;
        Ok(values.iter().map(Option::is_some).collect())
    }

    async fn set(
        &self,
        table: &str,
        key: &str,
        value: Value,
        max_bytes: usize,
    ) -> Stored<Option<Value>> {
        let pair = vec![(key.to_owned(), value)];
        Ok(self.set_many(table, pair, max_bytes).await?.remove(0))
    }

    async fn set_many(
        &self,
        table: &str,
        pairs: Vec<(String, Value)>,
        max_bytes: usize,
    ) -> Stored<Vec<Option<Value>>> {
        self.change(table, max_bytes, pairs, |rows, (key, value)| {
            rows.insert(key, copied(value))
        })
    }

    async fn del(&self, table: &str, key: &str, max_bytes: usize) -> Stored<Option<Value>> {
        let key = [key.to_owned()];
        Ok(self.del_many(table, &key, max_bytes).await?.remove(0))
    }

    async fn del_many(
        &self,
        table: &str,
        keys: &[String],
        max_bytes: usize,
    ) -> Stored<Vec<Option<Value>>> {
        self.change(table, max_bytes, keys, |rows, key| rows.remove(key))
    }

    async fn sync(&self) -> Stored<()> {
        Ok(())
    }
}

async fn test_basic_interface(store: impl Storage) -> Result<()> {
    // The first set creates the table, and there is no previous value.
    let v = store.set("t1", "hello", "world".into(), ANY).await?;
    assert!(v.is_none());
    let v = store.set("t1", "hello", "world1".into(), ANY).await?;
    assert_eq!(v, Some("world".into()));

    assert_eq!(store.get("t1", "hello").await?, Some("world1".into()));
    assert_eq!(store.get("t1", "hello1").await?, None);
    assert!(store.get("t2", "hello1").await?.is_none());

    assert!(store.contains("t1", "hello").await?);
    assert!(!store.contains("t1", "hello1").await?);
    assert!(!store.contains("t2", "hello").await?);

    assert_eq!(store.del("t1", "hello", ANY).await?, Some("world1".into()));
    assert_eq!(store.del("t1", "hello1", ANY).await?, None);
    assert_eq!(store.del("t2", "hello", ANY).await?, None);
    Ok(())
}

async fn test_get_all_and_iter(store: impl Storage) -> Result<()> {
    store.set("t2", "k1", "v1".into(), ANY).await?;
    store.set("t2", "k2", "v2".into(), ANY).await?;
    let expected = vec![
        Kvpair::new("k1", "v1".into()),
        Kvpair::new("k2", "v2".into()),
    ];
    let mut data = store.get_all("t2", ANY).await?;
    data.sort_by(|a, b| a.partial_cmp(b).unwrap());
    assert_eq!(data, expected);
    let mut data: Vec<_> = store.get_iter("t2").try_collect().await?;
    data.sort_by(|a, b| a.partial_cmp(b).unwrap());
    assert_eq!(data, expected);
    Ok(())
}

#[tokio::test]
async fn functions_over_any_storage() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let sled = |name: &str| SledDb::open(directory.path().join(name));
    test_basic_interface(MemTable::new()).await?;
    test_basic_interface(sled("basic")?).await?;
    test_basic_interface(OwnStore::default()).await?;
    test_get_all_and_iter(MemTable::new()).await?;
    test_get_all_and_iter(sled("all")?).await?;
    test_get_all_and_iter(OwnStore::default()).await
}

#[tokio::test]
async fn a_server_serves_a_storage_of_the_program() -> Result<()> {
    super::client::with(OwnStore::default()).await
}

#[test]
fn a_storage_of_the_program_keeps_the_contract() {
    storage_tests::run(OwnStore::default);
}

#[test]
fn every_thread_of_the_contract_suite_has_a_runtime() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _entered = runtime.enter();
    storage_tests::run(|| OwnStore {
        needs_runtime: true,
        ..OwnStore::default()
    });
}

#[test]
#[should_panic(expected = "called `Result::unwrap_err()` on an `Ok` value")]
fn a_storage_that_ignores_max_bytes_breaks_the_contract() {
    storage_tests::run(|| OwnStore {
        uncounted: true,
        ..OwnStore::default()
    });
}
