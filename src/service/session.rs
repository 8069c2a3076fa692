//! What a connection has at the service: its subscriptions, and what waits for them.
//!
//! A subscription ends with the session that it belongs to, however that ends.

use std::collections::HashMap;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::mailbox::{Left, Mailbox, Push, SubscriberLimits};
use super::topics::{Place, Selector, Topics};
use crate::error::{BadRequest, KvError};

/// The greatest length of a topic or a pattern, in bytes. To match a topic against a pattern takes at most as many
/// steps as the product of their lengths.
pub(crate) const MAX_TOPIC_LEN: usize = 1024;

/// One connection's, from its first request to its end.
#[derive(Debug)]
pub(crate) struct Session {
    limits: SubscriberLimits,
    /// Whether what is published can be sent to it.
    connected: bool,
    /// From the first subscription on.
    subscriptions: Option<Box<Subscriptions>>,
}

#[derive(Debug)]
struct Subscriptions {
    topics: Arc<Topics>,
    mailbox: Arc<Mailbox>,
    places: HashMap<u32, Place>,
    last_id: u32,
}

impl Session {
    /// For a connection.
    pub(crate) fn new(limits: SubscriberLimits) -> Self {
        Self {
            limits,
            connected: true,
            subscriptions: None,
        }
    }

    /// For a request that did not come by a connection: it can have no subscriptions.
    pub(crate) fn disconnected() -> Self {
        Self {
            connected: false,
            ..Self::new(SubscriberLimits::UNLIMITED)
        }
    }

    /// What all the subscriptions may take.
    pub(crate) fn limits(&self) -> &SubscriberLimits {
        &self.limits
    }

    /// Ends all subscriptions; for a connection that sends nothing more of what is published.
    pub(crate) fn end(&mut self) {
        self.subscriptions = None;
    }

    /// Whether there is a subscription.
    pub(crate) fn is_subscribed(&self) -> bool {
        let subscriptions = self.subscriptions.as_ref();
        subscriptions.is_some_and(|subscriptions| !subscriptions.places.is_empty())
    }

