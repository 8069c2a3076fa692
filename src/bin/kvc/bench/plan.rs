//! The plan of a load: which requests, at what pace, on how many connections and threads.

use std::sync::Arc;
use std::time::Duration;

use super::script::Script;
use super::stream::Endpoint;

/// Everything about a load that is known before it starts.
#[derive(Debug)]
pub(crate) struct Plan {
    /// What it does, for the progress line.
    pub(crate) purpose: &'static str,
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) script: Script,
    pub(crate) pace: Pace,
    /// The pace before measuring, on the same connections, and for how long.
    pub(crate) warm_up: Option<(Pace, Duration)>,
    /// Whether the first error ends the load.
    pub(crate) until_error: bool,
    pub(crate) connections: usize,
    pub(crate) threads: usize,
}

/// The pace of requests.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Pace {
    /// The next request follows an answer.
    Closed { pipeline: usize, until: Until },
    /// Requests follow a schedule, `rate` per second in all, and none is sent after the deadline.
    Open {
        rate: u64,
        requests: u64,
        deadline: Option<Duration>,
    },
}

/// When to end.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Until {
    Requests(u64),
    Time(Duration),
}

impl Plan {
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.pace, Pace::Open { .. })
    }
}
