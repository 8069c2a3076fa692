//! Values read where they lie, or put in the place of others: for whoever needs none of their own.
//!
//! For a short value it takes no longer than to find the table did. So where nobody is in the way, the lock of its shard is
//! kept meanwhile, or where it is known that of what this thread knows, and the table need not be held otherwise.

use std::str;
use std::sync::Arc;

use super::large::{Change, Large, Lock};
use super::value::LargeValue;
use super::{MAX_PACKED, MemTable, Stored, Table};
use crate::abi::{Keys, Pair, ValueRef};

/// The longest answer with one of several values that are put in the place of others where they lie.
pub(crate) const MAX_REPLACED: usize = MAX_PACKED + 6;

/// How long a value may be that is read under the lock of a shard, in bytes.
const SHORT: usize = 4096;

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
            let stored = contents.rows.get(key);
            if stored.is_none_or(|stored| stored.payload_len() <= SHORT) {
                return read(stored);
            }
        }
        drop(shard);
        self.read_row(table, key, read)
    }

    /// Gives each of these values where it lies to `read`, in the order of their keys, while others wait for their table.
    /// Tells whether it was [`Some`] every time, and the names are text; it ends otherwise.
    pub(crate) fn read_values(
        &self,
        table: &[u8],
        keys: Keys<'_>,
        mut read: impl FnMut(Option<ValueRef<'_>>) -> Option<()>,
    ) -> Option<()> {
        str::from_utf8(table).ok()?;
        let wanted = |large: &Large| large.wanted(keys.iter());
        self.read_parts(table, wanted, |rows| {
            keys.iter().try_for_each(|key| {
                let stored = rows.get(key);
                if stored.is_none() {
                    str::from_utf8(key).ok()?;
                }
                read(stored.map(ValueRef::from))
            })
        })
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
        if !is_small(key, value) || !value.is_valid() {
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
        let Some(whole) = large.whole() else {
            return self.replace_in_parts(hash, large, key, value, replaced);
        };
        // It is not retired, because that takes the lock of its shard.
        let mut contents = whole.try_write()?;
        if contents.rows.are_many() {
            return None;
        }
        self.counted(&mut contents.rows, |rows| {
            rows.replace(key, value, replaced)
        })
    }

    /// [`replace_value`](Self::replace_value) in a table that this thread did not know: it had another in its place.
    #[inline(never)]
    fn replace_in_parts<R>(
        &self,
        hash: u64,
        large: &Arc<Large>,
        key: &[u8],
        value: ValueRef<'_>,
        replaced: impl FnOnce(Option<ValueRef<'_>>) -> Option<R>,
    ) -> Option<R> {
        self.learn(hash, large);
        self.replace_in_part(large, key, value, replaced)
    }

    fn replace_in_part<R>(
        &self,
        large: &Large,
        key: &[u8],
        value: ValueRef<'_>,
        replaced: impl FnOnce(Option<ValueRef<'_>>) -> Option<R>,
    ) -> Option<R> {
        let mut contents = large.lock_of(key).write_soon()?;
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
            return self.replace_in_part(large, key, value, replaced);
        }
        self.replace_found(hash, table, key, value, replaced)
    }

    /// Stores a value that is not small, if `allowed` says so of the one that is there, and gives that. [`None`] where it
    /// does not, where the table is not a larger one, and for a small value: then nothing has changed.
    pub(crate) fn store_value(
        &self,
        table: &[u8],
        key: &[u8],
        value: ValueRef<'_>,
        allowed: impl FnOnce(ValueRef<'_>) -> bool,
    ) -> Option<LargeValue> {
        if is_small(key, value) || !is_valid(&(key, value)) {
            return None;
        }
        let large = self.find_large(self.hash(table), table)?;
        // Copied while nobody waits for the table, as what was there is once it is given.
        let value = LargeValue::from(value);
        let mut contents = large.lock_of(key).write();
        let is_to_be_parted = large.whole().is_some() && contents.rows.are_many();
        let stored = contents.rows.get(key).map(ValueRef::from);
        if contents.retired || is_to_be_parted || !allowed(stored.unwrap_or(ValueRef::Unset)) {
            return None;
        }
        let previous = self.counted(&mut contents.rows, |rows| rows.insert_large(key, value));
        Some(previous.unwrap_or_else(|| LargeValue::from(ValueRef::Unset)))
    }

    /// Stores small values, all or none, and gives each that was there to `replaced`, where it lay and in the order of the
    /// pairs, none longer than [`MAX_REPLACED`]. Tells whether it did: not where the table is no larger one, and where it
    /// takes more than to put small values in the place of others or of none.
    pub(crate) fn replace_values(
        &self,
        table: &[u8],
        pairs: &[Pair<'_>],
        mut replaced: impl FnMut(ValueRef<'_>),
    ) -> Option<()> {
        let mut each = pairs.iter();
        if !each.all(|pair @ (key, value)| is_small(key, *value) && is_valid(pair)) {
            return None;
        }
        let large = self.find_large(self.hash(table), table)?;
        let keys = pairs.iter().map(|(key, _)| *key);
        // It is always done where it is begun, as what could be in the way is not.
        let mut replace = |rows: &mut dyn Change| {
            pairs.iter().try_for_each(|(key, value)| {
                rows.rows_of(key)?.replace(key, *value, |previous| {
                    replaced(previous.unwrap_or(ValueRef::Unset));
                    Some(())
                })
            })
        };
        let packs = |rows: &mut dyn Change| {
            let mut keys = keys.clone();
            keys.all(|key| {
                rows.rows_of(key)
                    .is_some_and(|rows| rows.packs(key, pairs.len()))
            })
        };
        if let Some(whole) = large.whole() {
            let mut contents = whole.write();
            if contents.retired || contents.rows.are_many() || !packs(&mut contents.rows) {
                return None;
            }
            return self.counted(&mut contents.rows, |rows| replace(rows));
        }
        let mut parts = large.write_parts(large.wanted(keys.clone()));
        if parts.is_retired() || !packs(&mut parts) {
            return None;
        }
        self.counted(&mut parts, |parts| replace(parts))
    }
}

fn is_small(key: &[u8], value: ValueRef<'_>) -> bool {
    key.len().max(value.payload_len()) <= MAX_PACKED
}

/// Whether what is to be text is UTF-8.
fn is_valid((key, value): &Pair<'_>) -> bool {
    value.is_valid() && str::from_utf8(key).is_ok()
}
