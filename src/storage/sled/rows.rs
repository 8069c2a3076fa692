//! How rows lie in sled's tree.
//!
//! A row's key is its table's name behind its length, then its own, so that no two rows collide whatever is in
//! their names. What it holds is the encoded [`Value`], or, where that has more than [`MAX_PART_LEN`] bytes, a
//! reference to parts of it, which are entries of the same tree behind all tables. Parts are written before what refers
//! to them and removed after it; those that a crash leaves are removed when the store is opened.
//!
//! sled would take a large value as it is, and keep the page that it is on in a file of its own, for every page of more
//! than 128 KiB. Such a file needs a sync of itself and one of its directory beside that of the log, and is forgotten
//! when the process ends before the log has gone on by half a megabyte: after a thousand writes and kills there
//! were a thousand of them. Up to 17 entries and some that are on their way to a split make a page, which is small enough
//! when an entry has no more than these few KiB: only names of more than 400 bytes can still make a larger one.

use std::collections::HashMap;
use std::error::Error;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use prost::Message;
use sled::{Batch, IVec};

use super::locks::Locks;
use super::progress::Progress;
use super::sync::io_error;
use crate::abi::Value;

/// How many bytes of an encoded value are one entry.
pub(super) const MAX_PART_LEN: usize = 4096;

/// The length of a table's name stands in front of it, as a big-endian `u64`.
const TABLE_LEN_BYTES: usize = size_of::<u64>();

/// What the keys of parts begin with: the length of a table's name that nobody can have. Behind it are the
/// number of the value and that of the part, big-endian, so that parts lie in their order.
const PARTS: [u8; 8] = [0xff; 8];

/// What a reference begins with, which no message does: a tag of protobuf's with number 0. Behind it are the number
/// of the value and its length in bytes.
const REFERENCE: u8 = 0;

const REFERENCE_LEN: usize = 1 + 2 * size_of::<u64>();

/// How many parts are written or removed at once: 256 KiB of them.
const PARTS_AT_ONCE: usize = 64;

/// From how many bytes on what is written in one batch is only references, which must be in one.
const LARGE_BATCH_BYTES: u64 = 1 << 18;

/// How many bytes may wait to leave the process before those who write wait for them: three of sled's segments. sled
/// writes each in a task for one of its seven threads. A task that waits for the end of another that comes behind it,
/// such as that to make the log shorter, holds up everything for ever when it and its like have all the threads: its
/// issue 1412.
const MAX_WAITING_BYTES: u64 = 3 << 19;

/// What an entry adds to them beside itself: sled writes a page of 17 entries anew for every ten that are written.
const PAGE_FACTOR: u64 = 3;
const ENTRY_BYTES: u64 = 512;

/// The entries of the tree.
pub(super) struct Rows {
    tree: sled::Db,
    /// The number of the next value that is kept in parts.
    next: AtomicU64,
    /// The sum of the checksums of all entries.
    sum: AtomicU64,
    outflow: Arc<Outflow>,
}

/// What waits to leave the process.
#[derive(Default)]
pub(super) struct Outflow {
    /// About how many bytes that is.
    waiting: AtomicU64,
    /// Held by whoever waits for them.
    writes_out: Mutex<()>,
}

/// What is stored of a row.
pub(super) struct Stored {
    row: IVec,
    /// The keys of its parts, and what they hold.
    parts: Vec<(IVec, IVec)>,
}

/// A value that is to be stored, encoded.
pub(super) struct NewValue {
    bytes: Vec<u8>,
}

impl From<&Value> for NewValue {
    fn from(value: &Value) -> Self {
        let bytes = value.encode_to_vec();
        Self { bytes }
    }
}

/// Writes that are made together.
#[derive(Default)]
pub(super) struct Changes {
    batch: Batch,
    /// The parts that they refer to, which are written before, and the keys of those that nothing refers to afterwards.
    added: Vec<(Vec<u8>, Vec<u8>)>,
    removed: Vec<IVec>,
    /// How many bytes there are in the batch.
    bytes: u64,
    /// What they add to the sum of all checksums.
    sum: u64,
}

/// An error of what is stored.
type Corrupt = Box<dyn Error + Send + Sync>;

impl Rows {
    /// Takes what is in a tree, having read all of it, to count the rows of each table; and gives what removes the parts
    /// that nothing refers to.
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
            let table = table_of(&key).ok_or("it holds rows that are not kvs's")?;
            locks.write(table).count(1, 0);
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

    /// What is stored under a key. Whoever does not hold the lock of its table may find a part missing.
    pub(super) fn get(&self, key: &[u8]) -> sled::Result<Option<Stored>> {
        let row = self.tree.get(key)?;
        row.map(|row| self.with_parts(row)).transpose()
    }

    pub(super) fn contains(&self, key: &[u8]) -> sled::Result<bool> {
        self.tree.contains_key(key)
    }

