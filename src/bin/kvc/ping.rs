//! Whether the server answers, now or in time, and how long that takes: for people who look, and for scripts that have
//! just started one.
//!
//! What may pass by itself is tried again: nobody listens yet, a name does not resolve, the server is full. What is
//! wrong on this side is not.

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use humantime::format_duration;
use kv::Client;
use kv::abi::{CommandResponse, Kvpair, status};
use tokio::time::{sleep, timeout};

use crate::args::{self, Args};
use crate::connection::{connect, within};
use crate::failure::Failure;
use crate::output::{Format, say};

/// How long to wait after the first attempt that failed; after each one more, twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(10);

/// How long to wait at most: a server that is there is not to be missed for long.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

#[derive(Debug, clap::Args)]
pub(crate) struct PingArgs {
    /// Wait until the server answers, for this long at most: 30s, 2m
    ///
    /// Connects again and again, where there is no server yet. Each attempt has the time of --timeout. When the time
    /// has passed, standard error has what the last attempt met, and the exit code is 4.
    #[arg(long, value_name = "TIME", value_parser = args::time)]
    pub(crate) wait: Option<Duration>,

    /// Print how long the server takes for an answer too, on a connection that is there: pong in 0.123 ms
    ///
    /// Other formats than text have it as the pair round_trip_ms.
    #[arg(long)]
    pub(crate) round_trip: bool,
}

/// Waits for an answer as it is asked for, and gives what is printed of it.
pub(crate) async fn ping(args: &Args, ping: &PingArgs) -> Result<CommandResponse, Failure> {
    let client = match ping.wait {
        None => attempt(args).await?,
        Some(patience) => wait(args, patience).await?,
    };
    let answer = pong(args, ping, &client).await?;
    client.close().await;
    Ok(answer)
}

/// What is printed of a server that answers on this connection.
pub(crate) async fn pong(
    args: &Args,
    ping: &PingArgs,
    client: &Client,
) -> Result<CommandResponse, Failure> {
    let mut answer = CommandResponse::ok();
    let took = if ping.round_trip {
        Some(milliseconds(round_trip(args, client).await?))
    } else {
        None
    };
    match (took, args.output) {
        // That all is well is the whole answer.
        (None, Format::Json) => {}
        (None, _) => answer.values.push("pong".into()),
        (Some(took), Format::Text) => answer.values.push(format!("pong in {took:.3} ms").into()),
        (Some(took), _) => answer.pairs.push(Kvpair::new("round_trip_ms", took)),
    }
    Ok(answer)
}

/// How long the server takes for an answer, with the way there and back.
pub(crate) async fn round_trip(args: &Args, client: &Client) -> Result<Duration, Failure> {
    let began = Instant::now();
    within(args, client.ping()).await?;
    Ok(began.elapsed())
}

/// A time in milliseconds, down to a microsecond.
pub(crate) fn milliseconds(time: Duration) -> f64 {
    time.as_micros() as f64 / 1000.0
}

/// A connection on which the server has answered.
async fn attempt(args: &Args) -> Result<Client, Failure> {
    let client = connect(args).await?;
    within(args, client.ping()).await?;
    Ok(client)
}

/// Tries until the server answers, or the time has passed.
pub(crate) async fn wait(args: &Args, patience: Duration) -> Result<Client, Failure> {
    let began = Instant::now();
    let left = || patience.saturating_sub(began.elapsed());
    let mut pause = FIRST_PAUSE;
    let mut attempts = 0_u64;
    let mut last = None;
    loop {
        attempts += 1;
        match timeout(left(), attempt(args)).await {
            Ok(Ok(client)) => return Ok(client),
            Ok(Err(failure)) if may_pass(&failure) => {
                last = Some(Box::new(failure));
            }
            Ok(Err(failure)) => return Err(failure),
            // Cut short, it has met nothing, unless it was the only one.
            Err(_) => break,
        }
        if left().is_zero() {
            break;
        }
        if attempts == 1 && io::stderr().is_terminal() {
            say(&format!(
                "waiting for {}, up to {}",
                args.addr,
                format_duration(patience)
            ));
        }
        sleep(pause.min(left())).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    let attempts = match attempts {
        1 => "one attempt".to_owned(),
        several => format!("{several} attempts"),
    };
    let waited = format!(
        "no pong from {} within {}, in {attempts}",
        args.addr,
        format_duration(patience)
    );
    Err(Failure::NoPong { waited, last })
}

/// Whether waiting may help.
fn may_pass(failure: &Failure) -> bool {
    match failure {
        Failure::Server { status, .. } => *status == status::UNAVAILABLE,
        other => other.is_unanswered(),
    }
}
