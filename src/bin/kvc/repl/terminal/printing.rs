//! Printing of answers on a terminal. They may be long, and Ctrl-C ends them.
//!
//! No part of them is kept in a buffer that outlives the command: it would appear before the answer
//! to the next one.

#[cfg(unix)]
use std::fs::File;
use std::io::{self, Write};
#[cfg(unix)]
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::task::spawn_blocking;

use super::signals::interrupted;
use crate::commands::answer::Answer;
use crate::failure::Failure;
use crate::output::{Format, Output};

/// Prints an answer, unless Ctrl-C comes first.
pub(super) async fn print(answer: Answer, format: Format) -> Option<Result<(), Failure>> {
    let cancelled = Arc::new(AtomicBool::new(false));
    let stdout = match unbuffered() {
        Ok(stdout) => Cancellable {
            stdout,
            cancelled: Arc::clone(&cancelled),
        },
        Err(error) => return Some(Err(Failure::stdout(&error))),
    };
    let mut printing = spawn_blocking(move || {
        let printed = answer.print(Output::new(stdout, format, true));
        if format == Format::Raw && printed.is_ok() {
            // The prompt starts on a new line.
            let _ = say("\n");
        }
        printed
    });
    let unprinted = |error| Failure::stdout(&io::Error::other(error));
    tokio::select! {
        printed = &mut printing => Some(printed.map_err(unprinted).and_then(|printed| printed)),
        () = interrupted() => {
            cancelled.store(true, Ordering::Relaxed);
            // What is being written comes before the next prompt.
            let _ = printing.await;
            None
        }
    }
}

/// Prints a short text, either as a whole or not at all.
pub(super) fn say(text: &str) -> io::Result<()> {
    unbuffered()?.write_all(text.as_bytes())
}

/// Standard output without the standard library's buffer, which keeps the start of a line until the
/// rest is printed.
#[cfg(unix)]
fn unbuffered() -> io::Result<File> {
    Ok(io::stdout().as_fd().try_clone_to_owned()?.into())
}

/// A console takes bytes in no other way, so the buffer is flushed after each write.
#[cfg(not(unix))]
fn unbuffered() -> io::Result<Flushed> {
    Ok(Flushed(io::stdout()))
}

#[cfg(not(unix))]
struct Flushed(io::Stdout);

#[cfg(not(unix))]
impl Write for Flushed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.0.write(bytes)?;
        self.0.flush()?;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Standard output until the output is cancelled.
struct Cancellable<W> {
    stdout: W,
    cancelled: Arc<AtomicBool>,
}

impl<W: Write> Write for Cancellable<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.cancelled.load(Ordering::Relaxed) {
            return Err(io::Error::other("cancelled"));
        }
        self.stdout.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stdout.flush()
    }
}
