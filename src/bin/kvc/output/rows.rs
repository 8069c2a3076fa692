//! Rows of cells: answers and messages in the formats csv and table.
//!
//! The type of a value has a cell of its own, so that the value's text needs no prefix that could
//! be mistaken for a part of it: 5 is an integer or a string according to the cell before it. `kvc
//! export` writes values as they are written here, and `kvc import` reads them back exactly.

use std::borrow::Cow;
use std::io::{self, Write};

use data_encoding::BASE64;
use kv::abi::{Value, value};
use unicode_width::UnicodeWidthStr;

use super::escape::printable;
use super::text::NONE;

/// The header for values.
pub(crate) const VALUE_HEADER: [&str; 2] = ["type", "value"];

/// The header for pairs.
pub(crate) const PAIR_HEADER: [&str; 3] = ["key", "type", "value"];

/// The header for messages, which have a row per value.
pub(crate) const MESSAGE_HEADER: [&str; 4] = ["message", "topic", "type", "value"];

/// The widest that a column of a table gets, in columns of the screen. A longer cell shifts the
/// rest of its own line.
const MAX_COLUMN: usize = 40;

/// The gap between two columns of a table.
const GAP: &str = "  ";

/// A row, with as many cells as its header.
pub(crate) type Row<'a, const N: usize> = [Cow<'a, str>; N];

/// The row of a value.
pub(crate) fn value_row(value: &Value) -> Row<'_, 2> {
    [type_of(value).into(), text_of(value)]
}

/// The row of a pair.
pub(crate) fn pair_row<'a>(key: &'a str, value: &'a Value) -> Row<'a, 3> {
    [key.into(), type_of(value).into(), text_of(value)]
}

/// The type of a value by its name in the protocol; empty for an unset value.
fn type_of(value: &Value) -> &'static str {
    match value.is_set() {
        true => value.type_name(),
        false => "",
    }
}

/// The text of a value. Together with the type it gives the value back.
fn text_of(value: &Value) -> Cow<'_, str> {
    match &value.value {
        Some(value::Value::String(text)) => text.into(),
        Some(value::Value::Binary(bytes)) => BASE64.encode(bytes).into(),
        Some(value::Value::Integer(integer)) => integer.to_string().into(),
        // JSON's names.
        Some(value::Value::Float(f64::INFINITY)) => "Infinity".into(),
        Some(value::Value::Float(f64::NEG_INFINITY)) => "-Infinity".into(),
        // Debug tells 1.0 from 1, and does not spell out 1e300.
        Some(value::Value::Float(float)) => format!("{float:?}").into(),
        Some(value::Value::Bool(bool)) => bool.to_string().into(),
        None => "".into(),
    }
}

/// Writes rows as RFC 4180 defines them, except that each ends with a line feed alone.
pub(crate) fn write_csv<'a, const N: usize>(
    writer: impl Write,
    rows: impl IntoIterator<Item = Row<'a, N>>,
) -> io::Result<()> {
    let mut csv = csv::Writer::from_writer(writer);
    for row in rows {
        let written = csv.write_record(row.iter().map(|cell| cell.as_bytes()));
        written.map_err(io_error)?;
    }
    csv.flush()
}

/// The I/O error within an error of the CSV writer, so that a closed pipe can be told from other
/// errors.
pub(crate) fn io_error(error: csv::Error) -> io::Error {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => error,
        other => io::Error::other(format!("{other:?}")),
    }
}

/// Writes rows for people, in aligned columns.
pub(crate) fn write_table<const N: usize>(
    writer: &mut impl Write,
    header: [&str; N],
    rows: &[Row<'_, N>],
) -> io::Result<()> {
    let mut widths = header.map(str::width);
    let shown: Vec<[String; N]> = rows
        .iter()
        .map(|row| row.each_ref().map(|cell| printable(cell)))
        .collect();
    for row in &shown {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = wider(*width, cell);
        }
    }
    write_line(writer, &header.map(str::to_uppercase), &widths)?;
    shown
        .iter()
        .try_for_each(|row| write_line(writer, row, &widths))
}

/// Marks an unset value in a table, where a person could not tell it from an empty one.
pub(crate) fn mark_unset<'a, const N: usize>(mut row: Row<'a, N>, value: &Value) -> Row<'a, N> {
    if let (false, [.., kind, text]) = (value.is_set(), row.as_mut_slice()) {
        *kind = "-".into();
        *text = NONE.into();
    }
    row
}

/// The width of a column after one more cell, up to the widest that a column gets.
pub(crate) fn wider(width: usize, cell: &str) -> usize {
    width.max(cell.width().min(MAX_COLUMN))
}

/// Writes the cells of a line, padded except for the last.
pub(crate) fn write_line(
    writer: &mut impl Write,
    cells: &[String],
    widths: &[usize],
) -> io::Result<()> {
    let mut blanks = 0;
    for (nth, (cell, width)) in cells.iter().zip(widths).enumerate() {
        if nth > 0 {
            write!(writer, "{:blanks$}{GAP}", "")?;
        }
        writer.write_all(cell.as_bytes())?;
        blanks = width.saturating_sub(cell.width());
    }
    writeln!(writer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values() -> Vec<Value> {
        vec![
            "a,\"b\"\nc".into(),
            "".into(),
            5.into(),
            1.0.into(),
            f64::INFINITY.into(),
            true.into(),
            (&[0, 255]).into(),
            Value::default(),
        ]
    }

    #[test]
    fn csv_has_a_type_column_and_quotes_where_needed() {
        let values = values();
        let mut out = Vec::new();
        write_csv(&mut out, values.iter().map(value_row)).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "string,\"a,\"\"b\"\"\nc\"\nstring,\ninteger,5\nfloat,1.0\nfloat,Infinity\nbool,true\n\
             binary,AP8=\n,\n"
        );
    }

    #[test]
    fn a_closed_pipe_is_told_from_other_errors() {
        struct Gone;
        impl Write for Gone {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let long = Value::from("x".repeat(100_000));
        for value in [long, Value::from(5)] {
            let error = write_csv(Gone, [value_row(&value)]).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        }
    }

    #[test]
    fn a_table_is_aligned_by_display_width() {
        let pairs = [
            ("a", Value::from(5)),
            ("日本", "\u{1b}[2J two\nlines".into()),
            ("e\u{301}", Value::default()),
        ];
        let rows: Vec<_> = pairs
            .iter()
            .map(|(key, value)| mark_unset(pair_row(key, value), value))
            .collect();
        let mut out = Vec::new();
        write_table(&mut out, PAIR_HEADER, &rows).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "KEY   TYPE     VALUE\n\
             a     integer  5\n\
             日本  string   \\u{1b}[2J two\\nlines\n\
             e\u{301}     -        (none)\n"
        );
    }

    #[test]
    fn a_long_key_shifts_its_own_line_only() {
        let long = "k".repeat(1000);
        let value = Value::from(5);
        let mut out = Vec::new();
        let rows = [pair_row("a", &value), pair_row(&long, &value)];
        write_table(&mut out, PAIR_HEADER, &rows).unwrap();
        let out = String::from_utf8(out).unwrap();
        let lines: Vec<_> = out.lines().collect();
        assert_eq!(lines[1], format!("a{:39}  integer  5", ""));
        assert_eq!(lines[2], format!("{long}  integer  5"));
    }
}
