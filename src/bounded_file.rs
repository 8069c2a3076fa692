//! Files that are read as a whole, such as settings and certificates, when they may turn out to be
//! anything: no more is read of them than a limit, and a pipe is waited for no longer than somebody
//! may need to write to it.
//!
//! The library and both programs have this module: each reads such files.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// How long a pipe may take. Somebody may have to type a passphrase before what is written to it is
/// known.
const PIPE_TIMEOUT: Duration = Duration::from_secs(60);

/// All of a file, or nothing where it has more bytes than the limit.
pub(crate) fn read(path: &Path, limit: u64) -> io::Result<Option<Vec<u8>>> {
    match is_pipe(path) {
        true => read_pipe(path, limit, PIPE_TIMEOUT),
        false => read_file(path, limit),
    }
}

/// The same of a pipe, `<(COMMAND)` in a shell, or one in the file system that perhaps nobody ever
/// opens to write.
fn read_pipe(path: &Path, limit: u64, timeout: Duration) -> io::Result<Option<Vec<u8>>> {
    let (sender, received) = mpsc::sync_channel(1);
    let path = path.to_owned();
    // Nothing ends the wait of a thread for a pipe, so that it may go on after this function.
    let thread = thread::Builder::new().name("pipe".to_owned());
    thread.spawn(move || drop(sender.send(read_file(&path, limit))))?;
    match received.recv_timeout(timeout) {
        Ok(Ok(Some(bytes))) if bytes.is_empty() => Err(io::Error::new(
            ErrorKind::UnexpectedEof,
            "it is an empty pipe; what is in a pipe can be read only once",
        )),
        Ok(read) => read,
        Err(_) => Err(io::Error::new(
            ErrorKind::TimedOut,
            format!("it is a pipe, which nobody wrote and closed within {timeout:?}"),
        )),
    }
}

fn read_file(path: &Path, limit: u64) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    // One byte more, to tell a file that is too long from one that is not.
    let read = File::open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
    Ok((read as u64 <= limit).then_some(bytes))
}

/// Whether reading it may mean to wait for whoever writes to it.
#[cfg(unix)]
pub(crate) fn is_pipe(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;

    // Where this cannot be found out, opening it tells why.
    std::fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_fifo())
}

/// There are none in the file system.
#[cfg(not(unix))]
pub(crate) fn is_pipe(_: &Path) -> bool {
    false
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use std::fs;
    use std::process::Command;

    use super::*;

    fn pipe(directory: &Path) -> std::path::PathBuf {
        let path = directory.join("pipe");
        assert!(
            Command::new("mkfifo")
                .arg(&path)
                .status()
                .unwrap()
                .success()
        );
        path
    }

    #[test]
    fn a_file_is_read_up_to_the_limit() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        for (length, expected) in [(0, Some(0)), (9, Some(9)), (10, Some(10)), (11, None)] {
            fs::write(&path, vec![b'x'; length]).unwrap();
            let read = read(&path, 10).unwrap();
            assert_eq!(read.map(|bytes| bytes.len()), expected);
        }
        assert!(read(Path::new("/dev/zero"), 1000).unwrap().is_none());
        let error = read(directory.path(), 10).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::IsADirectory);
    }

    #[test]
    fn a_pipe_is_read_to_its_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = pipe(directory.path());
        thread::scope(|scope| {
            scope.spawn(|| fs::write(&path, "text").unwrap());
            assert_eq!(read(&path, 10).unwrap().unwrap(), b"text");
        });
    }

    #[test]
    fn a_pipe_that_nobody_writes_to_is_given_up() {
        let directory = tempfile::tempdir().unwrap();
        let path = pipe(directory.path());
        let error = read_pipe(&path, 10, Duration::from_millis(10)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        // The reader that waits for it sees this one open, and close, it.
        drop(fs::OpenOptions::new().write(true).open(&path).unwrap());
    }

    #[test]
    fn an_empty_pipe_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let path = pipe(directory.path());
        thread::scope(|scope| {
            scope.spawn(|| fs::write(&path, "").unwrap());
            let error = read(&path, 10).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
        });
    }
}
