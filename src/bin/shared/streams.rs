//! Standard output of both programs. What is lost of it is an error, also where it was closed
//! before the program started: Rust's runtime opens `/dev/null` in its place, which takes
//! everything. The same goes for one that is open for reading alone, of which Rust ignores errors.

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

/// Prints to standard output. A reader that has gone away (`kvc man | head -1`) has what it wanted.
pub(crate) fn print(bytes: &[u8]) -> io::Result<()> {
    print_with(|stdout| stdout.write_all(bytes))
}

/// [`print()`], by a function that writes it.
pub(crate) fn print_with(write: impl FnOnce(&mut io::Stdout) -> io::Result<()>) -> io::Result<()> {
    let mut stdout = stdout()?;
    match write(&mut stdout).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        printed => printed,
    }
}
