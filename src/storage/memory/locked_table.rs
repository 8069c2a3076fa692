//! A table with locks of its own: one, or for many rows one for each part of them.
//!
//! The hash of a key tells its part, so a request for one row holds up few others. A request for
//! several rows at one moment locks their parts together, in the order of the parts. No thread
//! waits for a part while it holds a later one, or the lock of a shard.

use std::array;
use std::hash::BuildHasher;
use std::hint::spin_loop;
use std::ops::{Deref, DerefMut};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use foldhash::quality::RandomState;

use super::rows::{PARTS, Rows};
use super::value::Stored;
use crate::abi::Keys;

/// The number of tries before a lock counts as taken: one to two microseconds. A small request
/// holds it for less, and waiting without the lock of the shard costs another lookup.
const TRIES: usize = 40;

/// A table that is not stored in its shard.
pub(super) struct LockedTable {
    name: Box<[u8]>,
    hasher: RandomState,
    rows: Locks,
}

enum Locks {
    Whole(Lock),
    Parts(Box<[Part]>),
}

/// A part, on cache lines of its own because it is locked on its own.
#[repr(align(128))]
struct Part(Lock);

/// The lock of a table, or of a part of it.
pub(super) struct Lock(RwLock<Contents>);

/// What a lock guards.
pub(super) struct Contents {
    pub(super) rows: Rows,
    /// Set when the table was removed from its shard, because it was emptied or divided into parts:
    /// a thread that still has it must look again.
    pub(super) retired: bool,
}

/// Parts of a table, locked together.
pub(super) struct Parts<'a, G> {
    hasher: &'a RandomState,
    locked: [Option<G>; PARTS],
}

pub(super) type ReadParts<'a> = Parts<'a, RwLockReadGuard<'a, Contents>>;
pub(super) type WriteParts<'a> = Parts<'a, RwLockWriteGuard<'a, Contents>>;

/// Rows of one table, locked to be changed.
pub(super) trait LockedRows {
    /// The number of rows under the locks that are held.
    fn len(&self) -> usize;

    /// The rows among which the row of a key is, or would be. [`None`] if they are not locked.
    fn rows_of(&mut self, key: &[u8]) -> Option<&mut Rows>;
}

/// A set of parts, one bit for each.
#[derive(Debug, Clone, Copy)]
pub(super) struct PartSet(u32);

const _: () = assert!(PARTS == u32::BITS as usize);

impl PartSet {
    pub(super) const ALL: Self = Self(u32::MAX);
}

impl LockedTable {
    pub(super) fn new(name: &[u8], rows: Rows, hasher: RandomState) -> Self {
        Self {
            name: name.into(),
            hasher,
            rows: Locks::Whole(Lock::new(rows)),
        }
    }

    /// A table of the same name, with these rows in parts.
    pub(super) fn divided(&self, rows: Rows) -> Self {
        let parts = rows.into_parts().into_iter();
        Self {
            name: self.name.clone(),
            hasher: self.hasher.clone(),
            rows: Locks::Parts(parts.map(|rows| Part(Lock::new(rows))).collect()),
        }
    }

    #[inline]
    pub(super) fn name(&self) -> &[u8] {
        &self.name
    }

    /// The lock of a table that is not in parts.
    #[inline]
    pub(super) fn whole(&self) -> Option<&Lock> {
        match &self.rows {
            Locks::Whole(lock) => Some(lock),
            Locks::Parts(_) => None,
        }
    }

