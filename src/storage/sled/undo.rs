//! Records of what a write replaces, so that a write of several batches can be undone.
//!
//! sled makes a batch of changes atomic, but holds up everything else meanwhile. So a large write
//! is made in several batches. Each batch but the last also adds what it replaces to a record of
//! the write, and the last one removes the first entry of the record. After a crash, a record that
//! has its first entry belongs to a write that was not completed, and the write is undone; without
//! its first entry, a record is a remainder and is removed.
//!
//! A batch is recorded as a sequence of rows, cut into entries of at most [`MAX_PART_LEN`] bytes. A
//! row is the length of its key, the key, and what is stored: a byte that tells whether anything
//! is, the length of that, and the entry itself. Lengths are big-endian `u32`. Values in parts are
//! not copied: their parts are removed only once the write is complete.

use std::collections::BTreeMap;
use std::io;

use sled::{Batch, IVec};
use tracing::info;

use super::changes::MAX_PART_LEN;
use super::layout::{
    number_of_record, record_batch_key, record_batch_prefix, record_key, records_prefix,
};
use super::rows::{Corrupt, ENTRIES_AT_ONCE};
use super::sync::io_error;

/// The rows that a batch replaces, as they are recorded.
#[derive(Default)]
pub(super) struct Replaced {
    bytes: Vec<u8>,
}

impl Replaced {
    /// Adds a row, which may not exist.
    pub(super) fn add(&mut self, key: &[u8], row: Option<&[u8]>) {
        self.add_bytes(key);
        self.bytes.push(u8::from(row.is_some()));
        self.add_bytes(row.unwrap_or_default());
    }

    fn add_bytes(&mut self, bytes: &[u8]) {
        // The keys and entries of a batch are far shorter than 4 GiB.
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        self.bytes.extend_from_slice(&len.to_be_bytes());
        self.bytes.extend_from_slice(bytes);
    }

    /// The entries of the record of a write for one of its batches.
    pub(super) fn entries(
        &self,
        number: u64,
        batch: u32,
    ) -> impl Iterator<Item = (Vec<u8>, &[u8])> {
        let chunks = self.bytes.chunks(MAX_PART_LEN);
        (0_u32..)
            .zip(chunks)
            .map(move |(entry, chunk)| (record_batch_key(number, batch, entry), chunk))
    }
}

/// A row as it was before a batch.
pub(super) struct OldRow {
    key: IVec,
    /// [`None`] if it did not exist.
    row: Option<IVec>,
}

/// The rows that a batch has replaced, by the record of its write.
pub(super) fn replaced(tree: &sled::Db, number: u64, batch: u32) -> sled::Result<Vec<OldRow>> {
    let mut bytes = Vec::new();
    for entry in tree.scan_prefix(record_batch_prefix(number, batch)) {
        bytes.extend_from_slice(&entry?.1);
    }
    parse(&bytes).ok_or_else(|| {
        let damaged = "the record of an incomplete write is damaged";
        io::Error::new(io::ErrorKind::InvalidData, damaged).into()
    })
}

/// The changes that restore rows.
pub(super) fn restoring(rows: Vec<OldRow>) -> Batch {
    let mut batch = Batch::default();
    for OldRow { key, row } in rows {
        match row {
            Some(row) => batch.insert(key, row),
            None => batch.remove(key),
        }
    }
    batch
}

/// Undoes the writes that a crash has left incomplete, and removes what is left of records.
pub(super) fn recover(tree: &sled::Db) -> Result<(), Corrupt> {
    // The number of batches of each incomplete write.
    let mut incomplete: BTreeMap<u64, u32> = BTreeMap::new();
    for entry in tree.scan_prefix(records_prefix()) {
        let (key, _) = entry.map_err(io_error)?;
        match number_of_record(&key) {
            Some((number, None)) => drop(incomplete.insert(number, 0)),
            Some((number, Some(batch))) => {
                incomplete
                    .entry(number)
                    .and_modify(|batches| *batches = batch + 1);
            }
            None => {}
        }
    }
    for (number, batches) in &incomplete {
        for batch in (0..*batches).rev() {
            let mut restoring = restoring(replaced(tree, *number, batch).map_err(io_error)?);
            if batch == 0 {
                restoring.remove(&record_key(*number));
            }
            tree.apply_batch(restoring).map_err(io_error)?;
            // Little may wait to leave the process: see `outflow`.
            tree.flush().map_err(io_error)?;
        }
    }
    if !incomplete.is_empty() {
        info!(
            writes = incomplete.len(),
            "undid writes that were incomplete"
        );
    }
    loop {
        let mut batch = Batch::default();
        let mut is_empty = true;
        for entry in tree.scan_prefix(records_prefix()).take(ENTRIES_AT_ONCE) {
            batch.remove(entry.map_err(io_error)?.0);
            is_empty = false;
        }
        if is_empty {
            return Ok(());
        }
        tree.apply_batch(batch).map_err(io_error)?;
    }
}

fn parse(mut bytes: &[u8]) -> Option<Vec<OldRow>> {
    let mut rows = Vec::new();
    while !bytes.is_empty() {
        let key = take(&mut bytes)?;
        let (exists, rest) = bytes.split_first()?;
        bytes = rest;
        let row = take(&mut bytes)?;
        rows.push(OldRow {
            key: key.into(),
            row: (*exists != 0).then(|| row.into()),
        });
    }
    Some(rows)
}

fn take<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (len, rest) = bytes.split_first_chunk()?;
    let len = usize::try_from(u32::from_be_bytes(*len)).ok()?;
    let (taken, rest) = rest.split_at_checked(len)?;
    *bytes = rest;
    Some(taken)
}
