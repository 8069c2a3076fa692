//! What a server tells of itself, as pairs of a name and a value: who it is, how it does, and what it allows.
//!
//! The service knows how it does; what is allowed knows who serves it, and is asked only when somebody wants to know.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

use crate::abi::{CommandResponse, Kvpair};
use crate::pubsub::{MAX_PATTERN_LEN, MAX_TOPIC_LEN};
use crate::storage::Storage;

/// Gives the limits that hold for who asks, by the names of their settings.
pub(crate) type Limits<'a> = &'a (dyn Fn() -> Vec<Kvpair> + Sync);

/// Since when a service is there, and how many connections have it.
#[derive(Debug)]
pub(super) struct Vitals {
    started: Instant,
    connections: AtomicUsize,
}

/// A connection that is counted until this is dropped.
#[derive(Debug)]
pub(crate) struct Counted<'a>(&'a Vitals);

impl Vitals {
    pub(super) fn new() -> Self {
        Self {
            started: Instant::now(),
            connections: AtomicUsize::new(0),
        }
    }

    pub(super) fn count(&self) -> Counted<'_> {
        self.connections.fetch_add(1, Relaxed);
        Counted(self)
    }

    /// The answer to who asks.
    pub(super) fn info(&self, storage: &impl Storage, limits: Limits<'_>) -> CommandResponse {
        let stats = storage.stats();
        let mut pairs = vec![
            Kvpair::new("version", env!("CARGO_PKG_VERSION").into()),
            number("uptime_seconds", self.started.elapsed().as_secs()),
            Kvpair::new("storage", storage.kind().into()),
        ];
        pairs.extend(stats.tables.map(|tables| number("tables", tables)));
        pairs.extend(stats.keys.map(|keys| number("keys", keys)));
        let connections = self.connections.load(Relaxed) as u64;
        pairs.push(number("connections", connections));
        pairs.push(number("max_topic_size", MAX_TOPIC_LEN as u64));
        pairs.push(number("max_pattern_size", MAX_PATTERN_LEN as u64));
        pairs.extend(limits());
        pairs.into()
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Relaxed);
    }
}

/// A number as a client gets it. What is beyond an i64 has no limit that anybody would notice.
pub(crate) fn number(name: &str, number: u64) -> Kvpair {
    Kvpair::new(name, i64::try_from(number).unwrap_or(i64::MAX).into())
}
