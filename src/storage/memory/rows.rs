//! The rows of one table: blocks of some eight rows each; the hash of a key tells its block.
//!
//! It is linear hashing: a table grows by one block at a time, which takes its rows from one other
//! block, and shrinks by one block at a time. So no request pays for moving a whole table, and the
//! memory in use is about what the rows need, whereas a hash table that doubles at times has more
//! than twice as much.

use std::hash::BuildHasher;
use std::iter;
use std::ops::ControlFlow;

use foldhash::quality::RandomState;

use super::block::{self, Block, BlockRef, Growth, RowCount};
use super::packed::Packed;
use super::value::{LargeValue, Stored};
use crate::abi::Text;
use crate::storage::Change;

/// The average number of rows in a block above which a table grows. The first block may hold twice
/// as many: for so few rows, one block alone is quicker.
const MAX_IN_BLOCK: usize = 8;

/// The average number of rows in a block below which a table shrinks.
const MIN_IN_BLOCK: usize = 2;

/// The number of parts that many rows are divided into.
pub(super) const PARTS: usize = 32;

/// The number of blocks, besides the first, from which rows are divided into parts: some 4000 rows.
const MANY_BLOCKS: usize = 16 * PARTS;

/// A table's rows, or one part of them.
#[derive(Default)]
pub(super) struct Rows {
    first: Block,
    others: Vec<Block>,
    len: usize,
    /// The size of keys and values in bytes.
    bytes: usize,
    hasher: RandomState,
    /// The number of low bits of a key's hash that tell the part; 0 if these are all rows.
    part_bits: u8,
}

impl Rows {
    /// Rows that are all in one block.
    pub(super) fn new(packed: Packed, hasher: RandomState) -> Self {
        Self {
            len: packed.len(),
            bytes: block::bytes(packed.rows()),
            first: Block::new(packed),
            others: Vec::new(),
            hasher,
            part_bits: 0,
        }
    }

    /// Whether these are all rows of a table, but so many that they should be divided into parts.
    #[inline]
    pub(super) fn should_divide(&self) -> bool {
        self.others.len() >= MANY_BLOCKS && self.part_bits == 0
    }

    /// Divides all rows of a table into [`PARTS`], by the low bits of the hashes of their keys. All
    /// rows of a block belong to the same part, so blocks are moved whole.
    pub(super) fn into_parts(self) -> Vec<Self> {
        let mut parts: Vec<_> = (0..PARTS).map(|_| Vec::new()).collect();
        let blocks = iter::once(self.first).chain(self.others);
        for (index, block) in blocks.enumerate() {
            if let Some(part) = parts.get_mut(index % PARTS) {
                part.push(block);
            }
        }
        let part = |blocks: Vec<Block>| {
            let len = blocks.iter().map(Block::len).sum();
            let bytes = blocks.iter().map(Block::bytes).sum();
            let mut blocks = blocks.into_iter();
            Self {
                first: blocks.next().unwrap_or_default(),
                others: blocks.collect(),
                len,
                bytes,
                hasher: self.hasher.clone(),
                part_bits: PARTS.ilog2() as u8,
            }
        };
        parts.into_iter().map(part).collect()
    }

    /// The rows as [`new`](Self::new) takes them, if they are few and small, and the name of their
    /// table is with them.
    pub(super) fn into_named(self) -> Result<Packed, Self> {
        if !self.others.is_empty() {
            return Err(self);
        }
        let first = self.first.into_named();
        first.map_err(|first| Self { first, ..self })
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The size of keys and values in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    #[inline]
    pub(super) fn get(&self, key: &[u8]) -> Option<Stored<'_>> {
        self.block_of(key)?.get(key)
    }

