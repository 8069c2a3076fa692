//! Publish and subscribe under stress: many publishers, and subscribers that come, go, stall and
//! vanish at random. Everything that each client saw is recorded and checked against every promise.
//!
//! A run consists of rounds, each with its own server, and lasts `KV_STRESS_SECONDS`, or a few
//! seconds if that is not set. `KV_STRESS_SEED` repeats the random choices, but not the scheduling
//! of threads. A round ends when its messages are published, and does not depend on how long that
//! takes.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant, SystemTime};

use futures::{FutureExt, SinkExt, StreamExt};
use kv::abi::{CommandRequest, CommandResponse, Value};
use kv::{Metrics, ServerConfig, SlowSubscriber};
use tokio::time::{sleep, timeout};

use crate::support::chance::Chance;
use crate::support::pubsub_checker::{Asked, Event, Log, Published, Pushed, Record, Selector};
use crate::support::server::{Server, counting, until};
use crate::support::subscriber::{Client, counted, id_of, standing};

/// A hang must fail the test. The time is long because a connection with a small window may stall:
/// if the window is a little less than a segment, the kernel sends one segment per persist timer,
/// every 0.2 s, and megabytes may be on their way.
const PATIENCE: Duration = Duration::from_secs(300);

/// The socket buffer of a client in bytes: small, but large enough that such a stall ends within a
/// minute.
const ROOM: u32 = 32 * 1024;

const PUBLISHERS: usize = 4;
const ROAMERS: usize = 12;
const STANDING: usize = 4;

/// How many messages each publisher sends in a round.
const MESSAGES: usize = 1500;

/// Each publisher has its own topic, and all share the last two.
const TOPICS: [&str; PUBLISHERS + 2] = ["own/0", "own/1", "own/2", "own/3", "all/0", "all/1"];
const PATTERNS: [&str; 4] = ["*", "own/*", "all/*", "all/1*"];

/// The state that all clients of a round share.
struct Round {
    address: String,
    policy: SlowSubscriber,
    /// A counter that orders events.
    clock: AtomicU64,
    published: AtomicBool,
    /// How many of the lasting subscriptions have begun.
    stay: AtomicUsize,
}

impl Round {
    fn tick(&self) -> u64 {
        self.clock.fetch_add(1, SeqCst)
    }
}

/// A message: its publisher, its number, whether it is the last to its topic, and bytes whose
/// length and contents follow from these. The last messages are short, so that none evicts another.
fn message(publisher: usize, number: usize, is_last: bool) -> Vec<Value> {
    let len = match is_last {
        true => 0,
        false => (publisher * 7919 + number * 104_729) % 1800,
    };
    let bytes = vec![(publisher + number) as u8; len];
    vec![
        (publisher as i64).into(),
        (number as i64).into(),
        is_last.into(),
        Value::binary(bytes),
    ]
}

/// A connection that records its requests and what it receives.
struct Connection {
    round: Arc<Round>,
    client: Client,
    log: Log,
    unanswered: VecDeque<Asked>,
    /// The subscriptions known so far.
    live: Vec<(u32, Selector)>,
    last_id: u32,
    /// The subscriptions and topics whose last message has arrived.
    last: HashSet<(u32, String)>,
    is_over: bool,
}

impl Connection {
    async fn open(round: &Arc<Round>) -> Self {
        Self {
            round: Arc::clone(round),
            client: Client::connect_with_room(&round.address, ROOM).await,
            log: Log::new(),
            unanswered: VecDeque::new(),
            live: Vec::new(),
            last_id: 0,
            last: HashSet::new(),
            is_over: false,
        }
    }

    fn record(&mut self, event: Event) {
        self.log.push((self.round.tick(), event));
    }

    fn end(&mut self, how: Event) {
        if !self.is_over {
            self.is_over = true;
            self.record(how);
        }
    }

