//! The requests that come most, read where they lie: an [`Hget`](super::Hget), an [`Hset`](super::Hset), an
//! [`Hmget`](super::Hmget) and an [`Hmset`](super::Hmset), without an allocation for each name and each text of them, and
//! the answer to them written from where the values lie.
//!
//! Only what encoders of protobuf commonly write is known here: every field once, in the order of their numbers. What is
//! anything else, and what is wrong, is left to the generated code, so that nothing is decided twice: that it is not plain is
//! all that is ever said.

use std::iter;
use std::str;

use bytes::{Buf, BufMut, Bytes};
use prost::encoding::{decode_varint, encode_varint, encoded_len_varint};

use super::value::Value as Kind;
use super::{Value, status};

// The tags of the fields: their number, and how they are encoded.
const VARINT: u8 = 0;
const FIXED64: u8 = 1;
const BYTES: u8 = 2;

const HGET: u8 = tag(1, BYTES);
const HMGET: u8 = tag(3, BYTES);
const HSET: u8 = tag(4, BYTES);
const HMSET: u8 = tag(5, BYTES);
const TABLE: u8 = tag(1, BYTES);
/// Of an `Hget`, and each of an `Hmget`.
const KEY: u8 = tag(2, BYTES);
/// Of an `Hset`, and each of an `Hmset`.
const PAIR: u8 = tag(2, BYTES);
const PAIR_KEY: u8 = tag(1, BYTES);
const PAIR_VALUE: u8 = tag(2, BYTES);
const STRING: u8 = tag(1, BYTES);
const BINARY: u8 = tag(2, BYTES);
const INTEGER: u8 = tag(3, VARINT);
const FLOAT: u8 = tag(4, FIXED64);
const BOOL: u8 = tag(5, VARINT);
const STATUS: u8 = tag(1, VARINT);
const VALUES: u8 = tag(3, BYTES);

/// What every answer with values begins with, encoded: its status.
pub(crate) const ANSWERED: [u8; 3] = {
    let [low, high] = [status::OK as u8 | 0x80, (status::OK >> 7) as u8];
    [STATUS, low, high]
};

/// How many pairs a plain request has at most. With more they are better read one by one, as messages are.
const MOST_PAIRS: usize = 256;

/// A text that is shorter than this has a value whose length takes one byte.
const SHORT: usize = 0x80 - 2;

const fn tag(number: u8, encoded_as: u8) -> u8 {
    number << 3 | encoded_as
}

/// A request that is plain. Its names and texts are bytes that may be no UTF-8. To find something by them, that need not be
/// known: what is stored is text. Who stores them has to look.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Plain<'a> {
    Hget {
        table: &'a [u8],
        key: &'a [u8],
    },
    Hset {
        table: &'a [u8],
        key: &'a [u8],
        value: ValueRef<'a>,
    },
    Hmget {
        table: &'a [u8],
        keys: Keys<'a>,
    },
    Hmset {
        table: &'a [u8],
        /// One at least. Their values are set.
        pairs: Vec<Pair<'a>>,
    },
}

/// Keys, one at least, in their order.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Keys<'a> {
    encoded: &'a [u8],
    count: usize,
}

/// A key, and a value that is set.
pub(crate) type Pair<'a> = (&'a [u8], ValueRef<'a>);

