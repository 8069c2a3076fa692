//! The server: accepts connections, gives each a task, and shuts them down gracefully.
//!
//! All tasks are in the server's `JoinSet`: none outlives it, and a panic in one affects no other.
//! A failure to accept is logged and waited out; only the embedder stops the server. Log lines that
//! clients can cause are limited to a few a second.

mod accepted;
mod addresses;
mod allocation;
mod budget;
mod connection;
mod counted;
mod endpoint;
mod error;
mod handler;
#[cfg(feature = "http")]
mod http;
mod listener;
mod socket;
mod stream;

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, error, info, info_span, warn};

use self::accepted::Accepted;
use self::addresses::Addresses;
use self::handler::Handler;
use self::listener::is_transient;
use crate::command::Service;
use crate::config::ServerConfig;
use crate::error::KvError;
use crate::metrics::Rejection;
use crate::storage::{DefaultStorage, Storage, StorageError};
use crate::throttle::Throttle;
#[cfg(feature = "tls")]
use crate::tls::TlsServerAcceptor;

pub use connection::ProstServerStream;
pub use endpoint::Endpoint;
pub use error::ServeError;
#[cfg(feature = "http")]
pub use http::{PendingService, serve_http};
pub use listener::listen;

/// Pause after an accept error that is likely to last, such as a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Such errors are logged at most once per period.
const ACCEPT_ERROR_PERIOD: Duration = Duration::from_secs(10);

/// How many rejected connections are sent an error at a time. Any others are closed without one.
const MAX_REJECTIONS: usize = 128;

/// How long to wait for aborted connection tasks to end.
const ABORT_TIMEOUT: Duration = Duration::from_millis(100);

/// A quarter of the shutdown timeout is reserved for the last sync: the timeout divided by this.
const SYNC_SHARE: u32 = 4;

/// Serves connections to one endpoint until `shutdown` is ready: the short form of
/// [`Server::builder`], which takes several endpoints. [`ServerBuilder::serve`] tells how a server
/// stops.
///
/// It serves TCP, with or without TLS. To serve any other stream, use a [`ProstServerStream`] for
/// each connection.
///
/// ```
/// use kv::{CommandRequest, MemTable, ProstClientStream, ServerConfig, Service, listen, serve};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
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
/// client.execute(CommandRequest::new_hset("t", "k", "v".into())).await?;
///
/// drop(stop);
/// server.await.expect("the server does not panic")?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// [`ServeError::Storage`] if the last sync fails or does not finish in time.
pub async fn serve<S: Storage>(
    endpoint: impl Into<Endpoint>,
    service: Service<S>,
    config: ServerConfig,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let server = Server::builder(service).listen(endpoint).config(config);
    server.serve(shutdown).await
}

/// A server of one [`Service`] on any number of [endpoints](Endpoint), which share its limits: its
/// connections are counted together, and so is the memory for large frames and responses.
///
/// ```
/// use kv::{Client, MemTable, ServerConfig, Server, Service, listen};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (first, second) = (listen("127.0.0.1:0").await?, listen("127.0.0.1:0").await?);
/// let addresses = [first.local_addr()?, second.local_addr()?];
/// let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
/// let server = Server::builder(Service::new(MemTable::new()))
///     .listen(first)
///     .listen(second)
///     .config(ServerConfig::default().with_max_connections(100));
/// let served = tokio::spawn(server.serve(async { drop(stopped.await) }));
///
/// for address in addresses {
///     let client = Client::connect(address).await?;
///     client.hset("scores", "alice", 42).await?;
/// }
///
/// drop(stop);
/// served.await??;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Server<S = DefaultStorage> {
    handler: Arc<Handler<S>>,
    /// Where connections are served; empty for the current runtime.
    runtimes: Vec<Handle>,
    connections: JoinSet<()>,
    stop: CancellationToken,
    addresses: Addresses,
    rejecting: Arc<Semaphore>,
    accept_errors: Throttle,
    rejections: Throttle,
    number: usize,
}

/// Configures a [`Server`]; made by [`Server::builder`].
#[derive(Debug)]
#[must_use]
pub struct ServerBuilder<S> {
    service: Service<S>,
    endpoints: Vec<Endpoint>,
    config: ServerConfig,
    runtimes: Vec<Handle>,
}

