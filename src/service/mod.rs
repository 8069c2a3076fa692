//! What a request does: a [`CommandRequest`] in, a [`CommandResponse`] out.
//!
//! The service knows the commands, the storage and the hooks. It knows no socket and no frame, and it
//! runs on whatever polls it.

mod command;
mod hooks;

use std::fmt;
use std::sync::Arc;

use crate::abi::{CommandRequest, CommandResponse};
use crate::error::{BadRequest, KvError};
use crate::storage::Storage;

pub use command::CommandService;
use hooks::Hooks;

/// Executes commands on a storage. Clones share the storage and the hooks.
///
/// A response is given out only when what it promises is true: of a write, once [`Storage::sync`] has
/// confirmed it. [`execute`](Self::execute) does all of it for one request; a caller with several at
/// hand calls [`begin`](Self::begin) for each and [`commit`](Self::commit) once, for one sync.
///
/// ```
/// use kv::abi::CommandRequest;
/// use kv::{MemTable, Service};
///
/// # futures::executor::block_on(async {
/// let service = Service::builder(MemTable::new())
///     .on_executed(|response| println!("status {}", response.status))
///     .build();
/// service.execute(CommandRequest::new_hset("users", "alice", 42)).await;
/// let response = service.execute(CommandRequest::new_hget("users", "alice")).await;
/// assert_eq!(response.values, [42.into()]);
/// # });
/// ```
pub struct Service<S> {
    inner: Arc<Inner<S>>,
}

struct Inner<S> {
    storage: S,
    hooks: Hooks,
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
        }
    }

    /// The storage.
    pub fn storage(&self) -> &S {
        &self.inner.storage
    }

    /// Executes one request and returns what may be sent.
    pub async fn execute(&self, request: CommandRequest) -> CommandResponse {
        let executed = self.begin(request).await;
        let mut responses = self.commit([executed]).await;
        responses.pop().unwrap_or_default()
    }

    /// Executes one request on the storage, without confirming it: see [`commit`](Self::commit).
    pub async fn begin(&self, request: CommandRequest) -> Executed {
        self.inner.hooks.received(&request);
        let executed = command::dispatch(request, &self.inner.storage).await;
        self.inner.hooks.executed(&executed.response);
        executed
    }

    /// Confirms what requests did, with one sync if any of them wrote, and returns the responses in
    /// their order. Where the sync fails, the responses to writes are that error.
    pub async fn commit(
        &self,
        executed: impl IntoIterator<Item = Executed>,
    ) -> Vec<CommandResponse> {
        let executed: Vec<Executed> = executed.into_iter().collect();
        let wrote = executed.iter().any(|executed| executed.wrote);
        let synced = if wrote {
            self.inner.storage.sync().await
        } else {
            Ok(())
        };
        let failure = synced
            .err()
            .map(|error| CommandResponse::from(KvError::Storage(error)));
        let responses = executed
            .into_iter()
            .map(|Executed { response, wrote }| match &failure {
                Some(failure) if wrote => failure.clone(),
                _ => response,
            });
        responses
            .map(|response| self.inner.hooks.before_send(response))
            .collect()
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
}

impl Executed {
    /// The length of the response, encoded, in bytes.
    pub(crate) fn encoded_len(&self) -> usize {
        prost::Message::encoded_len(&self.response)
    }
}

/// Adds hooks to a [`Service`]. Any number of each kind can be added; they run in the order of their
/// registration, in the task of the request, which they hold up for as long as they take. One that panics
/// ends its connection, with what of the batch was executed neither confirmed nor answered.
#[derive(Debug)]
#[must_use = "a builder does nothing before it is built"]
pub struct ServiceBuilder<S> {
    storage: S,
    hooks: Hooks,
}

impl<S: Storage> ServiceBuilder<S> {
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

    /// Adds a hook that sees each response once it is confirmed, and may change it before it is sent.
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
