//! One publisher and its subscribers: one thread with epoll and non-blocking connections. Without
//! TLS it does not allocate while it runs.
//!
//! The publisher sends a batch of messages in one write, and the next once it has every response
//! and the window allows it. It is never more than [`WINDOW`] messages ahead of the slowest
//! subscriber, so neither server has a reason to drop a message or a subscriber: kvs does so from
//! 1 MiB or 16 384 messages on, Redis from 8 MiB on. Every byte that arrives is compared with what
//! must come next on its connection, so a lost, duplicated or reordered message is noticed, and a
//! message that never arrives ends the program. The latency of a message is the time from the
//! write of its batch until the last subscriber has it.

use std::io::{self, ErrorKind, Read, Write};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};

use crate::blocking::BlockingClient;
use crate::message::{Channel, Form, Mark, mark};
use crate::protocol::Protocol;
use crate::transport::{Endpoint, Transport};

/// How many messages, of at most 1 KiB each, the publisher may be ahead of the slowest subscriber.
pub(crate) const WINDOW: usize = 64;

const READ_BUFFER_BYTES: usize = 256 * 1024;

const MAX_EVENTS: usize = 256;

/// How long the loop waits for an event before it checks the time.
const TICK_MS: u8 = 10;

/// How long to wait for something that must arrive.
const PATIENCE: Duration = Duration::from_secs(10);

/// The epoll data of the publisher; a subscriber has its index.
const PUBLISHER: u64 = u64::MAX;

/// A publisher and its subscribers on one server, and what was measured.
#[derive(Debug)]
pub(crate) struct Fanout<'a> {
    channel: &'a Channel,
    push: Form,
    /// How many messages are published at a time.
    depth: usize,
    epoll: Epoll,
    publisher: Publisher,
    subscribers: Vec<Subscriber>,
    /// The messages in progress, each at its number modulo the window.
    window: [Slot; WINDOW],
    published: u64,
    /// How many messages have reached every subscriber.
    complete: u64,
    buffer: Vec<u8>,
    pub(crate) delivered: u64,
    /// Nanoseconds.
    pub(crate) latency: Histogram<u64>,
}

#[derive(Debug)]
struct Publisher {
    transport: Transport,
    /// The current batch, and how much of it is written.
    out: Vec<u8>,
    written: usize,
    writable_wanted: bool,
    /// How many responses are missing, and how many bytes of the next one have arrived.
    awaited: usize,
    at: usize,
}

#[derive(Debug)]
struct Subscriber {
    transport: Transport,
    /// How many messages it has, and how many bytes of the next one.
    received: u64,
    at: usize,
}

/// A message in progress.
#[derive(Debug, Clone, Copy)]
struct Slot {
    mark: Mark,
    sent: Instant,
    /// How many subscribers have it.
    arrived: usize,
}

impl<'a> Fanout<'a> {
    /// Subscribes this many connections, and checks that a first message reaches each of them.
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

    /// Publishes for this long. Messages stay in progress between calls; none is lost.
    pub(crate) fn run(&mut self, time: Duration) {
        let start = Instant::now();
        while start.elapsed() < time {
            self.turn(true);
        }
    }

    /// Resets the counters.
    pub(crate) fn reset(&mut self) {
        self.delivered = 0;
        self.latency.reset();
    }

    /// Stops publishing, and waits until every subscriber has every message.
    pub(crate) fn finish(mut self) {
        let mut last = Instant::now();
        while self.complete < self.published || self.publisher.awaited > 0 {
            if self.turn(false) > 0 {
                last = Instant::now();
            }
            assert!(
                last.elapsed() < PATIENCE,
                "of {} published messages, {} have reached every subscriber",
                self.published,
                self.complete
            );
        }
        let total: u64 = self.subscribers.iter().map(|one| one.received).sum();
        assert_eq!(total, self.published * self.subscribers.len() as u64);
    }

    /// Reads what has arrived, publishes if wanted and allowed, and returns the number of events.
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

    /// Sends the next batch, unless one is in progress or the window is full.
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
            Err(error) => panic!("cannot send a message: {error}"),
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

    /// Reads what has arrived for a subscriber, and compares it with what must come next.
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
                    "subscriber {index} got {} after {} bytes of message {number} of {}",
                    self.channel.show(data),
                    subscriber.at,
                    self.published
                );
            };
            data = &data[len..];
            subscriber.at += len;
            if subscriber.at == self.push.len(&slot.mark) {
                (subscriber.received, subscriber.at) = (number + 1, 0);
                self.delivered += 1;
                slot.arrived += 1;
                // Messages arrive in order, so the last subscriber to get this one has all earlier
                // ones, and so do the others.
                self.complete += u64::from(slot.arrived == everyone);
            }
        }
        self.record(complete);
    }

    /// Records the latency of the messages from number `before` on that are now complete.
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

/// Reads what the socket has, which may be nothing after a spurious event.
fn read(transport: &mut Transport, buffer: &mut [u8]) -> usize {
    match transport.read(buffer) {
        Ok(0) => panic!("the server closed a connection"),
        Ok(len) => len,
        Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
        Err(error) => panic!("a connection failed: {error}"),
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

    /// Sends the rest of the batch, until the socket takes no more.
    fn send(&mut self) -> io::Result<()> {
        while self.written < self.out.len() {
            self.written += self.transport.write(&self.out[self.written..])?;
        }
        self.transport.flush()
    }

    /// Checks responses: every message must go to every subscriber.
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
    /// Makes a subscriber from a client that has the first message.
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
