//! A thread of a load: its connections, each a future, on a runtime of its own.
//!
//! It connects, reports so, and waits for all others before it begins. After a warm-up, measuring
//! begins by the clock, on the same connections, with whatever is still under way: if the server
//! stalls at that moment, that is measured.

use std::cell::RefCell;
use std::future::{pending, poll_fn};
use std::io;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use futures::stream::{FuturesUnordered, StreamExt, TryStreamExt, iter};
use kv::Address;
use tokio::sync::{mpsc, watch};
use tokio::task::{unconstrained, yield_now};

use super::lane::{Bench, Broken, Lane, Shared, Turn, due, due_until, nanoseconds};
use super::plan::{Pace, Plan};
use super::tally::{Tally, ThreadTimes};
use super::timer::{Timer, thread_cpu, thread_waited};
use crate::failure::Failure;
use crate::failure::origins;

/// How many connections are opened at once, so that no server's backlog overflows.
const CONNECTING: usize = 64;

/// What a thread reports.
#[derive(Debug)]
pub(crate) enum Event {
    /// It has connected, and waits for the signal to begin.
    Ready,
    /// It is done; early, if there is a failure.
    Done(Box<Tally>, Option<Failure>),
}

/// What a thread is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    Wait,
    /// Begin at this moment, with the warm-up if there is one.
    Go(Instant),
    /// Stop waiting for anything.
    Abort,
}

/// One of the threads.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) plan: Arc<Plan>,
    pub(crate) shared: Arc<Shared>,
    /// Its index, from 0.
    pub(crate) number: usize,
    pub(crate) events: mpsc::UnboundedSender<Event>,
    pub(crate) signal: watch::Receiver<Signal>,
}

impl Worker {
    /// Runs to the end, which it reports with an event.
    pub(crate) fn run(self) {
        let (tally, failure) = match runtime() {
            Ok(runtime) => {
                let ended = runtime.block_on(self.connect_and_load());
                // A name may still be being resolved; do not wait for it.
                runtime.shutdown_background();
                ended
            }
            Err(error) => (self.nothing(), Some(cannot_start(&error))),
        };
        // The receiver may have failed.
        let _ = self.events.send(Event::Done(Box::new(tally), failure));
    }

    fn nothing(&self) -> Tally {
        let kinds = self.plan.script.templates.iter();
        Tally::new(kinds.map(|template| template.kind), self.plan.is_open())
    }

    async fn connect_and_load(&self) -> (Tally, Option<Failure>) {
        let mut signal = self.signal.clone();
        let lanes = tokio::select! {
            lanes = self.connect() => lanes,
            () = aborted(&mut signal) => return (self.nothing(), None),
        };
        let mut lanes = match lanes {
            Ok(lanes) => lanes,
            Err(failure) => return (self.nothing(), Some(failure)),
        };
        let Some(mut start) = self.wait_for_start().await else {
            return (self.nothing(), None);
        };
        if let Some((pace, time)) = self.plan.warm_up {
            let end = start + time;
            let failure = self.warm_up(&mut lanes, pace, start, end).await.err();
            if failure.is_some() || *signal.borrow() == Signal::Abort {
                return (self.nothing(), failure);
            }
            lanes.iter_mut().for_each(Lane::restart);
            start = end;
        }
        let (tally, failure) = self.load(&mut lanes, self.plan.pace, start).await;
        if failure.is_none() {
            for lane in &mut lanes {
                lane.close().await;
            }
        }
        (tally, failure)
    }

    /// Reports that it is ready, and waits for the moment to begin; [`None`] if there is none.
    async fn wait_for_start(&self) -> Option<Instant> {
        // The receiver may have failed.
        let _ = self.events.send(Event::Ready);
        let mut signal = self.signal.clone();
        let told = signal.wait_for(|signal| *signal != Signal::Wait).await;
        match told.as_deref() {
            Ok(Signal::Go(start)) => Some(*start),
            Ok(Signal::Wait | Signal::Abort) | Err(_) => None,
        }
    }

    /// Puts the load on the server until `end`. Requests without an answer then stay under way.
    async fn warm_up(
        &self,
        lanes: &mut [Lane],
        pace: Pace,
        start: Instant,
        end: Instant,
    ) -> Result<(), Failure> {
        let mut signal = self.signal.clone();
        let load = async {
            match self.load(lanes, pace, start).await {
                (_, Some(failure)) => failure,
                // Everything was answered before the end.
                (_, None) => pending().await,
            }
        };
        tokio::select! {
            failure = load => Err(failure),
            ended = until(end) => ended.map_err(|error| cannot_start(&error)),
            () = aborted(&mut signal) => Ok(()),
        }
    }

    async fn connect(&self) -> Result<Vec<Lane>, Failure> {
        let plan = &self.plan;
        // Connections and schedule are spread evenly over threads and connections.
        let mine = (self.number..plan.connections).step_by(plan.threads);
        let count = mine.len();
        let step = (plan.threads * count) as u64;
        let connecting = iter(0..count).map(|lane| async move {
            let stream = plan.endpoint.connect().await?;
            let next = (self.number + lane * plan.threads) as u64;
            Ok(Lane::new(stream, Turn { next, step }))
        });
        connecting.buffered(CONNECTING).try_collect().await
    }

