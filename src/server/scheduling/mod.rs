//! The runtimes of a server, and which of them serve: the first few, as many as are enough.
//!
//! Connections that share a thread share its waits and its wakes, so that each request costs less the fewer threads
//! there are: on two cores that serve a client too, two threads take 1.3 times the CPU of one and answer less. So all
//! connections begin on the first runtime. How many more there should be is decided in `spreading`, by what is seen here.

mod idle_cores;
mod moving;
mod socket;
mod spreading;

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::debug;

use self::idle_cores::IdleCores;
use self::spreading::{Seen, Spreading};

pub(in crate::server) use moving::{Movable, Place, Runtimes};
pub(in crate::server) use socket::Socket;

/// How often it is looked at what the threads do.
const PERIOD: Duration = Duration::from_millis(200);

/// The runtimes of a server, of which the first few serve.
#[derive(Debug)]
pub(in crate::server) struct Layout {
    /// Each with how long it had been busy at the last review.
    handles: Vec<(Handle, Duration)>,
    runtimes: Arc<Runtimes>,
    /// How many requests they had answered at the last review.
    answered: u64,
    /// When it was last looked at what they do; [`None`] where there is nothing to decide.
    reviewed: Option<Instant>,
    idle_cores: IdleCores,
    spreading: Spreading,
}

impl Layout {
    /// Of these, or of the runtime that this is called on where there are none.
    pub(in crate::server) fn new(runtimes: &[Handle]) -> Self {
        let handles = match runtimes {
            [] => vec![Handle::current()],
            handles => handles.to_vec(),
        };
        let with_busy_time = |handle: Handle| {
            let busy = busy_time(&handle);
            (handle, busy)
        };
        Self {
            runtimes: Arc::new(Runtimes::new(handles.len())),
            answered: 0,
            reviewed: (handles.len() > 1).then(Instant::now),
            spreading: Spreading::up_to(handles.len()),
            handles: handles.into_iter().map(with_busy_time).collect(),
            idle_cores: IdleCores::default(),
        }
    }

    /// A place for the connection of this number.
    pub(in crate::server) fn place(&self, number: usize) -> Arc<Place> {
        Arc::new(Place::new(number, Arc::clone(&self.runtimes)))
    }

    /// Has a connection served where it should be, as one of a set.
    pub(in crate::server) fn spawn(
        &self,
        connections: &mut JoinSet<Option<Movable>>,
        connection: Movable,
    ) {
        let index = connection.place().settle();
        if let Some((runtime, _)) = self.handles.get(index) {
            connections.spawn_on(connection, runtime);
        }
    }

    /// When the next review is due.
    pub(in crate::server) fn next_review(&self) -> Option<Instant> {
        self.reviewed.map(|reviewed| reviewed + PERIOD)
    }

    /// How many runtimes serve.
    pub(in crate::server) fn active(&self) -> usize {
        self.runtimes.active()
    }

    /// Decides how many runtimes serve from now on.
    pub(in crate::server) fn review(&mut self) {
        let now = Instant::now();
        let Some(reviewed) = self.reviewed.replace(now) else {
            return;
        };
        let seen = self.look(now.duration_since(reviewed).as_secs_f64());
        let (before, threads) = (self.active(), self.spreading.decide(seen));
        if threads != before {
            debug!(before, threads, ?seen, "connections move");
            self.runtimes.activate(threads);
        }
    }

    fn look(&mut self, seconds: f64) -> Seen {
        let answered = self.runtimes.answered();
        let mut seen = Seen {
            busy: 0.0,
            busiest: 0.0,
            rate: answered.saturating_sub(self.answered) as f64 / seconds,
            idle_cores: 0.0,
        };
        self.answered = answered;
        for (runtime, before) in &mut self.handles {
            let until_now = busy_time(runtime);
            let busy = until_now.saturating_sub(*before).as_secs_f64() / seconds;
            *before = until_now;
            seen.busy += busy;
            seen.busiest = seen.busiest.max(busy);
        }
        if Spreading::is_much(seen.busiest) && self.active() < self.handles.len() {
            seen.idle_cores = self.idle_cores.look().unwrap_or(0.0);
        } else {
            self.idle_cores.forget();
        }
        seen
    }
}

/// For how long a runtime had something to do until now, of its threads on average.
fn busy_time(runtime: &Handle) -> Duration {
    let metrics = runtime.metrics();
    let workers = metrics.num_workers();
    let busy = (0..workers).map(|worker| metrics.worker_total_busy_duration(worker));
    let workers = u32::try_from(workers).unwrap_or(u32::MAX).max(1);
    busy.sum::<Duration>() / workers
}

#[cfg(test)]
impl Layout {
    /// Has what is returned decide on how many runtimes serve.
    pub(in crate::server) fn decide(&mut self) -> Arc<Runtimes> {
        self.reviewed = None;
        Arc::clone(&self.runtimes)
    }
}
