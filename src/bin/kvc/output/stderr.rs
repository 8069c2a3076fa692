//! Messages on standard error.

use std::io::{self, Write};

/// Says something on standard error. Where that cannot be written to, there is nobody who wants to know.
pub(crate) fn say(line: &str) {
    let _ = writeln!(io::stderr(), "kvc: {line}");
}
