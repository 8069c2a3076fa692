//! The rows of a store in sled's tree: reading, replacing and scanning them.
//!
//! A value of more than [`MAX_PART_LEN`] encoded bytes is kept in parts: see `changes`. Parts that
//! a crash leaves without a row are removed when the store is opened.
//!
//! sled would take a large value as it is, and write every page of more than 128 KiB to a file of
//! its own. Such a file, and its directory, need syncs of their own beside the log. It is forgotten
//! if the process ends before the log has grown by another half megabyte: a thousand writes and
//! kills left a thousand files. A page has up to 17 entries, and some more before it splits. With
//! entries of these few KiB it stays small enough, unless names have more than 400 bytes.

use std::collections::{HashMap, HashSet};
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use sled::{Batch, IVec};

use super::changes::{ENTRY_BYTES, MAX_PART_LEN, NewValue};
use super::gate::Gate;
use super::layout::{
    checksum, key_of, number_of_part, number_of_record, part_key, part_prefix, reference, table_of,
};
use super::locks::{Growth, Locks};
use super::outflow::Outflow;
use super::progress::Progress;
use super::sync::io_error;
use crate::abi::{Data, Text, ValueRef};

/// How many entries are written or removed in a batch: at most 256 KiB of parts.
pub(super) const ENTRIES_AT_ONCE: usize = 64;

/// The entries of the tree.
pub(super) struct Rows {
    tree: sled::Db,
    /// The number of the next value that is kept in parts, or of the next record.
    next: AtomicU64,
    /// The sum of the checksums of all entries, wrapping.
    sum: AtomicU64,
    pub(super) gate: Arc<Gate>,
    pub(super) outflow: Arc<Outflow>,
}

/// A stored row with its value.
pub(super) struct Stored {
    pub(super) row: IVec,
    /// The parts of the value, joined, if it has any.
    parts: Option<Bytes>,
}

/// An entry as sled iterates over them: its key and its content.
pub(super) type Entry = sled::Result<(IVec, IVec)>;

/// Why something that is stored cannot be understood.
pub(super) type Corrupt = Box<dyn Error + Send + Sync>;

impl Rows {
    /// Reads the whole tree and counts the rows of each table. Also returns the numbers of the
    /// values that have parts but no row.
    pub(super) fn open(
        tree: sled::Db,
        progress: &Progress,
    ) -> Result<(Self, Locks, HashSet<u64>), Corrupt> {
        let mut locks = Locks::new();
        let mut values: HashMap<u64, u64> = HashMap::new();
        let mut orphans = HashSet::new();
        let (mut next, mut sum) = (0, 0_u64);
        for entry in tree.iter() {
            let (key, row) = entry.map_err(io_error)?;
            sum = sum.wrapping_add(checksum(&key, &row));
            if let Some(number) = number_of_part(&key) {
                progress.add_part();
                next = next.max(number.saturating_add(1));
                match values.get_mut(&number) {
                    Some(missing) => {
                        let left = missing.checked_sub(row.len() as u64);
                        *missing = left.ok_or("a value has more parts than it should")?;
                    }
                    None => drop(orphans.insert(number)),
                }
                continue;
            }
            if number_of_record(&key).is_some() {
                return Err("it was closed while a write was incomplete".into());
            }
            let table = table_of(&key).and_then(Text::from_utf8);
            let table = table.ok_or("it holds rows that are not kvs's")?;
            let key_len = key_of(table.len(), &key).len();
            let encoded = reference(&row).map_or(row.len(), |(_, len)| len as usize);
            locks.count_found(table, Growth::replacing(key_len, None, Some(encoded)));
            progress.add(1);
            if let Some((number, len)) = reference(&row) {
                values.insert(number, len);
                next = next.max(number.saturating_add(1));
            }
        }
        if values.values().any(|missing| *missing > 0) {
            return Err("a part of a value is missing".into());
        }
        let rows = Self {
            tree,
            next: AtomicU64::new(next),
            sum: AtomicU64::new(sum),
            gate: Arc::default(),
            outflow: Arc::default(),
        };
        Ok((rows, locks, orphans))
    }

    pub(super) fn tree(&self) -> &sled::Db {
        &self.tree
    }

    /// The sum of the checksums of all entries.
    pub(super) fn sum(&self) -> u64 {
        self.sum.load(Ordering::Relaxed)
    }

    /// Adds to the sum of the checksums, wrapping.
    pub(super) fn add_sum(&self, sum: u64) {
        self.sum.fetch_add(sum, Ordering::Relaxed);
    }

    /// The number of the next value that is kept in parts, or of the next record.
    pub(super) fn next_number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// The row with this key, without the parts of its value.
    pub(super) fn row(&self, key: &[u8]) -> sled::Result<Option<IVec>> {
        self.tree.get(key)
    }

    /// The row with this key. A caller that does not hold the lock of the table may miss parts.
    pub(super) fn get(&self, key: &[u8]) -> sled::Result<Option<Stored>> {
        let row = self.row(key)?;
        row.map(|row| self.with_parts(row)).transpose()
    }

    pub(super) fn contains(&self, key: &[u8]) -> sled::Result<bool> {
        self.tree.contains_key(key)
    }

