//! Values as tables in memory keep them: what kind one is, and bytes.

use std::str;

use bytes::Bytes;

use crate::abi::value::Value as Kind;
use crate::abi::{Value, ValueRef};

// What a row is.
pub(super) const UNSET: u8 = 0;
pub(super) const STRING: u8 = 1;
pub(super) const BINARY: u8 = 2;
pub(super) const INTEGER: u8 = 3;
pub(super) const FLOAT: u8 = 4;
pub(super) const BOOL: u8 = 5;
pub(super) const NAME: u8 = 6;

/// A value that is not packed, as it would be if it were. Its bytes are nobody's slice.
pub(crate) struct LargeValue {
    pub(super) kind: u8,
    bytes: Bytes,
}

/// A value where it is stored.
#[derive(Clone, Copy)]
pub(super) enum Stored<'a> {
    Packed { kind: u8, bytes: &'a [u8] },
    Large(&'a LargeValue),
}

impl Stored<'_> {
    /// [`Value::payload_len`].
    pub(super) fn payload_len(self) -> usize {
        match self {
            Self::Packed { bytes, .. } => bytes.len(),
            Self::Large(large) => large.bytes.len(),
        }
    }

    pub(super) fn to_value(self) -> Value {
        match self {
            // It is not copied.
            Self::Large(LargeValue {
                kind: BINARY,
                bytes,
            }) => bytes.clone().into(),
            _ => ValueRef::from(self).into(),
        }
    }
}

impl From<Value> for LargeValue {
    fn from(value: Value) -> Self {
        let (kind, bytes) = match value.value {
            Some(Kind::String(text)) => (STRING, text.into()),
            Some(Kind::Binary(bytes)) => (BINARY, bytes),
            _ => return ValueRef::from(&value).into(),
        };
        Self { kind, bytes }
    }
}

impl From<ValueRef<'_>> for LargeValue {
    fn from(value: ValueRef<'_>) -> Self {
        let mut number = [0; 8];
        let (kind, bytes) = payload(value, &mut number);
        Self {
            kind,
            bytes: Bytes::copy_from_slice(bytes),
        }
    }
}

impl From<LargeValue> for Value {
    fn from(large: LargeValue) -> Self {
        match large.kind {
            // What nobody else has is not copied.
            STRING => match String::from_utf8(large.bytes.into()) {
                Ok(text) => text.into(),
                Err(_) => Self::default(),
            },
            _ => Stored::Large(&large).to_value(),
        }
    }
}

impl<'a> From<&'a LargeValue> for ValueRef<'a> {
    fn from(large: &'a LargeValue) -> Self {
        Stored::Large(large).into()
    }
}

impl<'a> From<Stored<'a>> for ValueRef<'a> {
    fn from(stored: Stored<'a>) -> Self {
        let (kind, bytes) = match stored {
            Stored::Large(large) => (large.kind, &large.bytes[..]),
            Stored::Packed { kind, bytes } => (kind, bytes),
        };
        let number = || bytes.first_chunk().copied().unwrap_or_default();
        match kind {
            STRING => Self::String(bytes),
            BINARY => Self::Binary(bytes),
            INTEGER => Self::Integer(i64::from_le_bytes(number())),
            FLOAT => Self::Float(f64::from_le_bytes(number())),
            BOOL => Self::Bool(bytes == [1]),
            _ => Self::Unset,
        }
    }
}

/// What was text when it was packed.
pub(super) fn text(bytes: &[u8]) -> &str {
    str::from_utf8(bytes).unwrap_or_default()
}

/// The bytes of a value, for which it may need the place.
pub(super) fn payload<'a>(value: ValueRef<'a>, number: &'a mut [u8; 8]) -> (u8, &'a [u8]) {
    match value {
        ValueRef::Unset => (UNSET, &[]),
        ValueRef::String(text) => (STRING, text),
        ValueRef::Binary(bytes) => (BINARY, bytes),
        ValueRef::Integer(integer) => {
            *number = integer.to_le_bytes();
            (INTEGER, number)
        }
        ValueRef::Float(float) => {
            *number = float.to_le_bytes();
            (FLOAT, number)
        }
        ValueRef::Bool(bool) => (BOOL, if bool { &[1] } else { &[0] }),
    }
}
