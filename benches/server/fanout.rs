//! One publisher and its subscribers: one thread, connections that do not block, epoll, and without TLS nothing
//! that allocates while it runs.
//!
//! The publisher sends a batch of messages in one write, and the next once it has every answer and the window
//! allows it: it is never more than [`WINDOW`] messages ahead of the slowest subscriber, so that neither server
//! has a reason to drop a message or a subscriber: kvs does so from 1 MiB or 16 384 messages on, Redis from
//! 8 MiB on. Every byte that comes is compared with what must come next on its connection: that nothing was lost,
//! doubled or reordered is so checked, and a message that never comes ends the program. The time of a message is
//! that from the write of its batch until the last subscriber has it.

use std::io::{self, ErrorKind, Read, Write};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};

use crate::blocking::BlockingClient;
use crate::message::{Channel, Form, Mark, mark};
use crate::protocol::Protocol;
use crate::transport::{Endpoint, Transport};

/// How many messages the publisher may be ahead of the slowest subscriber. In each, there are 1 KiB at most.
pub(crate) const WINDOW: usize = 64;

const READ_BUFFER_BYTES: usize = 256 * 1024;

const MAX_EVENTS: usize = 256;

/// How long the loop waits for something to come before it looks at the time.
const TICK_MS: u8 = 10;

/// How long nothing may come while something must.
const PATIENCE: Duration = Duration::from_secs(10);

/// What epoll says of the publisher, beside the index of a subscriber.
const PUBLISHER: u64 = u64::MAX;

/// A publisher and its subscribers on one server, and what came back.
#[derive(Debug)]
pub(crate) struct Fanout<'a> {
    channel: &'a Channel,
    push: Form,
    /// How many messages are published at a time.
    depth: usize,
    epoll: Epoll,
    publisher: Publisher,
    subscribers: Vec<Subscriber>,
    /// The messages under way, each at its number modulo the window.
    window: [Slot; WINDOW],
    published: u64,
    /// How many messages every subscriber has.
    complete: u64,
    buffer: Vec<u8>,
    pub(crate) delivered: u64,
    /// Nanoseconds.
    pub(crate) latency: Histogram<u64>,
}

#[derive(Debug)]
struct Publisher {
    transport: Transport,
    /// The batch, of which so much is written.
    out: Vec<u8>,
    written: usize,
    writable_wanted: bool,
    /// How many answers are to come, and how much of the next one has.
    awaited: usize,
    at: usize,
}

#[derive(Debug)]
struct Subscriber {
    transport: Transport,
    /// How many messages it has, and how much of the next one.
    received: u64,
    at: usize,
}

/// A message under way.
#[derive(Debug, Clone, Copy)]
struct Slot {
    mark: Mark,
    sent: Instant,
    /// How many subscribers have it.
    arrived: usize,
}

impl<'a> Fanout<'a> {
    /// Subscribes so many connections, and sees a first message through to each of them.
    pub(crate) fn connect(
        protocol: Protocol,
        endpoint: &Endpoint,
        channel: &'a Channel,
        subscribers: usize,
        depth: usize,
    ) -> Self {
        let mut clients: Vec<_> = (0..subscribers)
            .map(|_| {
                let mut client = BlockingClient::connect(protocol, endpoint);
                let answer = client.exchange(&channel.subscribe);
                assert_eq!(channel.show(&answer), channel.show(&channel.subscribed));
                client
            })
            .collect();
        let mut publisher = BlockingClient::connect(protocol, endpoint);
        let mut request = Vec::new();
        channel.publish.append(&mark(0), &mut request);
        let answer = publisher.exchange(&request);
        let matching = channel.published.matching(0, &[], &answer);
        assert_eq!(matching, Some(answer.len()), "{}", channel.show(&answer));
        let mut pushes = clients.iter_mut().map(BlockingClient::receive);
        let first = pushes.next().expect("there is a subscriber");
        assert!(pushes.all(|push| push == first));
        let mut fanout = Self {
            push: channel.push(&first),
            channel,
            depth,
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap(),
            publisher: Publisher::new(publisher.into_nonblocking()),
            subscribers: clients.into_iter().map(Subscriber::new).collect(),
            window: [Slot::empty(); WINDOW],
            published: 1,
            complete: 1,
            buffer: vec![0; READ_BUFFER_BYTES],
            delivered: 0,
            latency: Histogram::new(3).unwrap(),
        };
        fanout.register();
        fanout.publish();
        fanout
    }

    fn register(&self) {
        let sockets = self.subscribers.iter().map(|one| one.transport.socket());
        let numbered = (0..).zip(sockets);
        for (number, socket) in numbered.chain([(PUBLISHER, self.publisher.transport.socket())]) {
            let event = EpollEvent::new(EpollFlags::EPOLLIN, number);
            self.epoll.add(socket, event).unwrap();
        }
    }

    /// Keeps publishing for so long. Between two calls nothing is lost: the messages are under way.
    pub(crate) fn run(&mut self, time: Duration) {
        let start = Instant::now();
        while start.elapsed() < time {
            self.turn(true);
        }
    }

    /// Forgets what was counted.
    pub(crate) fn reset(&mut self) {
        self.delivered = 0;
        self.latency.reset();
    }

    /// Publishes no more, and waits until every subscriber has every message.
    pub(crate) fn finish(mut self) {
        let mut last = Instant::now();
        while self.complete < self.published || self.publisher.awaited > 0 {
            if self.turn(false) > 0 {
                last = Instant::now();
            }
            assert!(
                last.elapsed() < PATIENCE,
                "of {} messages that were published, {} have reached every subscriber",
                self.published,
                self.complete
            );
        }
        let total: u64 = self.subscribers.iter().map(|one| one.received).sum();
        assert_eq!(total, self.published * self.subscribers.len() as u64);
    }

