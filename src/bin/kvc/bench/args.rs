//! The options of `kvc bench`, and the checks that clap cannot do.

use std::thread;
use std::time::Duration;

use super::check::Check;
use super::keys::Distribution;
use super::mix::Mix;
use super::plan::{Pace, Until};
use crate::connection::Options;
use crate::failure::Failure;
use crate::input::number::{number, time};
use crate::output::Format;
use crate::size::{InvalidSize, Size};

/// The duration by default.
const DEFAULT_DURATION: Duration = Duration::from_secs(10);

/// A hundred years: a far longer time has an end that no clock can represent.
const LONGEST_WARM_UP: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

const DEFAULT_PIPELINE: u32 = 1;

/// The largest value.
const MAX_VALUE_BYTES: usize = 15_000_000;

/// The largest request, below the 16 MiB that a server accepts by default.
const MAX_REQUEST_BYTES: u64 = 16_000_000;

const HELP: &str = "\
It writes to the table named by --table: keys key:0000000000 and up, which stay there unless
--cleanup is given. All of them are stored first, over what they had. Put no load on a server that
others depend on.

Without --rate it is a closed loop: each connection sends the next request when an answer comes. A
stalled server then gets fewer requests, and the latencies say nothing about those who would have
waited meanwhile. This shows how much a server can do. With --rate it is an open loop: requests are
sent on schedule, whether or not answers come, and the latency of each counts from when it was due
(corrected for coordinated omission). This shows how long people wait. A request that has no answer
at the end, or was never sent, counts with the time it had waited.

In the mix, hmget and hmset name --batch keys each, and publish goes to the topic named by --table.
A miss is a key that was asked for and does not exist. Values are random letters and digits, sent
uncompressed; the server compresses answers of more than 1436 bytes unless it was told not to.

A check is a figure, <, <=, =, >= or >, and a time or a number: p50, p90, p99, p99.9, max, mean
(\"p99<5ms\"); rate (\"rate>10000\"), errors (\"errors=0\"), misses. Quote it, because of the shell.

Examples:
  kvc bench --connections 50 --duration 30s
  kvc bench --rate 20000 --warmup 5s --duration 1m \\
    --check \"p99<5ms\" --check errors=0
  kvc bench --mix hset --size 1024 --keys 1000000 \\
    --distribution zipf --pipeline 32

--output text prints a table, and json one object on one line. Ctrl-C ends it early, and prints
the measurements up to then.

Exit codes: 0 done; 1 a check failed; 2 usage; 3 the server answered with errors, and no check says
how many are allowed; 4 the server cannot be reached, closed the connection, or does not answer in
time (the measurements up to then are printed); 6 standard output cannot be written to, or so many
connections are not allowed; 130 Ctrl-C came before anything was measured.";

/// Put load on a server, and print its throughput and latency
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct BenchArgs {
    /// How many connections to open
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = number(1_u32..=100_000))]
    pub(crate) connections: u32,

    /// How many requests each connection has under way [default: 1]
    #[arg(long, value_name = "N", conflicts_with = "rate", value_parser = number(1_u32..=65_536))]
    pipeline: Option<u32>,

    /// Send this many requests per second in all, on schedule, whether or not answers come
    #[arg(long, value_name = "N", value_parser = number(1_u64..=100_000_000))]
    pub(crate) rate: Option<u64>,

    /// End after this many requests
    #[arg(long, value_name = "N", conflicts_with = "duration",
        value_parser = number(1_u64..=1_000_000_000_000))]
    pub(crate) requests: Option<u64>,

    /// End after this time [default: 10s, unless --requests is given]
    #[arg(long, value_name = "TIME", value_parser = time)]
    duration: Option<Duration>,

    /// Put the load on the server for this long before measuring, so that it is up to speed
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = time)]
    pub(crate) warmup: Duration,

    /// The commands, each with its weight: hget, hset, hmget, hmset, hexist, hdel, publish, ping
    #[arg(long, value_name = "MIX", default_value = "hget:9,hset:1")]
    pub(crate) mix: Mix,

    /// The size of a value: a number of bytes, or one with a unit, such as 64KiB or 100kB
    #[arg(long, value_name = "SIZE", default_value = "64", value_parser = size_of_value)]
    pub(crate) size: u32,

    /// How many keys the table has
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = number(1..=u32::MAX))]
    pub(crate) keys: u32,

    /// How many keys hmget and hmset name
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = number(1_u32..=100_000))]
    pub(crate) batch: u32,

    /// How the keys are chosen
    #[arg(long, value_enum, default_value = "uniform")]
    pub(crate) distribution: Distribution,

    /// The table to write to, and the topic to publish to
    #[arg(long, value_name = "TABLE", default_value = "bench")]
    pub(crate) table: String,

    /// Do not store every key once at the start
    #[arg(long)]
    pub(crate) no_fill: bool,

    /// Remove the keys at the end
    #[arg(long)]
    pub(crate) cleanup: bool,

    /// How many threads make the load, up to the number of cores
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = number(1_u32..=1024))]
    pub(crate) threads: u32,

    /// A condition on the result; if it fails, the exit code is 1; may be given several times
    #[arg(long, value_name = "CHECK")]
    pub(crate) check: Vec<Check>,
}

