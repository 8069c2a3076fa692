//! The signals that ask the server to stop, or to read its certificates again.
//!
//! All are caught before anything that can take long, so that none is lost and none ends the process by itself: as
//! process 1 of a container it would not even be ended by one that it does not catch. Every one after the first is
//! caught too, so that the second can be told from it.

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

/// What is caught, from [`catch`](Self::catch) on. With them goes SIGXFSZ, of which nobody is told.
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
    /// Catches them on this runtime.
    pub(crate) fn catch(runtime: &Runtime) -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let _inside = runtime.enter();
        // A file that may not grow (ulimit -f) would end the process. Now the write fails, as on a full disk.
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

    /// The next one that asks to stop. A SIGHUP that comes before it waits for [`next`](Self::next).
    pub(crate) async fn stop(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }
}

#[cfg(not(unix))]
impl Signals {
    /// Catches them on this runtime.
    pub(crate) fn catch(_: &Runtime) -> io::Result<Self> {
        Ok(Self {})
    }

    /// The next signal.
    pub(crate) async fn next(&mut self) -> Signal {
        Signal::Stop(self.stop().await)
    }

    /// The next one that asks to stop.
    pub(crate) async fn stop(&mut self) -> &'static str {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
        "Ctrl-C"
    }
}
