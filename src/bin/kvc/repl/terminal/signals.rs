//! Signals in a session: SIGINT is Ctrl-C while a command runs. SIGTERM and SIGHUP end the session
//! and restore the terminal.

use crate::failure::Failure;

/// Waits for Ctrl-C. Earlier ones do not count.
pub(super) async fn interrupted() {
    if tokio::signal::ctrl_c().await.is_err() {
        // The signal does not exist here, so it never comes.
        std::future::pending().await
    }
}

#[cfg(unix)]
pub(super) use unix::Signals;

#[cfg(not(unix))]
pub(super) use elsewhere::Signals;

fn cannot(error: &std::io::Error) -> Failure {
    Failure::Local(format!("cannot listen for signals: {error}"))
}

#[cfg(unix)]
mod unix {
    use std::io::{self, Write};
    use std::process::exit;

    use rustix::termios::{Action, OptionalActions, Termios, tcflow, tcgetattr, tcsetattr};
    use tokio::signal::unix::{Signal, SignalKind, signal};

    use super::cannot;
    use crate::failure::Failure;

    /// Ends bracketed paste, which the editor asks the terminal for.
    const PLAIN_PASTE: &[u8] = b"\x1b[?2004l\r\n";

    pub(in crate::repl) struct Signals {
        terminate: Signal,
        hang_up: Signal,
        /// Keeps SIGINT from ending the program, whoever else handles it.
        _interrupt: Signal,
        found: Option<Termios>,
    }

    /// A signal that ends the program.
    pub(in crate::repl) struct Ending<'s> {
        number: i32,
        found: Option<&'s Termios>,
    }

    impl Signals {
        /// Has to be called before the editor changes the terminal.
        pub(in crate::repl) fn listen() -> Result<Self, Failure> {
            let listen = |kind| signal(kind).map_err(|error| cannot(&error));
            Ok(Self {
                terminate: listen(SignalKind::terminate())?,
                hang_up: listen(SignalKind::hangup())?,
                _interrupt: listen(SignalKind::interrupt())?,
                found: tcgetattr(io::stdin()).ok(),
            })
        }

        pub(in crate::repl) async fn end(&mut self) -> Ending<'_> {
            let number = tokio::select! {
                _ = self.terminate.recv() => SignalKind::terminate().as_raw_value(),
                _ = self.hang_up.recv() => SignalKind::hangup().as_raw_value(),
            };
            Ending {
                number,
                found: self.found.as_ref(),
            }
        }
    }

    impl Ending<'_> {
        /// Ends the program as the signal would have, with the exit code that a shell reports for
        /// it.
        pub(in crate::repl) fn end_program(&self) -> ! {
            if let Some(found) = self.found {
                // Ctrl-S may have stopped it, and it would accept nothing.
                let _ = tcflow(io::stdin(), Action::OOn);
                // The terminal may be gone.
                let _ = tcsetattr(io::stdin(), OptionalActions::Now, found);
                let _ = io::stdout().write_all(PLAIN_PASTE);
                let _ = io::stdout().flush();
            }
            exit(128 + self.number)
        }
    }
}

#[cfg(not(unix))]
mod elsewhere {
    use super::cannot;
    use crate::failure::Failure;

    pub(in crate::repl) struct Signals;

    impl Signals {
        pub(in crate::repl) fn listen() -> Result<Self, Failure> {
            Ok(Self)
        }

        pub(in crate::repl) async fn end(&mut self) -> Ending {
            std::future::pending().await
        }
    }

    pub(in crate::repl) enum Ending {}

    impl Ending {
        pub(in crate::repl) fn end_program(&self) -> ! {
            match *self {}
        }
    }
}