    /// Sends requests with one write.
    async fn ask(&mut self, requests: Vec<Asked>) {
        if self.is_over {
            return;
        }
        for asked in requests {
            let request = match asked.clone() {
                Asked::Subscribe(Selector::Topic(name)) => CommandRequest::new_subscribe(name),
                Asked::Subscribe(Selector::Pattern(text)) => CommandRequest::new_psubscribe(text),
                Asked::Unsubscribe(Selector::Topic(name), id) => {
                    CommandRequest::new_unsubscribe(name, id)
                }
                Asked::Unsubscribe(Selector::Pattern(text), id) => {
                    CommandRequest::new_punsubscribe(text, id)
                }
                Asked::Ping => CommandRequest::new_ping(),
            };
            self.record(Event::Asked(asked.clone()));
            self.unanswered.push_back(asked);
            self.client.framed.feed(request).await.unwrap();
        }
        if self.client.framed.flush().await.is_err() {
            self.end(Event::Broken);
        }
    }

    /// Reads one response if one is there, or waits for it if `waits`. Returns whether one came.
    async fn read(&mut self, waits: bool) -> bool {
        if self.is_over {
            return false;
        }
        let response = match waits {
            true => {
                let response = timeout(PATIENCE, self.client.framed.next()).await;
                response.unwrap_or_else(|_| {
                    let log = &self.log[self.log.len().saturating_sub(20)..];
                    panic!("nothing comes: {:?}, after {log:?}", self.unanswered)
                })
            }
            false => match self.client.framed.next().now_or_never() {
                Some(response) => response,
                None => return false,
            },
        };
        match response {
            Some(Ok(response)) => self.take(response),
            Some(Err(_)) => self.end(Event::Broken),
            None => self.end(Event::Closed),
        }
        true
    }

    fn take(&mut self, response: CommandResponse) {
        if response.is_push() {
            let pushed = self.check_push(&response);
            return self.record(Event::Pushed(pushed));
        }
        if response.status != 503 {
            match self.unanswered.pop_front() {
                Some(Asked::Subscribe(selector)) => {
                    self.last_id = id_of(&response);
                    self.live.push((self.last_id, selector));
                }
                Some(Asked::Unsubscribe(_, id)) => self.live.retain(|(live, _)| *live != id),
                _ => {}
            }
        }
        self.record(Event::Answered(response));
    }

    /// Checks that a push is what was published, and returns a record of it.
    fn check_push(&mut self, push: &CommandResponse) -> Pushed {
        let number = |at: usize| usize::try_from(i64::try_from(&push.values[at]).unwrap()).unwrap();
        let is_last = bool::try_from(&push.values[2]).unwrap();
        let (publisher, number) = (number(0), number(1));
        assert_eq!(push.values, message(publisher, number, is_last));
        if is_last {
            self.last.insert((push.subscription, push.topic.clone()));
        }
        if let Some((_, selector)) = self.live.iter().find(|(id, _)| *id == push.subscription) {
            let is_named = match selector {
                Selector::Topic(_) => push.pattern.is_empty(),
                Selector::Pattern(text) => push.pattern == *text,
            };
            assert!(
                is_named && selector.matches(&push.topic),
                "{selector:?}: {push:?}"
            );
        }
        Pushed {
            subscription: push.subscription,
            publisher,
            number,
            missed: push.missed,
            by_pattern: !push.pattern.is_empty(),
        }
    }

    async fn read_answers(&mut self) {
        while !self.unanswered.is_empty() && self.read(true).await {}
    }

    /// Waits for all answers, and closes the connection.
    async fn farewell(mut self) -> Log {
        self.read_answers().await;
        if !self.is_over {
            self.record(Event::Farewell);
        }
        for _ in 0..2 {
            self.ask(vec![Asked::Ping]).await;
            self.read_answers().await;
        }
        self.end(Event::Vanished);
        self.log
    }

    /// Drops the connection with unread data, so that the server's writes may fail.
    fn vanish(mut self) -> Log {
        self.end(Event::Vanished);
        self.log
    }
}

fn any_selector(chance: &mut Chance) -> Selector {
    match chance.below(3) {
        0 => Selector::Pattern(chance.one_of(&PATTERNS).to_owned()),
        _ => Selector::Topic(chance.one_of(&TOPICS).to_owned()),
    }
}

