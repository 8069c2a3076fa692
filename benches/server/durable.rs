//! What durable writes cost: each sync policy of kvs beside the one of Redis that promises the
//! same, on the file system of the temporary directory.
//!
//! `throughput` has the loop. A run starts with what earlier runs left on disk.

use crate::args::{Args, Variant};
use crate::protocol::{Operation, Table};
use crate::throughput::{self, Load};

/// The prefix of the name of every load.
const NAME: &str = "on disk: ";

const VARIANTS: [&str; 5] = [
    "redis-always=--appendonly yes --appendfsync always",
    "always=--storage sled:data --sync always",
    "redis-everysec=--appendonly yes --appendfsync everysec",
    "interval=--storage sled:data --sync interval:1s",
    "never=--storage sled:data --sync never",
];

pub(crate) fn run(args: &Args) {
    let table = Table {
        entries: 10_000,
        value_len: 64,
    };
    let loads = [(1, 1), (1, 32), (64, 1), (64, 32)].map(|(connections, depth)| {
        Load::new(Operation::Hset, "64 B", table, connections, depth).named(NAME)
    });
    let variants = VARIANTS.map(|variant| variant.parse::<Variant>().unwrap());
    throughput::run_loads(args, loads.into(), &args.variants_or(variants.into()));
}
