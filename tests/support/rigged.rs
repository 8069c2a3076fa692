//! A storage in memory that fails or waits when a test says so.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use kv::{
    Applied, Change, Keys, MemTable, PartLimit, Storage, StorageError, StorageStats, TableSize,
    Text, ValueRef,
};
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

    fn readable(&self, table: Text<'_>) -> Result<&MemTable, StorageError> {
        if self.controls.reads_fail.load(Ordering::SeqCst) {
            return Err(StorageError::Read {
                table: table.as_str().to_owned(),
                source: "bad sector".into(),
            });
        }
        Ok(&self.tables)
    }

    fn writable(&self, table: Text<'_>) -> Result<&MemTable, StorageError> {
        let write = self.controls.writes.fetch_add(1, Ordering::SeqCst) + 1;
        if self.controls.writes_fail.load(Ordering::SeqCst)
            || self.controls.failing_write.load(Ordering::SeqCst) == write
        {
            return Err(StorageError::Write {
                table: table.as_str().to_owned(),
                applied: Applied::No,
                source: "disk full".into(),
            });
        }
        Ok(&self.tables)
    }
}

impl Storage for Rigged {
    async fn read<F>(&self, table: Text<'_>, keys: Keys<'_>, each: F) -> Result<(), StorageError>
    where
        F: FnMut(Option<ValueRef<'_>>) -> ControlFlow<()> + Send,
    {
        if let Some((slow, reads)) = &self.controls.slow
            && table == **slow
        {
            reads.acquire().await.unwrap().forget();
        }
        self.readable(table)?.read(table, keys, each).await
    }

    async fn read_all<F>(&self, table: Text<'_>, each: F) -> Result<(), StorageError>
    where
        F: FnMut(Text<'_>, ValueRef<'_>) -> ControlFlow<()> + Send,
    {
        self.readable(table)?.read_all(table, each).await
    }

    async fn read_from<F>(
        &self,
        table: Text<'_>,
        from: Text<'_>,
        limit: PartLimit,
        each: F,
    ) -> Result<(), StorageError>
    where
        F: FnMut(Text<'_>, ValueRef<'_>) -> ControlFlow<()> + Send,
    {
        let tables = self.readable(table)?;
        tables.read_from(table, from, limit, each).await
    }

    async fn read_existence<F>(
        &self,
        table: Text<'_>,
        keys: Keys<'_>,
        each: F,
    ) -> Result<(), StorageError>
    where
        F: FnMut(bool) -> ControlFlow<()> + Send,
    {
        let tables = self.readable(table)?;
        tables.read_existence(table, keys, each).await
    }

    async fn read_size(&self, table: Text<'_>) -> Result<TableSize, StorageError> {
        self.readable(table)?.read_size(table).await
    }

    async fn write<'v, F>(
        &self,
        table: Text<'_>,
        keys: Keys<'_>,
        change: F,
    ) -> Result<(), StorageError>
    where
        F: FnMut(usize, Option<ValueRef<'_>>) -> ControlFlow<(), Change<'v>> + Send,
    {
        self.writable(table)?.write(table, keys, change).await
    }

    fn stats(&self) -> StorageStats {
        self.tables.stats()
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
