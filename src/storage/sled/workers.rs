//! Threads for the calls into sled that take long, so that no caller's thread is held up by them.
//!
//! A long call is made in jobs of about a millisecond, one after the other, and the jobs of several
//! calls take turns. The results of a few jobs may wait to be used: that is the memory that long
//! calls take beside what their callers hold.

use std::collections::VecDeque;
use std::io;
use std::num::NonZero;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use futures::channel::oneshot;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The maximum number of threads. More do not help: sled makes one batch of changes at a time.
const MAX_THREADS: usize = 4;

/// How many jobs there may be at a time, for each thread: those that run, that are next, and whose
/// results are being used.
const PLACES_PER_THREAD: usize = 2;

/// How long closing waits for a job that has begun.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// How often closing looks whether the store has failed meanwhile.
const CLOSE_POLL: Duration = Duration::from_millis(50);

type Job = Box<dyn FnOnce() + Send>;

/// A handle of the threads.
#[derive(Clone)]
pub(super) struct Workers {
    shared: Arc<Shared>,
}

struct Shared {
    places: Arc<Semaphore>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    /// The number of jobs that run.
    running: usize,
    /// The number of jobs that have ended.
    ended: u64,
    is_closing: bool,
}

/// What a job has returned. It takes the place of the job until it is dropped.
pub(super) struct Returned<T> {
    pub(super) value: T,
    _place: OwnedSemaphorePermit,
}

impl<T, E> Returned<Result<T, E>> {
    pub(super) fn transpose(self) -> Result<Returned<T>, E> {
        let Self { value, _place } = self;
        Ok(Returned {
            value: value?,
            _place,
        })
    }
}

impl Workers {
    /// Starts as many threads as half of the processors.
    pub(super) fn start() -> io::Result<Self> {
        let processors = thread::available_parallelism().map_or(1, NonZero::get);
        let threads = (processors / 2).clamp(1, MAX_THREADS);
        let shared = Arc::new(Shared {
            places: Arc::new(Semaphore::new(threads * PLACES_PER_THREAD)),
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let workers = Self { shared };
        for _ in 0..threads {
            let shared = Arc::clone(&workers.shared);
            let spawned = thread::Builder::new()
                .name("kv-sled".to_owned())
                .spawn(move || shared.work());
            if let Err(error) = spawned {
                workers.lock().is_closing = true;
                workers.shared.changed.notify_all();
                return Err(error);
            }
        }
        Ok(workers)
    }

    /// Runs a job once it has its turn. If the caller is gone by then, the job is dropped instead.
    /// Returns [`None`] if it panicked.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Option<Returned<T>> {
        // Never closed.
        let place = Arc::clone(&self.shared.places).acquire_owned().await.ok()?;
        let (returns, returned) = oneshot::channel();
        self.push(move || {
            if !returns.is_canceled() {
                let value = job();
                // If the caller is gone, this drops the value.
                let _ = returns.send(Returned {
                    value,
                    _place: place,
                });
            }
        });
        returned.await.ok()
    }

    /// Runs a job before all others, without a place: for a small call, which has only this one.
    /// Returns [`None`] if it panicked.
    pub(super) async fn run_first<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let (returns, returned) = oneshot::channel();
        let job = move || {
            if !returns.is_canceled() {
                let _ = returns.send(job());
            }
        };
        self.lock().jobs.push_front(Box::new(job));
        self.shared.changed.notify_one();
        returned.await.ok()
    }

    /// Adds a job that nobody waits for.
    pub(super) fn push(&self, job: impl FnOnce() + Send + 'static) {
        let mut state = self.lock();
        state.jobs.push_back(Box::new(job));
        match state.is_closing {
            true => self.shared.changed.notify_all(),
            false => self.shared.changed.notify_one(),
        }
    }

    /// Returns once all jobs have ended and no thread will begin another. Gives up if `has_failed`,
    /// or if a job takes too long; the threads then go on alone. Returns whether all have ended.
    pub(super) fn close(&self, has_failed: impl Fn() -> bool) -> bool {
        let mut state = self.lock();
        state.is_closing = true;
        self.shared.changed.notify_all();
        let (mut ended, mut since) = (state.ended, Instant::now());
        while state.running > 0 || !state.jobs.is_empty() {
            if state.ended != ended {
                (ended, since) = (state.ended, Instant::now());
            }
            if has_failed() || since.elapsed() > CLOSE_TIMEOUT {
                return false;
            }
            let waited = self.shared.changed.wait_timeout(state, CLOSE_POLL);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.lock()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        let mut state = self.lock();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                state.running += 1;
                drop(state);
                // Whoever waits for the job is told by its sender, which is dropped.
                let _ = catch_unwind(AssertUnwindSafe(job));
                state = self.lock();
                state.running -= 1;
                state.ended += 1;
                if state.is_closing {
                    self.changed.notify_all();
                }
            } else if state.is_closing && state.running == 0 {
                return;
            } else {
                let waited = self.changed.wait(state);
                state = waited.unwrap_or_else(PoisonError::into_inner);
            }
        }
    }
}
