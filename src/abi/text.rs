//! Names and values where they lie: in the frame of a request, or in a storage.
//!
//! A [`Text`] is known to be UTF-8 without being a `&str`: what was checked once, when a request
//! came or a row was stored, is not checked again whenever it is compared or copied. That is two
//! checks of a name saved in each request, and one of every string that is read.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str;

use bytes::Bytes;

use super::Value;
use super::value::Value as Kind;

/// Borrowed bytes: the payload of a binary value.
///
/// If they are part of a [`Bytes`] that can be shared, [`to_bytes`](Self::to_bytes) copies nothing.
#[derive(Clone, Copy)]
pub struct Data<'a> {
    bytes: &'a [u8],
    shared: Option<&'a Bytes>,
}

/// Borrowed UTF-8 text: the name of a table, a key, or a string value.
///
/// Compares and hashes by its bytes, as a `str` does.
#[derive(Clone, Copy)]
pub struct Text<'a>(Data<'a>);

/// A borrowed [`Value`] that is set.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ValueRef<'a> {
    /// UTF-8 text.
    String(Text<'a>),
    /// Any bytes.
    Binary(Data<'a>),
    /// A signed 64-bit integer.
    Integer(i64),
    /// An IEEE 754 double.
    Float(f64),
    /// True or false.
    Bool(bool),
}

impl<'a> Data<'a> {
    /// All the bytes of a buffer that may be shared: whoever keeps them keeps the whole buffer.
    pub fn shared(bytes: &'a Bytes) -> Self {
        Self {
            bytes,
            shared: Some(bytes),
        }
    }

    /// The bytes.
    #[inline]
    pub fn as_bytes(self) -> &'a [u8] {
        self.bytes
    }

    /// The number of bytes.
    #[inline]
    pub fn len(self) -> usize {
        self.bytes.len()
    }

    /// Whether there are no bytes.
    pub fn is_empty(self) -> bool {
        self.bytes.is_empty()
    }

    /// The buffer that can be shared, if there is one.
    pub(crate) fn to_shared(self) -> Option<Bytes> {
        self.shared.cloned()
    }

    /// The bytes to keep: shared if possible, otherwise copied.
    pub fn to_bytes(self) -> Bytes {
        match self.shared {
            Some(shared) => shared.clone(),
            None => Bytes::copy_from_slice(self.bytes),
        }
    }
}

impl<'a> From<&'a [u8]> for Data<'a> {
    #[inline]
    fn from(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            shared: None,
        }
    }
}

impl fmt::Debug for Data<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b\"{}\"", self.bytes.escape_ascii())
    }
}

impl PartialEq for Data<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for Data<'_> {}

impl<'a> Text<'a> {
    /// The text, if the bytes are UTF-8.
    #[inline]
    pub fn from_utf8(bytes: &'a [u8]) -> Option<Self> {
        is_utf8(bytes).then(|| Self::known(bytes))
    }

    /// The text that these bytes are known to be, because they were checked before.
    #[inline]
    pub(crate) fn known(bytes: &'a [u8]) -> Self {
        Self(bytes.into())
    }

    /// The text that a buffer is known to be, which may be shared: see [`Data::shared`].
    pub(crate) fn known_shared(bytes: &'a Bytes) -> Self {
        Self(Data::shared(bytes))
    }

    /// The text as a `str`, which costs a check that it is UTF-8.
    pub fn as_str(self) -> &'a str {
        // It was checked when this was made.
        str::from_utf8(self.0.bytes).unwrap_or_default()
    }

    /// The bytes of the text.
    #[inline]
    pub fn as_bytes(self) -> &'a [u8] {
        self.0.bytes
    }

    /// The buffer that can be shared, if there is one.
    pub(crate) fn to_shared(self) -> Option<Bytes> {
        self.0.to_shared()
    }

    /// The bytes of the text to keep: shared if possible, otherwise copied.
    pub fn to_bytes(self) -> Bytes {
        self.0.to_bytes()
    }

    /// The number of bytes.
    #[inline]
    pub fn len(self) -> usize {
        self.0.bytes.len()
    }

    /// Whether the text is empty.
    pub fn is_empty(self) -> bool {
        self.0.bytes.is_empty()
    }
}

impl<'a> From<&'a str> for Text<'a> {
    #[inline]
    fn from(text: &'a str) -> Self {
        Self::known(text.as_bytes())
    }
}

impl<'a> From<&'a String> for Text<'a> {
    fn from(text: &'a String) -> Self {
        Self::from(text.as_str())
    }
}

impl From<Text<'_>> for String {
    fn from(text: Text<'_>) -> Self {
        text.as_str().to_owned()
    }
}

impl fmt::Debug for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl PartialEq for Text<'_> {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        self.0.bytes == other.0.bytes
    }
}

impl Eq for Text<'_> {}

impl PartialEq<str> for Text<'_> {
    fn eq(&self, other: &str) -> bool {
        self.0.bytes == other.as_bytes()
    }
}

impl PartialEq<&str> for Text<'_> {
    fn eq(&self, other: &&str) -> bool {
        self == *other
    }
}

impl Ord for Text<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.bytes.cmp(other.0.bytes)
    }
}

