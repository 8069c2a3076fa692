//! Counts answers for the metrics, and writes them to the log.
//!
//! Requests that arrive together are answered together, and all count with the same duration: from
//! when the first was read until all answers were ready. So the clock is read twice for all of
//! them, and equal answers are counted with one addition. The log names the command and the table,
//! and of the keys only their number and length.

use std::time::{Duration, Instant};

use tracing::{Level, debug, enabled};

use crate::abi::{Command, RequestRef};
use crate::metrics::Metrics;

/// How much of a table's name a line of the log shows.
const MAX_TABLE_CHARS: usize = 64;

/// The answers that are ready, and not yet counted.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// When the current requests were read; `None` without metrics and log.
    began: Option<Instant>,
    /// The latest answers to these requests, all with this command and status.
    command: Option<Command>,
    status: u32,
    count: u64,
    /// Earlier answers.
    runs: Vec<Run>,
    logged: Vec<Logged>,
}

/// Equal answers to requests that were read together.
#[derive(Debug)]
struct Run {
    began: Option<Instant>,
    command: Option<Command>,
    status: u32,
    count: u64,
}

/// A line of the log.
#[derive(Debug)]
pub(crate) struct Logged {
    began: Option<Instant>,
    command: Option<Command>,
    table: String,
    keys: usize,
    key_len: usize,
    status: u32,
}

impl Tally {
    /// Sets when the current requests were read: those whose answers are added next.
    pub(crate) fn begin(&mut self, began: Option<Instant>) {
        if began != self.began {
            self.end_run();
            self.began = began;
        }
    }

    /// When the current requests were read; `None` without metrics and log.
    pub(crate) fn began(&self) -> Option<Instant> {
        self.began
    }

    /// Counts an answer with the status that is really sent.
    #[inline]
    pub(crate) fn add(&mut self, command: Option<Command>, status: u32) {
        if (self.command, self.status) != (command, status) {
            self.end_run();
            self.command = command;
            self.status = status;
        }
        self.count += 1;
    }

    fn end_run(&mut self) {
        let count = std::mem::take(&mut self.count);
        if count > 0 {
            self.runs.push(Run {
                began: self.began,
                command: self.command,
                status: self.status,
                count,
            });
        }
    }

    /// Adds a line to the log.
    pub(crate) fn log(&mut self, logged: Logged, status: u32) {
        self.logged.push(Logged { status, ..logged });
    }

    /// Counts and logs everything that was added.
    pub(crate) fn report(&mut self, metrics: Option<&Metrics>) {
        self.end_run();
        if self.began.is_none() {
            self.runs.clear();
            self.logged.clear();
            return;
        }
        let now = Instant::now();
        let took = |began: Option<Instant>| {
            began.map_or(Duration::ZERO, |began| now.saturating_duration_since(began))
        };
        for run in self.runs.drain(..) {
            if let Some(metrics) = metrics {
                metrics.count_requests(run.command, run.status, took(run.began), run.count);
            }
        }
        for line in self.logged.drain(..) {
            line.write(took(line.began));
        }
    }
}

impl Logged {
    /// The line for a request that was read at this time, if requests are logged.
    pub(crate) fn new(
        request: Option<&RequestRef<'_>>,
        began: Option<Instant>,
    ) -> Option<Box<Self>> {
        is_logged().then(|| {
            let keys = request.map(RequestRef::keys);
            let table = request.map_or("", |request| request.table().as_str());
            Box::new(Self {
                began,
                command: request.map(RequestRef::command),
                table: table.chars().take(MAX_TABLE_CHARS).collect(),
                keys: keys.map_or(0, |keys| keys.len()),
                key_len: keys.map_or(0, |keys| keys.iter().map(|key| key.len()).sum()),
                status: 0,
            })
        })
    }

    fn write(&self, took: Duration) {
        let Self {
            table,
            keys,
            key_len,
            status,
            ..
        } = self;
        let command = self.command.map_or("none", Command::name);
        debug!(command, ?table, keys, key_len, status, duration = ?took, "request");
    }
}

/// Whether requests are logged.
#[inline]
pub(crate) fn is_logged() -> bool {
    enabled!(Level::DEBUG)
}
