//! A storage in memory that takes as long as a test says, as one across a network does.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use kv::{Change, Keys, MemTable, PartLimit, Storage, StorageError, TableSize, Text, ValueRef};
use tokio::sync::Semaphore;

type Delay = dyn Fn(&str, usize) -> Duration + Send + Sync;

/// Takes a time for each call, which may depend on the table and on the number of the call.
/// Clones share everything.
#[derive(Clone)]
pub(crate) struct Slow {
    tables: Arc<MemTable>,
    delay: Arc<Delay>,
    counts: Arc<Counts>,
}

#[derive(Debug)]
struct Counts {
    calls: AtomicUsize,
    now: AtomicUsize,
    most: AtomicUsize,
    syncs: Semaphore,
}

/// A call that is under way.
struct Call<'a>(&'a Counts);

impl Slow {
    /// `delay` returns how long a call takes on a table.
    pub(crate) fn new(delay: impl Fn(&str, usize) -> Duration + Send + Sync + 'static) -> Self {
        Self {
            tables: Arc::default(),
            delay: Arc::new(delay),
            counts: Arc::new(Counts {
                calls: AtomicUsize::new(0),
                now: AtomicUsize::new(0),
                most: AtomicUsize::new(0),
                syncs: Semaphore::new(Semaphore::MAX_PERMITS),
            }),
        }
    }

    /// Holds back every sync until [`release_syncs`](Self::release_syncs).
    pub(crate) fn hold_syncs(&self) {
        self.counts.syncs.forget_permits(usize::MAX);
    }

    pub(crate) fn release_syncs(&self) {
        self.counts.syncs.add_permits(Semaphore::MAX_PERMITS);
    }

    /// The number of calls that have begun.
    pub(crate) fn calls(&self) -> usize {
        self.counts.calls.load(SeqCst)
    }

    /// The number of calls that are under way.
    pub(crate) fn under_way(&self) -> usize {
        self.counts.now.load(SeqCst)
    }

    /// The greatest number of calls that were under way at the same time.
    pub(crate) fn most_under_way(&self) -> usize {
        self.counts.most.load(SeqCst)
    }

    async fn wait(&self, table: Text<'_>) {
        let number = self.counts.calls.fetch_add(1, SeqCst);
        let call = Call(&self.counts);
        let now = self.counts.now.fetch_add(1, SeqCst) + 1;
        self.counts.most.fetch_max(now, SeqCst);
        tokio::time::sleep((self.delay)(table.as_str(), number)).await;
        drop(call);
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, SeqCst);
    }
}

impl Storage for Slow {
    async fn read<F>(&self, table: Text<'_>, keys: Keys<'_>, each: F) -> Result<(), StorageError>
    where
        F: FnMut(Option<ValueRef<'_>>) -> ControlFlow<()> + Send,
    {
        self.wait(table).await;
        self.tables.read(table, keys, each).await
    }

    async fn read_all<F>(&self, table: Text<'_>, each: F) -> Result<(), StorageError>
    where
        F: FnMut(Text<'_>, ValueRef<'_>) -> ControlFlow<()> + Send,
    {
        self.wait(table).await;
        self.tables.read_all(table, each).await
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
        self.wait(table).await;
        self.tables.read_from(table, from, limit, each).await
    }

    async fn read_size(&self, table: Text<'_>) -> Result<TableSize, StorageError> {
        self.wait(table).await;
        self.tables.read_size(table).await
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
        self.wait(table).await;
        self.tables.write(table, keys, change).await
    }

    async fn sync(&self) -> Result<(), StorageError> {
        let _permit = self.counts.syncs.acquire().await.unwrap();
        Ok(())
    }
}
