//! A value as text for people, or as its bytes alone.

use std::borrow::Cow;
use std::io::{self, Write};

use data_encoding::BASE64;
use kv::abi::{Value, value};

use super::escape::for_terminal;

/// The text for a key that does not exist.
pub(crate) const NONE: &str = "(none)";

/// Writes the bytes of a value. For a terminal, control characters and invalid UTF-8 are escaped.
pub(crate) fn write_raw(writer: &mut impl Write, value: &Value, terminal: bool) -> io::Result<()> {
    match &value.value {
        Some(value::Value::String(text)) => {
            writer.write_all(for_terminal(terminal, text).as_bytes())
        }
        Some(value::Value::Binary(bytes)) if terminal => {
            for chunk in bytes.utf8_chunks() {
                writer.write_all(for_terminal(terminal, chunk.valid()).as_bytes())?;
                write!(writer, "{}", chunk.invalid().escape_ascii())?;
            }
            Ok(())
        }
        Some(value::Value::Binary(bytes)) => writer.write_all(bytes),
        Some(value::Value::Integer(_) | value::Value::Float(_) | value::Value::Bool(_)) => {
            write_text(writer, value, Cow::from)
        }
        None => Ok(()),
    }
}

/// Writes a value for people. `shown` may escape a string.
pub(crate) fn write_text<'v>(
    writer: &mut impl Write,
    value: &'v Value,
    shown: impl Fn(&'v str) -> Cow<'v, str>,
) -> io::Result<()> {
    match &value.value {
        Some(value::Value::String(text)) => writer.write_all(shown(text).as_bytes()),
        Some(value::Value::Binary(bytes)) => write!(writer, "b64:{}", BASE64.encode_display(bytes)),
        Some(value::Value::Integer(integer)) => write!(writer, "{integer}"),
        // Debug tells 1.0 from 1, and does not spell out 1e300.
        Some(value::Value::Float(float)) => write!(writer, "{float:?}"),
        Some(value::Value::Bool(bool)) => write!(writer, "{bool}"),
        None => writer.write_all(NONE.as_bytes()),
    }
}
