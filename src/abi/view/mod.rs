//! Requests as borrowed views of their frames: [`RequestRef`], and one struct for each command.
//!
//! Reading a request checks all of it, once: from then on its iterators cannot fail, and no text is
//! checked again. Only the form that protobuf encoders write is read, which keeps this short and
//! fast; [`canonical`] brings every other form of a request into this one.
//!
//! `build.rs` generates the views from `abi.proto`. They read their fields, in the order of their
//! numbers, with a [`Reader`].

use std::iter;

use bytes::Bytes;
use prost::Message;

use super::command_request::RequestData;
use super::encoded::{BYTES, PAIR_KEY, PAIR_VALUE, VARINT, delimited, field, tag, varint};
use super::encoded_response::{MESSAGE, PAIRS, STATUS, VALUES};
use super::text::is_ascii;
use super::{Command, CommandRequest, CommandResponse, Keys, Kvpair, Text, Value, ValueRef};

include!(concat!(env!("OUT_DIR"), "/views.rs"));

/// What a request is about.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Named<'a> {
    Table(Text<'a>),
    Topic(Text<'a>),
    Pattern(Text<'a>),
    Nothing,
}

/// A pair. Its value is [`None`] if it is unset.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct PairRef<'a> {
    pub(crate) key: Text<'a>,
    pub(crate) value: Option<ValueRef<'a>>,
}

/// Pairs, in order. A key may come more than once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pairs<'a> {
    fields: Fields<'a>,
    /// The length of the longest key, in bytes.
    longest_key: usize,
    all_set: bool,
}

/// Values, in order, each of which may be unset.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Values<'a>(Fields<'a>);

/// The encoded fields of a repeated field, all of which were read before.
#[derive(Debug, Clone, Copy)]
struct Fields<'a> {
    encoded: &'a [u8],
    count: usize,
}

/// Brings a request into the form that [`RequestRef::read`] reads. [`None`] if it has no command
/// that this library knows.
///
/// It decodes the request to a message and encodes that again, so it costs a multiple of reading
/// and is only for requests that `read` refuses: with unknown fields, or fields in another order.
pub(crate) fn canonical(encoded: Bytes) -> Result<Option<Vec<u8>>, prost::DecodeError> {
    let request = CommandRequest::decode(encoded)?;
    Ok(request
        .request_data
        .is_some()
        .then(|| request.encode_to_vec()))
}

impl<'a> RequestRef<'a> {
    /// The table, topic or pattern that the request names, or an empty text.
    pub(crate) fn table(&self) -> Text<'a> {
        match self.named() {
            Named::Table(name) | Named::Topic(name) | Named::Pattern(name) => name,
            Named::Nothing => Text::from(""),
        }
    }
}

impl<'a> Pairs<'a> {
    /// The length of the longest key, in bytes.
    #[inline]
    pub(crate) fn longest_key(self) -> usize {
        self.longest_key
    }

    /// Whether every pair has a value.
    #[inline]
    pub(crate) fn all_set(self) -> bool {
        self.all_set
    }

    /// The keys of the pairs, in order.
    #[inline]
    pub(crate) fn keys(self) -> Keys<'a> {
        Keys::of_pairs(self.fields.encoded, self.fields.count)
    }

    /// The pairs in order.
    #[inline]
    pub(crate) fn iter(self) -> impl Iterator<Item = PairRef<'a>> {
        self.fields
            .iter()
            .map_while(|pair| PairRef::decode(pair, known))
    }
}

impl<'a> Values<'a> {
    /// The values in order; [`None`] for one that is unset.
    #[inline]
    pub(crate) fn iter(self) -> impl Iterator<Item = Option<ValueRef<'a>>> {
        self.0.iter().map_while(|value| decode_value(value, known))
    }
}

impl<'a> Fields<'a> {
    #[inline]
    fn iter(self) -> impl Iterator<Item = &'a [u8]> {
        let Self {
            encoded: mut rest,
            count,
        } = self;
        iter::repeat_with(move || field(&mut rest))
            .map_while(|field| field)
            .take(count)
    }
}

impl<'a> PairRef<'a> {
    /// Decodes a pair whose text `text` accepts. Either field may be left out.
    #[inline(always)]
    fn decode(mut rest: &'a [u8], text: impl Fn(&'a [u8]) -> Option<Text<'a>>) -> Option<Self> {
        let key = match rest.first() {
            Some(&PAIR_KEY) => text(field(&mut rest)?)?,
            _ => Text::from(""),
        };
        let value = match rest.first() {
            Some(&PAIR_VALUE) => decode_value(field(&mut rest)?, text)?,
            _ => None,
        };
        rest.is_empty().then_some(Self { key, value })
    }
}

/// A pair whose value is unset is one without a value.
impl From<PairRef<'_>> for Kvpair {
    fn from(pair: PairRef<'_>) -> Self {
        Self {
            key: pair.key.into(),
            value: pair.value.map(Value::from),
        }
    }
}

/// Decodes a value that may be unset.
#[inline(always)]
fn decode_value<'a>(
    encoded: &'a [u8],
    text: impl FnOnce(&'a [u8]) -> Option<Text<'a>>,
) -> Option<Option<ValueRef<'a>>> {
    match encoded {
        [] => Some(None),
        _ => ValueRef::decode_with(encoded, text).map(Some),
    }
}

/// Accepts text that was checked before.
fn known(text: &[u8]) -> Option<Text<'_>> {
    Some(Text::known(text))
}

