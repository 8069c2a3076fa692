//! The rows of a file in either format, checked against the limits of the server.

use std::io;

use bytes::BytesMut;
use kv::abi::{CommandRequest, CommandResponse};
use kv::{CodecConfig, EncodeError, ProstCodec};
use tokio_util::codec::Encoder;

use super::csv_rows::CsvRows;
use super::json_rows::JsonRows;
use super::row::{Malformed, Row, upper_len};
use super::source::Source;
use crate::transfer::format::FileFormat;
use crate::transfer::limits::Limits;

/// The most bytes in a message beside its pairs and the name of its table.
const MAX_ENVELOPE: usize = 64;

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
    /// The rows from this line on. If a table is named, all of them go there. `codec` is the one
    /// that will send them.
    pub(super) fn new(
        mut source: Source,
        format: Option<FileFormat>,
        from_line: u64,
        table: Option<String>,
        limits: Limits,
        codec: CodecConfig,
    ) -> Result<Self, Malformed> {
        let read = |error: io::Error| Malformed::io(1, &error);
        if let Some(other) = source.other().map_err(read)? {
            return Err(Malformed::last(1, other));
        }
        let found = source.format().map_err(read)?;
        let rows = match format.unwrap_or(found) {
            FileFormat::Ndjson => Parsed::Json(JsonRows::new(source, from_line, table)?),
            FileFormat::Csv => Parsed::Csv(Box::new(CsvRows::new(source, from_line, table)?)),
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
    type Item = Result<Row, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        let row = match &mut self.rows {
            Parsed::Json(rows) => rows.next()?,
            Parsed::Csv(rows) => rows.next()?,
        };
        Some(row.and_then(|row| row.checked(&self.limits, self.codec)))
    }
}

impl Row {
    /// Checks that a server with these limits stores the row.
    fn checked(self, limits: &Limits, codec: CodecConfig) -> Result<Self, Malformed> {
        for (noun, name, limit) in [
            ("table name", &self.table, limits.table),
            ("key", &self.pair.key, limits.key),
        ] {
            let len = name.len();
            if len > limit {
                let what = format!("{noun} of {len} bytes exceeds the limit of {limit} bytes");
                return Err(Malformed::new(self.line, what));
            }
        }
        // Compression never makes a frame longer than its message.
        let most = self.table.len() + upper_len(&self.pair) + MAX_ENVELOPE;
        if most <= limits.message.min(limits.frame) {
            return Ok(self);
        }
        match self.encode(codec) {
            Ok(()) => Ok(self),
            Err(error) => Err(Malformed::new(
                self.line,
                format!("the row is too large: {error}"),
            )),
        }
    }

    /// Encodes the row as a batch of its own: there is no other way to know the length of its
    /// frame.
    fn encode(&self, codec: CodecConfig) -> Result<(), EncodeError> {
        let mut codec = ProstCodec::<CommandResponse, CommandRequest>::new(codec);
        let request = CommandRequest::new_hmset(&*self.table, [self.pair.clone()]);
        codec.encode(request, &mut BytesMut::new())
    }
}