impl PartialOrd for Text<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Hash for Text<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl<'a> ValueRef<'a> {
    /// Borrows a value; [`None`] if it is unset.
    pub fn new(value: &'a Value) -> Option<Self> {
        Some(match value.value.as_ref()? {
            Kind::String(text) => Self::String(text.into()),
            Kind::Binary(bytes) => Self::Binary((&bytes[..]).into()),
            Kind::Integer(integer) => Self::Integer(*integer),
            Kind::Float(float) => Self::Float(*float),
            Kind::Bool(bool) => Self::Bool(*bool),
        })
    }

    /// The size that counts against limits, in bytes: see [`Value::payload_len`].
    #[inline]
    pub fn payload_len(self) -> usize {
        match self {
            Self::String(text) => text.len(),
            Self::Binary(data) => data.len(),
            Self::Integer(_) | Self::Float(_) => size_of::<u64>(),
            Self::Bool(_) => 1,
        }
    }
}

impl From<ValueRef<'_>> for Value {
    fn from(value: ValueRef<'_>) -> Self {
        Self::from(match value {
            ValueRef::String(text) => Kind::String(text.as_str().to_owned()),
            ValueRef::Binary(data) => Kind::Binary(data.to_bytes()),
            ValueRef::Integer(integer) => Kind::Integer(integer),
            ValueRef::Float(float) => Kind::Float(float),
            ValueRef::Bool(bool) => Kind::Bool(bool),
        })
    }
}

/// [`None`] becomes an unset value.
impl From<Option<ValueRef<'_>>> for Value {
    fn from(value: Option<ValueRef<'_>>) -> Self {
        value.map(Self::from).unwrap_or_default()
    }
}

impl<'a> From<&'a str> for ValueRef<'a> {
    fn from(text: &'a str) -> Self {
        Self::String(text.into())
    }
}

impl<'a> From<&'a [u8]> for ValueRef<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self::Binary(bytes.into())
    }
}

impl From<i64> for ValueRef<'_> {
    fn from(integer: i64) -> Self {
        Self::Integer(integer)
    }
}

impl From<f64> for ValueRef<'_> {
    fn from(float: f64) -> Self {
        Self::Float(float)
    }
}

impl From<bool> for ValueRef<'_> {
    fn from(bool: bool) -> Self {
        Self::Bool(bool)
    }
}

#[inline]
fn is_utf8(bytes: &[u8]) -> bool {
    // Most text is ASCII, and that takes half the time to see; for a short name a few instructions.
    is_ascii(bytes) || str::from_utf8(bytes).is_ok()
}

/// Whether all bytes are ASCII. Chunks that overlap save a loop over the last few bytes.
#[inline]
pub(super) fn is_ascii(bytes: &[u8]) -> bool {
    if let Some(last) = bytes.last_chunk::<64>() {
        let whole = bytes.len() - bytes.len() % last.len();
        return words_are_ascii(last) && bytes.get(..whole).is_some_and(<[u8]>::is_ascii);
    }
    if let (Some(first), Some(last)) = (bytes.first_chunk::<32>(), bytes.last_chunk::<32>()) {
        return words_are_ascii(first) && words_are_ascii(last);
    }
    if let (Some(first), Some(last)) = (bytes.first_chunk(), bytes.last_chunk()) {
        return (u128::from_ne_bytes(*first) | u128::from_ne_bytes(*last)) & HIGH == 0;
    }
    if let (Some(first), Some(last)) = (bytes.first_chunk(), bytes.last_chunk()) {
        return (u64::from_ne_bytes(*first) | u64::from_ne_bytes(*last)) & HIGH as u64 == 0;
    }
    if let (Some(first), Some(last)) = (bytes.first_chunk(), bytes.last_chunk()) {
        return (u32::from_ne_bytes(*first) | u32::from_ne_bytes(*last)) & HIGH as u32 == 0;
    }
    bytes.iter().fold(0, |all, byte| all | byte) & HIGH as u8 == 0
}

/// Whether all bytes are ASCII, of a number that a word divides.
#[inline(always)]
fn words_are_ascii(bytes: &[u8]) -> bool {
    let (words, _) = bytes.as_chunks();
    let all = words
        .iter()
        .fold(0, |all, word| all | u128::from_ne_bytes(*word));
    all & HIGH == 0
}

/// The bits that no ASCII byte has.
const HIGH: u128 = u128::from_ne_bytes([0x80; 16]);

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert_eq, proptest};

    use super::*;

    proptest! {
        #[test]
        fn accepts_exactly_what_std_accepts_as_utf8(bytes: Vec<u8>, text in ".{0,20}") {
            prop_assert_eq!(Text::from_utf8(&bytes).is_some(), str::from_utf8(&bytes).is_ok());
            prop_assert_eq!(Text::from_utf8(text.as_bytes()).map(Text::as_str), Some(&*text));
        }

        #[test]
        fn finds_a_non_ascii_byte_at_any_position(len in 1..200_usize, at in any::<usize>()) {
            let mut bytes = vec![b'a'; len];
            assert!(is_ascii(&bytes));
            bytes[at % len] = 0x80;
            assert!(!is_ascii(&bytes) && Text::from_utf8(&bytes).is_none());
        }
    }
}
