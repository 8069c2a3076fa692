//! A table with locks of its own: one, and for many rows one for each part of them.
//!
//! A row's part goes by the hash of its key, so that who wants one row holds up few others, and who wants several at one
//! moment locks their parts together, in the order of the parts. Nobody waits for a part while holding a later one, or the
//! lock of a shard.

use std::array;
use std::hash::BuildHasher;
use std::hint::spin_loop;
use std::ops::{Deref, DerefMut};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use foldhash::quality::RandomState;

use super::rows::{PARTS, Rows};
use super::value::Stored;
use crate::abi::Value;

/// How often a lock is tried before it counts as taken. To be sent the other way for nothing costs a request, and those that
/// came with it, far more.
const TRIES: usize = 40;

pub(super) struct Large {
    name: Box<str>,
    hasher: RandomState,
    contents: Locked,
}

enum Locked {
    Whole(Lock),
    Parts(Box<[Part]>),
}

/// On cache lines of its own, because it is locked for itself.
#[repr(align(128))]
struct Part(Lock);

/// The lock of a table, or of a part of it.
pub(super) struct Lock(RwLock<Contents>);

pub(super) struct Contents {
    pub(super) rows: Rows,
    /// Set when the table was emptied, or came to be in parts, and so taken out of its shard: who still has it must look
    /// again.
    pub(super) retired: bool,
}

/// Some parts of a table, locked at one moment.
pub(super) struct Parts<'a, G> {
    hasher: &'a RandomState,
    locked: [Option<G>; PARTS],
}

pub(super) type ReadParts<'a> = Parts<'a, RwLockReadGuard<'a, Contents>>;
pub(super) type WriteParts<'a> = Parts<'a, RwLockWriteGuard<'a, Contents>>;

/// Rows that are locked to be changed.
pub(super) trait Change {
    fn len(&self) -> usize;

    /// Stores a value, which is nobody's slice, and gives the one that it replaced.
    fn insert(&mut self, key: &[u8], value: Value) -> Option<Value>;

    fn remove(&mut self, key: &[u8]) -> Option<Value>;

    /// Those among which a row is, or would be.
    fn rows_of(&mut self, key: &[u8]) -> Option<&mut Rows>;
}

/// Parts, a bit for each.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted(u32);

const _: () = assert!(PARTS == u32::BITS as usize);

impl Wanted {
    pub(super) const ALL: Self = Self(u32::MAX);
}

impl Large {
    pub(super) fn new(name: &str, rows: Rows, hasher: RandomState) -> Self {
        Self {
            name: name.into(),
            hasher,
            contents: Locked::Whole(Lock::new(rows)),
        }
    }

    /// The same table in parts.
    pub(super) fn spread(&self, rows: Rows) -> Self {
        let parts = rows.into_parts().into_iter();
        Self {
            name: self.name.clone(),
            hasher: self.hasher.clone(),
            contents: Locked::Parts(parts.map(|rows| Part(Lock::new(rows))).collect()),
        }
    }

    pub(super) fn name(&self) -> &[u8] {
        self.name.as_bytes()
    }

    /// The lock of a table that is not in parts.
    pub(super) fn whole(&self) -> Option<&Lock> {
        match &self.contents {
            Locked::Whole(lock) => Some(lock),
            Locked::Parts(_) => None,
        }
    }

    /// The lock under which a row is, or would be.
    #[expect(
        clippy::indexing_slicing,
        reason = "there are as many as a part can be"
    )]
    pub(super) fn lock_of(&self, key: &[u8]) -> &Lock {
        match &self.contents {
            Locked::Whole(lock) => lock,
            Locked::Parts(parts) => &parts[part(&self.hasher, key)].0,
        }
    }

    /// The parts in which these rows are, or would be.
    pub(super) fn wanted<'k>(&self, keys: impl Iterator<Item = &'k [u8]>) -> Wanted {
        let bits = keys.map(|key| 1 << part(&self.hasher, key));
        Wanted(bits.fold(0, |all, bit| all | bit))
    }

    pub(super) fn read_parts(&self, wanted: Wanted) -> ReadParts<'_> {
        self.lock(wanted, Lock::read)
    }

    pub(super) fn write_parts(&self, wanted: Wanted) -> WriteParts<'_> {
        self.lock(wanted, Lock::write)
    }

    fn lock<'a, G>(&'a self, wanted: Wanted, lock: impl Fn(&'a Lock) -> G) -> Parts<'a, G> {
        let parts = match &self.contents {
            Locked::Whole(_) => &[],
            Locked::Parts(parts) => &**parts,
        };
        Parts {
            hasher: &self.hasher,
            locked: array::from_fn(|part| {
                let is_wanted = wanted.0 >> part & 1 == 1;
                parts
                    .get(part)
                    .filter(|_| is_wanted)
                    .map(|part| lock(&part.0))
            }),
        }
    }
}

// A panic while a lock is held would poison it. What it guards is whole whenever something could panic, so who waits for it
// takes it all the same; who only tries goes the way of those who wait.

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

    /// [`None`] where somebody is in the way.
    pub(super) fn try_read(&self) -> Option<RwLockReadGuard<'_, Contents>> {
        self.0.try_read().ok()
    }

    /// [`None`] where somebody is in the way.
    pub(super) fn try_write(&self) -> Option<RwLockWriteGuard<'_, Contents>> {
        self.0.try_write().ok()
    }

    /// [`None`] where somebody is in the way for longer than one small value takes, or the table is retired.
    pub(super) fn read_soon(&self) -> Option<RwLockReadGuard<'_, Contents>> {
        soon(|| self.0.try_read().ok()).filter(|contents| !contents.retired)
    }

    /// [`None`] where somebody is in the way for longer than one small value takes, or the table is retired.
    pub(super) fn write_soon(&self) -> Option<RwLockWriteGuard<'_, Contents>> {
        soon(|| self.0.try_write().ok()).filter(|contents| !contents.retired)
    }
}

/// Tries it once, and then a few times more, a microsecond or two in all.
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

    pub(super) fn contents(&self) -> impl Iterator<Item = &Contents> {
        self.locked.iter().flatten().map(Deref::deref)
    }

    pub(super) fn len(&self) -> usize {
        self.contents().map(|contents| contents.rows.len()).sum()
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

impl Change for Rows {
    fn len(&self) -> usize {
        self.len()
    }

    fn insert(&mut self, key: &[u8], value: Value) -> Option<Value> {
        self.insert(key, value)
    }

    fn remove(&mut self, key: &[u8]) -> Option<Value> {
        self.remove(key)
    }

    fn rows_of(&mut self, _: &[u8]) -> Option<&mut Rows> {
        Some(self)
    }
}

impl Change for WriteParts<'_> {
    fn len(&self) -> usize {
        Parts::len(self)
    }

    fn insert(&mut self, key: &[u8], value: Value) -> Option<Value> {
        self.rows_of(key)?.insert(key, value)
    }

    fn remove(&mut self, key: &[u8]) -> Option<Value> {
        self.rows_of(key)?.remove(key)
    }

    fn rows_of(&mut self, key: &[u8]) -> Option<&mut Rows> {
        let locked = self.locked.get_mut(part(self.hasher, key))?;
        Some(&mut locked.as_mut()?.deref_mut().rows)
    }
}

/// As [`Rows::into_parts`] divides them.
fn part(hasher: &RandomState, key: &[u8]) -> usize {
    hasher.hash_one(key) as usize % PARTS
}
