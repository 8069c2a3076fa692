//! What it costs to deliver a message: one publisher, and few or many subscribers to the same
//! topic.
//!
//! The figures are per delivered message, so a message published to a hundred subscribers counts a
//! hundred times. The publisher sends one message or several, and waits for the responses. Each run
//! has its own connections and topic. `fanout` says how the publisher is held back, and what is
//! checked.

use std::time::Instant;

use crate::args::{Args, Variant};
use crate::fanout::{Fanout, WINDOW};
use crate::message::Channel;
use crate::process::{Server, own_cpu};
use crate::report::{Column, Unit};
use crate::rounds::{self, Rounds};

/// How many messages are published at once, if not one: half the window, so that the next batch is
/// in progress while subscribers read the last one.
const BATCH: usize = WINDOW / 2;

#[derive(Debug)]
struct Load {
    name: String,
    subscribers: usize,
    /// The bytes of a message, without what the protocol adds.
    message_len: usize,
    depth: usize,
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
}

const COLUMNS: &[Column<Figures>] = &[
    Column::with_ratio("CPU a delivered message", Unit::Time, |figures| {
        figures.cpu_ns
    }),
    Column::plain("in the kernel", Unit::Percent, |figures| {
        figures.system_percent
    }),
    Column::with_ratio("delivered a second", Unit::Count, |figures| figures.rate),
    Column::plain("p50 until all have it", Unit::Time, |figures| {
        figures.p50_ns
    }),
    Column::plain("p99", Unit::Time, |figures| figures.p99_ns),
    Column::plain("switches a message", Unit::Number, |figures| {
        figures.switches
    }),
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
    let start = |_: &Load, variant| Server::start(variant);
    rounds.run(loads(args), start, |load, server, run| {
        measure_once(args, load, server, run)
    });
}

impl rounds::Load for Load {
    fn name(&self) -> &str {
        &self.name
    }
}

fn loads(args: &Args) -> Vec<Load> {
    if args.is_quick() {
        return vec![Load::new("64 B", 64, 10, BATCH)];
    }
    let mut loads = Vec::new();
    for (size, message_len) in [("64 B", 64), ("1 KiB", 1024)] {
        for subscribers in [1, 10, 100] {
            for depth in [1, BATCH] {
                loads.push(Load::new(size, message_len, subscribers, depth));
            }
        }
    }
    loads
}

impl Load {
    fn new(size: &str, message_len: usize, subscribers: usize, depth: usize) -> Self {
        let noun = match subscribers {
            1 => "subscriber",
            _ => "subscribers",
        };
        let mut name = format!("publish, {size}, {subscribers} {noun}");
        if depth > 1 {
            name += &format!(", {depth} messages at a time");
        }
        Self {
            name,
            subscribers,
            message_len,
            depth,
        }
    }
}

fn measure_once(args: &Args, load: &Load, server: &Server, run: usize) -> Figures {
    // The server may still be closing the connections of the previous run.
    let topic = format!("bench:{run:05}");
    let channel = Channel::new(server.protocol, topic, load.subscribers, load.message_len);
    let mut fanout = Fanout::connect(
        server.protocol,
        &server.endpoint,
        &channel,
        load.subscribers,
        load.depth,
    );
    fanout.run(args.warm_up_time());
    fanout.reset();
    let (own_before, before) = (own_cpu(), server.usage());
    let start = Instant::now();
    fanout.run(args.run_time());
    let (own_after, after) = (own_cpu(), server.usage());
    let wall = start.elapsed().as_secs_f64();
    assert!(fanout.delivered > 0, "{}: no message arrived", load.name);
    let delivered = fanout.delivered as f64;
    let cpu = (after.cpu - before.cpu).as_secs_f64();
    let figures = Figures {
        cpu_ns: cpu * 1e9 / delivered,
        system_percent: 100.0 * (after.system - before.system).as_secs_f64() / cpu,
        rate: delivered / wall,
        p50_ns: fanout.latency.value_at_quantile(0.5) as f64,
        p99_ns: fanout.latency.value_at_quantile(0.99) as f64,
        switches: (after.switches() - before.switches()) as f64 / delivered,
        client_percent: 100.0 * (own_after - own_before).as_secs_f64() / wall,
    };
    fanout.finish();
    figures
}
