//! The mailbox of a connection: messages published for its subscriptions that are waiting to be
//! sent.
//!
//! A publisher puts a message in and moves on; the connection takes messages out when it can send.
//! Neither waits for the other. When the mailbox is full, the [`SlowSubscriber`] policy decides:
//! the oldest messages are dropped, or the connection ends. Dropped messages are counted per
//! subscription, and the next message of that subscription reports how many it missed.
//!
//! A mailbox is also full when it takes more than its share of the memory for all messages, which
//! is a part of what is free: the more clients read nothing, the less each of them may keep, and
//! those that read keep up with a little.

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
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use futures::task::{ArcWake, noop_waker, waker_ref};

    use super::super::push::{MESSAGE_MEMORY, OVERHEAD, SharedMessage};
    use super::*;
    use crate::abi::{CommandResponse, Value};

    fn mailbox(messages: usize, bytes: usize, policy: SlowSubscriber) -> Mailbox {
        let limits = SubscriberLimits {
            bytes,
            messages,
            policy,
            ..SubscriberLimits::UNLIMITED
        };
        Mailbox::new(limits, Arc::default(), None)
    }

    /// The size of the frame of the push that [`push`] makes, in bytes.
    const LEN: usize = 100 + OVERHEAD;

    /// Its memory, in bytes.
    const MEMORY: usize = PUSH_MEMORY + MESSAGE_MEMORY + 100;

    /// A push whose message has 100 encoded bytes.
    fn push(subscription: u32, number: u8) -> Push {
        let response = CommandResponse::from(Value::from(&[number; 93]));
        let message = Arc::new(SharedMessage::new(&response, Arc::default()));
        assert_eq!(message.encoded().len(), 100);
        Push {
            message,
            subscription,
            pattern: None,
            missed: 0,
        }
    }

    /// Takes messages. Gives for each its subscription, its number, and how many were missed before
    /// it.
    fn take(mailbox: &Mailbox, max_bytes: usize) -> Vec<(u32, u8, u64)> {
        let mut pushes = Vec::new();
        mailbox.take(max_bytes, &mut pushes);
        let seen = |push: &Push| {
            let number = *push.message.encoded().last().unwrap();
            (push.subscription, number, push.missed)
        };
        pushes.iter().map(seen).collect()
    }

    #[test]
    fn drops_the_oldest_messages_and_counts_them_per_subscription() {
        for (messages, bytes) in [
            (3, usize::MAX),
            (usize::MAX, 3 * MEMORY),
            (usize::MAX, 4 * MEMORY - 1),
        ] {
            let mailbox = mailbox(messages, bytes, SlowSubscriber::Drop);
            for (subscription, number) in [(1, 0), (2, 1), (1, 2), (1, 3), (2, 4), (1, 5)] {
                assert!(mailbox.put(push(subscription, number)));
            }
            assert_eq!(
                take(&mailbox, usize::MAX),
                [(1, 3, 2), (2, 4, 1), (1, 5, 0)]
            );
            mailbox.put(push(2, 6));
            assert_eq!(take(&mailbox, usize::MAX), [(2, 6, 0)]);
        }
    }

    #[test]
    fn a_message_over_the_byte_limit_is_missed_and_drops_no_other() {
        for policy in [SlowSubscriber::Drop, SlowSubscriber::Close] {
            let mailbox = mailbox(10, 99, policy);
            let response = CommandResponse::from(Value::from("x"));
            mailbox.put(Push {
                message: Arc::new(SharedMessage::new(&response, Arc::default())),
                ..push(2, 0)
            });
            assert!(!mailbox.put(push(1, 0)));
            assert_eq!(take(&mailbox, usize::MAX), [(2, b'x', 0)]);
            assert_eq!(mailbox.lock().missed.get(&1), Some(&1));
        }
    }

    #[test]
    fn a_message_of_exactly_the_byte_limit_waits_alone() {
        let mailbox = mailbox(10, 100, SlowSubscriber::Drop);
        assert!(mailbox.put(push(1, 0)) && mailbox.put(push(1, 1)));
        assert_eq!(take(&mailbox, usize::MAX), [(1, 1, 1)]);
        let mailbox = self::mailbox(10, 100, SlowSubscriber::Close);
        assert!(mailbox.put(push(1, 0)) && !mailbox.put(push(1, 1)));
    }

    #[test]
    fn takes_at_least_one_message_and_stops_at_max_bytes() {
        let mailbox = mailbox(10, 10_000, SlowSubscriber::Drop);
        for number in 0..5 {
            mailbox.put(push(1, number));
        }
        let mut pushes = Vec::new();
        for (max_bytes, left, taken) in [
            (1, MailboxState::HasMore, 1),
            (LEN + 1, MailboxState::HasMore, 3),
            (2 * LEN, MailboxState::Empty, 5),
        ] {
            assert_eq!(mailbox.take(max_bytes, &mut pushes), left);
            assert_eq!(pushes.len(), taken);
        }
        assert_eq!(mailbox.lock().bytes, 0);
    }

    #[test]
    fn overruns_under_the_close_policy() {
        let mailbox = mailbox(2, 10_000, SlowSubscriber::Close);
        assert!(mailbox.put(push(1, 0)) && mailbox.put(push(1, 1)));
        assert!(!mailbox.put(push(1, 2)) && !mailbox.put(push(1, 3)));
        let mut pushes = Vec::new();
        assert_eq!(mailbox.take(usize::MAX, &mut pushes), MailboxState::Overrun);
        assert!(pushes.is_empty());
        let waker = noop_waker();
        let mut cx = Context::from_waker(&waker);
        assert!(mailbox.poll(&mut cx).is_ready() && mailbox.poll_overrun(&mut cx).is_ready());
    }

    #[test]
    fn forgetting_a_subscription_removes_its_messages_and_counts() {
        let mailbox = mailbox(3, 10_000, SlowSubscriber::Drop);
        for (subscription, number) in [(1, 0), (1, 1), (2, 2), (1, 3)] {
            mailbox.put(push(subscription, number));
        }
        mailbox.forget(1);
        mailbox.put(push(2, 4));
        assert_eq!(take(&mailbox, usize::MAX), [(2, 2, 0), (2, 4, 0)]);
        assert_eq!(mailbox.lock().bytes, 0);
        assert!(mailbox.lock().missed.is_empty());
    }

    #[test]
    fn an_unsendable_message_passes_on_the_count_of_those_missed_before_it() {
        let mailbox = mailbox(1, 10_000, SlowSubscriber::Drop);
        mailbox.put(push(1, 0));
        mailbox.put(push(1, 1));
        let mut pushes = Vec::new();
        mailbox.take(usize::MAX, &mut pushes);
        mailbox.missed(&pushes[0], &mut []);
        mailbox.put(push(1, 2));
        assert_eq!(take(&mailbox, usize::MAX), [(1, 2, 2)]);
    }

    #[test]
    fn an_unsendable_message_is_reported_by_the_next_one_taken_with_it() {
        let mailbox = mailbox(10, 10_000, SlowSubscriber::Drop);
        for (subscription, number) in [(1, 0), (2, 1), (1, 2), (1, 3)] {
            mailbox.put(push(subscription, number));
        }
        let mut pushes = Vec::new();
        mailbox.take(usize::MAX, &mut pushes);
        let (first, later) = pushes.split_first_mut().unwrap();
        mailbox.missed(first, later);
        let missed: Vec<_> = later.iter().map(|push| push.missed).collect();
        assert_eq!(missed, [0, 1, 0]);
        assert!(mailbox.lock().missed.is_empty());
    }

    /// Mailboxes of one server, with so much memory for all messages.
    fn mailboxes(count: usize, all_bytes: usize, policy: SlowSubscriber) -> Vec<Mailbox> {
        let limits = SubscriberLimits {
            bytes: 1024 * 1024,
            all_bytes,
            policy,
            ..SubscriberLimits::UNLIMITED
        };
        let memory = Arc::default();
        let mailbox = |_| Mailbox::new(limits, Arc::clone(&memory), None);
        (0..count).map(mailbox).collect()
    }

    /// Publishes a message of `len` bytes that only this mailbox gets.
    fn publish(mailbox: &Mailbox, len: usize) -> bool {
        let response = CommandResponse::from(Value::binary(vec![7; len]));
        let message = SharedMessage::new(&response, Arc::clone(&mailbox.memory));
        mailbox.memory.add(PUSH_MEMORY);
        let queued = mailbox.put(Push {
            message: Arc::new(message),
            ..push(1, 0)
        });
        if !queued {
            mailbox.memory.remove(PUSH_MEMORY);
        }
        queued
    }

    #[test]
    fn clients_that_read_nothing_share_what_is_left_and_others_get_their_messages() {
        let all = 8 * 1024 * 1024;
        let mailboxes = mailboxes(101, all, SlowSubscriber::Drop);
        let (reader, stalled) = mailboxes.split_first().unwrap();
        for round in 0..1000 {
            for mailbox in stalled {
                publish(mailbox, 1000);
            }
            assert!(publish(reader, 1000));
            assert_eq!(take(reader, usize::MAX), [(1, 7, 0)], "round {round}");
        }
        let used = reader.memory.used();
        assert!(used <= all, "{used}");
        // They keep what they can.
        assert!(used > all * 9 / 10, "{used}");
        drop(mailboxes);
    }

    #[test]
    fn a_little_may_wait_even_if_no_memory_is_left() {
        for policy in [SlowSubscriber::Drop, SlowSubscriber::Close] {
            let mailboxes = mailboxes(2, 0, policy);
            let few = MIN_SHARE / (1000 + MEMORY) - 1;
            for mailbox in &mailboxes {
                (0..few).for_each(|_| assert!(publish(mailbox, 1000)));
            }
            let memory = Arc::clone(&mailboxes[0].memory);
            assert!(memory.used() <= 2 * MIN_SHARE);
            let are_taken = [(); 3].map(|()| publish(&mailboxes[0], 1000));
            assert_eq!(are_taken[2], policy == SlowSubscriber::Drop);
            assert!(memory.used() <= 2 * MIN_SHARE);
            drop(mailboxes);
            assert_eq!(memory.used(), 0);
        }
    }

    #[test]
    fn a_message_in_many_mailboxes_counts_once() {
        let mailboxes = mailboxes(100, usize::MAX, SlowSubscriber::Drop);
        let memory = Arc::clone(&mailboxes[0].memory);
        let response = CommandResponse::from(Value::binary(vec![7; 1_000_000]));
        let message = Arc::new(SharedMessage::new(&response, Arc::clone(&memory)));
        for mailbox in &mailboxes {
            memory.add(PUSH_MEMORY);
            let message = Arc::clone(&message);
            assert!(mailbox.put(Push {
                message,
                ..push(1, 0)
            }));
        }
        drop(message);
        let expected = 1_000_000 + 100 * PUSH_MEMORY;
        let used = memory.used();
        assert!((expected..expected + 1000).contains(&used), "{used}");
        for mailbox in &mailboxes {
            mailbox.forget(1);
        }
        assert_eq!(memory.used(), 0);
    }

    #[test]
    fn a_large_queue_is_freed_when_it_is_empty() {
        let mailbox = mailbox(1000, usize::MAX, SlowSubscriber::Drop);
        for number in 0..200 {
            mailbox.put(push(1, number));
        }
        take(&mailbox, usize::MAX);
        assert_eq!(mailbox.lock().waiting.capacity(), 0);
    }

    #[test]
    fn wakes_the_waiting_task_once() {
        struct Count(AtomicUsize);
        impl ArcWake for Count {
            fn wake_by_ref(count: &Arc<Self>) {
                count.0.fetch_add(1, Relaxed);
            }
        }
        let mailbox = mailbox(10, 10_000, SlowSubscriber::Drop);
        let woken = Arc::new(Count(AtomicUsize::new(0)));
        let waker = waker_ref(&woken);
        let mut cx = Context::from_waker(&waker);
        for round in 1..=2 {
            assert!(mailbox.poll(&mut cx).is_pending());
            mailbox.put(push(1, 0));
            mailbox.put(push(1, 1));
            assert_eq!(woken.0.load(Relaxed), round);
            assert!(mailbox.poll(&mut cx).is_ready());
            mailbox.put(push(1, 2));
            assert_eq!(woken.0.load(Relaxed), round);
            take(&mailbox, usize::MAX);
        }
    }
}