impl BenchArgs {
    /// The format of the report. Formats of rows do not fit a report, and are refused on the
    /// command line; a variable that sets one is meant for other commands.
    pub(crate) fn output(&self, options: &Options) -> Format {
        match options.output {
            Format::Text | Format::Json => options.output,
            other if options.target.sources.is_flag("output") => other,
            // The report is one object on one line.
            Format::Ndjson => Format::Json,
            _ => Format::Text,
        }
    }

    /// Checks that the options fit each other.
    pub(crate) fn check(&self, output: Format) -> Result<(), Failure> {
        let values = self.mix.iter().map(|(kind, _)| kind);
        let values = values.map(|kind| kind.values(self.batch as usize)).max();
        let bytes = values.unwrap_or(0) as u64 * u64::from(self.size);
        let cores = thread::available_parallelism().map_or(1, |cores| cores.get());
        let message = if self.threads as usize > cores {
            format!(
                "{} threads are more than the {cores} cores of this machine; give --threads \
                 {cores} or less",
                self.threads
            )
        } else if self.threads > self.connections {
            format!(
                "{} threads have nothing to do with {} connections; give --connections {} or more",
                self.threads, self.connections, self.threads
            )
        } else if self.duration.is_some_and(|duration| duration.is_zero()) {
            "a duration of 0s measures nothing; write 10s, say".to_owned()
        } else if bytes > MAX_REQUEST_BYTES {
            format!(
                "{bytes} bytes of values in one request are more than {MAX_REQUEST_BYTES}; give a \
                 smaller --size or --batch"
            )
        } else if !matches!(output, Format::Text | Format::Json) {
            "bench prints text or json; give --output text or --output json".to_owned()
        } else {
            return Ok(());
        };
        Err(Failure::usage_of("kvc bench", message))
    }

    pub(crate) fn pace(&self) -> Pace {
        let time = self.duration.unwrap_or(DEFAULT_DURATION);
        match (self.rate, self.requests) {
            (None, Some(requests)) => self.closed(Until::Requests(requests)),
            (None, None) => self.closed(Until::Time(time)),
            (Some(rate), Some(requests)) => Pace::Open {
                rate,
                requests,
                deadline: None,
            },
            (Some(rate), None) => Pace::Open {
                rate,
                requests: due_within(rate, time),
                deadline: Some(time),
            },
        }
    }

    /// The pace before measuring, and for how long, if there is a warm-up.
    pub(crate) fn warm_up(&self) -> Option<(Pace, Duration)> {
        let time = self.warmup.min(LONGEST_WARM_UP);
        let pace = match self.rate {
            None => self.closed(Until::Time(time)),
            Some(rate) => Pace::Open {
                rate,
                requests: due_within(rate, time),
                deadline: Some(time),
            },
        };
        (!time.is_zero()).then_some((pace, time))
    }

    fn closed(&self, until: Until) -> Pace {
        let pipeline = self.pipeline.unwrap_or(DEFAULT_PIPELINE) as usize;
        Pace::Closed { pipeline, until }
    }
}

fn size_of_value(text: &str) -> Result<u32, InvalidSize> {
    let size = Size::within(0, MAX_VALUE_BYTES)(text)?;
    // The limit is far below u32::MAX.
    Ok(u32::try_from(size.bytes()).unwrap_or(u32::MAX))
}

/// How many requests are due within this time; the first is due at once.
fn due_within(rate: u64, time: Duration) -> u64 {
    let requests = (u128::from(rate) * time.as_nanos()).div_ceil(1_000_000_000);
    u64::try_from(requests).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_the_requests_due_within_a_time() {
        assert_eq!(due_within(1000, Duration::from_secs(10)), 10_000);
        assert_eq!(due_within(1000, Duration::from_nanos(1)), 1);
        assert_eq!(due_within(3, Duration::from_millis(500)), 2);
    }
}
