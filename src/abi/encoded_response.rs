//! Responses written piece by piece: a status, then values or pairs from where they lie, without a
//! [`CommandResponse`] in between.

use bytes::{BufMut, BytesMut};
use prost::Message;
use prost::encoding::{encode_varint, encoded_len_varint};

use super::encoded::{BINARY, BYTES, PAIR_KEY, PAIR_VALUE, STRING, VARINT, encode_delimited, tag};
use super::view::read_response;
use super::{CommandResponse, Text, ValueRef, status};

// The fields of a `CommandResponse`.
pub(super) const STATUS: u8 = tag(1, VARINT);
pub(super) const MESSAGE: u8 = tag(2, BYTES);
pub(super) const VALUES: u8 = tag(3, BYTES);
pub(super) const PAIRS: u8 = tag(4, BYTES);

/// A successful response without values or pairs: its status, which comes first in any response.
pub(crate) const OK: [u8; 3] = status_field(status::OK);

/// The status of a response that reports a missing key.
const NOT_FOUND: [u8; 3] = status_field(status::NOT_FOUND);

/// A text shorter than this makes a value whose length takes one byte.
const SHORT: usize = 0x80 - 2;

/// A status from 128 to 16383: two bytes of varint.
const fn status_field(status: u32) -> [u8; 3] {
    [STATUS, status as u8 | 0x80, (status >> 7) as u8]
}

/// The length of a value of a response, in bytes; [`None`] is an unset value.
#[inline]
pub(crate) fn value_len(value: Option<ValueRef<'_>>) -> usize {
    match value {
        Some(ValueRef::String(text)) if text.len() < SHORT => 4 + text.len(),
        Some(value) => delimited_len(value.encoded_len()),
        None => 2,
    }
}

/// Appends a value of a response.
#[inline]
pub(crate) fn put_value(value: Option<ValueRef<'_>>, buffer: &mut BytesMut) {
    match value {
        Some(ValueRef::String(text)) if let short @ 0..SHORT = text.len() => {
            buffer.put_slice(&[VALUES, 2 + short as u8, STRING, short as u8]);
            buffer.put_slice(text.as_bytes());
        }
        Some(value) => {
            buffer.put_u8(VALUES);
            encode_varint(value.encoded_len() as u64, buffer);
            value.encode(buffer);
        }
        None => buffer.put_slice(&[VALUES, 0]),
    }
}

/// Appends a string or binary value of a response without its bytes, which are to follow.
pub(crate) fn put_value_head(value: ValueRef<'_>, buffer: &mut BytesMut) {
    let (tag, len) = match value {
        ValueRef::String(text) => (STRING, text.len()),
        ValueRef::Binary(data) => (BINARY, data.len()),
        ValueRef::Integer(_) | ValueRef::Float(_) | ValueRef::Bool(_) => {
            return put_value(Some(value), buffer);
        }
    };
    buffer.put_u8(VALUES);
    encode_varint(value.encoded_len() as u64, buffer);
    buffer.put_u8(tag);
    encode_varint(len as u64, buffer);
}

/// The length of a pair of a response, in bytes.
#[inline]
pub(crate) fn pair_len(key: Text<'_>, value: ValueRef<'_>) -> usize {
    delimited_len(inner_pair_len(key, value))
}

/// Appends a pair of a response.
#[inline]
pub(crate) fn put_pair(key: Text<'_>, value: ValueRef<'_>, buffer: &mut BytesMut) {
    buffer.put_u8(PAIRS);
    encode_varint(inner_pair_len(key, value) as u64, buffer);
    if !key.is_empty() {
        encode_delimited(PAIR_KEY, key.as_bytes(), buffer);
    }
    buffer.put_u8(PAIR_VALUE);
    encode_varint(value.encoded_len() as u64, buffer);
    value.encode(buffer);
}

fn inner_pair_len(key: Text<'_>, value: ValueRef<'_>) -> usize {
    let key_len = match key.len() {
        0 => 0,
        len => delimited_len(len),
    };
    key_len + delimited_len(value.encoded_len())
}

/// The length of a length-delimited field with a number below 16.
fn delimited_len(len: usize) -> usize {
    1 + encoded_len_varint(len as u64) + len
}

