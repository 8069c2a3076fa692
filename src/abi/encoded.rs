//! Values as protobuf encodes them, read and written where they lie, and the fields that they and
//! other messages consist of.

use bytes::BufMut;
use prost::encoding::{decode_varint, encode_varint, encoded_len_varint};

use super::{Text, ValueRef};

// How a field is encoded.
pub(super) const VARINT: u8 = 0;
pub(super) const FIXED64: u8 = 1;
pub(super) const BYTES: u8 = 2;

// The fields of a `Value`.
pub(super) const STRING: u8 = tag(1, BYTES);
pub(super) const BINARY: u8 = tag(2, BYTES);
const INTEGER: u8 = tag(3, VARINT);
const FLOAT: u8 = tag(4, FIXED64);
const BOOL: u8 = tag(5, VARINT);

// The fields of a `Kvpair`.
pub(super) const PAIR_KEY: u8 = tag(1, BYTES);
pub(super) const PAIR_VALUE: u8 = tag(2, BYTES);

/// The tag of a field with a number below 16.
pub(super) const fn tag(number: u8, encoded_as: u8) -> u8 {
    number << 3 | encoded_as
}

impl<'a> ValueRef<'a> {
    /// Reads an encoded [`Value`](super::Value) that has exactly one field, as every encoder writes
    /// it, if `text` accepts its text. [`None`] for any other, an unset one included.
    #[inline(always)]
    pub(crate) fn decode_with(
        encoded: &'a [u8],
        text: impl FnOnce(&'a [u8]) -> Option<Text<'a>>,
    ) -> Option<Self> {
        let (tag, mut rest) = encoded.split_first()?;
        let value = match *tag {
            STRING => Self::String(text(delimited(&mut rest)?)?),
            BINARY => Self::Binary(delimited(&mut rest)?.into()),
            INTEGER => Self::Integer(varint(&mut rest)? as i64),
            FLOAT => {
                let (float, tail) = rest.split_first_chunk()?;
                rest = tail;
                Self::Float(f64::from_le_bytes(*float))
            }
            BOOL => Self::Bool(varint(&mut rest)? != 0),
            _ => return None,
        };
        rest.is_empty().then_some(value)
    }

    /// The length of the encoded [`Value`](super::Value), in bytes.
    #[inline]
    pub(crate) fn encoded_len(self) -> usize {
        let delimited = |len: usize| 1 + encoded_len_varint(len as u64) + len;
        match self {
            Self::String(text) => delimited(text.len()),
            Self::Binary(data) => delimited(data.len()),
            Self::Integer(integer) => 1 + encoded_len_varint(integer as u64),
            Self::Float(_) => 1 + size_of::<f64>(),
            Self::Bool(_) => 2,
        }
    }

    /// Appends the encoded [`Value`](super::Value).
    #[inline]
    pub(crate) fn encode(self, buffer: &mut impl BufMut) {
        match self {
            Self::String(text) => encode_delimited(STRING, text.as_bytes(), buffer),
            Self::Binary(data) => encode_delimited(BINARY, data.as_bytes(), buffer),
            Self::Integer(integer) => {
                buffer.put_u8(INTEGER);
                encode_varint(integer as u64, buffer);
            }
            Self::Float(float) => {
                buffer.put_u8(FLOAT);
                buffer.put_f64_le(float);
            }
            Self::Bool(bool) => buffer.put_slice(&[BOOL, u8::from(bool)]),
        }
    }
}

/// Appends a length-delimited field.
#[inline]
pub(super) fn encode_delimited(tag: u8, bytes: &[u8], buffer: &mut impl BufMut) {
    buffer.put_u8(tag);
    encode_varint(bytes.len() as u64, buffer);
    buffer.put_slice(bytes);
}

/// Takes a length-delimited field whose tag has one byte.
#[inline(always)]
pub(super) fn field<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (_tag, tail) = rest.split_first()?;
    *rest = tail;
    delimited(rest)
}

/// Takes the bytes behind their length.
#[inline(always)]
pub(super) fn delimited<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = usize::try_from(varint(rest)?).ok()?;
    let (field, tail) = rest.split_at_checked(len)?;
    *rest = tail;
    Some(field)
}

/// Takes a varint.
#[inline(always)]
pub(super) fn varint(rest: &mut &[u8]) -> Option<u64> {
    let (number, tail) = match rest.split_first()? {
        (short @ 0..0x80, tail) => (u64::from(*short), tail),
        _ => long_varint(rest)?,
    };
    *rest = tail;
    Some(number)
}

/// Reads a varint of several bytes. Not inlined, and by value, so that the common case stays in
/// registers.
#[inline(never)]
fn long_varint(mut rest: &[u8]) -> Option<(u64, &[u8])> {
    let number = decode_varint(&mut rest).ok()?;
    Some((number, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message;

    use super::*;
    use crate::abi::Value;

    fn value() -> impl Strategy<Value = Value> {
        prop_oneof![
            any::<String>().prop_map(Value::from),
            any::<Vec<u8>>().prop_map(Value::binary),
            "[a-z]{100,300}".prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<bool>().prop_map(Value::from),
        ]
    }

    fn decode(encoded: &[u8]) -> Option<ValueRef<'_>> {
        ValueRef::decode_with(encoded, Text::from_utf8)
    }

    proptest! {
        #[test]
        fn a_value_is_encoded_as_prost_encodes_it(value in value()) {
            let encoded = value.encode_to_vec();
            let borrowed = ValueRef::new(&value).unwrap();
            let mut again = Vec::new();
            borrowed.encode(&mut again);
            prop_assert_eq!(borrowed.encoded_len(), again.len());
            prop_assert_eq!(&again, &encoded);
            // Compared encoded, because NaN is not equal to itself.
            let decoded = Value::from(decode(&encoded).unwrap());
            prop_assert_eq!(decoded.encode_to_vec(), encoded);
        }

        #[test]
        fn decodes_to_the_same_value_as_prost(
            bytes: Vec<u8>,
            value in value(),
            at: prop::sample::Index,
            byte: u8,
        ) {
            let mut changed = value.encode_to_vec();
            let at = at.index(changed.len());
            changed[at] = byte;
            for bytes in [&bytes, &changed] {
                if let Some(decoded) = decode(bytes) {
                    let by_prost = Value::decode(&bytes[..]).map(|value| value.encode_to_vec());
                    prop_assert_eq!(by_prost, Ok(Value::from(decoded).encode_to_vec()));
                }
            }
        }
    }
}
