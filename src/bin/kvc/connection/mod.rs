//! The connection that a run of kvc has: to the server that is named, with TLS where that is asked for, and within the
//! time that is given for it.

pub(crate) mod targets;
pub(crate) mod tls;

use std::time::Duration;

use clap::ValueEnum;
use kv::abi::{CommandRequest, CommandResponse};
use kv::{Address, Client, ClientConfig, CodecConfig, KvError};
use tokio::time::timeout;

use crate::args::Args;
use crate::failure::Failure;

/// Whether what goes over a connection is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Compression {
    /// What is long, either way
    Auto,
    /// Nothing; only a server that is older than this option goes on compressing answers
    Off,
}

impl Compression {
    pub(crate) fn codec(self) -> CodecConfig {
        let codec = CodecConfig::default();
        match self {
            Self::Auto => codec,
            Self::Off => codec.with_compression(None),
        }
    }
}

/// Connects to the server. In time: what came of each of its addresses is known to the client alone, so that nobody else
/// may give up before it.
pub(crate) async fn connect(args: &Args) -> Result<Client, Failure> {
    let connected = Client::connect_with(args.addr.as_str(), config(args)?).await;
    connected.map_err(|error| Failure::from_client(&error, &args.addr))
}

/// How a connection is made.
pub(crate) fn config(args: &Args) -> Result<ClientConfig, Failure> {
    // One run has one connection, and a deadline of its own for each thing that it waits for.
    let mut config = ClientConfig::default()
        .with_codec(args.compression.codec())
        .with_plain_answers(args.compression == Compression::Off)
        .with_backoff(None)
        .with_connect_timeout(args.timeout)
        .with_request_timeout(None);
    if let Some(connector) = args.tls.connector()? {
        config = config.with_tls(connector);
    }
    Ok(config)
}

/// What the server answers within the time that it has for an answer.
pub(crate) async fn within<T>(
    args: &Args,
    answer: impl Future<Output = Result<T, KvError>>,
) -> Result<T, Failure> {
    let answer = timeout(args.timeout, answer).await;
    answer
        .map_err(|_| args.late())?
        .map_err(|error| Failure::from_client(&error, &args.addr))
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
        .map_err(|_| Failure::late(address, within, write))?
        .map_err(|error| Failure::of_request(&error, address, write))
}

/// Whether a request changes something, or may.
pub(crate) fn is_write(request: &CommandRequest) -> bool {
    !request.command().is_some_and(kv::abi::Command::is_read)
}
