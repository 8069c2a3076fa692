//! On how many of its runtimes a server serves: as few as are enough.
//!
//! Connections that share a thread share its waits and its wakes, so that each request costs less the fewer threads
//! there are; on two cores that serve a client too, two threads take 1.3 times the CPU of one and answer less. So all
//! connections begin on the first. When it has much to do, and the machine has cores with nothing to do, they are spread
//! over twice as many, and once fewer are enough for a while they are gathered again.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::debug;

use super::idle_cores::IdleCores;
use super::moving::{Movable, Place};

/// How often it is looked at what the threads have to do.
const PERIOD: Duration = Duration::from_millis(200);

/// A thread that is busy for more of the time than this has too much to do: beyond, requests wait for each other for
/// longer than they take.
const MUCH: f64 = 0.75;

/// How busy fewer threads may be expected to be for connections to be gathered on them.
const LITTLE: f64 = 0.5;

/// For how many periods that has to be so.
const CALM: usize = 5;

/// The runtimes of a server, of which the first few serve.
#[derive(Debug)]
pub(super) struct Layout {
    runtimes: Vec<Runtime>,
    active: Arc<AtomicUsize>,
    /// When it was last looked at what they do; [`None`] where there is nothing to decide.
    reviewed: Option<Instant>,
    idle_cores: IdleCores,
    demand: Demand,
}

#[derive(Debug)]
struct Runtime {
    handle: Handle,
    /// For how long it had been busy at the last review.
    busy: Duration,
}

/// What the threads had to do in each of the last periods, as how many threads' whole time.
#[derive(Debug)]
struct Demand {
    periods: [f64; CALM],
    next: usize,
}

impl Layout {
    /// Of these, or of the runtime that this is called on where there are none.
    pub(super) fn new(runtimes: &[Handle]) -> Self {
        let runtimes = match runtimes {
            [] => vec![Handle::current()],
            runtimes => runtimes.to_vec(),
        };
        let runtime = |handle| Runtime {
            busy: busy_time(&handle),
            handle,
        };
        Self {
            reviewed: (runtimes.len() > 1).then(Instant::now),
            runtimes: runtimes.into_iter().map(runtime).collect(),
            active: Arc::new(AtomicUsize::new(1)),
            idle_cores: IdleCores::default(),
            demand: Demand::unknown(),
        }
    }

    /// A place for the connection of this number.
    pub(super) fn place(&self, number: usize) -> Arc<Place> {
        Arc::new(Place::new(number, &self.active))
    }

    /// Has a connection served where it should be, as one of a set.
    pub(super) fn spawn(&self, connections: &mut JoinSet<Option<Movable>>, connection: Movable) {
        let index = connection.place().settle();
        if let Some(runtime) = self.runtimes.get(index) {
            connections.spawn_on(connection, &runtime.handle);
        }
    }

    /// When the next review is due.
    pub(super) fn next_review(&self) -> Option<Instant> {
        self.reviewed.map(|reviewed| reviewed + PERIOD)
    }

    /// How many runtimes serve.
    pub(super) fn active(&self) -> usize {
        self.active.load(Relaxed)
    }

    /// Decides how many runtimes serve from now on.
    pub(super) fn review(&mut self) {
        let now = Instant::now();
        let Some(reviewed) = self.reviewed.replace(now) else {
            return;
        };
        let period = now.duration_since(reviewed);
        let (mut sum, mut most) = (0.0, 0.0_f64);
        for runtime in &mut self.runtimes {
            let busy = busy_time(&runtime.handle);
            let part = busy.saturating_sub(runtime.busy).as_secs_f64() / period.as_secs_f64();
            runtime.busy = busy;
            sum += part;
            most = most.max(part);
        }
        self.demand.note(sum);
        let active = self.active();
        let wanted = if most > MUCH {
            let idle_cores = self.idle_cores.look().unwrap_or(0.0);
            spread(active, idle_cores).min(self.runtimes.len())
        } else {
            self.idle_cores.forget();
            self.demand.threads().min(active)
        };
        if wanted != active {
            debug!(before = active, threads = wanted, "connections move");
            self.active.store(wanted, Relaxed);
            self.demand = Demand::unknown();
        }
    }
}

impl Demand {
    /// Of which nothing is known yet: it may be any.
    fn unknown() -> Self {
        Self {
            periods: [f64::INFINITY; CALM],
            next: 0,
        }
    }

    fn note(&mut self, threads: f64) {
        if let Some(period) = self.periods.get_mut(self.next) {
            *period = threads;
        }
        self.next = (self.next + 1) % CALM;
    }

    /// How many threads are enough for all that was asked.
    fn threads(&self) -> usize {
        let most = self.periods.iter().copied().fold(0.0, f64::max);
        ((most / LITTLE).ceil() as usize).max(1)
    }
}

/// How many threads have to serve where one of so many has too much to do.
fn spread(active: usize, idle_cores: f64) -> usize {
    let free = idle_cores.round() as usize;
    active + free.min(active)
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
    pub(super) fn decide(&mut self) -> Arc<AtomicUsize> {
        self.reviewed = None;
        Arc::clone(&self.active)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_become_more_only_where_cores_are_idle() {
        for (active, idle_cores, wanted) in [
            (1, 0.0, 1),
            (1, 0.4, 1),
            (1, 0.6, 2),
            (1, 9.0, 2),
            (4, 2.2, 6),
            (4, f64::INFINITY, 8),
        ] {
            assert_eq!(spread(active, idle_cores), wanted, "{active} {idle_cores}");
        }
    }

    #[test]
    fn fewer_threads_are_enough_once_they_were_for_a_while() {
        let mut demand = Demand::unknown();
        for _ in 0..CALM {
            assert_eq!(demand.threads(), usize::MAX);
            demand.note(0.2);
        }
        assert_eq!(demand.threads(), 1);
        demand.note(0.6);
        for _ in 0..CALM {
            assert_eq!(demand.threads(), 2);
            demand.note(0.0);
        }
        assert_eq!(demand.threads(), 1);
    }
}
