//! Small rows, packed into one allocation.
//!
//! First come the heads of all rows, then their keys and values. A row is found by walking over the
//! heads. For a few rows that is about as quick as a hash table, and it costs four bytes a row;
//! with two allocations and a slot in a hash table, a row of 64 bytes would take twice the memory.
//! The heads stand together, and each holds a byte of its key's hash, so that a search rarely looks
//! at the key of another row: every further cache line costs more than the work done on it.
//!
//! The first row may be the name of the table, see [`Packed::named`].

use std::mem;
use std::ops::Range;

use super::value::{NAME, Payload, Stored};
use crate::abi::Text;

/// The maximum length of a packed key and of a packed value, in bytes, and the maximum number of
/// rows: one byte holds each of them.
pub(super) const MAX_PACKED: usize = u8::MAX as usize;

/// What stands beside a table's name.
const NO_VALUE: Payload<'_> = Payload {
    kind: NAME,
    bytes: &[],
};

/// The length of a head, in bytes: the tag and the length of the key, the kind and the length of
/// the value.
const HEAD: usize = 4;

/// Rows whose keys and values have at most [`MAX_PACKED`] bytes: their number, their heads, then
/// keys and values. Empty if there are no rows.
#[derive(Default)]
pub(super) struct Packed(Box<[u8]>);

/// A packed row: its position and the contents of its head.
#[derive(Clone, Copy)]
pub(super) struct PackedRow {
    /// The number of heads before its own.
    index: usize,
    /// The offset of the key; the value follows it.
    start: usize,
    /// The [`tag`] of the key.
    tag: u8,
    key_len: u8,
    kind: u8,
    value_len: u8,
}

impl Packed {
    /// No rows, but the name of their table; [`None`] if the name is too long.
    pub(super) fn named(name: &[u8]) -> Option<Self> {
        let mut packed = Self::default();
        (name.len() <= MAX_PACKED).then(|| packed.push(name, NO_VALUE))?;
        Some(packed)
    }

    /// Whether a row is small enough to be packed.
    #[inline]
    pub(super) fn fits(key: &[u8], payload: Payload<'_>) -> bool {
        key.len() <= MAX_PACKED && payload.bytes.len() <= MAX_PACKED
    }

    #[inline]
    pub(super) fn name(&self) -> Option<&[u8]> {
        let row = self.entries().next()?;
        (row.kind == NAME).then(|| self.key(row))
    }

    /// The number of rows; the name is not one.
    pub(super) fn len(&self) -> usize {
        self.heads().len() - usize::from(self.name().is_some())
    }

    /// Whether there is no room for another row, however small.
    pub(super) fn is_full(&self) -> bool {
        self.heads().len() >= MAX_PACKED
    }

    /// The rows in no particular order.
    pub(super) fn rows(&self) -> impl Iterator<Item = (Text<'_>, Stored<'_>)> {
        let rows = self.entries().filter(|row| row.kind != NAME);
        rows.map(|row| (Text::known(self.key(row)), self.stored(row)))
    }

    #[inline(always)]
    pub(super) fn find(&self, key: &[u8]) -> Option<PackedRow> {
        let wanted = [tag(key), u8::try_from(key.len()).ok()?];
        let heads = self.heads();
        let mut start = 1 + heads.len() * HEAD;
        for (index, head) in heads.iter().enumerate() {
            let &[tag, key_len, _, value_len] = head;
            if [tag, key_len] == wanted {
                let row = PackedRow::new(index, start, *head);
                if is_same(self.key(row), key) && row.kind != NAME {
                    return Some(row);
                }
            }
            start += usize::from(key_len) + usize::from(value_len);
        }
        None
    }

