//! Standard output of both programs. Losing output is an error, even if standard output was closed
//! before the program started: Rust's runtime opens `/dev/null` in its place, which accepts
//! everything. The same goes for a descriptor that is open for reading only, whose errors Rust
//! ignores.

use std::io::{self, Write};

/// Standard output, unless it was closed or is not open for writing.
pub(crate) fn stdout() -> io::Result<io::Stdout> {
    match closed_streams::stdout_was_closed() {
        true => Err(io::Error::other(
            "it is closed, or not open for writing; to discard it, write > /dev/null",
        )),
        false => Ok(io::stdout()),
    }
}

/// Prints to standard output. A reader that has gone away (`kvc man | head -1`) is not an error.
pub(crate) fn print(bytes: &[u8]) -> io::Result<()> {
    print_with(|stdout| stdout.write_all(bytes))
}

/// [`print()`], with a function that writes.
pub(crate) fn print_with(write: impl FnOnce(&mut io::Stdout) -> io::Result<()>) -> io::Result<()> {
    let mut stdout = stdout()?;
    match write(&mut stdout).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        printed => printed,
    }
}
