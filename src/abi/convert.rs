//! Conversions between [`Value`] and Rust's own types.
//!
//! Into a value: [`From`] if every Rust value fits, [`TryFrom`] if some do not, as with `u64`. Out
//! of a value: always [`TryFrom`], from an owned or a borrowed value. Types are never converted
//! into one another: the string "5" is not the integer 5, and the integer 5 is not the float 5.0.
//!
//! Nothing here encodes or decodes messages; [`Message`](prost::Message) does. There is no [`From`]
//! for `&[u8]` or `Vec<u8>`: it would bring a [`TryFrom`] that takes an encoded value for a binary
//! one. [`Value::binary`] is explicit about that.

use std::convert::Infallible;

use bytes::Bytes;
use thiserror::Error;

use super::Value;
use super::value::Value as Kind;

/// A [`Value`] does not convert to a Rust type, or the other way round.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ValueError {
    /// The value has another type, or is unset.
    #[error("wanted {wanted}, got {got}")]
    WrongType {
        /// The requested type.
        wanted: &'static str,
        /// The type of the value.
        got: &'static str,
    },
    /// The integer does not fit the requested type.
    #[error("wanted {wanted} ({min} to {max}), got {got}")]
    OutOfRange {
        /// The requested type.
        wanted: &'static str,
        /// The smallest number of this type.
        min: i128,
        /// The largest number of this type.
        max: i128,
        /// The integer.
        got: i128,
    },
    /// The length of the binary value is not that of the array.
    #[error("wanted {wanted} bytes, got {got} bytes")]
    WrongLength {
        /// The length of the array, in bytes.
        wanted: usize,
        /// The length of the value, in bytes.
        got: usize,
    },
}

impl Value {
    /// Creates a binary value of these bytes as they are. To read an encoded value, use
    /// [`Message::decode`](prost::Message::decode).
    ///
    /// ```
    /// use kv::Value;
    /// use kv::prost::Message;
    ///
    /// let value = Value::binary(vec![0, 255]);
    /// assert_eq!(Vec::try_from(value.clone()), Ok(vec![0, 255]));
    ///
    /// let encoded = value.encode_to_vec();
    /// assert_eq!(Value::decode(&encoded[..])?, value);
    /// # Ok::<(), kv::prost::DecodeError>(())
    /// ```
    ///
    /// Neither of these compiles, because the bytes could be meant either way:
    ///
    /// ```compile_fail,E0277
    /// kv::Value::try_from([10, 1, 97].as_slice());
    /// ```
    ///
    /// ```compile_fail,E0277
    /// kv::Value::try_from(vec![10, 1, 97]);
    /// ```
    pub fn binary(bytes: impl Into<Bytes>) -> Self {
        bytes.into().into()
    }

    /// The name of the value's type: `string`, `binary`, `integer`, `float`, `bool`, or `unset`.
    pub fn type_name(&self) -> &'static str {
        match &self.value {
            None => "unset",
            Some(Kind::String(_)) => "string",
            Some(Kind::Binary(_)) => "binary",
            Some(Kind::Integer(_)) => "integer",
            Some(Kind::Float(_)) => "float",
            Some(Kind::Bool(_)) => "bool",
        }
    }

    /// Whether the value is set. An unset value cannot be stored.
    pub fn is_set(&self) -> bool {
        self.value.is_some()
    }

    /// The size that counts against limits, in bytes: the length of a string or binary, 8 for an
    /// integer or a float, 1 for a bool, 0 for an unset value.
    pub fn payload_len(&self) -> usize {
        match &self.value {
            Some(Kind::String(text)) => text.len(),
            Some(Kind::Binary(bytes)) => bytes.len(),
            Some(Kind::Integer(_) | Kind::Float(_)) => size_of::<u64>(),
            Some(Kind::Bool(_)) => 1,
            None => 0,
        }
    }

    fn mismatch(&self, wanted: &'static str) -> ValueError {
        ValueError::WrongType {
            wanted,
            got: self.type_name(),
        }
    }
}

/// Lets generic code use [`Value`] itself, whose conversion cannot fail, like any other type.
impl From<Infallible> for ValueError {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

impl From<Kind> for Value {
    fn from(kind: Kind) -> Self {
        Self { value: Some(kind) }
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Kind::String(text).into()
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Kind::String(text.to_owned()).into()
    }
}

impl From<Bytes> for Value {
    fn from(bytes: Bytes) -> Self {
        Kind::Binary(bytes).into()
    }
}

impl<const N: usize> From<&[u8; N]> for Value {
    fn from(bytes: &[u8; N]) -> Self {
        Bytes::copy_from_slice(bytes).into()
    }
}

impl From<i64> for Value {
    fn from(integer: i64) -> Self {
        Kind::Integer(integer).into()
    }
}

impl From<f64> for Value {
    fn from(float: f64) -> Self {
        Kind::Float(float).into()
    }
}

impl From<bool> for Value {
    fn from(bool: bool) -> Self {
        Kind::Bool(bool).into()
    }
}

impl TryFrom<Value> for String {
    type Error = ValueError;

