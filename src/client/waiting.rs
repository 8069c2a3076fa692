//! The messages that have arrived and have not been read.
//!
//! The queue absorbs a burst that arrives before the reader runs. It is bounded, so that an unread
//! subscription uses bounded memory and holds up nothing else on its connection. Beyond the bound
//! the oldest messages are dropped, and the next message that is read says how many.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;
use std::sync::Arc;

use super::error::ClientError;
use super::message::Message;

/// The maximum number of queued messages.
const MAX_WAITING: usize = 64 * 1024;

/// The maximum bytes of memory of the queued messages, unless the newest alone exceeds it.
const MAX_WAITING_BYTES: usize = 16 * 1024 * 1024;

/// The largest capacity, in messages, that an empty queue keeps.
const KEPT_CAPACITY: usize = 64;

#[derive(Default)]
pub(super) struct Waiting {
    items: VecDeque<Item>,
    /// A gap that was dropped with older messages.
    dropped_gap: Option<Arc<ClientError>>,
    /// The bytes of memory that the queued messages hold.
    bytes: usize,
    /// For each subscription, the messages dropped since one of its messages was last read.
    missed: HashMap<u32, u64>,
}

/// What a reader receives.
#[derive(Debug)]
pub(super) enum Item {
    Message(Message),
    /// Messages may have been missed here, for this reason.
    Gap(Arc<ClientError>),
}

impl Item {
    fn subscription(&self) -> Option<u32> {
        match self {
            Self::Message(message) => Some(message.subscription),
            Self::Gap(_) => None,
        }
    }

    /// The message, for callers that never see a gap.
    pub(super) fn into_message(self) -> Option<Message> {
        match self {
            Self::Message(message) => Some(message),
            Self::Gap(_) => None,
        }
    }
}

impl Waiting {
    /// Marks that messages may have been missed after those that are queued.
    pub(super) fn gap(&mut self, reason: Arc<ClientError>) {
        if let Some(Item::Gap(last)) = self.items.back_mut() {
            *last = reason;
            return;
        }
        // After the gap the same id belongs to another subscription.
        let items = self.items.iter();
        let waiting: HashSet<_> = items.filter_map(Item::subscription).collect();
        self.missed.retain(|id, _| waiting.contains(id));
        self.items.push_back(Item::Gap(reason));
    }

    /// Appends the newest message, and drops the oldest ones if the bound is exceeded.
    pub(super) fn push(&mut self, message: Message) {
        self.bytes += message.memory();
        self.items.push_back(Item::Message(message));
        while self.items.len() > 1 && self.is_over() {
            match self.items.pop_front() {
                None => return,
                Some(Item::Gap(reason)) => self.dropped_gap = Some(reason),
                Some(Item::Message(oldest)) => {
                    self.bytes -= oldest.memory();
                    let missed = self.missed.entry(oldest.subscription).or_default();
                    // The server's count is not trusted, so it must not overflow.
                    *missed = missed.saturating_add(1).saturating_add(oldest.missed);
                }
            }
        }
    }

    /// Removes and returns the oldest message or gap.
    pub(super) fn pop(&mut self) -> Option<Item> {
        if let Some(reason) = self.dropped_gap.take() {
            return Some(Item::Gap(reason));
        }
        let mut item = self.items.pop_front()?;
        if let Item::Message(message) = &mut item {
            self.bytes -= message.memory();
            // Every dropped message is older than every queued one.
            let missed = self.missed.remove(&message.subscription).unwrap_or(0);
            message.missed = message.missed.saturating_add(missed);
        }
        if self.items.is_empty() && self.items.capacity() > KEPT_CAPACITY {
            // Free the memory after a burst.
            self.items = VecDeque::new();
        }
        Some(item)
    }

    fn is_over(&self) -> bool {
        self.items.len() > MAX_WAITING || self.bytes > MAX_WAITING_BYTES
    }
}

/// Prints counts only, so that no published data ends up in logs.
impl fmt::Debug for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waiting")
            .field("messages", &self.items.len())
            .field("bytes", &self.bytes)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::CommandResponse;

    fn message(subscription: u32, topic: &str) -> Message {
        let push = CommandResponse {
            subscription,
            topic: topic.to_owned(),
            ..CommandResponse::ok()
        };
        Message::of_push(push, false)
    }

    fn taken(waiting: &mut Waiting) -> Vec<(String, u64)> {
        std::iter::from_fn(|| waiting.pop()?.into_message())
            .map(|message| (message.topic, message.missed))
            .collect()
    }

    #[test]
    fn oldest_messages_are_dropped_and_counted_in_the_next_one() {
        let first = "first".to_owned();
        let room = MAX_WAITING_BYTES - first.len();
        for (len, fits) in [(room - 1, true), (room, true), (room + 1, false)] {
            let mut waiting = Waiting::default();
            waiting.push(Message {
                missed: 5,
                ..message(1, &first)
            });
            let large = "x".repeat(len);
            waiting.push(message(1, &large));
            let expected = if fits {
                vec![(first.clone(), 5), (large, 0)]
            } else {
                vec![(large, 6)]
            };
            assert!(taken(&mut waiting) == expected, "{len}");
            assert_eq!(waiting.bytes, 0);
        }
    }

    #[test]
    fn message_over_the_bound_is_queued_alone() {
        let mut waiting = Waiting::default();
        let large = "x".repeat(2 * MAX_WAITING_BYTES);
        waiting.push(message(1, "small"));
        waiting.push(message(1, &large));
        assert!(taken(&mut waiting) == [(large, 1)]);
    }

    #[test]
    fn missed_messages_are_counted_for_each_subscription() {
        let mut waiting = Waiting::default();
        // Two of them fit, and nothing else.
        let large = "x".repeat(MAX_WAITING_BYTES / 2);
        for subscription in [1, 2, 1, 1, 2] {
            waiting.push(message(subscription, &large));
        }
        waiting.push(message(2, ""));
        for missed in [(1, 2), (2, 1), (2, 0)] {
            let left = waiting.pop().and_then(Item::into_message).unwrap();
            assert_eq!((left.subscription, left.missed), missed);
        }
        assert!(waiting.pop().is_none());
        assert!(waiting.missed.is_empty());
    }

    #[test]
    fn missed_count_saturates_at_the_maximum() {
        let mut waiting = Waiting::default();
        // Two of them fit, and nothing else.
        let large = "x".repeat(MAX_WAITING_BYTES / 2);
        for missed in [u64::MAX, u64::MAX, 7, 0] {
            let message = message(1, &large);
            waiting.push(Message { missed, ..message });
        }
        assert!(taken(&mut waiting) == [(large.clone(), u64::MAX), (large, 0)]);
    }

    #[test]
    fn number_of_queued_messages_is_bounded_however_small_they_are() {
        for (count, missed) in [(MAX_WAITING, 0), (MAX_WAITING + 7, 7)] {
            let mut waiting = Waiting::default();
            for _ in 0..count {
                waiting.push(message(1, ""));
            }
            let taken = taken(&mut waiting);
            assert_eq!((taken[0].1, taken.len()), (missed, MAX_WAITING));
            assert!(waiting.items.capacity() <= KEPT_CAPACITY);
        }
    }
}
