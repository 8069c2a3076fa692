//! The records of a CSV file: which lines belong to each, and its fields.
//!
//! A library parses the fields, and accepts anything: if two rows lack a quotation mark each, it
//! takes them for one. So each line is first checked against RFC 4180: a quotation mark stands at
//! the start and the end of a field, and doubled within it. The check also finds the end of each
//! record, and so the line where the next one starts, whatever the line endings and however many
//! lines are blank.

use std::io::{self, Read};

use csv::{ByteRecord, Reader, ReaderBuilder};

use super::row::Malformed;
use super::source::{Line, Source, too_long};

/// The records of a file.
pub(super) struct Records {
    source: Source,
    /// The lines of the current record.
    lines: Vec<u8>,
    parser: Reader<Lines>,
    record: ByteRecord,
    /// The line where the record starts.
    line: u64,
}

/// The input of the parser: the lines of one record.
#[derive(Default)]
struct Lines {
    bytes: Vec<u8>,
    /// How many of the bytes were read; `0 <= read <= bytes.len()`.
    read: usize,
}

/// The position of a byte in its record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before the first byte of a field.
    Begin,
    /// Within a field without quotation marks.
    Plain,
    /// Within quotation marks.
    Quoted,
    /// After a quotation mark within quotation marks: it ends the field, or is the first of two.
    Mark,
}

/// The state of the check after some lines of a record.
#[derive(Debug)]
struct Scan {
    place: State,
    /// The number of the field, from 1.
    field: usize,
}

impl Records {
    pub(super) fn new(source: Source) -> Self {
        let mut builder = ReaderBuilder::new();
        builder.has_headers(false).flexible(true);
        Self {
            source,
            lines: Vec::new(),
            parser: builder.from_reader(Lines::default()),
            record: ByteRecord::new(),
            line: 0,
        }
    }

    /// The line where the record starts.
    pub(super) fn line(&self) -> u64 {
        self.line
    }

    /// The line after the record.
    pub(super) fn next_line(&self) -> u64 {
        self.source.lines() + 1
    }

    /// The record that was read.
    pub(super) fn record(&self) -> &ByteRecord {
        &self.record
    }

    /// Skips the lines before this one.
    pub(super) fn skip_to(&mut self, line: u64) -> Result<(), Malformed> {
        match self.source.skip_to(line) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Malformed::ends_before(self.source.lines(), line)),
            Err(error) => Err(Malformed::io(self.next_line(), &error)),
        }
    }

    /// Reads the next record, if there is one.
    pub(super) fn read(&mut self) -> Result<bool, Malformed> {
        if !self.read_lines()? {
            return Ok(false);
        }
        std::mem::swap(&mut self.lines, &mut self.parser.get_mut().bytes);
        self.parser.get_mut().read = 0;
        let read = self.parser.read_byte_record(&mut self.record);
        read.map_err(|error| Malformed::last(self.line, error.to_string()))
    }

    /// Reads the lines of a record.
    fn read_lines(&mut self) -> Result<bool, Malformed> {
        self.lines.clear();
        let mut scan = Scan {
            place: State::Begin,
            field: 1,
        };
        loop {
            let begin = self.lines.len();
            let line = self.next_line();
            if begin == 0 {
                self.line = line;
            }
            match self.source.line_onto(&mut self.lines) {
                Ok(Line::Whole) => {}
                Ok(Line::TooLong) => return Err(Malformed::last(self.line, too_long())),
                Ok(Line::End) if begin == 0 => return Ok(false),
                Ok(Line::End) => {
                    // It may have swallowed all the rows after it.
                    return Err(Malformed::last(
                        self.line,
                        "a quotation mark is never closed",
                    ));
                }
                Err(error) => return Err(Malformed::io(line, &error)),
            }
            let content = without_end(self.lines.get(begin..).unwrap_or_default());
            let len = content.len();
            if begin == 0 && len == 0 {
                self.lines.clear();
                continue;
            }
            if let Err(what) = scan.line(content) {
                let place = match line == self.line {
                    true => String::new(),
                    false => format!("in line {line}, "),
                };
                return Err(Malformed::new(self.line, format!("{place}{what}")));
            }
            if scan.place != State::Quoted {
                self.lines.truncate(begin.saturating_add(len));
                self.lines.push(b'\n');
                return Ok(true);
            }
        }
    }
}

