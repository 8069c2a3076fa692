//! The report of a load: the object that `--output json` prints, from which the text is made.
//!
//! The names of its fields are a promise to scripts; docs/benchmarks.md lists them.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::args::BenchArgs;
use super::check::{Check, Figure};
use super::load::Outcome;
use super::plan::Pace;
use super::tally::{Figures, Tally, ThreadTimes};

/// If a thread is busy for more than this fraction of its time, the client may be the bottleneck.
const BUSY: f64 = 0.9;

/// If a thread waits for a core for more than this fraction of its time, the result includes that
/// wait.
const WAITING: f64 = 0.25;

/// A shorter run says nothing about the client.
const SHORTEST: Duration = Duration::from_millis(500);

#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) address: String,
    pub(crate) table: String,
    /// `closed` or `open`.
    pub(crate) mode: &'static str,
    pub(crate) connections: u32,
    pub(crate) threads: u32,
    /// Requests that each connection has under way, in a closed loop.
    pub(crate) pipeline: Option<usize>,
    pub(crate) mix: String,
    pub(crate) keys: u32,
    pub(crate) size: u32,
    pub(crate) batch: u32,
    pub(crate) distribution: &'static str,
    pub(crate) tls: bool,
    /// Whether Ctrl-C ended it.
    pub(crate) interrupted: bool,
    /// Why it ended early.
    pub(crate) failure: Option<String>,
    /// The length of the warm-up.
    pub(crate) warmup_seconds: f64,
    pub(crate) elapsed_seconds: f64,
    /// Answers, whatever their status.
    pub(crate) requests: u64,
    /// Answers per second.
    pub(crate) rate: f64,
    /// Requests that were sent but not answered by the end.
    pub(crate) unanswered: u64,
    /// Answers with a status other than 200, or 404 to `hget`.
    pub(crate) errors: u64,
    pub(crate) first_error: Option<String>,
    /// Keys that were asked for and did not exist.
    pub(crate) misses: u64,
    pub(crate) bytes_sent: u64,
    pub(crate) bytes_received: u64,
    /// Both directions, in 10^6 bytes.
    pub(crate) mb_per_second: f64,
    pub(crate) latency_us: Latency,
    pub(crate) commands: BTreeMap<&'static str, PerCommand>,
    /// In an open loop: how well the schedule was kept.
    pub(crate) schedule: Option<Schedule>,
    pub(crate) client_cpu_seconds: f64,
    pub(crate) client_cpu_us_per_request: Option<f64>,
    /// The fraction of its time that the busiest thread ran, from 0 to 1.
    pub(crate) client_busy: f64,
    /// The fraction of its time that a thread waited for a core.
    pub(crate) client_waiting: Option<f64>,
    /// Whether one of the two suggests that the client was the bottleneck.
    pub(crate) client_bottleneck: bool,
    pub(crate) checks: Vec<Checked>,
}

/// Microseconds; absent if nothing was measured. A request without an answer counts with the time
/// it had waited by the end.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Latency {
    pub(crate) mean: Option<f64>,
    pub(crate) p50: Option<f64>,
    pub(crate) p90: Option<f64>,
    pub(crate) p99: Option<f64>,
    #[serde(rename = "p99_9")]
    pub(crate) p999: Option<f64>,
    pub(crate) max: Option<f64>,
}

#[derive(Debug, Serialize)]
pub(crate) struct PerCommand {
    pub(crate) requests: u64,
    pub(crate) rate: f64,
    pub(crate) errors: u64,
    pub(crate) misses: u64,
    pub(crate) latency_us: Latency,
}

#[derive(Debug, Serialize)]
pub(crate) struct Schedule {
    /// The requests per second that were asked for.
    pub(crate) rate: u64,
    /// Requests that were due by the end. Those that were not sent count in the latencies.
    pub(crate) due: u64,
    pub(crate) sent: u64,
    /// Requests that were sent more than a millisecond late.
    pub(crate) late: u64,
    pub(crate) latest_us: f64,
    /// Latencies counted from when a request was sent, rather than from when it was due.
    pub(crate) service_us: Latency,
}