    /// The entries whose keys begin with `prefix`, in the order of their keys, from the key `from`
    /// on: the rows of a table, without parts.
    pub(super) fn scan(&self, prefix: &[u8], from: &[u8]) -> impl Iterator<Item = Entry> {
        self.tree.range(from..).take_while(move |entry| {
            let other = |(key, _): &(IVec, IVec)| !key.starts_with(prefix);
            !entry.as_ref().is_ok_and(other)
        })
    }

    /// A row with the parts of its value.
    pub(super) fn with_parts(&self, row: IVec) -> sled::Result<Stored> {
        let Some((number, len)) = reference(&row) else {
            return Ok(Stored::whole(row));
        };
        let mut joined = Vec::with_capacity(len as usize);
        for part in self.tree.scan_prefix(part_prefix(number)) {
            joined.extend_from_slice(&part?.1);
        }
        let parts = Some(joined.into());
        Ok(Stored { row, parts })
    }

    /// Replaces one row whose value has no parts by another such row, or adds or removes it: without
    /// a batch, so it holds up nothing.
    pub(super) fn replace(
        &self,
        key: &[u8],
        old: Option<&IVec>,
        new: Option<NewValue>,
    ) -> sled::Result<()> {
        let mut sum = 0_u64;
        if let Some(old) = old {
            sum = sum.wrapping_sub(checksum(key, old));
        }
        match new {
            Some(NewValue { bytes }) => {
                sum = sum.wrapping_add(checksum(key, &bytes));
                self.tree.insert(key, &*bytes)?;
            }
            None => drop(self.tree.remove(key)?),
        }
        self.add_sum(sum);
        Ok(())
    }

    /// Makes a batch of changes, which takes so many bytes in the log.
    pub(super) fn apply(&self, batch: Batch, bytes: u64) -> sled::Result<()> {
        if self.outflow.add(1, bytes) {
            self.outflow.wait_until_low(&self.tree, &self.gate)?;
        }
        let _alone = self.gate.wait_alone();
        self.tree.apply_batch(batch)
    }

    /// Writes some parts of a value, from its byte `from` on. Returns where the rest begins, if
    /// there is any.
    pub(super) fn write_parts(
        &self,
        number: u64,
        value: &Bytes,
        from: usize,
    ) -> sled::Result<Option<usize>> {
        let mut batch = Batch::default();
        let mut sum = 0_u64;
        let end = value.len().min(from + ENTRIES_AT_ONCE * MAX_PART_LEN);
        let first = (from / MAX_PART_LEN) as u32;
        let parts = value.get(from..end).unwrap_or_default();
        for (part, bytes) in (first..).zip(parts.chunks(MAX_PART_LEN)) {
            let key = part_key(number, part);
            sum = sum.wrapping_add(checksum(&key, bytes));
            batch.insert(key, bytes);
        }
        let entries = parts.len().div_ceil(MAX_PART_LEN) as u64;
        self.apply(batch, entries * ENTRY_BYTES + parts.len() as u64)?;
        self.add_sum(sum);
        Ok((end < value.len()).then_some(end))
    }

    /// Removes some of the entries whose keys begin with this. Returns whether there may be more.
    pub(super) fn remove_some(&self, prefix: &[u8]) -> sled::Result<bool> {
        let mut batch = Batch::default();
        let (mut entries, mut sum) = (0, 0_u64);
        for entry in self.tree.scan_prefix(prefix).take(ENTRIES_AT_ONCE) {
            let (key, content) = entry?;
            sum = sum.wrapping_sub(checksum(&key, &content));
            batch.remove(key);
            entries += 1;
        }
        if entries > 0 {
            self.apply(batch, entries * ENTRY_BYTES)?;
            self.add_sum(sum);
        }
        Ok(entries == ENTRIES_AT_ONCE as u64)
    }

    /// Removes the parts of values to which no row refers.
    pub(super) fn remove_parts(&self, values: &HashSet<u64>) -> sled::Result<()> {
        for number in values {
            while self.remove_some(&part_prefix(*number))? {}
        }
        Ok(())
    }
}

impl Stored {
    /// A row whose value has no parts.
    pub(super) fn whole(row: IVec) -> Self {
        Self { row, parts: None }
    }

    /// The size of the row and its value in bytes.
    pub(super) fn len(&self) -> usize {
        self.row.len() + self.parts.as_ref().map_or(0, Bytes::len)
    }

    /// Hands out the value where it lies. A value in parts is in a buffer that can be shared.
    pub(super) fn with_value<R>(&self, read: impl FnOnce(ValueRef<'_>) -> R) -> Result<R, Corrupt> {
        let Some((_, len)) = reference(&self.row) else {
            return Ok(read(decode(&self.row)?));
        };
        let joined = self.parts.as_ref().ok_or("its parts were not read")?;
        if joined.len() as u64 != len {
            return Err(format!("{} of its {len} bytes are there", joined.len()).into());
        }
        Ok(match decode(joined)? {
            ValueRef::String(text) => {
                let text = joined.slice_ref(text.as_bytes());
                read(ValueRef::String(Text::known_shared(&text)))
            }
            ValueRef::Binary(data) => {
                let data = joined.slice_ref(data.as_bytes());
                read(ValueRef::Binary(Data::shared(&data)))
            }
            small => read(small),
        })
    }
}

fn decode(encoded: &[u8]) -> Result<ValueRef<'_>, Corrupt> {
    ValueRef::decode_with(encoded, Text::from_utf8)
        .ok_or_else(|| "it is not an encoded value".into())
}
