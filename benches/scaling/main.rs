//! What a second thread adds: the service and its tables in memory, driven in process by one thread and by two.
//!
//!     cargo bench --bench scaling
//!
//! The threads share a service, and each has keys of its own: in a table of its own, or both in one. Beside that stand
//! two threads that share nothing, each with a service of its own: more than that the machine does not give. Requests
//! take both ways that there are: many at a time through a connection over a stream that is always ready, as a server
//! executes them, and one at a time through `Service::execute`, as a program does that embeds it.
//!
//! One thread and two work in turn, and a ratio is the median of those of the rounds. Rounds in which others had the cores
//! are left out, as far as there are better ones: two threads that take turns on one core are not in each other's way.
//! Linux tells for how long each was kept waiting. CPU time tells what they cost each other, but not when one sleeps until
//! the other is done.

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

/// That of kvs.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Measures what two threads do beside what one does
#[derive(Debug, Parser)]
#[command(name = "scaling")]
struct Args {
    /// Only the loads whose line has this in it; may be repeated
    #[arg(long, value_name = "SUBSTRING")]
    only: Vec<String>,

    /// How many rounds count of each load, with one thread and with two in turn; up to ten times as many are tried
    #[arg(long, default_value_t = 9)]
    rounds: usize,

    /// How long one thread or two work in a round
    #[arg(long, default_value_t = 100)]
    millis: u64,

    /// A moment of every load, to see that this program works; the figures mean nothing
    #[arg(long)]
    quick: bool,

    /// Passed by cargo bench
    #[arg(long, hide = true)]
    bench: bool,
}

/// Up to which share of its time a thread may be kept waiting for a core.
const UNDISTURBED: f64 = 0.02;

/// How many rounds are tried for each that is undisturbed.
const MOST_TRIED: usize = 10;

/// One thread and two, in one round.
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
    // Nobody's first requests are measured.
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
