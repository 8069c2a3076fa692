//! Two threads that live as long as the program, like those of a server, and measurements of their
//! work.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};

/// Works until the flag is set, and returns the number of requests.
pub(crate) type Job = Box<dyn FnOnce(&AtomicBool) -> u64 + Send>;

#[derive(Debug)]
pub(crate) struct Crew {
    workers: Vec<Worker>,
}

#[derive(Debug)]
struct Worker {
    orders: Sender<Order>,
    spent: Receiver<Spent>,
}

struct Order {
    job: Job,
    begin: Arc<Barrier>,
    stop: Arc<AtomicBool>,
}

/// The work of one thread, and the time it took.
#[derive(Debug, Clone, Copy)]
struct Spent {
    requests: u64,
    wall: Duration,
    /// The time in which the thread could have run but had no core.
    kept_waiting: Duration,
    cpu: Duration,
}

/// The work of several threads together.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Done {
    /// Requests per second.
    pub(crate) rate: f64,
    /// CPU time per request, in nanoseconds.
    pub(crate) cpu: f64,
    /// The largest share of its time, from 0 to 1, that any of the threads waited for a core.
    pub(crate) kept_waiting: f64,
}

impl Crew {
    pub(crate) fn new() -> Self {
        let worker = |_| {
            let (orders, received) = channel();
            let (spend, spent) = channel();
            thread::spawn(move || {
                received
                    .iter()
                    .for_each(|order| spend.send(follow(order)).unwrap())
            });
            Worker { orders, spent }
        };
        Self {
            workers: (0..2).map(worker).collect(),
        }
    }

    /// Runs one job on each thread, all at the same time, for this long.
    pub(crate) fn work(&self, time: Duration, jobs: impl ExactSizeIterator<Item = Job>) -> Done {
        let count = jobs.len();
        let begin = Arc::new(Barrier::new(count + 1));
        let stop = Arc::new(AtomicBool::new(false));
        for (worker, job) in self.workers.iter().zip(jobs) {
            let (begin, stop) = (Arc::clone(&begin), Arc::clone(&stop));
            worker.orders.send(Order { job, begin, stop }).unwrap();
        }
        begin.wait();
        thread::sleep(time);
        stop.store(true, Relaxed);
        let spent = self.workers[..count].iter();
        let spent: Vec<_> = spent.map(|worker| worker.spent.recv().unwrap()).collect();
        let requests: u64 = spent.iter().map(|one| one.requests).sum();
        let cpu: Duration = spent.iter().map(|one| one.cpu).sum();
        Done {
            rate: spent.iter().map(Spent::rate).sum(),
            cpu: cpu.as_nanos() as f64 / requests as f64,
            kept_waiting: spent.iter().map(Spent::share_waited).fold(0.0, f64::max),
        }
    }
}

impl Spent {
    fn rate(&self) -> f64 {
        self.requests as f64 / self.wall.as_secs_f64()
    }

    fn share_waited(&self) -> f64 {
        self.kept_waiting.as_secs_f64() / self.wall.as_secs_f64()
    }
}

fn follow(Order { job, begin, stop }: Order) -> Spent {
    begin.wait();
    let (waited, cpu, began) = (kept_waiting(), cpu_time(), Instant::now());
    let requests = job(&stop);
    Spent {
        requests,
        wall: began.elapsed(),
        kept_waiting: kept_waiting() - waited,
        cpu: cpu_time() - cpu,
    }
}

fn cpu_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)
        .unwrap()
        .into()
}

/// How long this thread has waited for a core; zero if the kernel does not say.
fn kept_waiting() -> Duration {
    let told = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let waited = told.split_whitespace().nth(1);
    Duration::from_nanos(waited.map_or(0, |nanos| nanos.parse().unwrap()))
}
