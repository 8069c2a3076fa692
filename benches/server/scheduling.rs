//! What serving threads cost and gain: small requests on few and on many connections, a few busy
//! connections among idle ones, and short-lived connections.
//!
//! Context switches are per thousand requests. A wait is voluntary: the thread had nothing to do. A
//! preemption is not: the core went to another thread. In the "2 of 8" loads the first and the
//! fifth connection are busy, the worst case for a fixed deal: with two or four threads, both are
//! served by the same one.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::args::{Args, Variant};
use crate::blocking::BlockingClient;
use crate::client::{Client, Script};
use crate::process::{Server, own_cpu};
use crate::protocol::{Operation, Table};
use crate::report::{Column, Unit};
use crate::rounds::{self, Rounds};
use crate::throughput;

const TABLE: Table = Table {
    entries: 10_000,
    value_len: 64,
};

/// How many threads open short-lived connections at the same time.
const VISITORS: usize = 4;

/// How many requests a short-lived connection sends.
const VISIT: usize = 10;

#[derive(Debug)]
struct Load {
    name: String,
    inner: throughput::Load,
    kind: Kind,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    /// Long-lived connections. Every nth keeps `depth` requests under way; the others are idle.
    Open {
        connections: usize,
        every: usize,
        depth: usize,
    },
    /// Short-lived connections.
    Visits,
}

#[derive(Debug)]
struct Figures {
    cpu_ns: f64,
    rate: f64,
    p50_ns: f64,
    p99_ns: f64,
    waits: f64,
    preemptions: f64,
    client_percent: f64,
}

const COLUMNS: &[Column<Figures>] = &[
    Column::with_ratio("CPU a request", Unit::Time, |figures| figures.cpu_ns),
    Column::with_ratio("requests a second", Unit::Count, |figures| figures.rate),
    Column::plain("p50", Unit::Time, |figures| figures.p50_ns),
    Column::plain("p99", Unit::Time, |figures| figures.p99_ns),
    Column::plain("waits", Unit::Number, |figures| figures.waits),
    Column::plain("preemptions", Unit::Number, |figures| figures.preemptions),
    Column::plain("client busy", Unit::Percent, |figures| {
        figures.client_percent
    }),
];

pub(crate) fn run(args: &Args, variants: &[Variant]) {
    let rounds = Rounds {
        args,
        variants,
        columns: COLUMNS,
    };
    let start = |load: &Load, variant| load.inner.start(args, variant);
    rounds.run(loads(), start, |load, (server, script), _| {
        measure_once(args, load.kind, server, script)
    });
}

impl rounds::Load for Load {
    fn name(&self) -> &str {
        &self.name
    }
}

fn loads() -> Vec<Load> {
    use Operation::{Hget, Hmget, Hset};
    let mut loads = Vec::new();
    for connections in [1, 2, 16, 64] {
        for depth in [1, 32] {
            for operation in [Hget, Hset] {
                let inner = throughput::Load::new(operation, "64 B", TABLE, connections, depth);
                let every = 1;
                loads.push(Load::new(
                    "",
                    inner,
                    Kind::Open {
                        connections,
                        every,
                        depth,
                    },
                ));
            }
        }
    }
    let uneven = [
        ("2 of 8", Hget, 8, 4, 1),
        ("2 of 8", Hget, 8, 4, 32),
        ("2 of 8", Hmget(100), 8, 4, 1),
        ("16 of 1000", Hget, 1000, 63, 1),
        ("16 of 1000", Hget, 1000, 63, 32),
    ];
    for (what, operation, connections, every, depth) in uneven {
        let inner = throughput::Load::new(operation, "64 B", TABLE, connections, depth);
        let kind = Kind::Open {
            connections,
            every,
            depth,
        };
        loads.push(Load::new(&format!("{what} busy, "), inner, kind));
    }
    let inner = throughput::Load::new(Hget, "64 B", TABLE, VISITORS, 1);
    loads.push(Load::new("short-lived, ", inner, Kind::Visits));
    loads
}

impl Load {
    fn new(what: &str, inner: throughput::Load, kind: Kind) -> Self {
        let name = format!("threads: {what}{}", rounds::Load::name(&inner));
        Self { name, inner, kind }
    }
}

fn measure_once(args: &Args, kind: Kind, server: &Server, script: &Script) -> Figures {
    match kind {
        Kind::Open {
            connections,
            every,
            depth,
        } => {
            let is_busy = |number| number % every == 0;
            let mut client =
                Client::connect_some(script, &server.endpoint, connections, depth, is_busy);
            client.run(args.warm_up_time());
            client.reset();
            measure(server, || {
                client.run(args.run_time());
                (client.answered, client.latency.clone())
            })
        }
        Kind::Visits => {
            visit(server, script, args.warm_up_time());
            measure(server, || visit(server, script, args.run_time()))
        }
    }
}

fn measure(server: &Server, load: impl FnOnce() -> (u64, Histogram<u64>)) -> Figures {
    let (own_before, before) = (own_cpu(), server.usage());
    let start = Instant::now();
    let (answered, latency) = load();
    let wall = start.elapsed().as_secs_f64();
    let (own_after, after) = (own_cpu(), server.usage());
    assert!(answered > 0, "nothing was answered");
    let requests = answered as f64;
    Figures {
        cpu_ns: (after.cpu - before.cpu).as_nanos() as f64 / requests,
        rate: requests / wall,
        p50_ns: latency.value_at_quantile(0.5) as f64,
        p99_ns: latency.value_at_quantile(0.99) as f64,
        waits: 1000.0 * (after.waits - before.waits) as f64 / requests,
        preemptions: 1000.0 * (after.preemptions - before.preemptions) as f64 / requests,
        client_percent: 100.0 * (own_after - own_before).as_secs_f64() / wall,
    }
}

/// Several threads each open a connection, send a few requests, close it, and start again. The
/// latency is that of a whole visit.
fn visit(server: &Server, script: &Script, time: Duration) -> (u64, Histogram<u64>) {
    let stop = AtomicBool::new(false);
    let visit_until_stopped = || {
        let mut latency = Histogram::<u64>::new(3).unwrap();
        let mut answered = 0;
        while !stop.load(Relaxed) {
            let opened = Instant::now();
            let mut client = BlockingClient::connect(script.protocol, &server.endpoint);
            for step in script.steps.iter().take(VISIT) {
                client.ask(&script.templates[0], step.key.into());
                answered += 1;
            }
            drop(client);
            latency.record(opened.elapsed().as_nanos() as u64).unwrap();
        }
        (answered, latency)
    };
    thread::scope(|scope| {
        let clients: Vec<_> = (0..VISITORS)
            .map(|_| scope.spawn(visit_until_stopped))
            .collect();
        thread::sleep(time);
        stop.store(true, Relaxed);
        let mut all = (0, Histogram::new(3).unwrap());
        for client in clients {
            let (answered, latency) = client.join().unwrap();
            all.0 += answered;
            all.1.add(latency).unwrap();
        }
        all
    })
}
