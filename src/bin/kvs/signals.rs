//! The signals that ask the server to stop, or to read its certificates again.
//!
//! Those that stop it are caught before the server listens, so that one that comes in between is not lost, and
//! not while the storage is opened, which they can cut short; every one after the first is caught too, so that the
//! second can be told from it. What is to stop nothing is caught before the storage is opened, which can take long.

use std::io;

use tokio::runtime::Runtime;

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    /// To stop, by the signal of this name.
    Stop(&'static str),
    /// To read again what can be. A terminal that is closed sends it too, which is not to stop a server.
    Reload,
}

/// SIGHUP, caught from [`catch`](Self::catch) on, and with it SIGXFSZ, of which nobody is told.
#[derive(Debug)]
pub(crate) struct Hangup {
    #[cfg(unix)]
    signal: tokio::signal::unix::Signal,
}

/// The others are caught from [`new`](Self::new) on: until then each ends the process, as it does by default.
#[derive(Debug)]
pub(crate) struct Signals {
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg_attr(not(unix), expect(dead_code, reason = "there is none"))]
    hangup: Hangup,
}

impl Hangup {
    /// Takes place on this runtime.
    #[cfg(unix)]
    pub(crate) fn catch(runtime: &Runtime) -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let _inside = runtime.enter();
        // A file that may not grow (ulimit -f) would end the process. Now the write fails, as on a full disk.
        let _ = signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()))?;
        Ok(Self {
            signal: signal(SignalKind::hangup())?,
        })
    }

    #[cfg(not(unix))]
    pub(crate) fn catch(_: &Runtime) -> io::Result<Self> {
        Ok(Self {})
    }
}

#[cfg(unix)]
impl Signals {
    pub(crate) fn new(hangup: Hangup) -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup,
        })
    }

    /// The next signal.
    pub(crate) async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.interrupt.recv() => Signal::Stop("SIGINT"),
            _ = self.terminate.recv() => Signal::Stop("SIGTERM"),
            _ = self.hangup.signal.recv() => Signal::Reload,
        }
    }
}

#[cfg(not(unix))]
impl Signals {
    pub(crate) fn new(hangup: Hangup) -> io::Result<Self> {
        Ok(Self { hangup })
    }

    /// The next signal.
    pub(crate) async fn next(&mut self) -> Signal {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
        Signal::Stop("Ctrl-C")
    }
}
