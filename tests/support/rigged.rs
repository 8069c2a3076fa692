//! A storage in memory that fails or waits when a test says so.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures::{Stream, StreamExt, stream};
use kv::abi::{Kvpair, Value};
use kv::{Applied, MemTable, Storage, StorageError};
use tokio::sync::Semaphore;

/// Fails or waits on command. Clones share everything.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rigged {
    tables: Arc<MemTable>,
    controls: Arc<Controls>,
}

#[derive(Debug, Default)]
struct Controls {
    reads_fail: AtomicBool,
    writes_fail: AtomicBool,
    syncs_fail: AtomicBool,
    syncs: AtomicUsize,
    writes: AtomicUsize,
    /// The number of the one write that fails, from 1.
    failing_write: AtomicUsize,
    /// The table whose reads wait for a permit.
    slow: Option<(String, Semaphore)>,
    /// If this is set, each sync waits for a permit.
    held_syncs: Option<Semaphore>,
}

impl Rigged {
    /// Every sync waits until [`release_sync`](Self::release_sync).
    pub(crate) fn with_held_syncs() -> Self {
        let controls = Controls {
            held_syncs: Some(Semaphore::new(0)),
            ..Controls::default()
        };
        Self {
            tables: Arc::default(),
            controls: Arc::new(controls),
        }
    }

    /// Every read of a value of this table waits until [`release_read`](Self::release_read).
    pub(crate) fn with_slow_reads_of(table: &str) -> Self {
        let controls = Controls {
            slow: Some((table.to_owned(), Semaphore::new(0))),
            ..Controls::default()
        };
        Self {
            tables: Arc::default(),
            controls: Arc::new(controls),
        }
    }

    pub(crate) fn release_read(&self) {
        let (_, reads) = self.controls.slow.as_ref().unwrap();
        reads.add_permits(1);
    }

    /// Makes only the nth write from now on fail.
    pub(crate) fn fail_write(&self, nth: usize) {
        let writes = self.controls.writes.load(Ordering::SeqCst);
        self.controls
            .failing_write
            .store(writes + nth, Ordering::SeqCst);
    }

    pub(crate) fn release_sync(&self) {
        self.controls.held_syncs.as_ref().unwrap().add_permits(1);
    }

    pub(crate) fn fail_reads(&self) {
        self.controls.reads_fail.store(true, Ordering::SeqCst);
    }

    pub(crate) fn fail_writes(&self) {
        self.controls.writes_fail.store(true, Ordering::SeqCst);
    }

    pub(crate) fn fail_syncs(&self, fail: bool) {
        self.controls.syncs_fail.store(fail, Ordering::SeqCst);
    }

    /// How many syncs have begun.
    pub(crate) fn syncs(&self) -> usize {
        self.controls.syncs.load(Ordering::SeqCst)
    }

    fn readable(&self, table: &str) -> Result<&MemTable, StorageError> {
        if self.controls.reads_fail.load(Ordering::SeqCst) {
            return Err(StorageError::Read {
                table: table.to_owned(),
                source: "bad sector".into(),
            });
        }
        Ok(&self.tables)
    }

    fn writable(&self, table: &str) -> Result<&MemTable, StorageError> {
        let write = self.controls.writes.fetch_add(1, Ordering::SeqCst) + 1;
        if self.controls.writes_fail.load(Ordering::SeqCst)
            || self.controls.failing_write.load(Ordering::SeqCst) == write
        {
            let (table, applied) = (table.to_owned(), Applied::No);
            return Err(StorageError::Write {
                table,
                applied,
                source: "disk full".into(),
            });
        }
        Ok(&self.tables)
    }
}

impl Storage for Rigged {
    async fn get(&self, table: &str, key: &str) -> Result<Option<Value>, StorageError> {
        if let Some((slow, reads)) = &self.controls.slow
            && slow == table
        {
            reads.acquire().await.unwrap().forget();
        }
        self.readable(table)?.get(table, key).await
    }

    async fn get_many(
        &self,
        table: &str,
        keys: &[String],
        max_bytes: usize,
    ) -> Result<Vec<Option<Value>>, StorageError> {
        self.readable(table)?.get_many(table, keys, max_bytes).await
    }

    async fn get_all(&self, table: &str, max_bytes: usize) -> Result<Vec<Kvpair>, StorageError> {
        self.readable(table)?.get_all(table, max_bytes).await
    }

    fn get_iter(&self, table: &str) -> impl Stream<Item = Result<Kvpair, StorageError>> + Send {
        match self.readable(table) {
            Ok(tables) => tables.get_iter(table).left_stream(),
            Err(error) => stream::iter([Err(error)]).right_stream(),
        }
    }

    async fn scan(
        &self,
        table: &str,
        from: &str,
        limit: usize,
        max_bytes: usize,
    ) -> Result<Vec<Kvpair>, StorageError> {
        let tables = self.readable(table)?;
        tables.scan(table, from, limit, max_bytes).await
    }

    async fn contains(&self, table: &str, key: &str) -> Result<bool, StorageError> {
        self.readable(table)?.contains(table, key).await
    }

    async fn contains_many(&self, table: &str, keys: &[String]) -> Result<Vec<bool>, StorageError> {
        self.readable(table)?.contains_many(table, keys).await
    }

    async fn set(
        &self,
        table: &str,
        key: &str,
        value: Value,
        max_bytes: usize,
    ) -> Result<Option<Value>, StorageError> {
        self.writable(table)?
            .set(table, key, value, max_bytes)
            .await
    }

    async fn set_many(
        &self,
        table: &str,
        pairs: Vec<(String, Value)>,
        max_bytes: usize,
    ) -> Result<Vec<Option<Value>>, StorageError> {
        self.writable(table)?
            .set_many(table, pairs, max_bytes)
            .await
    }

    async fn del(
        &self,
        table: &str,
        key: &str,
        max_bytes: usize,
    ) -> Result<Option<Value>, StorageError> {
        self.writable(table)?.del(table, key, max_bytes).await
    }

    async fn del_many(
        &self,
        table: &str,
        keys: &[String],
        max_bytes: usize,
    ) -> Result<Vec<Option<Value>>, StorageError> {
        self.writable(table)?.del_many(table, keys, max_bytes).await
    }

    async fn sync(&self) -> Result<(), StorageError> {
        self.controls.syncs.fetch_add(1, Ordering::SeqCst);
        if let Some(held) = &self.controls.held_syncs {
            held.acquire().await.unwrap().forget();
        }
        if self.controls.syncs_fail.load(Ordering::SeqCst) {
            return Err(StorageError::Sync {
                source: "disk on fire".into(),
            });
        }
        Ok(())
    }
}