    fn try_from(value: Value) -> Result<Self, ValueError> {
        match value.value {
            Some(Kind::String(text)) => Ok(text),
            _ => Err(value.mismatch("string")),
        }
    }
}

impl<'a> TryFrom<&'a Value> for &'a str {
    type Error = ValueError;

    fn try_from(value: &'a Value) -> Result<Self, ValueError> {
        match &value.value {
            Some(Kind::String(text)) => Ok(text),
            _ => Err(value.mismatch("string")),
        }
    }
}

impl TryFrom<Value> for Bytes {
    type Error = ValueError;

    fn try_from(value: Value) -> Result<Self, ValueError> {
        match value.value {
            Some(Kind::Binary(bytes)) => Ok(bytes),
            _ => Err(value.mismatch("binary")),
        }
    }
}

/// Returns the bytes of a binary value as they are. To encode a value, use
/// [`Message::encode_to_vec`](prost::Message::encode_to_vec).
impl TryFrom<Value> for Vec<u8> {
    type Error = ValueError;

    fn try_from(value: Value) -> Result<Self, ValueError> {
        Bytes::try_from(value).map(Self::from)
    }
}

impl<'a> TryFrom<&'a Value> for &'a [u8] {
    type Error = ValueError;

    fn try_from(value: &'a Value) -> Result<Self, ValueError> {
        match &value.value {
            Some(Kind::Binary(bytes)) => Ok(bytes),
            _ => Err(value.mismatch("binary")),
        }
    }
}

impl<'a, const N: usize> TryFrom<&'a Value> for &'a [u8; N] {
    type Error = ValueError;

    fn try_from(value: &'a Value) -> Result<Self, ValueError> {
        let bytes = <&[u8]>::try_from(value)?;
        bytes.try_into().map_err(|_| ValueError::WrongLength {
            wanted: N,
            got: bytes.len(),
        })
    }
}

impl<const N: usize> TryFrom<Value> for [u8; N] {
    type Error = ValueError;

    fn try_from(value: Value) -> Result<Self, ValueError> {
        <&[u8; N]>::try_from(&value).copied()
    }
}

impl TryFrom<&Value> for i64 {
    type Error = ValueError;

    fn try_from(value: &Value) -> Result<Self, ValueError> {
        match value.value {
            Some(Kind::Integer(integer)) => Ok(integer),
            _ => Err(value.mismatch("integer")),
        }
    }
}

impl TryFrom<&Value> for f64 {
    type Error = ValueError;

    fn try_from(value: &Value) -> Result<Self, ValueError> {
        match value.value {
            Some(Kind::Float(float)) => Ok(float),
            _ => Err(value.mismatch("float")),
        }
    }
}

impl TryFrom<&Value> for bool {
    type Error = ValueError;

    fn try_from(value: &Value) -> Result<Self, ValueError> {
        match value.value {
            Some(Kind::Bool(bool)) => Ok(bool),
            _ => Err(value.mismatch("bool")),
        }
    }
}

/// Conversions from an owned value, for types that are copied out of it.
macro_rules! by_value {
    ($($copied:ty),+) => {$(
        impl TryFrom<Value> for $copied {
            type Error = ValueError;

            fn try_from(value: Value) -> Result<Self, ValueError> {
                Self::try_from(&value)
            }
        }
    )+};
}
by_value!(
    i64, f64, bool, i8, i16, i32, u8, u16, u32, u64, isize, usize
);

/// Integer types that always fit an `i64`.
macro_rules! narrower_integers {
    ($($integer:ty),+) => {$(
        impl From<$integer> for Value {
            fn from(integer: $integer) -> Self {
                i64::from(integer).into()
            }
        }
    )+};
}
narrower_integers!(i8, i16, i32, u8, u16, u32);

/// Integer types that may not fit an `i64`.
macro_rules! wider_integers {
    ($($integer:ty),+) => {$(
        impl TryFrom<$integer> for Value {
            type Error = ValueError;

            fn try_from(integer: $integer) -> Result<Self, ValueError> {
                i64::try_from(integer).map(Self::from).map_err(|_| ValueError::OutOfRange {
                    wanted: "i64",
                    min: i64::MIN.into(),
                    max: i64::MAX.into(),
                    got: integer as i128,
                })
            }
        }
    )+};
}
wider_integers!(u64, isize, usize);

