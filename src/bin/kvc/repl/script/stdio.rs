//! Standard input in chunks, and standard output that is flushed late.

use std::io::{self, Read, Write};
use std::thread;

use tokio::sync::mpsc::{self, Receiver};

/// How many bytes are read at once.
const CHUNK: usize = 64 * 1024;

/// Reads in a thread of its own: standard input may be silent while answers come.
pub(super) fn read_stdin() -> Receiver<io::Result<Vec<u8>>> {
    let (chunks, received) = mpsc::channel(2);
    thread::spawn(move || {
        let mut stdin = io::stdin().lock();
        loop {
            let mut chunk = vec![0; CHUNK];
            let read = match stdin.read(&mut chunk) {
                Ok(0) => return,
                Ok(length) => {
                    chunk.truncate(length);
                    Ok(chunk)
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => Err(error),
            };
            let failed = read.is_err();
            if chunks.blocking_send(read).is_err() || failed {
                return;
            }
        }
    });
    received
}

/// Ignores flushes, so that many answers go out in one write.
pub(super) struct Unflushed<'w, W>(pub(super) &'w mut W);

impl<W: Write> Write for Unflushed<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