    /// The keys of a table, whole, and what is stored under them, without their parts.
    pub(super) fn scan(
        &self,
        table: &str,
    ) -> impl Iterator<Item = sled::Result<(IVec, IVec)>> + use<> {
        self.tree.scan_prefix(row_key(table, ""))
    }

    /// [`scan`](Self::scan) in the order of the keys, from this one on: they stand together, in their own order, because
    /// the name of their table is in front of each.
    pub(super) fn scan_from(
        &self,
        table: &str,
        from: &str,
    ) -> impl Iterator<Item = sled::Result<(IVec, IVec)>> + use<> {
        let table = row_key(table, "");
        let rows = self.tree.range([&table, from.as_bytes()].concat()..);
        rows.take_while(move |entry| {
            let other = |(key, _): &(IVec, IVec)| !key.starts_with(&table);
            !entry.as_ref().is_ok_and(other)
        })
    }

    /// What a row that was scanned stands for.
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

    /// Puts a value, or none, in the place of what is stored under a key, and gives that.
    pub(super) fn replace(
        &self,
        key: Vec<u8>,
        value: Option<NewValue>,
    ) -> sled::Result<Option<Stored>> {
        let value = match value {
            Some(value) if value.bytes.len() > MAX_PART_LEN => {
                let old = self.get(&key)?;
                let mut changes = Changes::default();
                self.add(&mut changes, key, old.as_ref(), Some(value));
                self.apply(changes)?;
                return Ok(old);
            }
            small => small,
        };
        let len = value.as_ref().map_or(0, |value| value.bytes.len());
        self.make_room(1, key.len() + len)?;
        let mut changes = Changes::default();
        let old = match value {
            Some(NewValue { bytes }) => {
                changes.sum = checksum(&key, &bytes);
                self.tree.insert(&key, bytes)?
            }
            None => self.tree.remove(&key)?,
        };
        let old = old.map(|old| self.with_parts(old)).transpose()?;
        if let Some(old) = &old {
            changes.subtract(&key, &old.row);
            changes.remove_parts(old);
        }
        self.apply(changes)?;
        Ok(old)
    }

    /// Adds a replacement to the writes that are to be made. Each key may come once.
    pub(super) fn add(
        &self,
        changes: &mut Changes,
        key: Vec<u8>,
        old: Option<&Stored>,
        value: Option<NewValue>,
    ) {
        if let Some(old) = old {
            changes.remove_parts(old);
            changes.remove(&key, &old.row);
        }
        let Some(NewValue { bytes }) = value else {
            return;
        };
        let max_len = match changes.bytes < LARGE_BATCH_BYTES {
            true => MAX_PART_LEN,
            false => REFERENCE_LEN,
        };
        if bytes.len() <= max_len {
            changes.insert(key, bytes);
            return;
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        for (n, part) in (0_u32..).zip(bytes.chunks(MAX_PART_LEN)) {
            changes.add_part(part_key(number, n), part.to_vec());
        }
        let mut row = Vec::with_capacity(REFERENCE_LEN);
        row.push(REFERENCE);
        row.extend(number.to_be_bytes());
        row.extend((bytes.len() as u64).to_be_bytes());
        changes.insert(key, row);
    }

    /// Makes writes that were added, all or none.
    pub(super) fn apply(&self, changes: Changes) -> sled::Result<()> {
        for parts in changes.added.chunks(PARTS_AT_ONCE) {
            let mut batch = Batch::default();
            for (key, part) in parts {
                batch.insert(&**key, &**part);
            }
            self.make_room(parts.len(), parts.len() * MAX_PART_LEN)?;
            self.tree.apply_batch(batch)?;
        }
        if changes.bytes > 0 {
            self.make_room(1, changes.bytes as usize)?;
            self.tree.apply_batch(changes.batch)?;
        }
        for parts in changes.removed.chunks(PARTS_AT_ONCE) {
            let mut batch = Batch::default();
            for key in parts {
                batch.remove(key);
            }
            self.make_room(parts.len(), parts.len() * MAX_PART_LEN)?;
            self.tree.apply_batch(batch)?;
        }
        self.sum.fetch_add(changes.sum, Ordering::Relaxed);
        Ok(())
    }

    /// To be called before entries are written: waits until what was written before has left the process, where that
    /// is much.
    fn make_room(&self, entries: usize, bytes: usize) -> sled::Result<()> {
        let adds = entries as u64 * ENTRY_BYTES + bytes as u64 * PAGE_FACTOR;
        let outflow = &self.outflow;
        if outflow.waiting.fetch_add(adds, Ordering::Relaxed) < MAX_WAITING_BYTES {
            return Ok(());
        }
        // Others wait here as well: what they would write meanwhile would wait too.
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
    /// Returns once all that was written has left the process.
    pub(super) fn write_out(&self, tree: &sled::Db) -> sled::Result<()> {
        let waiting = self.waiting.load(Ordering::Relaxed);
        tree.flush()?;
        // Two may have waited for the same.
        let left = |now: u64| Some(now.saturating_sub(waiting));
        let _ = self
            .waiting
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, left);
        Ok(())
    }
}

impl Changes {
    /// Of an entry that was removed before, it is the last word.
    fn insert(&mut self, key: Vec<u8>, row: Vec<u8>) {
        self.sum = self.sum.wrapping_add(checksum(&key, &row));
        self.bytes += (key.len() + row.len()) as u64 + ENTRY_BYTES;
        self.batch.insert(key, row);
    }

