//! `kvc ping`: whether the server answers, now or within a time, and how long that takes. For
//! people, and for scripts that have just started a server.
//!
//! What may pass is tried again: nobody listens yet, a name does not resolve, the server is full. A
//! mistake on this side is not, and neither is another kind of server. A server older than this
//! command answers 400, which shows that it is alive.

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use humantime::format_duration;
use kv::abi::{CommandRequest, CommandResponse, Kvpair, status};
use kv::{Client, ClientError, DecodeError, TlsError};
use tokio::time::{sleep, timeout};

use crate::connection::{Options, config, connect, within};
use crate::failure::Failure;
use crate::input::number;
use crate::output::{Format, say};

/// The pause after the first failed attempt. Each further pause is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(10);

/// The longest pause: a server that has come up should be noticed soon.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// The note about a server that answers 400.
pub(crate) const OLDER_THAN_PING: &str = "an older server: it answers, but does not know ping";

#[derive(Debug, clap::Args)]
pub(crate) struct PingArgs {
    /// Wait until the server answers, for this long at most: 30s, 2m
    ///
    /// Connects again and again until there is a server. Each attempt has the time of --timeout.
    /// When the time is over, standard error says what the last attempt met, and the exit code is
    /// 4. Another kind of server, or one that breaks the protocol, ends the wait at once.
    #[arg(long, value_name = "TIME", value_parser = number::time)]
    pub(crate) wait: Option<Duration>,

    /// Also print the round trip on an open connection: pong in 0.123 ms
    ///
    /// Formats other than text print it as the pair round_trip_ms.
    #[arg(long)]
    pub(crate) round_trip: bool,
}

/// Waits for a server if asked to, and returns the report.
pub(crate) async fn ping(options: &Options, ping: &PingArgs) -> Result<CommandResponse, Failure> {
    let client = match ping.wait {
        None => connect(options).await?,
        Some(patience) => wait(options, patience).await?,
    };
    let answer = pong(options, ping, &client).await?;
    client.close().await;
    Ok(answer)
}

/// The report about a server that answers on this connection.
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
        // An empty answer says that all is well.
        (None, Format::Json) => {}
        (None, _) => answer.values.push("pong".into()),
        (Some(took), Format::Text) => answer.values.push(format!("pong in {took:.3} ms").into()),
        (Some(took), _) => answer.pairs.push(Kvpair::new("round_trip_ms", took.into())),
    }
    Ok(answer)
}

/// The time for a request and its answer.
pub(crate) async fn round_trip(options: &Options, client: &Client) -> Result<Duration, Failure> {
    let began = Instant::now();
    within(options, client.ping()).await?;
    Ok(began.elapsed())
}

/// A time in milliseconds, with microsecond precision.
pub(crate) fn milliseconds(time: Duration) -> f64 {
    time.as_micros() as f64 / 1000.0
}

/// A failed attempt, and whether another one may succeed.
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
        |error: &ClientError| missed(Failure::from_client(error, &options.addr), may_pass(error));
    match answered.await {
        Ok(Ok(Ok(client))) => Ok(client),
        Ok(Err(_)) => Err(missed(options.timed_out(), true)),
        Ok(Ok(Err(error))) | Err(error) => Err(failed(&error)),
    }
}

/// Tries until the server answers, or the time is over.
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
            // An attempt that was cut short met nothing, and the result of the one before it
            // stands.
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

/// Whether another attempt may succeed.
fn may_pass(error: &ClientError) -> bool {
    match error {
        ClientError::Disconnected(reason) | ClientError::Interrupted(reason) => may_pass(reason),
        ClientError::Refused { status, .. } | ClientError::Ended { status, .. } => {
            *status == status::UNAVAILABLE
        }
        // No frame of kvs starts like this.
        ClientError::Decode(DecodeError::FrameTooLarge { .. }) => false,
        ClientError::Tls(tls) => matches!(tls, TlsError::Handshake(_)) && !error.breaks_protocol(),
        error => !error.breaks_protocol(),
    }
}
