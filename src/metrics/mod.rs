//! The server's metrics: requests, connections, bytes and durations.
//!
//! Counters are updated for every request, so updates have to be nearly free. Each thread updates
//! its own shard, which shares no cache line with another shard; readers add the shards up. A
//! reading is not a snapshot: it may include a request but not yet its duration.

mod histogram;
mod labels;
mod process;
mod text;

use std::array;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
#[cfg(feature = "tls")]
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime};

use crate::abi::Command;
use crate::threads::thread_number;
use histogram::{Histogram, Observed};
#[cfg(not(feature = "tls"))]
use labels::Labels;
pub(crate) use labels::{Ending, Overload, ProtocolError, Rejection, SubscriptionKind};
#[cfg(feature = "tls")]
pub(crate) use labels::{HandshakeFailure, Labels};
use labels::{OTHER_STATUS, STATUSES};

/// Every command, plus one entry for requests without a known command.
const COMMANDS: usize = Command::ALL.len() + 1;

/// Upper bound on the number of shards. Beyond it, threads share shards.
const MAX_SHARDS: usize = 64;

/// Returns the time at which a certificate expires; [`None`] without one.
#[cfg(feature = "tls")]
type Expiry = Box<dyn Fn() -> Option<SystemTime> + Send + Sync>;

/// The counters of one server. Clones share them.
#[derive(Clone)]
pub struct Metrics {
    counters: Arc<Counters>,
}

struct Counters {
    started: SystemTime,
    shards: Box<[Shard]>,
    connections: AtomicU64,
    accepted: AtomicU64,
    accept_errors: AtomicU64,
    /// Of the HTTP endpoint, to make room for new ones.
    #[cfg(feature = "http")]
    http_connections_replaced: AtomicU64,
    rejected: [AtomicU64; Rejection::ALL.len()],
    protocol_errors: [AtomicU64; ProtocolError::ALL.len()],
    ended: [AtomicU64; Ending::ALL.len()],
    #[cfg(feature = "tls")]
    handshake_failures: [AtomicU64; HandshakeFailure::ALL.len()],
    /// Set by a server when it starts.
    #[cfg(feature = "tls")]
    certificate_expiry: Mutex<Option<Expiry>>,
    buffered: AtomicU64,
    overloads: [AtomicU64; Overload::ALL.len()],
    storage_errors: AtomicU64,
    dropped_log_lines: AtomicU64,
    subscriptions: [AtomicU64; SubscriptionKind::ALL.len()],
    /// Topics and patterns with at least one subscription.
    subscribed: [AtomicU64; SubscriptionKind::ALL.len()],
}

/// The counters of one thread. Aligned to two cache lines, because processors fetch them in pairs.
/// The counters that every request updates are adjacent.
#[derive(Default)]
#[repr(C, align(128))]
struct Shard {
    received: AtomicU64,
    sent: AtomicU64,
    received_compressed: AtomicU64,
    sent_compressed: AtomicU64,
    requests: [[AtomicU64; STATUSES.len() + 1]; COMMANDS],
    durations: [Histogram; COMMANDS],
    syncs: Histogram,
    pushes: AtomicU64,
    pushes_dropped: AtomicU64,
    /// Total bytes of messages ever put into mailboxes, and ever taken out. The difference is
    /// waiting.
    queued: AtomicU64,
    unqueued: AtomicU64,
}

/// Traffic through a connection's codec: bytes of frames, headers included, and compressed frames.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Traffic {
    pub(crate) received: u64,
    pub(crate) sent: u64,
    pub(crate) received_compressed: u64,
    pub(crate) sent_compressed: u64,
}

impl Metrics {
    /// Creates counters, all 0.
    pub fn new() -> Self {
        let threads = thread::available_parallelism().map_or(1, usize::from);
        let shards = threads.next_power_of_two().min(MAX_SHARDS);
        Self {
            counters: Arc::new(Counters {
                started: SystemTime::now(),
                shards: (0..shards).map(|_| Shard::default()).collect(),
                connections: AtomicU64::default(),
                accepted: AtomicU64::default(),
                accept_errors: AtomicU64::default(),
                #[cfg(feature = "http")]
                http_connections_replaced: AtomicU64::default(),
                rejected: array::from_fn(|_| AtomicU64::default()),
                protocol_errors: array::from_fn(|_| AtomicU64::default()),
                ended: array::from_fn(|_| AtomicU64::default()),
                #[cfg(feature = "tls")]
                handshake_failures: array::from_fn(|_| AtomicU64::default()),
                #[cfg(feature = "tls")]
                certificate_expiry: Mutex::default(),
                buffered: AtomicU64::default(),
                overloads: array::from_fn(|_| AtomicU64::default()),
                storage_errors: AtomicU64::default(),
                dropped_log_lines: AtomicU64::default(),
                subscriptions: array::from_fn(|_| AtomicU64::default()),
                subscribed: array::from_fn(|_| AtomicU64::default()),
            }),
        }
    }

