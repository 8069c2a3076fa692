//! The memory budget that all connections share for large frames and large responses.
//!
//! Frames and responses get half each, so clients that do not read responses cannot block requests,
//! or the other way round. Bytes are held by a [`Lease`], which gives them back when dropped,
//! however the connection ends.
//!
//! Frames are counted as they grow, so two frames could deadlock, each holding half of what it
//! needs. Therefore one frame at a time may use the reserve: memory that is set apart from the
//! beginning and large enough for one frame and its message. That frame proceeds if the process has
//! memory at all.
//!
//! The connections of one [address](super::addresses) may hold a share of each half. So the frames
//! of one address can only wait for each other, and for the reserve; others need neither.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

use super::addresses::{AddressMemory, share};
use super::allocation;
use crate::command::Memory;
use crate::config::ServerConfig;
use crate::error::KvError;
use crate::metrics::Metrics;

/// Frames and answers of up to this length, in bytes, do not count against the memory budget.
pub(super) const SMALL: usize = 16 * 1024;

/// A frame is in memory twice for a moment: as received, and as the decoded message. So is an
/// answer that is compressed.
pub(super) const COPIES: usize = 2;

/// If possible, memory is held for this many bytes more than an answer needs, so that not every
/// value asks for it.
const STEP: usize = 16 * 1024;

/// How often a frame that waits for the reserve checks whether enough of the budget has become
/// free.
const RETRY_PERIOD: Duration = Duration::from_millis(20);

/// The budget of all connections of a server, in bytes. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Budget {
    shared: Arc<Shared>,
    /// What the connections of the same address hold, unless they may hold all of it.
    address: Option<Arc<AddressMemory>>,
}

#[derive(Debug)]
struct Shared {
    /// [`ServerConfig::max_buffered_bytes`].
    limit: usize,
    /// Free bytes for frames, without the reserve.
    requests: AtomicUsize,
    /// Free bytes for responses.
    answers: AtomicUsize,
    /// The most that one address may hold of the bytes for frames, without the reserve.
    requests_share: usize,
    /// The most that one address may hold of the bytes for responses.
    answers_share: usize,
    /// One permit: the right to use the reserve.
    reserve: Arc<Semaphore>,
    metrics: Option<Metrics>,
}

/// What bytes are held for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Requests,
    Answers,
}

/// Bytes of the budget, held until this is dropped.
#[derive(Debug)]
pub(super) struct Lease {
    budget: Budget,
    purpose: Purpose,
    bytes: usize,
    /// Present while this may use the reserve.
    reserve: Option<OwnedSemaphorePermit>,
    /// Bytes held from the reserve; `bytes` does not include them.
    from_reserve: usize,
}

impl Budget {
    pub(super) fn new(config: &ServerConfig, metrics: Option<Metrics>) -> Self {
        let half = config.max_buffered_bytes / 2;
        let reserve = config.codec.max_frame_len() + config.codec.max_message_len();
        let requests = half.saturating_sub(reserve);
        Self {
            address: None,
            shared: Arc::new(Shared {
                limit: config.max_buffered_bytes,
                requests_share: share(requests, config.memory_share),
                // The largest response always fits.
                answers_share: share(half, config.memory_share).max(reserve),
                requests: AtomicUsize::new(requests),
                answers: AtomicUsize::new(half),
                reserve: Arc::new(Semaphore::new(1)),
                metrics,
            }),
        }
    }

