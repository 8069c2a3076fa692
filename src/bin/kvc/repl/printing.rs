//! Answers at a terminal, which may be long, and of which somebody may have seen enough.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use kv::abi::CommandResponse;
use tokio::task::spawn_blocking;

use super::signals::interrupted;
use crate::answer;
use crate::args::Command;
use crate::failure::Failure;
use crate::output::{Format, Output};

/// Prints an answer, unless Ctrl-C comes before its end.
pub(super) async fn print(
    command: Command,
    response: CommandResponse,
    format: Format,
) -> Option<Result<(), Failure>> {
    let cancelled = Arc::new(AtomicBool::new(false));
    let stdout = Cancellable {
        stdout: io::stdout(),
        cancelled: Arc::clone(&cancelled),
    };
    let mut printing = spawn_blocking(move || {
        let printed = answer::print(&command, response, Output::new(stdout, format, true));
        if format == Format::Raw && printed.is_ok() {
            // The prompt begins a line.
            let _ = writeln!(io::stdout());
        }
        printed
    });
    let unprinted = |error| Failure::unprinted(&io::Error::other(error));
    tokio::select! {
        printed = &mut printing => Some(printed.map_err(unprinted).and_then(|printed| printed)),
        () = interrupted() => {
            cancelled.store(true, Ordering::Relaxed);
            // What is on its way out comes before the next prompt.
            let _ = printing.await;
            None
        }
    }
}

/// Standard output, until nobody wants to see more.
struct Cancellable {
    stdout: io::Stdout,
    cancelled: Arc<AtomicBool>,
}

impl Write for Cancellable {
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
