//! The smallest keys of a table, which keeps its rows in no order, for a part of it.
//!
//! It looks at every row once, in whatever order, and keeps those that may belong to the part in a
//! heap with the greatest on top. That takes time for all rows of the table, but memory only for
//! those of the part; keeping tables in order would cost more of both for every row stored.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use super::value::Stored;
use crate::abi::Text;
use crate::storage::PartLimit;
use crate::storage::part::counted_len;

/// The number of bytes of a key that are kept beside its row.
const PREFIX: usize = size_of::<u128>();

/// The rows with the smallest keys of those offered, as many as the limit allows.
pub(super) struct Smallest<'a> {
    from: Key<'a>,
    limit: PartLimit,
    /// The size in bytes of the rows in the heap, as it counts against the limit.
    bytes: usize,
    heap: BinaryHeap<Row<'a>>,
    /// The smallest key that was dropped: from it on, no key belongs to the part.
    end: Option<Key<'a>>,
}

/// A key, with its first bytes as a number that compares as they do. Most keys differ in these;
/// comparing keys where they lie, all over memory, takes five times as long.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Key<'a> {
    prefix: u128,
    text: Text<'a>,
}

struct Row<'a> {
    key: Key<'a>,
    value: Stored<'a>,
}

impl<'a> Smallest<'a> {
    /// No rows yet. Takes none whose key is less than `from`.
    pub(super) fn new(from: Text<'a>, limit: PartLimit) -> Self {
        Self {
            from: Key::new(from),
            limit,
            bytes: 0,
            heap: BinaryHeap::new(),
            end: None,
        }
    }

    pub(super) fn offer(&mut self, key: Text<'a>, value: Stored<'a>) {
        let key = Key::new(key);
        if key < self.from || self.end.is_some_and(|end| key >= end) {
            return;
        }
        let row = Row { key, value };
        self.bytes += row.len();
        self.heap.push(row);
        // A dropped row never returns: smaller keys only leave less room for it.
        while self.is_over_limit() {
            let Some(greatest) = self.heap.pop() else {
                break;
            };
            self.bytes -= greatest.len();
            self.end = Some(greatest.key);
        }
    }

    /// The rows in the order of their keys.
    pub(super) fn into_rows(self) -> impl Iterator<Item = (Text<'a>, Stored<'a>)> {
        let rows = self.heap.into_sorted_vec();
        rows.into_iter().map(|row| (row.key.text, row.value))
    }

    fn is_over_limit(&self) -> bool {
        let pairs = self.heap.len();
        pairs > self.limit.pairs || self.bytes > self.limit.bytes && pairs > 1
    }
}

impl<'a> Key<'a> {
    fn new(text: Text<'a>) -> Self {
        let bytes = text.as_bytes();
        // A shorter key is filled up with zeros. Where that makes two prefixes equal, all bytes of
        // the keys decide.
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
            text,
        }
    }
}

impl Row<'_> {
    fn len(&self) -> usize {
        counted_len(self.key.text.len(), self.value.payload_len())
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

    fn key(bytes: &[u8]) -> Key<'_> {
        Key::new(Text::known(bytes))
    }

    proptest! {
        #[test]
        fn keys_compare_by_their_bytes(
            keys in vec(vec(prop_oneof![Just(0), Just(b'a'), Just(255)], 13..20), 2..3),
            short in 0..20_usize,
        ) {
            let one = keys[0].as_slice();
            let other = &keys[1][..short.min(keys[1].len())];
            prop_assert_eq!(key(one).cmp(&key(other)), one.cmp(other));
            let beginning = &one[..short.min(one.len())];
            prop_assert_eq!(key(one).cmp(&key(beginning)), one.cmp(beginning));
        }
    }
}
