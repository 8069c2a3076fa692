//! `kvc info`: the server's version, state and limits, and the round trip to it.
//!
//! A server older than this command answers 400. kvc says so, and still prints the round trip.

use kv::Client;
use kv::abi::{CommandRequest, CommandResponse, Kvpair, status};

use super::ping::{milliseconds, round_trip};
use crate::connection::{Options, connect, within};
use crate::failure::Failure;
use crate::output::say;

/// The help on the report.
pub(crate) const ABOUT: &str = "\
Names are those of kvs's settings, where there is one. Sizes are in bytes; counters and limits are
in the units that their names say. The address and round_trip_ms, the time for a request and its
answer on an open connection, come from kvc. What a server does not report is left out, and one that
is older than this command reports nothing.";

/// Asks on a connection of its own, and returns the report.
pub(crate) async fn info(options: &Options) -> Result<CommandResponse, Failure> {
    let client = connect(options).await?;
    let answer = facts(options, &client).await?;
    client.close().await;
    Ok(answer)
}

/// The address and the round trip, followed by what the server says, in its order.
pub(crate) async fn facts(options: &Options, client: &Client) -> Result<CommandResponse, Failure> {
    let told = ask(options, client).await?;
    let took = round_trip(options, client).await?;
    let mut answer = CommandResponse::from(vec![
        Kvpair::new("address", options.addr.as_str().into()),
        Kvpair::new("round_trip_ms", milliseconds(took).into()),
    ]);
    answer.pairs.extend(told);
    Ok(answer)
}

async fn ask(options: &Options, client: &Client) -> Result<Vec<Kvpair>, Failure> {
    let answer = within(options, client.execute(CommandRequest::new_info())).await?;
    match answer.status {
        status::OK => Ok(answer.pairs),
        status::BAD_REQUEST => {
            say(&format!(
                "{} is older than this command, and reports nothing about itself",
                options.addr
            ));
            Ok(Vec::new())
        }
        status => Err(Failure::Server {
            status,
            message: answer.message,
        }),
    }
}
