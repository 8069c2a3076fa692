//! Checks whether what all clients saw in a run of publish and subscribe keeps the server's
//! promises.
//!
//! Every record has times from one counter that all clients share. A request is recorded before it
//! is sent, and its answer after it was read, so the server handled it in between. From this
//! follows which subscriptions and messages must have existed at a time, and which may have. For a
//! subscription, a message counts once it is put into the mailbox: it is received, or missed and
//! counted in the next message received. So the number of messages up to each received one is
//! known, and must agree with what was published by then.

use std::collections::{HashMap, VecDeque};

use kv::SlowSubscriber;
use kv::abi::CommandResponse;

/// What one connection requested and saw, in order, with times.
pub(crate) type Log = Vec<(u64, Event)>;

#[derive(Debug)]
pub(crate) enum Event {
    Asked(Asked),
    Answered(CommandResponse),
    Pushed(Pushed),
    /// The client sends two pings, one after the other, and closes.
    Farewell,
    /// The client dropped the connection.
    Vanished,
    /// The server closed the connection cleanly.
    Closed,
    /// The connection broke.
    Broken,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Asked {
    Subscribe(Selector),
    Unsubscribe(Selector, u32),
    Ping,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Selector {
    Topic(String),
    /// A pattern that ends with a star and matches every topic with the prefix before it.
    Pattern(String),
}

/// A push. Its other parts were checked when it arrived.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pushed {
    pub(crate) subscription: u32,
    pub(crate) publisher: usize,
    /// The number of the message among those of this publisher, from 0.
    pub(crate) number: usize,
    pub(crate) missed: u64,
    pub(crate) by_pattern: bool,
}

/// A published message, at the index that is its number.
#[derive(Debug)]
pub(crate) struct Published {
    pub(crate) topic: String,
    pub(crate) asked: u64,
    pub(crate) answered: u64,
    pub(crate) reached: u64,
}

/// The record of a run.
pub(crate) struct Record {
    pub(crate) policy: SlowSubscriber,
    pub(crate) publishers: Vec<Vec<Published>>,
    pub(crate) connections: Vec<Log>,
    /// The time by which the server had dropped every ended connection.
    pub(crate) settled: u64,
}

/// A subscription as its connection saw it.
struct Seen {
    selector: Selector,
    asked: u64,
    answered: u64,
    /// The time up to which it certainly existed; `gone` is the time from which it certainly did
    /// not.
    stood: u64,
    gone: u64,
    received: Vec<Pushed>,
    /// Whether it existed to the end, and so got the last messages.
    stayed: bool,
}

/// How much was checked.
#[derive(Debug, Default)]
pub(crate) struct Checked {
    pub(crate) published: u64,
    pub(crate) subscriptions: u64,
    pub(crate) received: u64,
    pub(crate) missed: u64,
    pub(crate) turned_away: u64,
}

impl Selector {
    pub(crate) fn matches(&self, topic: &str) -> bool {
        match self {
            Self::Topic(name) => name == topic,
            Self::Pattern(pattern) => topic.starts_with(pattern.strip_suffix('*').unwrap()),
        }
    }
}

impl Record {
    /// # Panics
    ///
    /// If a promise was broken.
    pub(crate) fn check(&self) -> Checked {
        let mut checked = Checked::default();
        let mut subscriptions = Vec::new();
        for log in &self.connections {
            let of_connection = self.replay(log, &mut checked);
            subscriptions.extend(of_connection);
        }
        for seen in &subscriptions {
            self.check_received(seen);
            checked.received += seen.received.len() as u64;
            checked.missed += seen.received.iter().map(|push| push.missed).sum::<u64>();
        }
        self.check_reached(&subscriptions);
        checked.published = self.publishers.iter().map(|all| all.len() as u64).sum();
        checked.subscriptions = subscriptions.len() as u64;
        checked
    }

    /// Replays what a connection saw, and checks that answers are in order, that pushes come only
    /// between the id and the end of their subscription, and that each publisher's messages are in
    /// order.
    fn replay(&self, log: &Log, checked: &mut Checked) -> Vec<Seen> {
        let mut replay = Replay::new(self.policy, self.publishers.len());
        let mut ended = None;
        for (time, event) in log {
            assert!(ended.is_none(), "after the end: {event:?}");
            match event {
                Event::Asked(asked) => replay.unanswered.push_back((*time, asked)),
                Event::Farewell => replay.farewell = Some(*time),
                Event::Answered(response) => replay.answered(*time, response),
                Event::Pushed(push) => replay.pushed(push),
                Event::Vanished | Event::Closed | Event::Broken => ended = Some((*time, event)),
            }
        }
        let (end, event) = ended.expect("every connection ends");
        checked.turned_away += u64::from(replay.turned_away);
        replay.ended(event);
        // A connection that is closed for being slow gets nothing for some time before it learns of
        // it. If it got answers after a time, it was certainly not closed before then.
        let sure = match (self.policy, replay.turned_away) {
            (SlowSubscriber::Drop, _) => end,
            (SlowSubscriber::Close, false) => replay.farewell.unwrap_or(0),
            (SlowSubscriber::Close, true) => 0,
        };
        let mut subscriptions = replay.subscriptions;
        for seen in &mut subscriptions {
            seen.stayed = seen.gone == u64::MAX && end > self.settled && sure > self.settled;
            seen.stood = seen.stood.min(sure);
            if end < self.settled {
                seen.gone = seen.gone.min(self.settled);
            }
        }
        subscriptions
    }

