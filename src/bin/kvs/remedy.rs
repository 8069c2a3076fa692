//! Advice for errors of the operating system that need no more context than the error itself.

use std::io;

/// The process has too many files open.
pub(crate) const OPEN_FILES: &str =
    "raise the open-file limit (ulimit -n, or LimitNOFILE= in systemd)";

/// The user, or the systemd unit, has too many processes and threads.
pub(crate) const PROCESSES: &str = "raise the process limit (ulimit -u, or TasksMax= in systemd)";

/// A file would exceed the size limit.
pub(crate) const FILE_SIZE: &str =
    "raise the file-size limit (ulimit -f, or LimitFSIZE= in systemd)";

/// Advice that fits this error whatever operation failed.
pub(crate) fn for_error(error: &io::Error) -> Option<&'static str> {
    use io::ErrorKind::{FileTooLarge, OutOfMemory, QuotaExceeded, StorageFull};
    match error.kind() {
        FileTooLarge => Some(FILE_SIZE),
        StorageFull => Some("free space on its file system"),
        QuotaExceeded => Some("free space, or raise the quota"),
        OutOfMemory => Some("free memory"),
        _ => for_descriptors(error),
    }
}

/// The standard library has no `ErrorKind` for running out of descriptors.
#[cfg(unix)]
fn for_descriptors(error: &io::Error) -> Option<&'static str> {
    use rustix::io::Errno;
    match Errno::from_io_error(error)? {
        Errno::MFILE => Some(OPEN_FILES),
        Errno::NFILE => Some("too many files are open on this machine: raise fs.file-max"),
        _ => None,
    }
}

#[cfg(not(unix))]
fn for_descriptors(_: &io::Error) -> Option<&'static str> {
    None
}

/// Advice for a thread that could not be started.
pub(crate) fn for_thread(error: &io::Error) -> Option<&'static str> {
    match error.kind() {
        io::ErrorKind::WouldBlock => Some(PROCESSES),
        _ => for_error(error),
    }
}