/// Connects and disconnects until everything is published.
async fn roam(round: Arc<Round>, mut chance: Chance) -> Vec<Log> {
    let mut logs = Vec::new();
    while !round.published.load(SeqCst) {
        let mut connection = Connection::open(&round).await;
        for _ in 0..=chance.below(10) {
            step(&mut connection, &mut chance).await;
        }
        logs.push(match chance.below(2) {
            0 => connection.vanish(),
            _ => connection.farewell().await,
        });
    }
    logs
}

async fn step(connection: &mut Connection, chance: &mut Chance) {
    match chance.below(8) {
        0 | 1 if connection.live.len() < 6 => {
            let mut requests = vec![Asked::Subscribe(any_selector(chance))];
            match chance.below(4) {
                0 => requests.push(requests[0].clone()),
                1 => requests.insert(0, Asked::Ping),
                // Unsubscribes before the answer to subscribe is known, if the guessed id is right.
                2 => {
                    let Asked::Subscribe(selector) = requests[0].clone() else {
                        return;
                    };
                    let id = connection.last_id + 1;
                    requests.push(Asked::Unsubscribe(selector, id));
                }
                _ => {}
            }
            connection.ask(requests).await;
        }
        2 => {
            let end = match connection.live.len() {
                0 => Asked::Unsubscribe(any_selector(chance), 1),
                live => {
                    let (id, selector) = connection.live[chance.below(live)].clone();
                    Asked::Unsubscribe(selector, id)
                }
            };
            connection.ask(vec![end]).await;
        }
        3 => connection.read_answers().await,
        4 => sleep(Duration::from_millis(chance.below(15) as u64)).await,
        _ => {
            for _ in 0..chance.below(80) {
                if !connection.read(false).await {
                    sleep(Duration::from_micros(200)).await;
                }
            }
        }
    }
}

/// Subscribes, and reads until every subscription has got its last messages, with pauses now and
/// then.
async fn stay(round: Arc<Round>, mut chance: Chance, mut connection: Connection) -> Log {
    let expected = connection.live.iter().flat_map(|(id, selector)| {
        let topics = TOPICS.into_iter().filter(|topic| selector.matches(topic));
        topics.map(|topic| (*id, topic.to_owned()))
    });
    let expected: HashSet<_> = expected.collect();
    while connection.last != expected {
        if !connection.read(true).await {
            break;
        }
        if connection.is_over {
            break;
        }
        if !round.published.load(SeqCst) && chance.below(1000) == 0 {
            sleep(Duration::from_millis(chance.below(200) as u64)).await;
        }
    }
    if connection.is_over {
        round.stay.fetch_sub(connection.live.len(), SeqCst);
    }
    connection.farewell().await
}

/// Publishes the messages of one publisher, several at a time.
async fn publish(round: Arc<Round>, publisher: usize, mut chance: Chance) -> Vec<Published> {
    let mut client = Client::connect_with_room(&round.address, ROOM).await;
    let mut published: Vec<Published> = Vec::new();
    while published.len() < MESSAGES {
        let first = published.len();
        let mut requests = Vec::new();
        for number in first..=first + chance.below(20) {
            let topic = chance.one_of(&[
                TOPICS[publisher],
                TOPICS[PUBLISHERS],
                TOPICS[PUBLISHERS + 1],
            ]);
            requests.push(CommandRequest::new_publish(
                topic,
                message(publisher, number, false),
            ));
            published.push(Published {
                topic: topic.to_owned(),
                asked: round.tick(),
                answered: 0,
                reached: 0,
            });
        }
        client.send(requests).await;
        for message in &mut published[first..] {
            message.reached = id_of(&client.response().await).into();
            message.answered = round.tick();
        }
        if chance.below(10) == 0 {
            sleep(Duration::from_millis(chance.below(5) as u64)).await;
        }
    }
    published
}

/// Publishes the last message to every topic, each once no messages are queued, so that none is
/// dropped.
async fn publish_last(round: &Round, metrics: &Metrics) -> Vec<Published> {
    let mut client = Client::connect_with_room(&round.address, ROOM).await;
    let mut published = Vec::new();
    for (number, topic) in TOPICS.into_iter().enumerate() {
        until_settled(metrics, |standing| standing[4] == 0).await;
        let asked = round.tick();
        let request = CommandRequest::new_publish(topic, message(PUBLISHERS, number, true));
        let reached = id_of(&client.ask(request).await).into();
        published.push(Published {
            topic: topic.to_owned(),
            asked,
            answered: round.tick(),
            reached,
        });
    }
    published
}

