//! Executes requests: a [`CommandRequest`] in, a [`CommandResponse`] out.
//!
//! The service knows the commands, the storage and the hooks. It knows neither sockets nor frames
//! nor an async runtime. `execute` has the steps of every request; `hash`, `pubsub` and `server`
//! each have a family of commands.

mod answer;
mod builder;
mod execute;
mod hash;
mod hooks;
mod names;
mod permission;
mod pubsub;
mod server;
mod session;
mod tally;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use bytes::BytesMut;
use prost::Message;
use tracing::error;

use crate::abi::{CommandRequest, CommandResponse, RequestRef, encoded_response};
use crate::error::KvError;
use crate::metrics::{Metrics, Overload};
use crate::pubsub::Topics;
use crate::report::Report;
use crate::storage::{DefaultStorage, Storage, StorageError};
use crate::throttle::Throttle;

pub(crate) use answer::{Answer, AnswerLimits, Memory};
pub use builder::ServiceBuilder;
pub(crate) use execute::{Begun, Outcome};
pub(crate) use hooks::Hooks;
pub(crate) use names::NameLimits;
use server::Vitals;
pub(crate) use server::{ConnectionGuard, limits};
pub use session::Peer;
pub(crate) use session::Session;
pub(crate) use tally::{Logged, Tally};

/// Executes commands on a storage. Clones share the storage and the hooks.
///
/// The response to a write is returned once [`Storage::sync`] has confirmed the write. Writes that
/// are executed at the same time share a sync.
///
/// ```
/// use kv::{CommandRequest, MemTable, Service};
///
/// # futures::executor::block_on(async {
/// let service = Service::builder(MemTable::new())
///     .on_executed(|response| println!("status {}", response.status))
///     .build();
/// service.execute(CommandRequest::new_hset("users", "alice", 42.into())).await;
/// let response = service.execute(CommandRequest::new_hget("users", "alice")).await;
/// assert_eq!(response.values, [42.into()]);
/// # });
/// ```
pub struct Service<S = DefaultStorage> {
    inner: Arc<Inner<S>>,
}

struct Inner<S> {
    storage: S,
    hooks: Hooks,
    metrics: Option<Metrics>,
    topics: Arc<Topics>,
    /// The number of storage failures, and how many of them the storage is known to have recovered
    /// from.
    storage_failures: AtomicU64,
    storage_recovered: AtomicU64,
    complaints: Throttle,
    stopping: AtomicBool,
    vitals: Vitals,
}

/// Whether a service can serve requests: the result of `/readyz`.
#[derive(Debug)]
#[non_exhaustive]
pub enum Readiness {
    /// It can serve requests.
    Ready,
    /// The server is stopping.
    Stopping,
    /// The storage fails.
    StorageFailing(StorageError),
}

impl<S: Storage> Service<S> {
    /// A service without hooks.
    pub fn new(storage: S) -> Self {
        Self::builder(storage).build()
    }

    /// A service to which hooks are added before it is built.
    pub fn builder(storage: S) -> ServiceBuilder<S> {
        ServiceBuilder::new(storage)
    }

    /// The storage.
    pub fn storage(&self) -> &S {
        &self.inner.storage
    }

    /// The metrics, if the service was built with any.
    pub fn metrics(&self) -> Option<&Metrics> {
        self.inner.metrics.as_ref()
    }

    /// Whether requests can be served.
    ///
    /// Checks the [health](Storage::health) of the storage. After a request has failed in the
    /// storage, also tries a read and a sync, until both succeed. Once a server of this service has
    /// begun to stop, the service stays [`Stopping`](Readiness::Stopping).
    pub async fn readiness(&self) -> Readiness {
        if self.inner.stopping.load(Ordering::Relaxed) {
            return Readiness::Stopping;
        }
        if let Err(error) = self.inner.storage.health() {
            return Readiness::StorageFailing(error);
        }
        // Failures from here on count for the next call.
        let failures = self.inner.storage_failures.load(Ordering::Relaxed);
        if failures != self.inner.storage_recovered.load(Ordering::Relaxed) {
            let storage = &self.inner.storage;
            let tried = match storage.contains("", "").await {
                Ok(_) => storage.sync().await,
                Err(error) => Err(error),
            };
            if let Err(error) = tried {
                return Readiness::StorageFailing(error);
            }
            let recovered = &self.inner.storage_recovered;
            recovered.fetch_max(failures, Ordering::Relaxed);
        }
        Readiness::Ready
    }

