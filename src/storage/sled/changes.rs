//! Changes of rows that are made together, and how each changes the store's checksum.
//!
//! A large value is split into parts. They are written before the row that refers to them, and
//! removed after it, so that a crash between leaves parts without a row but never the reverse.

use sled::{Batch, IVec};

use super::layout::{REFERENCE_LEN, checksum, new_reference, part_key};
use super::rows::Stored;
use crate::abi::ValueRef;

/// The maximum number of bytes of an encoded value in one entry.
pub(super) const MAX_PART_LEN: usize = 4096;

/// The size of a batch from which further values are kept in parts, however small: a batch has to
/// be one entry of sled's log.
const LARGE_BATCH_BYTES: u64 = 1 << 18;

/// What an entry takes in the log beside its key and value, roughly.
pub(super) const ENTRY_BYTES: u64 = 512;

/// An encoded value that is to be stored.
pub(super) struct NewValue {
    pub(super) bytes: Vec<u8>,
}

/// Changes that are made together. Each row may change once.
#[derive(Default)]
pub(super) struct Changes {
    pub(super) batch: Batch,
    /// The parts to write before the batch.
    pub(super) added: Vec<(Vec<u8>, Vec<u8>)>,
    /// The keys of the parts to remove after the batch.
    pub(super) removed: Vec<IVec>,
    /// The size of the batch in bytes.
    pub(super) bytes: u64,
    /// By how much the sum of all checksums grows, wrapping.
    pub(super) sum: u64,
}

impl From<ValueRef<'_>> for NewValue {
    fn from(value: ValueRef<'_>) -> Self {
        let mut bytes = Vec::with_capacity(value.encoded_len());
        value.encode(&mut bytes);
        Self { bytes }
    }
}

impl Changes {
    /// Replaces a row, or adds or removes it. `next_number` numbers a value that is kept in parts.
    pub(super) fn replace(
        &mut self,
        key: Vec<u8>,
        old: Option<&Stored>,
        new: Option<NewValue>,
        next_number: impl FnOnce() -> u64,
    ) {
        if let Some(old) = old {
            self.remove_parts(old);
            self.subtract(&key, &old.row);
        }
        let Some(NewValue { bytes }) = new else {
            if old.is_some() {
                self.bytes += key.len() as u64 + ENTRY_BYTES;
                self.batch.remove(key);
            }
            return;
        };
        let max_len = match self.bytes < LARGE_BATCH_BYTES {
            true => MAX_PART_LEN,
            false => REFERENCE_LEN,
        };
        if bytes.len() <= max_len {
            self.insert(key, bytes);
            return;
        }
        let number = next_number();
        for (n, part) in (0_u32..).zip(bytes.chunks(MAX_PART_LEN)) {
            self.add_part(part_key(number, n), part.to_vec());
        }
        self.insert(key, new_reference(number, bytes.len() as u64));
    }

    fn insert(&mut self, key: Vec<u8>, row: Vec<u8>) {
        self.add(&key, &row);
        self.bytes += (key.len() + row.len()) as u64 + ENTRY_BYTES;
        self.batch.insert(key, row);
    }

    fn add_part(&mut self, key: Vec<u8>, part: Vec<u8>) {
        self.add(&key, &part);
        self.added.push((key, part));
    }

    /// Removes the parts of a value.
    pub(super) fn remove_parts(&mut self, old: &Stored) {
        for (part, bytes) in &old.parts {
            self.remove_part(part, bytes);
        }
    }

    pub(super) fn remove_part(&mut self, key: &IVec, part: &[u8]) {
        self.subtract(key, part);
        self.removed.push(key.clone());
    }

    /// Counts an entry that is written.
    pub(super) fn add(&mut self, key: &[u8], row: &[u8]) {
        self.sum = self.sum.wrapping_add(checksum(key, row));
    }

    /// Counts an entry that is replaced or removed.
    pub(super) fn subtract(&mut self, key: &[u8], row: &[u8]) {
        self.sum = self.sum.wrapping_sub(checksum(key, row));
    }
}
