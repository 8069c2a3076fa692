//! The listener: accepts connections, gives each a task, and ends them all in good order.
//!
//! Every task belongs to the server's set: none outlives it, and one that panics takes nobody with it. A failure
//! to accept is logged and waited out; only the one who embeds the server ends it.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream, ToSocketAddrs, lookup_host};
use tokio::task::{JoinError, JoinSet};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, error, info, info_span, warn};

use super::ProstServerStream;
use crate::config::ServerConfig;
use crate::error::{KvError, Report};
use crate::service::Service;
use crate::storage::{Storage, StorageError};

/// How many connections may wait to be accepted. tokio's own listeners have 128.
const BACKLOG: u32 = 1024;

/// How long to wait after an error that will not have passed at once, such as a lack of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Listens on the first of the addresses that can be listened on. Port 0 takes a free one:
/// [`TcpListener::local_addr`] tells which.
///
/// # Errors
///
/// [`KvError::Socket`], with the address, where there is none.
pub async fn listen(
    addresses: impl ToSocketAddrs + std::fmt::Display,
) -> Result<TcpListener, KvError> {
    let failed = |source| KvError::Socket {
        action: format!("listen on {addresses}"),
        source,
    };
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in lookup_host(&addresses).await.map_err(failed)? {
        match listen_on(address) {
            Ok(listener) => return Ok(listener),
            Err(error) => last = error,
        }
    }
    Err(failed(last))
}

fn listen_on(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    // A server that is started again must not wait for the connections of the last one to be forgotten.
    // On Windows the same option would let two servers share the port.
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Serves connections until `shutdown` is ready. Then it accepts no more, answers every request that
/// has been received, syncs the storage and returns; a connection that has not ended
/// [`shutdown_timeout`](ServerConfig::with_shutdown_timeout) later is dropped.
///
/// Nothing that a client does ends the server, nor does a failure to accept a connection.
///
/// ```
/// use kv::abi::CommandRequest;
/// use kv::{MemTable, ProstClientStream, ServerConfig, Service, listen, serve};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), kv::KvError> {
/// let listener = listen("127.0.0.1:0").await?;
/// let address = listener.local_addr().expect("a listener has an address");
/// let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
/// let server = tokio::spawn(serve(
///     listener,
///     Service::new(MemTable::new()),
///     ServerConfig::default(),
///     async { drop(stopped.await) },
/// ));
///
/// let mut client = ProstClientStream::connect(address).await?;
/// client.execute(CommandRequest::new_hset("t", "k", "v")).await?;
///
/// drop(stop);
/// server.await.expect("the server does not panic")?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// [`KvError::Storage`] where the last sync fails, or takes longer than the same timeout.
pub async fn serve<S: Storage>(
    listener: TcpListener,
    service: Service<S>,
    config: ServerConfig,
    shutdown: impl Future<Output = ()>,
) -> Result<(), KvError> {
    let mut shutdown = pin!(shutdown);
    let mut connections = JoinSet::new();
    let stop = CancellationToken::new();
    let mut number = 0_u64;
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            Some(ended) = connections.join_next() => {
                report_panic(ended);
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                number += 1;
                let span = info_span!("connection", number, %peer);
                let connection = run_connection(stream, service.clone(), config, stop.clone());
                connections.spawn(connection.instrument(span));
            }
            Err(error) => pass_over(&error).await,
        }
    }
    drop(listener);
    info!(connections = connections.len(), "stopping");
    stop.cancel();
    drain(connections, config.shutdown_timeout).await;
    match timeout(config.shutdown_timeout, service.storage().sync()).await {
        Ok(synced) => Ok(synced?),
        Err(elapsed) => Err(StorageError::Sync {
            source: elapsed.into(),
        }
        .into()),
    }
}

async fn run_connection<S: Storage>(
    stream: TcpStream,
    service: Service<S>,
    config: ServerConfig,
    stop: CancellationToken,
) {
    debug!("connected");
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%error, "cannot set TCP_NODELAY");
    }
    match ProstServerStream::new(stream, service, config.codec)
        .process(stop.cancelled_owned())
        .await
    {
        Ok(()) => debug!("disconnected"),
        Err(error) => debug!(error = %Report(&error), "connection failed"),
    }
}

/// A connection that its peer gave up before it was accepted concerns nobody. Anything else is likely to
/// last, and must not be tried again in a busy loop.
async fn pass_over(error: &io::Error) {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    if matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted
    ) {
        return;
    }
    warn!(%error, "cannot accept a connection");
    tokio::time::sleep(ACCEPT_PAUSE).await;
}

async fn drain(mut connections: JoinSet<()>, patience: Duration) {
    let all_ended = async {
        while let Some(ended) = connections.join_next().await {
            report_panic(ended);
        }
    };
    if timeout(patience, all_ended).await.is_err() {
        warn!(
            connections = connections.len(),
            "dropping connections that have not ended in time"
        );
        connections.shutdown().await;
    }
}

fn report_panic(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        error!(%error, "a connection's task failed");
    }
}