    /// Checks that a subscription received or missed exactly what was published for it.
    fn check_received(&self, seen: &Seen) {
        let publishers: Vec<_> = self
            .publishers
            .iter()
            .map(|all| Matching::of(all, seen))
            .collect();
        // The positions of the received messages among those of each publisher.
        let mut places = vec![Vec::new(); publishers.len()];
        for push in &seen.received {
            let of_publisher = &publishers[push.publisher];
            let place = of_publisher.numbers.binary_search(&push.number);
            let place = place.unwrap_or_else(|_| panic!("the push is of another topic: {push:?}"));
            let message = &self.publishers[push.publisher][push.number];
            let expected = matches!(seen.selector, Selector::Pattern(_));
            assert_eq!(push.by_pattern, expected, "{push:?}");
            assert!(message.asked < seen.gone, "after the end: {push:?}");
            assert!(
                message.answered > seen.asked,
                "before the beginning: {push:?}"
            );
            let before = places[push.publisher].last();
            assert!(
                before.is_none_or(|before| *before < place),
                "twice or too late: {push:?}"
            );
            places[push.publisher].push(place);
        }
        let mut received = vec![0_usize; publishers.len()];
        let mut counted = 0;
        let mut previous: Option<Vec<(usize, usize)>> = None;
        for push in &seen.received {
            received[push.publisher] += 1;
            counted += 1 + push.missed as usize;
            let message = &self.publishers[push.publisher][push.number];
            let so_far: Vec<_> = publishers
                .iter()
                .enumerate()
                .map(|(publisher, all)| {
                    let places = &places[publisher];
                    let last = received[publisher]
                        .checked_sub(1)
                        .map_or(0, |at| places[at] + 1);
                    if publisher == push.publisher {
                        return (last, last);
                    }
                    let next = places.get(received[publisher]).copied();
                    all.put_by(message, last, next)
                })
                .collect();
            let first = publishers.iter().map(|all| all.first);
            check_count(push, counted, &so_far, first.clone());
            if let Some(previous) = &previous {
                let since = previous.iter().copied();
                check_count(push, 1 + push.missed as usize, &so_far, since);
            }
            previous = Some(so_far);
        }
        if seen.stayed {
            let all = publishers
                .iter()
                .map(|all| (all.numbers.len(), all.numbers.len()));
            let all: Vec<_> = all.collect();
            let last = seen.received.last().expect("the last message was received");
            check_count(last, counted, &all, publishers.iter().map(|all| all.first));
        }
    }

    /// Checks that every publisher learned the right number of subscriptions.
    fn check_reached(&self, subscriptions: &[Seen]) {
        let mut by_topic: HashMap<&str, Vec<&Seen>> = HashMap::new();
        for message in self.publishers.iter().flatten() {
            let matching = by_topic.entry(&message.topic).or_insert_with(|| {
                let all = subscriptions.iter();
                all.filter(|seen| seen.selector.matches(&message.topic))
                    .collect()
            });
            let certain = matching
                .iter()
                .filter(|seen| seen.answered < message.asked && message.answered < seen.stood);
            let possible = matching
                .iter()
                .filter(|seen| seen.asked < message.answered && message.asked < seen.gone);
            let (certain, possible) = (certain.count() as u64, possible.count() as u64);
            assert!(
                (certain..=possible).contains(&message.reached),
                "{certain} to {possible}: {message:?}"
            );
        }
    }
}

/// Checks that a count lies between the least and the most messages that can have been put in.
fn check_count(
    push: &Pushed,
    count: usize,
    until: &[(usize, usize)],
    since: impl Iterator<Item = (usize, usize)>,
) {
    let (mut least, mut most) = (0, 0);
    for (until, since) in until.iter().zip(since) {
        least += until.0.saturating_sub(since.1);
        most += until.1.saturating_sub(since.0);
    }
    assert!(
        (least..=most).contains(&count),
        "{count} received and missed, not {least} to {most}, up to {push:?}"
    );
}

/// The messages of one publisher that match a subscription.
struct Matching {
    numbers: Vec<usize>,
    asked: Vec<u64>,
    answered: Vec<u64>,
    /// The first message that the subscription may have got, and the first that it must have got.
    first: (usize, usize),
}

impl Matching {
    fn of(all: &[Published], seen: &Seen) -> Self {
        let matching = all.iter().enumerate();
        let matching = matching.filter(|(_, message)| seen.selector.matches(&message.topic));
        let (mut numbers, mut asked, mut answered) = (Vec::new(), Vec::new(), Vec::new());
        for (number, message) in matching {
            numbers.push(number);
            asked.push(message.asked);
            answered.push(message.answered);
        }
        let first = (
            answered.partition_point(|time| *time < seen.asked),
            asked.partition_point(|time| *time < seen.answered),
        );
        Self {
            numbers,
            asked,
            answered,
            first,
        }
    }

