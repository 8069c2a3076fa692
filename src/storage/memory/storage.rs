//! [`Storage`] for tables in memory: every future does its work at the first poll.

use std::future::{Future, poll_fn};
use std::ops::ControlFlow;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Poll;

use super::MemTable;
use super::smallest::Smallest;
use super::value::Stored;
use crate::abi::{Keys, Text, ValueRef};
use crate::storage::{Change, PartLimit, Storage, StorageError, StorageStats, TableSize};

impl Storage for MemTable {
    const ANSWERS_AT_ONCE: bool = true;

    #[inline]
    fn read<F>(
        &self,
        table: Text<'_>,
        keys: Keys<'_>,
        mut each: F,
    ) -> impl Future<Output = Result<(), StorageError>> + Send
    where
        F: FnMut(Option<ValueRef<'_>>) -> ControlFlow<()> + Send,
    {
        let table = table.as_bytes();
        at_first_poll(move || {
            self.read_rows(table, keys, &mut |stored| each(stored.map(Stored::value)));
        })
    }

    fn read_all<F>(
        &self,
        table: Text<'_>,
        mut each: F,
    ) -> impl Future<Output = Result<(), StorageError>> + Send
    where
        F: FnMut(Text<'_>, ValueRef<'_>) -> ControlFlow<()> + Send,
    {
        let table = table.as_bytes();
        at_first_poll(move || {
            self.read_table(table, |rows| {
                let mut rows = rows.rows();
                let _ = rows.try_for_each(|(key, stored)| each(key, stored.value()));
            });
        })
    }

    fn read_from<F>(
        &self,
        table: Text<'_>,
        from: Text<'_>,
        limit: PartLimit,
        mut each: F,
    ) -> impl Future<Output = Result<(), StorageError>> + Send
    where
        F: FnMut(Text<'_>, ValueRef<'_>) -> ControlFlow<()> + Send,
    {
        let table = table.as_bytes();
        at_first_poll(move || {
            self.read_table(table, |rows| {
                let mut smallest = Smallest::new(from, limit);
                rows.rows()
                    .for_each(|(key, stored)| smallest.offer(key, stored));
                let mut rows = smallest.into_rows();
                let _ = rows.try_for_each(|(key, stored)| each(key, stored.value()));
            });
        })
    }

    fn read_size(
        &self,
        table: Text<'_>,
    ) -> impl Future<Output = Result<TableSize, StorageError>> + Send {
        let table = table.as_bytes();
        at_first_poll(move || self.read_table(table, |rows| rows.size()))
    }

    #[inline]
    fn write<'v, F>(
        &self,
        table: Text<'_>,
        keys: Keys<'_>,
        mut change: F,
    ) -> impl Future<Output = Result<(), StorageError>> + Send
    where
        F: FnMut(usize, Option<ValueRef<'_>>) -> ControlFlow<(), Change<'v>> + Send,
    {
        let table = table.as_bytes();
        at_first_poll(move || self.write_rows(table, keys, &mut change))
    }

    #[inline]
    fn read_existence<F>(
        &self,
        table: Text<'_>,
        keys: Keys<'_>,
        mut each: F,
    ) -> impl Future<Output = Result<(), StorageError>> + Send
    where
        F: FnMut(bool) -> ControlFlow<()> + Send,
    {
        let table = table.as_bytes();
        at_first_poll(move || {
            self.read_rows(table, keys, &mut |stored| each(stored.is_some()));
        })
    }

    fn sync(&self) -> impl Future<Output = Result<(), StorageError>> + Send {
        at_first_poll(|| ())
    }

    fn is_durable(&self) -> bool {
        false
    }

    fn kind(&self) -> &str {
        "memory"
    }

    fn stats(&self) -> StorageStats {
        StorageStats::new(self.tables() as u64, self.keys.0.load(Relaxed))
    }
}

/// Does the work when the future is polled. Cheaper than an `async` block, which would move what
/// the work has captured.
#[inline]
fn at_first_poll<T>(
    mut work: impl FnMut() -> T + Send,
) -> impl Future<Output = Result<T, StorageError>> + Send {
    poll_fn(move |_| Poll::Ready(Ok(work())))
}
