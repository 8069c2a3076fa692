//! What waits for one connection of the messages that were published for its subscriptions.
//!
//! A publisher puts a message in and goes on; the connection takes out what is there when it can send. Between the
//! two nobody waits: what there is no room for displaces what has waited for longest, or ends the connection, as
//! the server's policy is. What was displaced is counted for its subscription, and the next message that the
//! subscription gets says so.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::abi::CommandResponse;
use crate::codec::Prepared;
use crate::config::SlowSubscriber;
use crate::metrics::Metrics;

/// What a push has beside the message and the pattern, at the most: the frame's header of 4 bytes, the id with 6, how
/// many were missed with 11, and what comes before the pattern with 3.
const OWN_LEN: usize = 24;

/// A queue that had more than this is given back when it is empty.
const KEPT_CAPACITY: usize = 64;

/// What all the subscriptions of a connection may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SubscriberLimits {
    /// How many bytes of messages may wait.
    pub(crate) bytes: usize,
    /// How many messages may wait.
    pub(crate) messages: usize,
    /// How many subscriptions there may be.
    pub(crate) subscriptions: usize,
    /// How many patterns all connections together may have subscribed to.
    pub(crate) patterns: usize,
    /// What happens when more waits than may.
    pub(crate) policy: SlowSubscriber,
}

/// A message for one subscription.
#[derive(Debug)]
pub(crate) struct Push {
    /// What is the same for every subscription.
    pub(crate) message: Arc<Prepared<CommandResponse>>,
    pub(crate) subscription: u32,
    /// The pattern that the subscription is for, if it is for one.
    pub(crate) pattern: Option<Arc<str>>,
    /// How many messages the subscription has missed before this one.
    pub(crate) missed: u64,
}

impl Push {
    /// What of the response is this subscription's own.
    pub(crate) fn own(&self) -> CommandResponse {
        CommandResponse {
            subscription: self.subscription,
            pattern: self.pattern.as_deref().unwrap_or_default().to_owned(),
            missed: self.missed,
            ..CommandResponse::default()
        }
    }

    /// How many bytes it has as a frame, at the most.
    pub(crate) fn len(&self) -> usize {
        let pattern = self.pattern.as_ref().map_or(0, |text| text.len());
        self.message.encoded().len() + pattern + OWN_LEN
    }
}

/// What there is after some was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Left {
    Nothing,
    More,
    /// There was no room for more, and the policy is that this is the end.
    Overrun,
}

/// What waits for a connection.
#[derive(Debug)]
pub(super) struct Mailbox {
    state: Mutex<State>,
    limits: SubscriberLimits,
    metrics: Option<Metrics>,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Push>,
    /// How many bytes their messages have.
    bytes: usize,
    /// How many messages each subscription has missed since the last that it got, where any.
    missed: HashMap<u32, u64>,
    /// Who takes it out.
    waker: Option<Waker>,
    /// What that one waits for.
    awaited: Awaited,
    /// Whether more came than there was room for, under the policy that this is the end.
    overrun: bool,
}

/// What whoever takes messages out is to be woken for.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Awaited {
    #[default]
    Nothing,
    /// A message, or an overrun.
    Message,
    /// An overrun, while messages wait for as long as they have to.
    Overrun,
}

impl Mailbox {
    pub(super) fn new(limits: SubscriberLimits, metrics: Option<Metrics>) -> Self {
        Self {
            state: Mutex::default(),
            limits,
            metrics,
        }
    }