#[derive(Debug, Serialize)]
pub(crate) struct Checked {
    pub(crate) check: String,
    pub(crate) passed: bool,
    /// Microseconds if the figure is a time, and otherwise the number; absent if nothing was
    /// measured.
    pub(crate) got: Option<f64>,
    #[serde(skip)]
    pub(crate) figure: Figure,
}

impl Report {
    pub(crate) fn new(args: &BenchArgs, (address, tls): (String, bool), outcome: &Outcome) -> Self {
        let Outcome { tally, elapsed, .. } = outcome;
        let all = tally.all();
        let seconds = elapsed.as_secs_f64();
        let rate = per(all.answered as f64, seconds);
        let bytes = tally.bytes_sent + tally.bytes_received;
        let pace = args.pace();
        let (busy, waiting) = busiest(&tally.threads);
        Self {
            address,
            tls,
            table: args.table.clone(),
            mode: match pace {
                Pace::Closed { .. } => "closed",
                Pace::Open { .. } => "open",
            },
            connections: args.connections,
            threads: args.threads,
            pipeline: match pace {
                Pace::Closed { pipeline, .. } => Some(pipeline),
                Pace::Open { .. } => None,
            },
            mix: args.mix.to_string(),
            keys: args.keys,
            size: args.size,
            batch: args.batch,
            distribution: args.distribution.name(),
            interrupted: outcome.interrupted,
            failure: outcome.failure.as_ref().and_then(|failure| failure.line()),
            warmup_seconds: rounded(outcome.warm_up.as_secs_f64()),
            elapsed_seconds: rounded(seconds),
            requests: all.answered,
            rate: rounded(rate),
            unanswered: tally.sent.saturating_sub(all.answered),
            errors: all.errors,
            first_error: first_error(tally),
            misses: all.misses,
            bytes_sent: tally.bytes_sent,
            bytes_received: tally.bytes_received,
            mb_per_second: rounded(per(bytes as f64 / 1e6, seconds)),
            latency_us: Latency::of(&all.latency),
            commands: commands(tally, seconds),
            schedule: Schedule::new(pace, outcome),
            client_cpu_seconds: rounded(outcome.cpu.as_secs_f64()),
            client_cpu_us_per_request: (all.answered > 0)
                .then(|| rounded(outcome.cpu.as_secs_f64() * 1e6 / all.answered as f64)),
            client_busy: rounded(busy),
            client_waiting: waiting.map(rounded),
            client_bottleneck: bottleneck(busy, waiting, *elapsed).is_some(),
            checks: checks(&args.check, &all, rate),
        }
    }
}

impl Report {
    /// Requests that were due and not sent.
    pub(crate) fn unsent(&self) -> u64 {
        let schedule = self.schedule.as_ref();
        schedule.map_or(0, |schedule| schedule.due.saturating_sub(schedule.sent))
    }
}

impl Latency {
    fn of(histogram: &Histogram<u64>) -> Self {
        let measured = !histogram.is_empty();
        let us = |nanoseconds: f64| measured.then(|| rounded(nanoseconds / 1e3));
        let at = |quantile| us(histogram.value_at_quantile(quantile) as f64);
        Self {
            mean: us(histogram.mean()),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: us(histogram.max() as f64),
        }
    }
}

impl Schedule {
    fn new(pace: Pace, outcome: &Outcome) -> Option<Self> {
        let (Pace::Open { rate, requests, .. }, Some(service)) = (pace, &outcome.tally.service)
        else {
            return None;
        };
        let tally = &outcome.tally;
        // A load that ended early had fewer requests due.
        let whole = !outcome.interrupted && outcome.failure.is_none();
        Some(Self {
            rate,
            due: if whole {
                requests
            } else {
                tally.sent + tally.unsent
            },
            sent: tally.sent,
            late: tally.late,
            latest_us: rounded(tally.latest as f64 / 1e3),
            service_us: Latency::of(service),
        })
    }
}

