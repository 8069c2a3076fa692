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

use std::collections::HashMap;
use std::error::Error;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use sled::{Batch, IVec};

use super::changes::{Changes, ENTRY_BYTES, MAX_PART_LEN, NewValue};
use super::layout::{checksum, key_of, number_of_part, part_prefix, reference, row_key, table_of};
use super::locks::{Growth, Locks};
use super::progress::Progress;
use super::sync::io_error;
use crate::abi::{Data, Text, ValueRef};

/// How many parts are written or removed at once: 256 KiB of them.
const PARTS_AT_ONCE: usize = 64;

/// How many bytes may wait to leave the process before writers wait for them: three segments of
/// sled's log. sled writes each segment in a task, and has seven threads for tasks. A task may wait
/// for the end of one that is queued behind it, such as truncating the log. If such tasks have all
/// the threads, everything stops for ever: sled's issue 1412.
const MAX_WAITING_BYTES: u64 = 3 << 19;

/// What an entry adds to these bytes, as a multiple of its size: sled writes a page of 17 entries
/// anew for every ten entries that are written.
const PAGE_FACTOR: u64 = 3;

/// The entries of the tree.
pub(super) struct Rows {
    tree: sled::Db,
    /// The number of the next value that is kept in parts.
    next: AtomicU64,
    /// The sum of the checksums of all entries, wrapping.
    sum: AtomicU64,
    outflow: Arc<Outflow>,
}

/// What waits to leave the process.
#[derive(Default)]
pub(super) struct Outflow {
    /// About how many bytes that is.
    waiting: AtomicU64,
    /// Held by the writer that waits for them.
    writes_out: Mutex<()>,
}

/// A stored row with the parts of its value.
pub(super) struct Stored {
    pub(super) row: IVec,
    /// The keys and the contents of the parts.
    pub(super) parts: Vec<(IVec, IVec)>,
}

/// An entry as sled iterates over them: its key and its content.
pub(super) type Entry = sled::Result<(IVec, IVec)>;

/// Why something that is stored cannot be understood.
pub(super) type Corrupt = Box<dyn Error + Send + Sync>;

