//! The connection that a run of kvc has: to the server that is named, with TLS where that is asked for, and within the
//! time that is given for it.

use kv::{Client, KvError};
use tokio::time::timeout;

use crate::args::Args;
use crate::failure::Failure;

/// Connects to the server.
pub(crate) async fn connect(args: &Args) -> Result<Client, Failure> {
    let address = args.addr.as_str();
    let connector = args.tls.connector()?;
    let connect = async {
        match &connector {
            None => Client::connect(address).await,
            Some(connector) => Client::connect_tls(address, connector).await,
        }
    };
    within(args, connect).await
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