    /// The least and the most messages that were put in before another publisher's message, which
    /// came after `last` was received and before `next`.
    fn put_by(&self, message: &Published, last: usize, next: Option<usize>) -> (usize, usize) {
        let least = self.answered.partition_point(|time| *time < message.asked);
        let most = self.asked.partition_point(|time| *time < message.answered);
        let most = next.map_or(most, |next| most.min(next));
        (
            least.max(last).max(self.first.0),
            most.max(last).max(self.first.1),
        )
    }
}

impl Seen {
    fn new(selector: &Selector, asked: u64, answered: u64) -> Self {
        Self {
            selector: selector.clone(),
            asked,
            answered,
            stood: u64::MAX,
            gone: u64::MAX,
            received: Vec::new(),
            stayed: false,
        }
    }
}

/// What one connection has seen so far.
struct Replay<'l> {
    policy: SlowSubscriber,
    unanswered: VecDeque<(u64, &'l Asked)>,
    /// The indexes of the subscriptions that have an id and have not ended.
    live: HashMap<u32, usize>,
    subscriptions: Vec<Seen>,
    /// The latest message of each publisher.
    latest: Vec<usize>,
    farewell: Option<u64>,
    turned_away: bool,
}

impl<'l> Replay<'l> {
    fn new(policy: SlowSubscriber, publishers: usize) -> Self {
        Self {
            policy,
            unanswered: VecDeque::new(),
            live: HashMap::new(),
            subscriptions: Vec::new(),
            latest: vec![0; publishers],
            farewell: None,
            turned_away: false,
        }
    }

    fn answered(&mut self, time: u64, response: &CommandResponse) {
        assert!(!self.turned_away, "after the last response: {response:?}");
        if response.status == 503 {
            assert_eq!(self.policy, SlowSubscriber::Close);
            self.turned_away = true;
            return;
        }
        let (sent, asked) = self
            .unanswered
            .pop_front()
            .expect("an answer without a request");
        match asked {
            Asked::Ping => assert_eq!(*response, CommandResponse::ok()),
            Asked::Subscribe(selector) => {
                let id = self.subscriptions.len() as u32 + 1;
                assert_eq!(*response, CommandResponse::from(kv::abi::Value::from(id)));
                self.live.insert(id, self.subscriptions.len());
                self.subscriptions.push(Seen::new(selector, sent, time));
            }
            Asked::Unsubscribe(selector, id) => {
                let found = self.live.get(id).copied();
                let found = found.filter(|at| self.subscriptions[*at].selector == *selector);
                let Some(at) = found else {
                    assert_eq!(response.status, 404, "{asked:?}");
                    return;
                };
                assert_eq!(*response, CommandResponse::ok(), "{asked:?}");
                self.live.remove(id);
                let seen = &mut self.subscriptions[at];
                (seen.stood, seen.gone) = (sent, time);
            }
        }
    }

    fn pushed(&mut self, push: &Pushed) {
        assert!(!self.turned_away, "after the last response: {push:?}");
        let at = self.live.get(&push.subscription);
        let at = *at.unwrap_or_else(|| panic!("before its id or after its end: {push:?}"));
        self.subscriptions[at].received.push(*push);
        let latest = &mut self.latest[push.publisher];
        assert!(*latest <= push.number, "after number {latest}: {push:?}");
        *latest = push.number;
    }

    /// Handles the end of the connection, and requests without an answer that may have been
    /// executed.
    fn ended(&mut self, event: &Event) {
        match (event, self.policy) {
            (Event::Closed, _) => assert!(self.turned_away, "closed without a last response"),
            (Event::Broken, SlowSubscriber::Drop) => panic!("a connection broke"),
            _ => {}
        }
        let unanswered = std::mem::take(&mut self.unanswered);
        if self.farewell.is_some() && matches!(event, Event::Vanished) {
            assert!(unanswered.is_empty(), "not answered: {unanswered:?}");
        }
        for (sent, asked) in unanswered {
            match asked {
                Asked::Subscribe(selector) => {
                    let seen = Seen::new(selector, sent, u64::MAX);
                    self.subscriptions.push(seen);
                }
                Asked::Unsubscribe(_, id) => {
                    if let Some(at) = self.live.get(id) {
                        let stood = &mut self.subscriptions[*at].stood;
                        *stood = sent.min(*stood);
                    }
                }
                Asked::Ping => {}
            }
        }
    }
}
