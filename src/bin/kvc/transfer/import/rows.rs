//! The rows of a file, one after the other, or what is wrong with them.

use std::io;

use bytes::BytesMut;
use kv::abi::{CommandRequest, CommandResponse, Kvpair, Value};
use kv::{CodecConfig, EncodeError, ProstCodec};
use prost::Message;
use tokio_util::codec::Encoder;

use super::csv_rows::CsvRows;
use super::json_rows::JsonRows;
use super::source::Source;
use crate::input::base64;
use crate::transfer::Format;
use crate::transfer::limits::Limits;

/// The longest that what is wrong with a row is told: it may quote the row.
const MAX_TOLD: usize = 400;

/// How many bytes a message has at most beside its pairs and the name of its table.
const MAX_ENVELOPE: usize = 64;

/// A row of a file.
#[derive(Debug)]
pub(super) struct Row {
    /// The line that it begins in.
    pub(super) line: u64,
    /// The line that what follows begins in.
    pub(super) next: u64,
    pub(super) table: String,
    pub(super) pair: Kvpair,
}

/// What is wrong with a row, or with the file.
#[derive(Debug)]
pub(super) struct Trouble {
    /// The line that the row begins in.
    pub(super) line: u64,
    pub(super) what: String,
    /// Whether nothing can be read after it.
    pub(super) last: bool,
}

/// The rows of a file.
pub(super) struct Rows {
    rows: Parsed,
    limits: Limits,
    codec: CodecConfig,
}

enum Parsed {
    Json(JsonRows),
    Csv(Box<CsvRows>),
}

impl Rows {
    /// The rows from this line on; all of them go to the table, where one is named. They are to be
    /// sent by this codec.
    pub(super) fn new(
        mut source: Source,
        format: Option<Format>,
        from_line: u64,
        table: Option<String>,
        limits: Limits,
        codec: CodecConfig,
    ) -> Result<Self, Trouble> {
        let read = |error: io::Error| Trouble::io(1, &error);
        if let Some(other) = source.other().map_err(read)? {
            return Err(Trouble::last(1, other));
        }
        let found = source.format().map_err(read)?;
        let rows = match format.unwrap_or(found) {
            Format::Ndjson => Parsed::Json(JsonRows::new(source, from_line, table)?),
            Format::Csv => Parsed::Csv(Box::new(CsvRows::new(source, from_line, table)?)),
        };
        let codec = codec
            .with_max_message_len(limits.message)
            .with_max_frame_len(limits.frame);
        Ok(Self {
            rows,
            limits,
            codec,
        })
    }
}

impl Iterator for Rows {
    type Item = Result<Row, Trouble>;

    fn next(&mut self) -> Option<Self::Item> {
        let row = match &mut self.rows {
            Parsed::Json(rows) => rows.next()?,
            Parsed::Csv(rows) => rows.next()?,
        };
        Some(row.and_then(|row| row.checked(&self.limits, self.codec)))
    }
}

impl Row {
    /// Whether a server with these limits stores it.
    fn checked(self, limits: &Limits, codec: CodecConfig) -> Result<Self, Trouble> {
        for (noun, name, limit) in [
            ("table name", &self.table, limits.table),
            ("key", &self.pair.key, limits.key),
        ] {
            let len = name.len();
            if len > limit {
                let what = format!("{noun} of {len} bytes exceeds the limit of {limit} bytes");
                return Err(Trouble::new(self.line, what));
            }
        }
        // Compression never makes a frame longer than its message.
        let most = self.table.len() + counted_len(&self.pair) + MAX_ENVELOPE;
        if most <= limits.message.min(limits.frame) {
            return Ok(self);
        }
        match self.encode(codec) {
            Ok(()) => Ok(self),
            Err(error) => Err(Trouble::new(
                self.line,
                format!("the row is too large: {error}"),
            )),
        }
    }

    /// Encodes the row as a batch of its own: nothing else tells how long its frame is.
    fn encode(&self, codec: CodecConfig) -> Result<(), EncodeError> {
        let mut codec = ProstCodec::<CommandResponse, CommandRequest>::new(codec);
        let request = CommandRequest::new_hmset(&*self.table, [self.pair.clone()]);
        codec.encode(request, &mut BytesMut::new())
    }
}

impl Trouble {
    pub(super) fn new(line: u64, what: impl Into<String>) -> Self {
        let mut what = what.into();
        if let Some((end, _)) = what.char_indices().nth(MAX_TOLD) {
            what.truncate(end);
            what.push_str(" ..");
        }
        Self {
            line,
            what,
            last: false,
        }
    }

    /// After which nothing can be read.
    pub(super) fn last(line: u64, what: impl Into<String>) -> Self {
        Self {
            last: true,
            ..Self::new(line, what)
        }
    }

    pub(super) fn io(line: u64, error: &io::Error) -> Self {
        Self::last(line, format!("cannot be read: {error}"))
    }

    /// That the file ends before the line that was to be the first.
    pub(super) fn too_short(lines: u64, from_line: u64) -> Self {
        let what = format!("the file ends here, before line {from_line} that --from-line names");
        Self::last(lines, what)
    }
}

/// How many bytes a pair has in a message, or a few more.
pub(super) fn counted_len(pair: &Kvpair) -> usize {
    let value = pair.value.as_ref().map_or(0, Message::encoded_len);
    pair.key.len() + value + 24
}

/// Bytes in base64.
pub(super) fn binary(text: &str) -> Result<Value, String> {
    let bytes = base64::decode(text);
    bytes
        .map(Value::binary)
        .map_err(|error| format!("malformed base64: {error}"))
}

pub(super) fn integer(text: &str) -> Result<i64, String> {
    text.parse()
        .map_err(|_| format!("{text:?} is no integer of 64 bits"))
}
