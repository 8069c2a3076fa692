//! Those who are subscribed to the same, and the way of a message to each of them.

use std::collections::BTreeMap;
use std::sync::Arc;

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

/// A message on its way to several.
#[derive(Debug)]
pub(super) struct FanOut {
    response: CommandResponse,
    /// Its length, encoded.
    len: usize,
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

    pub(super) fn reached(&self) -> usize {
        self.reached
    }

    /// Puts it into the mailboxes of these, who are subscribed to this pattern, or to its topic. Tells how many bytes
    /// wait for them now.
    pub(super) fn put(&mut self, to: &Subscribers, pattern: Option<&Arc<str>>) -> usize {
        let mut queued = 0;
        let message = self
            .message
            .get_or_insert_with(|| Arc::new(Prepared::new(&self.response)));
        for subscriber in to.subscribers.values() {
            let push = Push {
                message: Arc::clone(message),
                subscription: subscriber.id,
                pattern: pattern.cloned(),
                missed: 0,
            };
            let len = push.len();
            if subscriber.mailbox.put(push) {
                self.reached += 1;
                queued += len;
            }
        }
        queued
    }
}