/// Reads a response that was written here, whose fields are a status, a message, values and pairs
/// in this order. [`None`] for any other.
pub(super) fn read_response(mut encoded: &[u8]) -> Option<CommandResponse> {
    let rest = &mut encoded;
    let mut response = CommandResponse::default();
    if let Some(behind) = rest.strip_prefix(&[STATUS]) {
        *rest = behind;
        response.status = varint(rest)? as u32;
    }
    if rest.first() == Some(&MESSAGE) {
        response.message = Text::from_utf8(field(rest)?)?.into();
    }
    while rest.first() == Some(&VALUES) {
        let value = decode_value(field(rest)?, known)?;
        response.values.push(value.into());
    }
    while rest.first() == Some(&PAIRS) {
        let pair = PairRef::decode(field(rest)?, known)?;
        response.pairs.push(pair.into());
    }
    rest.is_empty().then_some(response)
}

/// The tag and the content of the one field that is all of `encoded`.
#[inline(always)]
fn only_field(mut encoded: &[u8]) -> Option<(u64, &[u8])> {
    let tag = varint(&mut encoded)?;
    let content = delimited(&mut encoded)?;
    encoded.is_empty().then_some((tag, content))
}

/// Reads the fields of one command. A field that is left out has its default.
#[derive(Clone, Copy)]
struct Reader<'a> {
    rest: &'a [u8],
    /// Whether the whole command is ASCII, so that no text in it needs another look.
    ///
    /// With short names and texts it is, including tags and lengths. A longer one has a length of
    /// two bytes, the first of which is not ASCII, and that ends the look at the command early.
    is_ascii: bool,
}

impl<'a> Reader<'a> {
    #[inline(always)]
    fn new(command: &'a [u8]) -> Self {
        Self {
            rest: command,
            is_ascii: is_ascii(command),
        }
    }

    #[inline(always)]
    fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }

    /// Takes the next field, if it has this tag.
    #[inline(always)]
    fn next_is(&self, tag: u8) -> bool {
        self.rest.first() == Some(&tag)
    }

    #[inline(always)]
    fn checked(&self, text: &'a [u8]) -> Option<Text<'a>> {
        (self.is_ascii || is_utf8(text)).then(|| Text::known(text))
    }

    #[inline(always)]
    fn text(&mut self, tag: u8) -> Option<Text<'a>> {
        if !self.next_is(tag) {
            return Some(Text::from(""));
        }
        let text = field(&mut self.rest)?;
        self.checked(text)
    }

    #[inline(always)]
    fn number(&mut self, tag: u8) -> Option<u32> {
        if !self.next_is(tag) {
            return Some(0);
        }
        let (_tag, tail) = self.rest.split_first()?;
        self.rest = tail;
        // Truncated, as protobuf decoders do.
        Some(varint(&mut self.rest)? as u32)
    }

    #[inline(always)]
    fn pair(&mut self, tag: u8) -> Option<Option<PairRef<'a>>> {
        if !self.next_is(tag) {
            return Some(None);
        }
        let pair = field(&mut self.rest)?;
        PairRef::decode(pair, |text| self.checked(text)).map(Some)
    }

    #[inline(always)]
    fn keys(&mut self, tag: u8) -> Option<Keys<'a>> {
        let Fields { encoded, count } = self.fields(tag, Self::checked)?;
        Some(Keys::fields(encoded, count))
    }

    #[inline(always)]
    fn pairs(&mut self, tag: u8) -> Option<Pairs<'a>> {
        let (mut longest_key, mut all_set) = (0, true);
        let fields = self.fields(tag, |reader, pair| {
            let pair = PairRef::decode(pair, |text| reader.checked(text))?;
            longest_key = longest_key.max(pair.key.len());
            all_set &= pair.value.is_some();
            Some(())
        })?;
        Some(Pairs {
            fields,
            longest_key,
            all_set,
        })
    }

    #[inline(always)]
    fn values(&mut self, tag: u8) -> Option<Values<'a>> {
        let read = |reader: &Self, value| decode_value(value, |text| reader.checked(text));
        self.fields(tag, read).map(Values)
    }

    /// Takes the fields with this tag, which all have to be readable.
    #[inline(always)]
    fn fields<T>(
        &mut self,
        tag: u8,
        read: impl FnMut(&Self, &'a [u8]) -> Option<T>,
    ) -> Option<Fields<'a>> {
        let (fields, rest) = self.split_fields(tag, read)?;
        self.rest = rest;
        Some(fields)
    }

    /// The fields with this tag, and what follows them.
    ///
    /// Not inlined, and by value, so that the loop has the registers to itself.
    #[inline(never)]
    fn split_fields<T>(
        mut self,
        tag: u8,
        mut read: impl FnMut(&Self, &'a [u8]) -> Option<T>,
    ) -> Option<(Fields<'a>, &'a [u8])> {
        let (all, mut count) = (self.rest, 0);
        while self.next_is(tag) {
            let field = field(&mut self.rest)?;
            read(&self, field)?;
            count += 1;
        }
        let encoded = all.get(..all.len() - self.rest.len())?;
        Some((Fields { encoded, count }, self.rest))
    }
}

/// Not inlined: one call for every text, and most requests need none.
#[inline(never)]
fn is_utf8(bytes: &[u8]) -> bool {
    Text::from_utf8(bytes).is_some()
}

#[cfg(test)]
mod tests;