    /// The same budget, for the connections of one address.
    pub(super) fn for_address(&self, address: &Arc<AddressMemory>) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            address: Some(Arc::clone(address)),
        }
    }

    /// A lease of no bytes yet.
    pub(super) fn lease(&self, purpose: Purpose) -> Lease {
        Lease {
            budget: self.clone(),
            purpose,
            bytes: 0,
            reserve: None,
            from_reserve: 0,
        }
    }

    fn free(&self, purpose: Purpose) -> &AtomicUsize {
        match purpose {
            Purpose::Requests => &self.shared.requests,
            Purpose::Answers => &self.shared.answers,
        }
    }

    /// What the connections of the same address hold.
    fn held_by_address(&self, purpose: Purpose) -> Option<&AtomicUsize> {
        let address = self.address.as_ref()?;
        Some(match purpose {
            Purpose::Requests => &address.requests,
            Purpose::Answers => &address.answers,
        })
    }

    /// Takes bytes that are free and within the share of the address. Returns whether it did.
    fn take(&self, purpose: Purpose, bytes: usize) -> bool {
        let held = self.held_by_address(purpose);
        let share = self.share(purpose);
        if held.is_some_and(|held| !AddressMemory::take(held, bytes, share)) {
            return false;
        }
        let free = self.free(purpose);
        let taken = free.fetch_update(Relaxed, Relaxed, |free| free.checked_sub(bytes));
        if let (Err(_), Some(held)) = (taken, held) {
            held.fetch_sub(bytes, Relaxed);
        }
        taken.is_ok()
    }

    /// The most that one address may hold.
    fn share(&self, purpose: Purpose) -> usize {
        match purpose {
            Purpose::Requests => self.shared.requests_share,
            Purpose::Answers => self.shared.answers_share,
        }
    }

    fn give_back(&self, purpose: Purpose, bytes: usize) {
        self.free(purpose).fetch_add(bytes, Relaxed);
        if let Some(held) = self.held_by_address(purpose) {
            held.fetch_sub(bytes, Relaxed);
        }
    }
}

impl Lease {
    /// Holds `bytes` more. Fails if they are not free, or beyond the share of the address, and this
    /// has no reserve; or if the process has no memory for them. Returns whether they are held.
    pub(super) fn try_more(&mut self, bytes: usize) -> bool {
        if self.reserve.is_none() && !self.budget.take(self.purpose, bytes) {
            return false;
        }
        let left = match self.purpose {
            Purpose::Requests => allocation::LEFT_BY_REQUESTS,
            Purpose::Answers => allocation::LEFT_BY_ANSWERS,
        };
        let is_possible = allocation::is_possible(bytes, left);
        match (is_possible, self.reserve.is_some()) {
            (true, false) => self.add(bytes),
            (true, true) => {
                self.from_reserve += bytes;
                self.count_held(bytes);
            }
            (false, false) => self.budget.give_back(self.purpose, bytes),
            (false, true) => {}
        }
        is_possible
    }

    /// Waits up to `patience` for `bytes` more, or for the reserve. Returns whether they are held.
    pub(super) async fn wait(&mut self, bytes: usize, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        while !self.try_more(bytes) {
            if self.reserve.is_some() {
                // There is no memory, with the reserve or without it.
                return false;
            }
            let reserve = Arc::clone(&self.budget.shared.reserve).acquire_owned();
            if let Ok(Ok(reserve)) = timeout(RETRY_PERIOD, reserve).await {
                self.reserve = Some(reserve);
            } else if Instant::now() >= deadline {
                return false;
            }
        }
        true
    }

    /// Holds `bytes` more, or as many as are free: for memory that is in use already.
    pub(super) fn more_at_best(&mut self, bytes: usize) {
        let free = self.budget.free(self.purpose);
        let before = free.fetch_update(Relaxed, Relaxed, |free| Some(free.saturating_sub(bytes)));
        let held = bytes.min(before.unwrap_or_default());
        if let Some(of_address) = self.budget.held_by_address(self.purpose) {
            of_address.fetch_add(held, Relaxed);
        }
        self.add(held);
    }

    /// Bytes held, without those from the reserve.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Another lease of the same budget and for the same purpose, of no bytes yet.
    pub(super) fn another(&self) -> Self {
        self.budget.lease(self.purpose)
    }

    /// Moves everything that it holds to another lease.
    pub(super) fn take(&mut self) -> Self {
        let nothing = self.another();
        std::mem::replace(self, nothing)
    }

    /// Whether it holds any bytes, not counting the reserve.
    pub(super) fn is_any(&self) -> bool {
        self.bytes > 0
    }

    /// Gives back all but `bytes`; keeps what comes from the reserve.
    pub(super) fn shrink_to(&mut self, bytes: usize) {
        if let Some(back @ 1..) = self.bytes.checked_sub(bytes) {
            self.bytes = bytes;
            self.budget.give_back(self.purpose, back);
            self.count_released(back);
        }
    }

