//! The measurements: latencies in HDR histograms, and counts of what the answers said.
//!
//! Each thread has a tally of its own; they are added up at the end.

use std::time::Duration;

use hdrhistogram::Histogram;
use kv::abi::status;

use super::answer::Answer;
use super::mix::Kind;

/// In nanoseconds. Anything longer counts as an hour.
const LONGEST: u64 = 3_600_000_000_000;

/// Times are accurate to a thousandth.
const SIGNIFICANT_DIGITS: u8 = 3;

/// A request that is sent later than this missed the schedule, in nanoseconds. Waking a thread
/// costs some hundredths of a millisecond.
const LATE: u64 = 1_000_000;

/// The results of all requests of a thread, or of all threads.
#[derive(Debug)]
pub(crate) struct Tally {
    /// In the order of the mix.
    pub(crate) commands: Vec<(Kind, Figures)>,
    /// Latencies from when a request was sent, in nanoseconds: the share of the server alone. Only
    /// in an open loop; in a closed one the latencies of the commands are the same.
    pub(crate) service: Option<Histogram<u64>>,
    pub(crate) sent: u64,
    /// In an open loop, requests that were due before the end and not sent.
    pub(crate) unsent: u64,
    pub(crate) bytes_sent: u64,
    pub(crate) bytes_received: u64,
    /// Requests that were sent late.
    pub(crate) late: u64,
    /// The largest delay, in nanoseconds.
    pub(crate) latest: u64,
    /// The first answer that was an error.
    pub(crate) first_error: Option<(u32, String)>,
    /// When the last answer came, in nanoseconds from the start.
    pub(crate) last_answer: u64,
    pub(crate) threads: Vec<ThreadTimes>,
}

/// The results of one command, or of all.
#[derive(Debug)]
pub(crate) struct Figures {
    /// In nanoseconds; in an open loop, from when a request was due. Requests without an answer are
    /// included with the time they had waited.
    pub(crate) latency: Histogram<u64>,
    pub(crate) answered: u64,
    pub(crate) errors: u64,
    pub(crate) misses: u64,
}

/// The clocks of a thread while it ran.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ThreadTimes {
    pub(crate) elapsed: Duration,
    pub(crate) cpu: Duration,
    /// How long it waited for a core, if known.
    pub(crate) waited: Option<Duration>,
}

/// A request under way.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pending {
    /// When it should have been sent, in nanoseconds from the start.
    pub(crate) due: u64,
    /// When it was sent.
    pub(crate) sent: u64,
    /// The index of its template.
    pub(crate) template: usize,
}

impl Tally {
    pub(crate) fn new(kinds: impl Iterator<Item = Kind>, open_loop: bool) -> Self {
        Self {
            commands: kinds.map(|kind| (kind, Figures::new())).collect(),
            service: open_loop.then(histogram),
            sent: 0,
            unsent: 0,
            bytes_sent: 0,
            bytes_received: 0,
            late: 0,
            latest: 0,
            first_error: None,
            last_answer: 0,
            threads: Vec::new(),
        }
    }

    pub(crate) fn record_sent(&mut self, pending: &Pending, bytes: usize) {
        self.sent += 1;
        self.bytes_sent += bytes as u64;
        let late = pending.sent.saturating_sub(pending.due);
        self.late += u64::from(late > LATE);
        self.latest = self.latest.max(late);
    }

    pub(crate) fn record_answer(&mut self, pending: &Pending, answer: &Answer, now: u64) {
        self.bytes_received += answer.len as u64;
        self.last_answer = now;
        if let Some(service) = &mut self.service {
            service.saturating_record(now.saturating_sub(pending.sent));
        }
        let Some((kind, figures)) = self.commands.get_mut(pending.template) else {
            return;
        };
        figures.record(*kind, answer, now.saturating_sub(pending.due));
        if is_error(*kind, answer.status) && self.first_error.is_none() {
            self.first_error = Some((answer.status, answer.message.clone()));
        }
    }

    /// Counts a request without an answer with the time it had waited by the end, which is less
    /// than it would take.
    pub(crate) fn record_unanswered(&mut self, pending: &Pending, end: u64) {
        if let Some(service) = &mut self.service {
            service.saturating_record(end.saturating_sub(pending.sent));
        }
        self.record_waiting(pending.template, end.saturating_sub(pending.due), 1);
    }

    /// Counts `count` requests that were not sent with the least time that each has waited.
    pub(crate) fn record_unsent(&mut self, template: usize, waited: u64, count: u64) {
        self.unsent += count;
        self.record_waiting(template, waited, count);
    }

    fn record_waiting(&mut self, template: usize, waited: u64, count: u64) {
        if let Some((_, figures)) = self.commands.get_mut(template) {
            figures.latency.saturating_record_n(waited, count);
        }
    }

    /// Adds the results of another thread.
    pub(crate) fn add(&mut self, other: &Self) {
        for ((_, own), (_, others)) in self.commands.iter_mut().zip(&other.commands) {
            own.add(others);
        }
        if let (Some(own), Some(others)) = (&mut self.service, &other.service) {
            add(own, others);
        }
        self.sent += other.sent;
        self.unsent += other.unsent;
        self.bytes_sent += other.bytes_sent;
        self.bytes_received += other.bytes_received;
        self.late += other.late;
        self.latest = self.latest.max(other.latest);
        self.last_answer = self.last_answer.max(other.last_answer);
        if self.first_error.is_none() {
            self.first_error = other.first_error.clone();
        }
        self.threads.extend(&other.threads);
    }

    /// The results of all commands together.
    pub(crate) fn all(&self) -> Figures {
        let mut all = Figures::new();
        for (_, figures) in &self.commands {
            all.add(figures);
        }
        all
    }
}

impl Figures {
    fn new() -> Self {
        Self {
            latency: histogram(),
            answered: 0,
            errors: 0,
            misses: 0,
        }
    }

    fn record(&mut self, kind: Kind, answer: &Answer, latency: u64) {
        self.latency.saturating_record(latency);
        self.answered += 1;
        self.errors += u64::from(is_error(kind, answer.status));
        self.misses += match kind {
            Kind::Hget => u64::from(answer.status == status::NOT_FOUND),
            Kind::Hmget | Kind::Hdel => answer.unset,
            Kind::Hexist => answer.negative,
            Kind::Hset | Kind::Hmset | Kind::Publish | Kind::Ping | Kind::Hmdel => 0,
        };
    }

    fn add(&mut self, other: &Self) {
        add(&mut self.latency, &other.latency);
        self.answered += other.answered;
        self.errors += other.errors;
        self.misses += other.misses;
    }
}

/// All histograms have the same bounds, so adding cannot fail.
fn add(own: &mut Histogram<u64>, others: &Histogram<u64>) {
    let _ = own.add(others);
}

/// Whether a status is an error rather than a result: only a key to get can be missing.
fn is_error(kind: Kind, status: u32) -> bool {
    match status {
        status::OK => false,
        status::NOT_FOUND => kind != Kind::Hget,
        _ => true,
    }
}

#[expect(clippy::expect_used, reason = "the bounds are constant and valid")]
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LONGEST, SIGNIFICANT_DIGITS).expect("valid bounds")
}
