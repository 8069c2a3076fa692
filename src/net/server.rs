//! The server: accepts connections, gives each a task, and ends them all in good order.
//!
//! Every task belongs to the server's set: none outlives it, and one that panics takes nobody with it. A failure
//! to accept is logged and waited out; only the one who embeds the server ends it. What strangers can make it
//! log is kept to a few lines a second.

use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpStream as StdTcpStream};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, error, info, info_span, warn};

use super::ProstServerStream;
use super::budget::Budget;
use super::connection::End;
use super::listener::{is_transient, set_up};
use crate::codec::DecodeError;
use crate::config::ServerConfig;
use crate::error::{KvError, Report};
use crate::metrics::{Ending, ProtocolError, Rejection};
use crate::service::Service;
use crate::storage::{Storage, StorageError};
use crate::throttle::Throttle;

/// How long to wait after an error that will not have passed at once, such as a lack of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How often such an error is logged.
const ACCEPT_ERROR_PERIOD: Duration = Duration::from_secs(10);

/// How many connections over the limit are told so at a time; what comes beyond is closed without a word.
const MAX_TURNED_AWAY: usize = 128;

/// How long a connection over the limit has for its answer.
const TURN_AWAY_PATIENCE: Duration = Duration::from_secs(1);

/// How long connections that were dropped have to go.
const ABORT_PATIENCE: Duration = Duration::from_millis(100);

/// How much of the time for stopping is kept for the last sync: a quarter.
const SYNC_SHARE: u32 = 4;

/// Serves connections until `shutdown` is ready. Then it accepts no more, answers every request that
/// has been received, syncs the storage and returns, all within
/// [`shutdown_timeout`](ServerConfig::with_shutdown_timeout): a connection that has not ended after three
/// quarters of it is dropped.
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
/// [`KvError::Storage`] where the last sync fails, or takes longer than it may.
pub async fn serve<S: Storage>(
    listener: TcpListener,
    service: Service<S>,
    config: ServerConfig,
    shutdown: impl Future<Output = ()>,
) -> Result<(), KvError> {
    serve_on(&[Handle::current()], listener, service, config, shutdown).await
}

/// [`serve`], with the connections spread evenly over several runtimes, such as one for each core that runs
/// on one thread. It accepts on the runtime that it is called on. With no runtimes, that is the only one.
///
/// # Errors
///
/// As for [`serve`].
pub async fn serve_on<S: Storage>(
    runtimes: &[Handle],
    listener: TcpListener,
    service: Service<S>,
    config: ServerConfig,
    shutdown: impl Future<Output = ()>,
) -> Result<(), KvError> {
    let mut server = Server::new(runtimes, service, config);
    let mut shutdown = pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            Some(ended) = server.connections.join_next() => {
                report_panic(ended);
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => server.take_in(stream, peer),
            Err(error) if is_transient(&error) => server.count_accept_error(),
            Err(error) => {
                server.report_accept_error(&error);
                // Ready when the server is to stop.
                if timeout(ACCEPT_PAUSE, &mut shutdown).await.is_ok() {
                    break;
                }
            }
        }
    }
    drop(listener);
    server.stop().await
}

struct Server<S> {
    runtimes: Vec<Handle>,
    shared: Arc<Shared<S>>,
    connections: JoinSet<()>,
    stop: CancellationToken,
    free: Arc<Semaphore>,
    turning_away: Arc<Semaphore>,
    accept_errors: Throttle,
    rejections: Throttle,
    number: usize,
}

/// What every connection of a server shares.
struct Shared<S> {
    service: Service<S>,
    config: ServerConfig,
    budget: Budget,
    complaints: Throttle,
}

impl<S: Storage> Server<S> {
    fn new(runtimes: &[Handle], service: Service<S>, config: ServerConfig) -> Self {
        let max_connections = config.max_connections.min(Semaphore::MAX_PERMITS);
        let runtimes = if runtimes.is_empty() {
            vec![Handle::current()]
        } else {
            runtimes.to_vec()
        };
        Self {
            runtimes,
            connections: JoinSet::new(),
            stop: CancellationToken::new(),
            free: Arc::new(Semaphore::new(max_connections)),
            turning_away: Arc::new(Semaphore::new(MAX_TURNED_AWAY)),
            accept_errors: Throttle::new(1, ACCEPT_ERROR_PERIOD),
            rejections: Throttle::per_second(),
            number: 0,
            shared: Arc::new(Shared {
                budget: Budget::new(&config, service.metrics().cloned()),
                service,
                config,
                complaints: Throttle::per_second(),
            }),
        }
    }

    /// Gives a connection a task, on the runtime whose turn it is.
    fn take_in(&mut self, stream: TcpStream, peer: SocketAddr) {
        if let Some(metrics) = self.shared.service.metrics() {
            metrics.count_accepted();
        }
        self.number += 1;
        let span = info_span!("connection", number = self.number, %peer);
        // It moves to the runtime that serves it, which has to ask the operating system for itself.
        let stream = match stream.into_std() {
            Ok(stream) => stream,
            Err(error) => return debug!(parent: &span, %error, "cannot take in a connection"),
        };
        let shared = Arc::clone(&self.shared);
        let turn = self.number % self.runtimes.len();
        let Some(runtime) = self.runtimes.get(turn) else {
            return;
        };
        match Arc::clone(&self.free).try_acquire_owned() {
            Ok(slot) => {
                let stop = self.stop.clone();
                let connection = async move { shared.run(stream, stop, slot).await };
                self.connections
                    .spawn_on(connection.instrument(span), runtime);
            }
            Err(_) => {
                self.report_rejection(&span);
                if let Ok(turn) = Arc::clone(&self.turning_away).try_acquire_owned() {
                    let refusal = async move { shared.turn_away(stream, turn).await };
                    self.connections.spawn_on(refusal.instrument(span), runtime);
                }
            }
        }
    }

