//! Rows of JSON, one a line: `{"table":"t","key":"k","value":{"integer":"5"}}`.
//!
//! What is read is what protobuf's mapping to JSON allows a reader: numbers that stand there as numbers or as strings,
//! base64 of either alphabet. What is not known is an error, because it is likely a mistake.

use std::fmt;

use kv::abi::{Kvpair, Value};
use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};

use super::bytes::{Line, Source, too_long};
use super::rows::{Row, Trouble, base64, integer};
use crate::rows::float;

/// The rows of a file with an object a line.
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
    ) -> Result<Self, Trouble> {
        match source.skip_to(from_line) {
            Ok(true) => Ok(Self {
                source,
                table,
                line: Vec::new(),
            }),
            Ok(false) => Err(Trouble::too_short(source.lines(), from_line)),
            Err(error) => Err(Trouble::io(source.lines() + 1, &error)),
        }
    }

    fn parse(&self) -> Result<Row, Trouble> {
        let line = self.source.lines();
        let object = serde_json::from_slice::<Object>(self.line.trim_ascii_end());
        let object = object.map_err(|error| Trouble::new(line, told(&error)))?;
        let table = match (&self.table, object.table) {
            (Some(table), _) => table.clone(),
            (None, Some(table)) => table,
            (None, None) => {
                return Err(Trouble::new(
                    line,
                    "missing field `table`; --table NAME gives one for all rows",
                ));
            }
        };
        let value = object.value.into_value();
        let value = value.map_err(|what| Trouble::new(line, what))?;
        Ok(Row {
            line,
            next: line + 1,
            table,
            pair: Kvpair::new(object.key, value),
        })
    }
}

impl Iterator for JsonRows {
    type Item = Result<Row, Trouble>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.source.line(&mut self.line) {
                Ok(Line::End) => return None,
                Ok(Line::TooLong) => {
                    return Some(Err(Trouble::new(self.source.lines(), too_long())));
                }
                Ok(Line::Whole) if self.line.trim_ascii().is_empty() => {}
                Ok(Line::Whole) => return Some(self.parse()),
                Err(error) => return Some(Err(Trouble::io(self.source.lines() + 1, &error))),
            }
        }
    }
}

/// What is wrong with a line, and where in it. That it is the first line of what was parsed says nothing.
fn told(error: &serde_json::Error) -> String {
    let what = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    match what.strip_suffix(&place) {
        Some(what) if error.column() > 0 => format!("column {}: {what}", error.column()),
        _ => what,
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object with table, key and value")]
struct Object {
    table: Option<String>,
    key: String,
    value: Typed,
}

/// A value under the name of its type.
#[derive(Deserialize)]
#[serde(
    deny_unknown_fields,
    expecting = r#"an object with a type, such as {"string":"text"}"#
)]
struct Typed {
    string: Option<String>,
    binary: Option<String>,
    integer: Option<Integer>,
    float: Option<Float>,
    bool: Option<bool>,
}

impl Typed {
    fn into_value(self) -> Result<Value, String> {
        let binary = self.binary.map(|text| base64(&text)).transpose()?;
        let values = [
            self.string.map(Value::from),
            binary,
            self.integer.map(|Integer(integer)| integer.into()),
            self.float.map(|Float(float)| float.into()),
            self.bool.map(Value::from),
        ];
        let mut values = values.into_iter().flatten();
        match (values.next(), values.next()) {
            (Some(value), None) => Ok(value),
            (None, _) => {
                Err("the value has no type, one of string, binary, integer, float, bool".to_owned())
            }
            (Some(_), Some(_)) => Err("the value has several types".to_owned()),
        }
    }
}

struct Integer(i64);

struct Float(f64);

impl<'de> Deserialize<'de> for Integer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Integers;
        impl Visitor<'_> for Integers {
            type Value = Integer;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an integer of 64 bits, as a string or as a number")
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
