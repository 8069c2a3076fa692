//! Lectures 22 and 26: functions over any storage, and a storage written in the program, tested
//! against the contract.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::{Mutex, MutexGuard};

use kv::{
    Change, Keys, Kvpair, MemTable, PartBudget, PartLimit, SledDb, Storage, StorageError,
    TableSize, Text, Value, ValueRef, storage_tests,
};
use tokio::runtime::Handle;

use super::Result;

type Stored<T> = std::result::Result<T, StorageError>;
type Rows = BTreeMap<String, Value>;

/// Tables in one map behind one lock.
#[derive(Debug, Default)]
struct OwnStore {
    tables: Mutex<BTreeMap<String, Rows>>,
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
}

/// A copy of a value that does not keep its frame alive.
fn copied(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Binary(data) => Value::binary(data.as_bytes().to_vec()),
        other => other.into(),
    }
}

impl Storage for OwnStore {
    const ANSWERS_AT_ONCE: bool = true;

    async fn read<F>(&self, table: Text<'_>, keys: Keys<'_>, mut each: F) -> Stored<()>
    where
        F: FnMut(Option<ValueRef<'_>>) -> ControlFlow<()> + Send,
    {
        let tables = self.tables();
        let rows = tables.get(table.as_str());
        for key in keys {
            let value = rows.and_then(|rows| rows.get(key.as_str()));
            if each(value.and_then(ValueRef::new)).is_break() {
                break;
            }
        }
        Ok(())
    }

    async fn read_all<F>(&self, table: Text<'_>, each: F) -> Stored<()>
    where
        F: FnMut(Text<'_>, ValueRef<'_>) -> ControlFlow<()> + Send,
    {
        self.read_from(table, "".into(), PartLimit::NONE, each)
            .await
    }

    async fn read_from<F>(
        &self,
        table: Text<'_>,
        from: Text<'_>,
        limit: PartLimit,
        mut each: F,
    ) -> Stored<()>
    where
        F: FnMut(Text<'_>, ValueRef<'_>) -> ControlFlow<()> + Send,
    {
        let tables = self.tables();
        let Some(rows) = tables.get(table.as_str()) else {
            return Ok(());
        };
        let mut budget = PartBudget::new(limit);
        for (key, value) in rows.range(from.as_str().to_owned()..) {
            let (key, value) = (key.into(), ValueRef::new(value).unwrap());
            if !budget.take(key, value) || each(key, value).is_break() {
                break;
            }
        }
        Ok(())
    }

    async fn read_size(&self, table: Text<'_>) -> Stored<TableSize> {
        let tables = self.tables();
        let keys = tables.get(table.as_str()).map_or(0, BTreeMap::len);
        Ok(TableSize::new(keys as u64, 0))
    }

    async fn write<'v, F>(&self, table: Text<'_>, keys: Keys<'_>, mut change: F) -> Stored<()>
    where
        F: FnMut(usize, Option<ValueRef<'_>>) -> ControlFlow<(), Change<'v>> + Send,
    {
        let (mut tables, table) = (self.tables(), table.as_str());
        // Changes a copy of the table, which is dropped at a break.
        let mut rows = tables.get(table).cloned().unwrap_or_default();
        for (position, key) in keys.iter().enumerate() {
            let key = key.as_str();
            match change(position, rows.get(key).and_then(ValueRef::new)) {
                ControlFlow::Break(()) => return Ok(()),
                ControlFlow::Continue(Change::Keep) => {}
                ControlFlow::Continue(Change::Set(value)) => {
                    rows.insert(key.to_owned(), copied(value));
                }
                ControlFlow::Continue(Change::Remove) => {
                    rows.remove(key);
                }
            }
        }
        match rows.is_empty() {
            true => tables.remove(table),
            false => tables.insert(table.to_owned(), rows),
        };
        Ok(())
    }

    async fn sync(&self) -> Stored<()> {
        Ok(())
    }

    fn is_durable(&self) -> bool {
        false
    }
}

async fn test_basic_interface(store: impl Storage) -> Result<()> {
    // The first set creates the table, and there is no previous value.
    let v = store.set("t1", "hello", "world".into()).await?;
    assert!(v.is_none());
    let v = store.set("t1", "hello", "world1".into()).await?;
    assert_eq!(v, Some("world".into()));

    assert_eq!(store.get("t1", "hello").await?, Some("world1".into()));
    assert_eq!(store.get("t1", "hello1").await?, None);
    assert!(store.get("t2", "hello1").await?.is_none());

    assert!(store.contains("t1", "hello").await?);
    assert!(!store.contains("t1", "hello1").await?);
    assert!(!store.contains("t2", "hello").await?);

    assert_eq!(store.del("t1", "hello").await?, Some("world1".into()));
    assert_eq!(store.del("t1", "hello1").await?, None);
    assert_eq!(store.del("t2", "hello").await?, None);
    Ok(())
}

async fn test_get_all_and_scan(store: impl Storage) -> Result<()> {
    store.set("t2", "k1", "v1".into()).await?;
    store.set("t2", "k2", "v2".into()).await?;
    let expected = [
        Kvpair::new("k1", "v1".into()),
        Kvpair::new("k2", "v2".into()),
    ];
    let mut data = store.get_all("t2").await?;
    data.sort_by(|a, b| a.partial_cmp(b).unwrap());
    assert_eq!(data, expected);
    let part = store.scan("t2", "k2", PartLimit::new(10, 1000)).await?;
    assert_eq!(part, expected[1..]);
    Ok(())
}

#[tokio::test]
async fn functions_over_any_storage() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let sled = |name: &str| SledDb::open(directory.path().join(name));
    test_basic_interface(MemTable::new()).await?;
    test_basic_interface(sled("basic")?).await?;
    test_basic_interface(OwnStore::default()).await?;
    test_get_all_and_scan(MemTable::new()).await?;
    test_get_all_and_scan(sled("all")?).await?;
    test_get_all_and_scan(OwnStore::default()).await
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