    fn report_rejection(&self, span: &tracing::Span) {
        let limit = self.shared.config.max_connections;
        if let Some(suppressed) = self.rejections.pass() {
            warn!(parent: span, limit, suppressed, "turned away: there are as many connections as there may be");
        }
        if let Some(metrics) = self.shared.service.metrics() {
            metrics.count_rejected(Rejection::MaxConnections);
        }
    }

    fn report_accept_error(&self, error: &io::Error) {
        self.count_accept_error();
        if let Some(suppressed) = self.accept_errors.pass() {
            warn!(%error, suppressed, "cannot accept a connection");
        }
    }

    fn count_accept_error(&self) {
        if let Some(metrics) = self.shared.service.metrics() {
            metrics.count_accept_error();
        }
    }

    async fn stop(self) -> Result<(), KvError> {
        let patience = self.shared.config.shutdown_timeout;
        let for_connections = patience - patience / SYNC_SHARE;
        let began = Instant::now();
        info!(connections = self.connections.len(), "draining");
        self.shared.service.stop();
        self.stop.cancel();
        drain(self.connections, for_connections).await;
        match timeout(
            patience.saturating_sub(began.elapsed()),
            self.shared.service.sync(),
        )
        .await
        {
            Ok(synced) => Ok(synced?),
            Err(elapsed) => Err(StorageError::Sync {
                source: elapsed.into(),
            }
            .into()),
        }
    }
}

impl<S: Storage> Shared<S> {
    async fn run(
        &self,
        stream: StdTcpStream,
        stop: CancellationToken,
        _slot: OwnedSemaphorePermit,
    ) {
        let counted = Counted::new(&self.service);
        debug!("connected");
        let stream = match self.adopt(stream) {
            Ok(stream) => stream,
            Err(error) => {
                debug!(%error, "cannot set up the connection");
                return counted.end(Ending::Broken);
            }
        };
        let service = self.service.clone();
        let mut connection =
            ProstServerStream::with_budget(stream, service, self.config, &self.budget);
        let stop = pin!(stop.cancelled_owned());
        let served = connection.serve(stop).await;
        // At once: the client may be listened to for some time yet.
        let ending = match &served {
            Ok(end) => Ending::from(*end),
            Err(error) => self.report(error),
        };
        let finished = connection.finish(&served).await;
        debug!(reason = ?ending, "disconnected");
        counted.end(finished.map_or_else(|error| self.report(&error), |()| ending));
    }

    /// Logs and counts why a connection failed.
    fn report(&self, error: &KvError) -> Ending {
        let kind = match error {
            KvError::Decode(DecodeError::Io(_)) | KvError::Encode(_) => {
                debug!(error = %Report(error), "the connection broke");
                return Ending::Broken;
            }
            KvError::WriteTimeout { .. } => {
                self.complain(error, "the client takes no answers");
                return Ending::WriteTimeout;
            }
            KvError::FrameTimeout { .. } => ProtocolError::FrameTimeout,
            KvError::Decode(error) => ProtocolError::from(error),
            _ => ProtocolError::Other,
        };
        self.complain(error, "the client broke the protocol");
        if let Some(metrics) = self.service.metrics() {
            metrics.count_protocol_error(kind);
        }
        Ending::ProtocolError
    }

    fn complain(&self, error: &KvError, message: &str) {
        if let Some(suppressed) = self.complaints.pass() {
            warn!(error = %Report(error), suppressed, "{message}");
        }
    }

    async fn turn_away(&self, stream: StdTcpStream, _turn: OwnedSemaphorePermit) {
        let limit = self.config.max_connections;
        let Ok(stream) = self.adopt(stream) else {
            return;
        };
        let service = self.service.clone();
        let mut connection =
            ProstServerStream::with_budget(stream, service, self.config, &self.budget);
        let error = KvError::TooManyConnections { limit };
        let refusal = connection.turn_away(&error, TURN_AWAY_PATIENCE);
        // It may be gone by now, or not read; there is nobody else to tell.
        let _ = timeout(TURN_AWAY_PATIENCE, refusal).await;
    }

    fn adopt(&self, stream: StdTcpStream) -> io::Result<TcpStream> {
        let stream = TcpStream::from_std(stream)?;
        // It can be served without.
        if let Err(error) = set_up(&stream, self.config.tcp_keepalive) {
            debug!(%error, "cannot set TCP_NODELAY or keepalive");
        }
        Ok(stream)
    }
}

/// A connection that is counted as one until it ends in whatever way.
struct Counted<'a, S: Storage> {
    service: &'a Service<S>,
    ending: Ending,
}

impl<'a, S: Storage> Counted<'a, S> {
    fn new(service: &'a Service<S>) -> Self {
        if let Some(metrics) = service.metrics() {
            metrics.connection_began();
        }
        Self {
            service,
            ending: Ending::Dropped,
        }
    }

    fn end(mut self, ending: Ending) {
        self.ending = ending;
    }
}

impl<S: Storage> Drop for Counted<'_, S> {
    fn drop(&mut self) {
        if let Some(metrics) = self.service.metrics() {
            metrics.connection_ended(self.ending);
        }
    }
}

impl From<End> for Ending {
    fn from(end: End) -> Self {
        match end {
            End::Closed => Self::Closed,
            End::Stopped => Self::Stopped,
            End::Idle => Self::IdleTimeout,
        }
    }
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
        // One that is in a call that blocks cannot be ended, and is not waited for.
        let _ = timeout(ABORT_PATIENCE, connections.shutdown()).await;
    }
}

pub(super) fn report_panic(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        error!(%error, "a connection's task failed");
    }
}
