//! How long a client that asks for one small value at a time waits while another keeps the server
//! busy.
//!
//! Each run has three situations: the client alone; beside a client that floods a second server of
//! the same kind; and beside a client that floods the same server. With few cores, the flood takes
//! CPU time from everyone, whatever the server does: the second situation shows how much of the
//! wait that is, and the ratio of the third to the second is what the server itself adds. The
//! measured client and the flood have a thread each, and both read responses as they arrive.

use std::io::{ErrorKind, Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};

use crate::args::{Args, Variant};
use crate::blocking::BlockingClient;
use crate::client::{Client, Script, Step};
use crate::process::Server;
use crate::protocol::{Operation, Table, Template};
use crate::report::{Column, Unit};
use crate::rounds::{self, Rounds};
use crate::transport::Endpoint;

const TABLE: Table = Table {
    entries: 10_000,
    value_len: 64,
};

/// How much an unbounded flood writes at once.
const CHUNK_BYTES: usize = 64 * 1024;

/// How often a flood checks whether it should end.
const TICK_MS: u8 = 10;

#[derive(Debug, Clone, Copy)]
enum Flood {
    /// This many requests at a time, the next when all are answered.
    Batches(usize),
    /// As much as the socket takes, whether or not there are responses.
    Unbounded,
}

/// The figures of one run.
#[derive(Debug)]
struct Figures {
    alone: Wait,
    beside_another: Wait,
    beside: Wait,
    /// Responses per second to the flood of the same server.
    flood_rate: f64,
}

#[derive(Debug)]
struct Wait {
    p50_ns: f64,
    p99_ns: f64,
}

const COLUMNS: &[Column<Figures>] = &[
    Column::plain("alone, p50", Unit::Time, |run| run.alone.p50_ns),
    Column::plain("p99", Unit::Time, |run| run.alone.p99_ns),
    Column::plain("another server flooded, p50", Unit::Time, |run| {
        run.beside_another.p50_ns
    }),
    Column::plain("p99", Unit::Time, |run| run.beside_another.p99_ns),
    Column::plain("this one flooded, p50", Unit::Time, |run| run.beside.p50_ns),
    Column::plain("p99", Unit::Time, |run| run.beside.p99_ns),
    Column::plain("p50 to alone", Unit::Number, |run| {
        run.beside.p50_ns / run.alone.p50_ns
    }),
    Column::plain("p50 to another", Unit::Number, |run| {
        run.beside.p50_ns / run.beside_another.p50_ns
    }),
    Column::plain("flood, answers a second", Unit::Count, |run| run.flood_rate),
];

pub(crate) fn run(args: &Args, variants: &[Variant]) {
    let load = |name, flood| Load { name, flood };
    let loads = vec![
        load("fairness: beside 32 requests at a time", Flood::Batches(32)),
        load(
            "fairness: beside 128 requests at a time",
            Flood::Batches(128),
        ),
        load("fairness: beside any number", Flood::Unbounded),
    ];
    let rounds = Rounds {
        args,
        variants,
        columns: COLUMNS,
    };
    let start = |_: &Load, variant| start_two(variant);
    rounds.run(loads, start, |load, (script, server, other), _| {
        measure_once(args, load.flood, script, server, other)
    });
}

/// A flood, and the name of its row.
#[derive(Debug)]
struct Load {
    name: &'static str,
    flood: Flood,
}

impl rounds::Load for Load {
    fn name(&self) -> &str {
        self.name
    }
}

fn start_two(variant: &Variant) -> (Script, Server, Server) {
    let start = || {
        let server = Server::start(variant);
        BlockingClient::connect(server.protocol, &server.endpoint).fill(TABLE);
        server
    };
    let keys = 0..TABLE.entries as u32;
    let script = Script {
        protocol: variant.protocol,
        templates: vec![Template::new(variant.protocol, Operation::Hget, TABLE)],
        steps: keys.map(|key| Step { template: 0, key }).collect(),
    };
    (script, start(), start())
}

