//! The lines of a file or of standard input, with their numbers and the bytes read so far. No more
//! than one row is held in memory.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::mem;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::encoding::{self, BYTE_ORDER_MARK};
use crate::failure::Failure;
use crate::input::stdin;
use crate::transfer::format::FileFormat;

/// The longest row in a file, in bytes. A message has 16 MiB at most, and JSON may need six bytes
/// for one.
const MAX_ROW_LEN: u64 = 97 * 1024 * 1024;

const BUFFER: usize = 256 * 1024;

/// How some files start that cannot be imported, and what to do with them.
const OTHERS: [(&[u8], &str); 3] = [
    (
        b"\x1f\x8b",
        "this is gzip; write gunzip -c FILE | kvc import -",
    ),
    (
        b"\x28\xb5\x2f\xfd",
        "this is zstd; write zstdcat FILE | kvc import -",
    ),
    (
        b"PK\x03\x04",
        "this is a ZIP file, or a workbook; save it as CSV",
    ),
];

/// What to do with a file that is one JSON array.
pub(super) const ARRAY: &str =
    "this is a JSON array; write an object per line, as jq -c '.[]' does";

/// The file to import.
pub(super) struct Source {
    /// Its name in messages.
    pub(super) name: String,
    /// Its size in bytes, if known.
    pub(super) len: Option<u64>,
    /// How many bytes were consumed, without those in the reader's buffer.
    pub(super) read: Arc<AtomicU64>,
    reader: BufReader<Box<dyn Read + Send>>,
    /// How many lines were read.
    lines: u64,
    /// Whether the rest of the last line has yet to be skipped.
    cut: bool,
}

/// The result of reading a line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    Whole,
    /// The row has more bytes than allowed.
    TooLong,
    /// There are no more lines.
    End,
}

impl Source {
    /// Opens a file, or standard input for `-`.
    pub(super) fn open(file: &str) -> Result<Self, Failure> {
        let (name, len, inner): (_, _, Box<dyn Read + Send>) = if file == "-" {
            ("standard input", None, Box::new(stdin::open()?))
        } else {
            let failed = |error| Failure::Local(format!("cannot read {file}: {error}"));
            let opened = File::open(file).map_err(failed)?;
            let metadata = opened.metadata().map_err(failed)?;
            let len = metadata.is_file().then_some(metadata.len());
            (file, len, Box::new(opened))
        };
        Ok(Self::over(name, len, inner))
    }

    fn over(name: &str, len: Option<u64>, inner: Box<dyn Read + Send>) -> Self {
        Self {
            name: name.to_owned(),
            len,
            read: Arc::default(),
            reader: BufReader::with_capacity(BUFFER, inner),
            lines: 0,
            cut: false,
        }
    }

    /// A file in memory, for tests.
    #[cfg(test)]
    pub(super) fn of(bytes: Vec<u8>) -> Self {
        Self::over("test", None, Box::new(io::Cursor::new(bytes)))
    }

    /// What the file is and what to do, if its first bytes show that it cannot be imported.
    pub(super) fn other(&mut self) -> io::Result<Option<&'static str>> {
        let begin = self.reader.fill_buf()?;
        if encoding::is_utf16(begin) {
            return Ok(Some(encoding::UTF16));
        }
        let known = OTHERS.iter().find(|(mark, _)| begin.starts_with(mark));
        Ok(known.map(|(_, what)| *what))
    }

    /// The first bytes of the file, at most [`BUFFER`].
    pub(super) fn beginning(&mut self) -> io::Result<&[u8]> {
        self.reader.fill_buf()
    }

    /// Whether the file starts as one array of objects, and not with a line that happens to be an
    /// array.
    pub(super) fn is_array(&mut self) -> io::Result<bool> {
        let begin = self.reader.fill_buf()?;
        let begin = begin.strip_prefix(BYTE_ORDER_MARK).unwrap_or(begin);
        Ok(match begin.trim_ascii_start() {
            [b'[', next, ..] => matches!(next, b'{' | b']') || next.is_ascii_whitespace(),
            begin => begin == b"[",
        })
    }

    /// The format, from the name of the file or else from its first byte.
    pub(super) fn format(&mut self) -> io::Result<FileFormat> {
        let mark = self.reader.fill_buf()?.starts_with(BYTE_ORDER_MARK);
        if mark {
            self.reader.consume(BYTE_ORDER_MARK.len());
            self.read.fetch_add(BYTE_ORDER_MARK.len() as u64, Relaxed);
        }
        let extension = Path::new(&self.name).extension();
        match extension.and_then(|extension| extension.to_str()) {
            Some("csv") => return Ok(FileFormat::Csv),
            Some("ndjson" | "jsonl" | "json") => return Ok(FileFormat::Ndjson),
            _ => {}
        }
        let first = self.reader.fill_buf()?.trim_ascii_start().first();
        Ok(match first {
            Some(b'{' | b'[') | None => FileFormat::Ndjson,
            Some(_) => FileFormat::Csv,
        })
    }

    /// How many lines were read so far.
    pub(super) fn lines(&self) -> u64 {
        self.lines
    }

    /// Reads a line into `line`, with its line ending.
    pub(super) fn line(&mut self, line: &mut Vec<u8>) -> io::Result<Line> {
        line.clear();
        self.line_onto(line)
    }

    /// Reads a line, with its line ending, and appends it to the row read so far.
    pub(super) fn line_onto(&mut self, row: &mut Vec<u8>) -> io::Result<Line> {
        if mem::take(&mut self.cut) {
            self.skip_line()?;
        }
        let left = MAX_ROW_LEN.saturating_sub(row.len() as u64);
        if left == 0 {
            return Ok(self.too_long(row));
        }
        let mut rest = (&mut self.reader).take(left);
        let read = rest.read_until(b'\n', row)?;
        if read == 0 {
            return Ok(Line::End);
        }
        self.read.fetch_add(read as u64, Relaxed);
        self.lines += 1;
        if read as u64 == left && !row.ends_with(b"\n") {
            return Ok(self.too_long(row));
        }
        Ok(Line::Whole)
    }

    /// Frees the memory of the row.
    fn too_long(&mut self, row: &mut Vec<u8>) -> Line {
        *row = Vec::new();
        self.cut = true;
        Line::TooLong
    }

    /// Skips the lines before this one. Returns whether the file has so many.
    pub(super) fn skip_to(&mut self, line: u64) -> io::Result<bool> {
        while self.lines + 1 < line {
            if self.skip_line()? == 0 {
                return Ok(false);
            }
            self.lines += 1;
        }
        Ok(true)
    }

    /// Skips the rest of a line, and returns its length in bytes.
    fn skip_line(&mut self) -> io::Result<usize> {
        let passed = self.reader.skip_until(b'\n')?;
        self.read.fetch_add(passed as u64, Relaxed);
        Ok(passed)
    }
}

/// The message about a row that is too long.
pub(super) fn too_long() -> String {
    format!("the row has more than {MAX_ROW_LEN} bytes, more than a message can carry")
}
