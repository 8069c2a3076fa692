//! A few rows in one allocation.
//!
//! Small rows lie one after the other in a [`Packed`]: three bytes that say the type of the value, the length of the
//! key and that of the value, then the key, then the value. To find a row is to walk over those before it, which for
//! a few is as quick as a hash table and costs nothing beside them, where two allocations and a slot in a table cost
//! a row of 64 bytes as much again. A row whose key or value is longer than a byte can say stands beside them, in
//! allocations of its own, so that no change of another row has to move it.
//!
//! One more kind of row is known: the name of the table that the rows are of, see [`Packed::named`].

use std::mem;
use std::ops::Range;

use bytes::Bytes;

use crate::abi::Value;
use crate::abi::value::Value as Kind;

/// The longest key and the longest value that are packed, in bytes: what one byte can say.
const MAX_PACKED: usize = u8::MAX as usize;

/// The length of what precedes a packed row.
const HEAD: usize = 3;

// What a packed row is.
const UNSET: u8 = 0;
const STRING: u8 = 1;
const BINARY: u8 = 2;
const INTEGER: u8 = 3;
const FLOAT: u8 = 4;
const BOOL: u8 = 5;
const NAME: u8 = 6;

/// Rows, small ones packed.
#[derive(Debug, Default)]
pub(super) struct Block {
    packed: Packed,
    large: Box<[(Box<str>, Value)]>,
}

/// Rows whose keys and values have [`MAX_PACKED`] bytes at most.
#[derive(Debug, Default)]
pub(super) struct Packed(Box<[u8]>);

/// A value where it is stored.
#[derive(Debug, Clone, Copy)]
pub(super) enum Stored<'a> {
    Packed { kind: u8, bytes: &'a [u8] },
    Large(&'a Value),
}

struct Row<'a> {
    kind: u8,
    key: &'a [u8],
    value: &'a [u8],
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

    pub(super) fn get(&self, key: &str) -> Option<Stored<'_>> {
        self.packed.get(key).or_else(|| {
            let mut large = self.large.iter();
            let (_, value) = large.find(|(stored, _)| **stored == *key)?;
            Some(Stored::Large(value))
        })
    }

    /// The rows in no particular order: keys, which are text, and values.
    pub(super) fn rows(&self) -> impl Iterator<Item = (&[u8], Stored<'_>)> {
        let large = self.large.iter();
        let large = large.map(|(key, value)| (key.as_bytes(), Stored::Large(value)));
        self.packed.rows().chain(large)
    }

    /// Stores a value, which is nobody's slice, and gives the one that it replaced.
    pub(super) fn insert(&mut self, key: &str, value: Value) -> Option<Value> {
        if key.len() <= MAX_PACKED && is_packable(&value) {
            let previous = self.packed.insert(key, &value);
            return previous.or_else(|| self.remove_large(key));
        }
        let mut large = self.large.iter_mut();
        if let Some((_, place)) = large.find(|(stored, _)| **stored == *key) {
            return Some(mem::replace(place, value));
        }
        let previous = self.packed.remove(key);
        let mut large = mem::take(&mut self.large).into_vec();
        large.reserve_exact(1);
        large.push((key.into(), value));
        self.large = large.into();
        previous
    }

    pub(super) fn remove(&mut self, key: &str) -> Option<Value> {
        let removed = self.packed.remove(key);
        removed.or_else(|| self.remove_large(key))
    }

    fn remove_large(&mut self, key: &str) -> Option<Value> {
        let mut large = self.large.iter();
        let at = large.position(|(stored, _)| **stored == *key)?;
        let mut large = mem::take(&mut self.large).into_vec();
        let (_, value) = large.swap_remove(at);
        self.large = large.into();
        Some(value)
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
        self.packed.append(&other.packed.0);
        let mut large = mem::take(&mut self.large).into_vec();
        large.reserve_exact(other.large.len());
        large.extend(other.large);
        self.large = large.into();
    }
}

impl Packed {
    /// No rows yet, but the name of their table, which lies before them and is none of them; nothing for a name that
    /// is too long.
    pub(super) fn named(name: &str) -> Option<Self> {
        let mut packed = Self::default();
        (name.len() <= MAX_PACKED).then(|| packed.append(&head(NAME, name.len(), 0)))?;
        packed.append(name.as_bytes());
        Some(packed)
    }

    pub(super) fn name(&self) -> Option<&[u8]> {
        let (row, _) = Row::first(&self.0)?;
        (row.kind == NAME).then_some(row.key)
    }

