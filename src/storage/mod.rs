//! Where the tables are kept: the trait [`Storage`] and its backends, [`MemTable`] in memory and
//! [`SledDb`] on disk.
//!
//! A backend knows the values of messages and nothing else of the protocol. One test suite,
//! `storage_tests`, holds every backend to the contract, including those that others write.

#[cfg(feature = "sled")]
mod choice;
mod error;
mod memory;
mod part;
#[cfg(feature = "sled")]
mod sled;

use std::future::Future;
use std::ops::ControlFlow;

use crate::abi::{Keys, Kvpair, Text, Value, ValueRef};

#[cfg(feature = "sled")]
pub use self::sled::{SledConfig, SledDb, SyncPolicy};
#[cfg(feature = "sled")]
pub use choice::{DEFAULT_STORAGE, StorageChoice, UnknownStorage};
pub use error::{Applied, Damage, StorageError};
pub use memory::MemTable;
pub use part::{PartBudget, PartLimit};

/// The storage of a service or a server whose type names none.
pub(crate) type DefaultStorage = MemTable;

/// Named tables of keys and typed values.
///
/// Any UTF-8 string is a table name or a key, including the empty string, and no two pairs of a
/// table and a key ever collide. A table exists while it has keys: the first write creates it, the
/// last removal deletes it, and reads create nothing.
///
/// A backend implements [`read`](Self::read), [`read_all`](Self::read_all),
/// [`read_from`](Self::read_from), [`read_size`](Self::read_size), [`write`](Self::write) and
/// [`sync`](Self::sync). Programs mostly call the methods that are built on these:
/// [`get`](Self::get), [`set`](Self::set) and so on.
///
/// **Closures.** A read hands each value to a closure where it lies, so nothing is copied that the
/// caller does not keep. A write asks a closure what to do with each key, and shows it the previous
/// value. A closure that returns [`ControlFlow::Break`] ends the call, which then returns `Ok`:
/// the caller knows why it stopped. A backend may hold locks while it calls a closure, so a closure
/// must not call the storage, block or panic.
///
/// **Atomic.** Each call takes effect at one moment. A read of several keys sees all of them at one
/// moment; a write applies to all of its keys or to none. After a break, or an error with
/// [`Applied::No`], nothing has changed.
///
/// **Async and fallible.** A backend that answers at once returns a future that is ready at its
/// first poll, and says so in [`ANSWERS_AT_ONCE`](Self::ANSWERS_AT_ONCE); a backend across a
/// network may wait without holding a thread. Nothing happens before the first poll. An error is
/// never reported as a missing key.
///
/// **Durable** is what [`sync`](Self::sync) has confirmed.
///
/// **Copies.** A backend keeps nothing of the buffer that a value comes in: a value is a slice of a
/// whole frame.
///
/// The feature `storage-tests` has a suite that checks all of this: `kv::storage_tests::run`.
///
/// ```
/// use kv::{MemTable, Storage};
///
/// # futures::executor::block_on(async {
/// let store = MemTable::new();
/// assert_eq!(store.set("users", "alice", 42.into()).await?, None);
/// assert_eq!(store.get("users", "alice").await?, Some(42.into()));
/// # Ok::<(), kv::StorageError>(())
/// # }).unwrap();
/// ```
pub trait Storage: Send + Sync + 'static {
    /// Whether the futures of all reads and writes are ready at their first poll. A server answers
    /// requests to such a storage without leaving its task; a future that is not ready all the same
    /// is dropped and reported as [`StorageError::Late`].
    const ANSWERS_AT_ONCE: bool = false;

    /// Reads the values of keys: calls `each` once per key, in order, with [`None`] for a key that
    /// does not exist.
    fn read<F>(
        &self,
        table: Text<'_>,
        keys: Keys<'_>,
        each: F,
    ) -> impl Future<Output = Result<(), StorageError>> + Send
    where
        F: FnMut(Option<ValueRef<'_>>) -> ControlFlow<()> + Send;

    /// Reads every pair of a table, in no particular order. Calls nothing if there is no such
    /// table.
    fn read_all<F>(
        &self,
        table: Text<'_>,
        each: F,
    ) -> impl Future<Output = Result<(), StorageError>> + Send
    where
        F: FnMut(Text<'_>, ValueRef<'_>) -> ControlFlow<()> + Send;

    /// Reads a part of a table: its pairs in the order of the bytes of their keys, from the
    /// smallest key that is not less than `from`, as far as `limit` allows. Reaching the limit is
    /// no error. A part without pairs is the end of the table.
    fn read_from<F>(
        &self,
        table: Text<'_>,
        from: Text<'_>,
        limit: PartLimit,
        each: F,
    ) -> impl Future<Output = Result<(), StorageError>> + Send
    where
        F: FnMut(Text<'_>, ValueRef<'_>) -> ControlFlow<()> + Send;

    /// Returns the size of a table, 0 if there is no such table. A backend keeps count, so this
    /// takes no longer for a large table than for a small one.
    fn read_size(
        &self,
        table: Text<'_>,
    ) -> impl Future<Output = Result<TableSize, StorageError>> + Send;

    /// Changes the values of keys, all or none. Calls `change` for each key in order, with the
    /// position of the key and its value, [`None`] for a key that does not exist, and does what it
    /// returns. For a key that comes twice, the second call sees what the first has set.
    ///
    /// A backend that has to start over, because somebody else wrote to the same keys, calls
    /// `change` again from the first key, position 0.
    fn write<'v, F>(
        &self,
        table: Text<'_>,
        keys: Keys<'_>,
        change: F,
    ) -> impl Future<Output = Result<(), StorageError>> + Send
    where
        F: FnMut(usize, Option<ValueRef<'_>>) -> ControlFlow<(), Change<'v>> + Send;

    /// Returns once every write that returned before this call is durable, as far as the backend
    /// promises: on disk, it survives a power failure unless the backend is set to promise less.
    /// Concurrent callers share one sync.
    fn sync(&self) -> impl Future<Output = Result<(), StorageError>> + Send;

    /// Like [`sync`](Self::sync), with everything the backend can do, whatever it promises: for
    /// when no more is written, as at the end of a server.
    fn sync_all(&self) -> impl Future<Output = Result<(), StorageError>> + Send {
        self.sync()
    }

    /// Whether [`sync`](Self::sync) does anything. If not, writes are answered without it.
    fn is_durable(&self) -> bool {
        true
    }

    /// Reads which keys exist: calls `each` once per key, in order.
    fn read_existence<F>(
        &self,
        table: Text<'_>,
        keys: Keys<'_>,
        mut each: F,
    ) -> impl Future<Output = Result<(), StorageError>> + Send
    where
        F: FnMut(bool) -> ControlFlow<()> + Send,
    {
        self.read(table, keys, move |value| each(value.is_some()))
    }

    /// The kind of storage, in one word: `memory`, `sled`.
    fn kind(&self) -> &str {
        "other"
    }

    /// How much is stored, as far as that is known without reading all of it.
    fn stats(&self) -> StorageStats {
        StorageStats::default()
    }

    /// Fails if the storage is known to have failed for good: a disk on which a write or a sync has
    /// failed, until it is opened again. Called often, so it must be cheap.
    fn health(&self) -> Result<(), StorageError> {
        Ok(())
    }

    /// Returns once [`health`](Self::health) fails, which is final: whoever serves this storage
    /// should stop. A failure that may pass, such as a failed read, does not count.
    ///
    /// Never returns unless the backend knows such failures. A storage that wraps another one
    /// forwards this, as it does `health`.
    fn failed(&self) -> impl Future<Output = StorageError> + Send {
        std::future::pending()
    }

    /// Returns the value of a key, or [`None`] if it does not exist.
    fn get(
        &self,
        table: &str,
        key: &str,
    ) -> impl Future<Output = Result<Option<Value>, StorageError>> + Send {
        async move {
            let mut value = None;
            self.read(table.into(), Keys::one(key.into()), |stored| {
                value = stored.map(Value::from);
                ControlFlow::Continue(())
            })
            .await?;
            Ok(value)
        }
    }

    /// Returns the values of several keys, in order.
    fn get_many<K: AsRef<str> + Sync>(
        &self,
        table: &str,
        keys: &[K],
    ) -> impl Future<Output = Result<Vec<Option<Value>>, StorageError>> + Send {
        async move {
            let keys = texts(keys);
            let mut values = Vec::with_capacity(keys.len());
            self.read(table.into(), keys[..].into(), |stored| {
                values.push(stored.map(Value::from));
                ControlFlow::Continue(())
            })
            .await?;
            Ok(values)
        }
    }

    /// Returns every pair of a table, in no particular order.
    fn get_all(
        &self,
        table: &str,
    ) -> impl Future<Output = Result<Vec<Kvpair>, StorageError>> + Send {
        async move {
            let mut pairs = Vec::new();
            self.read_all(table.into(), |key, value| {
                pairs.push(Kvpair::new(key.as_str(), value.into()));
                ControlFlow::Continue(())
            })
            .await?;
            Ok(pairs)
        }
    }

    /// Returns a part of a table: see [`read_from`](Self::read_from).
    fn scan(
        &self,
        table: &str,
        from: &str,
        limit: PartLimit,
    ) -> impl Future<Output = Result<Vec<Kvpair>, StorageError>> + Send {
        async move {
            let mut pairs = Vec::new();
            self.read_from(table.into(), from.into(), limit, |key, value| {
                pairs.push(Kvpair::new(key.as_str(), value.into()));
                ControlFlow::Continue(())
            })
            .await?;
            Ok(pairs)
        }
    }

    /// Returns the number of keys of a table: see [`read_size`](Self::read_size).
    fn len(&self, table: &str) -> impl Future<Output = Result<u64, StorageError>> + Send {
        async { Ok(self.read_size(table.into()).await?.keys) }
    }

    /// Returns whether a key exists.
    fn contains(
        &self,
        table: &str,
        key: &str,
    ) -> impl Future<Output = Result<bool, StorageError>> + Send {
        async move {
            let mut exists = false;
            self.read_existence(table.into(), Keys::one(key.into()), |found| {
                exists = found;
                ControlFlow::Continue(())
            })
            .await?;
            Ok(exists)
        }
    }

    /// Returns which of several keys exist, in order.
    fn contains_many<K: AsRef<str> + Sync>(
        &self,
        table: &str,
        keys: &[K],
    ) -> impl Future<Output = Result<Vec<bool>, StorageError>> + Send {
        async move {
            let keys = texts(keys);
            let mut found = Vec::with_capacity(keys.len());
            self.read_existence(table.into(), keys[..].into(), |exists| {
                found.push(exists);
                ControlFlow::Continue(())
            })
            .await?;
            Ok(found)
        }
    }

    /// Stores a value and returns the previous one.
    fn set(
        &self,
        table: &str,
        key: &str,
        value: ValueRef<'_>,
    ) -> impl Future<Output = Result<Option<Value>, StorageError>> + Send {
        async move {
            let mut replaced = None;
            self.write(table.into(), Keys::one(key.into()), |_, previous| {
                replaced = previous.map(Value::from);
                ControlFlow::Continue(Change::Set(value))
            })
            .await?;
            Ok(replaced)
        }
    }

    /// Stores several values, all or none, and returns the previous ones, in order. If a key comes
    /// twice, the later value replaces the earlier, and gets it as its previous value.
    fn set_many<K: AsRef<str> + Sync>(
        &self,
        table: &str,
        pairs: &[(K, ValueRef<'_>)],
    ) -> impl Future<Output = Result<Vec<Option<Value>>, StorageError>> + Send {
        async move {
            let keys: Vec<Text<'_>> = pairs.iter().map(|(key, _)| key.as_ref().into()).collect();
            let mut replaced = Vec::with_capacity(pairs.len());
            self.write(table.into(), keys[..].into(), |position, previous| {
                let Some((_, value)) = pairs.get(position) else {
                    return ControlFlow::Continue(Change::Keep);
                };
                replaced.truncate(position);
                replaced.push(previous.map(Value::from));
                ControlFlow::Continue(Change::Set(*value))
            })
            .await?;
            Ok(replaced)
        }
    }

    /// Removes a key and returns its value.
    fn del(
        &self,
        table: &str,
        key: &str,
    ) -> impl Future<Output = Result<Option<Value>, StorageError>> + Send {
        async move {
            let mut removed = None;
            self.write(table.into(), Keys::one(key.into()), |_, previous| {
                removed = previous.map(Value::from);
                ControlFlow::Continue(Change::Remove)
            })
            .await?;
            Ok(removed)
        }
    }

    /// Removes several keys, all or none, and returns their values, in order. If a key comes twice,
    /// only the first gets its value.
    fn del_many<K: AsRef<str> + Sync>(
        &self,
        table: &str,
        keys: &[K],
    ) -> impl Future<Output = Result<Vec<Option<Value>>, StorageError>> + Send {
        async move {
            let keys = texts(keys);
            let mut removed = Vec::with_capacity(keys.len());
            self.write(table.into(), keys[..].into(), |position, previous| {
                removed.truncate(position);
                removed.push(previous.map(Value::from));
                ControlFlow::Continue(Change::Remove)
            })
            .await?;
            Ok(removed)
        }
    }
}

/// What a [write](Storage::write) does with a key.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Change<'v> {
    /// Leaves it as it is.
    Keep,
    /// Stores this value.
    Set(ValueRef<'v>),
    /// Removes the key, if it exists.
    Remove,
}

/// The size of a table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TableSize {
    /// The number of its keys.
    pub keys: u64,
    /// The size of its keys and values in bytes, encoded or not, without what the backend adds: at
    /// most 8 more than the answer to `Hgetall` takes. 0 if the backend does not count them.
    pub bytes: u64,
}

impl TableSize {
    /// A size of so many keys, which take this many bytes with their values.
    pub fn new(keys: u64, bytes: u64) -> Self {
        Self { keys, bytes }
    }
}

/// How much is stored; [`None`] if the backend cannot tell at once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StorageStats {
    /// The number of tables.
    pub tables: Option<u64>,
    /// The number of keys in all tables.
    pub keys: Option<u64>,
}

impl StorageStats {
    /// The statistics of a backend that knows both.
    pub fn new(tables: u64, keys: u64) -> Self {
        Self {
            tables: Some(tables),
            keys: Some(keys),
        }
    }
}

fn texts<K: AsRef<str>>(keys: &[K]) -> Vec<Text<'_>> {
    keys.iter().map(|key| key.as_ref().into()).collect()
}
