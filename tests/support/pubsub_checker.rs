//! Whether what everybody saw of a run of publish and subscribe is what the server promises.
//!
//! Every record has times of one clock that all share and that only counts: a request is asked before it is sent, and
//! answered after its answer was read, so that what the server did for it lies between. From these follows what must
//! have been there, and what may have been. Per subscription, a message counts when it is put into the mailbox: it is
//! received, or missed and counted in the next that is. So for each that is received the number of all up to it is
//! known, and has to agree with what was published by then.

use std::collections::{HashMap, VecDeque};

use kv::SlowSubscriber;
use kv::abi::CommandResponse;

/// What one connection asked for and saw, in its order, each with its time.
pub(crate) type Log = Vec<(u64, Event)>;

#[derive(Debug)]
pub(crate) enum Event {
    Asked(Asked),
    Answered(CommandResponse),
    Pushed(Pushed),
    /// Two pings follow, one after the other.
    Farewell,
    /// The client went without a word.
    Vanished,
    /// The server closed the connection in good order.
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
    /// One that matches every topic that begins with what is before its last character, a star.
    Pattern(String),
}

/// A push, of which everything that does not stand here was looked at when it came.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pushed {
    pub(crate) subscription: u32,
    pub(crate) publisher: usize,
    /// Which message of this publisher it is, from 0 up.
    pub(crate) number: usize,
    pub(crate) missed: u64,
    pub(crate) by_pattern: bool,
}

/// A message, at the index that its publisher has given it.
#[derive(Debug)]
pub(crate) struct Published {
    pub(crate) topic: String,
    pub(crate) asked: u64,
    pub(crate) answered: u64,
    pub(crate) reached: u64,
}

/// A run.
pub(crate) struct Record {
    pub(crate) policy: SlowSubscriber,
    pub(crate) publishers: Vec<Vec<Published>>,
    pub(crate) connections: Vec<Log>,
    /// When every connection that had ended was gone at the server too.
    pub(crate) settled: u64,
}

/// A subscription, as its connection saw it.
struct Seen {
    selector: Selector,
    asked: u64,
    answered: u64,
    /// Until when it stood for certain, and from when on it did not.
    stood: u64,
    gone: u64,
    received: Vec<Pushed>,
    /// Whether it stood to the end, and so got the last message of all.
    stayed: bool,
}

/// What was checked.
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
    /// Where a promise was broken.
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

    /// Goes through what a connection saw: answers in their order, pushes only between the id and the end of their
    /// subscription, and every publisher's messages in theirs.
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
        // A connection that is closed for being slow takes nothing for some time before it learns of it; only one that
        // had answers after a time was certainly not before then.
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

    /// Whether what a subscription received and missed is what was published for it.
    fn check_received(&self, seen: &Seen) {
        let publishers: Vec<_> = self
            .publishers
            .iter()
            .map(|all| Matching::of(all, seen))
            .collect();
        // Where among each publisher's messages those are that were received.
        let mut places = vec![Vec::new(); publishers.len()];
        for push in &seen.received {
            let of_publisher = &publishers[push.publisher];
            let place = of_publisher.numbers.binary_search(&push.number);
            let place = place.unwrap_or_else(|_| panic!("of another topic: {push:?}"));
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
            let last = seen.received.last().expect("the last of all was received");
            check_count(last, counted, &all, publishers.iter().map(|all| all.first));
        }
    }

    /// Whether every publisher was told how many subscriptions there were.
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

/// Whether a count lies between what is the least and the most that was put in, from somewhere on.
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

/// The messages of one publisher that a subscription is for.
struct Matching {
    numbers: Vec<usize>,
    asked: Vec<u64>,
    answered: Vec<u64>,
    /// Which is the first that the subscription may have got, and which the first that it must have got.
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

    /// How many were put in, at least and at most, when another publisher's message was: after the last that was
    /// received before it, and before the next.
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

/// What one connection has seen up to some event.
struct Replay<'l> {
    policy: SlowSubscriber,
    unanswered: VecDeque<(u64, &'l Asked)>,
    /// Where among the subscriptions those are that have an id and have not ended.
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
        let (sent, asked) = self.unanswered.pop_front().expect("nothing was asked");
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

    /// How it ended, and what may have been done of what was not answered.
    fn ended(&mut self, event: &Event) {
        match (event, self.policy) {
            (Event::Closed, _) => assert!(self.turned_away, "closed without a word"),
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
