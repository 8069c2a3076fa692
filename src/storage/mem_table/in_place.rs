//! One value, read where it lies, or put in the place of another: for whoever needs no value of its own.
//!
//! It takes no longer than to find the table did. So where nobody is in the way, the lock of its shard is kept
//! meanwhile, or where it is known that of what this thread knows, and the table need not be held otherwise.

use super::large::Lock;
use super::{MAX_PACKED, MemTable, Stored, Table};
use crate::abi::ValueRef;

impl MemTable {
    /// Gives what `read` makes of a value where it lies, while others wait for its table.
    pub(crate) fn read_value<R>(
        &self,
        table: &[u8],
        key: &[u8],
        read: impl FnOnce(Option<ValueRef<'_>>) -> R,
    ) -> R {
        let hash = self.hash(table);
        let mut read = |stored: Option<Stored<'_>>| read(stored.map(ValueRef::from));
        if self.near.is_any() {
            match self.read_known(hash, table, key, read) {
                Ok(value) => return value,
                Err(unused) => read = unused,
            }
        }
        let shard = self.shard(hash).read();
        if let Some(Table::Large(large)) = shard.find(hash, |other| other.is_named(table))
            && let Some(contents) = large.whole().and_then(Lock::try_read)
        {
            return read(contents.rows.get(key));
        }
        drop(shard);
        self.read_row(table, key, read)
    }

    /// Stores a small value, and gives what `replaced` makes of the one that was there, where it lay. [`None`] where
    /// that makes none, where the table is not a larger one, and where it takes more than to put one small value in
    /// the place of another or of none: then nothing has changed.
    pub(crate) fn replace_value<R>(
        &self,
        table: &[u8],
        key: &[u8],
        value: ValueRef<'_>,
        replaced: impl FnOnce(Option<ValueRef<'_>>) -> Option<R>,
    ) -> Option<R> {
        if key.len().max(value.payload_len()) > MAX_PACKED {
            return None;
        }
        let hash = self.hash(table);
        if self.near.is_any() {
            return self.replace_known(hash, table, key, value, replaced);
        }
        self.replace_found(hash, table, key, value, replaced)
    }

    fn replace_found<R>(
        &self,
        hash: u64,
        table: &[u8],
        key: &[u8],
        value: ValueRef<'_>,
        replaced: impl FnOnce(Option<ValueRef<'_>>) -> Option<R>,
    ) -> Option<R> {
        let shard = self.shard(hash).read();
        let Table::Large(large) = shard.find(hash, |other| other.is_named(table))? else {
            return None;
        };
        // It is not retired, because that takes the lock of its shard. What is in parts is for this thread to know, once it
        // was found the other way.
        let mut contents = large.whole()?.try_write()?;
        if contents.rows.are_many() {
            return None;
        }
        self.counted(&mut contents.rows, |rows| {
            rows.replace(key, value, replaced)
        })
    }

    /// [`replace_value`](Self::replace_value) where this thread may know the table. Out of line, as `read_known` is.
    #[inline(never)]
    fn replace_known<R>(
        &self,
        hash: u64,
        table: &[u8],
        key: &[u8],
        value: ValueRef<'_>,
        replaced: impl FnOnce(Option<ValueRef<'_>>) -> Option<R>,
    ) -> Option<R> {
        if let Some(known) = self.near.known(hash)
            && let Some(large) = known.table(table)
        {
            let mut contents = large.lock_of(key).write_soon()?;
            return self.counted(&mut contents.rows, |rows| {
                rows.replace(key, value, replaced)
            });
        }
        self.replace_found(hash, table, key, value, replaced)
    }
}
