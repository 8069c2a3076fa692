//! Requests that are made again where the server says that it cannot serve them now.

use std::time::Duration;

use kv::Client;
use kv::abi::{CommandRequest, CommandResponse, status};
use tokio::time::sleep;

use crate::connection::Options;
use crate::connection::within;
use crate::failure::Failure;

/// How long the first wait is for a server that has no memory for a request; each next is twice as long.
const FIRST_WAIT: Duration = Duration::from_millis(100);

/// How often a request is made: for six seconds.
const ATTEMPTS: u32 = 7;

/// The answer, whatever its status. One of 503 has waited for others to make room: the request was not executed.
pub(super) async fn ask(
    options: &Options,
    client: &Client,
    request: &CommandRequest,
) -> Result<CommandResponse, Failure> {
    let mut wait = FIRST_WAIT;
    for _ in 1..ATTEMPTS {
        let answer = within(options, client.execute(request.clone())).await?;
        if answer.status != status::UNAVAILABLE {
            return Ok(answer);
        }
        sleep(wait).await;
        wait *= 2;
    }
    within(options, client.execute(request.clone())).await
}
