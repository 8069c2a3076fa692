//! Measures servers from outside: kvs with different settings, different builds of it, and
//! redis-server, with and without TLS, under the same loads. It starts the servers, loads them in
//! turn and prints Markdown tables.
//!
//!     cargo bench --bench server -- --help
//!
//! The first figure is what a request costs: the CPU time of the server's process, including the
//! kernel's work for it, divided by the requests that it answered. On a machine whose cores the
//! server, the load and others share, it says more than a rate does.
//!
//! `protocol` has the requests, `transport` the connections, `client` the loop, `process` the
//! server processes, and `rounds` the order of the runs. Each kind of measurement has its own
//! module: `throughput`, `scheduling`, `durable`, `pubsub`, `handshake`, `fairness`, `idle` and
//! `stored`. For `pubsub`, `message` has the messages and `fanout` the loop of publisher and
//! subscribers. All of this reads `/proc`, so it needs Linux.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a benchmark fails by panicking"
)]

mod args;
mod blocking;
#[allow(dead_code, reason = "the tests use the rest")]
#[path = "../../tests/support/certificates.rs"]
mod certificates;
mod client;
mod durable;
mod fairness;
mod fanout;
mod handshake;
mod idle;
mod message;
mod process;
mod protocol;
mod pubsub;
mod report;
mod rounds;
mod scheduling;
mod stored;
mod throughput;
mod transport;

use clap::Parser;

use args::Args;

fn main() {
    let args = Args::parse();
    let limit = process::raise_open_files();
    let variants = args.variants();
    let shaking_hands = args.with_tls(&variants);
    print!("{}", report::preamble(&args, &shaking_hands));
    throughput::run(&args, &variants);
    scheduling::run(&args, &variants);
    durable::run(&args);
    pubsub::run(&args, &variants);
    handshake::run(&args, &shaking_hands);
    fairness::run(&args, &variants);
    idle::run(&args, &variants, limit);
    stored::run(&args, &variants);
}
