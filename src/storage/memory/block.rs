//! A few rows: the small ones [packed](Packed), and beside them the large ones.
//!
//! A row whose key or value is too long to be packed has allocations of its own, so that no change
//! of another row moves it.

use std::mem;
use std::ops::ControlFlow;

use super::packed::{Packed, PackedRow};
use super::value::{LargeValue, Payload, Stored};
use crate::abi::Text;
use crate::storage::Change;

/// Some rows of a table.
#[derive(Default)]
pub(super) struct Block {
    packed: Packed,
    large: Box<[(Box<[u8]>, LargeValue)]>,
}

/// Some rows to be read: those of a block, or packed ones alone.
#[derive(Clone, Copy)]
pub(super) struct BlockRef<'a> {
    packed: &'a Packed,
    large: &'a [(Box<[u8]>, LargeValue)],
}

/// Where a row is.
#[derive(Clone, Copy)]
enum Slot {
    Packed(PackedRow),
    /// The index of a large row.
    Large(usize),
    /// The key does not exist.
    Absent,
}

/// How a change affects the size of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Growth {
    pub(super) rows: RowCount,
    /// By how much the bytes of keys and values grow; wraps around if they shrink.
    pub(super) bytes: usize,
}

/// How a change affects the number of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RowCount {
    /// It stays the same.
    Same,
    /// One row more.
    Added,
    /// One row less.
    Removed,
}

impl Block {
    pub(super) fn new(packed: Packed) -> Self {
        Self {
            packed,
            ..Self::default()
        }
    }

    /// All the rows, if they are packed together with the name of their table.
    pub(super) fn into_named(self) -> Result<Packed, Self> {
        if self.large.is_empty() && self.packed.name().is_some() {
            Ok(self.packed)
        } else {
            Err(self)
        }
    }

    pub(super) fn len(&self) -> usize {
        self.packed.len() + self.large.len()
    }

    /// The size of keys and values in bytes.
    pub(super) fn bytes(&self) -> usize {
        bytes(self.rows())
    }

