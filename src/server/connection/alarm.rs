//! One timer for all the deadlines of a connection, which has at most one at a time.
//!
//! Deadlines are set far more often than they are reached, so postponing one is free: the timer
//! still fires at the earlier time, sees that it is early, and is only then reset.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::time::{Instant, Sleep, sleep_until};

/// Created without a deadline and without a timer.
#[derive(Debug, Default)]
pub(super) struct Alarm {
    /// Boxed, because most connections never need it.
    sleep: Option<Pin<Box<Sleep>>>,
    due: Option<Instant>,
}

impl Alarm {
    /// Replaces the deadline; [`None`] clears it.
    pub(super) fn set(&mut self, due: Option<Instant>) {
        self.due = due;
        let Some(due) = due else { return };
        match &mut self.sleep {
            Some(sleep) if sleep.deadline() <= due && !sleep.is_elapsed() => {}
            Some(sleep) => sleep.as_mut().reset(due),
            None => self.sleep = Some(Box::pin(sleep_until(due))),
        }
    }

    /// Whether a deadline is set.
    pub(super) fn is_set(&self) -> bool {
        self.due.is_some()
    }

    /// Ready once when the deadline is reached; never ready without one.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let (Some(due), Some(sleep)) = (self.due, &mut self.sleep) else {
            return Poll::Pending;
        };
        while sleep.as_mut().poll(cx).is_ready() {
            if Instant::now() >= due {
                self.due = None;
                return Poll::Ready(());
            }
            sleep.as_mut().reset(due);
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn fires_at_the_last_deadline_set() {
        let mut alarm = Alarm::default();
        let start = Instant::now();
        let at = |seconds| Some(start + Duration::from_secs(seconds));
        for (earlier, later) in [(at(1), at(5)), (at(20), at(9)), (None, at(11))] {
            alarm.set(earlier);
            alarm.set(later);
            poll_fn(|cx| alarm.poll(cx)).await;
            assert_eq!(Some(Instant::now()), later);
            assert!(!alarm.is_set());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn does_not_fire_after_the_deadline_was_cleared() {
        let mut alarm = Alarm::default();
        alarm.set(Some(Instant::now() + Duration::from_secs(1)));
        alarm.set(None);
        let hour = Duration::from_secs(3600);
        let fired = tokio::time::timeout(hour, poll_fn(|cx| alarm.poll(cx))).await;
        assert!(fired.is_err());
    }
}
