//! Which standard streams were closed when the process started (`kvc export t >&-`), or open in the
//! wrong direction alone (`kvc export t 1</dev/null`).
//!
//! Before `main`, Rust's runtime opens `/dev/null` in place of a standard stream that is closed, so
//! that no file that is opened later gets its number. From then on a closed stream cannot be told
//! from one that somebody redirected to `/dev/null`: every write succeeds and every read is at the
//! end. So this looks before the runtime does, from a constructor of the program, which is what
//! `ctor` makes.
//!
//! Every write to a stream that is open for reading alone fails with `EBADF`, and so does every
//! read of one that is open for writing alone. Rust takes that for a closed stream, and reports
//! what is written as written and what is read as at its end. So such a stream counts as closed
//! here.

#[cfg(unix)]
mod start;

/// Whether standard input was closed, or not open for reading, when the process started. Known on
/// Unix; elsewhere it is never said to be.
pub fn stdin_was_closed() -> bool {
    #[cfg(unix)]
    return start::was_closed(start::STDIN);
    #[cfg(not(unix))]
    false
}

/// Whether standard output was closed, or not open for writing, when the process started. Known on
/// Unix; elsewhere it is never said to be.
pub fn stdout_was_closed() -> bool {
    #[cfg(unix)]
    return start::was_closed(start::STDOUT);
    #[cfg(not(unix))]
    false
}
