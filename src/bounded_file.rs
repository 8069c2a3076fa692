//! Reads whole files, such as settings and certificates, when a path may name anything: it reads no
//! more than a limit, and waits for a pipe no longer than someone may need to write to it.
//!
//! The library and both programs include this module.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// How long to wait for a pipe. Its writer may have to ask for a passphrase first.
const PIPE_TIMEOUT: Duration = Duration::from_secs(60);

/// Reads the whole file. Returns [`None`] if it is longer than `limit` bytes.
pub(crate) fn read(path: &Path, limit: u64) -> io::Result<Option<Vec<u8>>> {
    match is_pipe(path) {
        true => read_pipe(path, limit, PIPE_TIMEOUT),
        false => read_file(path, limit),
    }
}

/// [`read`] for a pipe: `<(COMMAND)` in a shell, or a named pipe that may never get a writer.
fn read_pipe(path: &Path, limit: u64, timeout: Duration) -> io::Result<Option<Vec<u8>>> {
    let (sender, received) = mpsc::sync_channel(1);
    let path = path.to_owned();
    // Nothing can interrupt a thread that waits for a pipe, so it may outlive this function.
    let thread = thread::Builder::new().name("pipe".to_owned());
    thread.spawn(move || drop(sender.send(read_file(&path, limit))))?;
    match received.recv_timeout(timeout) {
        Ok(Ok(Some(bytes))) if bytes.is_empty() => Err(io::Error::new(
            ErrorKind::UnexpectedEof,
            "it is an empty pipe; the contents of a pipe can be read only once",
        )),
        Ok(read) => read,
        Err(_) => Err(io::Error::new(
            ErrorKind::TimedOut,
            format!("it is a pipe that was not written and closed within {timeout:?}"),
        )),
    }
}

fn read_file(path: &Path, limit: u64) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    // One byte more than the limit, to detect a file that is too long.
    let read = File::open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
    Ok((read as u64 <= limit).then_some(bytes))
}

/// Whether reading this path may block until someone writes to it.
#[cfg(unix)]
pub(crate) fn is_pipe(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;

    // If the metadata cannot be read, opening the file reports why.
    std::fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_fifo())
}

/// The file system has no pipes here.
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
    fn a_pipe_without_a_writer_times_out() {
        let directory = tempfile::tempdir().unwrap();
        let path = pipe(directory.path());
        let error = read_pipe(&path, 10, Duration::from_millis(10)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        // Release the waiting reader: it sees this writer open and close the pipe.
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
