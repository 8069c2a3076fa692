//! One value, read where it lies, or put in the place of another: for whoever needs no value of its own.
//!
//! It takes no longer than to find the table did. So where nobody is in the way, the lock of its shard is kept
//! meanwhile, or where it is known that of what this thread knows, and the table need not be held otherwise.

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
        let read = |stored: Option<Stored<'_>>| read(stored.map(ValueRef::from));
        if let Some(known) = self.near.known(hash)
            && let Some(large) = known.table(table)
            && let Some(contents) = large.lock_of(key).read_soon()
        {
            return read(contents.rows.get(key));
        }
        let shard = self.shard(hash).read();
        if let Some(Table::Large(large)) = shard.find(hash, |other| other.is_named(table)) {
            self.learn(hash, large);
            if let Some(contents) = large.lock_of(key).read_soon() {
                return read(contents.rows.get(key));
            }
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
        if let Some(known) = self.near.known(hash)
            && let Some(large) = known.table(table)
        {
            let mut contents = large.lock_of(key).write_soon()?;
            return self.counted(&mut contents.rows, |rows| {
                rows.replace(key, value, replaced)
            });
        }
        let shard = self.shard(hash).read();
        let Table::Large(large) = shard.find(hash, |other| other.is_named(table))? else {
            return None;
        };
        self.learn(hash, large);
        let mut contents = large.lock_of(key).write_soon()?;
        if contents.rows.are_many() {
            // They are to be in parts first.
            return None;
        }
        self.counted(&mut contents.rows, |rows| {
            rows.replace(key, value, replaced)
        })
    }
}
