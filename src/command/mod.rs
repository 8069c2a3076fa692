//! What a request does: a [`CommandRequest`] in, a [`CommandResponse`] out.
//!
//! The service knows the commands, the storage and the hooks. It knows no socket and no frame, and it
//! runs on whatever polls it.

mod about;
mod dispatch;
mod hello;
mod hooks;
mod limits;
pub(crate) mod names;
mod room;
mod tally;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use tracing::error;

use crate::abi::{Command, CommandRequest, CommandResponse};
use crate::error::{BadRequest, KvError, Report};
use crate::metrics::{Metrics, Overload};
use crate::pubsub::{Published, Session, Topics};
use crate::storage::{MemTable, Storage, StorageError};
use crate::throttle::Throttle;

use about::Vitals;
pub(crate) use about::{Counted, Limits};
pub use dispatch::CommandService;
use hooks::Hooks;
pub(crate) use limits::limits;
pub(crate) use names::NameLimits;
pub use room::AnswerRoom;
use tally::{Logged, Tally};

/// Executes commands on a storage. Clones share the storage and the hooks.
///
/// A response is given out only when what it promises is true: of a write, once [`Storage::sync`] has
/// confirmed it. [`execute`](Self::execute) does all of it for one request; a caller with several at
/// hand calls [`begin`](Self::begin) for each and [`commit`](Self::commit) once, for one sync.
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
pub struct Service<S = MemTable> {
    inner: Arc<Inner<S>>,
}

struct Inner<S> {
    storage: S,
    hooks: Hooks,
    metrics: Option<Metrics>,
    topics: Arc<Topics>,
    /// How often the storage has failed, and how many of these times it is known to have recovered from.
    storage_failures: AtomicU64,
    storage_recovered: AtomicU64,
    complaints: Throttle,
    stopping: AtomicBool,
    vitals: Vitals,
}

