//! Where the tables are kept: the trait [`Storage`] and its backends, [`MemTable`] in memory and
//! [`SledDb`] on disk.
//!
//! A backend knows messages' values and nothing else of the protocol. One suite, `storage_tests`, holds every backend
//! to what this trait says, those that others write included.

mod byte_budget;
mod error;
mod memory;
mod sled;

use std::future::Future;

use futures::Stream;

use crate::abi::{Kvpair, Value};

pub use self::sled::{SledConfig, SledDb, SyncPolicy};
pub use byte_budget::ByteBudget;
pub use error::{Applied, Damage, StorageError};
pub(crate) use memory::MAX_REPLACED;
pub use memory::MemTable;

/// What a pair has at most beside its key and its value when it is encoded within an answer, in bytes: four tags and as
/// many lengths, of up to five bytes each. [`Storage::scan`] counts it with every pair.
const AROUND_PAIR: usize = 24;

/// Named tables of keys and typed values.
///
/// Any UTF-8 string is a table's name or a key, the empty one included, and no two of (table, key) ever
/// collide. A table comes into being with its first key and is gone with its last: reading creates
/// nothing. The values that are stored are set ([`Value::is_set`]); the service refuses others.
///
/// **Async and fallible throughout.** A backend that answers at once returns a future that is ready; one
/// across a network may wait without holding a thread. No error is ever reported as a missing key.
///
/// **Atomic.** Each method takes effect at one moment: the previous values that a write gives are those
/// that it replaced, a method that writes several keys writes all of them or none, and one that reads
/// several sees them as they were at one moment. [`get_iter`](Self::get_iter) alone need not.
///
/// **Durable** is what [`sync`](Self::sync) makes it.
///
/// **Bounded.** A write, and a read of several values, is told how many bytes of keys and values the caller has
/// room for; [`usize::MAX`] is any number. Where there are more, it gives [`StorageError::AnswerTooLarge`], without
/// having gathered much more than that, and changes nothing. Text and bytes count with their length, a number with 8
/// bytes, a truth value with 1: [`ByteBudget`] counts them.
///
/// **Copies.** A backend keeps nothing of a value's buffer: a binary value is a slice of a whole frame.
///
/// The feature `storage-tests` has a suite that tries all of this on any storage, `kv::storage_tests::run`.
pub trait Storage: Send + Sync + 'static {
    /// The value of a key.
    fn get(
        &self,
        table: &str,
        key: &str,
    ) -> impl Future<Output = Result<Option<Value>, StorageError>> + Send;

    /// The values of several keys, in their order.
    fn get_many(
        &self,
        table: &str,
        keys: &[String],
        max_bytes: usize,
    ) -> impl Future<Output = Result<Vec<Option<Value>>, StorageError>> + Send;

    /// Every pair of a table, in no particular order; none where there is no such table.
    fn get_all(
        &self,
        table: &str,
        max_bytes: usize,
    ) -> impl Future<Output = Result<Vec<Kvpair>, StorageError>> + Send;

    /// The pairs of a table, one after the other, in no particular order. A pair that is there
    /// throughout comes exactly once; one that is written or removed meanwhile may come or not.
    fn get_iter(&self, table: &str) -> impl Stream<Item = Result<Kvpair, StorageError>> + Send;

    /// A part of a table: the first of its pairs in the order of their keys' bytes, of those whose key is not less than
    /// `from`. They are up to `limit`, and as many as have up to `max_bytes`, but one at least where there is one and the
    /// limit allows it: that there are more is no error, and none is the end. A pair counts with the bytes of its key and
    /// of its value and with 24 more, which is the most that is around them in an answer, so that what is given is no longer than that when it is encoded: [`Kvpair::scanned_len`].
    fn scan(
        &self,
        table: &str,
        from: &str,
        limit: usize,
        max_bytes: usize,
    ) -> impl Future<Output = Result<Vec<Kvpair>, StorageError>> + Send;

    /// Whether a key exists.
    fn contains(
        &self,
        table: &str,
        key: &str,
    ) -> impl Future<Output = Result<bool, StorageError>> + Send;

    /// Whether each of several keys exists, in their order.
    fn contains_many(
        &self,
        table: &str,
        keys: &[String],
    ) -> impl Future<Output = Result<Vec<bool>, StorageError>> + Send;

    /// Stores a value and gives the one that it replaced.
    fn set(
        &self,
        table: &str,
        key: &str,
        value: Value,
        max_bytes: usize,
    ) -> impl Future<Output = Result<Option<Value>, StorageError>> + Send;

    /// Stores several values, all or none, and gives those that they replaced, in their order. Where a
    /// key comes twice, the later replaces the earlier, and is given it.
    fn set_many(
        &self,
        table: &str,
        pairs: Vec<(String, Value)>,
        max_bytes: usize,
    ) -> impl Future<Output = Result<Vec<Option<Value>>, StorageError>> + Send;

    /// Removes a key and gives the value that it had.
    fn del(
        &self,
        table: &str,
        key: &str,
        max_bytes: usize,
    ) -> impl Future<Output = Result<Option<Value>, StorageError>> + Send;

    /// Removes several keys, all or none, and gives the values that they had, in their order. Where a
    /// key comes twice, only the first is given it.
    fn del_many(
        &self,
        table: &str,
        keys: &[String],
        max_bytes: usize,
    ) -> impl Future<Output = Result<Vec<Option<Value>>, StorageError>> + Send;

    /// What kind of storage this is, in a word for people: `memory`, `sled`.
    fn kind(&self) -> &str {
        "other"
    }

    /// The tables in memory that this is, if it is no more and no less than that: a server then answers plain requests
    /// from where the values lie, without calling the methods above. A storage that wraps one and is to see every
    /// call leaves it at [`None`].
    fn in_memory(&self) -> Option<&MemTable> {
        None
    }

    /// What there is to count of it, as far as that is known without looking at everything.
    fn stats(&self) -> StorageStats {
        StorageStats::default()
    }

    /// Why it does not work any more, where it knows that it does not: a store on disk of which a write or a sync has
    /// failed, until it is opened anew. Asked often, so it must be cheap.
    fn health(&self) -> Result<(), StorageError> {
        Ok(())
    }

    /// Returns once [`health`](Self::health) is an error, which it then stays: asking again does not help, and whoever
    /// serves this storage had better stop. A failure that may pass, such as a read that failed, is none of these.
    ///
    /// Never returns unless a backend knows such failures. One that wraps another hands this on, as it does `health`.
    fn failed(&self) -> impl Future<Output = StorageError> + Send {
        std::future::pending()
    }

    /// Returns once every write that had returned before this was called would survive what the backend
    /// promises of an answer: a crash of the machine for one on disk, unless it is told to promise less; nothing for
    /// one in memory. Callers that wait at the same time share one sync.
    fn sync(&self) -> impl Future<Output = Result<(), StorageError>> + Send;

    /// [`sync`](Self::sync), with all that the backend can do, whatever it promises of an answer: for when no more is
    /// written, as at the end of a server.
    fn sync_all(&self) -> impl Future<Output = Result<(), StorageError>> + Send {
        self.sync()
    }
}

/// How much is stored; [`None`] where a backend cannot tell at once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StorageStats {
    /// How many tables there are.
    pub tables: Option<u64>,
    /// How many keys there are in all of them.
    pub keys: Option<u64>,
}

impl StorageStats {
    /// What a backend knows that knows both.
    pub fn new(tables: u64, keys: u64) -> Self {
        Self {
            tables: Some(tables),
            keys: Some(keys),
        }
    }
}