    fn remove(&mut self, key: &[u8], row: &[u8]) {
        self.subtract(key, row);
        self.bytes += key.len() as u64 + ENTRY_BYTES;
        self.batch.remove(key);
    }

    fn add_part(&mut self, key: Vec<u8>, part: Vec<u8>) {
        self.sum = self.sum.wrapping_add(checksum(&key, &part));
        self.added.push((key, part));
    }

    fn remove_parts(&mut self, old: &Stored) {
        for (part, bytes) in &old.parts {
            self.remove_part(part, bytes);
        }
    }

    fn remove_part(&mut self, key: &IVec, part: &[u8]) {
        self.subtract(key, part);
        self.removed.push(key.clone());
    }

    fn subtract(&mut self, key: &[u8], row: &[u8]) {
        self.sum = self.sum.wrapping_sub(checksum(key, row));
    }
}

impl Stored {
    /// The value, which has a buffer of its own.
    pub(super) fn value(&self) -> Result<Value, Corrupt> {
        let value = match reference(&self.row) {
            None => Value::decode(&*self.row)?,
            Some((_, len)) => {
                let found = self.parts.iter().map(|(_, part)| part.len()).sum::<usize>();
                if found as u64 != len {
                    return Err(format!("of its {len} bytes {found} are there").into());
                }
                let mut bytes = Vec::with_capacity(found);
                for (_, part) in &self.parts {
                    bytes.extend_from_slice(part);
                }
                Value::decode(Bytes::from(bytes))?
            }
        };
        if value.is_set() {
            Ok(value)
        } else {
            Err("the value has no type".into())
        }
    }
}

/// Tells an entry from one that is damaged, and is not to withstand anybody who means harm: it takes a fraction of what a
/// CRC does for entries as short as most are. Files on disk depend on it.
fn checksum(key: &[u8], row: &[u8]) -> u64 {
    const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;
    let mix = |sum: u64, word: u64| (sum.rotate_left(29) ^ word).wrapping_mul(MULTIPLIER);
    let mut sum = key.len() as u64;
    for bytes in [key, row] {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            sum = mix(sum, u64::from_le_bytes(*word));
        }
        let mut last = [0; 8];
        for (to, from) in last.iter_mut().zip(rest) {
            *to = *from;
        }
        sum = mix(sum, u64::from_le_bytes(last) ^ (bytes.len() as u64) << 56);
    }
    sum ^ sum >> 32
}

/// The key of a row.
pub(super) fn row_key(table: &str, key: &str) -> Vec<u8> {
    let mut row = Vec::with_capacity(TABLE_LEN_BYTES + table.len() + key.len());
    row.extend_from_slice(&(table.len() as u64).to_be_bytes());
    row.extend_from_slice(table.as_bytes());
    row.extend_from_slice(key.as_bytes());
    row
}

/// The part of a row's key that its table has named.
pub(super) fn key_of<'a>(table: &str, row: &'a [u8]) -> &'a [u8] {
    row.get(TABLE_LEN_BYTES + table.len()..).unwrap_or_default()
}

/// The table's name in a row's key.
fn table_of(row: &[u8]) -> Option<&str> {
    let (len, rest) = row.split_first_chunk::<TABLE_LEN_BYTES>()?;
    let len = usize::try_from(u64::from_be_bytes(*len)).ok()?;
    std::str::from_utf8(rest.get(..len)?).ok()
}

fn part_prefix(number: u64) -> [u8; 16] {
    let mut prefix = [0xff; 16];
    let (_, behind) = prefix.split_at_mut(PARTS.len());
    behind.copy_from_slice(&number.to_be_bytes());
    prefix
}

fn part_key(number: u64, part: u32) -> Vec<u8> {
    [&part_prefix(number)[..], &part.to_be_bytes()].concat()
}

/// The number of the value that a key is of a part of, if it is.
fn number_of_part(key: &[u8]) -> Option<u64> {
    let number = key.strip_prefix(&PARTS)?.first_chunk()?;
    Some(u64::from_be_bytes(*number))
}

/// Whether a row has its value in parts.
pub(super) fn is_in_parts(row: &[u8]) -> bool {
    reference(row).is_some()
}

/// The number and the length of a value that is kept in parts, where this refers to one.
fn reference(row: &[u8]) -> Option<(u64, u64)> {
    let (number, rest) = row.strip_prefix(&[REFERENCE])?.split_first_chunk()?;
    let len = rest.try_into().ok()?;
    Some((u64::from_be_bytes(*number), u64::from_be_bytes(len)))
}
