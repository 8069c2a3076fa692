//! A few rows in one allocation.
//!
//! Small rows are a [`Packed`]: the heads of all of them, then their keys and values. To find a row is to walk over
//! the heads, which for a few is about as quick as a hash table and costs four bytes a row, where two allocations and a
//! slot in a table cost a row of 64 bytes as much again. The heads stand together, and nearly tell which key it
//! is, because each further cache line that is looked at costs more than what is done there. A row whose key or value is longer
//! than a byte can say stands beside them, in allocations of its own, so that no change of another row has to move it.
//!
//! One more kind of row is known: the name of the table that the rows are of, see [`Packed::named`].

use std::mem;
use std::ops::Range;

use super::value::{LargeValue, NAME, Stored, payload, text};
use crate::abi::{Value, ValueRef};

/// The longest key and the longest value that are packed, in bytes, and the most rows: what one byte can say.
pub(super) const MAX_PACKED: usize = u8::MAX as usize;

/// The length of what is known of a packed row before it is looked at: see [`Place`].
const HEAD: usize = 4;

/// Rows, small ones packed.
#[derive(Default)]
pub(super) struct Block {
    packed: Packed,
    large: Box<[(Box<str>, LargeValue)]>,
}

/// Rows whose keys and values have [`MAX_PACKED`] bytes at most: how many there are, the heads, and the keys and
/// values. Where there are none, there are no bytes.
#[derive(Default)]
pub(super) struct Packed(Box<[u8]>);

/// Where a packed row is, and what its head says: so much is known without looking at the row.
#[derive(Clone, Copy)]
struct Place {
    /// How many heads are before its own.
    index: usize,
    /// Where its key begins; its value follows.
    start: usize,
    /// [`tag`] of the key.
    tag: u8,
    kind: u8,
    key_len: u8,
    value_len: u8,
}

impl Block {
    pub(super) fn new(packed: Packed) -> Self {
        Self {
            packed,
            ..Self::default()
        }
    }

    /// All the rows, if they are packed and their name is with them.
    pub(super) fn into_named(self) -> Result<Packed, Self> {
        if self.large.is_empty() && self.packed.name().is_some() {
            Ok(self.packed)
        } else {
            Err(self)
        }
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<Stored<'_>> {
        let packed = self.packed.get(key);
        packed.or_else(|| self.get_large(key).map(Stored::Large))
    }

    /// The rows in no particular order: keys, which are text, and values.
    pub(super) fn rows(&self) -> impl Iterator<Item = (&[u8], Stored<'_>)> {
        let large = self.large.iter();
        let large = large.map(|(key, value)| (key.as_bytes(), Stored::Large(value)));
        self.packed.rows().chain(large)
    }

    /// Stores a value, which is nobody's slice if it is longer than [`MAX_PACKED`], and gives the one that it replaced.
    pub(super) fn insert(&mut self, key: &[u8], value: Value) -> Option<Value> {
        let fits = key.len() <= MAX_PACKED && value.payload_len() <= MAX_PACKED;
        if fits && self.packed.heads().len() < MAX_PACKED {
            let previous = self.packed.insert(key, value);
            return previous.or_else(|| self.remove_large(key));
        }
        // A small one may be a slice of what it came in.
        let value = match value.payload_len() {
            0..=MAX_PACKED => ValueRef::from(&value).into(),
            _ => value.into(),
        };
        self.insert_large(key, value).map(Value::from)
    }

    /// Stores a value that is not packed, and gives the one that it replaced.
    pub(super) fn insert_large(&mut self, key: &[u8], value: LargeValue) -> Option<LargeValue> {
        let mut large = self.large.iter_mut();
        if let Some((_, place)) = large.find(|(stored, _)| stored.as_bytes() == key) {
            return Some(mem::replace(place, value));
        }
        let previous = self
            .packed
            .get(key)
            .map(ValueRef::from)
            .map(LargeValue::from);
        self.packed.remove(key);
        let mut large = mem::take(&mut self.large).into_vec();
        large.reserve_exact(1);
        large.push((text(key).into(), value));
        self.large = large.into();
        previous
    }

