//! The least rows of a table that has no order, for a part of it.
//!
//! The rows are looked at once, in whatever order they lie in, and those that may belong to the part are kept in a heap
//! with the greatest on top. That takes time for every row of the table, and memory for those of the part alone; a table
//! that was kept in order would take more of both for every row that is ever stored.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use super::value::{Stored, text};
use crate::abi::Kvpair;
use crate::storage::byte_budget::scanned_len;

/// How many bytes of a key stand with its row.
const PREFIX: usize = size_of::<u128>();

/// The rows with the least keys, of those that were offered: as many as there may be.
pub(super) struct Least<'a> {
    from: Key<'a>,
    limit: usize,
    max_bytes: usize,
    /// What those in the heap count together.
    bytes: usize,
    heap: BinaryHeap<Row<'a>>,
    /// The least key that there was no room for: none from it on belongs to them.
    end: Option<Key<'a>>,
}

/// A key, and its first bytes as a number that is greater for a greater key: most keys differ in them, and to look at
/// those that lie anywhere in memory takes five times as long.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Key<'a> {
    prefix: u128,
    bytes: &'a [u8],
}

struct Row<'a> {
    key: Key<'a>,
    value: Stored<'a>,
}

impl<'a> Least<'a> {
    /// Of keys from `from` on; the limits are those of [`Storage::scan`](super::Storage::scan).
    pub(super) fn new(from: &'a str, limit: usize, max_bytes: usize) -> Self {
        Self {
            from: Key::new(from.as_bytes()),
            limit,
            max_bytes,
            bytes: 0,
            heap: BinaryHeap::new(),
            end: None,
        }
    }

    pub(super) fn offer(&mut self, key: &'a [u8], value: Stored<'a>) {
        let key = Key::new(key);
        if key < self.from || self.end.is_some_and(|end| key >= end) {
            return;
        }
        let row = Row { key, value };
        self.bytes += row.len();
        self.heap.push(row);
        // What is taken out stays out: a lesser key in its place only leaves less room for it.
        while self.heap.len() > self.limit || self.bytes > self.max_bytes && self.heap.len() > 1 {
            let Some(greatest) = self.heap.pop() else {
                break;
            };
            self.bytes -= greatest.len();
            self.end = Some(greatest.key);
        }
    }

    /// The rows in the order of their keys.
    pub(super) fn into_pairs(self) -> Vec<Kvpair> {
        let rows = self.heap.into_sorted_vec();
        let pairs = rows.into_iter();
        pairs
            .map(|row| Kvpair::new(text(row.key.bytes), row.value.to_value()))
            .collect()
    }
}

impl<'a> Key<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        // What a shorter one does not have counts as zeros: where that makes two the same, all their bytes decide.
        let prefix = bytes.first_chunk::<PREFIX>().copied().unwrap_or_else(|| {
            let mut prefix = [0; PREFIX];
            prefix
                .iter_mut()
                .zip(bytes)
                .for_each(|(to, byte)| *to = *byte);
            prefix
        });
        Self {
            prefix: u128::from_be_bytes(prefix),
            bytes,
        }
    }
}

impl Row<'_> {
    fn len(&self) -> usize {
        scanned_len(self.key.bytes, self.value.payload_len())
    }
}

impl Ord for Row<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key.cmp(&other.key)
    }
}

impl PartialOrd for Row<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Eq for Row<'_> {}

impl PartialEq for Row<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn keys_are_in_the_order_of_their_bytes(
            keys in vec(vec(prop_oneof![Just(0), Just(b'a'), Just(255)], 13..20), 2..3),
            short in 0..20_usize,
        ) {
            let one = keys[0].as_slice();
            let other = &keys[1][..short.min(keys[1].len())];
            prop_assert_eq!(Key::new(one).cmp(&Key::new(other)), one.cmp(other));
            let beginning = &one[..short.min(one.len())];
            prop_assert_eq!(Key::new(one).cmp(&Key::new(beginning)), one.cmp(beginning));
        }
    }
}
