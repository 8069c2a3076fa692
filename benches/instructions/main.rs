//! Counts the instructions that a request costs the server, without the kernel: valgrind counts a
//! real connection that decodes, executes and encodes over a stream that is always ready.
//!
//!     cargo bench --bench instructions
//!
//! On one machine the counts repeat to a tenth of a percent, where times on a shared machine
//! differ by tens. They are compared with `counts.txt` beside this file, and growing by more than
//! 3 % is an error, so that speed cannot leak away unnoticed. After an improvement, or when a new
//! compiler or dependency changes the counts, save them with `-- --save`. A missing valgrind is an
//! error too.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a benchmark fails by panicking"
)]

mod wire;

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};

use bytes::BytesMut;
use kv::abi::{CommandRequest, Value};
use kv::{CodecConfig, MemTable, Metrics, ProstCodec, ProstServerStream, ServerConfig, Service};
use mimalloc::MiMalloc;
use tokio_util::codec::Encoder;

use wire::Wire;

/// The allocator that kvs uses.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// How much a count may grow, relative to the saved one.
const TOLERANCE: f64 = 0.03;

const COUNTS: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/benches/instructions/counts.txt"
);

/// The number of requests in the shorter of two runs, whose difference gives the count.
const REQUESTS: usize = 16_000;

const RUNS: usize = 4;

const KEYS: usize = 1000;

const LOADS: [Load; 8] = [
    Load::new("hget", Kind::Hget, 1),
    Load::new("hget, 32 at a time", Kind::Hget, 32),
    Load::new("hset", Kind::Hset, 1),
    Load::new("hset, 32 at a time", Kind::Hset, 32),
    // A hook needs messages, so these are not answered in place.
    Load::new("hget with a hook, 32 at a time", Kind::Hget, 32).hooked(),
    Load::new("hset with a hook, 32 at a time", Kind::Hset, 32).hooked(),
    Load::new("hmget of 100 keys", Kind::Hmget, 1),
    Load::new("hmset of 100 keys", Kind::Hmset, 1),
];

#[derive(Debug, Clone, Copy)]
struct Load {
    name: &'static str,
    kind: Kind,
    at_once: usize,
    is_hooked: bool,
}

impl Load {
    const fn new(name: &'static str, kind: Kind, at_once: usize) -> Self {
        Self {
            name,
            kind,
            at_once,
            is_hooked: false,
        }
    }

    const fn hooked(self) -> Self {
        Self {
            is_hooked: true,
            ..self
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Hget,
    Hset,
    Hmget,
    Hmset,
}

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--run", load, requests] => {
            run(load.parse().unwrap(), requests.parse().unwrap());
            ExitCode::SUCCESS
        }
        ["--save"] | ["--save", "--bench"] => compare(true),
        // Cargo adds --bench.
        [] | ["--bench"] => compare(false),
        _ => {
            eprintln!("usage: cargo bench --bench instructions [-- --save]");
            ExitCode::from(2)
        }
    }
}

/// Runs one load, in the process that valgrind counts.
fn run(load: usize, requests: usize) {
    let Load {
        kind,
        at_once,
        is_hooked,
        ..
    } = LOADS[load];
    let mut service = Service::builder(MemTable::new()).metrics(Metrics::new());
    if is_hooked {
        service = service.on_received(|_| {});
    }
    let service = service.build();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        // With a real clock, timers would fire more often in a slower run.
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let fill = parts(Kind::Hmset, 1, KEYS / 100);
        let connection = |parts, times| {
            let wire = Wire::new(parts, times);
            // The codec's own benchmark measures compression.
            let plain = CodecConfig::default().with_compression(None);
            let config = ServerConfig::default().with_codec(plain);
            ProstServerStream::with_config(wire, service.clone(), config)
        };
        connection(fill, KEYS / 100).process().await.unwrap();
        let parts = parts(kind, at_once, KEYS / at_once);
        connection(parts, requests / at_once)
            .process()
            .await
            .unwrap();
    });
}