    /// Number of requests for `command` that were answered with `status`. `None` stands for
    /// requests without a known command.
    pub fn requests(&self, command: Option<Command>, status: u32) -> u64 {
        let (command, status) = (command_index(command), status_index(status));
        self.sum(|shard| cell(&shard.requests, command, status))
    }

    /// Number of connections being served.
    pub fn connections(&self) -> u64 {
        self.counters.connections.load(Relaxed)
    }

    /// Number of log lines dropped.
    pub fn dropped_log_lines(&self) -> u64 {
        self.counters.dropped_log_lines.load(Relaxed)
    }

    /// Counts dropped log lines. The library only emits `tracing` events; the program that writes
    /// them calls this.
    pub fn count_dropped_log_lines(&self, lines: u64) {
        let dropped = &self.counters.dropped_log_lines;
        dropped.fetch_add(lines, Relaxed);
    }

    /// Counts `count` requests that took `took` each.
    pub(crate) fn count_requests(
        &self,
        command: Option<Command>,
        status: u32,
        took: Duration,
        count: u64,
    ) {
        let shard = self.shard();
        let (command, status) = (command_index(command), status_index(status));
        if let Some(counter) = shard.requests.get(command).and_then(|row| row.get(status)) {
            counter.fetch_add(count, Relaxed);
        }
        if let Some(histogram) = shard.durations.get(command) {
            histogram.observe(took, count);
        }
    }

    pub(crate) fn count_sync(&self, took: Duration) {
        self.shard().syncs.observe(took, 1);
    }

    pub(crate) fn count_traffic(&self, traffic: Traffic) {
        let shard = self.shard();
        for (counter, count) in [
            (&shard.received, traffic.received),
            (&shard.sent, traffic.sent),
            (&shard.received_compressed, traffic.received_compressed),
            (&shard.sent_compressed, traffic.sent_compressed),
        ] {
            if count > 0 {
                counter.fetch_add(count, Relaxed);
            }
        }
    }

    pub(crate) fn count_accepted(&self) {
        self.counters.accepted.fetch_add(1, Relaxed);
    }

    pub(crate) fn count_accept_error(&self) {
        self.counters.accept_errors.fetch_add(1, Relaxed);
    }

    #[cfg(feature = "http")]
    pub(crate) fn count_http_connection_replaced(&self) {
        let replaced = &self.counters.http_connections_replaced;
        replaced.fetch_add(1, Relaxed);
    }

    pub(crate) fn count_rejected(&self, reason: Rejection) {
        increment(&self.counters.rejected, reason as usize);
    }

    pub(crate) fn count_protocol_error(&self, kind: ProtocolError) {
        increment(&self.counters.protocol_errors, kind as usize);
    }

    #[cfg(feature = "tls")]
    pub(crate) fn count_handshake_failure(&self, reason: HandshakeFailure) {
        increment(&self.counters.handshake_failures, reason as usize);
    }

    /// Sets the source of the certificate's expiry, which every scrape asks: a certificate can be
    /// replaced while the server runs.
    #[cfg(feature = "tls")]
    pub(crate) fn set_certificate_expiry(
        &self,
        expiry: impl Fn() -> Option<SystemTime> + Send + Sync + 'static,
    ) {
        *self.lock_certificate_expiry() = Some(Box::new(expiry));
    }

    /// When the certificate expires, in seconds since 1970; [`None`] without one.
    #[cfg(feature = "tls")]
    fn certificate_not_after(&self) -> Option<u64> {
        let not_after = self.lock_certificate_expiry().as_ref()?()?;
        let since = not_after.duration_since(SystemTime::UNIX_EPOCH);
        Some(since.unwrap_or_default().as_secs())
    }

