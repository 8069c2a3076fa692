//! The plan of a load: which requests, at what pace, on how many connections and threads.

use std::sync::Arc;
use std::time::Duration;

use super::script::Script;
use super::stream::Endpoint;

/// All of a load that is known before it begins.
#[derive(Debug)]
pub(crate) struct Plan {
    /// What a person is told that it does.
    pub(crate) purpose: &'static str,
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) script: Script,
    pub(crate) pace: Pace,
    /// What comes before, on the same connections, for how long, and is not measured.
    pub(crate) warm_up: Option<(Pace, Duration)>,
    /// Whether the first answer that is an error ends it.
    pub(crate) until_error: bool,
    pub(crate) connections: usize,
    pub(crate) threads: usize,
}

/// How the requests follow each other.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Pace {
    /// The next when an answer comes.
    Closed { pipeline: usize, until: Until },
    /// On schedule: so many a second in all, and nothing is sent after the deadline.
    Open {
        rate: u64,
        requests: u64,
        deadline: Option<Duration>,
    },
}

/// When there were enough.
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
