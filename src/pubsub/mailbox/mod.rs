//! The mailbox of a connection: messages published for its subscriptions that are waiting to be
//! sent.
//!
//! A publisher puts a message in and moves on; the connection takes messages out when it can send.
//! Neither waits for the other. When the mailbox is full, the [`SlowSubscriber`] policy decides:
//! the oldest messages are dropped, or the connection ends. Dropped messages are counted per
//! subscription, and the next message of that subscription reports how many it missed.
//!
//! A mailbox is also full when it takes more than its share of the memory for all messages, a
//! fraction of what is free. The more clients do not read, the less each may keep; a client that
//! reads needs little.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use super::push::{MessageMemory, PUSH_MEMORY, Push};
use crate::config::SlowSubscriber;
use crate::metrics::Metrics;

/// The share of a mailbox, as a part of the memory that is free.
const SHARE: usize = 4;

/// What a mailbox may hold even if no memory is free, in bytes: enough for a client that reads.
const MIN_SHARE: usize = 16 * 1024;

/// A queue with more capacity than this is freed once it is empty.
const KEPT_CAPACITY: usize = 64;

/// Limits on the subscriptions of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SubscriberLimits {
    /// Maximum memory of waiting messages, in bytes.
    pub(crate) bytes: usize,
    /// Maximum memory of the messages that wait for all connections, in bytes.
    pub(crate) all_bytes: usize,
    /// Maximum number of waiting messages.
    pub(crate) messages: usize,
    /// Maximum number of subscriptions.
    pub(crate) subscriptions: usize,
    /// Maximum number of distinct patterns, across all connections.
    pub(crate) patterns: usize,
    /// What happens when more messages arrive than may wait.
    pub(crate) policy: SlowSubscriber,
}

/// The state of a mailbox after messages were taken from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MailboxState {
    Empty,
    HasMore,
    /// The mailbox overflowed under [`SlowSubscriber::Close`]: the connection has to end.
    Overrun,
}

/// The messages that are waiting for a connection.
#[derive(Debug)]
pub(super) struct Mailbox {
    state: Mutex<State>,
    limits: SubscriberLimits,
    /// The memory of all messages.
    memory: Arc<MessageMemory>,
    metrics: Option<Metrics>,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Push>,
    /// The memory of `waiting`, in bytes.
    bytes: usize,
    /// Messages that each subscription has missed since the last one it received. No entry means 0.
    missed: HashMap<u32, u64>,
    /// Wakes the connection.
    waker: Option<Waker>,
    /// What the connection is waiting for.
    awaited: Awaited,
    /// Whether it overflowed under [`SlowSubscriber::Close`].
    overrun: bool,
}

/// What to wake the connection for.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Awaited {
    #[default]
    Nothing,
    /// A message, or an overrun.
    Message,
    /// An overrun only; messages can wait.
    Overrun,
}

impl Mailbox {
    pub(super) fn new(
        limits: SubscriberLimits,
        memory: Arc<MessageMemory>,
        metrics: Option<Metrics>,
    ) -> Self {
        Self {
            state: Mutex::default(),
            limits,
            memory,
            metrics,
        }
    }

    /// Puts a message in. Returns whether it was queued; it may still be dropped later. The caller
    /// counts what it queued, for many mailboxes at once: in the [metrics](Metrics::count_queued),
    /// and its place in the [memory](MessageMemory) of all messages.
    pub(super) fn put(&self, push: Push) -> bool {
        let mut state = self.lock();
        let len = push.memory();
        if push.message.encoded().len() > self.limits.bytes {
            // Dropping all the others would not make it fit: its publisher has a larger limit.
            state.miss(push.subscription);
            self.count_dropped(1);
            return false;
        }
        while !state.overrun && !self.admits(&state, len) {
            match self.limits.policy {
                SlowSubscriber::Close => {
                    self.count_dropped(state.waiting.len());
                    self.clear(&mut state);
                    state.overrun = true;
                }
                SlowSubscriber::Drop => {
                    let Some(oldest) = state.waiting.pop_front() else {
                        break;
                    };
                    state.miss(oldest.subscription);
                    self.count_dropped(1);
                    self.remove(&mut state, 1, oldest.memory());
                }
            }
        }
        let taken = !state.overrun;
        if taken {
            state.bytes += len;
            state.waiting.push_back(push);
        } else {
            self.count_dropped(1);
        }
        if state.awaited == Awaited::Message || state.awaited == Awaited::Overrun && !taken {
            state.awaited = Awaited::Nothing;
            if let Some(waker) = &state.waker {
                waker.wake_by_ref();
            }
        }
        taken
    }