fn measure_once(
    args: &Args,
    flood: Flood,
    script: &Script,
    server: &Server,
    other: &Server,
) -> Figures {
    let alone = wait(args, script, server);
    let (beside_another, _) = beside(flood, script, other, || wait(args, script, server));
    let (beside, flood_rate) = beside(flood, script, server, || wait(args, script, server));
    Figures {
        alone,
        beside_another,
        beside,
        flood_rate,
    }
}

/// Measures while this server is flooded, and returns the flood's responses per second too.
fn beside(
    flood: Flood,
    script: &Script,
    flooded: &Server,
    measure: impl FnOnce() -> Wait,
) -> (Wait, f64) {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let stop_at_end = SetOnDrop(&stop);
        let flooding = scope.spawn(|| {
            let start = Instant::now();
            let answered = match flood {
                Flood::Batches(depth) => {
                    let mut client = Client::connect(script, &flooded.endpoint, 1, depth);
                    while !stop.load(Ordering::Relaxed) {
                        client.run(Duration::from_millis(TICK_MS.into()));
                    }
                    client.answered
                }
                Flood::Unbounded => write_and_read(script, &flooded.endpoint, &stop),
            };
            answered as f64 / start.elapsed().as_secs_f64()
        });
        let wait = measure();
        drop(stop_at_end);
        (wait, flooding.join().unwrap())
    })
}

/// Ends the flood even if the measurement panics: the scope would wait for it.
struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Asks for one value after the other, each after the response to the one before.
fn wait(args: &Args, script: &Script, server: &Server) -> Wait {
    let mut client = BlockingClient::connect(script.protocol, &server.endpoint);
    let mut latency = Histogram::<u64>::new(3).unwrap();
    let mut request = Vec::new();
    let start = Instant::now();
    for step in script.steps.iter().cycle() {
        request.clear();
        script.templates[0].append(step.key.into(), &mut request);
        let sent = Instant::now();
        let reply = client.exchange(&request);
        if start.elapsed() > args.warm_up_time() {
            latency.record(sent.elapsed().as_nanos() as u64).unwrap();
        }
        let checked = script.templates[0].reply().check(script.protocol, &reply);
        assert_eq!(checked, Some(reply.len()));
        if start.elapsed() > args.warm_up_time() + args.run_time() {
            break;
        }
    }
    Wait {
        p50_ns: latency.value_at_quantile(0.5) as f64,
        p99_ns: latency.value_at_quantile(0.99) as f64,
    }
}

/// Writes requests as fast as they are taken, reads whatever comes, and returns the number of
/// responses.
fn write_and_read(script: &Script, endpoint: &Endpoint, stop: &AtomicBool) -> u64 {
    let template = &script.templates[0];
    let mut chunk = Vec::new();
    for step in script.steps.iter().cycle() {
        template.append(step.key.into(), &mut chunk);
        if chunk.len() > CHUNK_BYTES {
            break;
        }
    }
    let mut transport = endpoint.connect_nonblocking();
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
    let both = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT;
    let event = EpollEvent::new(both, 0);
    epoll.add(transport.socket(), event).unwrap();
    let mut buffer = vec![0; 256 * 1024];
    let (mut written, mut read) = (0, 0);
    while !stop.load(Ordering::Relaxed) {
        let mut events = [EpollEvent::empty()];
        epoll.wait(&mut events, TICK_MS).unwrap();
        written += passed(transport.write(&chunk[written % chunk.len()..]));
        let len = passed(transport.read(&mut buffer));
        if read == 0 && len > 0 {
            assert!(template.reply().check(script.protocol, &buffer).is_some());
        }
        read += len;
    }
    (read / template.reply().len()) as u64
}

fn passed(result: std::io::Result<usize>) -> usize {
    match result {
        Ok(0) => panic!("the server closed the flooding connection"),
        Ok(len) => len,
        Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
        Err(error) => panic!("the flooding connection failed: {error}"),
    }
}
