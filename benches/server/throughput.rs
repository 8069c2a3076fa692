//! Closed loops of one kind of request: what a request costs the server, how many it answers, and
//! how long they take.
//!
//! For each load the servers of all variants are started and filled; `rounds` has the order of the
//! runs.

use std::sync::Arc;
use std::time::Instant;

use crate::args::{Args, Variant};
use crate::blocking::BlockingClient;
use crate::client::{Client, Script, Step};
use crate::process::{Server, own_cpu};
use crate::protocol::{Operation, Protocol, Random, THRESHOLD, Table, Template};
use crate::report::{Column, LARGE_MARK, Unit};
use crate::rounds::{self, Rounds};

/// The exponent of the Zipf distribution, as in YCSB.
const SKEW: f64 = 0.99;

const STEPS: usize = 1 << 18;

#[derive(Debug)]
pub(crate) struct Load {
    name: String,
    operations: Vec<Operation>,
    /// The percentage of requests that are the first operation; the others are the second.
    first_percent: u64,
    table: Table,
    keys: Keys,
    connections: usize,
    depth: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keys {
    Uniform,
    Zipf,
}

/// The figures of one run.
#[derive(Debug)]
struct Figures {
    cpu_ns: f64,
    system_percent: f64,
    rate: f64,
    p50_ns: f64,
    p99_ns: f64,
    switches: f64,
    client_percent: f64,
    resident_bytes: f64,
}

const COLUMNS: &[Column<Figures>] = &[
    Column::with_ratio("CPU a request", Unit::Time, |figures| figures.cpu_ns),
    Column::plain("in the kernel", Unit::Percent, |figures| {
        figures.system_percent
    }),
    Column::with_ratio("requests a second", Unit::Count, |figures| figures.rate),
    Column::plain("p50", Unit::Time, |figures| figures.p50_ns),
    Column::plain("p99", Unit::Time, |figures| figures.p99_ns),
    Column::plain("switches a request", Unit::Number, |figures| {
        figures.switches
    }),
    Column::plain("resident", Unit::Bytes, |figures| figures.resident_bytes),
    Column::plain("client busy", Unit::Percent, |figures| {
        figures.client_percent
    }),
];

pub(crate) fn run(args: &Args, variants: &[Variant]) {
    run_loads(args, loads(args), variants);
}

/// Measures the wanted loads.
pub(crate) fn run_loads(args: &Args, loads: Vec<Load>, variants: &[Variant]) {
    let rounds = Rounds {
        args,
        variants,
        columns: COLUMNS,
    };
    let start = |load: &Load, variant| load.start(args, variant);
    rounds.run(loads, start, |load, (server, script), _| {
        measure_once(args, load, server, script)
    });
}

impl rounds::Load for Load {
    fn name(&self) -> &str {
        &self.name
    }
}

fn loads(args: &Args) -> Vec<Load> {
    use Operation::{Hget, Hgetall, Hmget, Hmset, Hset};
    let table = |entries, value_len| Table { entries, value_len };
    let small = table(10_000, 64);
    let mut loads = Vec::new();
    for (connections, depth) in [(16, 1), (16, 32), (1, 1), (256, 1), (2000, 1)] {
        let connections = args.scaled(connections);
        loads.push(Load::new(Hget, "64 B", small, connections, depth));
        loads.push(Load::new(Hset, "64 B", small, connections, depth));
    }
    for (values, table) in [
        ("1380 B", table(10_000, 1380)),
        ("64 KiB", table(1000, 64 << 10)),
    ] {
        loads.push(Load::new(Hget, values, table, 16, 1));
        loads.push(Load::new(Hset, values, table, 16, 1));
    }
    loads.push(Load::new(Hmget(100), "64 B", small, 16, 1));
    loads.push(Load::new(Hmset(100), "64 B", small, 16, 1));
    loads.push(Load::new(Hgetall, "64 B", table(1000, 64), 16, 1));
    let entries = args.scaled(1_000_000);
    let mut mix = Load::new(Hget, "64 B", table(entries, 64), 16, 1);
    mix.name = format!("90 % hget, 10 % hset, zipf over {entries}, 64 B, 16 connections");
    mix.operations.push(Hset);
    mix.first_percent = 90;
    mix.keys = Keys::Zipf;
    loads.push(mix);
    loads
}

impl Load {
    pub(crate) fn new(
        operation: Operation,
        values: &str,
        table: Table,
        connections: usize,
        depth: usize,
    ) -> Self {
        let operation_name = match operation {
            Operation::Hget => "hget".to_owned(),
            Operation::Hset => "hset".to_owned(),
            Operation::Hmget(keys) => format!("hmget of {keys}"),
            Operation::Hmset(pairs) => format!("hmset of {pairs}"),
            Operation::Hgetall => format!("hgetall of {}", table.entries),
        };
        let noun = match connections {
            1 => "connection",
            _ => "connections",
        };
        let mut load = Self {
            name: format!("{operation_name}, {values}, {connections} {noun}"),
            operations: vec![operation],
            first_percent: 100,
            table,
            keys: Keys::Uniform,
            connections,
            depth,
        };
        if depth > 1 {
            load.name += &format!(" with {depth} requests each");
        }
        if load.is_large() {
            load.name += LARGE_MARK;
        }
        load
    }

