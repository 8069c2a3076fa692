//! What an idle connection costs: the server's own memory per connection that has made one request.
//!
//! Own memory is what the process has written to, `Anonymous` in `/proc/PID/smaps_rollup`: heap
//! and stacks, without the program and the kernel's memory for sockets. The servers get three
//! seconds to release what they do not need: Redis does that twice a second.

use std::time::Duration;

use crate::args::{Args, Variant};
use crate::blocking::BlockingClient;
use crate::process::Server;
use crate::protocol::{Operation, THRESHOLD, Table, Template};
use crate::report::{Column, LARGE_MARK, Unit};
use crate::rounds::{self, Rounds};

/// The maximum number of connections that store a large value.
const LARGE_CONNECTIONS: usize = 300;

/// Files that this process has open besides the connections.
const OTHER_FILES: usize = 100;

#[derive(Debug)]
struct Load {
    name: String,
    operation: Operation,
    table: Table,
    connections: usize,
}

/// The figures of one run.
#[derive(Debug)]
struct Figures {
    /// Own memory before the connections, after a few requests.
    before: f64,
    open: f64,
    closed: f64,
    resident: f64,
    connections: f64,
}

const COLUMNS: &[Column<Figures>] = &[
    Column::with_ratio("own memory a connection", Unit::Bytes, |run| {
        (run.open - run.before) / run.connections
    }),
    Column::plain("own, before", Unit::Bytes, |run| run.before),
    Column::plain("own, while open", Unit::Bytes, |run| run.open),
    Column::plain("own, after they closed", Unit::Bytes, |run| run.closed),
    Column::plain("resident while open", Unit::Bytes, |run| run.resident),
];

pub(crate) fn run(args: &Args, variants: &[Variant], max_open_files: usize) {
    let fitting = args.idle().min(max_open_files.saturating_sub(OTHER_FILES));
    if fitting < args.idle() {
        eprintln!("{} idle connections do not fit, {fitting} do", args.idle());
    }
    let loads = loads(fitting, args.scaled(LARGE_CONNECTIONS).min(fitting));
    let rounds = Rounds {
        args,
        variants,
        columns: COLUMNS,
    };
    // Each run starts its own server.
    let start = |_: &Load, variant| variant;
    rounds.run(loads, start, |load, variant, _| {
        measure_once(args, load, variant)
    });
}

impl rounds::Load for Load {
    fn name(&self) -> &str {
        &self.name
    }
}

fn loads(connections: usize, large_connections: usize) -> Vec<Load> {
    let small = Table {
        entries: 1000,
        value_len: 64,
    };
    let large = Table {
        entries: 1,
        value_len: 1 << 20,
    };
    vec![
        Load {
            name: format!("idle: {connections} connections after one hget of 64 B"),
            operation: Operation::Hget,
            table: small,
            connections,
        },
        Load {
            name: format!(
                "idle: {large_connections} connections after one hset of 1 MiB{LARGE_MARK}"
            ),
            operation: Operation::Hset,
            table: large,
            connections: large_connections,
        },
    ]
}

fn measure_once(args: &Args, load: &Load, variant: &Variant) -> Figures {
    let server = match load.table.value_len > THRESHOLD {
        true => Server::start(&variant.for_large(args)),
        false => Server::start(variant),
    };
    let template = Template::new(server.protocol, load.operation, load.table);
    let connect = || {
        let mut client = BlockingClient::connect(server.protocol, &server.endpoint);
        client.ask(&template, 0);
        client
    };
    let settle = || {
        let seconds = if args.is_quick() { 0.2 } else { 3.0 };
        std::thread::sleep(Duration::from_secs_f64(seconds));
        server.own() as f64
    };
    BlockingClient::connect(server.protocol, &server.endpoint).fill(load.table);
    drop(connect());
    let before = settle();
    let connections: Vec<_> = (0..load.connections).map(|_| connect()).collect();
    let open = settle();
    let resident = server.resident() as f64;
    drop(connections);
    Figures {
        before,
        open,
        closed: settle(),
        resident,
        connections: load.connections as f64,
    }
}
