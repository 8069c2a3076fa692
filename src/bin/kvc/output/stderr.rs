//! Notes on standard error.

use std::io::{self, Write};

use super::escape::printable;

/// Prints a note on standard error, on one line and without hidden characters: it may name what
/// others have chosen. If it cannot be written, there is nobody to read it.
pub(crate) fn say(line: &str) {
    let _ = writeln!(io::stderr(), "kvc: {}", printable(line));
}
