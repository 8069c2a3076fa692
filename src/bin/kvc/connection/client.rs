//! Connecting to the server, over TLS where asked for, and requests with a deadline.

use std::time::Duration;

use kv::abi::{CommandRequest, CommandResponse};
use kv::{Address, Client, ClientConfig, ClientError};
use tokio::time::timeout;

use super::compression::Compression;
use super::options::Options;
use crate::failure::Failure;

/// Connects to the server. The client itself keeps the deadline: it alone can report what happened
/// at each of the server's addresses.
pub(crate) async fn connect(options: &Options) -> Result<Client, Failure> {
    let connected = Client::connect_with(options.addr.as_str(), config(options)?).await;
    connected.map_err(|error| Failure::from_client(&error, &options.addr))
}

/// How to connect.
pub(crate) fn config(options: &Options) -> Result<ClientConfig, Failure> {
    // A run has one connection, and sets a deadline for each thing that it waits for.
    let mut config = ClientConfig::default()
        .with_codec(options.compression.codec())
        .with_plain_answers(options.compression == Compression::Off)
        .with_backoff(None)
        .with_connect_timeout(options.timeout)
        .with_request_timeout(None);
    if let Some(connector) = options.tls.connector()? {
        config = config.with_tls(connector);
    }
    Ok(config)
}

/// Waits for an answer until the timeout.
pub(crate) async fn within<T>(
    options: &Options,
    answer: impl Future<Output = Result<T, ClientError>>,
) -> Result<T, Failure> {
    let answer = timeout(options.timeout, answer).await;
    answer
        .map_err(|_| options.timed_out())?
        .map_err(|error| Failure::from_client(&error, &options.addr))
}

/// Sends a request and waits for the answer. A write without an answer is reported as possibly
/// executed.
pub(crate) async fn ask(
    client: &Client,
    request: CommandRequest,
    address: &Address,
    within: Duration,
) -> Result<CommandResponse, Failure> {
    let write = is_write(&request);
    let answer = timeout(within, client.execute(request)).await;
    answer
        .map_err(|_| Failure::timed_out(address, within, write))?
        .map_err(|error| Failure::of_request(&error, address, write))
}

/// Whether a request changes anything, or may.
pub(crate) fn is_write(request: &CommandRequest) -> bool {
    !request.command().is_some_and(kv::abi::Command::is_read)
}
