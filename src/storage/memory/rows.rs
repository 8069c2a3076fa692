//! The rows of one table: blocks of some eight rows each, in which a row is found by the hash of its key.
//!
//! It is linear hashing: a table grows by one block at a time, which takes its rows out of one other, and shrinks by
//! one at a time. No command ever pays for moving the whole table, and there is room for about what is there, where
//! a table that doubles has at times more than twice as much.

use std::hash::BuildHasher;

use super::block::{Block, Packed};
use super::value::{LargeValue, Stored};
use crate::abi::{Value, ValueRef};
use foldhash::quality::RandomState;

/// How many rows a block has on average, when a table grows; as many again are left to the first, because for so few
/// one block alone is quicker.
const MOST_IN_A_BLOCK: usize = 8;

/// How many rows a block has on average, when a table shrinks.
const LEAST_IN_A_BLOCK: usize = 2;

/// How many parts many rows are divided into.
pub(super) const PARTS: usize = 32;

/// How many blocks are to be divided into parts: some 4000 rows.
const MANY_BLOCKS: usize = 16 * PARTS;

/// A table's rows, or a part of them.
#[derive(Default)]
pub(super) struct Rows {
    first: Block,
    others: Vec<Block>,
    len: usize,
    hasher: RandomState,
    /// How many bits of a key's hash tell the part, and nothing beyond.
    part_bits: u8,
}

impl Rows {
    /// Rows that are all in one block.
    pub(super) fn new(packed: Packed, hasher: RandomState) -> Self {
        Self {
            len: packed.rows().count(),
            first: Block::new(packed),
            others: Vec::new(),
            hasher,
            part_bits: 0,
        }
    }

    /// Whether they are so many that they should be in parts, where they are not.
    pub(super) fn are_many(&self) -> bool {
        self.others.len() >= MANY_BLOCKS
    }

    /// Many rows in parts, by the lowest bits of the hashes of their keys. A block is in one part with all its rows, and none
    /// of these is moved.
    pub(super) fn into_parts(self) -> Vec<Self> {
        let mut parts: Vec<_> = (0..PARTS).map(|_| Vec::new()).collect();
        let blocks = std::iter::once(self.first).chain(self.others);
        for (place, block) in blocks.enumerate() {
            if let Some(part) = parts.get_mut(place % PARTS) {
                part.push(block);
            }
        }
        let part = |blocks: Vec<Block>| {
            let len = blocks.iter().map(|block| block.rows().count()).sum();
            let mut blocks = blocks.into_iter();
            Self {
                first: blocks.next().unwrap_or_default(),
                others: blocks.collect(),
                len,
                hasher: self.hasher.clone(),
                part_bits: PARTS.ilog2() as u8,
            }
        };
        parts.into_iter().map(part).collect()
    }

    /// What [`new`](Self::new) takes, if the rows are few and small and their name is with them.
    pub(super) fn into_named(self) -> Result<Packed, Self> {
        if !self.others.is_empty() {
            return Err(self);
        }
        let first = self.first.into_named();
        first.map_err(|first| Self { first, ..self })
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<Stored<'_>> {
        self.block(self.place(key))?.get(key)
    }

