//! Who is subscribed to what, and the way of a message from its publisher to all subscribers.
//!
//! The publisher itself puts a message into the mailboxes, one after the other, so the messages of
//! one publisher arrive in order. It holds a read lock meanwhile; subscribing and unsubscribing
//! take the write lock. So once a subscription has ended, no publisher is still about to queue a
//! message for it.

use std::sync::Arc;

use dashmap::DashMap;

use super::mailbox::{Mailbox, SubscriberLimits};
use super::patterns::Patterns;
use super::push::MessageMemory;
use super::subscribers::{FanOut, Key, Subscriber, Subscribers, Turn};
use crate::abi::{CommandResponse, Value};
use crate::error::KvError;
use crate::metrics::{Metrics, SubscriptionKind};

/// The nouns for a topic and a pattern in errors.
pub(super) const TOPIC: &str = "topic";
const PATTERN: &str = "pattern";

/// All topics and patterns that have subscribers.
#[derive(Debug, Default)]
pub(crate) struct Topics {
    topics: DashMap<Arc<str>, Subscribers>,
    patterns: Patterns,
    memory: Arc<MessageMemory>,
    metrics: Option<Metrics>,
}

/// Where a subscription is registered: its topic or pattern, and its key there.
#[derive(Debug)]
pub(super) struct Registration {
    pub(super) selector: Selector,
    key: Key,
}

/// What a subscription selects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Selector {
    Topic(Arc<str>),
    Pattern(Arc<str>),
}

/// The outcome of publishing a message.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Published {
    /// Number of subscriptions that queued it.
    pub(crate) reached: usize,
    /// The memory that it takes while it waits for a subscriber, in bytes.
    pub(crate) len: usize,
    /// Steps that publishing took: see [`Turn`].
    pub(crate) steps: usize,
}

impl Topics {
    pub(crate) fn new(metrics: Option<Metrics>) -> Self {
        Self {
            metrics,
            ..Self::default()
        }
    }

    /// The memory of all messages.
    pub(super) fn memory(&self) -> &Arc<MessageMemory> {
        &self.memory
    }

    /// The metrics that count subscriptions and waiting messages, if there are any.
    pub(super) fn metrics(&self) -> Option<&Metrics> {
        self.metrics.as_ref()
    }

    /// Subscribes: messages published from now on are put into `mailbox`.
    pub(super) fn subscribe(
        &self,
        selector: Selector,
        id: u32,
        mailbox: Arc<Mailbox>,
        limits: &SubscriberLimits,
    ) -> Result<Registration, KvError> {
        let subscriber = Subscriber { id, mailbox };
        let kind = selector.kind();
        let (registration, is_new) = match selector {
            Selector::Topic(topic) => {
                let mut subscribers = self.topics.entry(topic).or_default();
                let key = subscribers.insert(subscriber);
                let is_new = subscribers.len() == 1;
                // The key of the map, so that all subscriptions share one copy of the name.
                let selector = Selector::Topic(Arc::clone(subscribers.key()));
                (Registration { selector, key }, is_new)
            }
            Selector::Pattern(text) => {
                let added = self.patterns.subscribe(text, subscriber, limits.patterns)?;
                let selector = Selector::Pattern(added.text);
                let key = added.key;
                (Registration { selector, key }, added.is_new)
            }
        };
        if let Some(metrics) = &self.metrics {
            metrics.subscribed(kind, is_new);
        }
        Ok(registration)
    }

    /// Ends subscriptions: once this returns, no more messages are queued for them.
    pub(super) fn unsubscribe<'a>(
        &self,
        registrations: impl Iterator<Item = &'a Registration> + Clone,
    ) {
        let count = |kind, ended, gone| {
            if let Some(metrics) = &self.metrics {
                metrics.unsubscribed(kind, ended, gone);
            }
        };
        let mut of_patterns = 0;
        for registration in registrations.clone() {
            match &registration.selector {
                Selector::Topic(topic) => {
                    let removed = self.topics.remove_if_mut(topic, |_, subscribers| {
                        subscribers.remove(registration.key);
                        subscribers.len() == 0
                    });
                    count(SubscriptionKind::Topic, 1, usize::from(removed.is_some()));
                }
                Selector::Pattern(_) => of_patterns += 1,
            }
        }
        if of_patterns > 0 {
            let ended = registrations.filter_map(|registration| match &registration.selector {
                Selector::Pattern(text) => Some((&**text, registration.key)),
                Selector::Topic(_) => None,
            });
            let gone = self.patterns.unsubscribe(ended);
            count(SubscriptionKind::Pattern, of_patterns, gone);
        }
    }

    /// Puts a message into the mailboxes of all its subscribers.
    ///
    /// # Errors
    ///
    /// [`KvError::MessageTooLarge`] if it encodes to more than `max_bytes`.
    pub(crate) async fn publish(
        &self,
        topic: String,
        values: Vec<Value>,
        max_bytes: usize,
    ) -> Result<Published, KvError> {
        let response = CommandResponse {
            topic,
            ..CommandResponse::from(values)
        };
        let mut fan_out = FanOut::new(response, Arc::clone(&self.memory));
        if fan_out.len() > max_bytes {
            return Err(KvError::MessageTooLarge {
                len: fan_out.len(),
                limit: max_bytes,
            });
        }
        let mut turn = Turn::default();
        let mut next = Some(Key::MIN);
        while let Some(from) = next {
            turn.yield_if_over().await;
            let subscribers = self.topics.get(fan_out.topic());
            next = subscribers.and_then(|subscribers| {
                self.put(&mut fan_out, &subscribers, from, None, &mut turn)
            });
        }
        if let Some(patterns) = self.patterns.snapshot() {
            for pattern in patterns.values() {
                turn.count(pattern.steps(fan_out.topic().len()));
                turn.yield_if_over().await;
                let mut next = pattern.matches(fan_out.topic()).then_some(Key::MIN);
                while let Some(from) = next {
                    turn.yield_if_over().await;
                    let (to, text) = (pattern.subscribers(), Some(pattern.text()));
                    next = self.put(&mut fan_out, &to, from, text, &mut turn);
                }
            }
        }
        Ok(Published {
            reached: fan_out.reached(),
            len: fan_out.longest(),
            steps: turn.total(),
        })
    }

    /// Puts the message into the mailboxes of `to`. Returns where to continue if the turn ended
    /// before all were served.
    fn put(
        &self,
        fan_out: &mut FanOut,
        to: &Subscribers,
        from: Key,
        pattern: Option<&Arc<str>>,
        turn: &mut Turn,
    ) -> Option<Key> {
        let put = fan_out.put(to, from, pattern, turn);
        if let (Some(metrics), 1..) = (&self.metrics, put.queued) {
            metrics.count_queued(put.queued);
        }
        put.next
    }
}

impl Selector {
    /// The topic, or the pattern.
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Topic(name) | Self::Pattern(name) => name,
        }
    }

    /// What it is called in errors.
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
    /// Number of topics and patterns with subscribers.
    pub(crate) fn len(&self) -> usize {
        self.topics.len() + self.patterns.len()
    }
}