    /// The rows among which the row of a key is, if it exists.
    #[inline]
    pub(super) fn block_of(&self, key: &[u8]) -> Option<BlockRef<'_>> {
        self.block(self.block_index(key)).map(Block::view)
    }

    /// The rows in no particular order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Text<'_>, Stored<'_>)> {
        let blocks = iter::once(&self.first).chain(&self.others);
        blocks.flat_map(Block::rows)
    }

    /// Calls `change` with the value of a key, and does what it returns. If it breaks off, nothing
    /// has changed.
    #[inline(always)]
    pub(super) fn change<'v, B>(
        &mut self,
        key: &[u8],
        change: impl FnOnce(Option<Stored<'_>>) -> ControlFlow<B, Change<'v>>,
    ) -> ControlFlow<B> {
        let index = self.block_index(key);
        if let Some(block) = self.block_mut(index) {
            let growth = block.change(key, change)?;
            self.apply(growth);
        }
        ControlFlow::Continue(())
    }

    /// Stores a value that has an allocation of its own already.
    pub(super) fn set_large(&mut self, key: &[u8], value: LargeValue) {
        let index = self.block_index(key);
        if let Some(block) = self.block_mut(index) {
            let growth = block.set_large(key, value);
            self.apply(growth);
        }
    }

    /// Counts what has changed.
    #[inline]
    fn apply(&mut self, growth: Growth) {
        self.bytes = self.bytes.wrapping_add(growth.bytes);
        if growth.rows != RowCount::Same {
            self.count(growth.rows);
        }
    }

    /// Counts a row that was added or removed, and grows or shrinks accordingly.
    #[inline(never)]
    fn count(&mut self, rows: RowCount) {
        match rows {
            RowCount::Same => {}
            RowCount::Added => {
                self.len += 1;
                if self.len > MAX_IN_BLOCK * (self.blocks() + 1) {
                    self.grow();
                }
            }
            RowCount::Removed => {
                self.len -= 1;
                if self.len < MIN_IN_BLOCK * self.blocks() {
                    self.shrink();
                }
            }
        }
    }

    fn blocks(&self) -> usize {
        1 + self.others.len()
    }

    #[inline]
    fn block(&self, index: usize) -> Option<&Block> {
        match index {
            0 => Some(&self.first),
            other => self.others.get(other - 1),
        }
    }

    #[inline]
    fn block_mut(&mut self, index: usize) -> Option<&mut Block> {
        match index {
            0 => Some(&mut self.first),
            other => self.others.get_mut(other - 1),
        }
    }

    /// The index of the block in which a row is, or would be.
    #[inline]
    fn block_index(&self, key: &[u8]) -> usize {
        if self.others.is_empty() {
            return 0;
        }
        let hash = self.hasher.hash_one(key);
        block_index(hash >> self.part_bits, self.blocks())
    }

    /// Adds a block, with the rows that belong to it.
    fn grow(&mut self) {
        let new = self.blocks();
        let (hasher, part_bits) = (self.hasher.clone(), self.part_bits);
        let moves = |key: &[u8]| {
            let hash = hasher.hash_one(key);
            block_index(hash >> part_bits, new + 1) == new
        };
        if let Some(from) = self.block_mut(parent(new)) {
            let block = from.split(moves);
            self.others.push(block);
        }
    }

    /// Removes the last block, whose rows return to the block that they came from.
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

/// The index of a row's block among `blocks`: as many low bits of its hash as the highest index
/// has, or one bit less if there is no such block yet.
#[inline]
fn block_index(hash: u64, blocks: usize) -> usize {
    let size = blocks.next_power_of_two();
    let index = hash as usize & (size - 1);
    if index < blocks {
        index
    } else {
        index & (size / 2 - 1)
    }
}