impl<S: Storage> ServerBuilder<S> {
    fn new(service: Service<S>) -> Self {
        Self {
            service,
            endpoints: Vec::new(),
            config: ServerConfig::default(),
            runtimes: Vec::new(),
        }
    }

    /// Adds an endpoint to accept connections on. A server without endpoints accepts none, and
    /// runs until it is stopped.
    pub fn listen(mut self, endpoint: impl Into<Endpoint>) -> Self {
        self.endpoints.push(endpoint.into());
        self
    }

    /// Replaces the settings, [`ServerConfig::default`] unless this is called. All endpoints share
    /// the limits for connections and memory.
    pub fn config(mut self, config: ServerConfig) -> Self {
        self.config = config;
        self
    }

    /// Spreads the connections over these runtimes, such as a single-threaded runtime for each
    /// core. Unless this is called, they are served by the runtime that calls
    /// [`serve`](Self::serve), which accepts them in either case.
    ///
    /// A connection is served by the runtime that has the fewest tasks when it is accepted, the
    /// first of them if several have, and stays there. docs/scheduling.md in the repository
    /// compares this with one multi-threaded runtime.
    pub fn runtimes(mut self, runtimes: impl IntoIterator<Item = Handle>) -> Self {
        self.runtimes = runtimes.into_iter().collect();
        self
    }

    /// Serves connections until `shutdown` is ready. Then it stops accepting, answers every request
    /// that has been received, syncs the storage and returns, all within
    /// [`shutdown_timeout`](ServerConfig::with_shutdown_timeout). Connections that have not ended
    /// after three quarters of it are dropped.
    ///
    /// Nothing that a client does stops the server, nor does a failure to accept a connection. An
    /// endpoint that fails to accept pauses for 100 ms, while the others go on.
    ///
    /// # Errors
    ///
    /// [`ServeError::Storage`] if the last sync fails or does not finish in time.
    pub async fn serve(self, shutdown: impl Future<Output = ()>) -> Result<(), ServeError> {
        let mut server = Server::new(self.service, self.config, self.runtimes);
        server.accept(self.endpoints, shutdown).await;
        server.stop().await
    }
}

impl<S: Storage> Server<S> {
    /// A server of this service, which listens nowhere yet.
    pub fn builder(service: Service<S>) -> ServerBuilder<S> {
        ServerBuilder::new(service)
    }

    fn new(service: Service<S>, config: ServerConfig, runtimes: Vec<Handle>) -> Self {
        Self {
            addresses: Addresses::new(&config),
            handler: Arc::new(Handler::new(service, config)),
            runtimes,
            connections: JoinSet::new(),
            stop: CancellationToken::new(),
            rejecting: Arc::new(Semaphore::new(MAX_REJECTIONS)),
            accept_errors: Throttle::new(1, ACCEPT_ERROR_PERIOD),
            rejections: Throttle::per_second(),
            number: 0,
        }
    }

    /// Accepts connections and spawns a task for each, until `shutdown` is ready.
    async fn accept(&mut self, endpoints: Vec<Endpoint>, shutdown: impl Future<Output = ()>) {
        #[cfg(feature = "tls")]
        self.report_certificates(&endpoints);
        let mut shutdown = pin!(shutdown);
        // One future for each endpoint. They take turns, and a paused one holds up no other.
        let mut accepting: FuturesUnordered<_> = endpoints
            .iter()
            .map(|endpoint| accept_after(Duration::ZERO, endpoint))
            .collect();
        loop {
            tokio::select! {
                () = &mut shutdown => break,
                Some(ended) = self.connections.join_next() => report_panic(ended),
                Some((endpoint, accepted)) = accepting.next() => {
                    let pause = match accepted {
                        Ok(accepted) => {
                            self.take_in(accepted);
                            Duration::ZERO
                        }
                        Err(error) => self.report_accept_error(&error),
                    };
                    accepting.push(accept_after(pause, endpoint));
                }
            }
        }
    }