    /// Takes what has come, and publishes where that is wanted and allowed; gives on how many connections
    /// something has happened.
    fn turn(&mut self, publishing: bool) -> usize {
        let mut events = [EpollEvent::empty(); MAX_EVENTS];
        let ready = self.epoll.wait(&mut events, TICK_MS).unwrap();
        for event in &events[..ready] {
            match event.data() {
                PUBLISHER => self.handle_publisher(event.events()),
                number => self.receive(number as usize),
            }
            if publishing {
                self.publish();
            }
        }
        ready
    }

    fn handle_publisher(&mut self, events: EpollFlags) {
        if events.contains(EpollFlags::EPOLLOUT) {
            self.write();
        }
        if events.intersects(!EpollFlags::EPOLLOUT) {
            let publisher = &mut self.publisher;
            let read = read(&mut publisher.transport, &mut self.buffer);
            publisher.take(&self.buffer[..read], self.channel);
        }
    }

    /// Sends the next batch, unless one is under way or would be too far ahead.
    fn publish(&mut self) {
        let ahead = (self.published - self.complete) as usize;
        let publisher = &mut self.publisher;
        if publisher.awaited > 0 || ahead + self.depth > WINDOW {
            return;
        }
        publisher.out.clear();
        (publisher.written, publisher.awaited) = (0, self.depth);
        let sent = Instant::now();
        for number in (self.published..).take(self.depth) {
            let slot = Slot {
                mark: mark(number),
                sent,
                arrived: 0,
            };
            let form = &self.channel.publish;
            form.append(&slot.mark, &mut publisher.out);
            self.window[number as usize % WINDOW] = slot;
        }
        self.published += self.depth as u64;
        self.write();
    }

    fn write(&mut self) {
        let publisher = &mut self.publisher;
        let wanted = match publisher.send() {
            Ok(()) => false,
            Err(error) if error.kind() == ErrorKind::WouldBlock => true,
            Err(error) => panic!("the server does not take a message: {error}"),
        };
        if wanted != publisher.writable_wanted {
            publisher.writable_wanted = wanted;
            let mut flags = EpollFlags::EPOLLIN;
            flags.set(EpollFlags::EPOLLOUT, wanted);
            let mut event = EpollEvent::new(flags, PUBLISHER);
            let socket = publisher.transport.socket();
            self.epoll.modify(socket, &mut event).unwrap();
        }
    }

    /// Reads what has come for a subscriber, and compares it with what must come next.
    fn receive(&mut self, index: usize) {
        let everyone = self.subscribers.len();
        let subscriber = &mut self.subscribers[index];
        let read = read(&mut subscriber.transport, &mut self.buffer);
        let mut data = &self.buffer[..read];
        let complete = self.complete;
        while !data.is_empty() {
            let number = subscriber.received;
            let slot = &mut self.window[number as usize % WINDOW];
            let matching = self.push.matching(subscriber.at, &slot.mark, data);
            let Some(len) = matching.filter(|_| number < self.published) else {
                panic!(
                    "subscriber {index} got {} in place of message {number} of {}, of which it had {} bytes",
                    self.channel.show(data),
                    self.published,
                    subscriber.at
                );
            };
            data = &data[len..];
            subscriber.at += len;
            if subscriber.at == self.push.len(&slot.mark) {
                (subscriber.received, subscriber.at) = (number + 1, 0);
                self.delivered += 1;
                slot.arrived += 1;
                // The last to get a message has got those before it, and so had everyone else.
                self.complete += u64::from(slot.arrived == everyone);
            }
        }
        self.record(complete);
    }

    /// Notes how long those messages took that every subscriber has since `before` were complete.
    fn record(&mut self, before: u64) {
        if before == self.complete {
            return;
        }
        let now = Instant::now();
        for number in before..self.complete {
            let took = now - self.window[number as usize % WINDOW].sent;
            self.latency.record(took.as_nanos() as u64).unwrap();
        }
    }
}

/// What the socket has now: nothing, where it was ready for no reason.
fn read(transport: &mut Transport, buffer: &mut [u8]) -> usize {
    match transport.read(buffer) {
        Ok(0) => panic!("the server closes a connection"),
        Ok(len) => len,
        Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
        Err(error) => panic!("the server gives up a connection: {error}"),
    }
}

impl Publisher {
    fn new(transport: Transport) -> Self {
        Self {
            transport,
            out: Vec::new(),
            written: 0,
            writable_wanted: false,
            awaited: 0,
            at: 0,
        }
    }

    /// Sends what is left of the batch, until the socket takes no more.
    fn send(&mut self) -> io::Result<()> {
        while self.written < self.out.len() {
            self.written += self.transport.write(&self.out[self.written..])?;
        }
        self.transport.flush()
    }

    /// Takes answers: every message must go to every subscriber.
    fn take(&mut self, mut data: &[u8], channel: &Channel) {
        while !data.is_empty() {
            let matching = channel.published.matching(self.at, &[], data);
            let Some(len) = matching.filter(|_| self.awaited > 0) else {
                panic!("the publisher got {}", channel.show(data));
            };
            data = &data[len..];
            self.at += len;
            if self.at == channel.published.len(&[]) {
                (self.awaited, self.at) = (self.awaited - 1, 0);
            }
        }
    }
}

impl Subscriber {
    /// Of a client that has got the first message.
    fn new(client: BlockingClient) -> Self {
        Self {
            transport: client.into_nonblocking(),
            received: 1,
            at: 0,
        }
    }
}

impl Slot {
    fn empty() -> Self {
        Self {
            mark: mark(0),
            sent: Instant::now(),
            arrived: 0,
        }
    }
}
