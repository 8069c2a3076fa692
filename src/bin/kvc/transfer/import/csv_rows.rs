//! Rows of CSV, with the header `table,key,type,value`.
//!
//! The columns may be in any order. `table` may be missing if --table names one for all rows, and
//! `type` if all values are strings.

use csv::ByteRecord;
use kv::abi::{Kvpair, Value};

use super::csv_records::Records;
use super::row::{Malformed, Row, binary, integer};
use super::source::Source;
use crate::input::number::float;
use crate::transfer::format::COLUMNS;

/// How much of a file shows whether it is text, in bytes.
const LOOKED_AT: usize = 1024;

/// The rows of a file with a header.
pub(super) struct CsvRows {
    records: Records,
    header: Header,
    table: Option<String>,
    over: bool,
}

/// The index of each column.
#[derive(Debug)]
struct Header {
    table: Option<usize>,
    key: usize,
    kind: Option<usize>,
    value: usize,
    /// The number of columns.
    width: usize,
}

impl CsvRows {
    pub(super) fn new(
        mut source: Source,
        from_line: u64,
        table: Option<String>,
    ) -> Result<Self, Malformed> {
        let beginning = source.beginning();
        if is_binary(beginning.map_err(|error| Malformed::io(1, &error))?) {
            let what = expected("this is neither NDJSON nor CSV", table.is_some());
            return Err(Malformed::last(1, what));
        }
        let mut records = Records::new(source);
        let header = match records.read() {
            Ok(true) => Header::parse(records.record(), table.is_some()),
            Ok(false) => Err("the file is empty".to_owned()),
            Err(malformed) if malformed.last => return Err(malformed),
            Err(malformed) => Err(malformed.what),
        };
        let header = header.map_err(|what| {
            let line = records.line().max(1);
            Malformed::last(line, expected(&what, table.is_some()))
        })?;
        records.skip_to(from_line)?;
        Ok(Self {
            records,
            header,
            table,
            over: false,
        })
    }

    fn parse(&self) -> Result<Row, Malformed> {
        let (header, record) = (&self.header, self.records.record());
        let line = self.records.line();
        let malformed = |what: String| Malformed::new(line, what);
        let width = record.len();
        if width != header.width {
            return Err(malformed(format!(
                "{width} columns, where the header has {}",
                header.width
            )));
        }
        let column = |place: usize, name: &str| {
            let bytes = record.get(place).unwrap_or_default();
            str::from_utf8(bytes).map_err(|_| malformed(format!("column {name}: it is not UTF-8")))
        };
        let table = match (&self.table, header.table) {
            (Some(table), _) => table.as_str(),
            (None, Some(place)) => column(place, "table")?,
            (None, None) => "",
        };
        let kind = header
            .kind
            .map_or(Ok("string"), |place| column(place, "type"))?;
        let text = column(header.value, "value")?;
        let value = value(kind, text).map_err(malformed)?;
        Ok(Row {
            line,
            next: self.records.next_line(),
            table: table.to_owned(),
            pair: Kvpair::new(column(header.key, "key")?, value),
        })
    }
}

impl Iterator for CsvRows {
    type Item = Result<Row, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.over {
            return None;
        }
        match self.records.read() {
            Ok(false) => None,
            Ok(true) => Some(self.parse()),
            Err(malformed) => {
                self.over = malformed.last;
                Some(Err(malformed))
            }
        }
    }
}

impl Header {
    fn parse(record: &ByteRecord, has_table: bool) -> Result<Self, String> {
        if let Some(separator) = other_separator(record) {
            return Err(format!(
                "the columns are separated by {separator}, not by commas"
            ));
        }
        let mut places = [None; COLUMNS.len()];
        for (place, name) in record.iter().enumerate() {
            let known = COLUMNS.iter().position(|known| known.as_bytes() == name);
            let Some(found) = known.and_then(|known| places.get_mut(known)) else {
                let name = String::from_utf8_lossy(name);
                return Err(format!("{name:?} is not one of the columns"));
            };
            if found.replace(place).is_some() {
                let name = String::from_utf8_lossy(name);
                return Err(format!("the column {name} occurs twice"));
            }
        }
        let [table, key, kind, value] = places;
        if table.is_none() && !has_table {
            let hint = "there is no column table; --table NAME names one for all rows";
            return Err(hint.to_owned());
        }
        let missing = |name: &str| format!("there is no column {name}");
        Ok(Self {
            table,
            key: key.ok_or_else(|| missing("key"))?,
            kind,
            value: value.ok_or_else(|| missing("value"))?,
            width: record.len(),
        })
    }
}

/// The message about a wrong header, which needs no column for the table if --table names one.
fn expected(what: &str, has_table: bool) -> String {
    let columns = COLUMNS.join(",");
    let fewer = match has_table {
        true => ", or key,value",
        false => "",
    };
    format!("{what}; the first line of CSV has to be {columns}{fewer}")
}

/// Whether a file that begins with these bytes has control characters instead of a header. Rows
/// after a header may have some in their fields.
fn is_binary(beginning: &[u8]) -> bool {
    let header = beginning.trim_ascii_start();
    let header = header.strip_prefix(b"\"").unwrap_or(header);
    let is_header = COLUMNS
        .iter()
        .any(|column| header.starts_with(column.as_bytes()));
    let shown = beginning.get(..LOOKED_AT).unwrap_or(beginning);
    let mut control = shown
        .iter()
        .filter(|byte| byte.is_ascii_control() && !byte.is_ascii_whitespace());
    !is_header && control.next().is_some()
}

/// The separator, if it is not a comma: spreadsheets in some countries write semicolons.
fn other_separator(record: &ByteRecord) -> Option<&'static str> {
    let header = record.get(0)?;
    [(b';', "semicolons"), (b'\t', "tabs")]
        .into_iter()
        .find(|(separator, _)| {
            let mut names = header.split(|byte| byte == separator);
            names.next().is_some_and(is_column) && names.next().is_some_and(is_column)
        })
        .map(|(_, name)| name)
}

fn is_column(name: &[u8]) -> bool {
    COLUMNS.iter().any(|column| column.as_bytes() == name)
}

fn value(kind: &str, text: &str) -> Result<Value, String> {
    let named = |what| format!("column value: {what}");
    Ok(match kind {
        "string" => text.into(),
        "binary" => binary(text).map_err(named)?,
        "integer" => integer(text).map_err(named)?.into(),
        "float" => float(text).map_err(named)?.into(),
        "bool" => match text {
            // Spreadsheets write these in capitals.
            "true" | "TRUE" => true.into(),
            "false" | "FALSE" => false.into(),
            _ => return Err(named(format!("{text:?} is neither true nor false"))),
        },
        _ => {
            return Err(format!(
                "column type: {kind:?} is not string, binary, integer, float or bool"
            ));
        }
    })
}
