//! The clocks of a load: when the next request is due, and how much time threads have used.
//!
//! tokio's timers have a resolution of one millisecond, which would dominate the latency of an open
//! loop against a server that takes a tenth of that. On Linux the kernel's timer wakes within some
//! hundredths of a millisecond.

use std::io;
use std::time::Duration;
#[cfg(target_os = "linux")]
use std::{future::poll_fn, pin::Pin};

#[cfg(target_os = "linux")]
use tokio::io::{AsyncRead, ReadBuf};

/// A timer for short waits.
#[derive(Debug)]
pub(crate) struct Timer {
    /// tokio treats every descriptor that becomes readable alike.
    #[cfg(target_os = "linux")]
    descriptor: tokio::net::unix::pipe::Receiver,
}

#[cfg(target_os = "linux")]
impl Timer {
    pub(crate) fn new() -> io::Result<Self> {
        use rustix::time::{TimerfdClockId, TimerfdFlags, timerfd_create};
        use tokio::net::unix::pipe::Receiver;

        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let descriptor = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        Ok(Self {
            descriptor: Receiver::from_owned_fd_unchecked(descriptor)?,
        })
    }

    pub(crate) async fn sleep(&mut self, time: Duration) -> io::Result<()> {
        use rustix::time::{Itimerspec, TimerfdTimerFlags, Timespec, timerfd_settime};

        let once = Itimerspec {
            it_interval: Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            },
            it_value: Timespec {
                tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
                // All zeros would disarm the timer.
                tv_nsec: time.subsec_nanos().max(1).into(),
            },
        };
        timerfd_settime(&self.descriptor, TimerfdTimerFlags::empty(), &once)?;
        // The timer yields a number of 8 bytes. The buffer is larger, so that tokio knows that
        // nothing is left.
        let mut buffer = [0; 16];
        let mut buffer = ReadBuf::new(&mut buffer);
        poll_fn(|context| Pin::new(&mut self.descriptor).poll_read(context, &mut buffer)).await
    }
}

#[cfg(not(target_os = "linux"))]
impl Timer {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {})
    }

    pub(crate) async fn sleep(&mut self, time: Duration) -> io::Result<()> {
        tokio::time::sleep(time).await;
        Ok(())
    }
}

/// The CPU time of this thread.
#[cfg(unix)]
pub(crate) fn thread_cpu() -> Duration {
    cpu(rustix::time::ClockId::ThreadCPUTime)
}

/// The CPU time of this program.
#[cfg(unix)]
pub(crate) fn process_cpu() -> Duration {
    cpu(rustix::time::ClockId::ProcessCPUTime)
}

#[cfg(unix)]
fn cpu(clock: rustix::time::ClockId) -> Duration {
    // A clock of CPU time is never negative.
    rustix::time::clock_gettime(clock)
        .try_into()
        .unwrap_or_default()
}

/// Not available on this system.
#[cfg(not(unix))]
pub(crate) fn thread_cpu() -> Duration {
    Duration::ZERO
}

/// Not available on this system.
#[cfg(not(unix))]
pub(crate) fn process_cpu() -> Duration {
    Duration::ZERO
}

/// How long this thread waited for a core, if known.
pub(crate) fn thread_waited() -> Option<Duration> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    let nanoseconds = text.split_whitespace().nth(1)?.parse().ok()?;
    Some(Duration::from_nanos(nanoseconds))
}
