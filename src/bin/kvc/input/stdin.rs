//! Standard input. Where it was closed before the program started, Rust's runtime opens `/dev/null`
//! in its place, and it would read as empty: a value would be stored that nobody gave. So would one
//! that is open for writing alone.

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

/// That it cannot be read.
pub(crate) fn unreadable(reason: &dyn std::fmt::Display) -> Failure {
    Failure::Local(format!("cannot read standard input: {reason}"))
}