    /// The same load, with this prefix to its name.
    pub(crate) fn named(mut self, prefix: &str) -> Self {
        self.name.insert_str(0, prefix);
        self
    }

    /// Whether kvs would compress messages of this load.
    fn is_large(&self) -> bool {
        let is_large = |operation: &Operation| match operation {
            Operation::Hget | Operation::Hset => self.table.value_len > THRESHOLD,
            Operation::Hmget(_) | Operation::Hmset(_) | Operation::Hgetall => true,
        };
        self.operations.iter().any(is_large)
    }

    fn steps(&self) -> Arc<[Step]> {
        let mut random = Random::new();
        let zipf = (self.keys == Keys::Zipf).then(|| Zipf::new(self.table.entries));
        let step = |_| Step {
            template: u8::from(random.next() % 100 >= self.first_percent),
            key: match &zipf {
                Some(zipf) => zipf.draw(&mut random),
                None => (random.next() % self.table.entries as u64) as u32,
            },
        };
        (0..STEPS).map(step).collect()
    }

    /// Starts a server, fills its table and runs each operation once. The steps are the same for
    /// every variant.
    pub(crate) fn start(&self, args: &Args, variant: &Variant) -> (Server, Script) {
        let server = match self.is_large() {
            true => Server::start(&variant.for_large(args)),
            false => Server::start(variant),
        };
        let script = self.script(server.protocol);
        let mut client = BlockingClient::connect(server.protocol, &server.endpoint);
        client.fill(self.table);
        for template in &script.templates {
            client.ask(template, 0);
        }
        (server, script)
    }

    fn script(&self, protocol: Protocol) -> Script {
        let operations = self.operations.iter();
        Script {
            protocol,
            templates: operations
                .map(|operation| Template::new(protocol, *operation, self.table))
                .collect(),
            steps: self.steps(),
        }
    }
}

fn measure_once(args: &Args, load: &Load, server: &Server, script: &Script) -> Figures {
    let mut client = Client::connect(script, &server.endpoint, load.connections, load.depth);
    client.run(args.warm_up_time());
    client.reset();
    let (own_before, before) = (own_cpu(), server.usage());
    let start = Instant::now();
    client.run(args.run_time());
    let (own_after, after) = (own_cpu(), server.usage());
    let wall = start.elapsed().as_secs_f64();
    assert!(client.answered > 0, "{} was never answered", load.name);
    let requests = client.answered as f64;
    let cpu = (after.cpu - before.cpu).as_secs_f64();
    Figures {
        cpu_ns: cpu * 1e9 / requests,
        system_percent: 100.0 * (after.system - before.system).as_secs_f64() / cpu,
        rate: requests / wall,
        p50_ns: client.latency.value_at_quantile(0.5) as f64,
        p99_ns: client.latency.value_at_quantile(0.99) as f64,
        switches: (after.switches() - before.switches()) as f64 / requests,
        client_percent: 100.0 * (own_after - own_before).as_secs_f64() / wall,
        resident_bytes: server.resident() as f64,
    }
}

/// A Zipf distribution of keys: the n-th has a probability proportional to 1 / n^0.99.
#[derive(Debug)]
struct Zipf {
    /// For each key, the sum of the weights up to it.
    sums: Vec<f64>,
}

impl Zipf {
    fn new(keys: usize) -> Self {
        let mut sum = 0.0;
        let weights = (1..=keys).map(|rank| (rank as f64).powf(-SKEW));
        let sums = weights
            .map(|weight| {
                sum += weight;
                sum
            })
            .collect();
        Self { sums }
    }

    fn draw(&self, random: &mut Random) -> u32 {
        let keys = self.sums.len();
        let point = random.fraction() * self.sums[keys - 1];
        let rank = self.sums.partition_point(|sum| *sum <= point);
        // Spread the frequent keys over the table.
        (rank as u64 * 2_654_435_761 % keys as u64) as u32
    }
}
