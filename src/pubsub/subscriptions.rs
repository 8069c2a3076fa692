//! The subscriptions of one connection, and the messages that wait for them.
//!
//! A subscription ends with its connection, however that ends.

use std::collections::HashMap;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::mailbox::{Mailbox, MailboxState, SubscriberLimits};
use super::names::check_selector;
use super::push::Push;
use super::topics::{Registration, Selector, Topics};
use crate::error::{BadRequest, KvError};

/// The subscriptions of a connection, from its first request to its end.
#[derive(Debug)]
pub(crate) struct Subscriptions {
    limits: SubscriberLimits,
    /// Whether there is a connection to send messages on.
    connected: bool,
    /// Present from the first subscription on.
    active: Option<Box<Active>>,
}

#[derive(Debug)]
struct Active {
    topics: Arc<Topics>,
    mailbox: Arc<Mailbox>,
    registrations: HashMap<u32, Registration>,
    last_id: u32,
}

impl Subscriptions {
    /// For a connection.
    pub(crate) fn new(limits: SubscriberLimits) -> Self {
        Self {
            limits,
            connected: true,
            active: None,
        }
    }

    /// For a request that did not come over a connection: it cannot subscribe.
    pub(crate) fn disconnected() -> Self {
        Self {
            connected: false,
            ..Self::new(SubscriberLimits::UNLIMITED)
        }
    }

    /// The limits of all subscriptions together.
    pub(crate) fn limits(&self) -> &SubscriberLimits {
        &self.limits
    }

    /// Ends all subscriptions, for a connection that sends no more messages.
    pub(crate) fn end(&mut self) {
        self.active = None;
    }

    /// Whether there is a subscription.
    pub(crate) fn is_subscribed(&self) -> bool {
        let active = self.active.as_ref();
        active.is_some_and(|active| !active.registrations.is_empty())
    }

    /// Ready when there are messages to [take](Self::take), or when there will be no more. Never
    /// ready before the first subscription.
    pub(crate) fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        match &self.active {
            Some(active) => active.mailbox.poll(cx),
            None => Poll::Pending,
        }
    }

    /// Takes the messages that have waited longest, up to `max_bytes` or one message.
    pub(crate) fn take(&self, max_bytes: usize, pushes: &mut Vec<Push>) -> MailboxState {
        match &self.active {
            Some(active) => active.mailbox.take(max_bytes, pushes),
            None => MailboxState::Empty,
        }
    }

    /// Ready after the mailbox has overflowed, so that the connection has to end.
    pub(crate) fn poll_overrun(&self, cx: &mut Context<'_>) -> Poll<()> {
        match &self.active {
            Some(active) => active.mailbox.poll_overrun(cx),
            None => Poll::Pending,
        }
    }

    /// Counts a message that was taken but cannot be sent. `later` are the messages taken after it.
    pub(crate) fn missed(&self, push: &Push, later: &mut [Push]) {
        if let Some(active) = &self.active {
            active.mailbox.missed(push, later);
        }
    }

    /// Subscribes, and returns the id of the subscription.
    pub(crate) fn subscribe(
        &mut self,
        topics: &Arc<Topics>,
        selector: Selector,
    ) -> Result<u32, KvError> {
        if !self.connected {
            return Err(BadRequest::NoConnection.into());
        }
        check_selector(&selector)?;
        let limits = self.limits;
        let active = self.active.get_or_insert_with(|| {
            Box::new(Active {
                topics: Arc::clone(topics),
                mailbox: Arc::new(Mailbox::new(
                    limits,
                    Arc::clone(topics.memory()),
                    topics.metrics().cloned(),
                )),
                registrations: HashMap::new(),
                last_id: 0,
            })
        });
        // Ids are never reused; when they run out, the client has to connect again.
        let id = active.last_id.checked_add(1);
        let Some(id) = id.filter(|_| active.registrations.len() < limits.subscriptions) else {
            return Err(KvError::TooManySubscriptions {
                limit: limits.subscriptions,
            });
        };
        let mailbox = Arc::clone(&active.mailbox);
        let registration = topics.subscribe(selector, id, mailbox, &limits)?;
        active.last_id = id;
        active.registrations.insert(id, registration);
        Ok(id)
    }

    /// Ends the subscription with this id, if it is for this selector. Messages that wait for it
    /// are dropped.
    pub(crate) fn unsubscribe(&mut self, selector: &Selector, id: u32) -> Result<(), KvError> {
        check_selector(selector)?;
        let active = self.active.as_mut();
        let ended = active.is_some_and(|active| {
            let registration = active.registrations.get(&id);
            let found = registration.is_some_and(|registration| registration.selector == *selector);
            if found {
                active.end(id);
            }
            found
        });
        match ended {
            true => Ok(()),
            false => Err(KvError::NoSubscription {
                noun: selector.noun(),
                name: selector.name().to_owned(),
                id,
            }),
        }
    }
}

