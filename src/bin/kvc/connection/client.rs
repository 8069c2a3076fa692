//! The connection that a run of kvc has: to the server that is named, with TLS where that is asked for, and within the
//! time that is given for it.

use std::time::Duration;

use kv::abi::{CommandRequest, CommandResponse};
use kv::{Address, Client, ClientConfig, KvError};
use tokio::time::timeout;

use super::compression::Compression;
use super::options::Options;
use crate::failure::Failure;

/// Connects to the server. In time: what came of each of its addresses is known to the client alone, so that nobody else
/// may give up before it.
pub(crate) async fn connect(options: &Options) -> Result<Client, Failure> {
    let connected = Client::connect_with(options.addr.as_str(), config(options)?).await;
    connected.map_err(|error| Failure::from_client(&error, &options.addr))
}

/// How a connection is made.
pub(crate) fn config(options: &Options) -> Result<ClientConfig, Failure> {
    // One run has one connection, and a deadline of its own for each thing that it waits for.
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

/// What the server answers within the time that it has for an answer.
pub(crate) async fn within<T>(
    options: &Options,
    answer: impl Future<Output = Result<T, KvError>>,
) -> Result<T, Failure> {
    let answer = timeout(options.timeout, answer).await;
    answer
        .map_err(|_| options.timed_out())?
        .map_err(|error| Failure::from_client(&error, &options.addr))
}

/// What the server answers to a request in this time. Of a write without an answer it is told whether it may have been
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

/// Whether a request changes something, or may.
pub(crate) fn is_write(request: &CommandRequest) -> bool {
    !request.command().is_some_and(kv::abi::Command::is_read)
}
