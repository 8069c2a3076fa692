//! What is answered, for the metrics and for the log.
//!
//! Requests that arrive together are answered together, and each took as long as all of them: from when they were
//! taken up until they were confirmed. So the clock is read twice for all of them, and equal ones are counted at
//! once. The log names the command and the table, and of keys no more than how long they are.

use std::time::Duration;

use tracing::{Level, debug, enabled};

use super::Executed;
use crate::abi::{Command, CommandRequest, status};
use crate::metrics::Metrics;

/// How much of a table's name a line of the log may show.
const MAX_TABLE_CHARS: usize = 64;

/// The answers of a batch. What was not counted yet is when it is dropped.
#[derive(Debug)]
pub(crate) struct Tally<'a> {
    metrics: Option<&'a Metrics>,
    took: Duration,
    /// Those that were answered last and are equal.
    command: Option<Command>,
    status: u32,
    count: u64,
}

/// What a line of the log says of a request.
#[derive(Debug)]
pub(super) struct Logged {
    table: String,
    keys: usize,
    key_len: usize,
}

impl<'a> Tally<'a> {
    pub(super) fn new(metrics: Option<&'a Metrics>, took: Duration) -> Self {
        Self {
            metrics,
            took,
            command: None,
            status: 0,
            count: 0,
        }
    }

    /// Counts a request, with the status that is really sent.
    pub(crate) fn answered(&mut self, executed: &Executed, status: u32) {
        if (executed.command, status) != (self.command, self.status) {
            self.count();
            self.command = executed.command;
            self.status = status;
        }
        self.count += 1;
        if let Some(logged) = executed.logged.as_deref() {
            logged.log(executed.command, status, self.took);
        }
    }

    /// Counts so many requests that were executed and answered without a line in the log.
    pub(crate) fn answered_in_place(&mut self, command: Command, count: u64) {
        if let (Some(metrics), 1..) = (self.metrics, count) {
            metrics.count_requests(Some(command), status::OK, self.took, count);
        }
    }

    fn count(&mut self) {
        let count = std::mem::take(&mut self.count);
        if let (Some(metrics), 1..) = (self.metrics, count) {
            metrics.count_requests(self.command, self.status, self.took, count);
        }
    }
}

impl Drop for Tally<'_> {
    fn drop(&mut self) {
        self.count();
    }
}

impl Logged {
    /// [`None`] where requests are not logged.
    pub(super) fn of(request: &CommandRequest) -> Option<Box<Self>> {
        is_logged().then(|| {
            let (keys, key_len) = request.key_count_and_len();
            Box::new(Self {
                table: request.table().chars().take(MAX_TABLE_CHARS).collect(),
                keys,
                key_len,
            })
        })
    }

    fn log(&self, command: Option<Command>, status: u32, took: Duration) {
        let Self {
            table,
            keys,
            key_len,
        } = self;
        let command = command.map_or("none", Command::name);
        debug!(command, ?table, keys, key_len, status, duration = ?took, "request");
    }
}

/// Whether requests are logged at all.
pub(super) fn is_logged() -> bool {
    enabled!(Level::DEBUG)
}