    /// Packs a value, and gives what `replaced` makes of the packed one that was there. [`None`] where that makes none, where
    /// the one that was there is not packed, or the new one cannot be: then nothing has changed.
    pub(super) fn replace<R>(
        &mut self,
        key: &[u8],
        value: ValueRef<'_>,
        replaced: impl FnOnce(Option<ValueRef<'_>>) -> Option<R>,
    ) -> Option<R> {
        let fits = key.len() <= MAX_PACKED && value.payload_len() <= MAX_PACKED;
        if !fits || self.packed.heads().len() >= MAX_PACKED || self.get_large(key).is_some() {
            return None;
        }
        self.packed.replace(key, value, replaced)
    }

    /// Whether so many rows more can be packed, and all are.
    pub(super) fn packs(&self, count: usize) -> bool {
        self.large.is_empty() && self.packed.heads().len() + count <= MAX_PACKED
    }

    fn get_large(&self, key: &[u8]) -> Option<&LargeValue> {
        let mut large = self.large.iter();
        let (_, value) = large.find(|(stored, _)| stored.as_bytes() == key)?;
        Some(value)
    }

    pub(super) fn remove(&mut self, key: &[u8]) -> Option<Value> {
        let removed = self.packed.remove(key);
        removed.or_else(|| self.remove_large(key))
    }

    fn remove_large(&mut self, key: &[u8]) -> Option<Value> {
        let mut large = self.large.iter();
        let at = large.position(|(stored, _)| stored.as_bytes() == key)?;
        let mut large = mem::take(&mut self.large).into_vec();
        let (_, value) = large.swap_remove(at);
        self.large = large.into();
        Some(value.into())
    }

    /// Takes the rows out whose keys are chosen.
    pub(super) fn split(&mut self, chosen: impl Fn(&[u8]) -> bool) -> Self {
        let packed = self.packed.split(&chosen);
        let large = mem::take(&mut self.large).into_vec();
        let (large, stay): (Vec<_>, _) = large
            .into_iter()
            .partition(|(key, _)| chosen(key.as_bytes()));
        self.large = stay.into();
        Self {
            packed,
            large: large.into(),
        }
    }

    /// Takes in the rows of another, which has none of the same keys.
    pub(super) fn append(&mut self, other: Self) {
        for (key, value) in other.packed.rows() {
            self.insert(key, value.to_value());
        }
        for (key, value) in other.large {
            self.insert(key.as_bytes(), value.into());
        }
    }
}

impl Packed {
    /// No rows yet, but the name of their table, which lies before them and is none of them; nothing for a name that
    /// is too long.
    pub(super) fn named(name: &str) -> Option<Self> {
        let mut packed = Self::default();
        (name.len() <= MAX_PACKED).then(|| packed.push(NAME, name.as_bytes(), &[]))?;
        Some(packed)
    }

    pub(super) fn name(&self) -> Option<&[u8]> {
        let place = self.places().next()?;
        (place.kind == NAME).then(|| self.key(place))
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<Stored<'_>> {
        Some(self.stored(self.find(key)?))
    }

    pub(super) fn rows(&self) -> impl Iterator<Item = (&[u8], Stored<'_>)> {
        let places = self.places().filter(|place| place.kind != NAME);
        places.map(|place| (self.key(place), self.stored(place)))
    }

    fn heads(&self) -> &[[u8; HEAD]] {
        let Some((count, rest)) = self.0.split_first() else {
            return &[];
        };
        let (heads, _) = rest.as_chunks();
        heads.get(..usize::from(*count)).unwrap_or_default()
    }

    /// Where every row is, and the name.
    fn places(&self) -> impl Iterator<Item = Place> {
        let heads = self.heads();
        let mut end = 1 + heads.len() * HEAD;
        heads.iter().enumerate().map(move |(index, head)| {
            let &[tag, kind, key_len, value_len] = head;
            let start = end;
            end += usize::from(key_len) + usize::from(value_len);
            Place {
                index,
                start,
                tag,
                kind,
                key_len,
                value_len,
            }
        })
    }

    fn find(&self, key: &[u8]) -> Option<Place> {
        let tag = tag(key);
        self.places().find(|place| {
            place.tag == tag
                && usize::from(place.key_len) == key.len()
                && place.kind != NAME
                && self.key(*place) == key
        })
    }

    fn key(&self, place: Place) -> &[u8] {
        self.bytes(place.key())
    }