/// A value where it lies.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum ValueRef<'a> {
    /// It is not set.
    Unset,
    /// Text, as its bytes: to copy what is stored, nobody has to know again that it is UTF-8.
    String(&'a [u8]),
    Binary(&'a [u8]),
    Integer(i64),
    Float(f64),
    Bool(bool),
}

impl<'a> Plain<'a> {
    /// Reads an encoded request, if it is plain.
    pub(crate) fn read(request: &'a [u8]) -> Option<Self> {
        let (tag, rest) = request.split_first()?;
        match *tag {
            HGET => {
                let mut command = whole(rest)?;
                let table = field(&mut command, TABLE)?;
                let key = field(&mut command, KEY)?;
                command.is_empty().then_some(Self::Hget { table, key })
            }
            HSET => {
                let mut command = whole(rest)?;
                let table = field(&mut command, TABLE)?;
                let (key, value) = pair(&mut command)?;
                (command.is_empty()).then_some(Self::Hset { table, key, value })
            }
            HMGET => {
                let mut command = whole(rest)?;
                let table = field(&mut command, TABLE)?;
                let keys = Keys::read(command)?;
                Some(Self::Hmget { table, keys })
            }
            HMSET => {
                let mut command = whole(rest)?;
                let table = field(&mut command, TABLE)?;
                let pairs = pairs(command)?;
                Some(Self::Hmset { table, pairs })
            }
            _ => None,
        }
    }

    /// How many values an answer to it has.
    pub(crate) fn answer_elements(&self) -> usize {
        match self {
            Self::Hget { .. } | Self::Hset { .. } => 1,
            Self::Hmget { keys, .. } => keys.len(),
            Self::Hmset { pairs, .. } => pairs.len(),
        }
    }
}

impl<'a> Keys<'a> {
    fn read(encoded: &'a [u8]) -> Option<Self> {
        let (mut rest, mut count) = (encoded, 0);
        while !rest.is_empty() {
            field(&mut rest, KEY)?;
            count += 1;
        }
        (count > 0).then_some(Self { encoded, count })
    }

    /// How many there are.
    pub(crate) fn len(self) -> usize {
        self.count
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = &'a [u8]> {
        let mut rest = self.encoded;
        iter::from_fn(move || field(&mut rest, KEY))
    }
}

/// The pairs that all the rest is. Whoever stores them looks at each several times, before it knows that it can store all:
/// to read each anew was a fifth of what an `Hmset` of 100 cost.
fn pairs(mut rest: &[u8]) -> Option<Vec<Pair<'_>>> {
    let len = rest.len();
    let first = pair(&mut rest)?;
    // As many as there are where they are all as long as the first.
    let about = len / (len - rest.len());
    let mut pairs = Vec::with_capacity(about.min(MOST_PAIRS));
    pairs.push(first);
    while !rest.is_empty() {
        (pairs.len() < MOST_PAIRS).then_some(())?;
        pairs.push(pair(&mut rest)?);
    }
    Some(pairs)
}

/// The pair that comes next.
fn pair<'a>(rest: &mut &'a [u8]) -> Option<Pair<'a>> {
    let mut pair = field(rest, PAIR)?;
    let key = field(&mut pair, PAIR_KEY)?;
    let value = ValueRef::read(field(&mut pair, PAIR_VALUE)?)?;
    pair.is_empty().then_some((key, value))
}

/// The field that all the rest is.
fn whole(mut rest: &[u8]) -> Option<&[u8]> {
    let field = delimited(&mut rest)?;
    rest.is_empty().then_some(field)
}

/// The field with this tag, if it comes next. Called and not inlined, this and the next were 3 % of an `Hget`.
#[inline(always)]
fn field<'a>(rest: &mut &'a [u8], tag: u8) -> Option<&'a [u8]> {
    let (first, behind) = rest.split_first()?;
    *rest = behind;
    if *first != tag {
        return None;
    }
    delimited(rest)
}

#[inline(always)]
fn delimited<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (first, behind) = rest.split_first()?;
    let len = match *first {
        short @ 0..0x80 => {
            *rest = behind;
            usize::from(short)
        }
        _ => usize::try_from(decode_varint(rest).ok()?).ok()?,
    };
    let (field, behind) = rest.split_at_checked(len)?;
    *rest = behind;
    Some(field)
}

impl<'a> ValueRef<'a> {
    /// Reads an encoded value that is set.
    fn read(encoded: &'a [u8]) -> Option<Self> {
        let (tag, mut rest) = encoded.split_first()?;
        let value = match *tag {
            STRING => Self::String(delimited(&mut rest)?),
            BINARY => Self::Binary(delimited(&mut rest)?),
            INTEGER => Self::Integer(decode_varint(&mut rest).ok()? as i64),
            FLOAT => Self::Float(rest.try_get_f64_le().ok()?),
            BOOL => Self::Bool(decode_varint(&mut rest).ok()? != 0),
            _ => return None,
        };
        rest.is_empty().then_some(value)
    }

    /// Whether what is text is UTF-8.
    pub(crate) fn is_valid(self) -> bool {
        match self {
            // Most is ASCII, which is known in half the time: 7 % of what it costs to store 64 KiB.
            Self::String(bytes) => bytes.is_ascii() || str::from_utf8(bytes).is_ok(),
            _ => true,
        }
    }