impl Active {
    fn end(&mut self, id: u32) {
        if let Some(registration) = self.registrations.remove(&id) {
            self.topics.unsubscribe(std::iter::once(&registration));
            self.mailbox.forget(id);
        }
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.topics.unsubscribe(self.registrations.values());
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::pin::pin;

    use futures::FutureExt;
    use futures::executor::block_on;

    use super::*;
    use crate::abi::{CommandResponse, Value};
    use crate::config::SlowSubscriber;
    use crate::pubsub::names::{MAX_PATTERN_LEN, MAX_TOPIC_LEN};

    const LIMITS: SubscriberLimits = SubscriberLimits {
        all_bytes: usize::MAX,
        bytes: 10_000,
        messages: 100,
        subscriptions: 3,
        patterns: 100,
        policy: SlowSubscriber::Drop,
    };

    fn topic(name: &str) -> Selector {
        Selector::Topic(name.into())
    }

    fn pattern(text: &str) -> Selector {
        Selector::Pattern(text.into())
    }

    fn publish(topics: &Topics, topic: &str) -> usize {
        let values = vec![Value::from(topic)];
        let published = block_on(topics.publish(topic.to_owned(), values, usize::MAX));
        published.unwrap().reached
    }

    /// The subscriptions that messages waited for, with their patterns.
    fn take(subscriptions: &Subscriptions) -> Vec<(u32, Option<String>)> {
        let mut pushes = Vec::new();
        subscriptions.take(usize::MAX, &mut pushes);
        let seen = |push: Push| (push.subscription, push.pattern.map(|text| text.to_string()));
        pushes.into_iter().map(seen).collect()
    }

    #[test]
    fn a_message_reaches_every_matching_subscription() {
        let topics = Arc::new(Topics::default());
        let (mut one, mut other) = (Subscriptions::new(LIMITS), Subscriptions::new(LIMITS));
        assert_eq!(publish(&topics, "a"), 0);
        assert_eq!(one.subscribe(&topics, topic("a")).unwrap(), 1);
        assert_eq!(one.subscribe(&topics, topic("a")).unwrap(), 2);
        assert_eq!(one.subscribe(&topics, pattern("[a-c]*")).unwrap(), 3);
        assert_eq!(other.subscribe(&topics, topic("b")).unwrap(), 1);
        assert_eq!(other.subscribe(&topics, pattern("*")).unwrap(), 2);
        assert_eq!(publish(&topics, "a"), 4);
        assert_eq!(publish(&topics, "b"), 3);
        assert_eq!(publish(&topics, "A"), 1);
        let any = |text: &str| Some(text.to_owned());
        assert_eq!(
            take(&one),
            [(1, None), (2, None), (3, any("[a-c]*")), (3, any("[a-c]*"))]
        );
        assert_eq!(
            take(&other),
            [(2, any("*")), (1, None), (2, any("*")), (2, any("*"))]
        );
    }

    #[test]
    fn unsubscribing_takes_topic_and_id_and_removes_waiting_messages() {
        let topics = Arc::new(Topics::default());
        let mut subscriptions = Subscriptions::new(LIMITS);
        let first = subscriptions.subscribe(&topics, topic("a")).unwrap();
        let second = subscriptions.subscribe(&topics, topic("a")).unwrap();
        let third = subscriptions.subscribe(&topics, pattern("a")).unwrap();
        publish(&topics, "a");
        for (selector, id) in [
            (topic("b"), first),
            (pattern("a"), first),
            (topic("a"), third),
            (topic("a"), 4),
        ] {
            let error = subscriptions.unsubscribe(&selector, id).unwrap_err();
            assert!(matches!(error, KvError::NoSubscription { .. }), "{error}");
        }
        subscriptions.unsubscribe(&topic("a"), first).unwrap();
        subscriptions.unsubscribe(&pattern("a"), third).unwrap();
        assert!(subscriptions.unsubscribe(&topic("a"), first).is_err());
        assert_eq!(take(&subscriptions), [(second, None)]);
        assert_eq!(publish(&topics, "a"), 1);
        subscriptions.unsubscribe(&topic("a"), second).unwrap();
        assert!(!subscriptions.is_subscribed() && topics.len() == 0);
        assert_eq!(
            subscriptions.subscribe(&topics, topic("a")).unwrap(),
            4,
            "ids are not used again"
        );
    }

    #[test]
    fn an_ended_subscription_leaves_nothing_behind() {
        let topics = Arc::new(Topics::default());
        let mut stays = Subscriptions::new(LIMITS);
        stays.subscribe(&topics, topic("a")).unwrap();
        stays.subscribe(&topics, pattern("?")).unwrap();
        for _ in 0..1000 {
            let mut subscriptions = Subscriptions::new(LIMITS);
            subscriptions.subscribe(&topics, topic("a")).unwrap();
            subscriptions.subscribe(&topics, topic("b")).unwrap();
            subscriptions.subscribe(&topics, pattern("?")).unwrap();
            publish(&topics, "a");
        }
        assert_eq!(topics.len(), 2);
        assert_eq!(publish(&topics, "a"), 2);
        drop(stays);
        assert_eq!(topics.len(), 0);
        assert_eq!(publish(&topics, "a"), 0);
    }

    #[test]
    fn a_rejected_subscription_is_an_error_and_costs_nothing() {
        let topics = Arc::new(Topics::default());
        let mut subscriptions = Subscriptions::new(LIMITS);
        let longest = "t".repeat(MAX_TOPIC_LEN);
        let too_long = format!("{longest}t");
        let mut refused = |selector| {
            subscriptions
                .subscribe(&topics, selector)
                .unwrap_err()
                .response()
        };
        for (selector, message) in [
            (
                topic(&too_long),
                "topic of 1025 bytes exceeds the limit of 1024 bytes",
            ),
            (
                pattern(&too_long),
                "pattern of 1025 bytes exceeds the limit of 256 bytes",
            ),
            (
                pattern("a[b"),
                "malformed pattern \"a[b\": the bracket at character 2 is empty or is not closed; \
                 [[] stands for a bracket",
            ),
        ] {
            let response = refused(selector);
            assert_eq!((response.status, response.message.as_str()), (400, message));
        }
        assert_eq!(topics.len(), 0);
        for _ in 0..3 {
            subscriptions.subscribe(&topics, topic(&longest)).unwrap();
        }
        let response = subscriptions
            .subscribe(&topics, topic("a"))
            .unwrap_err()
            .response();
        assert_eq!(response.status, 503);
        subscriptions.unsubscribe(&topic(&longest), 1).unwrap();
        subscriptions.subscribe(&topics, topic("a")).unwrap();
    }

    #[test]
    fn a_message_too_large_reaches_no_subscriber() {
        let topics = Arc::new(Topics::default());
        let mut subscriptions = Subscriptions::new(LIMITS);
        subscriptions.subscribe(&topics, topic("a")).unwrap();
        let publish = |max_bytes| {
            let values = vec![Value::from("x")];
            block_on(topics.publish("a".to_owned(), values, max_bytes))
        };
        let message = CommandResponse {
            topic: "a".to_owned(),
            ..Value::from("x").into()
        };
        let len = prost::Message::encoded_len(&message);
        assert!(publish(usize::MAX).is_ok() && publish(len).is_ok());
        let error = publish(len - 1).unwrap_err();
        assert_eq!(error.status(), 413);
        assert_eq!(take(&subscriptions).len(), 2);
    }

    /// A matcher that tries every way would not come to an end.
    #[test]
    fn a_hostile_pattern_is_matched_like_any_other() {
        let topics = Arc::new(Topics::default());
        let mut subscriptions = Subscriptions::new(LIMITS);
        let name = "a".repeat(MAX_TOPIC_LEN);
        for hostile in [
            "*a".repeat(MAX_PATTERN_LEN / 2 - 1) + "*b",
            "*?".repeat(MAX_PATTERN_LEN / 2 - 1) + "*b",
            "**".to_owned() + &"*a".repeat(100) + "b",
        ] {
            subscriptions.subscribe(&topics, pattern(&hostile)).unwrap();
        }
        assert_eq!(publish(&topics, &name), 0);
        assert_eq!(publish(&topics, &format!("{}b", &name[1..])), 3);
    }

    #[test]
    fn publishing_to_many_patterns_yields_to_other_tasks() {
        let topics = Arc::new(Topics::default());
        let limits = SubscriberLimits {
            subscriptions: 20,
            ..LIMITS
        };
        let mut subscriptions = Subscriptions::new(limits);
        for n in 0..20 {
            let text = format!("{n:02}{}b", "*a".repeat(100));
            subscriptions.subscribe(&topics, pattern(&text)).unwrap();
        }
        let turns = |len: usize| {
            let publish = topics.publish("a".repeat(len), vec![Value::from("x")], usize::MAX);
            let mut publish = pin!(publish);
            let mut turns = 1;
            while publish.as_mut().now_or_never().is_none() {
                turns += 1;
            }
            turns
        };
        // 203 steps for each byte of the topic: of a long one, every pattern is more than a turn.
        assert_eq!((turns(10), turns(1024)), (1, 21));
    }

    #[test]
    fn publishing_to_many_subscribers_yields_to_other_tasks() {
        for selector in [topic("a"), pattern("?")] {
            let topics = Arc::new(Topics::default());
            let limits = SubscriberLimits {
                subscriptions: 10_000,
                messages: 10_000,
                bytes: usize::MAX,
                ..LIMITS
            };
            let mut subscriptions = Subscriptions::new(limits);
            for _ in 0..10_000 {
                subscriptions.subscribe(&topics, selector.clone()).unwrap();
            }
            let mut publish = pin!(topics.publish("a".to_owned(), Vec::new(), usize::MAX));
            let mut reached = Vec::new();
            let published = loop {
                if let Some(published) = publish.as_mut().now_or_never() {
                    break published.unwrap();
                }
                reached.push(take(&subscriptions).len());
            };
            // One who goes meanwhile gets nothing, and one who comes is asked in turn.
            assert_eq!(published.reached, 10_000);
            assert!(reached.len() == 2 && reached.iter().all(|n| (4000..=4096).contains(n)));
            let ids: HashSet<u32> = take(&subscriptions).iter().map(|(id, _)| *id).collect();
            assert_eq!(ids.len() + reached.iter().sum::<usize>(), 10_000);
        }
    }

    #[test]
    fn the_number_of_patterns_of_all_connections_is_limited() {
        let topics = Arc::new(Topics::default());
        let limits = SubscriberLimits {
            patterns: 2,
            ..LIMITS
        };
        let (mut one, mut other) = (Subscriptions::new(limits), Subscriptions::new(limits));
        one.subscribe(&topics, pattern("a*")).unwrap();
        other.subscribe(&topics, pattern("b*")).unwrap();
        let error = other.subscribe(&topics, pattern("c*")).unwrap_err();
        assert!(
            matches!(error, KvError::TooManyPatterns { limit: 2 }),
            "{error}"
        );
        assert_eq!(error.status(), 503);
        // One that is there already, and what is no pattern.
        other.subscribe(&topics, pattern("a*")).unwrap();
        one.subscribe(&topics, topic("c*")).unwrap();
        one.end();
        assert!(other.subscribe(&topics, pattern("c*")).is_err());
        other.unsubscribe(&pattern("a*"), 2).unwrap();
        other.subscribe(&topics, pattern("c*")).unwrap();
        assert_eq!(publish(&topics, "cc"), 1);
    }

    #[test]
    fn a_message_is_encoded_once_for_all_subscribers() {
        let topics = Arc::new(Topics::default());
        let (mut one, mut other) = (Subscriptions::new(LIMITS), Subscriptions::new(LIMITS));
        one.subscribe(&topics, topic("a")).unwrap();
        one.subscribe(&topics, pattern("?")).unwrap();
        other.subscribe(&topics, topic("a")).unwrap();
        other.subscribe(&topics, pattern("*")).unwrap();
        assert_eq!(publish(&topics, "a"), 4);
        let mut pushes = Vec::new();
        one.take(usize::MAX, &mut pushes);
        other.take(usize::MAX, &mut pushes);
        let first = Arc::clone(&pushes[0].message);
        let same = |push: &Push| Arc::ptr_eq(&push.message, &first);
        assert!(pushes.len() == 4 && pushes.iter().all(same));
    }

    #[test]
    fn unsubscribing_from_a_name_too_long_is_an_error() {
        let topics = Arc::new(Topics::default());
        let mut subscriptions = Subscriptions::new(LIMITS);
        subscriptions.subscribe(&topics, topic("a")).unwrap();
        let long = topic(&"t".repeat(MAX_TOPIC_LEN + 1));
        assert_eq!(
            subscriptions.unsubscribe(&long, 1).unwrap_err().status(),
            400
        );
    }
}
