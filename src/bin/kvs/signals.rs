//! The signals that ask the server to stop, or to read its certificates again.
//!
//! All are caught before anything that can take long, so that none is lost and none ends the process by itself: as
//! process 1 of a container it would not even be ended by one that it does not catch. Every one after the first is
//! caught too, so that the second can be told from it. Those that come right after it are no second one: GNU timeout
//! signals its child and then the group that the child is in, and a terminal and a supervisor may both pass one on.

use std::io;
use std::time::Duration;

use futures::FutureExt;
use tokio::runtime::Runtime;
use tokio::{task, time};

/// How long after a signal to stop further ones are the same request.
const SAME_REQUEST: Duration = Duration::from_millis(100);

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

impl Signals {
    /// Lets the time pass in which further signals are still the request to stop that has just come, and forgets them.
    ///
    /// No times are compared: a process that gets no CPU for longer than that would take two signals for two requests
    /// that came at once. It finds both when it goes on, and forgets all that it finds.
    pub(crate) async fn forget_repeats(&mut self) {
        time::sleep(SAME_REQUEST).await;
        // So that the runtime takes up the signals that came before the timer was seen to have expired.
        task::yield_now().await;
        while self.stop().now_or_never().is_some() {}
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

#[cfg(all(test, unix))]
mod tests {
    use nix::sys::signal::{Signal as Raised, raise};

    use super::*;

    #[test]
    fn signals_right_after_the_first_are_forgotten_and_later_ones_are_not() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let mut signals = Signals::catch(&runtime).unwrap();
        runtime.block_on(async {
            for (first, name) in [(Raised::SIGTERM, "SIGTERM"), (Raised::SIGINT, "SIGINT")] {
                raise(first).unwrap();
                assert_eq!(signals.next().await, Signal::Stop(name));
                // To this thread, which has them before this returns.
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