/// Whether a service can serve: what `/readyz` tells.
#[derive(Debug)]
#[non_exhaustive]
pub enum Readiness {
    /// It can.
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
        ServiceBuilder {
            storage,
            hooks: Hooks::default(),
            metrics: None,
        }
    }

    /// The storage.
    pub fn storage(&self) -> &S {
        &self.inner.storage
    }

    /// The counters, where the service was built with some.
    pub fn metrics(&self) -> Option<&Metrics> {
        self.inner.metrics.as_ref()
    }

    /// Whether requests can be served. The storage is asked [how it is](Storage::health); after a failure of a request it
    /// is tried out, by a read and a sync, until it works again. Once a server of this service has begun to stop, it is stopping for good.
    pub async fn readiness(&self) -> Readiness {
        if self.inner.stopping.load(Ordering::Relaxed) {
            return Readiness::Stopping;
        }
        if let Err(error) = self.inner.storage.health() {
            return Readiness::StorageFailing(error);
        }
        // What fails while it is tried out counts for the next time.
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

    /// Returns once the storage has [failed for good](Storage::failed): most of what is asked of it from then on is
    /// answered with 500. A server had better stop then, and its process be started again; what ends a server ends with
    /// this as well:
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
    /// // An error where the storage has failed, since then the last sync fails as well.
    /// kv::serve(listener, service, kv::ServerConfig::default(), stop).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn failed(&self) -> StorageError {
        self.inner.storage.failed().await
    }

    /// Executes one request and returns what may be sent.
    pub async fn execute(&self, request: CommandRequest) -> CommandResponse {
        let executed = self.begin(request).await;
        let mut responses = self.commit([executed]).await;
        responses.pop().unwrap_or_default()
    }

    /// Executes one request on the storage, without confirming it: see [`commit`](Self::commit).
    pub async fn begin(&self, request: CommandRequest) -> Executed {
        let began = self.clock();
        let mut session = Session::disconnected();
        // Nothing that was sent has a limit here.
        let limits: Limits<'_> = &Vec::new;
        let room = AnswerRoom::UNLIMITED;
        self.begin_within(request, began, &room, &mut session, limits)
            .await
    }

    /// Confirms what requests did, with one sync if any of them wrote, and returns the responses in
    /// their order. Where the sync fails, the responses to writes are that error.
    pub async fn commit(
        &self,
        executed: impl IntoIterator<Item = Executed>,
    ) -> Vec<CommandResponse> {
        let mut executed: Vec<_> = executed.into_iter().collect();
        let began = executed.first().and_then(|first| first.began);
        self.confirm(&mut executed).await;
        let mut tally = self.tally(began);
        for executed in &executed {
            tally.answered(executed, executed.response.status);
        }
        let responses = executed.iter_mut().map(Executed::take_response);
        responses.collect()
    }

    /// [`begin`](Self::begin) as one of a batch that began then, where there is so much room for an answer, for
    /// a connection that may have subscriptions and has these limits.
    pub(crate) async fn begin_within(
        &self,
        request: CommandRequest,
        began: Option<Instant>,
        room: &AnswerRoom,
        session: &mut Session,
        limits: Limits<'_>,
    ) -> Executed {
        let logged = Logged::of(&request);
        let command = request.command();
        self.inner.hooks.received(&request);
        let Inner {
            storage,
            topics,
            vitals,
            ..
        } = &*self.inner;
        let told = (vitals, limits);
        let outcome = dispatch::dispatch(request, storage, room, topics, session, told).await;
        match outcome.failure.as_deref() {
            Some(KvError::Storage(failure)) => self.storage_failed(failure),
            Some(KvError::Overloaded { .. }) => self.count_overload(Overload::Answer),
            _ => {}
        }
        self.inner.hooks.executed(&outcome.response);
        Executed {
            response: outcome.response,
            wrote: outcome.wrote,
            published: outcome.published,
            compress: outcome.compress,
            command,
            began,
            logged,
        }
    }

    /// What stands for a request that was not executed.
    pub(crate) fn refuse(&self, error: &KvError) -> Executed {
        Executed {
            response: error.response(),
            wrote: false,
            published: Published::default(),
            compress: None,
            command: None,
            began: self.clock(),
            logged: None,
        }
    }

    /// [`commit`](Self::commit) in place, for one who [`tally`](Self::tally)s what was really answered.
    pub(crate) async fn confirm(&self, executed: &mut [Executed]) {
        let synced = if executed.iter().any(|executed| executed.wrote) {
            self.sync().await
        } else {
            Ok(())
        };
        let failure = synced
            .err()
            .map(|error| CommandResponse::from(KvError::Storage(error)));
        for executed in executed {
            if let (Some(failure), true) = (&failure, executed.wrote) {
                executed.response.clone_from(failure);
            }
            self.inner.hooks.before_send(&mut executed.response);
        }
    }

    /// Counts and logs what is answered to requests that were taken up then, and are confirmed now.
    pub(crate) fn tally(&self, began: Option<Instant>) -> Tally<'_> {
        let took = began.map(|began| began.elapsed());
        Tally::new(self.metrics(), took.unwrap_or_default())
    }

    pub(crate) fn count_overload(&self, what: Overload) {
        if let Some(metrics) = self.metrics() {
            metrics.count_overload(what);
        }
    }

    /// The time, if there is anybody who wants to know how long requests take.
    pub(crate) fn clock(&self) -> Option<Instant> {
        (self.inner.metrics.is_some() || tally::is_logged()).then(Instant::now)
    }

    /// The tables in memory, where requests may be answered without being told of: there are neither hooks nor a log of
    /// them.
    pub(crate) fn in_memory(&self) -> Option<&MemTable> {
        let told = !self.inner.hooks.is_empty() || tally::is_logged();
        self.storage().in_memory().filter(|_| !told)
    }

    /// Counts a connection until what this gives is dropped.
    pub(crate) fn count_connection(&self) -> Counted<'_> {
        self.inner.vitals.count()
    }

    /// From here on [`readiness`](Self::readiness) says that the server is stopping.
    pub(crate) fn stop(&self) {
        self.inner.stopping.store(true, Ordering::Relaxed);
    }

    /// [`Storage::sync`], counted.
    pub(crate) async fn sync(&self) -> Result<(), StorageError> {
        self.count_sync(self.inner.storage.sync()).await
    }

    /// [`Storage::sync_all`], counted.
    pub(crate) async fn sync_all(&self) -> Result<(), StorageError> {
        self.count_sync(self.inner.storage.sync_all()).await
    }

    async fn count_sync(
        &self,
        sync: impl Future<Output = Result<(), StorageError>>,
    ) -> Result<(), StorageError> {
        // In memory there is nothing to wait for.
        let counts = self.inner.metrics.is_some() && self.storage().in_memory().is_none();
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

    /// Whether anybody wants to hear of what was sent.
    pub(crate) fn has_after_send_hooks(&self) -> bool {
        self.inner.hooks.has_after_send()
    }

    /// To be called for each response once its bytes have left.
    pub(crate) fn after_send(&self, response: &CommandResponse) {
        self.inner.hooks.after_send(response);
    }
}

