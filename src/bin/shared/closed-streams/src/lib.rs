//! Which standard streams were closed when the process started (`kvc export t >&-`), or open only
//! in the wrong direction (`kvc export t 1</dev/null`).
//!
//! Before `main`, Rust's runtime opens `/dev/null` in place of a closed standard stream, so that no
//! file opened later gets its number. From then on a closed stream cannot be told from one that was
//! redirected to `/dev/null`: every write succeeds, and every read is at the end. So this crate
//! checks before the runtime does, in a constructor of the program, which `ctor` provides.
//!
//! Every write to a stream that is open for reading only fails with `EBADF`, and so does every read
//! from one that is open for writing only. Rust takes that error for a closed stream, and reports
//! writes as successful and reads as at the end. So such a stream counts as closed here.

#[cfg(unix)]
mod start;

/// Whether standard input was closed, or not open for reading, when the process started. Always
/// false on systems other than Unix.
pub fn stdin_was_closed() -> bool {
    #[cfg(unix)]
    return start::was_closed(start::STDIN);
    #[cfg(not(unix))]
    false
}

/// Whether standard output was closed, or not open for writing, when the process started. Always
/// false on systems other than Unix.
pub fn stdout_was_closed() -> bool {
    #[cfg(unix)]
    return start::was_closed(start::STDOUT);
    #[cfg(not(unix))]
    false
}