    /// Puts a message in. Tells whether it was taken, which is not to say that it will not be displaced. Whoever
    /// calls it counts what was [queued](Metrics::count_queued), for many at once.
    pub(super) fn put(&self, push: Push) -> bool {
        let mut state = self.lock();
        let len = push.len();
        if push.message.encoded().len() > self.limits.bytes {
            // It would displace all the others, and not fit then: who publishes it has greater limits.
            state.miss(push.subscription);
            self.count_dropped(1);
            return false;
        }
        while !state.overrun && !self.limits.have_room(&state, len) {
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
                    state.bytes -= oldest.len();
                    state.miss(oldest.subscription);
                    self.count_dropped(1);
                    self.count_taken(oldest.len());
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

    /// Ready when there is something to [`take`](Self::take), or when it was overrun.
    pub(super) fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        if state.overrun || !state.waiting.is_empty() {
            return Poll::Ready(());
        }
        state.wait_for(Awaited::Message, cx);
        Poll::Pending
    }

    /// Ready when it was overrun.
    pub(super) fn poll_overrun(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        if state.overrun {
            return Poll::Ready(());
        }
        state.wait_for(Awaited::Overrun, cx);
        Poll::Pending
    }

    /// Takes out what has waited for longest, until it has so many bytes.
    pub(super) fn take(&self, max_bytes: usize, pushes: &mut Vec<Push>) -> Left {
        let mut state = self.lock();
        let mut bytes = 0;
        while bytes < max_bytes {
            let Some(mut push) = state.waiting.pop_front() else {
                break;
            };
            bytes += push.len();
            if !state.missed.is_empty() {
                push.missed = state.missed.remove(&push.subscription).unwrap_or_default();
            }
            pushes.push(push);
        }
        state.bytes -= bytes;
        self.count_taken(bytes);
        state.shrink();
        match (state.overrun, state.waiting.is_empty()) {
            (true, _) => Left::Overrun,
            (false, true) => Left::Nothing,
            (false, false) => Left::More,
        }
    }

    /// Counts a message that was taken and cannot be sent. The next of its subscription says so, which may be among
    /// those that were taken behind it.
    pub(super) fn missed(&self, push: &Push, behind: &mut [Push]) {
        let missed = 1 + push.missed;
        let mut behind = behind.iter_mut();
        match behind.find(|next| next.subscription == push.subscription) {
            Some(next) => next.missed += missed,
            None => {
                let mut state = self.lock();
                *state.missed.entry(push.subscription).or_default() += missed;
            }
        }
        self.count_dropped(1);
    }

    /// Takes out what waits for a subscription that has ended.
    pub(super) fn forget(&self, subscription: u32) {
        let mut state = self.lock();
        state.missed.remove(&subscription);
        let before = state.bytes;
        let State { waiting, bytes, .. } = &mut *state;
        waiting.retain(|push| {
            let ended = push.subscription == subscription;
            if ended {
                *bytes -= push.len();
            }
            !ended
        });
        self.count_taken(before - state.bytes);
        state.shrink();
    }

    fn clear(&self, state: &mut State) {
        self.count_taken(state.bytes);
        state.bytes = 0;
        state.waiting = VecDeque::new();
    }

    fn count_taken(&self, bytes: usize) {
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
        // What is done under the lock leaves it whole, whatever panics.
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
    /// None at all: for whoever has no subscriptions, and publishes what others have to have room for.
    pub(crate) const UNLIMITED: Self = Self {
        bytes: usize::MAX,
        messages: usize::MAX,
        subscriptions: usize::MAX,
        patterns: usize::MAX,
        policy: SlowSubscriber::Drop,
    };

    fn have_room(&self, state: &State, len: usize) -> bool {
        let fits = len <= self.bytes.saturating_sub(state.bytes);
        state.waiting.len() < self.messages && (fits || state.waiting.is_empty())
    }
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

    use super::*;
    use crate::abi::Value;

    fn mailbox(messages: usize, bytes: usize, policy: SlowSubscriber) -> Mailbox {
        let limits = SubscriberLimits {
            bytes,
            messages,
            policy,
            ..SubscriberLimits::UNLIMITED
        };
        Mailbox::new(limits, None)
    }

    /// How many bytes one takes here.
    const LEN: usize = 100 + OWN_LEN;

    /// A message of 100 bytes, encoded.
    fn push(subscription: u32, number: u8) -> Push {
        let response = CommandResponse::from(Value::from(&[number; 93]));
        let message = Arc::new(Prepared::new(&response));
        assert_eq!(message.encoded().len(), 100);
        Push {
            message,
            subscription,
            pattern: None,
            missed: 0,
        }
    }

    /// What is taken: the subscription, the number in the message, and what was missed before it.
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
    fn what_has_waited_for_longest_makes_room_and_is_counted_for_its_subscription() {
        for (messages, bytes) in [
            (3, usize::MAX),
            (usize::MAX, 3 * LEN),
            (usize::MAX, 4 * LEN - 1),
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
    fn what_is_larger_than_all_that_may_wait_is_missed_and_displaces_nothing() {
        for policy in [SlowSubscriber::Drop, SlowSubscriber::Close] {
            let mailbox = mailbox(10, 99, policy);
            let response = CommandResponse::from(Value::from("x"));
            mailbox.put(Push {
                message: Arc::new(Prepared::new(&response)),
                ..push(2, 0)
            });
            assert!(!mailbox.put(push(1, 0)));
            assert_eq!(take(&mailbox, usize::MAX), [(2, b'x', 0)]);
            assert_eq!(mailbox.lock().missed.get(&1), Some(&1));
        }
    }

    #[test]
    fn what_is_as_large_as_all_that_may_wait_waits_alone() {
        let mailbox = mailbox(10, 100, SlowSubscriber::Drop);
        assert!(mailbox.put(push(1, 0)) && mailbox.put(push(1, 1)));
        assert_eq!(take(&mailbox, usize::MAX), [(1, 1, 1)]);
        let mailbox = self::mailbox(10, 100, SlowSubscriber::Close);
        assert!(mailbox.put(push(1, 0)) && !mailbox.put(push(1, 1)));
    }

    #[test]
    fn is_taken_up_to_so_many_bytes_and_one_message_at_least() {
        let mailbox = mailbox(10, 1000, SlowSubscriber::Drop);
        for number in 0..5 {
            mailbox.put(push(1, number));
        }
        let mut pushes = Vec::new();
        for (max_bytes, left, taken) in [
            (1, Left::More, 1),
            (LEN + 1, Left::More, 3),
            (2 * LEN, Left::Nothing, 5),
        ] {
            assert_eq!(mailbox.take(max_bytes, &mut pushes), left);
            assert_eq!(pushes.len(), taken);
        }
        assert_eq!(mailbox.lock().bytes, 0);
    }

    #[test]
    fn an_overrun_is_the_end_where_that_is_the_policy() {
        let mailbox = mailbox(2, 1000, SlowSubscriber::Close);
        assert!(mailbox.put(push(1, 0)) && mailbox.put(push(1, 1)));
        assert!(!mailbox.put(push(1, 2)) && !mailbox.put(push(1, 3)));
        let mut pushes = Vec::new();
        assert_eq!(mailbox.take(usize::MAX, &mut pushes), Left::Overrun);
        assert!(pushes.is_empty());
        let waker = noop_waker();
        let mut cx = Context::from_waker(&waker);
        assert!(mailbox.poll(&mut cx).is_ready() && mailbox.poll_overrun(&mut cx).is_ready());
    }

    #[test]
    fn nothing_comes_for_a_subscription_that_was_forgotten() {
        let mailbox = mailbox(3, 1000, SlowSubscriber::Drop);
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
    fn what_could_not_be_sent_is_missed_with_what_was_missed_before() {
        let mailbox = mailbox(1, 1000, SlowSubscriber::Drop);
        mailbox.put(push(1, 0));
        mailbox.put(push(1, 1));
        let mut pushes = Vec::new();
        mailbox.take(usize::MAX, &mut pushes);
        mailbox.missed(&pushes[0], &mut []);
        mailbox.put(push(1, 2));
        assert_eq!(take(&mailbox, usize::MAX), [(1, 2, 2)]);
    }

    #[test]
    fn what_could_not_be_sent_is_told_with_the_next_that_was_taken_with_it() {
        let mailbox = mailbox(10, 1000, SlowSubscriber::Drop);
        for (subscription, number) in [(1, 0), (2, 1), (1, 2), (1, 3)] {
            mailbox.put(push(subscription, number));
        }
        let mut pushes = Vec::new();
        mailbox.take(usize::MAX, &mut pushes);
        let (first, behind) = pushes.split_first_mut().unwrap();
        mailbox.missed(first, behind);
        let missed: Vec<_> = behind.iter().map(|push| push.missed).collect();
        assert_eq!(missed, [0, 1, 0]);
        assert!(mailbox.lock().missed.is_empty());
    }

    #[test]
    fn a_great_queue_is_given_back_when_it_is_empty() {
        let mailbox = mailbox(1000, usize::MAX, SlowSubscriber::Drop);
        for number in 0..200 {
            mailbox.put(push(1, number));
        }
        take(&mailbox, usize::MAX);
        assert_eq!(mailbox.lock().waiting.capacity(), 0);
    }

    #[test]
    fn who_waits_is_woken_once() {
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