    #[cfg(feature = "tls")]
    fn lock_certificate_expiry(&self) -> MutexGuard<'_, Option<Expiry>> {
        let expiry = &self.counters.certificate_expiry;
        expiry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn count_overload(&self, what: Overload) {
        increment(&self.counters.overloads, what as usize);
    }

    pub(crate) fn count_storage_error(&self) {
        self.counters.storage_errors.fetch_add(1, Relaxed);
    }

    /// Counts a new subscription. `is_first` tells whether it is the only one to its topic or
    /// pattern.
    pub(crate) fn subscribed(&self, kind: SubscriptionKind, is_first: bool) {
        increment(&self.counters.subscriptions, kind as usize);
        if is_first {
            increment(&self.counters.subscribed, kind as usize);
        }
    }

    /// Counts `ended` subscriptions that ended, which left `gone` topics or patterns without any.
    pub(crate) fn unsubscribed(&self, kind: SubscriptionKind, ended: usize, gone: usize) {
        decrease(&self.counters.subscriptions, kind as usize, ended);
        decrease(&self.counters.subscribed, kind as usize, gone);
    }

    /// Counts bytes of messages put into mailboxes.
    pub(crate) fn count_queued(&self, bytes: usize) {
        self.shard().queued.fetch_add(bytes as u64, Relaxed);
    }

    /// Counts bytes of messages removed from mailboxes.
    pub(crate) fn count_unqueued(&self, bytes: usize) {
        self.shard().unqueued.fetch_add(bytes as u64, Relaxed);
    }

    pub(crate) fn count_pushes(&self, pushes: usize) {
        self.shard().pushes.fetch_add(pushes as u64, Relaxed);
    }

    pub(crate) fn count_pushes_dropped(&self, pushes: usize) {
        self.shard()
            .pushes_dropped
            .fetch_add(pushes as u64, Relaxed);
    }

    pub(crate) fn connection_began(&self) {
        self.counters.connections.fetch_add(1, Relaxed);
    }

    pub(crate) fn connection_ended(&self, how: Ending) {
        self.counters.connections.fetch_sub(1, Relaxed);
        increment(&self.counters.ended, how as usize);
    }

    /// Counts bytes that are now held for large frames and responses.
    pub(crate) fn count_held(&self, bytes: usize) {
        self.counters.buffered.fetch_add(bytes as u64, Relaxed);
    }

    /// Counts held bytes that have been released.
    pub(crate) fn count_released(&self, bytes: usize) {
        self.counters.buffered.fetch_sub(bytes as u64, Relaxed);
    }

    fn shard(&self) -> &Shard {
        let thread = thread_number();
        let shards = &self.counters.shards;
        #[expect(clippy::indexing_slicing, reason = "there is at least one shard")]
        &shards[thread % shards.len()]
    }

    /// When these counters were created, in seconds since 1970.
    fn started_seconds(&self) -> f64 {
        let since = self.counters.started.duration_since(SystemTime::UNIX_EPOCH);
        since.unwrap_or_default().as_secs_f64()
    }

    fn observed(&self, read: impl Fn(&Shard) -> Option<&Histogram>) -> Observed {
        let mut observed = Observed::default();
        for histogram in self.counters.shards.iter().filter_map(read) {
            observed.add(histogram);
        }
        observed
    }

    fn sum(&self, read: impl Fn(&Shard) -> u64) -> u64 {
        self.counters.shards.iter().map(read).sum()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics")
            .field("connections", &self.connections())
            .finish_non_exhaustive()
    }
}

fn command_index(command: Option<Command>) -> usize {
    command.map_or(Command::ALL.len(), |command| command as usize)
}

fn status_index(status: u32) -> usize {
    let known = STATUSES.iter().position(|known| *known == status);
    known.unwrap_or(OTHER_STATUS)
}

fn cell<const N: usize>(rows: &[[AtomicU64; N]], row: usize, column: usize) -> u64 {
    let counter = rows.get(row).and_then(|row| row.get(column));
    counter.map_or(0, |counter| counter.load(Relaxed))
}

fn decrease(counters: &[AtomicU64], index: usize, by: usize) {
    if let Some(counter) = counters.get(index) {
        counter.fetch_sub(by as u64, Relaxed);
    }
}

fn increment(counters: &[AtomicU64], index: usize) {
    if let Some(counter) = counters.get(index) {
        counter.fetch_add(1, Relaxed);
    }
}