impl Read for Lines {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut rest = self.bytes.get(self.read..).unwrap_or_default();
        let read = rest.read(buffer)?;
        self.read = self.read.saturating_add(read);
        Ok(read)
    }
}

impl Scan {
    /// Checks a line, without its line ending. The error says what is wrong with it.
    fn line(&mut self, content: &[u8]) -> Result<(), String> {
        for byte in content {
            self.place = match (self.place, byte) {
                (State::Quoted, b'"') => State::Mark,
                (State::Quoted, _) | (State::Begin | State::Mark, b'"') => State::Quoted,
                (_, b',') => {
                    self.field += 1;
                    State::Begin
                }
                (_, b'\r') => {
                    return Err(self.describe("quote a carriage return that does not end the line"));
                }
                (State::Plain, b'"') => {
                    return Err(self.describe(
                        "a quotation mark in an unquoted field; \
                         quote the field, and write each mark in it twice",
                    ));
                }
                (State::Mark, _) => {
                    return Err(self.describe(
                        "text behind the quotation mark that ends the field; \
                         write each mark in it twice",
                    ));
                }
                (State::Begin | State::Plain, _) => State::Plain,
            };
        }
        Ok(())
    }

    fn describe(&self, what: &str) -> String {
        format!("field {}: {what}", self.field)
    }
}

/// A line without its line ending, which the last line may lack.
fn without_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every record with the line where it starts, or what is wrong with it.
    fn read(text: &str) -> Vec<(u64, Result<Vec<String>, String>)> {
        let mut records = Records::new(Source::of(text.as_bytes().to_vec()));
        let mut found = Vec::new();
        loop {
            let text = |field: &[u8]| String::from_utf8(field.to_vec()).unwrap();
            let record = match records.read() {
                Ok(false) => return found,
                Ok(true) => Ok(records.record().iter().map(text).collect()),
                Err(malformed) => Err(malformed.what),
            };
            assert!(found.len() < 100, "{found:?}");
            found.push((records.line(), record));
        }
    }

    fn fields(fields: &[&str]) -> Result<Vec<String>, String> {
        Ok(fields.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn finds_records_and_their_lines_with_any_line_ending() {
        assert_eq!(
            read("a,b\r\n\n\r\nc,\"d\r\ne\n\"\n\"\"\"\",\"\"\"\"\"\"\r\ng"),
            [
                (1, fields(&["a", "b"])),
                (4, fields(&["c", "d\r\ne\n"])),
                (7, fields(&["\"", "\"\""])),
                (8, fields(&["g"])),
            ]
        );
        assert_eq!(read(""), []);
        assert_eq!(read("\n\r\n"), []);
        assert_eq!(read("\"a\"\r"), [(1, fields(&["a"]))]);
        let long = format!("\"{}\n\",b\n", "x".repeat(100_000));
        let record = fields(&[&format!("{}\n", "x".repeat(100_000)), "b"]);
        assert_eq!(
            read(&(long.clone() + &long)),
            [(1, record.clone()), (3, record)]
        );
    }

    #[test]
    fn a_misplaced_quotation_mark_spoils_its_own_record_only() {
        let within = "field 2: a quotation mark in an unquoted field; \
                      quote the field, and write each mark in it twice";
        let behind =
            "text behind the quotation mark that ends the field; write each mark in it twice";
        let after = "field 1: quote a carriage return that does not end the line";
        assert_eq!(
            read("a,5\" disk\nb, \"x\"\nc\n\"d\"e\n\"f\",\"\"g\na\rb\nz"),
            [
                (1, Err(within.to_owned())),
                (2, Err(within.to_owned())),
                (3, fields(&["c"])),
                (4, Err(format!("field 1: {behind}"))),
                (5, Err(format!("field 2: {behind}"))),
                (6, Err(after.to_owned())),
                (7, fields(&["z"])),
            ]
        );
        assert_eq!(
            read("a,\"b\nc,d\"e\nf\n"),
            [
                (1, Err(format!("in line 2, field 2: {behind}"))),
                (3, fields(&["f"])),
            ]
        );
    }

    #[test]
    fn an_unclosed_quotation_is_reported_at_the_start_of_its_row() {
        let what = "a quotation mark is never closed".to_owned();
        assert_eq!(
            read("a\n\nb,\"c\nd\n"),
            [(1, fields(&["a"])), (3, Err(what))]
        );
    }
}