    /// How many bytes it has, as [`Value::payload_len`] counts them.
    pub(crate) fn payload_len(self) -> usize {
        match self {
            Self::Unset => 0,
            Self::String(bytes) | Self::Binary(bytes) => bytes.len(),
            Self::Integer(_) | Self::Float(_) => 8,
            Self::Bool(_) => 1,
        }
    }

    fn encoded_len(self) -> usize {
        match self {
            Self::Unset => 0,
            Self::String(bytes) | Self::Binary(bytes) => {
                1 + encoded_len_varint(bytes.len() as u64) + bytes.len()
            }
            Self::Integer(integer) => 1 + encoded_len_varint(integer as u64),
            Self::Float(_) => 1 + 8,
            Self::Bool(_) => 1 + 1,
        }
    }

    fn encode(self, buffer: &mut impl BufMut) {
        match self {
            Self::Unset => {}
            Self::String(bytes) => encode_bytes(STRING, bytes, buffer),
            Self::Binary(bytes) => encode_bytes(BINARY, bytes, buffer),
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

    /// How long it is as one value of an answer, encoded.
    pub(crate) fn answer_len(self) -> usize {
        let value_len = self.encoded_len();
        1 + encoded_len_varint(value_len as u64) + value_len
    }

    /// Encodes it as one value of an answer, behind [`ANSWERED`] and the values before it: so all of it is a
    /// [`CommandResponse`](super::CommandResponse).
    pub(crate) fn encode_answer(self, buffer: &mut impl BufMut) {
        if let Self::String(bytes) = self
            && let short @ 0..SHORT = bytes.len()
        {
            // At once, as it most often is.
            buffer.put_slice(&[VALUES, 2 + short as u8, STRING, short as u8]);
            return buffer.put_slice(bytes);
        }
        buffer.put_u8(VALUES);
        encode_varint(self.encoded_len() as u64, buffer);
        self.encode(buffer);
    }
}

fn encode_bytes(tag: u8, bytes: &[u8], buffer: &mut impl BufMut) {
    buffer.put_u8(tag);
    encode_varint(bytes.len() as u64, buffer);
    buffer.put_slice(bytes);
}

impl<'a> From<&'a Value> for ValueRef<'a> {
    fn from(value: &'a Value) -> Self {
        match &value.value {
            None => Self::Unset,
            Some(Kind::String(text)) => Self::String(text.as_bytes()),
            Some(Kind::Binary(bytes)) => Self::Binary(bytes),
            Some(Kind::Integer(integer)) => Self::Integer(*integer),
            Some(Kind::Float(float)) => Self::Float(*float),
            Some(Kind::Bool(bool)) => Self::Bool(*bool),
        }
    }
}

/// Text that is not UTF-8, which nobody has stored, is as none.
impl From<ValueRef<'_>> for Value {
    fn from(value: ValueRef<'_>) -> Self {
        let value = match value {
            ValueRef::Unset => None,
            ValueRef::String(text) => {
                let text = str::from_utf8(text).unwrap_or_default();
                Some(Kind::String(text.to_owned()))
            }
            ValueRef::Binary(bytes) => Some(Kind::Binary(Bytes::copy_from_slice(bytes))),
            ValueRef::Integer(integer) => Some(Kind::Integer(integer)),
            ValueRef::Float(float) => Some(Kind::Float(float)),
            ValueRef::Bool(bool) => Some(Kind::Bool(bool)),
        };
        Self { value }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use prost::Message;

    use super::*;
    use crate::abi::{CommandRequest, CommandResponse, Kvpair};

    fn value() -> impl Strategy<Value = Value> {
        prop_oneof![
            Just(Value::default()),
            any::<String>().prop_map(Value::from),
            any::<Vec<u8>>().prop_map(Value::binary),
            "[a-z]{100,300}".prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<bool>().prop_map(Value::from),
        ]
    }

    /// What prost makes of a request that was found to be plain, if its names are UTF-8.
    fn decoded(plain: Plain<'_>) -> Option<CommandRequest> {
        let text = |name| str::from_utf8(name).ok();
        let valid = |value: ValueRef<'_>| value.is_valid().then(|| Value::from(value));
        Some(match plain {
            Plain::Hget { table, key } => CommandRequest::new_hget(text(table)?, text(key)?),
            Plain::Hset { table, key, value } => {
                CommandRequest::new_hset(text(table)?, text(key)?, valid(value)?)
            }
            Plain::Hmget { table, keys } => {
                let keys: Option<Vec<_>> = keys.iter().map(text).collect();
                CommandRequest::new_hmget(text(table)?, keys?)
            }
            Plain::Hmset { table, pairs } => {
                let pair =
                    |(key, value): (_, ValueRef<'_>)| Some(Kvpair::new(text(key)?, valid(value)?));
                let pairs: Option<Vec<_>> = pairs.into_iter().map(pair).collect();
                CommandRequest::new_hmset(text(table)?, pairs?)
            }
        })
    }

    proptest! {
        #[test]
        fn what_is_commonly_written_is_plain(table in ".+", key in ".+", value in value()) {
            let hget = CommandRequest::new_hget(&table, &key).encode_to_vec();
            prop_assert_eq!(Plain::read(&hget), Some(Plain::Hget { table: table.as_bytes(), key: key.as_bytes() }));
            let hset = CommandRequest::new_hset(&table, &key, value.clone()).encode_to_vec();
            match Plain::read(&hset) {
                Some(Plain::Hset { value: read, .. }) => {
                    // Bytes, because NaN is not equal to itself.
                    let (mut one, mut other) = (Vec::new(), Vec::new());
                    read.encode(&mut one);
                    ValueRef::from(&value).encode(&mut other);
                    prop_assert_eq!(one, other);
                }
                plain => prop_assert!(plain.is_none() && !value.is_set(), "{:?}", plain),
            }
        }

        #[test]
        fn several_of_what_is_commonly_written_are_plain(
            table in ".+",
            pairs in vec((".+", value().prop_filter("set", Value::is_set)), 1..20),
        ) {
            let keys = pairs.iter().map(|(key, _)| key.clone());
            for request in [
                CommandRequest::new_hmget(&table, keys),
                CommandRequest::new_hmset(&table, pairs.iter().cloned().map(Kvpair::from)),
            ] {
                let encoded = request.encode_to_vec();
                let again = Plain::read(&encoded).and_then(decoded).map(|request| request.encode_to_vec());
                prop_assert_eq!(again, Some(encoded));
            }
        }

        #[test]
        fn what_is_plain_is_what_prost_makes_of_it(
            mut request in prop_oneof![
                any::<Vec<u8>>(),
                (".{0,9}", ".{0,9}").prop_map(|(table, key)| CommandRequest::new_hget(table, key).encode_to_vec()),
                (".{0,9}", ".{0,9}", value())
                    .prop_map(|(table, key, value)| CommandRequest::new_hset(table, key, value).encode_to_vec()),
                (".{0,9}", vec(".{0,9}", 0..4))
                    .prop_map(|(table, keys)| CommandRequest::new_hmget(table, keys).encode_to_vec()),
                (".{0,9}", vec((".{0,9}", value()), 0..4)).prop_map(|(table, pairs)| {
                    CommandRequest::new_hmset(table, pairs.into_iter().map(Kvpair::from)).encode_to_vec()
                }),
            ],
            changes in vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        ) {
            for (at, byte) in changes {
                if !request.is_empty() {
                    let at = at.index(request.len());
                    request[at] = byte;
                }
            }
            if let Some(plain) = Plain::read(&request) {
                let by_prost = CommandRequest::decode(&request[..]).ok();
                let encoded = |request: CommandRequest| request.encode_to_vec();
                prop_assert_eq!(decoded(plain).map(encoded), by_prost.map(encoded));
            }
        }

        #[test]
        fn an_answer_is_what_prost_would_write(values in vec(value(), 0..5)) {
            let expected = CommandResponse::from(values.clone()).encode_to_vec();
            let mut answer = ANSWERED.to_vec();
            for value in values.iter().map(ValueRef::from) {
                let before = answer.len();
                value.encode_answer(&mut answer);
                prop_assert_eq!(value.answer_len(), answer.len() - before);
            }
            prop_assert_eq!(answer, expected);
        }
    }
}