impl Rows {
    /// Reads the whole tree and counts the rows of each table. Also returns the changes that remove
    /// parts without a row.
    pub(super) fn open(
        tree: sled::Db,
        progress: &Progress,
    ) -> Result<(Self, Locks, Changes), Corrupt> {
        let locks = Locks::new();
        let mut values: HashMap<u64, u64> = HashMap::new();
        let mut orphans = Vec::new();
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
                    None => orphans.push((key, row)),
                }
                continue;
            }
            let table = table_of(&key).and_then(Text::from_utf8);
            let table = table.ok_or("it holds rows that are not kvs's")?;
            let key_len = key_of(table.len(), &key).len();
            let encoded = reference(&row).map_or(row.len(), |(_, len)| len as usize);
            let growth = Growth::replacing(key_len, None, Some(encoded));
            locks.write(table).count(growth);
            progress.add(1);
            if let Some((number, len)) = reference(&row) {
                values.insert(number, len);
                next = next.max(number.saturating_add(1));
            }
        }
        if values.values().any(|missing| *missing > 0) {
            return Err("a part of a value is missing".into());
        }
        let mut left = Changes::default();
        for (part, bytes) in orphans {
            left.remove_part(&part, &bytes);
        }
        let rows = Self {
            tree,
            next: AtomicU64::new(next),
            sum: AtomicU64::new(sum),
            outflow: Arc::default(),
        };
        Ok((rows, locks, left))
    }

    pub(super) fn outflow(&self) -> Arc<Outflow> {
        Arc::clone(&self.outflow)
    }

    pub(super) fn tree(&self) -> &sled::Db {
        &self.tree
    }

    /// The sum of the checksums of all entries.
    pub(super) fn sum(&self) -> u64 {
        self.sum.load(Ordering::Relaxed)
    }

    /// The row with this key. A caller that does not hold the lock of the table may miss parts.
    pub(super) fn get(&self, key: &[u8]) -> sled::Result<Option<Stored>> {
        let row = self.tree.get(key)?;
        row.map(|row| self.with_parts(row)).transpose()
    }

    pub(super) fn contains(&self, key: &[u8]) -> sled::Result<bool> {
        self.tree.contains_key(key)
    }

    /// The entries of a table, without parts.
    pub(super) fn scan(&self, table: Text<'_>) -> impl Iterator<Item = Entry> + use<> {
        self.tree.scan_prefix(row_key(table.as_bytes(), b""))
    }

    /// The entries of a table in the order of their keys, from this key on, without parts. The keys
    /// of all of them begin with the name of the table, so they stand together in their own order.
    pub(super) fn scan_from(
        &self,
        table: Text<'_>,
        from: Text<'_>,
    ) -> impl Iterator<Item = Entry> + use<> {
        let prefix = row_key(table.as_bytes(), b"");
        let rows = self
            .tree
            .range(row_key(table.as_bytes(), from.as_bytes())..);
        rows.take_while(move |entry| {
            let other = |(key, _): &(IVec, IVec)| !key.starts_with(&prefix);
            !entry.as_ref().is_ok_and(other)
        })
    }

    /// A row with its parts.
    pub(super) fn with_parts(&self, row: IVec) -> sled::Result<Stored> {
        let parts = match reference(&row) {
            Some((number, _)) => self
                .tree
                .scan_prefix(part_prefix(number))
                .collect::<Result<_, _>>()?,
            None => Vec::new(),
        };
        Ok(Stored { row, parts })
    }

    /// Replaces one row, or adds or removes it. `old` is what it is now.
    pub(super) fn replace(
        &self,
        key: Vec<u8>,
        old: Option<&Stored>,
        new: Option<NewValue>,
    ) -> sled::Result<()> {
        let mut changes = Changes::default();
        match new {
            Some(new) if new.bytes.len() > MAX_PART_LEN => {
                self.add(&mut changes, key, old, Some(new));
                return self.apply(changes);
            }
            None if old.is_none() => return Ok(()),
            small => {
                // A single entry is written without a batch.
                let len = small.as_ref().map_or(0, |new| new.bytes.len());
                self.wait_for_outflow(1, key.len() + len)?;
                if let Some(old) = old {
                    changes.subtract(&key, &old.row);
                    changes.remove_parts(old);
                }
                match small {
                    Some(NewValue { bytes }) => {
                        changes.add(&key, &bytes);
                        self.tree.insert(&key, bytes)?;
                    }
                    None => drop(self.tree.remove(&key)?),
                }
            }
        }
        self.apply(changes)
    }

    /// Adds a replacement to changes: see [`Changes::replace`].
    pub(super) fn add(
        &self,
        changes: &mut Changes,
        key: Vec<u8>,
        old: Option<&Stored>,
        new: Option<NewValue>,
    ) {
        let next_number = || self.next.fetch_add(1, Ordering::Relaxed);
        changes.replace(key, old, new, next_number);
    }

    /// Makes changes, all or none.
    pub(super) fn apply(&self, changes: Changes) -> sled::Result<()> {
        for parts in changes.added.chunks(PARTS_AT_ONCE) {
            let mut batch = Batch::default();
            for (key, part) in parts {
                batch.insert(&**key, &**part);
            }
            self.wait_for_outflow(parts.len(), parts.len() * MAX_PART_LEN)?;
            self.tree.apply_batch(batch)?;
        }
        if changes.bytes > 0 {
            self.wait_for_outflow(1, changes.bytes as usize)?;
            self.tree.apply_batch(changes.batch)?;
        }
        for parts in changes.removed.chunks(PARTS_AT_ONCE) {
            let mut batch = Batch::default();
            for key in parts {
                batch.remove(key);
            }
            self.wait_for_outflow(parts.len(), parts.len() * MAX_PART_LEN)?;
            self.tree.apply_batch(batch)?;
        }
        self.sum.fetch_add(changes.sum, Ordering::Relaxed);
        Ok(())
    }

    /// Called before entries are written: if too many bytes wait to leave the process, waits until
    /// they have.
    fn wait_for_outflow(&self, entries: usize, bytes: usize) -> sled::Result<()> {
        let adds = entries as u64 * ENTRY_BYTES + bytes as u64 * PAGE_FACTOR;
        let outflow = &self.outflow;
        if outflow.waiting.fetch_add(adds, Ordering::Relaxed) < MAX_WAITING_BYTES {
            return Ok(());
        }
        // Other writers wait here as well: what they write would have to wait too.
        let _writes_out = outflow
            .writes_out
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if outflow.waiting.load(Ordering::Relaxed) >= MAX_WAITING_BYTES {
            outflow.write_out(&self.tree)?;
        }
        Ok(())
    }
}

impl Outflow {
    /// Returns once everything that was written has left the process.
    pub(super) fn write_out(&self, tree: &sled::Db) -> sled::Result<()> {
        let waiting = self.waiting.load(Ordering::Relaxed);
        tree.flush()?;
        // Two may have waited for the same bytes.
        let left = |now: u64| Some(now.saturating_sub(waiting));
        let _ = self
            .waiting
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, left);
        Ok(())
    }
}

impl Stored {
    /// Hands out the value where it lies. A value in parts is joined in a buffer that can be
    /// shared.
    pub(super) fn with_value<R>(&self, read: impl FnOnce(ValueRef<'_>) -> R) -> Result<R, Corrupt> {
        let Some((_, len)) = reference(&self.row) else {
            return Ok(read(decode(&self.row)?));
        };
        let joined = self.join(len)?;
        Ok(match decode(&joined)? {
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

    fn join(&self, len: u64) -> Result<Bytes, Corrupt> {
        let found = self.parts.iter().map(|(_, part)| part.len()).sum::<usize>();
        if found as u64 != len {
            return Err(format!("{found} of its {len} bytes are there").into());
        }
        let mut joined = Vec::with_capacity(found);
        for (_, part) in &self.parts {
            joined.extend_from_slice(part);
        }
        Ok(joined.into())
    }
}

fn decode(encoded: &[u8]) -> Result<ValueRef<'_>, Corrupt> {
    ValueRef::decode_with(encoded, Text::from_utf8)
        .ok_or_else(|| "it is not an encoded value".into())
}
