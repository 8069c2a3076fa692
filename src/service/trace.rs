//! What is remembered of a request until it is answered: for the metrics and for its line in the log.
//!
//! The log names the command and the table, and of the keys and values no more than how long they are.

use std::time::Instant;

use tracing::{Level, debug, enabled};

use crate::abi::{Command, CommandRequest};
use crate::metrics::Metrics;

/// How much of a table's name a line of the log may show.
const MAX_TABLE_CHARS: usize = 64;

#[derive(Debug)]
pub(crate) struct Trace {
    command: Option<Command>,
    began: Option<Instant>,
    /// Only where it will be logged.
    logged: Option<Box<Logged>>,
}

#[derive(Debug)]
struct Logged {
    table: String,
    keys: usize,
    key_len: usize,
}

impl Trace {
    pub(super) fn begin(request: &CommandRequest, began: Option<Instant>) -> Self {
        Self {
            command: request.command(),
            began,
            logged: is_logged().then(|| Box::new(Logged::new(request))),
        }
    }

    pub(super) fn end(&self, status: u32, now: Option<Instant>, metrics: Option<&Metrics>) {
        let (Some(began), Some(now)) = (self.began, now) else {
            return;
        };
        let took = now.saturating_duration_since(began);
        if let Some(metrics) = metrics {
            metrics.count_request(self.command, status, took);
        }
        if let Some(Logged {
            table,
            keys,
            key_len,
        }) = self.logged.as_deref()
        {
            let command = self.command.map_or("none", Command::name);
            debug!(command, ?table, keys, key_len, status, duration = ?took, "request");
        }
    }
}

impl Logged {
    fn new(request: &CommandRequest) -> Self {
        let (keys, key_len) = request.key_count_and_len();
        Self {
            table: request.table().chars().take(MAX_TABLE_CHARS).collect(),
            keys,
            key_len,
        }
    }
}

/// Whether requests are logged at all.
pub(super) fn is_logged() -> bool {
    enabled!(Level::DEBUG)
}
