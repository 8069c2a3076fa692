//! Values as tables in memory keep them: a kind, and the bytes of the payload.

use bytes::Bytes;

use crate::abi::{Data, Text, ValueRef};

// The kinds of rows.
pub(super) const STRING: u8 = 1;
pub(super) const BINARY: u8 = 2;
pub(super) const INTEGER: u8 = 3;
pub(super) const FLOAT: u8 = 4;
pub(super) const BOOL: u8 = 5;
/// Not a value but the name of the table.
pub(super) const NAME: u8 = 6;

/// A value in an allocation of its own, which readers can share.
#[derive(Clone)]
pub(super) struct LargeValue {
    kind: u8,
    bytes: Bytes,
}

/// A value as it is stored: its kind, and the bytes of its payload.
#[derive(Clone, Copy)]
pub(super) struct Payload<'a> {
    pub(super) kind: u8,
    pub(super) bytes: &'a [u8],
}

/// A value where it is stored.
#[derive(Clone, Copy)]
pub(super) struct Stored<'a> {
    payload: Payload<'a>,
    /// Set unless the value is packed with other rows.
    large: Option<&'a LargeValue>,
}

impl<'a> Stored<'a> {
    /// A value that is packed with other rows.
    #[inline]
    pub(super) fn packed(payload: Payload<'a>) -> Self {
        Self {
            payload,
            large: None,
        }
    }

    #[inline]
    pub(super) fn payload(self) -> Payload<'a> {
        self.payload
    }

    /// The value, if it has an allocation of its own.
    pub(super) fn large(self) -> Option<&'a LargeValue> {
        self.large
    }

    /// The size that counts against limits: see [`ValueRef::payload_len`].
    #[inline]
    pub(super) fn payload_len(self) -> usize {
        self.payload.bytes.len()
    }

    /// The value to hand out. A large one can be kept without copying it.
    #[inline]
    pub(super) fn value(self) -> ValueRef<'a> {
        let Payload { kind, bytes } = self.payload;
        let number = || bytes.first_chunk().copied().unwrap_or_default();
        match (kind, self.large) {
            (STRING, None) => ValueRef::String(Text::known(bytes)),
            (STRING, Some(large)) => ValueRef::String(Text::known_shared(&large.bytes)),
            (BINARY, None) => ValueRef::Binary(bytes.into()),
            (BINARY, Some(large)) => ValueRef::Binary(Data::shared(&large.bytes)),
            (INTEGER, _) => ValueRef::Integer(i64::from_le_bytes(number())),
            (FLOAT, _) => ValueRef::Float(f64::from_le_bytes(number())),
            _ => ValueRef::Bool(bytes == [1]),
        }
    }
}

impl<'a> From<&'a LargeValue> for Stored<'a> {
    fn from(large: &'a LargeValue) -> Self {
        Self {
            payload: Payload {
                kind: large.kind,
                bytes: &large.bytes,
            },
            large: Some(large),
        }
    }
}

impl From<Payload<'_>> for LargeValue {
    /// Copies the bytes, because those of the caller may be a slice of a whole frame.
    fn from(payload: Payload<'_>) -> Self {
        Self {
            kind: payload.kind,
            bytes: Bytes::copy_from_slice(payload.bytes),
        }
    }
}

impl<'a> Payload<'a> {
    /// The payload of a value; `number` is room for the bytes of a number.
    #[inline]
    pub(super) fn new(value: ValueRef<'a>, number: &'a mut [u8; 8]) -> Self {
        let (kind, bytes): (_, &[u8]) = match value {
            ValueRef::String(text) => (STRING, text.as_bytes()),
            ValueRef::Binary(bytes) => (BINARY, bytes.as_bytes()),
            ValueRef::Integer(integer) => {
                *number = integer.to_le_bytes();
                (INTEGER, number)
            }
            ValueRef::Float(float) => {
                *number = float.to_le_bytes();
                (FLOAT, number)
            }
            ValueRef::Bool(bool) => (BOOL, if bool { &[1] } else { &[0] }),
        };
        Self { kind, bytes }
    }
}
