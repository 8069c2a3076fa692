//! Standard input.
//!
//! If it was closed before the program started, Rust's runtime opens `/dev/null` in its place,
//! which reads as empty: a value that nobody gave would be stored. The same goes for a descriptor
//! that is open for writing only.

use std::io;

use crate::failure::Failure;

/// Standard input, unless it was closed or is not open for reading.
pub(crate) fn open() -> Result<io::Stdin, Failure> {
    match closed_streams::stdin_was_closed() {
        true => Err(unreadable(
            &"it is closed, or not open for reading; for an empty one, write < /dev/null",
        )),
        false => Ok(io::stdin()),
    }
}

/// Standard input cannot be read.
pub(crate) fn unreadable(reason: &dyn std::fmt::Display) -> Failure {
    Failure::Local(format!("cannot read standard input: {reason}"))
}
