//! The load: one thread with epoll and non-blocking connections. Without TLS it does not allocate
//! while it runs.
//!
//! Each connection sends a batch of requests in one write, and the next once it has every response:
//! a closed loop, like redis-benchmark, in which both servers get the same requests in the same
//! portions. Responses are checked as they arrive. The latency of a request is the time from the
//! write of its batch to the read of its response.

use std::io::{self, ErrorKind, Read, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};

use crate::protocol::{Protocol, Template};
use crate::transport::{Endpoint, Transport};

const READ_BUFFER_BYTES: usize = 256 * 1024;

const MAX_EVENTS: usize = 256;

/// How long the loop waits for a response before it checks the time.
const TICK_MS: u8 = 10;

/// The requests of a load, repeated: each is a template and a key.
#[derive(Debug)]
pub(crate) struct Script {
    pub(crate) protocol: Protocol,
    pub(crate) templates: Vec<Template>,
    pub(crate) steps: Arc<[Step]>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Step {
    pub(crate) template: u8,
    pub(crate) key: u32,
}

/// Connections to one server, and what was measured on them.
#[derive(Debug)]
pub(crate) struct Client<'a> {
    script: &'a Script,
    next_step: usize,
    depth: usize,
    epoll: Epoll,
    connections: Vec<Connection>,
    /// Connections that send nothing.
    _idle: Vec<Connection>,
    buffer: Vec<u8>,
    pub(crate) answered: u64,
    /// Nanoseconds.
    pub(crate) latency: Histogram<u64>,
}

#[derive(Debug)]
struct Connection {
    transport: Transport,
    /// The current batch, and how much of it is written.
    out: Vec<u8>,
    written: usize,
    writable_wanted: bool,
    sent: Instant,
    /// The template of each request in the batch, and how many are answered.
    templates: Vec<u8>,
    answered: usize,
    /// The first bytes of a response, too few to check yet.
    carried: Vec<u8>,
    /// How many bytes of a checked response have not arrived.
    rest: usize,
}

/// The state of a batch after a read.
enum Progress {
    /// Some responses are missing.
    Awaiting,
    /// Every response has arrived.
    Finished,
}

impl<'a> Client<'a> {
    /// Opens this many connections, each with `depth` requests in progress while it runs.
    pub(crate) fn connect(
        script: &'a Script,
        endpoint: &Endpoint,
        connections: usize,
        depth: usize,
    ) -> Self {
        Self::connect_some(script, endpoint, connections, depth, |_| true)
    }

    /// [`connect`](Self::connect), but only the connections whose number, from 0, `is_busy` sends
    /// requests.
    pub(crate) fn connect_some(
        script: &'a Script,
        endpoint: &Endpoint,
        connections: usize,
        depth: usize,
        is_busy: impl Fn(usize) -> bool,
    ) -> Self {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
        let (mut busy, mut idle) = (Vec::new(), Vec::new());
        for number in 0..connections {
            let connections = if is_busy(number) {
                &mut busy
            } else {
                &mut idle
            };
            connections.push(Connection::connect(endpoint, depth));
        }
        let connections = busy;
        for (number, connection) in connections.iter().enumerate() {
            let event = EpollEvent::new(EpollFlags::EPOLLIN, number as u64);
            epoll.add(connection.transport.socket(), event).unwrap();
        }
        let mut client = Self {
            script,
            next_step: 0,
            depth,
            epoll,
            connections,
            _idle: idle,
            buffer: vec![0; READ_BUFFER_BYTES],
            answered: 0,
            latency: Histogram::new(3).unwrap(),
        };
        for number in 0..client.connections.len() {
            client.send_batch(number);
        }
        client
    }

    /// Applies the load for this long. Requests stay in progress between calls; none is lost.
    pub(crate) fn run(&mut self, time: Duration) {
        let start = Instant::now();
        let mut events = [EpollEvent::empty(); MAX_EVENTS];
        while start.elapsed() < time {
            let ready = self.epoll.wait(&mut events, TICK_MS).unwrap();
            for event in &events[..ready] {
                self.handle(event.data() as usize, event.events());
            }
        }
    }