/// Waits until the server's counters satisfy `holds`. Yields, because other threads need the CPU.
async fn until_settled(metrics: &Metrics, holds: impl Fn([u64; 5]) -> bool) {
    let settled = async {
        while !holds(standing(metrics)) {
            sleep(Duration::from_millis(1)).await;
        }
    };
    let settled = timeout(PATIENCE, settled).await;
    assert!(settled.is_ok(), "left: {:?}", standing(metrics));
}

async fn joined<T>(tasks: Vec<tokio::task::JoinHandle<T>>) -> Vec<T> {
    let mut results = Vec::new();
    for task in tasks {
        results.push(task.await.unwrap());
    }
    results
}

async fn run(seed: u64) {
    let mut chance = Chance(seed);
    let policy = chance.one_of(&[
        SlowSubscriber::Drop,
        SlowSubscriber::Drop,
        SlowSubscriber::Close,
    ]);
    let config = ServerConfig::default()
        .with_slow_subscriber(policy)
        .with_subscriber_buffer(chance.one_of(&[4, 16, 64]) * 1024)
        .with_subscriber_messages(chance.one_of(&[20, 100, 16_384]));
    let (service, metrics) = counting();
    let server = Server::start(service, config).await;
    let round = Arc::new(Round {
        address: server.address.clone(),
        policy,
        clock: AtomicU64::new(1),
        published: AtomicBool::new(false),
        stay: AtomicUsize::new(0),
    });

    let mut staying = Vec::new();
    for _ in 0..STANDING {
        let mut connection = Connection::open(&round).await;
        for _ in 0..=chance.below(3) {
            let selector = any_selector(&mut chance);
            connection.ask(vec![Asked::Subscribe(selector)]).await;
        }
        connection.read_answers().await;
        round.stay.fetch_add(connection.live.len(), SeqCst);
        staying.push(tokio::spawn(stay(
            Arc::clone(&round),
            chance.fork(),
            connection,
        )));
    }
    let roaming = (0..ROAMERS).map(|_| tokio::spawn(roam(Arc::clone(&round), chance.fork())));
    let roaming: Vec<_> = roaming.collect();
    let publishing = (0..PUBLISHERS)
        .map(|number| tokio::spawn(publish(Arc::clone(&round), number, chance.fork())));
    let publishing: Vec<_> = publishing.collect();

    let mut publishers = joined(publishing).await;
    round.published.store(true, SeqCst);
    let mut connections: Vec<Log> = joined(roaming).await.into_iter().flatten().collect();
    until_settled(&metrics, |standing| {
        standing[0] + standing[1] == round.stay.load(SeqCst) as u64
    })
    .await;
    let settled = round.tick();
    publishers.push(publish_last(&round, &metrics).await);
    connections.extend(joined(staying).await);

    // All clients are gone, and nothing is left.
    until_settled(&metrics, |standing| standing == [0; 5]).await;
    until(|| metrics.connections() == 0).await;
    server.stop().await;
    let record = Record {
        policy: round.policy,
        publishers,
        connections,
        settled,
    };
    let connections = record.connections.len();
    let checked = record.check();
    println!("{policy:?}, {connections} connections, {checked:?}");
    assert!(checked.received <= counted(&metrics, "kvs_pushes_total"));
    assert!(checked.missed <= counted(&metrics, "kvs_pushes_dropped_total"));
}

fn variable(name: &str) -> Option<u64> {
    let set = std::env::var(name).ok()?;
    Some(
        set.parse()
            .unwrap_or_else(|_| panic!("{name} is no number: {set}")),
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn keeps_every_promise_whatever_subscribers_do() {
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
    let seed = variable("KV_STRESS_SEED").unwrap_or(now % 1_000_000_000);
    let time = Duration::from_secs(variable("KV_STRESS_SECONDS").unwrap_or(4));
    let began = Instant::now();
    // The seed of a later round repeats that round alone.
    for seed in seed.. {
        println!("KV_STRESS_SEED={seed}");
        run(seed).await;
        if began.elapsed() >= time {
            return;
        }
    }
}
