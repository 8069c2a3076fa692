//! Rows of CSV, under the header `table,key,type,value`.
//!
//! The columns may stand in any order. One that is not needed may be missing: `table` where all rows go to a table that
//! is named, and `type` where all values are strings.

use csv::{ByteRecord, Reader, ReaderBuilder};
use kv::abi::{Kvpair, Value};

use super::bytes::{Line, Rest, Source, too_long};
use super::rows::{Row, Trouble, base64, float, integer};

/// The columns that an export has.
pub(super) const COLUMNS: [&str; 4] = ["table", "key", "type", "value"];

/// The rows of a file with a header.
pub(super) struct CsvRows {
    reader: Reader<Rest>,
    /// How many lines were read before what the reader has.
    offset: u64,
    header: Header,
    table: Option<String>,
    record: ByteRecord,
    /// Whether lines end with two characters, of which the reader takes the second for the next row's.
    crlf: bool,
    over: bool,
}

/// In which place each column is.
#[derive(Debug)]
struct Header {
    table: Option<usize>,
    key: usize,
    kind: Option<usize>,
    value: usize,
    /// How many columns there are.
    width: usize,
}

impl CsvRows {
    pub(super) fn new(
        mut source: Source,
        from_line: u64,
        table: Option<String>,
    ) -> Result<Self, Trouble> {
        let mut line = Vec::new();
        let found = source.line(&mut line);
        let header = match found.map_err(|error| Trouble::io(1, &error))? {
            Line::Whole => Header::parse(&line, table.is_some()),
            Line::TooLong => Err(too_long()),
            Line::End => Err(expected("the file is empty")),
        };
        let header = header.map_err(|what| Trouble::last(1, what))?;
        match source.skip_to(from_line) {
            Ok(true) => {}
            Ok(false) => return Err(Trouble::too_short(source.lines(), from_line)),
            Err(error) => return Err(Trouble::io(source.lines() + 1, &error)),
        }
        Ok(Self {
            offset: source.lines(),
            crlf: line.ends_with(b"\r\n"),
            reader: ReaderBuilder::new()
                .has_headers(false)
                .flexible(true)
                .from_reader(source.into_rest()),
            header,
            table,
            record: ByteRecord::new(),
            over: false,
        })
    }

    /// The line that the next row begins in.
    fn line(&self) -> u64 {
        let position = self.reader.position();
        let second_half = self.crlf && position.record() > 0;
        self.offset + position.line() + u64::from(second_half)
    }

    fn parse(&self, line: u64) -> Result<Row, Trouble> {
        let header = &self.header;
        let malformed = |what: String| Trouble::new(line, what);
        let width = self.record.len();
        if width != header.width {
            return Err(malformed(format!(
                "{width} columns, where the header has {}",
                header.width
            )));
        }
        let column = |place: usize, name: &str| {
            let bytes = self.record.get(place).unwrap_or_default();
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
            next: self.line(),
            table: table.to_owned(),
            pair: Kvpair::new(column(header.key, "key")?, value),
        })
    }
}

impl Iterator for CsvRows {
    type Item = Result<Row, Trouble>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.over {
            return None;
        }
        self.reader.get_mut().renew();
        let line = self.line();
        match self.reader.read_byte_record(&mut self.record) {
            Ok(false) => None,
            // It is the last, and may have taken in all that follows.
            Ok(true) if self.reader.get_ref().ended_in_quotes() => {
                self.over = true;
                Some(Err(Trouble::last(line, "a quotation mark has no end")))
            }
            Ok(true) => Some(self.parse(line)),
            Err(error) => {
                self.over = true;
                Some(Err(Trouble::last(line, error.to_string())))
            }
        }
    }
}

impl Header {
    fn parse(line: &[u8], has_table: bool) -> Result<Self, String> {
        let mut record = ByteRecord::new();
        let mut reader = ReaderBuilder::new().has_headers(false).from_reader(line);
        let read = reader.read_byte_record(&mut record);
        read.map_err(|error| expected(&error.to_string()))?;
        let mut places = [None; COLUMNS.len()];
        for (place, name) in record.iter().enumerate() {
            let known = COLUMNS.iter().position(|known| known.as_bytes() == name);
            let Some(found) = known.and_then(|known| places.get_mut(known)) else {
                let name = String::from_utf8_lossy(name);
                return Err(expected(&format!("{name:?} is none of the columns")));
            };
            if found.replace(place).is_some() {
                let name = String::from_utf8_lossy(name);
                return Err(expected(&format!("the column {name} comes twice")));
            }
        }
        let [table, key, kind, value] = places;
        if table.is_none() && !has_table {
            let hint = "there is no column table; --table NAME names one for all rows";
            return Err(expected(hint));
        }
        let missing = |name: &str| expected(&format!("there is no column {name}"));
        Ok(Self {
            table,
            key: key.ok_or_else(|| missing("key"))?,
            kind,
            value: value.ok_or_else(|| missing("value"))?,
            width: record.len(),
        })
    }
}

/// What is wrong with a header.
fn expected(what: &str) -> String {
    format!(
        "{what}; the first line of CSV has to be {}",
        COLUMNS.join(",")
    )
}

fn value(kind: &str, text: &str) -> Result<Value, String> {
    let named = |what| format!("column value: {what}");
    Ok(match kind {
        "string" => text.into(),
        "binary" => base64(text).map_err(named)?,
        "integer" => integer(text).map_err(named)?.into(),
        "float" => float(text).map_err(named)?.into(),
        "bool" => match text {
            "true" => true.into(),
            "false" => false.into(),
            _ => return Err(named(format!("{text:?} is neither true nor false"))),
        },
        _ => {
            return Err(format!(
                "column type: {kind:?} is none of string, binary, integer, float, bool"
            ));
        }
    })
}