    /// Returns once the storage has [failed for good](Storage::failed). From then on most requests
    /// are answered with 500, so the server should stop and its process be restarted:
    ///
    /// ```no_run
    /// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
    /// let service = kv::Service::new(kv::SledDb::open("data")?);
    /// let storage = service.clone();
    /// let stop = async move {
    ///     tokio::select! {
    ///         _ = tokio::signal::ctrl_c() => {}
    ///         failure = storage.failed() => eprintln!("{}", kv::Report(&failure)),
    ///     }
    /// };
    /// let listener = kv::listen("127.0.0.1:9527").await?;
    /// // Returns an error if the storage has failed, because the last sync then fails too.
    /// kv::serve(listener, service, kv::ServerConfig::default(), stop).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn failed(&self) -> StorageError {
        self.inner.storage.failed().await
    }

    /// Executes one request and returns the response. No limits apply to the request, and its
    /// [peer](Peer) is unknown.
    pub async fn execute(&self, request: CommandRequest) -> CommandResponse {
        let mut tally = Tally::default();
        tally.begin(self.clock());
        let encoded = request.encode_to_vec();
        let view = RequestRef::read(&encoded);
        let mut buffer = BytesMut::new();
        let mut memory = ();
        let outcome = {
            let mut session = Session::disconnected();
            let limits = &AnswerLimits::NONE;
            let mut answer = Answer::new(&mut buffer, limits, &mut memory, usize::MAX);
            match self.begin(view.as_ref(), &mut session, &Vec::new, &mut answer) {
                Begun::Done(outcome) => outcome,
                Begun::Waits(request) => self.wait(request, usize::MAX, &mut answer).await.0,
            }
        };
        let mut response = encoded_response::decode(&buffer);
        self.inner.hooks.executed(&response);
        if self.needs_sync(outcome)
            && let Err(error) = self.sync().await
        {
            response = KvError::Storage(error).response();
        }
        self.inner.hooks.before_send(&mut response);
        tally.add(view.as_ref().map(RequestRef::command), response.status);
        if let Some(logged) = Logged::new(view.as_ref(), tally.began()) {
            tally.log(*logged, response.status);
        }
        tally.report(self.metrics());
        response
    }

    /// Whether an answer has to wait for a sync.
    #[inline]
    pub(crate) fn needs_sync(&self, outcome: Outcome) -> bool {
        outcome.wrote && self.inner.storage.is_durable()
    }

    pub(crate) fn count_overload(&self, what: Overload) {
        if let Some(metrics) = self.metrics() {
            metrics.count_overload(what);
        }
    }

    /// The time, if requests are timed: for metrics or the log.
    pub(crate) fn clock(&self) -> Option<Instant> {
        (self.inner.metrics.is_some() || tally::is_logged()).then(Instant::now)
    }

    /// Counts a connection until the guard is dropped.
    pub(crate) fn count_connection(&self) -> ConnectionGuard<'_> {
        self.inner.vitals.count()
    }

    /// From now on, [`readiness`](Self::readiness) returns [`Stopping`](Readiness::Stopping).
    pub(crate) fn stop(&self) {
        self.inner.stopping.store(true, Ordering::Relaxed);
    }

    /// [`Storage::sync`], counted in the metrics.
    pub(crate) async fn sync(&self) -> Result<(), StorageError> {
        self.count_sync(self.inner.storage.sync()).await
    }

    /// [`Storage::sync_all`], counted in the metrics.
    pub(crate) async fn sync_all(&self) -> Result<(), StorageError> {
        self.count_sync(self.inner.storage.sync_all()).await
    }

    async fn count_sync(
        &self,
        sync: impl Future<Output = Result<(), StorageError>>,
    ) -> Result<(), StorageError> {
        // Without durability there is nothing to wait for.
        let counts = self.inner.metrics.is_some() && self.storage().is_durable();
        let began = counts.then(Instant::now);
        let synced = sync.await;
        if let (Some(metrics), Some(began)) = (self.metrics(), began) {
            metrics.count_sync(began.elapsed());
        }
        if let Err(error) = &synced {
            self.storage_failed(error);
        }
        synced
    }

    fn storage_failed(&self, error: &StorageError) {
        self.inner.storage_failures.fetch_add(1, Ordering::Relaxed);
        if let Some(suppressed) = self.inner.complaints.pass() {
            error!(error = %Report(error), suppressed, "the storage failed");
        }
        if let Some(metrics) = self.metrics() {
            metrics.count_storage_error();
        }
    }

    /// The hooks.
    #[inline]
    pub(crate) fn hooks(&self) -> &Hooks {
        &self.inner.hooks
    }
}

impl<S> Inner<S> {
    fn new(storage: S, hooks: Hooks, metrics: Option<Metrics>) -> Self {
        Self {
            storage,
            hooks,
            topics: Arc::new(Topics::new(metrics.clone())),
            metrics,
            storage_failures: AtomicU64::new(0),
            storage_recovered: AtomicU64::new(0),
            complaints: Throttle::per_second(),
            stopping: AtomicBool::new(false),
            vitals: Vitals::new(),
        }
    }
}

impl<S> Clone for Service<S> {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
        }
    }
}

impl<S> fmt::Debug for Service<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service")
            .field("hooks", &self.inner.hooks)
            .finish_non_exhaustive()
    }
}