    #[inline]
    pub(super) fn view(&self) -> BlockRef<'_> {
        BlockRef {
            packed: &self.packed,
            large: &self.large,
        }
    }

    /// The rows in no particular order.
    pub(super) fn rows(&self) -> impl Iterator<Item = (Text<'_>, Stored<'_>)> {
        let large = self.large.iter();
        let large = large.map(|(key, value)| (Text::known(key), value.into()));
        self.packed.rows().chain(large)
    }

    /// Calls `change` with the value of a key, and does what it returns. If it breaks off, nothing
    /// has changed.
    #[inline(always)]
    pub(super) fn change<'v, B>(
        &mut self,
        key: &[u8],
        change: impl FnOnce(Option<Stored<'_>>) -> ControlFlow<B, Change<'v>>,
    ) -> ControlFlow<B, Growth> {
        let slot = self.find(key);
        let stored = self.stored(slot);
        let before = stored.map_or(0, |stored| key.len() + stored.payload_len());
        let (rows, after) = match change(stored)? {
            Change::Keep => (RowCount::Same, before),
            Change::Set(value) => {
                let mut number = [0; 8];
                let payload = Payload::new(value, &mut number);
                let after = key.len() + payload.bytes.len();
                (self.set(slot, key, payload), after)
            }
            Change::Remove => (self.remove(slot), 0),
        };
        let bytes = after.wrapping_sub(before);
        ControlFlow::Continue(Growth { rows, bytes })
    }

    /// Stores a value that has an allocation of its own already.
    pub(super) fn set_large(&mut self, key: &[u8], value: LargeValue) -> Growth {
        let slot = self.find(key);
        let before = self.stored(slot);
        let before = before.map_or(0, |stored| key.len() + stored.payload_len());
        let after = key.len() + Stored::from(&value).payload_len();
        Growth {
            rows: self.set_large_at(slot, key, value),
            bytes: after.wrapping_sub(before),
        }
    }

    /// Takes out the rows with the chosen keys.
    pub(super) fn split(&mut self, chosen: impl Fn(&[u8]) -> bool) -> Self {
        let packed = self.packed.split(&chosen);
        let large = mem::take(&mut self.large).into_vec();
        let (large, stay): (Vec<_>, _) = large.into_iter().partition(|(key, _)| chosen(key));
        self.large = stay.into();
        Self {
            packed,
            large: large.into(),
        }
    }

    /// Takes in the rows of another block, which has none of the same keys.
    pub(super) fn append(&mut self, other: Self) {
        for (key, value) in other.packed.rows() {
            self.set(Slot::Absent, key.as_bytes(), value.payload());
        }
        for (key, value) in other.large {
            let key = &*key;
            let small = Stored::from(&value).payload();
            if Packed::fits(key, small) && !self.packed.is_full() {
                self.packed.push(key, small);
            } else {
                self.push_large(key, value);
            }
        }
    }

    #[inline(always)]
    fn find(&self, key: &[u8]) -> Slot {
        match self.packed.find(key) {
            Some(row) => Slot::Packed(row),
            None => position(&self.large, key).map_or(Slot::Absent, Slot::Large),
        }
    }

    #[inline]
    fn stored(&self, slot: Slot) -> Option<Stored<'_>> {
        match slot {
            Slot::Packed(row) => Some(self.packed.stored(row)),
            Slot::Large(index) => self.large.get(index).map(|(_, value)| value.into()),
            Slot::Absent => None,
        }
    }

    #[inline]
    fn set(&mut self, slot: Slot, key: &[u8], payload: Payload<'_>) -> RowCount {
        match slot {
            Slot::Packed(row) if Packed::fits(key, payload) => {
                self.packed.overwrite(row, payload);
                RowCount::Same
            }
            slot => self.set_elsewhere(slot, key, payload),
        }
    }

    /// Stores a value that does not replace one packed value by another.
    #[inline(never)]
    fn set_elsewhere(&mut self, slot: Slot, key: &[u8], payload: Payload<'_>) -> RowCount {
        if !Packed::fits(key, payload) || self.packed.is_full() {
            return self.set_large_at(slot, key, payload.into());
        }
        let removed = self.remove(slot);
        self.packed.push(key, payload);
        match removed {
            RowCount::Removed => RowCount::Same,
            _ => RowCount::Added,
        }
    }

    fn set_large_at(&mut self, slot: Slot, key: &[u8], value: LargeValue) -> RowCount {
        if let Slot::Large(index) = slot
            && let Some((_, stored)) = self.large.get_mut(index)
        {
            *stored = value;
            return RowCount::Same;
        }
        let removed = self.remove(slot);
        self.push_large(key, value);
        match removed {
            RowCount::Removed => RowCount::Same,
            _ => RowCount::Added,
        }
    }

    fn push_large(&mut self, key: &[u8], value: LargeValue) {
        let mut large = mem::take(&mut self.large).into_vec();
        large.reserve_exact(1);
        large.push((key.into(), value));
        self.large = large.into();
    }

    fn remove(&mut self, slot: Slot) -> RowCount {
        match slot {
            Slot::Packed(row) => self.packed.remove(row),
            Slot::Large(index) => {
                let mut large = mem::take(&mut self.large).into_vec();
                large.swap_remove(index);
                self.large = large.into();
            }
            Slot::Absent => return RowCount::Same,
        }
        RowCount::Removed
    }
}

impl<'a> BlockRef<'a> {
    #[inline(always)]
    pub(super) fn get(self, key: &[u8]) -> Option<Stored<'a>> {
        match self.packed.find(key) {
            Some(row) => Some(self.packed.stored(row)),
            None => {
                let (_, value) = self.large.get(position(self.large, key)?)?;
                Some(value.into())
            }
        }
    }
}

impl<'a> From<&'a Packed> for BlockRef<'a> {
    #[inline]
    fn from(packed: &'a Packed) -> Self {
        Self { packed, large: &[] }
    }
}

