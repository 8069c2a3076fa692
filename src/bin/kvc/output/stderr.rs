//! Notes on standard error.

use std::io::{self, Write};

/// Prints a note on standard error. If that cannot be written to, there is nobody to read it.
pub(crate) fn say(line: &str) {
    let _ = writeln!(io::stderr(), "kvc: {line}");
}