    #[expect(
        clippy::indexing_slicing,
        reason = "heads say where rows are, and nothing but this file writes either"
    )]
    fn bytes(&self, place: Range<usize>) -> &[u8] {
        &self.0[place]
    }

    fn stored(&self, place: Place) -> Stored<'_> {
        Stored::Packed {
            kind: place.kind,
            bytes: self.bytes(place.value()),
        }
    }

    /// Stores a value that is small enough, where there is a place left.
    fn insert(&mut self, key: &[u8], value: Value) -> Option<Value> {
        let previous = self.replace(key, (&value).into(), |previous| {
            Some(previous.map(Value::from))
        });
        previous.flatten()
    }

    /// [`insert`](Self::insert), where `replaced` has seen what was there, and may say no.
    fn replace<R>(
        &mut self,
        key: &[u8],
        value: ValueRef<'_>,
        replaced: impl FnOnce(Option<ValueRef<'_>>) -> Option<R>,
    ) -> Option<R> {
        let mut number = [0; 8];
        let (kind, bytes) = payload(value, &mut number);
        let Some(place) = self.find(key) else {
            str::from_utf8(key).ok()?;
            let replaced = replaced(None)?;
            self.push(kind, key, bytes);
            return Some(replaced);
        };
        let replaced = replaced(Some(self.stored(place).into()))?;
        if place.kind == kind && usize::from(place.value_len) == bytes.len() {
            // As it most often is.
            if let Some(stored) = self.0.get_mut(place.value()) {
                stored.copy_from_slice(bytes);
            }
        } else {
            self.take(place);
            self.push(kind, key, bytes);
        }
        Some(replaced)
    }

    fn remove(&mut self, key: &[u8]) -> Option<Value> {
        let place = self.find(key)?;
        let value = self.stored(place).to_value();
        self.take(place);
        Some(value)
    }

    /// Adds a row, in an allocation that is as long as what it holds.
    fn push(&mut self, kind: u8, key: &[u8], value: &[u8]) {
        let heads_end = 1 + self.heads().len() * HEAD;
        let mut bytes = mem::take(&mut self.0).into_vec();
        let count: &[u8] = if bytes.is_empty() { &[0] } else { &[] };
        bytes.reserve_exact(count.len() + HEAD + key.len() + value.len());
        bytes.extend_from_slice(count);
        let head = [tag(key), kind, key.len() as u8, value.len() as u8];
        bytes.splice(heads_end..heads_end, head);
        bytes.extend_from_slice(key);
        bytes.extend_from_slice(value);
        if let Some(count) = bytes.first_mut() {
            *count += 1;
        }
        self.0 = bytes.into();
    }

    fn take(&mut self, place: Place) {
        let mut bytes = mem::take(&mut self.0).into_vec();
        bytes.drain(place.start..place.value().end);
        let head = 1 + place.index * HEAD;
        bytes.drain(head..head + HEAD);
        match bytes.first_mut() {
            Some(count) if *count > 1 => *count -= 1,
            _ => bytes.clear(),
        }
        self.0 = bytes.into();
    }

    fn split(&mut self, chosen: impl Fn(&[u8]) -> bool) -> Self {
        let (mut stay, mut go) = (Self::default(), Self::default());
        for place in self.places() {
            let goes = place.kind != NAME && chosen(self.key(place));
            let to = if goes { &mut go } else { &mut stay };
            to.push(place.kind, self.key(place), self.bytes(place.value()));
        }
        *self = stay;
        go
    }
}

impl Place {
    fn key(self) -> Range<usize> {
        self.start..self.start + usize::from(self.key_len)
    }

    fn value(self) -> Range<usize> {
        let start = self.key().end;
        start..start + usize::from(self.value_len)
    }
}

/// A byte that differs for most keys that differ in their last eight.
fn tag(key: &[u8]) -> u8 {
    let last = key.last_chunk().copied().unwrap_or_else(|| {
        let mut last = [0; 8];
        last.iter_mut().zip(key).for_each(|(to, byte)| *to = *byte);
        last
    });
    let mixed = u64::from_le_bytes(last).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 56) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_takes_more_rows_than_can_be_packed() {
        let mut block = Block::default();
        for number in 0..400 {
            assert_eq!(
                block.insert(number.to_string().as_bytes(), number.into()),
                None
            );
        }
        assert_eq!(block.packed.heads().len(), MAX_PACKED);
        assert_eq!(block.rows().count(), 400);
        for number in 0..400 {
            let previous = block.insert(number.to_string().as_bytes(), "x".into());
            assert_eq!(previous, Some(number.into()));
        }
        let mut odd = block.split(|key| key.last().is_some_and(|digit| digit % 2 == 1));
        assert_eq!((odd.rows().count(), block.rows().count()), (200, 200));
        odd.append(block);
        for number in 0..400 {
            assert_eq!(odd.remove(number.to_string().as_bytes()), Some("x".into()));
        }
        assert_eq!(odd.rows().count(), 0);
        assert!(odd.packed.0.is_empty() && odd.large.is_empty());
    }

    #[test]
    fn a_row_is_packed_as_long_as_a_byte_can_say_how_long_it_is() {
        for (key, value, is_packed) in [(255, 255, true), (256, 0, false), (0, 256, false)] {
            let (key, value) = ("k".repeat(key), Value::from("v".repeat(value)));
            let mut block = Block::default();
            block.insert(key.as_bytes(), value.clone());
            assert_eq!(block.large.is_empty(), is_packed);
            assert!(
                block
                    .get(key.as_bytes())
                    .is_some_and(|stored| stored.to_value() == value)
            );
            // Where it is does not depend on what was there before.
            block.insert(key.as_bytes(), 1.into());
            assert_eq!(block.large.is_empty(), key.len() <= MAX_PACKED);
            assert_eq!(block.insert(key.as_bytes(), value.clone()), Some(1.into()));
            assert_eq!(block.large.is_empty(), is_packed);
            assert_eq!(block.rows().count(), 1);
        }
    }
}
