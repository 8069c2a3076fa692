//! A row of a file, or what is wrong with it.

use std::io;

use kv::abi::{Kvpair, Value};
use prost::Message;

use crate::input::base64;

/// The longest that what is wrong with a row is told: it may quote the row.
const MAX_TOLD: usize = 400;

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
