//! Reading rows where they are stored.
//!
//! One row of a small value takes no longer than looking up its table did. So if no other thread is
//! in the way, it is read while the lock of the shard, or of this thread's cache, keeps the table
//! in place. All other reads share ownership of the table and release that lock first.

use std::ops::ControlFlow;

use super::block::{self, BlockRef};
use super::locked_table::{LockedTable, PartSet, ReadParts};
use super::packed::Packed;
use super::rows::Rows;
use super::value::Stored;
use super::{MAX_IN_SHARD, MemTable, Table};
use crate::abi::{Keys, Text};
use crate::storage::TableSize;

/// The rows of a table, locked to be read.
#[derive(Clone, Copy)]
pub(super) enum View<'a> {
    Small(&'a Packed),
    Whole(&'a Rows),
    Parts(&'a ReadParts<'a>),
}

impl MemTable {
    /// Calls `each` with the values of keys, until it breaks off.
    #[inline]
    pub(super) fn read_rows(
        &self,
        table: &[u8],
        keys: Keys<'_>,
        each: &mut impl FnMut(Option<Stored<'_>>) -> ControlFlow<()>,
    ) {
        let hash = self.hash(table);
        match keys.single().map(Text::as_bytes) {
            Some(key) if self.cache.is_used() && self.read_cached(hash, table, key, each) => {}
            Some(key) if self.read_in_shard(hash, table, key, each) => {}
            _ => self.read_several(hash, table, keys, each),
        }
    }

    /// Reads all rows of a table. Reads nothing if it does not exist.
    pub(super) fn read_table<R>(&self, name: &[u8], read: impl FnOnce(View<'_>) -> R) -> R {
        self.view(self.hash(name), name, |_| PartSet::ALL, read)
    }

    /// Reads a row of a table in parts that is in this thread's cache. Returns whether it could.
    #[inline(never)]
    fn read_cached(
        &self,
        hash: u64,
        name: &[u8],
        key: &[u8],
        each: &mut impl FnMut(Option<Stored<'_>>) -> ControlFlow<()>,
    ) -> bool {
        if let Some(cached) = self.cache.slot(hash)
            && let Some(table) = cached.get(name)
            && let Some(contents) = table.lock_of(key).read_soon()
        {
            let _ = each(contents.rows.get(key));
            return true;
        }
        false
    }

    /// Reads a row while its shard is locked, unless that could take long. Returns whether it did.
    #[inline]
    fn read_in_shard(
        &self,
        hash: u64,
        name: &[u8],
        key: &[u8],
        each: &mut impl FnMut(Option<Stored<'_>>) -> ControlFlow<()>,
    ) -> bool {
        let shard = self.shard(hash).read();
        let contents;
        let block = match shard.find(hash, |table| table.is_named(name)) {
            None => None,
            Some(Table::Small(packed)) => Some(BlockRef::from(packed)),
            Some(Table::Locked(table)) => {
                self.learn(hash, table);
                // The table is not retired: that takes the lock of the shard.
                contents = match table.lock_of(key).read_soon() {
                    Some(contents) => contents,
                    None => return false,
                };
                contents.rows.block_of(key)
            }
        };
        let stored = block.and_then(|block| block.get(key));
        if stored.is_some_and(|stored| stored.payload_len() > MAX_IN_SHARD) {
            return false;
        }
        let _ = each(stored);
        true
    }

    #[inline(never)]
    fn read_several(
        &self,
        hash: u64,
        name: &[u8],
        keys: Keys<'_>,
        each: &mut impl FnMut(Option<Stored<'_>>) -> ControlFlow<()>,
    ) {
        let parts = |table: &LockedTable| table.parts_of(keys);
        self.view(hash, name, parts, |rows| {
            for key in keys {
                if each(rows.get(key.as_bytes())).is_break() {
                    break;
                }
            }
        });
    }

    /// Locks the rows of a table, of one in parts those in `parts`, and reads them.
    fn view<R>(
        &self,
        hash: u64,
        name: &[u8],
        parts: impl Fn(&LockedTable) -> PartSet,
        read: impl FnOnce(View<'_>) -> R,
    ) -> R {
        loop {
            let shard = self.shard(hash).read();
            let table = match shard.find(hash, |table| table.is_named(name)) {
                None => {
                    drop(shard);
                    return read(View::Small(&Packed::default()));
                }
                Some(Table::Small(rows)) => return read(View::Small(rows)),
                Some(Table::Locked(table)) => table.clone(),
            };
            drop(shard);
            if let Some(whole) = table.whole() {
                let contents = whole.read();
                if !contents.retired {
                    return read(View::Whole(&contents.rows));
                }
            } else {
                let parts = table.read_parts(parts(&table));
                if !parts.is_retired() {
                    return read(View::Parts(&parts));
                }
            }
        }
    }
}

impl<'a> View<'a> {
    pub(super) fn get(self, key: &[u8]) -> Option<Stored<'a>> {
        match self {
            Self::Small(packed) => BlockRef::from(packed).get(key),
            Self::Whole(rows) => rows.get(key),
            Self::Parts(parts) => parts.get(key),
        }
    }

    pub(super) fn size(self) -> TableSize {
        let (keys, bytes) = match self {
            Self::Small(packed) => (packed.len(), block::bytes(packed.rows())),
            Self::Whole(rows) => (rows.len(), rows.bytes()),
            Self::Parts(parts) => (parts.len(), parts.bytes()),
        };
        TableSize::new(keys as u64, bytes as u64)
    }

    /// The rows in no particular order.
    pub(super) fn rows(self) -> impl Iterator<Item = (Text<'a>, Stored<'a>)> {
        let (packed, rows, parts) = match self {
            Self::Small(packed) => (Some(packed), None, None),
            Self::Whole(rows) => (None, Some(rows), None),
            Self::Parts(parts) => (None, None, Some(parts)),
        };
        let packed = packed.into_iter().flat_map(Packed::rows);
        let parts = parts.into_iter().flat_map(ReadParts::contents);
        let rows = rows.into_iter().chain(parts.map(|contents| &contents.rows));
        packed.chain(rows.flat_map(Rows::iter))
    }
}