    /// Gives everything back, including the reserve.
    pub(super) fn release(&mut self) {
        self.shrink_to(0);
        if self.reserve.take().is_some() {
            let bytes = std::mem::take(&mut self.from_reserve);
            self.count_released(bytes);
        }
    }

    fn add(&mut self, bytes: usize) {
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

impl Memory for Lease {
    fn hold(&mut self, len: usize) -> Result<usize, Box<KvError>> {
        for wanted in [len + STEP, len] {
            // The buffer doubles, while memory is held in small steps.
            let (held, capacity) = (self.bytes / COPIES, wanted.next_power_of_two());
            let fits = capacity == held.next_power_of_two()
                || allocation::is_possible(capacity, allocation::LEFT_BY_ANSWERS);
            if fits && self.try_more(held_for(wanted).saturating_sub(self.bytes)) {
                return Ok(wanted);
            }
        }
        let limit = self.budget.shared.limit;
        Err(Box::new(KvError::Overloaded { limit }))
    }
}

/// The memory to hold for `bytes` of answers: none for small ones, otherwise twice as much, because
/// compression needs a second buffer.
pub(super) fn held_for(bytes: usize) -> usize {
    if bytes > SMALL { COPIES * bytes } else { 0 }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.release();
    }
}

#[cfg(test)]
impl Lease {
    /// Bytes of its half that nobody holds.
    fn free(&self) -> usize {
        self.budget.free(self.purpose).load(Relaxed)
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
    fn gives_bytes_back_on_shrink_release_and_drop() {
        let budget = budget(1000);
        let mut one = budget.lease(Purpose::Answers);
        let mut other = budget.lease(Purpose::Answers);
        assert!(one.try_more(300) && one.try_more(100) && !other.try_more(101));
        assert!(other.try_more(100) && !other.try_more(1) && other.free() == 0);
        one.shrink_to(150);
        assert_eq!(other.free(), 250);
        other.more_at_best(1000);
        assert_eq!(one.free(), 0);
        drop(other);
        one.release();
        assert_eq!(one.free(), 500);
        // The other half, less the reserve.
        assert_eq!(budget.lease(Purpose::Requests).free(), 300);
    }

    #[test]
    fn a_budget_may_exceed_the_permits_of_a_semaphore() {
        let lease = budget(1 << 40).lease(Purpose::Answers);
        assert_eq!(lease.free(), 1 << 39);
    }

    #[tokio::test(start_paused = true)]
    async fn frames_beyond_the_share_of_their_address_finish_one_by_one() {
        // 300 bytes for frames, 150 of them for an address.
        let budget = budget(1000);
        let [one, other] = [(); 2].map(|()| Arc::<AddressMemory>::default());
        let lease = |address| budget.for_address(address).lease(Purpose::Requests);
        let patience = Duration::from_secs(5);
        let (mut first, mut second) = (lease(&one), lease(&one));
        assert!(first.try_more(70) && second.try_more(70));
        assert!(!first.try_more(20));
        assert!(lease(&other).try_more(150), "free for others");
        assert!(first.wait(70, patience).await);
        assert!(!second.wait(70, patience).await);
        first.release();
        assert!(second.wait(70, patience).await);
        drop((first, second));
        assert_eq!(one.requests.load(Relaxed), 0);
        assert_eq!(lease(&other).free(), 300);
    }

    #[tokio::test(start_paused = true)]
    async fn one_waiting_frame_can_always_proceed() {
        let budget = budget(1000);
        let patience = Duration::from_secs(5);
        let mut frames: Vec<_> = (0..3).map(|_| budget.lease(Purpose::Requests)).collect();
        for frame in &mut frames {
            assert!(frame.try_more(100));
        }
        // Each needs more, and nothing is free.
        assert!(frames[0].wait(100, patience).await);
        assert!(frames[0].try_more(1_000_000), "the reserve has no limit");
        assert!(!frames[1].wait(100, patience).await);
        frames[0].release();
        assert!(frames[1].wait(100, patience).await);
        assert!(frames[2].wait(100, patience).await);
    }
}
