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
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry;
use tracing_subscriber::util::SubscriberInitExt;

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

/// The longer run has this many times as many requests.
const LONGER: usize = 3;

const RUNS: usize = 3;

/// The number of rows of the table; loads of new keys add to them.
const KEYS: usize = 1000;

/// The number of keys in a request with several.
const SEVERAL: usize = 100;

const LOADS: [Load; 26] = [
    Load::new("hget", hget),
    Load::new("hget, 32 at a time", hget).at_once(32),
    Load::new("hget of a missing key", hget_missing),
    Load::new("hget of a missing key, 32 at a time", hget_missing).at_once(32),
    Load::new("hset", hset),
    Load::new("hset, 32 at a time", hset).at_once(32),
    Load::new("hset of a new key", hset_new),
    Load::new("hset of a new key, 32 at a time", hset_new).at_once(32),
    Load::new("hget with a hook, 32 at a time", hget)
        .at_once(32)
        .hooked(Hooks::One),
    Load::new("hset with a hook, 32 at a time", hset)
        .at_once(32)
        .hooked(Hooks::One),
    Load::new("hget with a hook of each kind, 32 at a time", hget)
        .at_once(32)
        .hooked(Hooks::EachKind),
    Load::new("hset with a hook of each kind, 32 at a time", hset)
        .at_once(32)
        .hooked(Hooks::EachKind),
    Load::new("hget with a log of requests, 32 at a time", hget)
        .at_once(32)
        .logged(),
    Load::new("hget and ping in turn, 32 at a time", hget_ping).at_once(32),
    Load::new("hexist, 32 at a time", hexist).at_once(32),
    Load::new("hdel of a missing key, 32 at a time", hdel_missing).at_once(32),
    Load::new("hset and hdel in turn, 32 at a time", hset_hdel).at_once(32),
    Load::new("hlen, 32 at a time", hlen).at_once(32),
    Load::new("ping, 32 at a time", ping).at_once(32),
    Load::new("publish to nobody, 32 at a time", publish).at_once(32),
    Load::new("hmget of 100 keys", hmget).several(),
    Load::new("hmset of 100 keys", hmset).several(),
    Load::new("hmexist of 100 keys", hmexist).several(),
    Load::new("hmset and hmdel of 100 keys in turn", hmset_hmdel).several(),
    Load::new("hscan of 100 pairs", hscan).several(),
    Load::new("hgetall of 1000 pairs", hgetall).several(),
];

#[derive(Debug, Clone, Copy)]
struct Load {
    name: &'static str,
    /// Makes the nth request.
    request: fn(usize) -> CommandRequest,
    at_once: usize,
    hooks: Hooks,
    /// Whether requests are logged, to a log that discards every line.
    is_logged: bool,
    /// The number of requests in the shorter run.
    requests: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hooks {
    None,
    One,
    EachKind,
}

impl Load {
    const fn new(name: &'static str, request: fn(usize) -> CommandRequest) -> Self {
        Self {
            name,
            request,
            at_once: 1,
            hooks: Hooks::None,
            is_logged: false,
            requests: REQUESTS,
        }
    }

    /// So many requests arrive at once.
    const fn at_once(self, at_once: usize) -> Self {
        Self { at_once, ..self }
    }

    const fn hooked(self, hooks: Hooks) -> Self {
        Self { hooks, ..self }
    }

    const fn logged(self) -> Self {
        Self {
            is_logged: true,
            ..self
        }
    }

