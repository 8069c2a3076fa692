//! Who is subscribed to what, and the way of a message from one who publishes to all of them.
//!
//! A message is put into the mailboxes of its subscribers by the one who publishes it, one after the other, so that
//! messages of one publisher come in their order. It is done under a lock that to subscribe and to unsubscribe
//! need for themselves: once a subscription has ended, nobody is about to put something in for it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use dashmap::DashMap;
use slab::Slab;

use super::mailbox::{Mailbox, Push};
use crate::abi::{CommandResponse, Value};
use crate::codec::Prepared;
use crate::error::{BadRequest, KvError};
use crate::metrics::{Metrics, SubscriptionKind};

/// What errors call a topic, and a pattern.
pub(super) const TOPIC: &str = "topic";
const PATTERN: &str = "pattern";

/// The topics that somebody is subscribed to, and the patterns.
#[derive(Debug, Default)]
pub(super) struct Topics {
    topics: DashMap<Arc<str>, Slab<Subscriber>>,
    patterns: RwLock<HashMap<Arc<str>, Pattern>>,
    /// How many patterns there are, so that to publish where there are none takes no lock.
    pattern_count: AtomicUsize,
    metrics: Option<Metrics>,
}

/// A subscription, as one who publishes sees it.
#[derive(Debug)]
struct Subscriber {
    id: u32,
    mailbox: Arc<Mailbox>,
}

#[derive(Debug)]
struct Pattern {
    glob: glob::Pattern,
    subscribers: Slab<Subscriber>,
}

/// What a subscription is for, and its place there.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) selector: Selector,
    slot: usize,
}

/// What a subscription is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Selector {
    Topic(Arc<str>),
    Pattern(Arc<str>),
}

/// What came of a message.
#[derive(Debug)]
pub(super) struct Published {
    /// How many subscriptions took it.
    pub(super) reached: usize,
    /// How many bytes it has, encoded.
    pub(super) len: usize,
}

impl Topics {
    pub(super) fn new(metrics: Option<Metrics>) -> Self {
        Self {
            metrics,
            ..Self::default()
        }
    }

    /// Where subscriptions, and what waits for them, are counted.
    pub(super) fn metrics(&self) -> Option<&Metrics> {
        self.metrics.as_ref()
    }

    /// Has what is published from here on put into this mailbox.
    pub(super) fn subscribe(
        &self,
        selector: Selector,
        id: u32,
        mailbox: Arc<Mailbox>,
    ) -> Result<Place, BadRequest> {
        let subscriber = Subscriber { id, mailbox };
        let (slot, is_new) = match &selector {
            Selector::Topic(topic) => {
                let mut subscribers = self.topics.entry(Arc::clone(topic)).or_default();
                (subscribers.insert(subscriber), subscribers.len() == 1)
            }
            Selector::Pattern(pattern) => self.subscribe_to_pattern(pattern, subscriber)?,
        };
        if let Some(metrics) = &self.metrics {
            metrics.subscribed(selector.kind(), is_new);
        }
        Ok(Place { selector, slot })
    }

    fn subscribe_to_pattern(
        &self,
        text: &Arc<str>,
        subscriber: Subscriber,
    ) -> Result<(usize, bool), BadRequest> {
        let glob = glob::Pattern::new(text).map_err(|error| BadRequest::BadPattern {
            position: error.pos,
            reason: error.msg,
        })?;
        let mut patterns = self
            .patterns
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let pattern = patterns.entry(Arc::clone(text)).or_insert_with(|| Pattern {
            glob,
            subscribers: Slab::new(),
        });
        let slot = pattern.subscribers.insert(subscriber);
        let is_new = pattern.subscribers.len() == 1;
        self.pattern_count.store(patterns.len(), Ordering::Release);
        Ok((slot, is_new))
    }

    /// Ends a subscription: once this returns, nothing more is put in for it.
    pub(super) fn unsubscribe(&self, place: &Place) {
        let was_last = match &place.selector {
            Selector::Topic(topic) => {
                let removed = self.topics.remove_if_mut(topic, |_, subscribers| {
                    subscribers.try_remove(place.slot);
                    subscribers.is_empty()
                });
                removed.is_some()
            }
            Selector::Pattern(text) => {
                let mut patterns = self
                    .patterns
                    .write()
                    .unwrap_or_else(PoisonError::into_inner);
                let left = patterns.get_mut(text).map(|pattern| {
                    pattern.subscribers.try_remove(place.slot);
                    pattern.subscribers.len()
                });
                if left == Some(0) {
                    patterns.remove(text);
                }
                self.pattern_count.store(patterns.len(), Ordering::Release);
                left == Some(0)
            }
        };
        if let Some(metrics) = &self.metrics {
            metrics.unsubscribed(place.selector.kind(), was_last);
        }
    }

    /// Puts a message into the mailboxes of those who are subscribed.
    ///
    /// # Errors
    ///
    /// [`KvError::MessageTooLarge`] where it has more bytes than this.
    pub(super) fn publish(
        &self,
        topic: String,
        values: Vec<Value>,
        max_bytes: usize,
    ) -> Result<Published, KvError> {
        let response = CommandResponse {
            topic,
            ..CommandResponse::from(values)
        };
        let topic = response.topic.as_str();
        let len = prost::Message::encoded_len(&response);
        if len > max_bytes {
            return Err(KvError::MessageTooLarge {
                len,
                limit: max_bytes,
            });
        }
        let mut fan_out = FanOut {
            response: &response,
            message: None,
            reached: 0,
        };
        if let Some(subscribers) = self.topics.get(topic) {
            fan_out.put(&subscribers, None);
        }
        if self.pattern_count.load(Ordering::Acquire) > 0 {
            let patterns = self.patterns.read().unwrap_or_else(PoisonError::into_inner);
            for (text, pattern) in &*patterns {
                if pattern.glob.matches(topic) {
                    fan_out.put(&pattern.subscribers, Some(text));
                }
            }
        }
        let reached = fan_out.reached;
        if let (Some(metrics), 1..) = (&self.metrics, reached) {
            metrics.count_queued(reached * len);
        }
        Ok(Published { reached, len })
    }
}

/// A message on its way to several.
struct FanOut<'a> {
    response: &'a CommandResponse,
    /// Encoded once there is somebody to get it.
    message: Option<Arc<Prepared<CommandResponse>>>,
    reached: usize,
}

impl FanOut<'_> {
    fn put(&mut self, subscribers: &Slab<Subscriber>, pattern: Option<&Arc<str>>) {
        let message = self
            .message
            .get_or_insert_with(|| Arc::new(Prepared::new(self.response)));
        for (_, subscriber) in subscribers {
            let taken = subscriber.mailbox.put(Push {
                message: Arc::clone(message),
                subscription: subscriber.id,
                pattern: pattern.cloned(),
                missed: 0,
            });
            self.reached += usize::from(taken);
        }
    }
}

impl Selector {
    /// The topic, or the pattern.
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Topic(name) | Self::Pattern(name) => name,
        }
    }

    /// What it is, for an error.
    pub(super) fn noun(&self) -> &'static str {
        match self {
            Self::Topic(_) => TOPIC,
            Self::Pattern(_) => PATTERN,
        }
    }

    fn kind(&self) -> SubscriptionKind {
        match self {
            Self::Topic(_) => SubscriptionKind::Topic,
            Self::Pattern(_) => SubscriptionKind::Pattern,
        }
    }
}

#[cfg(test)]
impl Topics {
    /// How many topics and patterns somebody is subscribed to.
    pub(super) fn len(&self) -> usize {
        self.topics.len() + self.patterns.read().unwrap().len()
    }
}