    /// Ready when there is something to [`take`](Self::take), or after an overrun.
    pub(super) fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        if state.overrun || !state.waiting.is_empty() {
            return Poll::Ready(());
        }
        state.wait_for(Awaited::Message, cx);
        Poll::Pending
    }

    /// Ready after an overrun.
    pub(super) fn poll_overrun(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        if state.overrun {
            return Poll::Ready(());
        }
        state.wait_for(Awaited::Overrun, cx);
        Poll::Pending
    }

    /// Takes the oldest messages, until their frames add up to `max_bytes` or more.
    pub(super) fn take(&self, max_bytes: usize, pushes: &mut Vec<Push>) -> MailboxState {
        let mut state = self.lock();
        let (mut bytes, mut taken, mut memory) = (0, 0, 0);
        while bytes < max_bytes {
            let Some(mut push) = state.waiting.pop_front() else {
                break;
            };
            bytes += push.len();
            taken += 1;
            memory += push.memory();
            if !state.missed.is_empty() {
                push.missed = state.missed.remove(&push.subscription).unwrap_or_default();
            }
            pushes.push(push);
        }
        self.remove(&mut state, taken, memory);
        state.shrink();
        match (state.overrun, state.waiting.is_empty()) {
            (true, _) => MailboxState::Overrun,
            (false, true) => MailboxState::Empty,
            (false, false) => MailboxState::HasMore,
        }
    }

    /// Counts a message that was taken but cannot be sent. The next message of its subscription
    /// reports it; that may be one of `later`, the messages taken after it.
    pub(super) fn missed(&self, push: &Push, later: &mut [Push]) {
        let missed = 1 + push.missed;
        let mut later = later.iter_mut();
        match later.find(|next| next.subscription == push.subscription) {
            Some(next) => next.missed += missed,
            None => {
                let mut state = self.lock();
                *state.missed.entry(push.subscription).or_default() += missed;
            }
        }
        self.count_dropped(1);
    }

    /// Removes the messages of a subscription that has ended.
    pub(super) fn forget(&self, subscription: u32) {
        let mut state = self.lock();
        state.missed.remove(&subscription);
        let (mut ended, mut memory) = (0, 0);
        state.waiting.retain(|push| {
            let is_ended = push.subscription == subscription;
            if is_ended {
                ended += 1;
                memory += push.memory();
            }
            !is_ended
        });
        self.remove(&mut state, ended, memory);
        state.shrink();
    }

    fn clear(&self, state: &mut State) {
        self.remove(state, state.waiting.len(), state.bytes);
        state.waiting = VecDeque::new();
    }

    /// Whether a message of `len` bytes may wait.
    fn admits(&self, state: &State, len: usize) -> bool {
        let free = self.limits.all_bytes.saturating_sub(self.memory.used());
        let share = (free / SHARE).max(MIN_SHARE);
        let most = self.limits.bytes.min(share);
        let fits = len <= most.saturating_sub(state.bytes);
        state.waiting.len() < self.limits.messages && (fits || state.waiting.is_empty())
    }

    /// Counts messages that were removed, and their memory.
    fn remove(&self, state: &mut State, messages: usize, bytes: usize) {
        state.bytes -= bytes;
        self.memory.remove(messages * PUSH_MEMORY);
        if let (Some(metrics), 1..) = (&self.metrics, bytes) {
            metrics.count_unqueued(bytes);
        }
    }

    fn count_dropped(&self, messages: usize) {
        if let Some(metrics) = &self.metrics {
            metrics.count_pushes_dropped(messages);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic under the lock leaves no invariant broken.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Mailbox {
    fn drop(&mut self) {
        let mut state = std::mem::take(&mut *self.lock());
        self.clear(&mut state);
    }
}

impl SubscriberLimits {
    /// No limits: for sessions that cannot subscribe. Messages that they publish are subject to the
    /// limits of the subscribers.
    pub(crate) const UNLIMITED: Self = Self {
        bytes: usize::MAX,
        all_bytes: usize::MAX,
        messages: usize::MAX,
        subscriptions: usize::MAX,
        patterns: usize::MAX,
        policy: SlowSubscriber::Drop,
    };
}

impl State {
    fn wait_for(&mut self, awaited: Awaited, cx: &Context<'_>) {
        match &mut self.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            None => self.waker = Some(cx.waker().clone()),
        }
        self.awaited = awaited;
    }

    fn miss(&mut self, subscription: u32) {
        *self.missed.entry(subscription).or_default() += 1;
    }

    fn shrink(&mut self) {
        if self.waiting.is_empty() && self.waiting.capacity() > KEPT_CAPACITY {
            self.waiting = VecDeque::new();
        }
    }
}

#[cfg(test)]
mod tests;