    /// Lets the metrics show which certificate expires first.
    #[cfg(feature = "tls")]
    fn report_certificates(&self, endpoints: &[Endpoint]) {
        let acceptors = endpoints.iter().filter_map(Endpoint::tls_acceptor);
        let acceptors: Vec<_> = acceptors.cloned().collect();
        if let Some(metrics) = self.handler.service.metrics() {
            metrics.set_certificate_expiry(move || {
                acceptors.iter().map(TlsServerAcceptor::not_after).min()
            });
        }
    }

    /// Spawns a task on the runtime that has the fewest tasks.
    fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        let tasks = |runtime: &&Handle| runtime.metrics().num_alive_tasks();
        match self.runtimes.iter().min_by_key(tasks) {
            Some(runtime) => self.connections.spawn_on(task, runtime),
            None => self.connections.spawn(task),
        };
    }

    /// Spawns a task that serves the connection, or rejects it if there are too many.
    fn take_in(&mut self, accepted: Accepted) {
        if let Some(metrics) = self.handler.service.metrics() {
            metrics.count_accepted();
        }
        self.number += 1;
        let span = info_span!("connection", number = self.number, peer = %accepted.peer());
        let handler = Arc::clone(&self.handler);
        match self.addresses.admit(accepted.address()) {
            Ok(slot) => {
                let stop = self.stop.clone();
                self.spawn(handler.run(accepted, stop, slot).instrument(span));
            }
            Err(error) => {
                self.report_rejection(&error, &span);
                let Ok(slot) = Arc::clone(&self.rejecting).try_acquire_owned() else {
                    return;
                };
                self.spawn(handler.reject(accepted, error, slot).instrument(span));
            }
        }
    }

    fn report_rejection(&self, error: &KvError, span: &tracing::Span) {
        let (reason, setting) = match error {
            KvError::TooManyFromAddress { .. } => (Rejection::ConnectionShare, "connection_share"),
            _ => (Rejection::MaxConnections, "max_connections"),
        };
        if let Some(suppressed) = self.rejections.pass() {
            let config = &self.handler.config;
            warn!(
                parent: span,
                max_connections = config.max_connections,
                connection_share = config.connection_share,
                suppressed,
                "connection rejected: {setting} reached"
            );
        }
        if let Some(metrics) = self.handler.service.metrics() {
            metrics.count_rejected(reason);
        }
    }

    /// Counts the error, and logs it if it is likely to last. Returns how long to pause for it.
    fn report_accept_error(&self, error: &io::Error) -> Duration {
        if let Some(metrics) = self.handler.service.metrics() {
            metrics.count_accept_error();
        }
        if is_transient(error) {
            return Duration::ZERO;
        }
        if let Some(suppressed) = self.accept_errors.pass() {
            warn!(%error, suppressed, "cannot accept a connection");
        }
        ACCEPT_PAUSE
    }

    async fn stop(mut self) -> Result<(), ServeError> {
        let patience = self.handler.config.shutdown_timeout;
        let for_connections = patience - patience / SYNC_SHARE;
        let began = Instant::now();
        info!(connections = self.connections.len(), "draining");
        self.handler.service.stop();
        self.stop.cancel();
        self.drain(for_connections).await;
        let for_sync = patience.saturating_sub(began.elapsed());
        match timeout(for_sync, self.handler.service.sync_all()).await {
            Ok(synced) => Ok(synced?),
            Err(elapsed) => Err(StorageError::Sync {
                source: elapsed.into(),
            }
            .into()),
        }
    }

    async fn drain(&mut self, patience: Duration) {
        let all_ended = async {
            while let Some(ended) = self.connections.join_next().await {
                report_panic(ended);
            }
        };
        if timeout(patience, all_ended).await.is_err() {
            warn!(
                connections = self.connections.len(),
                "dropping connections that did not end in time"
            );
            // A task inside a blocking call cannot be aborted, so the wait is bounded.
            let _ = timeout(ABORT_TIMEOUT, self.connections.shutdown()).await;
        }
    }
}

/// Accepts the next connection after a pause, and gives the endpoint back.
async fn accept_after(pause: Duration, endpoint: &Endpoint) -> (&Endpoint, io::Result<Accepted>) {
    if !pause.is_zero() {
        sleep(pause).await;
    }
    (endpoint, endpoint.accept().await)
}

/// Logs the panic of a task, if it panicked.
fn report_panic(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        error!(%error, "connection task failed");
    }
}
