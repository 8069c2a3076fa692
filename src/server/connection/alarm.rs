//! One timer for all the deadlines of a connection, which has at most one at a time.
//!
//! Deadlines are set far more often than they are reached. To set a later one costs nothing: the timer goes off
//! when it was to, sees that it is early, and goes on to sleep.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::time::{Instant, Sleep, sleep_until};

/// Not armed, and without a timer, until a deadline is set.
#[derive(Debug, Default)]
pub(super) struct Alarm {
    /// Boxed, because most connections never need one.
    sleep: Option<Pin<Box<Sleep>>>,
    due: Option<Instant>,
}

impl Alarm {
    /// Goes off at `due`, or not at all, in place of what was set before.
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

    /// Ready once the deadline is reached, and never without one.
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
    async fn goes_off_at_the_deadline_that_was_set_last() {
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
    async fn does_not_go_off_when_it_was_put_off() {
        let mut alarm = Alarm::default();
        alarm.set(Some(Instant::now() + Duration::from_secs(1)));
        alarm.set(None);
        let hour = Duration::from_secs(3600);
        let off = tokio::time::timeout(hour, poll_fn(|cx| alarm.poll(cx))).await;
        assert!(off.is_err());
    }
}
