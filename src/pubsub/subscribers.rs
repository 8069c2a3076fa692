//! Those who are subscribed to the same, and the way of a message to each of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::task::yield_now;

use super::mailbox::{Mailbox, Push};
use crate::abi::CommandResponse;
use crate::codec::Prepared;

/// A subscription's place among those to the same.
pub(super) type Key = u64;

/// A subscription, as one who publishes sees it.
#[derive(Debug)]
pub(super) struct Subscriber {
    pub(super) id: u32,
    pub(super) mailbox: Arc<Mailbox>,
}

/// What came of putting a message before several.
#[derive(Debug, Default)]
pub(super) struct Put {
    /// How many bytes wait for them now.
    pub(super) queued: usize,
    /// Whose turn it is next, if there was no time for all.
    pub(super) next: Option<Key>,
}

/// Those who are subscribed to a topic or to a pattern, in the order in which they came. What many of them took is
/// given back when they go.
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

/// How many steps it takes to look for a topic in patterns, and to put a message before subscribers, until the others
/// have their turn: some 100 µs.
const STEPS_A_TURN: usize = 64 * 1024;

/// How many steps it is to put a message before a subscriber.
const STEPS_A_PUT: usize = 16;

/// What one who publishes has done since the others had their turn.
#[derive(Debug, Default)]
pub(super) struct Turn {
    steps: usize,
    /// How many steps there were in turns that are over.
    before: usize,
}

impl Turn {
    pub(super) fn count(&mut self, steps: usize) {
        self.steps = self.steps.saturating_add(steps);
    }

    /// Gives the others their turn, if it is time.
    pub(super) async fn give_way(&mut self) {
        if self.is_over() {
            self.before = self.before.saturating_add(self.steps);
            self.steps = 0;
            yield_now().await;
        }
    }

    /// How many steps there were.
    pub(super) fn all(&self) -> usize {
        self.before.saturating_add(self.steps)
    }

    fn is_over(&self) -> bool {
        self.steps >= STEPS_A_TURN
    }
}

/// A message on its way to several.
#[derive(Debug)]
pub(super) struct FanOut {
    response: CommandResponse,
    /// Its length, encoded.
    len: usize,
    /// The length of the longest frame that it became.
    longest: usize,
    /// Encoded once there is somebody to get it.
    message: Option<Arc<Prepared<CommandResponse>>>,
    /// How many subscriptions took it.
    reached: usize,
}

impl FanOut {
    pub(super) fn new(response: CommandResponse) -> Self {
        Self {
            len: prost::Message::encoded_len(&response),
            response,
            longest: 0,
            message: None,
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

    /// Puts it into the mailboxes of these from the one with this key on, who are subscribed to this pattern, or to its
    /// topic.
    pub(super) fn put(
        &mut self,
        to: &Subscribers,
        from: Key,
        pattern: Option<&Arc<str>>,
        turn: &mut Turn,
    ) -> Put {
        let mut put = Put::default();
        let message = self
            .message
            .get_or_insert_with(|| Arc::new(Prepared::new(&self.response)));
        for (key, subscriber) in to.subscribers.range(from..) {
            if turn.is_over() {
                put.next = Some(*key);
                break;
            }
            turn.count(STEPS_A_PUT);
            let push = Push {
                message: Arc::clone(message),
                subscription: subscriber.id,
                pattern: pattern.cloned(),
                missed: 0,
            };
            let len = push.len();
            if subscriber.mailbox.put(push) {
                self.reached += 1;
                self.longest = self.longest.max(len);
                put.queued += len;
            }
        }
        put
    }
}