/// Appends the response that reports a missing key. Returns whether it did: not for names with
/// characters that have to be escaped, nor for long ones.
#[inline]
pub(crate) fn put_not_found(table: Text<'_>, key: Text<'_>, buffer: &mut BytesMut) -> bool {
    const BEFORE_KEY: &[u8; 8] = b"no key \"";
    const BEFORE_TABLE: &[u8; 12] = b"\" in table \"";
    const NAMES: usize = BEFORE_KEY.len() + BEFORE_TABLE.len() + 1;
    let len = NAMES + key.len() + table.len();
    if len >= 0x80 || !is_plain(key.as_bytes()) || !is_plain(table.as_bytes()) {
        return false;
    }
    let [status, low, high] = NOT_FOUND;
    buffer.reserve(NOT_FOUND.len() + 2 + len);
    buffer.put_slice(&[status, low, high, MESSAGE, len as u8]);
    buffer.put_slice(BEFORE_KEY);
    buffer.put_slice(key.as_bytes());
    buffer.put_slice(BEFORE_TABLE);
    buffer.put_slice(table.as_bytes());
    buffer.put_u8(b'"');
    true
}

/// Whether `{:?}` shows a text as it is, in quotes.
#[inline]
fn is_plain(text: &[u8]) -> bool {
    let (words, rest) = text.as_chunks();
    let mut last = [b' '; 8];
    last.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
    let needs_escape = words
        .iter()
        .fold(escapes(last), |all, word| all | escapes(*word));
    needs_escape == 0
}

/// Not zero if any of the bytes is not printable ASCII, or is a quote or a backslash.
#[inline]
fn escapes(bytes: [u8; 8]) -> u64 {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const HIGH: u64 = ONES << 7;
    let word = u64::from_ne_bytes(bytes);
    let is_below = |word: u64, limit: u64| word.wrapping_sub(ONES * limit) & !word & HIGH;
    let is_equal = |byte: u8| is_below(word ^ (ONES * u64::from(byte)), 1);
    word & HIGH
        | is_below(word, u64::from(b' '))
        | is_equal(b'"')
        | is_equal(b'\\')
        | is_equal(0x7f)
}

/// The response that was encoded here.
pub(crate) fn decode(encoded: &[u8]) -> CommandResponse {
    read_response(encoded).unwrap_or_else(|| {
        // It has other fields, but it is a response.
        CommandResponse::decode(encoded).unwrap_or_default()
    })
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::abi::{Kvpair, Value};
    use crate::error::KvError;

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

    proptest! {
        #[test]
        fn values_are_written_as_prost_writes_them(values in vec(prop::option::of(value()), 0..5)) {
            let mut answer = BytesMut::from(&OK[..]);
            for value in &values {
                let (before, value) = (answer.len(), value.as_ref().and_then(ValueRef::new));
                put_value(value, &mut answer);
                prop_assert_eq!(value_len(value), answer.len() - before);
            }
            prop_assert_eq!(answer, CommandResponse::from(values).encode_to_vec());
        }

        #[test]
        fn pairs_are_written_as_prost_writes_them(pairs in vec((".{0,200}", value()), 0..5)) {
            let mut answer = BytesMut::from(&OK[..]);
            for (key, value) in &pairs {
                let (before, value) = (answer.len(), ValueRef::new(value).unwrap());
                put_pair(key.into(), value, &mut answer);
                prop_assert_eq!(pair_len(key.into(), value), answer.len() - before);
            }
            let pairs: Vec<Kvpair> = pairs.into_iter().map(Kvpair::from).collect();
            prop_assert_eq!(answer, CommandResponse::from(pairs).encode_to_vec());
        }

        #[test]
        fn plain_text_is_what_debug_shows_as_it_is(text in "[ -~\u{0}-\u{ff}]{0,20}") {
            let shown = format!("{text:?}");
            let is_same = text.is_ascii() && shown.get(1..shown.len() - 1) == Some(&*text);
            prop_assert_eq!(is_plain(text.as_bytes()), is_same);
        }

        #[test]
        fn a_missing_key_is_reported_as_its_error_says(table in ".{0,50}", key in "[ -~]{0,60}") {
            let mut answer = BytesMut::new();
            if put_not_found(Text::from(&table), Text::from(&key), &mut answer) {
                let error = KvError::NotFound { table, key };
                prop_assert_eq!(answer, error.response().encode_to_vec());
            } else {
                prop_assert!(answer.is_empty());
            }
        }
    }
}
