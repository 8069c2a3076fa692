//! Rows of JSON, one per line: `{"table":"t","key":"k","value":{"integer":"5"}}`.
//!
//! Everything that protobuf's mapping to JSON lets a reader accept is accepted: numbers as numbers
//! or as strings, base64 in either alphabet. An unknown field is an error, because it is probably a
//! mistake.

use std::fmt;
use std::marker::PhantomData;

use kv::abi::{Kvpair, Value};
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserializer, MapAccess, Visitor};

use super::row::{Malformed, Row, binary, integer};
use super::source::{Line, Source, too_long};
use crate::input::number::float;

/// The rows of a file with an object per line.
pub(super) struct JsonRows {
    source: Source,
    table: Option<String>,
    line: Vec<u8>,
}

impl JsonRows {
    pub(super) fn new(
        mut source: Source,
        from_line: u64,
        table: Option<String>,
    ) -> Result<Self, Malformed> {
        match source.skip_to(from_line) {
            Ok(true) => Ok(Self {
                source,
                table,
                line: Vec::new(),
            }),
            Ok(false) => Err(Malformed::ends_before(source.lines(), from_line)),
            Err(error) => Err(Malformed::io(source.lines() + 1, &error)),
        }
    }

    fn parse(&self) -> Result<Row, Malformed> {
        let line = self.source.lines();
        // Without the line ending, an error about a missing part refers to this line.
        let end = self.line.iter().rposition(|byte| !is_blank(byte));
        let row = self.line.get(..=end.unwrap_or(0)).unwrap_or_default();
        let object = serde_json::from_slice(row);
        let InObject::<Object>(object) =
            object.map_err(|error| Malformed::new(line, describe(&error)))?;
        let table = match (&self.table, object.table) {
            (Some(table), _) => table.clone(),
            (None, Some(table)) => table,
            (None, None) => {
                return Err(Malformed::new(
                    line,
                    "missing field `table`; --table NAME gives one for all rows",
                ));
            }
        };
        let InObject(Typed(value)) = object.value;
        Ok(Row {
            line,
            next: line + 1,
            table,
            pair: Kvpair::new(object.key, value),
        })
    }
}

impl Iterator for JsonRows {
    type Item = Result<Row, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.source.line(&mut self.line) {
                Ok(Line::End) => return None,
                Ok(Line::TooLong) => {
                    return Some(Err(Malformed::new(self.source.lines(), too_long())));
                }
                Ok(Line::Whole) if self.line.iter().all(is_blank) => {}
                Ok(Line::Whole) => return Some(self.parse()),
                Err(error) => return Some(Err(Malformed::io(self.source.lines() + 1, &error))),
            }
        }
    }
}

/// Whether it is white space in JSON.
fn is_blank(byte: &u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

/// What is wrong with a line, and at which column. The line number that serde_json adds is always
/// 1.
fn describe(error: &serde_json::Error) -> String {
    let what = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    match what.strip_suffix(&place) {
        Some(what) => format!("column {}: {what}", error.column().max(1)),
        None => what,
    }
}

/// Something read from an object, and from nothing else: serde's derived code for a struct also
/// accepts an array with the fields in order.
struct InObject<T>(T);

/// A type that is read from an object.
trait Fields<'de>: Deserialize<'de> {
    /// What to expect, in the error about anything but an object.
    const EXPECTED: &'static str;
}

impl<'de, T: Fields<'de>> Deserialize<'de> for InObject<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Objects<T>(PhantomData<T>);
        impl<'de, T: Fields<'de>> Visitor<'de> for Objects<T> {
            type Value = T;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(T::EXPECTED)
            }

            fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<T, A::Error> {
                T::deserialize(MapAccessDeserializer::new(fields))
            }
        }
        deserializer
            .deserialize_map(Objects(PhantomData))
            .map(InObject)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Object {
    table: Option<String>,
    key: String,
    value: InObject<Typed>,
}

impl Fields<'_> for Object {
    const EXPECTED: &'static str = "an object with table, key and value";
}

/// A value, under the name of its type.
#[derive(Deserialize)]
#[serde(try_from = "Types")]
struct Typed(Value);

impl Fields<'_> for Typed {
    const EXPECTED: &'static str = r#"an object with a type, such as {"string":"text"}"#;
}

/// The possible types of a value, exactly one of which is present.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Types {
    string: Option<String>,
    binary: Option<Binary>,
    integer: Option<Integer>,
    float: Option<Float>,
    bool: Option<bool>,
}

impl TryFrom<Types> for Typed {
    type Error = &'static str;

    fn try_from(types: Types) -> Result<Self, &'static str> {
        let values = [
            types.string.map(Value::from),
            types.binary.map(|Binary(value)| value),
            types.integer.map(|Integer(integer)| integer.into()),
            types.float.map(|Float(float)| float.into()),
            types.bool.map(Value::from),
        ];
        let mut values = values.into_iter().flatten();
        match (values.next(), values.next()) {
            (Some(value), None) => Ok(Self(value)),
            (None, _) => Err("the value needs a type: string, binary, integer, float or bool"),
            (Some(_), Some(_)) => Err("the value has several types"),
        }
    }
}

struct Binary(Value);

struct Integer(i64);

struct Float(f64);

impl<'de> Deserialize<'de> for Binary {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Texts;
        impl Visitor<'_> for Texts {
            type Value = Binary;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes in base64")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Binary, E> {
                binary(text).map(Binary).map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Texts)
    }
}

impl<'de> Deserialize<'de> for Integer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Integers;
        impl Visitor<'_> for Integers {
            type Value = Integer;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a 64-bit integer, as a string or as a number without . and e")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Integer, E> {
                integer(text).map(Integer).map_err(E::custom)
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Integer, E> {
                Ok(Integer(number))
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Integer, E> {
                integer(&number.to_string()).map(Integer).map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Integers)
    }
}

impl<'de> Deserialize<'de> for Float {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Floats;
        impl Visitor<'_> for Floats {
            type Value = Float;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number, or \"NaN\", \"Infinity\" or \"-Infinity\"")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Float, E> {
                float(text).map(Float).map_err(E::custom)
            }

            fn visit_f64<E: de::Error>(self, number: f64) -> Result<Float, E> {
                Ok(Float(number))
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Float, E> {
                Ok(Float(number as f64))
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Float, E> {
                Ok(Float(number as f64))
            }
        }
        deserializer.deserialize_any(Floats)
    }
}