/// The size of the keys and values of rows in bytes.
pub(super) fn bytes<'a>(rows: impl Iterator<Item = (Text<'a>, Stored<'a>)>) -> usize {
    rows.map(|(key, stored)| key.len() + stored.payload_len())
        .sum()
}

/// The index of a large row.
#[inline(never)]
fn position(large: &[(Box<[u8]>, LargeValue)], key: &[u8]) -> Option<usize> {
    large.iter().position(|(stored, _)| **stored == *key)
}

#[cfg(test)]
mod tests {
    use super::super::packed::MAX_PACKED;
    use super::*;
    use crate::abi::ValueRef;

    /// Stores a value and returns whether the key is new.
    fn set(block: &mut Block, key: &str, value: ValueRef<'_>) -> bool {
        let change = ControlFlow::<(), _>::Continue(Change::Set(value));
        let growth = block.change(key.as_bytes(), |_| change);
        match growth {
            ControlFlow::Continue(Growth { rows, .. }) => rows == RowCount::Added,
            other => panic!("{other:?}"),
        }
    }

    fn value<'a>(block: &'a Block, key: &str) -> Option<ValueRef<'a>> {
        block.view().get(key.as_bytes()).map(Stored::value)
    }

    #[test]
    fn a_block_takes_more_rows_than_can_be_packed() {
        let mut block = Block::default();
        for number in 0..400 {
            assert!(set(&mut block, &number.to_string(), number.into()));
        }
        assert_eq!(block.packed.len(), MAX_PACKED);
        assert_eq!(block.rows().count(), 400);
        for number in 0..400 {
            let key = number.to_string();
            assert_eq!(value(&block, &key), Some(number.into()));
            assert!(!set(&mut block, &key, "x".into()));
        }
        let is_odd = |key: &[u8]| key.last().is_some_and(|digit| digit % 2 == 1);
        let mut odd = block.split(is_odd);
        assert_eq!((odd.len(), block.len()), (200, 200));
        odd.append(block);
        for number in 0..400 {
            let key = number.to_string();
            assert_eq!(value(&odd, &key), Some("x".into()));
            let remove = ControlFlow::<(), _>::Continue(Change::Remove);
            let removed = odd.change(key.as_bytes(), |_| remove);
            let bytes = (key.len() + 1).wrapping_neg();
            let rows = RowCount::Removed;
            assert_eq!(removed, ControlFlow::Continue(Growth { rows, bytes }));
        }
        assert_eq!(odd.rows().count(), 0);
        assert!(odd.packed.len() == 0 && odd.large.is_empty());
    }

    #[test]
    fn packs_rows_whose_lengths_fit_one_byte() {
        for (key, len, is_packed) in [(255, 255, true), (256, 0, false), (0, 256, false)] {
            let (key, long) = ("k".repeat(key), "v".repeat(len));
            let mut block = Block::default();
            set(&mut block, &key, long.as_str().into());
            assert_eq!(block.large.is_empty(), is_packed);
            assert_eq!(value(&block, &key), Some(long.as_str().into()));
            // The position of a row does not depend on earlier rows.
            set(&mut block, &key, 1.into());
            assert_eq!(block.large.is_empty(), key.len() <= MAX_PACKED);
            assert_eq!(value(&block, &key), Some(1.into()));
            set(&mut block, &key, long.as_str().into());
            assert_eq!(block.large.is_empty(), is_packed);
            assert_eq!(block.len(), 1);
        }
    }

    #[test]
    fn a_break_changes_nothing() {
        let mut block = Block::default();
        set(&mut block, "key", 1.into());
        let broken = block.change(b"key", |stored| {
            assert_eq!(stored.map(Stored::value), Some(1.into()));
            ControlFlow::Break("why")
        });
        assert_eq!(broken, ControlFlow::Break("why"));
        assert_eq!(value(&block, "key"), Some(1.into()));
    }
}