/// The block that held the rows of a later one before that was added.
fn parent(block: usize) -> usize {
    block & !(1 << block.ilog2())
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::abi::{Value, ValueRef};
    use crate::storage::memory::value::Payload;

    #[derive(Debug, Clone)]
    enum Step {
        Set(String, Value),
        SetLarge(String, Value),
        Remove(String),
        Keep(String),
        Break(String),
    }

    /// Few keys, so that steps meet at the same ones: packed, at the limit of that, and beyond.
    fn key() -> impl Strategy<Value = String> {
        let len = prop_oneof![4 => Just(0), 1 => Just(250), 1 => Just(253)];
        (0..60_u8, len).prop_map(|(number, len)| format!("{number:0>2}{}", "k".repeat(len)))
    }

    fn any_value() -> impl Strategy<Value = Value> {
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
            4 => (key(), any_value()).prop_map(|(key, value)| Step::Set(key, value)),
            1 => (key(), any_value()).prop_map(|(key, value)| Step::SetLarge(key, value)),
            2 => key().prop_map(Step::Remove),
            1 => key().prop_map(Step::Keep),
            1 => key().prop_map(Step::Break),
        ]
    }

    fn named() -> Rows {
        Rows::new(Packed::named(b"t").unwrap(), RandomState::default())
    }

    fn value(stored: Option<Stored<'_>>) -> Option<Value> {
        stored.map(|stored| stored.value().into())
    }

    /// Changes a row and returns its previous value.
    fn change(rows: &mut Rows, key: &str, change: Change<'_>) -> Option<Value> {
        let mut previous = None;
        let changed = rows.change(key.as_bytes(), |stored| {
            previous = value(stored);
            ControlFlow::<(), _>::Continue(change)
        });
        assert!(changed.is_continue());
        previous
    }

    fn set<'v>(rows: &mut Rows, key: &str, value: impl Into<ValueRef<'v>>) -> Option<Value> {
        change(rows, key, Change::Set(value.into()))
    }

    fn same(rows: &Rows, model: &HashMap<String, Value>) {
        assert_eq!(rows.len(), model.len());
        let stored = rows.iter();
        let stored = stored.map(|(key, value)| (key.as_str().to_owned(), value.value().into()));
        let stored: Vec<_> = stored.collect();
        assert_eq!(stored.len(), model.len(), "a row comes twice");
        assert_eq!(stored.into_iter().collect::<HashMap<_, _>>(), *model);
        for (key, value) in model {
            let found = rows.get(key.as_bytes()).unwrap();
            assert_eq!(found.payload_len(), value.payload_len());
            assert_eq!(Value::from(found.value()), *value);
        }
    }

    proptest! {
        #[test]
        fn behaves_like_a_hash_map(steps in vec(step(), 0..300)) {
            let (mut rows, mut model) = (named(), HashMap::new());
            for step in steps {
                match step {
                    Step::Set(key, value) => {
                        let next = ValueRef::new(&value).unwrap();
                        let previous = set(&mut rows, &key, next);
                        assert_eq!(previous, model.insert(key, value));
                    }
                    Step::SetLarge(key, value) => {
                        let next = ValueRef::new(&value).unwrap();
                        let large = Payload::new(next, &mut [0; 8]).into();
                        rows.set_large(key.as_bytes(), large);
                        model.insert(key, value);
                    }
                    Step::Remove(key) => {
                        let removed = change(&mut rows, &key, Change::Remove);
                        assert_eq!(removed, model.remove(&key));
                    }
                    Step::Keep(key) => {
                        let kept = change(&mut rows, &key, Change::Keep);
                        assert_eq!(kept.as_ref(), model.get(&key));
                    }
                    Step::Break(key) => {
                        let broken = rows.change(key.as_bytes(), |stored| {
                            assert_eq!(value(stored).as_ref(), model.get(&key));
                            ControlFlow::Break(())
                        });
                        assert!(broken.is_break());
                    }
                }
            }
            same(&rows, &model);
        }
    }

    #[test]
    fn a_table_grows_and_shrinks_with_its_rows() {
        let (mut rows, mut model) = (named(), HashMap::new());
        let key = |number: usize| format!("key:{number}");
        for number in 0..5000 {
            set(&mut rows, &key(number), &*number.to_string());
            model.insert(key(number), number.to_string().into());
            assert!(rows.len() <= MAX_IN_BLOCK * (rows.blocks() + 1));
            let most = 1 + rows.len() / MAX_IN_BLOCK;
            assert!(rows.blocks() <= most, "{} blocks", rows.blocks());
        }
        same(&rows, &model);
        for number in 0..5000 {
            assert!(change(&mut rows, &key(number), Change::Remove).is_some());
            model.remove(&key(number));
            assert!(rows.blocks() <= 1.max(rows.len() / MIN_IN_BLOCK));
            if number % 500 == 0 {
                same(&rows, &model);
            }
        }
        assert_eq!(rows.blocks(), 1);
        assert!(rows.others.capacity() < 16, "{}", rows.others.capacity());
        assert!(rows.into_named().is_ok(), "the name has stayed");
    }

    #[test]
    fn the_hash_of_a_key_selects_its_part() {
        let key = |number: usize| format!("key:{number}");
        for many in [5000, 8 * 1024, 20_000] {
            let mut rows = named();
            for number in 0..many {
                set(&mut rows, &key(number), &*number.to_string());
            }
            assert!(rows.should_divide());
            let hasher = rows.hasher.clone();
            let part = |number| hasher.hash_one(key(number).as_bytes()) as usize % PARTS;
            let mut parts = rows.into_parts();
            assert_eq!(parts.iter().map(Rows::len).sum::<usize>(), many);
            assert!(!parts.iter().any(Rows::should_divide));
            // With as many again.
            for number in 0..2 * many {
                let previous = set(&mut parts[part(number)], &key(number), 1);
                let before = (number < many).then(|| number.to_string().into());
                assert_eq!(previous, before);
            }
            for number in 0..2 * many {
                let removed = change(&mut parts[part(number)], &key(number), Change::Remove);
                assert_eq!(removed, Some(1.into()));
            }
            assert!(parts.iter().all(Rows::is_empty));
        }
    }

    #[test]
    fn a_few_small_rows_are_one_allocation_with_their_name() {
        let mut rows = named();
        for number in 0..2 * MAX_IN_BLOCK {
            set(&mut rows, &number.to_string(), 1);
        }
        let packed = rows.into_named().ok().unwrap();
        assert_eq!(packed.name(), Some(&b"t"[..]));

        let mut more = Rows::new(packed, RandomState::default());
        set(&mut more, "one more", 1);
        assert_eq!(more.len(), 2 * MAX_IN_BLOCK + 1);
        assert!(more.into_named().is_err());

        let mut large = named();
        set(&mut large, "key", &*"v".repeat(256));
        assert!(large.into_named().is_err());
        let mut long_name = Rows::default();
        set(&mut long_name, "key", 1);
        assert!(long_name.into_named().is_err());
    }
}