/// Integer types that an `i64` may not fit.
macro_rules! checked_integers {
    ($($integer:ty),+) => {$(
        impl TryFrom<&Value> for $integer {
            type Error = ValueError;

            fn try_from(value: &Value) -> Result<Self, ValueError> {
                let integer = i64::try_from(value)?;
                Self::try_from(integer).map_err(|_| ValueError::OutOfRange {
                    wanted: stringify!($integer),
                    min: <$integer>::MIN as i128,
                    max: <$integer>::MAX as i128,
                    got: integer.into(),
                })
            }
        }
    )+};
}
checked_integers!(i8, i16, i32, u8, u16, u32, u64, isize, usize);

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert_eq, proptest};

    use super::*;
    use crate::abi::Kvpair;

    proptest! {
        #[test]
        fn every_type_comes_back_as_it_went_in(
            text: String,
            bytes: Vec<u8>,
            array: [u8; 5],
            integer: i64,
            float in any::<f64>(),
            flag: bool,
        ) {
            let value = Value::from(text.as_str());
            prop_assert_eq!(<&str>::try_from(&value), Ok(text.as_str()));
            prop_assert_eq!(String::try_from(value), Ok(text.clone()));
            prop_assert_eq!(String::try_from(Value::from(text.clone())), Ok(text));
            let value = Value::binary(bytes.clone());
            prop_assert_eq!(<&[u8]>::try_from(&value), Ok(bytes.as_slice()));
            prop_assert_eq!(Vec::try_from(value), Ok(bytes.clone()));
            let shared = Bytes::from(bytes);
            prop_assert_eq!(Bytes::try_from(Value::from(shared.clone())), Ok(shared));
            prop_assert_eq!(<[u8; 5]>::try_from(Value::from(&array)), Ok(array));
            prop_assert_eq!(i64::try_from(Value::from(integer)), Ok(integer));
            let bits = f64::try_from(Value::from(float)).map(f64::to_bits);
            prop_assert_eq!(bits, Ok(float.to_bits()));
            prop_assert_eq!(bool::try_from(Value::from(flag)), Ok(flag));
        }

        #[test]
        fn an_integer_converts_if_and_only_if_it_fits(integer: i64, wide: u64) {
            let value = Value::from(integer);
            prop_assert_eq!(u8::try_from(&value).ok(), u8::try_from(integer).ok());
            prop_assert_eq!(i32::try_from(&value).ok(), i32::try_from(integer).ok());
            prop_assert_eq!(u64::try_from(&value).ok(), u64::try_from(integer).ok());
            prop_assert_eq!(Value::try_from(wide).ok(), i64::try_from(wide).ok().map(Value::from));
        }
    }

    #[test]
    fn values_are_ordered_by_type_then_by_content() {
        let ordered: [Value; 8] = [
            Value::default(),
            "a".into(),
            "b".into(),
            b"a".into(),
            (-1).into(),
            2.into(),
            f64::NEG_INFINITY.into(),
            false.into(),
        ];
        assert!(ordered.is_sorted_by(|a, b| a < b));
        let nan = || Value::from(f64::NAN);
        assert_eq!(nan().partial_cmp(&nan()), None);
        let mut pairs = [
            Kvpair::new("b", 1.into()),
            Kvpair::new("a", 2.into()),
            Kvpair::new("a", 1.into()),
        ];
        pairs.sort_by(|a, b| a.partial_cmp(b).unwrap());
        assert_eq!(
            pairs.each_ref().map(|pair| pair.key.as_str()),
            ["a", "a", "b"]
        );
        assert_eq!(pairs[0].value, Some(1.into()));
    }

    #[test]
    fn a_wrong_type_error_names_both_types() {
        let message = |error: ValueError| error.to_string();
        assert_eq!(
            message(i64::try_from(Value::from("5")).unwrap_err()),
            "wanted integer, got string"
        );
        assert_eq!(
            message(f64::try_from(Value::from(5)).unwrap_err()),
            "wanted float, got integer"
        );
        assert_eq!(
            message(bool::try_from(Value::default()).unwrap_err()),
            "wanted bool, got unset"
        );
        assert_eq!(
            message(String::try_from(Value::from(b"x")).unwrap_err()),
            "wanted string, got binary"
        );
        assert_eq!(
            message(Bytes::try_from(Value::from(true)).unwrap_err()),
            "wanted binary, got bool"
        );
        assert_eq!(
            message(<[u8; 4]>::try_from(Value::from(b"abc")).unwrap_err()),
            "wanted 4 bytes, got 3 bytes"
        );
    }

    #[test]
    fn an_out_of_range_error_names_the_number_and_the_range() {
        assert_eq!(u8::try_from(Value::from(255)), Ok(255));
        assert_eq!(
            u8::try_from(Value::from(256)).unwrap_err().to_string(),
            "wanted u8 (0 to 255), got 256"
        );
        assert_eq!(
            Value::try_from(1_u64 << 63).unwrap_err().to_string(),
            "wanted i64 (-9223372036854775808 to 9223372036854775807), got 9223372036854775808"
        );
    }
}