/// `count` parts of a stream of requests, with `at_once` requests each, over all keys in turn.
fn parts(kind: Kind, at_once: usize, count: usize) -> Vec<Vec<u8>> {
    let plain = CodecConfig::default().with_compression(None);
    let mut codec = ProstCodec::<CommandRequest, CommandRequest>::new(plain);
    let mut number = 0;
    let mut key = || {
        number += 1;
        format!("key:{:08}", (number - 1) % KEYS)
    };
    let value = |key: &str| Value::from(format!("{key:v<64}"));
    let part = |_| {
        let mut part = BytesMut::new();
        for _ in 0..at_once {
            let request = match kind {
                Kind::Hget => CommandRequest::new_hget("table", key()),
                Kind::Hset => {
                    let key = key();
                    let value = value(&key);
                    CommandRequest::new_hset("table", key, value)
                }
                Kind::Hmget => CommandRequest::new_hmget("table", (0..100).map(|_| key())),
                Kind::Hmset => {
                    let pairs = (0..100).map(|_| {
                        let key = key();
                        let value = value(&key);
                        (key, value).into()
                    });
                    CommandRequest::new_hmset("table", pairs)
                }
            };
            codec.encode(request, &mut part).unwrap();
        }
        part.to_vec()
    };
    (0..count.max(1)).map(part).collect()
}

/// Counts all loads, and compares them with the saved counts or saves them.
fn compare(save: bool) -> ExitCode {
    let saved = saved();
    let mut text = String::new();
    let mut grown = Vec::new();
    println!("| load | instructions per request | saved | ratio |\n| --- | --- | --- | --- |");
    for (load, Load { name, kind, .. }) in LOADS.into_iter().enumerate() {
        let requests = match kind {
            Kind::Hget | Kind::Hset => REQUESTS,
            Kind::Hmget | Kind::Hmset => REQUESTS / 40,
        };
        // The minimum of several runs: the placement of the allocator's pages makes some runs two
        // percent more expensive.
        let least = |requests| (0..RUNS).map(|_| counted(load, requests)).min();
        let more = least(3 * requests).zip(least(requests));
        let count = more.map_or(0, |(long, short)| long - short) / (2 * requests as u64);
        text += &format!("{count} {name}\n");
        let before = saved.get(name).copied();
        let ratio = before.map(|before| count as f64 / before as f64);
        let shown = |number: Option<String>| number.unwrap_or_else(|| "-".to_owned());
        println!(
            "| {name} | {count} | {} | {} |",
            shown(before.map(|before| before.to_string())),
            shown(ratio.map(|ratio| format!("{ratio:.3}")))
        );
        if ratio.is_none_or(|ratio| ratio > 1.0 + TOLERANCE) {
            grown.push(name);
        }
    }
    if save {
        fs::write(COUNTS, text).unwrap();
        return ExitCode::SUCCESS;
    }
    if grown.is_empty() {
        return ExitCode::SUCCESS;
    }
    eprintln!(
        "these cost more instructions than before: {}; fix that, or explain it in the commit and \
         save the counts with cargo bench --bench instructions -- --save",
        grown.join("; ")
    );
    ExitCode::FAILURE
}

/// The saved counts, by the names of their loads.
fn saved() -> BTreeMap<String, u64> {
    let text = fs::read_to_string(Path::new(COUNTS)).unwrap_or_default();
    let lines = text.lines().filter_map(|line| line.split_once(' '));
    lines
        .map(|(count, name)| (name.to_owned(), count.parse().unwrap()))
        .collect()
}

/// The instructions of a process that answers this many requests.
fn counted(load: usize, requests: usize) -> u64 {
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]);
    command.arg(env::current_exe().unwrap());
    command.args(["--run", &load.to_string(), &requests.to_string()]);
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("valgrind: {error}; install it (apt-get install valgrind)"));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    let count = said.lines().find_map(|line| line.split_once("Collected :"));
    count.expect(&said).1.trim().parse().unwrap()
}
