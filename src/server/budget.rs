//! The memory that all connections share for large frames and large answers.
//!
//! Each has a half, so that who takes no answers holds up nobody's requests, and the other way round. What is
//! held is held by a [`Held`], so that a connection that ends in whatever way gives it back.
//!
//! Frames are counted as they grow. So two could wait for each other, each with half of what it needs: one
//! frame at a time, the elder, may go on without asking, and room for it is set apart from the beginning.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

use crate::config::ServerConfig;
use crate::metrics::Metrics;

/// How often a frame that waits to be the elder looks whether there is room without that.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// So many bytes and no more, for all connections of a server. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct Budget {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    requests: AtomicUsize,
    answers: AtomicUsize,
    elder: Arc<Semaphore>,
    metrics: Option<Metrics>,
}

/// What bytes are held for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Requests,
    Answers,
}

/// Bytes that are held until this is dropped.
#[derive(Debug)]
pub(super) struct Held {
    budget: Budget,
    purpose: Purpose,
    bytes: usize,
    elder: Option<OwnedSemaphorePermit>,
    /// What the elder holds of the room that is set apart for it.
    apart: usize,
}

impl Budget {
    pub(super) fn new(config: &ServerConfig, metrics: Option<Metrics>) -> Self {
        let half = config.max_buffered_bytes / 2;
        let elder = config.codec.max_frame_len() + config.codec.max_message_len();
        Self {
            shared: Arc::new(Shared {
                requests: AtomicUsize::new(half.saturating_sub(elder)),
                answers: AtomicUsize::new(half),
                elder: Arc::new(Semaphore::new(1)),
                metrics,
            }),
        }
    }

    /// Holds nothing yet.
    pub(super) fn hold(&self, purpose: Purpose) -> Held {
        Held {
            budget: self.clone(),
            purpose,
            bytes: 0,
            elder: None,
            apart: 0,
        }
    }

    fn free(&self, purpose: Purpose) -> &AtomicUsize {
        match purpose {
            Purpose::Requests => &self.shared.requests,
            Purpose::Answers => &self.shared.answers,
        }
    }
}

impl Held {
    /// Holds so many bytes more, if they are free.
    pub(super) fn try_more(&mut self, bytes: usize) -> bool {
        if self.elder.is_some() {
            self.apart += bytes;
            self.count_held(bytes);
            return true;
        }
        let free = self.budget.free(self.purpose);
        let taken = free.fetch_update(Relaxed, Relaxed, |free| free.checked_sub(bytes));
        if taken.is_ok() {
            self.keep(bytes);
        }
        taken.is_ok()
    }

    /// Waits for so many bytes more, for so long; tells whether they are held.
    pub(super) async fn wait(&mut self, bytes: usize, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        while !self.try_more(bytes) {
            let elder = Arc::clone(&self.budget.shared.elder).acquire_owned();
            if let Ok(Ok(elder)) = timeout(LOOK_AGAIN, elder).await {
                self.elder = Some(elder);
            } else if Instant::now() >= deadline {
                return false;
            }
        }
        true
    }

    /// Holds as much of it as is free, for what is there already and cannot be refused.
    pub(super) fn more_at_best(&mut self, bytes: usize) {
        let free = self.budget.free(self.purpose);
        let before = free.fetch_update(Relaxed, Relaxed, |free| Some(free.saturating_sub(bytes)));
        let before = before.unwrap_or_default();
        self.keep(bytes.min(before));
    }

    /// How many bytes are free beside those that are held.
    pub(super) fn free(&self) -> usize {
        self.budget.free(self.purpose).load(Relaxed)
    }

    /// Whether anything is held.
    pub(super) fn is_any(&self) -> bool {
        self.bytes > 0
    }

    /// Gives back what is beyond so many bytes.
    pub(super) fn shrink_to(&mut self, bytes: usize) {
        if let Some(back @ 1..) = self.bytes.checked_sub(bytes) {
            self.bytes = bytes;
            self.budget.free(self.purpose).fetch_add(back, Relaxed);
            self.count_released(back);
        }
    }

    /// Gives everything back.
    pub(super) fn release(&mut self) {
        self.shrink_to(0);
        if self.elder.take().is_some() {
            let apart = std::mem::take(&mut self.apart);
            self.count_released(apart);
        }
    }

    fn keep(&mut self, bytes: usize) {
        self.bytes += bytes;
        self.count_held(bytes);
    }

    fn count_held(&self, bytes: usize) {
        if let Some(metrics) = &self.budget.shared.metrics {
            metrics.count_held(bytes);
        }
    }

    fn count_released(&self, bytes: usize) {
        if let Some(metrics) = &self.budget.shared.metrics {
            metrics.count_released(bytes);
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.release();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::CodecConfig;

    fn budget(bytes: usize) -> Budget {
        let codec = CodecConfig::default()
            .with_max_frame_len(100)
            .with_max_message_len(100);
        let config = ServerConfig::default()
            .with_codec(codec)
            .with_max_buffered_bytes(bytes);
        Budget::new(&config, None)
    }

    #[test]
    fn what_is_held_is_given_back_however_it_ends() {
        let budget = budget(1000);
        let mut one = budget.hold(Purpose::Answers);
        let mut other = budget.hold(Purpose::Answers);
        assert!(one.try_more(300) && one.try_more(100) && !other.try_more(101));
        assert!(other.try_more(100) && !other.try_more(1) && other.free() == 0);
        one.shrink_to(150);
        assert_eq!(other.free(), 250);
        other.more_at_best(1000);
        assert_eq!(one.free(), 0);
        drop(other);
        one.release();
        assert_eq!(one.free(), 500);
        // The other half, less the elder's.
        assert_eq!(budget.hold(Purpose::Requests).free(), 300);
    }

    #[test]
    fn more_than_a_semaphore_has_is_no_less_for_it() {
        let held = budget(1 << 40).hold(Purpose::Answers);
        assert_eq!(held.free(), 1 << 39);
    }

    #[tokio::test(start_paused = true)]
    async fn one_of_those_who_wait_may_always_go_on() {
        let budget = budget(1000);
        let patience = Duration::from_secs(5);
        let mut frames: Vec<_> = (0..3).map(|_| budget.hold(Purpose::Requests)).collect();
        for frame in &mut frames {
            assert!(frame.try_more(100));
        }
        // Each needs more, and none is there.
        assert!(frames[0].wait(100, patience).await);
        assert!(frames[0].try_more(1_000_000), "the elder need not ask");
        assert!(!frames[1].wait(100, patience).await);
        frames[0].release();
        assert!(frames[1].wait(100, patience).await);
        assert!(frames[2].wait(100, patience).await);
    }
}
