//! How much of a table one read takes, counted the same way in every backend.

use crate::abi::{Text, ValueRef};

/// The most bytes around a pair's key and value when the pair is encoded in an answer: four tags
/// and four lengths, of up to five bytes each.
const AROUND_PAIR: usize = 24;

/// How much [`Storage::read_from`](crate::Storage::read_from) returns at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct PartLimit {
    /// The maximum number of pairs.
    pub pairs: usize,
    /// The maximum size in bytes, counted by [`PartBudget`]. The first pair may exceed it, so that
    /// every part makes progress.
    pub bytes: usize,
}

impl PartLimit {
    /// All the pairs there are.
    pub const NONE: Self = Self::new(usize::MAX, usize::MAX);

    /// A limit of so many pairs and so many bytes.
    pub const fn new(pairs: usize, bytes: usize) -> Self {
        Self { pairs, bytes }
    }
}

/// Counts the pairs of a part of a table against its [`PartLimit`].
///
/// A pair counts with its key, its value and 24 bytes more, the most that encoding adds to them: so
/// an answer is never longer than what was counted for it.
///
/// ```
/// use kv::{PartBudget, PartLimit};
///
/// let mut budget = PartBudget::new(PartLimit::new(10, 100));
/// assert!(budget.take("long key".into(), "v".repeat(200).as_str().into()));
/// assert!(!budget.take("k".into(), 1.into()));
/// ```
#[derive(Debug, Clone)]
pub struct PartBudget {
    limit: PartLimit,
    pairs: usize,
    bytes: usize,
}

impl PartBudget {
    /// A budget of which nothing is taken yet.
    pub fn new(limit: PartLimit) -> Self {
        Self {
            limit,
            pairs: 0,
            bytes: 0,
        }
    }

    /// Takes a pair. Returns whether it still belongs to the part; if not, the part ends before it.
    pub fn take(&mut self, key: Text<'_>, value: ValueRef<'_>) -> bool {
        self.bytes = self
            .bytes
            .saturating_add(counted_len(key.len(), value.payload_len()));
        let fits =
            self.pairs < self.limit.pairs && (self.pairs == 0 || self.bytes <= self.limit.bytes);
        self.pairs += usize::from(fits);
        fits
    }
}

/// The size in bytes that a pair counts with.
pub(super) fn counted_len(key_len: usize, payload_len: usize) -> usize {
    key_len + payload_len + AROUND_PAIR
}
