//! What it costs a server that a client connects, asks for one small value and closes: over TLS,
//! mostly the handshake.
//!
//! One client does that repeatedly, so the rate is that of client and server in turn, one waiting
//! while the other works. Every handshake is a full one. When its CPU time is read, a server may
//! still be closing the last connection, one of thousands.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::args::{Args, Variant};
use crate::blocking::BlockingClient;
use crate::process::{Server, own_cpu};
use crate::protocol::{Operation, Table, Template};
use crate::report::{Column, Unit};
use crate::rounds::{self, Rounds};

const NAME: &str = "handshake: connect, hget of 64 B, close";

const TABLE: Table = Table {
    entries: 1000,
    value_len: 64,
};

/// The figures of one run.
#[derive(Debug)]
struct Figures {
    cpu_ns: f64,
    system_percent: f64,
    rate: f64,
    p50_ns: f64,
    p99_ns: f64,
    client_percent: f64,
}

const COLUMNS: &[Column<Figures>] = &[
    Column::with_ratio("CPU a connection", Unit::Time, |figures| figures.cpu_ns),
    Column::plain("in the kernel", Unit::Percent, |figures| {
        figures.system_percent
    }),
    Column::with_ratio("connections a second", Unit::Count, |figures| figures.rate),
    Column::plain("p50", Unit::Time, |figures| figures.p50_ns),
    Column::plain("p99", Unit::Time, |figures| figures.p99_ns),
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
    let start = |_: &Handshake, variant| start(variant);
    rounds.run(vec![Handshake], start, |_, (server, template), _| {
        measure_once(args, server, template)
    });
}

/// The only load.
#[derive(Debug)]
struct Handshake;

impl rounds::Load for Handshake {
    fn name(&self) -> &str {
        NAME
    }
}

fn start(variant: &Variant) -> (Server, Template) {
    let server = Server::start(variant);
    BlockingClient::connect(server.protocol, &server.endpoint).fill(TABLE);
    let template = Template::new(server.protocol, Operation::Hget, TABLE);
    (server, template)
}

fn measure_once(args: &Args, server: &Server, template: &Template) -> Figures {
    visit(server, template, args.warm_up_time());
    let (own_before, before) = (own_cpu(), server.usage());
    let start = Instant::now();
    let latency = visit(server, template, args.run_time());
    let (own_after, after) = (own_cpu(), server.usage());
    let wall = start.elapsed().as_secs_f64();
    let connections = latency.len() as f64;
    let cpu = (after.cpu - before.cpu).as_secs_f64();
    Figures {
        cpu_ns: cpu * 1e9 / connections,
        system_percent: 100.0 * (after.system - before.system).as_secs_f64() / cpu,
        rate: connections / wall,
        p50_ns: latency.value_at_quantile(0.5) as f64,
        p99_ns: latency.value_at_quantile(0.99) as f64,
        client_percent: 100.0 * (own_after - own_before).as_secs_f64() / wall,
    }
}

/// Connects again and again for this long, and returns how many nanoseconds each connection took.
fn visit(server: &Server, template: &Template, time: Duration) -> Histogram<u64> {
    let mut latency = Histogram::new(3).unwrap();
    let start = Instant::now();
    while start.elapsed() < time {
        let connecting = Instant::now();
        BlockingClient::connect(server.protocol, &server.endpoint).ask(template, 0);
        let took = connecting.elapsed().as_nanos() as u64;
        latency.record(took).unwrap();
    }
    latency
}
