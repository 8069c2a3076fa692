//! The commands about the server and the connection: `Info`, and `Hello` in a file of its own.
//! `Ping` has no code, because every answer begins as the one to `Ping`.
//!
//! `Info` is answered with pairs of a name and a value: the server's version, state and limits. The
//! service knows its version and state. The limits come from the connection, through a closure that
//! is called only for this command.

mod hello;

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::answer::Answer;
use crate::abi::Kvpair;
use crate::config::ServerConfig;
use crate::pubsub::{MAX_PATTERN_LEN, MAX_TOPIC_LEN};
use crate::storage::Storage;

pub(super) use hello::greet;

/// Returns the limits that apply to the client, by the names of their settings.
pub(crate) type Limits<'a> = &'a (dyn Fn() -> Vec<Kvpair> + Sync);

/// When a service started, and its number of connections.
#[derive(Debug)]
pub(super) struct Vitals {
    started: Instant,
    connections: AtomicUsize,
}

/// Counts a connection until dropped.
#[derive(Debug)]
pub(crate) struct ConnectionGuard<'a>(&'a Vitals);

impl Vitals {
    pub(super) fn new() -> Self {
        Self {
            started: Instant::now(),
            connections: AtomicUsize::new(0),
        }
    }

    pub(super) fn count(&self) -> ConnectionGuard<'_> {
        self.connections.fetch_add(1, Relaxed);
        ConnectionGuard(self)
    }
}

impl Drop for ConnectionGuard<'_> {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Relaxed);
    }
}

/// Answers `Info`.
pub(super) fn info(
    vitals: &Vitals,
    storage: &impl Storage,
    limits: Limits<'_>,
    answer: &mut Answer<'_>,
) {
    let stats = storage.stats();
    let mut pairs = vec![
        Kvpair::new("version", env!("CARGO_PKG_VERSION").into()),
        number("uptime_seconds", vitals.started.elapsed().as_secs()),
        Kvpair::new("storage", storage.kind().into()),
    ];
    pairs.extend(stats.tables.map(|tables| number("tables", tables)));
    pairs.extend(stats.keys.map(|keys| number("keys", keys)));
    let connections = vitals.connections.load(Relaxed) as u64;
    pairs.push(number("connections", connections));
    pairs.push(number("max_topic_size", MAX_TOPIC_LEN as u64));
    pairs.push(number("max_pattern_size", MAX_PATTERN_LEN as u64));
    pairs.extend(limits());
    answer.replace(&pairs.into());
}

/// The limits that a server reports to its clients, by the names of kvs's settings. A timeout that
/// is off is left out.
///
/// Settings that do not concern a single client, such as the memory of all connections or how the
/// server stops, are left out, too.
pub(crate) fn limits(config: &ServerConfig) -> Vec<Kvpair> {
    let codec = config.codec;
    let mut pairs: Vec<_> = [
        ("max_frame_size", codec.max_frame_len()),
        ("max_message_size", codec.max_message_len()),
        ("max_elements", codec.max_elements()),
        ("max_table_name_size", config.max_table_name_len),
        ("max_key_size", config.max_key_len),
        ("max_connections", config.max_connections),
        ("connection_share", config.connection_share as usize),
        ("max_subscriptions", config.max_subscriptions),
        ("max_patterns", config.max_patterns),
        ("subscriber_buffer", config.subscriber_buffer),
        ("subscriber_messages", config.subscriber_messages),
        ("subscriber_memory", config.subscriber_memory),
    ]
    .into_iter()
    .map(|(name, limit)| number(name, limit as u64))
    .collect();
    let policy = config.slow_subscriber.to_string();
    pairs.push(Kvpair::new("slow_subscriber", policy.into()));
    for (name, time) in [
        ("frame_timeout_ms", config.frame_timeout),
        ("idle_timeout_ms", config.idle_timeout),
        ("write_timeout_ms", config.write_timeout),
    ] {
        pairs.extend(time.map(|time| number(name, milliseconds(time))));
    }
    pairs
}

/// A pair with a number. Numbers beyond an `i64` are sent as its maximum, which is as good as
/// unlimited.
fn number(name: &str, number: u64) -> Kvpair {
    Kvpair::new(name, i64::try_from(number).unwrap_or(i64::MAX).into())
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