    /// The rows in no particular order: keys, which are text, and values.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&[u8], Stored<'_>)> {
        let blocks = std::iter::once(&self.first).chain(&self.others);
        blocks.flat_map(Block::rows)
    }

    /// Stores a value, which is nobody's slice, and gives the one that it replaced.
    pub(super) fn insert(&mut self, key: &[u8], value: Value) -> Option<Value> {
        let place = self.place(key);
        let previous = self.block_mut(place)?.insert(key, value);
        if previous.is_none() {
            self.count_one_more();
        }
        previous
    }

    /// Stores a value that is not small, and gives the one that it replaced.
    pub(super) fn insert_large(&mut self, key: &[u8], value: LargeValue) -> Option<LargeValue> {
        let place = self.place(key);
        let previous = self.block_mut(place)?.insert_large(key, value);
        if previous.is_none() {
            self.count_one_more();
        }
        previous
    }

    /// Stores a small value, and gives what `replaced` makes of the one that was there. [`None`] where that makes none, or
    /// where it is not so simple: then nothing has changed.
    pub(super) fn replace<R>(
        &mut self,
        key: &[u8],
        value: ValueRef<'_>,
        replaced: impl FnOnce(Option<ValueRef<'_>>) -> Option<R>,
    ) -> Option<R> {
        let place = self.place(key);
        let mut is_new = false;
        let replaced = self.block_mut(place)?.replace(key, value, |previous| {
            is_new = previous.is_none();
            replaced(previous)
        })?;
        if is_new {
            self.count_one_more();
        }
        Some(replaced)
    }

    /// Whether a small row with this key can be put in the place of what is there, or of none, however many of so many
    /// others were before.
    pub(super) fn packs(&self, key: &[u8], count: usize) -> bool {
        let block = self.block(self.place(key));
        block.is_some_and(|block| block.packs(count))
    }

    fn count_one_more(&mut self) {
        self.len += 1;
        if self.len > MOST_IN_A_BLOCK * (self.blocks() + 1) {
            self.grow();
        }
    }

    pub(super) fn remove(&mut self, key: &[u8]) -> Option<Value> {
        let place = self.place(key);
        let removed = self.block_mut(place)?.remove(key)?;
        self.len -= 1;
        if self.len < LEAST_IN_A_BLOCK * self.blocks() {
            self.shrink();
        }
        Some(removed)
    }

    fn blocks(&self) -> usize {
        1 + self.others.len()
    }

    fn block(&self, place: usize) -> Option<&Block> {
        match place {
            0 => Some(&self.first),
            other => self.others.get(other - 1),
        }
    }

    fn block_mut(&mut self, place: usize) -> Option<&mut Block> {
        match place {
            0 => Some(&mut self.first),
            other => self.others.get_mut(other - 1),
        }
    }

    fn place(&self, key: &[u8]) -> usize {
        if self.others.is_empty() {
            return 0;
        }
        place(self.hasher.hash_one(key) >> self.part_bits, self.blocks())
    }

    /// Adds a block, with the rows whose place it is.
    fn grow(&mut self) {
        let new = self.blocks();
        let (hasher, part_bits) = (self.hasher.clone(), self.part_bits);
        let moves = |key: &[u8]| place(hasher.hash_one(key) >> part_bits, new + 1) == new;
        if let Some(from) = self.block_mut(parent(new)) {
            let block = from.split(moves);
            self.others.push(block);
        }
    }

    /// Removes the last block, whose rows go back to where they came from.
    fn shrink(&mut self) {
        if let Some(last) = self.others.pop() {
            let parent = parent(self.blocks());
            if let Some(to) = self.block_mut(parent) {
                to.append(last);
            }
            if self.others.len() < self.others.capacity() / 4 {
                self.others.shrink_to(self.others.capacity() / 2);
            }
        }
    }
}

/// In which of so many blocks a row is: the lowest bits of its hash, as many as there are blocks for.
fn place(hash: u64, blocks: usize) -> usize {
    let size = blocks.next_power_of_two();
    let place = hash as usize & (size - 1);
    if place < blocks {
        place
    } else {
        place & (size / 2 - 1)
    }
}

