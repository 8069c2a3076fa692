//! The answer to `Info`: pairs of a name and a value with the server's version, state and limits.
//!
//! The service knows its version and state. The limits come from the connection, through a closure
//! that is called only for this command.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

use crate::abi::{CommandResponse, Kvpair};
use crate::pubsub::{MAX_PATTERN_LEN, MAX_TOPIC_LEN};
use crate::storage::Storage;

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

    /// The answer to `Info`.
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

impl Drop for ConnectionGuard<'_> {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Relaxed);
    }
}

/// A pair with a number. Numbers beyond an `i64` are sent as its maximum, which is as good as
/// unlimited.
pub(crate) fn number(name: &str, number: u64) -> Kvpair {
    Kvpair::new(name, i64::try_from(number).unwrap_or(i64::MAX).into())
}