/// What a command came to, before the storage has confirmed it. It may not be sent:
/// [`Service::commit`] makes it a response that may.
#[derive(Debug)]
#[must_use = "what was executed is not confirmed before Service::commit"]
pub struct Executed {
    response: CommandResponse,
    wrote: bool,
    published: Published,
    compress: Option<bool>,
    command: Option<Command>,
    /// When the batch that it belongs to was taken up, if anybody wants to know.
    began: Option<Instant>,
    /// Only where it will be logged.
    logged: Option<Box<Logged>>,
}

impl Executed {
    /// The response, which may be sent once it is confirmed.
    pub(crate) fn take_response(&mut self) -> CommandResponse {
        std::mem::take(&mut self.response)
    }

    /// The length of the response, encoded, in bytes.
    pub(crate) fn encoded_len(&self) -> usize {
        prost::Message::encoded_len(&self.response)
    }

    /// Whether the command may have changed the storage.
    pub(crate) fn wrote(&self) -> bool {
        self.wrote
    }

    /// The message that waits for others now, if any does.
    pub(crate) fn published(&self) -> Published {
        self.published
    }

    /// What changes if the response is sent: whether the connection compresses what it sends, from
    /// the response on.
    pub(crate) fn compresses(&self) -> Option<bool> {
        self.compress
    }

    /// Takes this error for the response. Of a write it would be a lie.
    pub(crate) fn refuse(&mut self, error: &KvError) {
        self.response = error.response();
    }
}

/// Adds hooks to a [`Service`]. Any number of each kind can be added; they run in the order of their
/// registration, in the task of the request, which they hold up for as long as they take. One that panics
/// ends its connection, with what of the batch was executed neither confirmed nor answered.
///
/// Hooks see requests and the answers to them. They do not see pushes: a published message passes `on_received` once,
/// as the `Publish` of its sender, and no hook on its way to the subscribers.
#[derive(Debug)]
#[must_use = "a builder does nothing before it is built"]
pub struct ServiceBuilder<S = MemTable> {
    storage: S,
    hooks: Hooks,
    metrics: Option<Metrics>,
}

impl<S: Storage> ServiceBuilder<S> {
    /// Counts requests, and what else there is to count, in these. Without, nothing is counted, which saves
    /// looking at the clock.
    pub fn metrics(mut self, metrics: Metrics) -> Self {
        self.metrics = Some(metrics);
        self
    }

    /// Adds a hook that sees each request before it is executed.
    pub fn on_received(mut self, hook: impl Fn(&CommandRequest) + Send + Sync + 'static) -> Self {
        self.hooks.on_received.push(Box::new(hook));
        self
    }

    /// Adds a hook that sees what each command came to on the storage, before it is confirmed.
    pub fn on_executed(mut self, hook: impl Fn(&CommandResponse) + Send + Sync + 'static) -> Self {
        self.hooks.on_executed.push(Box::new(hook));
        self
    }

    /// Adds a hook that sees each response once it is confirmed, and may change it before it is sent. It may not make a
    /// push of it, by setting [`CommandResponse::subscription`]: the request would be left without an answer. The client
    /// is sent [`KvError::HookMadePush`], status 500, in place of such a response, and the log says so.
    pub fn on_before_send(
        mut self,
        hook: impl Fn(&mut CommandResponse) + Send + Sync + 'static,
    ) -> Self {
        self.hooks.on_before_send.push(Box::new(hook));
        self
    }

    /// Adds a hook that sees each response to a request after the operating system has taken all of its bytes. A
    /// response that could not be sent is not seen. Only a server calls it: a caller of
    /// [`Service::execute`] sends for itself.
    pub fn on_after_send(
        mut self,
        hook: impl Fn(&CommandResponse) + Send + Sync + 'static,
    ) -> Self {
        self.hooks.on_after_send.push(Box::new(hook));
        self
    }

    /// The service.
    pub fn build(self) -> Service<S> {
        Service {
            inner: Arc::new(Inner {
                storage: self.storage,
                hooks: self.hooks,
                topics: Arc::new(Topics::new(self.metrics.clone())),
                metrics: self.metrics,
                storage_failures: AtomicU64::new(0),
                storage_recovered: AtomicU64::new(0),
                complaints: Throttle::per_second(),
                stopping: AtomicBool::new(false),
                vitals: Vitals::new(),
            }),
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
