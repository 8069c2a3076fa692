//! What to do about an error of the operating system, where the error alone tells.

use std::io;

/// More files than the process may have open.
pub(crate) const OPEN_FILES: &str =
    "raise the limit of open files (ulimit -n, or LimitNOFILE= of systemd)";

/// More processes and threads than the user, or the unit of systemd, may have.
pub(crate) const PROCESSES: &str =
    "raise the limit of processes (ulimit -u, or TasksMax= of systemd)";

/// A file that would become longer than files may be.
pub(crate) const FILE_SIZE: &str =
    "raise the limit of the length of files (ulimit -f, or LimitFSIZE= of systemd)";

/// What helps whatever it was that failed with this.
pub(crate) fn of(error: &io::Error) -> Option<&'static str> {
    use io::ErrorKind::{FileTooLarge, OutOfMemory, QuotaExceeded, StorageFull};
    match error.kind() {
        FileTooLarge => Some(FILE_SIZE),
        StorageFull => Some("free space on its file system"),
        QuotaExceeded => Some("free space, or raise the quota"),
        OutOfMemory => Some("free memory"),
        _ => of_descriptors(error),
    }
}

/// The standard library has no kind for a lack of descriptors.
#[cfg(unix)]
fn of_descriptors(error: &io::Error) -> Option<&'static str> {
    use rustix::io::Errno;
    match Errno::from_io_error(error)? {
        Errno::MFILE => Some(OPEN_FILES),
        Errno::NFILE => Some("all programs together have too many files open: raise fs.file-max"),
        _ => None,
    }
}

#[cfg(not(unix))]
fn of_descriptors(_: &io::Error) -> Option<&'static str> {
    None
}

/// What helps where a thread could not be started.
pub(crate) fn of_thread(error: &io::Error) -> Option<&'static str> {
    match error.kind() {
        io::ErrorKind::WouldBlock => Some(PROCESSES),
        _ => of(error),
    }
}
