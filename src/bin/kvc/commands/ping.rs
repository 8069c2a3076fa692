//! Whether the server answers, now or in time, and how long that takes: for people who look, and for scripts that have
//! just started one.
//!
//! What may pass by itself is tried again: nobody listens yet, a name does not resolve, the server is full. What is
//! wrong on this side is not, and neither is another kind of server. One that is older than the question answers 400: it
//! is alive.

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use humantime::format_duration;
use kv::abi::{CommandRequest, CommandResponse, Kvpair, status};
use kv::{Client, DecodeError, KvError, TlsError};
use tokio::time::{sleep, timeout};

use crate::connection::{Options, config, connect, within};
use crate::failure::Failure;
use crate::input::number;
use crate::output::{Format, say};

/// How long to wait after the first attempt that failed; after each one more, twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(10);

/// How long to wait at most: a server that is there is not to be missed for long.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// What is said of a server that answers 400: it is alive.
pub(crate) const OLDER_THAN_PING: &str = "an older server: it answers, but does not know ping";

#[derive(Debug, clap::Args)]
pub(crate) struct PingArgs {
    /// Wait until the server answers, for this long at most: 30s, 2m
    ///
    /// Connects again and again, where there is no server yet. Each attempt has the time of --timeout. When the time
    /// has passed, standard error has what the last attempt met, and the exit code is 4. At another kind of server, and at
    /// one that breaks the protocol, it ends at once.
    #[arg(long, value_name = "TIME", value_parser = number::time)]
    pub(crate) wait: Option<Duration>,

    /// Print how long the server takes for an answer too, on a connection that is there: pong in 0.123 ms
    ///
    /// Other formats than text have it as the pair round_trip_ms.
    #[arg(long)]
    pub(crate) round_trip: bool,
}

/// Waits for an answer as it is asked for, and gives what is printed of it.
pub(crate) async fn ping(options: &Options, ping: &PingArgs) -> Result<CommandResponse, Failure> {
    let client = match ping.wait {
        None => connect(options).await?,
        Some(patience) => wait(options, patience).await?,
    };
    let answer = pong(options, ping, &client).await?;
    client.close().await;
    Ok(answer)
}

/// What is printed of a server that answers on this connection.
pub(crate) async fn pong(
    options: &Options,
    ping: &PingArgs,
    client: &Client,
) -> Result<CommandResponse, Failure> {
    let began = Instant::now();
    let pong = within(options, client.execute(CommandRequest::new_ping())).await?;
    let took = ping.round_trip.then(|| milliseconds(began.elapsed()));
    match pong.status {
        status::OK => {}
        status::BAD_REQUEST => say(OLDER_THAN_PING),
        status => {
            let message = pong.message;
            return Err(Failure::Server { status, message });
        }
    }
    let mut answer = CommandResponse::ok();
    match (took, options.output) {
        // That all is well is the whole answer.
        (None, Format::Json) => {}
        (None, _) => answer.values.push("pong".into()),
        (Some(took), Format::Text) => answer.values.push(format!("pong in {took:.3} ms").into()),
        (Some(took), _) => answer.pairs.push(Kvpair::new("round_trip_ms", took.into())),
    }
    Ok(answer)
}

/// How long the server takes for an answer, with the way there and back.
pub(crate) async fn round_trip(options: &Options, client: &Client) -> Result<Duration, Failure> {
    let began = Instant::now();
    within(options, client.ping()).await?;
    Ok(began.elapsed())
}

/// A time in milliseconds, down to a microsecond.
pub(crate) fn milliseconds(time: Duration) -> f64 {
    time.as_micros() as f64 / 1000.0
}

/// What an attempt met, and whether waiting may help.
struct Missed {
    failure: Failure,
    may_pass: bool,
}

/// A connection on which the server has answered.
async fn attempt(options: &Options) -> Result<Client, Missed> {
    let missed = |failure, may_pass| Missed { failure, may_pass };
    let config = config(options).map_err(|failure| missed(failure, false))?;
    let answered = async {
        let client = Client::connect_with(options.addr.as_str(), config).await?;
        let pong = timeout(options.timeout, client.ping()).await;
        Ok(pong.map(|pong| pong.map(|()| client)))
    };
    let failed =
        |error: &KvError| missed(Failure::from_client(error, &options.addr), may_pass(error));
    match answered.await {
        Ok(Ok(Ok(client))) => Ok(client),
        Ok(Err(_)) => Err(missed(options.timed_out(), true)),
        Ok(Ok(Err(error))) | Err(error) => Err(failed(&error)),
    }
}

/// Tries until the server answers, or the time has passed.
pub(crate) async fn wait(options: &Options, patience: Duration) -> Result<Client, Failure> {
    let began = Instant::now();
    let left = || patience.saturating_sub(began.elapsed());
    let mut pause = FIRST_PAUSE;
    let mut attempts = 0_u64;
    let mut last = None;
    loop {
        attempts += 1;
        match timeout(left(), attempt(options)).await {
            Ok(Ok(client)) => return Ok(client),
            Ok(Err(missed)) if missed.may_pass => {
                last = Some(Box::new(missed.failure));
            }
            Ok(Err(missed)) => return Err(missed.failure),
            // Cut short, it has met nothing, unless it was the only one.
            Err(_) => break,
        }
        if left().is_zero() {
            break;
        }
        if attempts == 1 && io::stderr().is_terminal() {
            say(&format!(
                "waiting for {}, up to {}",
                options.addr,
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
        options.addr,
        format_duration(patience)
    );
    Err(Failure::NoPong { waited, last })
}

/// Whether waiting may help.
fn may_pass(error: &KvError) -> bool {
    match error {
        KvError::Disconnected(reason) | KvError::Interrupted(reason) => may_pass(reason),
        KvError::Refused { status, .. } | KvError::Ended { status, .. } => {
            *status == status::UNAVAILABLE
        }
        // It begins with what no frame of kvs begins with.
        KvError::Decode(DecodeError::FrameTooLarge { .. }) => false,
        KvError::Tls(tls) => matches!(tls, TlsError::Handshake(_)) && !error.breaks_protocol(),
        error => !error.breaks_protocol(),
    }
}
