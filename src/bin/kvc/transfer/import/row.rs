//! A row of a file, or what is wrong with it.

use std::io;

use kv::abi::{Kvpair, Value};
use prost::Message;

use crate::input::base64;

/// The longest message about a row, in characters: it may quote the row.
const MAX_TOLD: usize = 400;

/// A row of a file.
#[derive(Debug)]
pub(super) struct Row {
    /// The line where it starts.
    pub(super) line: u64,
    /// The line after it.
    pub(super) next: u64,
    pub(super) table: String,
    pub(super) pair: Kvpair,
}

/// What is wrong with a row, or with the file.
#[derive(Debug)]
pub(super) struct Malformed {
    /// The line where the row starts.
    pub(super) line: u64,
    pub(super) what: String,
    /// Whether nothing after it can be read.
    pub(super) last: bool,
}

impl Malformed {
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

    /// Something after which nothing can be read.
    pub(super) fn last(line: u64, what: impl Into<String>) -> Self {
        Self {
            last: true,
            ..Self::new(line, what)
        }
    }

    pub(super) fn io(line: u64, error: &io::Error) -> Self {
        Self::last(line, format!("cannot be read: {error}"))
    }

    /// The file ends before the line where the import was to start.
    pub(super) fn ends_before(lines: u64, from_line: u64) -> Self {
        let what = format!("the file ends here, before line {from_line} of --from-line");
        Self::last(lines, what)
    }
}

/// The size of a pair in a message, or slightly more, in bytes.
pub(super) fn upper_len(pair: &Kvpair) -> usize {
    let value = pair.value.as_ref().map_or(0, Message::encoded_len);
    pair.key.len() + value + 24
}

/// Decodes base64.
pub(super) fn binary(text: &str) -> Result<Value, String> {
    let bytes = base64::decode(text);
    bytes
        .map(Value::binary)
        .map_err(|error| format!("malformed base64: {error}"))
}

pub(super) fn integer(text: &str) -> Result<i64, String> {
    text.parse()
        .map_err(|_| format!("{text:?} is not a 64-bit integer"))
}
