//! Measures what a second thread adds: one thread and two drive the service and its tables in
//! memory, in process.
//!
//!     cargo bench --bench scaling
//!
//! The threads share a service. Each has its own keys, in its own table or both in one. Two threads
//! that share nothing, each with its own service, show the most that the machine can give. Requests
//! go through a connection over a stream that is always ready, many at a time, like in a server; or
//! through `Service::execute`, one at a time, like in a program that embeds the service.
//!
//! One thread and two work in turn, and the reported ratio is the median over the rounds. Rounds
//! in which other processes had the cores are left out if there are better ones, because two
//! threads that take turns on one core do not disturb each other. Linux says how long each thread
//! waited for a core. CPU time shows what the threads cost each other, except when one sleeps
//! until the other is done.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a benchmark fails by panicking"
)]

mod crew;
mod feed;
mod load;

use std::thread;
use std::time::Duration;

use clap::Parser;
use mimalloc::MiMalloc;

use crew::{Crew, Done};
use load::{Load, Stand};

/// The allocator that kvs uses.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Measures the throughput of two threads relative to one
#[derive(Debug, Parser)]
#[command(name = "scaling")]
struct Args {
    /// Run only the loads whose line contains this; may be repeated
    #[arg(long, value_name = "SUBSTRING")]
    only: Vec<String>,

    /// How many rounds of each load count, with one thread and with two in turn; up to ten times as
    /// many are tried
    #[arg(long, default_value_t = 9)]
    rounds: usize,

    /// How many milliseconds one thread, and two, work in a round
    #[arg(long, default_value_t = 100)]
    millis: u64,

    /// Run every load for a moment, to see that this program works; the figures mean nothing
    #[arg(long)]
    quick: bool,

    /// Passed by cargo bench
    #[arg(long, hide = true)]
    bench: bool,
}

/// The share of its time that a thread may wait for a core in an undisturbed round.
const UNDISTURBED: f64 = 0.02;

/// How many rounds to try for each undisturbed one.
const MOST_TRIED: usize = 10;

/// The results of one thread and of two, in one round.
#[derive(Debug, Clone, Copy)]
struct Round {
    one: Done,
    two: Done,
}

fn main() {
    let mut args = Args::parse();
    if args.quick {
        (args.rounds, args.millis) = (1, 5);
    }
    let cores = thread::available_parallelism().map_or(1, usize::from);
    println!(
        "{cores} cores, {} rounds of {} ms\n",
        args.rounds, args.millis
    );
    println!("| load | one, k/s | two, k/s | ratio | CPU, one | two | ratio | kept waiting |");
    println!("| --- | --- | --- | --- | --- | --- | --- | --- |");
    let crew = Crew::new();
    for load in Load::all() {
        let line = load.to_string();
        if args.only.is_empty() || args.only.iter().any(|only| line.contains(only)) {
            measure(&args, &crew, load);
        }
    }
}

fn measure(args: &Args, crew: &Crew, load: Load) {
    let stand = Stand::new(load);
    let time = Duration::from_millis(args.millis);
    let work = |threads| crew.work(time, (0..threads).map(|thread| stand.job(thread)));
    // Warm up both threads.
    work(2);
    let wanted = args.rounds.max(1);
    let (mut rounds, mut undisturbed) = (Vec::new(), 0);
    while undisturbed < wanted && rounds.len() < wanted * MOST_TRIED {
        let (one, two) = (work(1), work(2));
        let round = Round { one, two };
        undisturbed += usize::from(round.kept_waiting() <= UNDISTURBED);
        rounds.push(round);
    }
    rounds.sort_by(|one, other| one.kept_waiting().total_cmp(&other.kept_waiting()));
    rounds.truncate(wanted);
    let of = |figure: &dyn Fn(&Round) -> f64| median(rounds.iter().map(figure).collect());
    println!(
        "| {load} | {:.0} | {:.0} | {:.2} | {:.0} ns | {:.0} ns | {:.2} | {:.0} % |",
        of(&|round| round.one.rate / 1e3),
        of(&|round| round.two.rate / 1e3),
        of(&|round| round.two.rate / round.one.rate),
        of(&|round| round.one.cpu),
        of(&|round| round.two.cpu),
        of(&|round| round.two.cpu / round.one.cpu),
        of(&|round| 100.0 * round.kept_waiting()),
    );
}

impl Round {
    fn kept_waiting(&self) -> f64 {
        self.one.kept_waiting.max(self.two.kept_waiting)
    }
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    let middle = figures.len() / 2;
    match figures.len() % 2 {
        0 => f64::midpoint(figures[middle - 1], figures[middle]),
        _ => figures[middle],
    }
}