    async fn load(
        &self,
        lanes: &mut [Lane],
        pace: Pace,
        start: Instant,
    ) -> (Tally, Option<Failure>) {
        let plan = &self.plan;
        let seed = self.number as u64;
        let bench = Bench::new(plan, pace, &self.shared, start, seed);
        let bench = RefCell::new(bench);
        let wakers = RefCell::new(vec![Waker::noop().clone(); lanes.len()]);
        let mut signal = self.signal.clone();
        let before = Usage::now();
        let failure = tokio::select! {
            ended = unconstrained(run_all(lanes, &bench, &wakers)) => {
                ended.err().map(|broken| failure(broken, &plan.endpoint.address))
            }
            Err(error) = self.keep_time(pace, start, &wakers) => Some(cannot_start(&error)),
            () = aborted(&mut signal) => None,
        };
        let mut bench = bench.into_inner();
        let end = bench.now();
        for lane in lanes.iter() {
            lane.count_unanswered(end, &mut bench);
        }
        let mut tally = bench.tally;
        tally.threads.push(before.until_now());
        (tally, failure)
    }

    /// Wakes the connections whose requests are due; a closed loop has no schedule.
    async fn keep_time(
        &self,
        pace: Pace,
        start: Instant,
        wakers: &RefCell<Vec<Waker>>,
    ) -> io::Result<()> {
        let Pace::Open { rate, requests, .. } = pace else {
            return pending().await;
        };
        let mut timer = Timer::new()?;
        let threads = self.plan.threads as u64;
        let mut next = self.number as u64;
        let mut lane = 0;
        while next < requests {
            let left = Duration::from_nanos(due(next, rate)).checked_sub(start.elapsed());
            match left.filter(|left| !left.is_zero()) {
                Some(left) => timer.sleep(left).await?,
                // Connections get their turn however far behind schedule it is.
                None => yield_now().await,
            }
            let now = nanoseconds(start.elapsed());
            let count = due_until(now, rate).min(requests).saturating_sub(next);
            let count = count.div_ceil(threads);
            let wakers = wakers.borrow();
            let lanes = wakers.len().max(1);
            // One wake-up per connection is enough, however many of its requests are due.
            let woken = usize::try_from(count).unwrap_or(lanes).min(lanes);
            for waker in wakers.iter().cycle().skip(lane).take(woken) {
                waker.wake_by_ref();
            }
            lane = (lane + (count % lanes as u64) as usize) % lanes;
            next += count * threads;
        }
        pending().await
    }
}

/// Polls each connection when something arrives for it, until all have their answers.
async fn run_all(
    lanes: &mut [Lane],
    bench: &RefCell<Bench<'_>>,
    wakers: &RefCell<Vec<Waker>>,
) -> Result<(), Broken> {
    let futures = lanes.iter_mut().enumerate().map(|(number, lane)| {
        poll_fn(move |context| {
            if let Some(waker) = wakers.borrow_mut().get_mut(number) {
                waker.clone_from(context.waker());
            }
            lane.poll(context, &mut bench.borrow_mut())
        })
    });
    let mut futures: FuturesUnordered<_> = futures.collect();
    while let Some(result) = futures.next().await {
        result?;
    }
    Ok(())
}

/// As precise as the schedule, because the first request is due at that moment.
async fn until(end: Instant) -> io::Result<()> {
    let left = end.saturating_duration_since(Instant::now());
    Timer::new()?.sleep(left).await
}

async fn aborted(signal: &mut watch::Receiver<Signal>) {
    // If the sender is gone, it is over as well.
    let _ = signal.wait_for(|signal| *signal == Signal::Abort).await;
}

fn failure(broken: Broken, address: &Address) -> Failure {
    match broken {
        Broken::Lost(None) => Failure::Unreachable(format!(
            "lost the connection to {address}: the server closed it; see the server's log"
        )),
        Broken::Lost(Some(error)) => Failure::Unreachable(format!(
            "lost the connection to {address}: {error}; see the server's log"
        )),
        Broken::Refused { status, message } => Failure::Server { status, message },
        Broken::Foreign(what) => Failure::Unreachable(format!(
            "{address} does not answer like kvs: {what}; check {}",
            origins::address()
        )),
    }
}

fn cannot_start(error: &io::Error) -> Failure {
    Failure::Local(format!("cannot start: {error}"))
}

fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
}

/// The clocks of this thread at some moment.
struct Usage {
    at: Instant,
    cpu: Duration,
    waited: Option<Duration>,
}

impl Usage {
    fn now() -> Self {
        Self {
            at: Instant::now(),
            cpu: thread_cpu(),
            waited: thread_waited(),
        }
    }

    fn until_now(&self) -> ThreadTimes {
        let now = Self::now();
        let waited = now.waited.zip(self.waited);
        ThreadTimes {
            elapsed: now.at - self.at,
            cpu: now.cpu.saturating_sub(self.cpu),
            waited: waited.map(|(after, before)| after.saturating_sub(before)),
        }
    }
}
