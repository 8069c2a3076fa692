//! The signals that ask the server to stop, or to reload its certificates.
//!
//! They are caught before anything that can take long. So none is lost, and none has its default
//! effect; process 1 of a container would even ignore a signal that it does not catch. A second
//! signal to stop means "at once", but one that comes right after the first is the same request:
//! GNU timeout signals its child and then the child's process group, and a terminal and a
//! supervisor may both pass a signal on.

use std::io;
use std::time::Duration;

use futures::FutureExt;
use tokio::runtime::Runtime;
use tokio::{task, time};

/// Signals within this time of the first are the same request to stop.
const SAME_REQUEST: Duration = Duration::from_millis(100);

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    /// To stop. Holds the name of the signal.
    Stop(&'static str),
    /// To reload the TLS files. A closing terminal sends SIGHUP too, and must not stop a server.
    Reload,
}

/// The caught signals. SIGXFSZ is caught too, and ignored.
#[derive(Debug)]
pub(crate) struct Signals {
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    hangup: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    /// Catches the signals, on this runtime.
    pub(crate) fn catch(runtime: &Runtime) -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let _inside = runtime.enter();
        // Writing beyond the file-size limit (ulimit -f) would kill the process. With the signal
        // caught, the write fails, as it does on a full disk.
        let _ = signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()))?;
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// The next signal.
    pub(crate) async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.interrupt.recv() => Signal::Stop("SIGINT"),
            _ = self.terminate.recv() => Signal::Stop("SIGTERM"),
            _ = self.hangup.recv() => Signal::Reload,
        }
    }

    /// The next signal that asks to stop. A SIGHUP before it stays pending for
    /// [`next`](Self::next).
    pub(crate) async fn stop(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }
}

impl Signals {
    /// Waits for [`SAME_REQUEST`], and discards the signals to stop that came meanwhile.
    ///
    /// It compares no times. A process that gets no CPU for longer than that would otherwise take
    /// two signals that came together for two requests. This way it finds both when it goes on, and
    /// discards both.
    pub(crate) async fn forget_repeats(&mut self) {
        time::sleep(SAME_REQUEST).await;
        // Lets the runtime pick up signals that came before it saw the timer expire.
        task::yield_now().await;
        while self.stop().now_or_never().is_some() {}
    }
}

#[cfg(not(unix))]
impl Signals {
    /// Catches the signals, on this runtime.
    pub(crate) fn catch(_: &Runtime) -> io::Result<Self> {
        Ok(Self {})
    }

    /// The next signal.
    pub(crate) async fn next(&mut self) -> Signal {
        Signal::Stop(self.stop().await)
    }

    /// The next signal that asks to stop.
    pub(crate) async fn stop(&mut self) -> &'static str {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
        "Ctrl-C"
    }
}

#[cfg(all(test, unix))]
mod tests {
    use nix::sys::signal::{Signal as Raised, raise};

    use super::*;

    #[test]
    fn discards_signals_right_after_the_first_but_not_later_ones() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let mut signals = Signals::catch(&runtime).unwrap();
        runtime.block_on(async {
            for (first, name) in [(Raised::SIGTERM, "SIGTERM"), (Raised::SIGINT, "SIGINT")] {
                raise(first).unwrap();
                assert_eq!(signals.next().await, Signal::Stop(name));
                // `raise` signals this thread, and the handlers have run when it returns.
                raise(Raised::SIGTERM).unwrap();
                raise(Raised::SIGINT).unwrap();
                raise(Raised::SIGHUP).unwrap();
                signals.forget_repeats().await;
                assert_eq!(signals.stop().now_or_never(), None);
                // It was not a request to stop.
                assert_eq!(signals.next().await, Signal::Reload);
            }
            raise(Raised::SIGINT).unwrap();
            assert_eq!(signals.stop().await, "SIGINT");
        });
    }
}