    /// Each request is for several keys, so that fewer are enough.
    const fn several(self) -> Self {
        Self {
            requests: REQUESTS / 40,
            ..self
        }
    }
}

fn key(n: usize) -> String {
    format!("key:{:08}", n % KEYS)
}

fn value(key: &str) -> Value {
    Value::from(format!("{key:v<64}"))
}

fn hget(n: usize) -> CommandRequest {
    CommandRequest::new_hget("table", key(n))
}

fn hget_missing(n: usize) -> CommandRequest {
    CommandRequest::new_hget("table", format!("non:{n:08}"))
}

fn hset(n: usize) -> CommandRequest {
    let key = key(n);
    let value = value(&key);
    CommandRequest::new_hset("table", key, value)
}

fn hset_new(n: usize) -> CommandRequest {
    let key = format!("new:{n:08}");
    let value = value(&key);
    CommandRequest::new_hset("table", key, value)
}

fn hexist(n: usize) -> CommandRequest {
    CommandRequest::new_hexist("table", key(n))
}

fn hdel_missing(n: usize) -> CommandRequest {
    CommandRequest::new_hdel("table", format!("non:{n:08}"))
}

fn hset_hdel(n: usize) -> CommandRequest {
    match n % 2 {
        0 => hset_new(n % KEYS),
        _ => CommandRequest::new_hdel("table", format!("new:{:08}", (n - 1) % KEYS)),
    }
}

fn ping(_: usize) -> CommandRequest {
    CommandRequest::new_ping()
}

fn hget_ping(n: usize) -> CommandRequest {
    match n % 2 {
        0 => hget(n / 2),
        _ => ping(n),
    }
}

fn publish(n: usize) -> CommandRequest {
    CommandRequest::new_publish("topic", [value(&key(n))])
}

/// The keys of the nth request with several.
fn keys(n: usize) -> impl Iterator<Item = String> {
    (0..SEVERAL).map(move |i| key(n * SEVERAL + i))
}

fn hmget(n: usize) -> CommandRequest {
    CommandRequest::new_hmget("table", keys(n))
}

fn hmset(n: usize) -> CommandRequest {
    let pairs = keys(n).map(|key| {
        let value = value(&key);
        (key, value).into()
    });
    CommandRequest::new_hmset("table", pairs)
}

fn hmexist(n: usize) -> CommandRequest {
    CommandRequest::new_hmexist("table", keys(n))
}

fn hmset_hmdel(n: usize) -> CommandRequest {
    match n % 2 {
        0 => hmset(n),
        _ => CommandRequest::new_hmdel("table", keys(n - 1)),
    }
}

fn hscan(n: usize) -> CommandRequest {
    CommandRequest::new_hscan("table", key(n), 100)
}

fn hlen(_: usize) -> CommandRequest {
    CommandRequest::new_hlen("table")
}

fn hgetall(_: usize) -> CommandRequest {
    CommandRequest::new_hgetall("table")
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
        request,
        at_once,
        hooks,
        is_logged,
        requests: shorter,
        ..
    } = LOADS[load];
    if is_logged {
        registry().with(LevelFilter::DEBUG).init();
    }
    let mut service = Service::builder(MemTable::new()).metrics(Metrics::new());
    if hooks != Hooks::None {
        service = service.on_received(|_| {});
    }
    if hooks == Hooks::EachKind {
        service = service
            .on_request(|_, _| Ok(()))
            .on_executed(|_| {})
            .on_before_send(|_| {})
            .on_after_send(|_| {});
    }
    let service = service.build();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        // With a real clock, timers would fire more often in a slower run.
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let connection = |parts, times| {
            let wire = Wire::new(parts, times);
            // The codec's own benchmark measures compression.
            let plain = CodecConfig::default().with_compression(None);
            let config = ServerConfig::default().with_codec(plain);
            ProstServerStream::with_config(wire, service.clone(), config)
        };
        let fill = parts(hmset, 1, KEYS / SEVERAL);
        connection(fill, KEYS / SEVERAL).process().await.unwrap();
        // Both runs make all the requests of the longer one, so that making them costs the same.
        let parts = parts(request, at_once, LONGER * shorter / at_once);
        connection(parts, requests / at_once)
            .process()
            .await
            .unwrap();
    });
}

/// `count` parts of a stream of requests, with `at_once` requests each.
fn parts(request: fn(usize) -> CommandRequest, at_once: usize, count: usize) -> Vec<Vec<u8>> {
    let plain = CodecConfig::default().with_compression(None);
    let mut codec = ProstCodec::<CommandRequest, CommandRequest>::new(plain);
    let part = |part: usize| {
        let mut encoded = BytesMut::new();
        for n in part * at_once..(part + 1) * at_once {
            codec.encode(request(n), &mut encoded).unwrap();
        }
        encoded.to_vec()
    };
    (0..count).map(part).collect()
}

/// Counts all loads, and compares them with the saved counts or saves them.
fn compare(save: bool) -> ExitCode {
    let saved = saved();
    let mut text = String::new();
    let mut grown = Vec::new();
    println!("| load | instructions per request | saved | ratio |\n| --- | --- | --- | --- |");
    for (load, Load { name, requests, .. }) in LOADS.into_iter().enumerate() {
        // The minimum of several runs: the placement of the allocator's pages makes some runs two
        // percent more expensive.
        let least = |requests| (0..RUNS).map(|_| counted(load, requests)).min();
        let more = least(LONGER * requests).zip(least(requests));
        let added = (LONGER - 1) * requests;
        let count = more.map_or(0, |(long, short)| long - short) / added as u64;
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
