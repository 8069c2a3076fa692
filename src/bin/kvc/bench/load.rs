//! A load from start to end: threads are started, told when to begin, watched, and their results
//! added up.

use std::future::pending;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use tokio::signal::ctrl_c;
use tokio::sync::{mpsc, watch};
use tokio::time::{Interval, interval, sleep_until};

use super::lane::Shared;
use super::plan::Plan;
use super::progress::Progress;
use super::tally::Tally;
use super::timer::process_cpu;
use super::worker::{Event, Signal, Worker};
use crate::failure::Failure;

/// How often progress is checked.
const TICK: Duration = Duration::from_millis(100);

/// The result of a load.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) tally: Tally,
    /// From the start to the last answer, or to when it was cut short.
    pub(crate) elapsed: Duration,
    /// The length of the warm-up before that.
    pub(crate) warm_up: Duration,
    /// The CPU time of this program.
    pub(crate) cpu: Duration,
    /// Whether Ctrl-C ended it.
    pub(crate) interrupted: bool,
    /// Why it ended early.
    pub(crate) failure: Option<Failure>,
}

/// Puts the load on the server, and returns the measurements, however far it came.
pub(crate) async fn run(plan: Plan, interrupt: &mut Interrupt) -> Outcome {
    Running::start(Arc::new(plan)).run(interrupt).await
}

/// Ctrl-C. From the first wait on, none is missed, even if nobody waits just then.
pub(crate) struct Interrupt(Pin<Box<dyn Future<Output = io::Result<()>>>>);

impl Interrupt {
    pub(crate) fn new() -> Self {
        Self(Box::pin(ctrl_c()))
    }

    /// If the signal cannot be received, this never ends.
    async fn pressed(&mut self) {
        match (&mut self.0).await {
            Ok(()) => *self = Self::new(),
            Err(_) => {
                self.0 = Box::pin(pending());
                pending().await
            }
        }
    }
}

struct Running {
    plan: Arc<Plan>,
    shared: Arc<Shared>,
    signal: watch::Sender<Signal>,
    events: mpsc::UnboundedReceiver<Event>,
    tally: Tally,
    /// How many threads have yet to send their next event.
    awaited: usize,
    stall: Stall,
    failure: Option<Failure>,
}

impl Running {
    fn start(plan: Arc<Plan>) -> Self {
        let shared = Arc::new(Shared::default());
        let (signal, told) = watch::channel(Signal::Wait);
        let (sender, events) = mpsc::unbounded_channel();
        let mut failure = None;
        for number in 0..plan.threads {
            let worker = Worker {
                plan: Arc::clone(&plan),
                shared: Arc::clone(&shared),
                number,
                events: sender.clone(),
                signal: told.clone(),
            };
            let name = format!("bench {number}");
            if let Err(error) = thread::Builder::new().name(name).spawn(|| worker.run()) {
                failure = Some(Failure::Local(format!("cannot start a thread: {error}")));
            }
        }
        let kinds = plan.script.templates.iter().map(|template| template.kind);
        let tally = Tally::new(kinds, plan.is_open());
        Self {
            awaited: plan.threads,
            stall: Stall::new(Instant::now()),
            plan,
            shared,
            signal,
            events,
            tally,
            failure,
        }
    }

    async fn run(mut self, interrupt: &mut Interrupt) -> Outcome {
        // Until all are connected.
        let mut interrupted = self.watch(None, None, interrupt).await;
        let mut start = Instant::now();
        let mut warm_up = Duration::ZERO;
        if !interrupted && self.failure.is_none() {
            self.awaited = self.plan.threads;
            self.signal.send_replace(Signal::Go(start));
            if let Some((pace, time)) = self.plan.warm_up {
                let progress = Progress::of("warming up", pace, start);
                let end = start + time;
                interrupted = self.watch(Some(progress), Some(end), interrupt).await;
                warm_up = start.elapsed().min(time);
                start = end;
            }
        }
        let cpu = process_cpu();
        if !interrupted && self.failure.is_none() {
            let progress = Progress::of(self.plan.purpose, self.plan.pace, start);
            interrupted = self.watch(Some(progress), None, interrupt).await;
        }
        // The time waited in vain counts.
        let cut = interrupted || self.failure.is_some();
        let cut = cut.then(|| Instant::now().saturating_duration_since(start));
        self.signal.send_replace(Signal::Abort);
        while let Some(event) = self.events.recv().await {
            self.take(event);
        }
        Outcome {
            elapsed: cut.unwrap_or(Duration::from_nanos(self.tally.last_answer)),
            warm_up,
            cpu: process_cpu().saturating_sub(cpu),
            tally: self.tally,
            interrupted,
            failure: self.failure,
        }
    }

    /// Waits until all threads are ready, or done, or until `end`. It also returns when a thread
    /// fails, when no answers come any more, or on Ctrl-C; only then it returns true.
    async fn watch(
        &mut self,
        progress: Option<Progress>,
        end: Option<Instant>,
        interrupt: &mut Interrupt,
    ) -> bool {
        let mut ticks = interval(TICK);
        let before = self.shared.answered.load(Ordering::Relaxed);
        while self.awaited > 0 && self.failure.is_none() {
            tokio::select! {
                event = self.events.recv() => match event {
                    Some(event) => {
                        self.awaited -= 1;
                        self.take(event);
                    }
                    None => self.failure = Some(ended_early()),
                },
                () = tick(&mut ticks) => {
                    let sent = self.shared.sent.load(Ordering::Relaxed);
                    let answered = self.shared.answered.load(Ordering::Relaxed);
                    if let Some(progress) = &progress {
                        progress.show(answered.saturating_sub(before));
                    }
                    if self.stall.lasts(sent > answered, answered) > self.plan.endpoint.timeout {
                        self.failure = Some(self.plan.endpoint.timed_out());
                    }
                }
                () = until(end) => return false,
                () = interrupt.pressed() => return true,
            }
        }
        false
    }

    fn take(&mut self, event: Event) {
        let Event::Done(tally, failure) = event else {
            return;
        };
        self.tally.add(&tally);
        // Later failures follow from the first.
        self.failure = self.failure.take().or(failure);
    }
}

async fn until(end: Option<Instant>) {
    match end {
        Some(end) => sleep_until(end.into()).await,
        None => pending().await,
    }
}

async fn tick(ticks: &mut Interval) {
    ticks.tick().await;
}

fn ended_early() -> Failure {
    Failure::Local("a thread of the load ended before it was over".to_owned())
}

/// Since when requests have been under way without an answer.
struct Stall {
    since: Instant,
    answered: u64,
}

impl Stall {
    fn new(start: Instant) -> Self {
        Self {
            since: start,
            answered: 0,
        }
    }

    fn lasts(&mut self, under_way: bool, answered: u64) -> Duration {
        if !under_way || answered != self.answered {
            self.since = Instant::now();
            self.answered = answered;
        }
        self.since.elapsed()
    }
}