    /// Resets the counters.
    pub(crate) fn reset(&mut self) {
        self.answered = 0;
        self.latency.reset();
    }

    fn handle(&mut self, number: usize, events: EpollFlags) {
        if events.contains(EpollFlags::EPOLLOUT) {
            self.write(number);
        }
        if events.intersects(!EpollFlags::EPOLLOUT) {
            let progress = self.read(number);
            if matches!(progress, Progress::Finished) {
                self.send_batch(number);
            }
        }
    }

    fn send_batch(&mut self, number: usize) {
        let connection = &mut self.connections[number];
        connection.out.clear();
        connection.templates.clear();
        (connection.written, connection.answered) = (0, 0);
        for _ in 0..self.depth {
            let step = self.script.steps[self.next_step];
            self.next_step = (self.next_step + 1) % self.script.steps.len();
            let template = &self.script.templates[usize::from(step.template)];
            template.append(step.key.into(), &mut connection.out);
            connection.templates.push(step.template);
        }
        connection.sent = Instant::now();
        self.write(number);
    }

    fn write(&mut self, number: usize) {
        let connection = &mut self.connections[number];
        let wanted = match connection.send() {
            Ok(()) => false,
            Err(error) if error.kind() == ErrorKind::WouldBlock => true,
            Err(error) => panic!("cannot send a request: {error}"),
        };
        if wanted != connection.writable_wanted {
            connection.writable_wanted = wanted;
            let mut flags = EpollFlags::EPOLLIN;
            flags.set(EpollFlags::EPOLLOUT, wanted);
            let mut event = EpollEvent::new(flags, number as u64);
            let socket = connection.transport.socket();
            self.epoll.modify(socket, &mut event).unwrap();
        }
    }

    fn read(&mut self, number: usize) -> Progress {
        let connection = &mut self.connections[number];
        let carried = connection.carried.len();
        self.buffer[..carried].copy_from_slice(&connection.carried);
        let read = match connection.transport.read(&mut self.buffer[carried..]) {
            Ok(0) => panic!("the server closed a connection"),
            Ok(len) => len,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Progress::Awaiting,
            Err(error) => panic!("a connection failed: {error}"),
        };
        connection.carried.clear();
        let finished = connection.take(&self.buffer[..carried + read], self.script);
        let waited = connection.sent.elapsed().as_nanos() as u64;
        self.answered += finished;
        self.latency.record_n(waited, finished).unwrap();
        match connection.answered == connection.templates.len() {
            true => Progress::Finished,
            false => Progress::Awaiting,
        }
    }
}

impl Connection {
    fn connect(endpoint: &Endpoint, depth: usize) -> Self {
        Self {
            transport: endpoint.connect_nonblocking(),
            out: Vec::new(),
            written: 0,
            writable_wanted: false,
            sent: Instant::now(),
            templates: Vec::with_capacity(depth),
            answered: 0,
            carried: Vec::new(),
            rest: 0,
        }
    }

    /// Sends the rest of the batch, until the socket takes no more.
    fn send(&mut self) -> io::Result<()> {
        while self.written < self.out.len() {
            self.written += self.transport.write(&self.out[self.written..])?;
        }
        self.transport.flush()
    }

    /// Checks what was read, and returns the number of responses that it completes.
    fn take(&mut self, mut data: &[u8], script: &Script) -> u64 {
        let before = self.answered;
        while !data.is_empty() {
            if self.rest == 0 {
                let template = self.templates.get(self.answered);
                let template = template.expect("no answer without a request");
                let reply = script.templates[usize::from(*template)].reply();
                let Some(len) = reply.check(script.protocol, data) else {
                    self.carried.extend_from_slice(data);
                    break;
                };
                self.rest = len;
            }
            let len = self.rest.min(data.len());
            data = &data[len..];
            self.rest -= len;
            self.answered += usize::from(self.rest == 0);
        }
        (self.answered - before) as u64
    }
}