/// The block that the rows of a later one were in before it was there.
fn parent(block: usize) -> usize {
    block & !(1 << block.ilog2())
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::storage::memory::block::MAX_PACKED;

    #[derive(Debug, Clone)]
    enum Step {
        Insert(String, Value),
        Replace(String, Value),
        Remove(String),
    }

    /// Few keys, so that they meet; packed, at the limit of that, and beyond.
    fn key() -> impl Strategy<Value = String> {
        let len = prop_oneof![4 => Just(0), 1 => Just(250), 1 => Just(253)];
        (0..60_u8, len).prop_map(|(number, len)| format!("{number:0>2}{}", "k".repeat(len)))
    }

    fn value() -> impl Strategy<Value = Value> {
        let len = prop_oneof![4 => 0..80_usize, 1 => 254..258_usize];
        prop_oneof![
            len.clone().prop_map(|len| "v".repeat(len).into()),
            len.prop_map(|len| Value::binary(vec![0xff; len])),
            any::<i64>().prop_map(Value::from),
            any::<i32>().prop_map(|number| f64::from(number).into()),
            any::<bool>().prop_map(Value::from),
        ]
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (key(), value()).prop_map(|(key, value)| Step::Insert(key, value)),
            (key(), value()).prop_map(|(key, value)| Step::Replace(key, value)),
            key().prop_map(Step::Remove),
        ]
    }

    fn named() -> Rows {
        Rows::new(Packed::named("t").unwrap(), RandomState::default())
    }

    fn same(rows: &Rows, model: &HashMap<String, Value>) {
        assert_eq!(rows.len(), model.len());
        let text = |key: &[u8]| String::from_utf8(key.to_vec()).unwrap();
        let stored = rows
            .iter()
            .map(|(key, value)| (text(key), value.to_value()));
        let stored: Vec<_> = stored.collect();
        assert_eq!(stored.len(), model.len(), "no row comes twice");
        assert_eq!(stored.into_iter().collect::<HashMap<_, _>>(), *model);
        for (key, value) in model {
            let found = rows.get(key.as_bytes()).unwrap();
            assert_eq!(found.payload_len(), value.payload_len());
            assert_eq!(found.to_value(), *value);
        }
    }

    proptest! {
        #[test]
        fn rows_are_those_of_a_map(steps in vec(step(), 0..300)) {
            let (mut rows, mut model) = (named(), HashMap::new());
            for step in steps {
                match step {
                    Step::Insert(key, value) => {
                        let previous = rows.insert(key.as_bytes(), value.clone());
                        assert_eq!(previous, model.insert(key, value));
                    }
                    Step::Replace(key, value) => {
                        let replaced = |previous: Option<ValueRef<'_>>| Some(previous.map(Value::from));
                        if let Some(previous) = rows.replace(key.as_bytes(), (&value).into(), replaced) {
                            assert_eq!(previous, model.insert(key, value));
                        } else {
                            let was_large = model.get(&key).is_some_and(|was| was.payload_len() > MAX_PACKED);
                            assert!(was_large || key.len().max(value.payload_len()) > MAX_PACKED);
                        }
                        assert_eq!(rows.replace(b"01", ValueRef::Integer(1), |_| None::<()>), None);
                    }
                    Step::Remove(key) => assert_eq!(rows.remove(key.as_bytes()), model.remove(&key)),
                }
            }
            same(&rows, &model);
        }
    }

    #[test]
    fn a_table_has_as_many_blocks_as_its_rows_need_growing_and_shrinking() {
        let (mut rows, mut model) = (named(), HashMap::new());
        let key = |number: usize| format!("key:{number}");
        for number in 0..5000 {
            rows.insert(key(number).as_bytes(), number.to_string().into());
            model.insert(key(number), number.to_string().into());
            assert!(rows.len() <= MOST_IN_A_BLOCK * (rows.blocks() + 1));
            let most = 1 + rows.len() / MOST_IN_A_BLOCK;
            assert!(rows.blocks() <= most, "{} blocks", rows.blocks());
        }
        same(&rows, &model);
        for number in 0..5000 {
            assert!(rows.remove(key(number).as_bytes()).is_some());
            model.remove(&key(number));
            assert!(rows.blocks() <= 1.max(rows.len() / LEAST_IN_A_BLOCK));
            if number % 500 == 0 {
                same(&rows, &model);
            }
        }
        assert_eq!(rows.blocks(), 1);
        assert!(rows.others.capacity() < 16, "{}", rows.others.capacity());
        assert!(rows.into_named().is_ok(), "the name has stayed");
    }

    #[test]
    fn rows_are_found_in_the_part_that_the_hashes_of_their_keys_tell() {
        let key = |number: usize| format!("key:{number}");
        for many in [5000, 8 * 1024, 20_000] {
            let mut rows = named();
            for number in 0..many {
                rows.insert(key(number).as_bytes(), number.to_string().into());
            }
            assert!(rows.are_many());
            let hasher = rows.hasher.clone();
            let mut parts = rows.into_parts();
            assert_eq!(parts.iter().map(Rows::len).sum::<usize>(), many);
            // With as many again.
            for number in 0..2 * many {
                let part = &mut parts[hasher.hash_one(key(number).as_bytes()) as usize % PARTS];
                let previous = part.insert(key(number).as_bytes(), 1.into());
                let before = (number < many).then(|| number.to_string().into());
                assert_eq!(previous, before);
            }
            for number in 0..2 * many {
                let part = &mut parts[hasher.hash_one(key(number).as_bytes()) as usize % PARTS];
                assert_eq!(part.remove(key(number).as_bytes()), Some(1.into()));
            }
            assert!(parts.iter().all(Rows::is_empty));
        }
    }

    #[test]
    fn only_few_small_rows_are_one_allocation_with_their_name() {
        let mut rows = named();
        for number in 0..2 * MOST_IN_A_BLOCK {
            rows.insert(number.to_string().as_bytes(), 1.into());
        }
        let packed = rows.into_named().ok().unwrap();
        assert_eq!(packed.name(), Some(&b"t"[..]));

        let mut more = Rows::new(packed, RandomState::default());
        more.insert(b"one more", 1.into());
        assert_eq!(more.len(), 2 * MOST_IN_A_BLOCK + 1);
        assert!(more.into_named().is_err());

        let mut large = named();
        large.insert(b"key", "v".repeat(256).into());
        assert!(large.into_named().is_err());
        let mut long_name = Rows::default();
        long_name.insert(b"key", 1.into());
        assert!(long_name.into_named().is_err());
    }
}