    pub(super) fn get(&self, key: &str) -> Option<Stored<'_>> {
        let (_, row) = self.find(key)?;
        Some(row.stored())
    }

    pub(super) fn rows(&self) -> impl Iterator<Item = (&[u8], Stored<'_>)> {
        let rows = self.walk().filter(|(_, row)| row.kind != NAME);
        rows.map(|(_, row)| (row.key, row.stored()))
    }

    /// Every row, the name too, with where it lies.
    fn walk(&self) -> impl Iterator<Item = (Range<usize>, Row<'_>)> {
        let mut rest = &*self.0;
        std::iter::from_fn(move || {
            let start = self.0.len() - rest.len();
            let (row, behind) = Row::first(rest)?;
            rest = behind;
            Some((start..self.0.len() - rest.len(), row))
        })
    }

    fn find(&self, key: &str) -> Option<(Range<usize>, Row<'_>)> {
        let mut rows = self.walk();
        rows.find(|(_, row)| row.key == key.as_bytes() && row.kind != NAME)
    }

    /// Stores a value that is small enough.
    fn insert(&mut self, key: &str, value: &Value) -> Option<Value> {
        let mut number = [0; 8];
        let (kind, payload) = payload(value, &mut number);
        let head = head(kind, key.len(), payload.len());
        let Some((place, row)) = self.find(key) else {
            let end = self.0.len();
            self.replace(end..end, &[&head, key.as_bytes(), payload]);
            return None;
        };
        let previous = row.stored().to_value();
        if row.value.len() == payload.len() {
            // What is stored most often has the length of what it replaces.
            let value = place.end - payload.len()..place.end;
            self.overwrite(place.start..place.start + HEAD, &head);
            self.overwrite(value, payload);
        } else {
            self.replace(place, &[&head, key.as_bytes(), payload]);
        }
        Some(previous)
    }

    fn remove(&mut self, key: &str) -> Option<Value> {
        let (place, row) = self.find(key)?;
        let value = row.stored().to_value();
        self.replace(place, &[]);
        Some(value)
    }

    fn split(&mut self, chosen: impl Fn(&[u8]) -> bool) -> Self {
        let (mut stay, mut go) = (Vec::new(), Vec::new());
        for (place, row) in self.walk() {
            let goes = row.kind != NAME && chosen(row.key);
            let to = if goes { &mut go } else { &mut stay };
            // One reservation for either, of which what is too much goes back below.
            to.reserve_exact(self.0.len() - place.start);
            to.extend_from_slice(self.0.get(place).unwrap_or_default());
        }
        self.0 = stay.into();
        Self(go.into())
    }

    fn append(&mut self, bytes: &[u8]) {
        let end = self.0.len();
        self.replace(end..end, &[bytes]);
    }

    fn overwrite(&mut self, place: Range<usize>, bytes: &[u8]) {
        if let Some(place) = self.0.get_mut(place) {
            place.copy_from_slice(bytes);
        }
    }

    /// Takes something out and adds something at the end, in an allocation as long as what it holds.
    fn replace(&mut self, out: Range<usize>, parts: &[&[u8]]) {
        let mut bytes = mem::take(&mut self.0).into_vec();
        bytes.drain(out);
        bytes.reserve_exact(parts.iter().map(|part| part.len()).sum());
        for part in parts {
            bytes.extend_from_slice(part);
        }
        self.0 = bytes.into();
    }
}

impl<'a> Row<'a> {
    /// The first of some rows, and those behind it.
    fn first(rows: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (&[kind, key, value], rows) = rows.split_first_chunk::<HEAD>()?;
        let (key, rows) = rows.split_at_checked(key.into())?;
        let (value, rows) = rows.split_at_checked(value.into())?;
        Some((Self { kind, key, value }, rows))
    }

    fn stored(&self) -> Stored<'a> {
        Stored::Packed {
            kind: self.kind,
            bytes: self.value,
        }
    }
}

impl Stored<'_> {
    /// [`Value::payload_len`].
    pub(super) fn payload_len(self) -> usize {
        match self {
            Self::Packed { bytes, .. } => bytes.len(),
            Self::Large(value) => value.payload_len(),
        }
    }

    pub(super) fn to_value(self) -> Value {
        let (kind, bytes) = match self {
            Self::Large(value) => return value.clone(),
            Self::Packed { kind, bytes } => (kind, bytes),
        };
        let number = || bytes.first_chunk().copied().unwrap_or_default();
        let value = match kind {
            STRING => Some(Kind::String(text(bytes).to_owned())),
            BINARY => Some(Kind::Binary(Bytes::copy_from_slice(bytes))),
            INTEGER => Some(Kind::Integer(i64::from_le_bytes(number()))),
            FLOAT => Some(Kind::Float(f64::from_le_bytes(number()))),
            BOOL => Some(Kind::Bool(bytes == [1])),
            _ => None,
        };
        Value { value }
    }
}

/// What was text when it was packed.
pub(super) fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}

fn is_packable(value: &Value) -> bool {
    value.payload_len() <= MAX_PACKED
}

/// The bytes of a value, for which it may need the place.
fn payload<'a>(value: &'a Value, number: &'a mut [u8; 8]) -> (u8, &'a [u8]) {
    match &value.value {
        None => (UNSET, &[]),
        Some(Kind::String(text)) => (STRING, text.as_bytes()),
        Some(Kind::Binary(bytes)) => (BINARY, bytes),
        Some(Kind::Integer(integer)) => {
            *number = integer.to_le_bytes();
            (INTEGER, number)
        }
        Some(Kind::Float(float)) => {
            *number = float.to_le_bytes();
            (FLOAT, number)
        }
        Some(Kind::Bool(bool)) => (BOOL, if *bool { &[1] } else { &[0] }),
    }
}

/// What precedes a row. The lengths are checked by who packs it.
fn head(kind: u8, key: usize, value: usize) -> [u8; HEAD] {
    [kind, key as u8, value as u8]
}
