//! Requests that are repeated while the server is out of memory for them.

use std::time::Duration;

use kv::Client;
use kv::abi::{CommandRequest, CommandResponse, status};
use tokio::time::sleep;

use crate::connection::Options;
use crate::connection::within;
use crate::failure::Failure;

/// The wait after a 503. Each further wait is twice as long.
const FIRST_WAIT: Duration = Duration::from_millis(100);

/// How often a request is sent: for six seconds in all.
const ATTEMPTS: u32 = 7;

/// The answer, whatever its status. A 503 after all attempts means that the request was not
/// executed.
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
