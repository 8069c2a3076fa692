//! Changes of rows that are made together, and how each changes the store's checksum.
//!
//! A large value is split into parts. They are written before the row that refers to them, and
//! removed after it, so that a crash between leaves parts without a row but never the reverse.

use bytes::Bytes;
use sled::{Batch, IVec};

use super::layout::{checksum, new_reference, record_key, reference};
use super::locks::Growth;
use super::undo::Replaced;
use crate::abi::ValueRef;

/// The maximum number of bytes of an encoded value in one entry.
pub(super) const MAX_PART_LEN: usize = 4096;

/// What an entry takes in the log beside its key and value, roughly.
pub(super) const ENTRY_BYTES: u64 = 512;

/// An encoded value that is to be stored.
pub(super) struct NewValue {
    pub(super) bytes: Bytes,
}

/// Changes that are made together. Each row may change once.
#[derive(Default)]
pub(super) struct Changes {
    pub(super) batch: Batch,
    /// The size of the batch in the log in bytes, about.
    pub(super) bytes: u64,
    /// By how much the sum of the checksums of all rows grows, wrapping.
    pub(super) sum: u64,
    /// By how much the sum of the checksums of all records grows, wrapping.
    pub(super) record_sum: u64,
    /// By how much the table grows.
    pub(super) growth: Growth,
    /// The values to write in parts before the batch, by their numbers.
    pub(super) values: Vec<(u64, Bytes)>,
    /// The numbers of the values whose parts nothing refers to after the batch.
    pub(super) old_values: Vec<u64>,
    /// What the batch replaces, if that may have to be recorded.
    replaced: Option<Replaced>,
}

impl From<ValueRef<'_>> for NewValue {
    fn from(value: ValueRef<'_>) -> Self {
        let mut bytes = Vec::with_capacity(value.encoded_len());
        value.encode(&mut bytes);
        Self {
            bytes: bytes.into(),
        }
    }
}

impl NewValue {
    /// Whether the value is kept in parts.
    pub(super) fn has_parts(&self) -> bool {
        self.bytes.len() > MAX_PART_LEN
    }
}

impl Changes {
    /// Changes that can be [added to a record](Self::add_record).
    pub(super) fn to_record() -> Self {
        Self {
            replaced: Some(Replaced::default()),
            ..Self::default()
        }
    }

    /// Replaces a row, or adds or removes it. Its key in the table has `key_len` bytes, and
    /// `next_number` numbers a value that is kept in parts.
    pub(super) fn replace(
        &mut self,
        key: Vec<u8>,
        key_len: usize,
        old: Option<&IVec>,
        new: Option<NewValue>,
        next_number: impl FnOnce() -> u64,
    ) {
        if old.is_none() && new.is_none() {
            return;
        }
        let old_row = old.map(|old| &**old);
        let new_len = new.as_ref().map(|new| new.bytes.len());
        self.growth += Growth::replacing(key_len, old_row, new_len);
        if let Some(replaced) = &mut self.replaced {
            replaced.add(&key, old_row);
        }
        if let Some(old) = old {
            self.sum = self.sum.wrapping_sub(checksum(&key, old));
            self.old_values
                .extend(reference(old).map(|(number, _)| number));
        }
        let Some(new) = new else {
            self.bytes += key.len() as u64 + ENTRY_BYTES;
            self.batch.remove(key);
            return;
        };
        if new.has_parts() {
            let number = next_number();
            let row = new_reference(number, new.bytes.len() as u64);
            self.values.push((number, new.bytes));
            self.insert(key, &row);
        } else {
            self.insert(key, &new.bytes);
        }
    }

    fn insert(&mut self, key: Vec<u8>, row: &[u8]) {
        self.sum = self.sum.wrapping_add(checksum(&key, row));
        self.bytes += (key.len() + row.len()) as u64 + ENTRY_BYTES;
        self.batch.insert(key, row);
    }

    /// Adds what the batch replaces to a record, of which it is the batch with this number.
    pub(super) fn add_record(&mut self, number: u64, batch: u32) {
        let replaced = self.replaced.take().unwrap_or_default();
        if batch == 0 {
            self.insert_record(record_key(number).to_vec(), b"");
        }
        for (key, entry) in replaced.entries(number, batch) {
            self.insert_record(key, entry);
        }
    }

    fn insert_record(&mut self, key: Vec<u8>, entry: &[u8]) {
        self.record_sum = self.record_sum.wrapping_add(checksum(&key, entry));
        self.bytes += (key.len() + entry.len()) as u64 + ENTRY_BYTES;
        self.batch.insert(key, entry);
    }

    /// Removes the first entry of a record: the write is complete.
    pub(super) fn complete(&mut self, number: u64) {
        let key = record_key(number);
        self.record_sum = self.record_sum.wrapping_sub(checksum(&key, b""));
        self.bytes += ENTRY_BYTES;
        self.batch.remove(&key);
    }
}