    /// The lock of the rows among which the row of a key is, or would be.
    #[inline]
    #[expect(
        clippy::indexing_slicing,
        reason = "there are PARTS parts, and a part is less than that"
    )]
    pub(super) fn lock_of(&self, key: &[u8]) -> &Lock {
        match &self.rows {
            Locks::Whole(lock) => lock,
            Locks::Parts(parts) => &parts[part(&self.hasher, key)].0,
        }
    }

    /// The parts in which the rows of these keys are, or would be.
    pub(super) fn parts_of(&self, keys: Keys<'_>) -> PartSet {
        let bits = keys
            .iter()
            .map(|key| 1 << part(&self.hasher, key.as_bytes()));
        PartSet(bits.fold(0, |all, bit| all | bit))
    }

    pub(super) fn read_parts(&self, parts: PartSet) -> ReadParts<'_> {
        self.lock(parts, Lock::read)
    }

    pub(super) fn write_parts(&self, parts: PartSet) -> WriteParts<'_> {
        self.lock(parts, Lock::write)
    }

    fn lock<'a, G>(&'a self, set: PartSet, lock: impl Fn(&'a Lock) -> G) -> Parts<'a, G> {
        let parts = match &self.rows {
            Locks::Whole(_) => &[],
            Locks::Parts(parts) => &**parts,
        };
        Parts {
            hasher: &self.hasher,
            locked: array::from_fn(|part| {
                let is_in_set = set.0 >> part & 1 == 1;
                parts
                    .get(part)
                    .filter(|_| is_in_set)
                    .map(|part| lock(&part.0))
            }),
        }
    }
}

// A panic while a lock is held poisons it. The rows are whole whenever something may panic, so a
// thread that waits takes the lock all the same; one that only tries falls back to waiting.

impl Lock {
    fn new(rows: Rows) -> Self {
        Self(RwLock::new(Contents {
            rows,
            retired: false,
        }))
    }

    pub(super) fn read(&self) -> RwLockReadGuard<'_, Contents> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn write(&self) -> RwLockWriteGuard<'_, Contents> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// [`None`] if the lock is held for longer than a small request takes, or the table is retired.
    #[inline]
    pub(super) fn read_soon(&self) -> Option<RwLockReadGuard<'_, Contents>> {
        soon(|| self.0.try_read().ok()).filter(|contents| !contents.retired)
    }

    /// [`None`] if the lock is held for longer than a small request takes, or the table is retired.
    #[inline]
    pub(super) fn write_soon(&self) -> Option<RwLockWriteGuard<'_, Contents>> {
        soon(|| self.0.try_write().ok()).filter(|contents| !contents.retired)
    }
}

/// Tries to lock, and tries again for a microsecond or two.
#[inline]
fn soon<G>(lock: impl Fn() -> Option<G>) -> Option<G> {
    lock().or_else(|| again(lock))
}

#[cold]
#[inline(never)]
fn again<G>(lock: impl Fn() -> Option<G>) -> Option<G> {
    (0..TRIES).find_map(|_| {
        spin_loop();
        lock()
    })
}

impl<G: Deref<Target = Contents>> Parts<'_, G> {
    pub(super) fn get(&self, key: &[u8]) -> Option<Stored<'_>> {
        let locked = self.locked.get(part(self.hasher, key))?;
        locked.as_ref()?.rows.get(key)
    }

    /// The number of rows in the parts that are locked.
    pub(super) fn len(&self) -> usize {
        self.contents().map(|contents| contents.rows.len()).sum()
    }

    /// The size of keys and values in the parts that are locked, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.contents().map(|contents| contents.rows.bytes()).sum()
    }

    pub(super) fn contents(&self) -> impl Iterator<Item = &Contents> {
        self.locked.iter().flatten().map(Deref::deref)
    }

    /// All parts are retired together.
    pub(super) fn is_retired(&self) -> bool {
        self.contents().any(|contents| contents.retired)
    }

    pub(super) fn is_any_empty(&self) -> bool {
        self.contents().any(|contents| contents.rows.is_empty())
    }
}

impl WriteParts<'_> {
    pub(super) fn retire(&mut self) {
        let locked = self.locked.iter_mut().flatten();
        locked.for_each(|contents| contents.retired = true);
    }
}

impl LockedRows for Rows {
    fn len(&self) -> usize {
        self.len()
    }

    fn rows_of(&mut self, _: &[u8]) -> Option<&mut Rows> {
        Some(self)
    }
}

impl LockedRows for WriteParts<'_> {
    fn len(&self) -> usize {
        Self::len(self)
    }

    fn rows_of(&mut self, key: &[u8]) -> Option<&mut Rows> {
        let locked = self.locked.get_mut(part(self.hasher, key))?;
        Some(&mut locked.as_mut()?.deref_mut().rows)
    }
}

/// The index of a key's part, as [`Rows::into_parts`] divides them.
#[inline]
fn part(hasher: &RandomState, key: &[u8]) -> usize {
    hasher.hash_one(key) as usize % PARTS
}
