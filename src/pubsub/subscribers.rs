//! The subscribers of one topic or pattern, and the fan-out of a message to them.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::task::yield_now;

use super::mailbox::Mailbox;
use super::push::{MessageMemory, PUSH_MEMORY, Push, SharedMessage};
use crate::abi::CommandResponse;

/// Identifies a subscription among those to the same topic or pattern.
pub(super) type Key = u64;

/// A subscription, as a publisher sees it.
#[derive(Debug)]
pub(super) struct Subscriber {
    pub(super) id: u32,
    pub(super) mailbox: Arc<Mailbox>,
}

/// The outcome of putting a message into several mailboxes.
#[derive(Debug, Default)]
pub(super) struct Put {
    /// Bytes that were queued.
    pub(super) queued: usize,
    /// Where to continue, if the turn ended before all were served.
    pub(super) next: Option<Key>,
}

/// The subscribers of a topic or pattern, in the order in which they subscribed. A tree, because it
/// gives memory back as they leave.
#[derive(Debug, Default)]
pub(super) struct Subscribers {
    subscribers: BTreeMap<Key, Subscriber>,
    next: Key,
}

impl Subscribers {
    pub(super) fn insert(&mut self, subscriber: Subscriber) -> Key {
        let key = self.next;
        self.next += 1;
        self.subscribers.insert(key, subscriber);
        key
    }

    pub(super) fn remove(&mut self, key: Key) {
        self.subscribers.remove(&key);
    }

    pub(super) fn len(&self) -> usize {
        self.subscribers.len()
    }
}

/// Steps of matching patterns and filling mailboxes after which a publisher yields to other tasks:
/// about 100 µs.
const STEPS_PER_TURN: usize = 64 * 1024;

/// Steps that it takes to put a message into one mailbox.
const STEPS_PER_PUT: usize = 16;

/// The work that a publisher has done since it last yielded to other tasks.
#[derive(Debug, Default)]
pub(super) struct Turn {
    steps: usize,
    /// Steps of earlier turns.
    earlier: usize,
}

impl Turn {
    pub(super) fn count(&mut self, steps: usize) {
        self.steps = self.steps.saturating_add(steps);
    }

    /// Yields to other tasks if the turn is over.
    pub(super) async fn yield_if_over(&mut self) {
        if self.is_over() {
            self.earlier = self.earlier.saturating_add(self.steps);
            self.steps = 0;
            yield_now().await;
        }
    }

    /// Steps of all turns.
    pub(super) fn total(&self) -> usize {
        self.earlier.saturating_add(self.steps)
    }

    fn is_over(&self) -> bool {
        self.steps >= STEPS_PER_TURN
    }
}

/// A message on its way to its subscribers.
#[derive(Debug)]
pub(super) struct FanOut {
    response: CommandResponse,
    /// Encoded length of `response`, in bytes.
    len: usize,
    /// The memory of the largest push so far, in bytes.
    longest: usize,
    /// Encoded for the first subscriber, then shared.
    message: Option<Arc<SharedMessage>>,
    /// The memory of all messages.
    memory: Arc<MessageMemory>,
    /// Number of subscriptions that queued it.
    reached: usize,
}

impl FanOut {
    pub(super) fn new(response: CommandResponse, memory: Arc<MessageMemory>) -> Self {
        Self {
            len: prost::Message::encoded_len(&response),
            response,
            longest: 0,
            message: None,
            memory,
            reached: 0,
        }
    }

    pub(super) fn topic(&self) -> &str {
        &self.response.topic
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn longest(&self) -> usize {
        self.longest
    }

    pub(super) fn reached(&self) -> usize {
        self.reached
    }

    /// Puts the message into the mailboxes of `to`, beginning with key `from`, until the turn is
    /// over. `pattern` is what they are subscribed to; [`None`] means the topic itself.
    pub(super) fn put(
        &mut self,
        to: &Subscribers,
        from: Key,
        pattern: Option<&Arc<str>>,
        turn: &mut Turn,
    ) -> Put {
        let mut put = Put::default();
        let reached = self.reached;
        let message = self.message.get_or_insert_with(|| {
            Arc::new(SharedMessage::new(&self.response, Arc::clone(&self.memory)))
        });
        for (key, subscriber) in to.subscribers.range(from..) {
            if turn.is_over() {
                put.next = Some(*key);
                break;
            }
            turn.count(STEPS_PER_PUT);
            let push = Push {
                message: Arc::clone(message),
                subscription: subscriber.id,
                pattern: pattern.cloned(),
                missed: 0,
            };
            let memory = push.memory();
            if subscriber.mailbox.put(push) {
                self.reached += 1;
                self.longest = self.longest.max(memory);
                put.queued += memory;
            }
        }
        self.memory.add((self.reached - reached) * PUSH_MEMORY);
        put
    }
}