fn commands(tally: &Tally, seconds: f64) -> BTreeMap<&'static str, PerCommand> {
    let commands = tally.commands.iter().map(|(kind, figures)| {
        let command = PerCommand {
            requests: figures.answered,
            rate: rounded(per(figures.answered as f64, seconds)),
            errors: figures.errors,
            misses: figures.misses,
            latency_us: Latency::of(&figures.latency),
        };
        (kind.name(), command)
    });
    commands.collect()
}

fn first_error(tally: &Tally) -> Option<String> {
    let (status, message) = tally.first_error.as_ref()?;
    Some(format!("{status}: {message}"))
}

fn checks(checks: &[Check], all: &Figures, rate: f64) -> Vec<Checked> {
    let checked = checks.iter().map(|check| {
        let got = figure(check.figure, all, rate);
        let shown = got.map(|got| {
            if check.figure.is_time() {
                got / 1e3
            } else {
                got
            }
        });
        Checked {
            check: check.to_string(),
            // A figure that was not measured fails its check.
            passed: got.is_some_and(|got| check.holds(got)),
            got: shown.map(rounded),
            figure: check.figure,
        }
    });
    checked.collect()
}

/// Nanoseconds if the figure is a time, and otherwise the number; nothing if nothing was measured.
fn figure(figure: Figure, all: &Figures, rate: f64) -> Option<f64> {
    let latency = &all.latency;
    // Requests without an answer have waited, which is a time, and no other figure.
    let measured = match figure.is_time() {
        true => !latency.is_empty(),
        false => all.answered > 0,
    };
    if !measured {
        return None;
    }
    Some(match figure {
        Figure::P50 => latency.value_at_quantile(0.5) as f64,
        Figure::P90 => latency.value_at_quantile(0.9) as f64,
        Figure::P99 => latency.value_at_quantile(0.99) as f64,
        Figure::P999 => latency.value_at_quantile(0.999) as f64,
        Figure::Max => latency.max() as f64,
        Figure::Mean => latency.mean(),
        Figure::Rate => rate,
        Figure::Errors => all.errors as f64,
        Figure::Misses => all.misses as f64,
    })
}

/// What to do if the client may be the bottleneck.
pub(crate) fn bottleneck(
    busy: f64,
    waiting: Option<f64>,
    elapsed: Duration,
) -> Option<&'static str> {
    if elapsed < SHORTEST {
        return None;
    }
    // A thread that waits for a core would otherwise be busy.
    if waiting.is_some_and(|waiting| waiting > WAITING) {
        Some("run it on another machine, or give the server fewer threads")
    } else if busy > BUSY {
        Some("give it more --threads, or run several on other machines")
    } else {
        None
    }
}

/// The highest busy fraction and the highest waiting fraction of any thread.
fn busiest(threads: &[ThreadTimes]) -> (f64, Option<f64>) {
    let part = |time: Duration, of: Duration| per(time.as_secs_f64(), of.as_secs_f64());
    let busy = threads.iter().map(|times| part(times.cpu, times.elapsed));
    let waiting = threads
        .iter()
        .filter_map(|times| Some(part(times.waited?, times.elapsed)));
    (busy.fold(0.0, f64::max), waiting.reduce(f64::max))
}

/// 0 if there is no time to divide by.
fn per(number: f64, seconds: f64) -> f64 {
    if seconds > 0.0 { number / seconds } else { 0.0 }
}

/// To three decimals, so that nobody reads more into it.
fn rounded(number: f64) -> f64 {
    (number * 1e3).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_or_waiting_client_is_called_the_bottleneck() {
        let short = SHORTEST - Duration::from_nanos(1);
        for (busy, waiting, elapsed, named) in [
            (0.91, None, SHORTEST, true),
            (0.91, None, short, false),
            (0.9, Some(0.25), SHORTEST, false),
            (0.1, Some(0.26), SHORTEST, true),
            (0.1, Some(0.26), short, false),
        ] {
            assert_eq!(bottleneck(busy, waiting, elapsed).is_some(), named);
        }
    }
}