    #[inline]
    pub(super) fn stored(&self, row: PackedRow) -> Stored<'_> {
        Stored::packed(Payload {
            kind: row.kind,
            bytes: self.bytes(row.value()),
        })
    }

    /// Replaces a value by one that [fits](Self::fits).
    #[inline]
    pub(super) fn overwrite(&mut self, row: PackedRow, payload: Payload<'_>) {
        let Payload { kind, bytes } = payload;
        if row.kind != kind || usize::from(row.value_len) != bytes.len() {
            self.resize(row, payload);
        } else if let Some(stored) = self.0.get_mut(row.value()) {
            stored.copy_from_slice(bytes);
        }
    }

    /// Adds a row that [fits](Self::fits), while there is room, and whose key is new. The
    /// allocation stays exactly as long as its contents.
    pub(super) fn push(&mut self, key: &[u8], payload: Payload<'_>) {
        let Payload { kind, bytes: value } = payload;
        let heads_end = 1 + self.heads().len() * HEAD;
        let mut bytes = mem::take(&mut self.0).into_vec();
        let count: &[u8] = if bytes.is_empty() { &[0] } else { &[] };
        bytes.reserve_exact(count.len() + HEAD + key.len() + value.len());
        bytes.extend_from_slice(count);
        let head = [tag(key), key.len() as u8, kind, value.len() as u8];
        bytes.splice(heads_end..heads_end, head);
        bytes.extend_from_slice(key);
        bytes.extend_from_slice(value);
        if let Some(count) = bytes.first_mut() {
            *count += 1;
        }
        self.0 = bytes.into();
    }

    pub(super) fn remove(&mut self, row: PackedRow) {
        let mut bytes = mem::take(&mut self.0).into_vec();
        bytes.drain(row.start..row.value().end);
        bytes.drain(row.head());
        match bytes.first_mut() {
            Some(count) if *count > 1 => *count -= 1,
            _ => bytes.clear(),
        }
        self.0 = bytes.into();
    }

    /// Takes out the rows with the chosen keys.
    pub(super) fn split(&mut self, chosen: impl Fn(&[u8]) -> bool) -> Self {
        let (mut stay, mut go) = (Self::default(), Self::default());
        for row in self.entries() {
            let key = self.key(row);
            let goes = row.kind != NAME && chosen(key);
            let to = if goes { &mut go } else { &mut stay };
            to.push(key, self.stored(row).payload());
        }
        *self = stay;
        go
    }

    #[inline]
    fn heads(&self) -> &[[u8; HEAD]] {
        let Some((count, rest)) = self.0.split_first() else {
            return &[];
        };
        let (heads, _) = rest.as_chunks();
        heads.get(..usize::from(*count)).unwrap_or_default()
    }

    /// All rows, and the entry of the name.
    #[inline]
    fn entries(&self) -> impl Iterator<Item = PackedRow> {
        let heads = self.heads();
        let mut start = 1 + heads.len() * HEAD;
        heads.iter().enumerate().map(move |(index, head)| {
            let row = PackedRow::new(index, start, *head);
            start = row.value().end;
            row
        })
    }

    #[inline]
    fn key(&self, row: PackedRow) -> &[u8] {
        self.bytes(row.key())
    }

    #[inline]
    #[expect(
        clippy::indexing_slicing,
        reason = "the heads say where rows are, and only this file writes either"
    )]
    fn bytes(&self, range: Range<usize>) -> &[u8] {
        &self.0[range]
    }

    /// Stores a value of another kind or length.
    #[inline(never)]
    fn resize(&mut self, row: PackedRow, payload: Payload<'_>) {
        let Payload { kind, bytes: value } = payload;
        let mut bytes = mem::take(&mut self.0).into_vec();
        bytes.reserve_exact(value.len().saturating_sub(row.value_len.into()));
        bytes.splice(row.value(), value.iter().copied());
        if let Some(head) = bytes.get_mut(row.head()) {
            head.copy_from_slice(&[row.tag, row.key_len, kind, value.len() as u8]);
        }
        self.0 = bytes.into();
    }
}

impl PackedRow {
    #[inline]
    fn new(index: usize, start: usize, head: [u8; HEAD]) -> Self {
        let [tag, key_len, kind, value_len] = head;
        Self {
            index,
            start,
            tag,
            key_len,
            kind,
            value_len,
        }
    }

    fn head(self) -> Range<usize> {
        let start = 1 + self.index * HEAD;
        start..start + HEAD
    }

    #[inline]
    fn key(self) -> Range<usize> {
        self.start..self.start + usize::from(self.key_len)
    }

    #[inline]
    fn value(self) -> Range<usize> {
        let start = self.key().end;
        start..start + usize::from(self.value_len)
    }
}

/// A byte that differs for most keys that differ in their last eight bytes.
#[inline]
fn tag(key: &[u8]) -> u8 {
    let word = if let Some(last) = key.last_chunk() {
        u64::from_le_bytes(*last)
    } else if let (Some(first), Some(last)) = (key.first_chunk(), key.last_chunk()) {
        u64::from(u32::from_le_bytes(*first)) << 32 | u64::from(u32::from_le_bytes(*last))
    } else {
        key.iter()
            .fold(0, |word, byte| word << 8 | u64::from(*byte))
    };
    (word.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
}

/// Whether two slices are equal. Of up to 16 bytes, two overlapping words show it, which takes half
/// as long as a call.
#[inline(always)]
fn is_same(one: &[u8], other: &[u8]) -> bool {
    if one.len() != other.len() {
        return false;
    }
    if one.len() > 2 * size_of::<u64>() {
        return one == other;
    }
    let words = |bytes: &[u8]| Some((bytes.first_chunk().copied()?, bytes.last_chunk().copied()?));
    if let (Some(one), Some(other)) = (words(one), words(other)) {
        let word = u64::from_ne_bytes;
        return (word(one.0) ^ word(other.0)) | (word(one.1) ^ word(other.1)) == 0;
    }
    let words = |bytes: &[u8]| Some((bytes.first_chunk().copied()?, bytes.last_chunk().copied()?));
    if let (Some(one), Some(other)) = (words(one), words(other)) {
        let word = u32::from_ne_bytes;
        return (word(one.0) ^ word(other.0)) | (word(one.1) ^ word(other.1)) == 0;
    }
    one.iter().eq(other)
}
