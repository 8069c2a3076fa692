//! The loads, and the services that they run on.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use bytes::BytesMut;
use futures::FutureExt;
use kv::abi::{CommandRequest, CommandResponse, Value};
use kv::{CodecConfig, MemTable, Metrics, ProstCodec, ProstServerStream, ServerConfig, Service};
use tokio::runtime::Builder;
use tokio_util::codec::Encoder;

use crate::crew::Job;
use crate::feed::{Feed, Seen};

/// The number of keys of each thread.
const KEYS: usize = 9600;

/// How many requests arrive at once.
const AT_ONCE: usize = 32;

const VALUE_LEN: usize = 64;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    way: Way,
    command: Command,
    is_counted: bool,
    tables: Tables,
}

#[derive(Debug, Clone, Copy)]
enum Way {
    Connection,
    Execute,
}

#[derive(Debug, Clone, Copy)]
enum Command {
    Hget,
    Hset,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tables {
    /// Each thread has its own service.
    Apart,
    /// Each thread has its own table.
    Own,
    /// All threads use one table.
    One,
}

/// A load set up to run: for each thread a service, and requests for its own keys, all of which
/// exist.
#[derive(Debug)]
pub(crate) struct Stand {
    load: Load,
    threads: [(Service<MemTable>, Arc<Requests>); 2],
}

#[derive(Debug)]
struct Requests {
    messages: Vec<CommandRequest>,
    /// The messages, encoded, [`AT_ONCE`] in each part.
    parts: Vec<Vec<u8>>,
    answer: CommandResponse,
    answer_len: usize,
}

impl Load {
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        let each = |way, command| {
            [false, true].into_iter().flat_map(move |is_counted| {
                [Tables::Apart, Tables::Own, Tables::One].map(|tables| Self {
                    way,
                    command,
                    is_counted,
                    tables,
                })
            })
        };
        [Way::Connection, Way::Execute]
            .into_iter()
            .flat_map(move |way| {
                [Command::Hget, Command::Hset]
                    .into_iter()
                    .flat_map(move |command| each(way, command))
            })
    }
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.command {
            Command::Hget => "hget",
            Command::Hset => "hset",
        })?;
        f.write_str(match self.way {
            Way::Connection => ", 32 at a time",
            Way::Execute => ", executed",
        })?;
        f.write_str(match self.tables {
            Tables::Apart => ", nothing shared",
            Tables::Own => ", a table each",
            Tables::One => ", one table",
        })?;
        f.write_str(if self.is_counted { ", metrics" } else { "" })
    }
}

impl Stand {
    pub(crate) fn new(load: Load) -> Self {
        let service = || {
            let builder = Service::builder(MemTable::new());
            match load.is_counted {
                true => builder.metrics(Metrics::new()).build(),
                false => builder.build(),
            }
        };
        let one = service();
        let other = match load.tables {
            Tables::Apart => service(),
            Tables::Own | Tables::One => one.clone(),
        };
        let requests = |thread| Arc::new(Requests::new(load, thread));
        let threads = [(one, requests(0)), (other, requests(1))];
        for (thread, (service, _)) in threads.iter().enumerate() {
            fill(service, load, thread);
        }
        Self { load, threads }
    }

    /// The job of one of the threads.
    pub(crate) fn job(&self, thread: usize) -> Job {
        let (service, requests) = self.threads[thread].clone();
        match self.load.way {
            Way::Connection => Box::new(move |stop| connection(service, &requests, stop)),
            Way::Execute => Box::new(move |stop| execute(&service, &requests, stop)),
        }
    }
}

impl Requests {
    fn new(load: Load, thread: usize) -> Self {
        let message = |key: String| match load.command {
            Command::Hget => CommandRequest::new_hget(load.table(thread), key),
            Command::Hset => CommandRequest::new_hset(load.table(thread), key, value()),
        };
        let messages: Vec<_> = keys(thread).map(message).collect();
        let mut codec = ProstCodec::<CommandRequest, CommandRequest>::new(plain());
        let parts = messages.chunks(AT_ONCE).map(|messages| {
            let mut part = BytesMut::new();
            let mut encode = |message: &CommandRequest| codec.encode(message.clone(), &mut part);
            messages.iter().for_each(|message| encode(message).unwrap());
            part.to_vec()
        });
        let answer = CommandResponse::from(value());
        let mut encoded = BytesMut::new();
        let mut codec = ProstCodec::<CommandResponse, CommandResponse>::new(plain());
        codec.encode(answer.clone(), &mut encoded).unwrap();
        Self {
            parts: parts.collect(),
            messages,
            answer,
            answer_len: encoded.len(),
        }
    }
}

impl Load {
    fn table(self, thread: usize) -> &'static str {
        match self.tables {
            Tables::One => "both",
            Tables::Apart | Tables::Own => ["one", "other"][thread],
        }
    }
}

fn fill(service: &Service<MemTable>, load: Load, thread: usize) {
    for key in keys(thread) {
        let request = CommandRequest::new_hset(load.table(thread), key, value());
        let response = service.execute(request).now_or_never().unwrap();
        assert_eq!(response.status, 200);
    }
}

fn keys(thread: usize) -> impl Iterator<Item = String> {
    (0..KEYS).map(move |key| format!("{thread}:{key:08}"))
}

fn value() -> Value {
    "v".repeat(VALUE_LEN).into()
}

/// No compression: the codec's own benchmark measures that.
fn plain() -> CodecConfig {
    CodecConfig::default().with_compression(None)
}

/// Sends requests as a server gets them, on a runtime per thread.
fn connection(service: Service<MemTable>, requests: &Requests, stop: &AtomicBool) -> u64 {
    let runtime = Builder::new_current_thread().enable_time().build().unwrap();
    let mut seen = Seen::default();
    let feed = Feed::new(&mut seen, &requests.parts, stop);
    let config = ServerConfig::default().with_codec(plain());
    let connection = ProstServerStream::with_config(feed, service, config);
    runtime.block_on(connection.process()).unwrap();
    let count = seen.parts * AT_ONCE;
    assert_eq!(seen.written, count * requests.answer_len);
    count as u64
}

/// Sends requests as a program does that embeds the service.
fn execute(service: &Service<MemTable>, requests: &Requests, stop: &AtomicBool) -> u64 {
    let mut count = 0;
    for messages in requests.messages.chunks(AT_ONCE).cycle() {
        for message in messages {
            let response = service.execute(message.clone()).now_or_never();
            assert_eq!(response.as_ref(), Some(&requests.answer));
        }
        count += messages.len() as u64;
        if stop.load(Relaxed) {
            break;
        }
    }
    count
}