    /// Ready when there is something to [take](Self::take), or nothing more will be; never for a session that has
    /// had no subscription.
    pub(crate) fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        match &self.subscriptions {
            Some(subscriptions) => subscriptions.mailbox.poll(cx),
            None => Poll::Pending,
        }
    }

    /// Takes what has waited for longest, up to so many bytes or one message.
    pub(crate) fn take(&self, max_bytes: usize, pushes: &mut Vec<Push>) -> Left {
        match &self.subscriptions {
            Some(subscriptions) => subscriptions.mailbox.take(max_bytes, pushes),
            None => Left::Nothing,
        }
    }

    /// Counts a message that was taken and cannot be sent.
    pub(crate) fn missed(&self, push: &Push) {
        if let Some(subscriptions) = &self.subscriptions {
            subscriptions.mailbox.missed(push);
        }
    }

    /// Makes a subscription and returns its id.
    pub(super) fn subscribe(
        &mut self,
        topics: &Arc<Topics>,
        selector: Selector,
    ) -> Result<u32, KvError> {
        if !self.connected {
            return Err(BadRequest::NoConnection.into());
        }
        check_len(selector.noun(), selector.name())?;
        let limits = self.limits;
        let subscriptions = self.subscriptions.get_or_insert_with(|| {
            Box::new(Subscriptions {
                topics: Arc::clone(topics),
                mailbox: Arc::new(Mailbox::new(limits, topics.metrics().cloned())),
                places: HashMap::new(),
                last_id: 0,
            })
        });
        // Ids are not used again, and when there are no more the client has to connect again.
        let id = subscriptions.last_id.checked_add(1);
        let Some(id) = id.filter(|_| subscriptions.places.len() < limits.subscriptions) else {
            return Err(KvError::TooManySubscriptions {
                limit: limits.subscriptions,
            });
        };
        let mailbox = Arc::clone(&subscriptions.mailbox);
        let place = topics.subscribe(selector, id, mailbox)?;
        subscriptions.last_id = id;
        subscriptions.places.insert(id, place);
        Ok(id)
    }

    /// Ends the subscription with this id, if it is for that. Nothing that waits for it is sent any more.
    pub(super) fn unsubscribe(&mut self, selector: &Selector, id: u32) -> Result<(), KvError> {
        let subscriptions = self.subscriptions.as_mut();
        let ended = subscriptions.is_some_and(|subscriptions| {
            let place = subscriptions.places.get(&id);
            let found = place.is_some_and(|place| place.selector == *selector);
            if found {
                subscriptions.end(id);
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

impl Subscriptions {
    fn end(&mut self, id: u32) {
        if let Some(place) = self.places.remove(&id) {
            self.topics.unsubscribe(&place);
            self.mailbox.forget(id);
        }
    }
}

impl Drop for Subscriptions {
    fn drop(&mut self) {
        for place in self.places.values() {
            self.topics.unsubscribe(place);
        }
    }
}

/// Whether a topic or a pattern is no longer than it may be.
pub(super) fn check_len(noun: &'static str, name: &str) -> Result<(), BadRequest> {
    let (len, limit) = (name.len(), MAX_TOPIC_LEN);
    if len > limit {
        return Err(BadRequest::TopicTooLong { noun, len, limit });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::Value;
    use crate::config::SlowSubscriber;

    const LIMITS: SubscriberLimits = SubscriberLimits {
        bytes: 10_000,
        messages: 100,
        subscriptions: 3,
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
        let published = topics.publish(topic.to_owned(), values, usize::MAX);
        published.unwrap().reached
    }

    /// The subscriptions that something waited for, and the patterns that these are for.
    fn take(session: &Session) -> Vec<(u32, Option<String>)> {
        let mut pushes = Vec::new();
        session.take(usize::MAX, &mut pushes);
        let seen = |push: Push| (push.subscription, push.pattern.map(|text| text.to_string()));
        pushes.into_iter().map(seen).collect()
    }

    #[test]
    fn a_message_reaches_every_subscription_that_is_for_it() {
        let topics = Arc::new(Topics::default());
        let (mut one, mut other) = (Session::new(LIMITS), Session::new(LIMITS));
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
    fn a_subscription_ends_by_its_topic_and_its_id_and_what_waits_for_it_goes() {
        let topics = Arc::new(Topics::default());
        let mut session = Session::new(LIMITS);
        let first = session.subscribe(&topics, topic("a")).unwrap();
        let second = session.subscribe(&topics, topic("a")).unwrap();
        let third = session.subscribe(&topics, pattern("a")).unwrap();
        publish(&topics, "a");
        for (selector, id) in [
            (topic("b"), first),
            (pattern("a"), first),
            (topic("a"), third),
            (topic("a"), 4),
        ] {
            let error = session.unsubscribe(&selector, id).unwrap_err();
            assert!(matches!(error, KvError::NoSubscription { .. }), "{error}");
        }
        session.unsubscribe(&topic("a"), first).unwrap();
        session.unsubscribe(&pattern("a"), third).unwrap();
        assert!(session.unsubscribe(&topic("a"), first).is_err());
        assert_eq!(take(&session), [(second, None)]);
        assert_eq!(publish(&topics, "a"), 1);
        session.unsubscribe(&topic("a"), second).unwrap();
        assert!(!session.is_subscribed() && topics.len() == 0);
        assert_eq!(
            session.subscribe(&topics, topic("a")).unwrap(),
            4,
            "ids are not used again"
        );
    }

    #[test]
    fn a_session_that_ends_leaves_nothing_behind() {
        let topics = Arc::new(Topics::default());
        let mut stays = Session::new(LIMITS);
        stays.subscribe(&topics, topic("a")).unwrap();
        stays.subscribe(&topics, pattern("?")).unwrap();
        for _ in 0..1000 {
            let mut session = Session::new(LIMITS);
            session.subscribe(&topics, topic("a")).unwrap();
            session.subscribe(&topics, topic("b")).unwrap();
            session.subscribe(&topics, pattern("?")).unwrap();
            publish(&topics, "a");
        }
        assert_eq!(topics.len(), 2);
        assert_eq!(publish(&topics, "a"), 2);
        drop(stays);
        assert_eq!(topics.len(), 0);
        assert_eq!(publish(&topics, "a"), 0);
    }

    #[test]
    fn what_cannot_be_subscribed_to_is_told_and_costs_nothing() {
        let topics = Arc::new(Topics::default());
        let mut session = Session::new(LIMITS);
        let longest = "t".repeat(MAX_TOPIC_LEN);
        let too_long = format!("{longest}t");
        let mut refused = |selector| session.subscribe(&topics, selector).unwrap_err().response();
        for (selector, message) in [
            (
                topic(&too_long),
                "topic of 1025 bytes exceeds the limit of 1024 bytes",
            ),
            (
                pattern(&too_long),
                "pattern of 1025 bytes exceeds the limit of 1024 bytes",
            ),
            (
                pattern("a[b"),
                "malformed pattern, at character 1: invalid range pattern",
            ),
            (
                pattern("***"),
                "malformed pattern, at character 2: wildcards are either regular `*` or recursive `**`",
            ),
        ] {
            let response = refused(selector);
            assert_eq!((response.status, response.message.as_str()), (400, message));
        }
        assert_eq!(topics.len(), 0);
        for _ in 0..3 {
            session.subscribe(&topics, topic(&longest)).unwrap();
        }
        let response = session
            .subscribe(&topics, topic("a"))
            .unwrap_err()
            .response();
        assert_eq!(response.status, 503);
        session.unsubscribe(&topic(&longest), 1).unwrap();
        session.subscribe(&topics, topic("a")).unwrap();
    }

    #[test]
    fn a_message_that_is_too_large_reaches_nobody() {
        let topics = Arc::new(Topics::default());
        let mut session = Session::new(LIMITS);
        session.subscribe(&topics, topic("a")).unwrap();
        let publish = |max_bytes| topics.publish("a".to_owned(), vec![Value::from("x")], max_bytes);
        let len = publish(usize::MAX).unwrap().len;
        assert!(publish(len).is_ok());
        let error = publish(len - 1).unwrap_err();
        assert_eq!(error.status(), 413);
        assert_eq!(take(&session).len(), 2);
    }

    /// A matcher that tries every way would not come to an end.
    #[test]
    fn a_hostile_pattern_is_matched_like_any_other() {
        let topics = Arc::new(Topics::default());
        let mut session = Session::new(LIMITS);
        let name = "a".repeat(MAX_TOPIC_LEN);
        for hostile in [
            "*a".repeat(MAX_TOPIC_LEN / 2 - 1) + "*b",
            "*?".repeat(MAX_TOPIC_LEN / 2 - 1) + "*b",
            "**/".to_owned() + &"*a".repeat(500) + "b",
        ] {
            session.subscribe(&topics, pattern(&hostile)).unwrap();
        }
        assert_eq!(publish(&topics, &name), 0);
        assert_eq!(publish(&topics, &format!("{}b", &name[1..])), 3);
    }
}
